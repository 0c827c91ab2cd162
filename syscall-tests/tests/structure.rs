//! The shape of the tree: which crate may use which, where `unsafe` may stand, numbers that may only
//! go down (`ratchet.txt`), and that every implemented system call is named by a case of the guest.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may use of the workspace; every edge points down. `(tests)` marks an edge that
/// only dev-dependencies may have.
const EDGES: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("ksync", &[]),
    ("netstack", &[]),
    ("hostsys", &["abi", "ksync"]),
    ("platform", &["abi", "ksync", "hostsys"]),
    ("kernel", &["abi", "ksync", "platform"]),
    ("gofer-protocol", &["abi"]),
    ("gofer", &["abi", "hostsys", "gofer-protocol"]),
    ("fs", &["abi", "ksync", "platform", "kernel", "netstack", "gofer-protocol", "gofer (tests)"]),
    ("sentry", &["abi", "ksync", "platform", "kernel", "fs", "netstack", "gofer-protocol", "gofer (tests)"]),
    ("runsc", &["abi", "ksync", "hostsys", "platform", "sentry", "gofer", "gofer-protocol"]),
    ("syscall-tests", &[]),
    ("benches", &[]),
    ("e2e", &[]),
];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the package lies in the workspace").to_owned()
}

/// Every Rust file of the tree with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a folder of the tree").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                directories.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("a readable source");
                let short = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
                list.push((short, text));
            }
        }
    }
    list.sort();
    list
}

/// The code of a file without its test module and without comments and strings of one line.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut out = String::new();
    for line in body.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let outside: Vec<&str> = line.split('"').step_by(2).collect();
        out.push_str(&outside.join("\"\""));
        out.push('\n');
    }
    out
}

/// How often a word stands in the text, not as a part of another.
fn words(text: &str, word: &str) -> usize {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .filter(|(at, _)| {
            !part(text[..*at].chars().next_back()) && !part(text[at + word.len()..].chars().next())
        })
        .count()
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/")
        || path.contains("/examples/")
        || path.ends_with("/tests.rs")
        || path.starts_with("syscall-tests/")
        || path.starts_with("benches/")
}

#[test]
fn crates_use_only_what_lies_below() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the list of crates"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("name");
            if dependency["path"].is_null() {
                continue;
            }
            let in_tests = dependency["kind"].as_str() == Some("dev");
            let of_tests = format!("{other} (tests)");
            let fine = may.contains(&other) || (in_tests && may.contains(&of_tests.as_str()));
            if !fine {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the architecture does not have: {wrong:#?}");
}

#[test]
fn unsafe_stands_only_under_platform_and_in_guests() {
    let guests = ["syscall-tests/src/guest/", "benches/src/micro"];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("platform/") || guests.iter().any(|g| path.starts_with(g)) {
            continue;
        }
        // The attribute that forbids it contains another word.
        if words(&code(&text), "unsafe") > 0 {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "unsafe outside platform/: {wrong:#?}");
}

#[test]
fn crates_outside_platform_forbid_unsafe() {
    let mut wrong = Vec::new();
    for top in [
        "sentry/abi/src/lib.rs",
        "sentry/ksync/src/lib.rs",
        "sentry/netstack/src/lib.rs",
        "sentry/kernel/src/lib.rs",
        "sentry/fs/src/lib.rs",
        "sentry/src/lib.rs",
        "gofer/src/lib.rs",
        "gofer/protocol/src/lib.rs",
        "runsc/src/main.rs",
    ] {
        let text = std::fs::read_to_string(root().join(top)).expect("the top of a crate");
        if !text.contains("#![forbid(unsafe_code)]") {
            wrong.push(top);
        }
    }
    assert!(wrong.is_empty(), "no #![forbid(unsafe_code)]: {wrong:?}");
}

/// Lines that a repeated block has at least.
const BLOCK: usize = 6;

/// The lines of code that say something, each with its place: no imports, no attributes, no closing brackets.
fn telling(path: &str, code: &str) -> Vec<(String, String)> {
    let said = |l: &&(usize, &str)| {
        l.1.chars().any(char::is_alphanumeric)
            && !["use ", "pub use ", "mod ", "#["].iter().any(|w| l.1.starts_with(w))
    };
    let lines = code.lines().map(str::trim).enumerate();
    lines.filter(|l| said(&l)).map(|(n, line)| (line.to_owned(), format!("{path}:{}", n + 1))).collect()
}

/// Places where a block of lines begins that stands further up in the sources already, and where. A longer block counts once
/// for each of its lines beyond `BLOCK` too, so that the number falls by whatever is taken out.
fn repeated() -> Vec<(String, String)> {
    let mut seen: HashMap<Vec<String>, String> = HashMap::new();
    let mut again = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        for window in telling(path, &code(text)).windows(BLOCK) {
            let block: Vec<String> = window.iter().map(|(line, _)| line.clone()).collect();
            let here = window[0].1.clone();
            match seen.entry(block) {
                Entry::Occupied(first) => again.push((here, first.get().clone())),
                Entry::Vacant(place) => drop(place.insert(here)),
            }
        }
    }
    again
}

/// The numbers that may only go down.
fn measured() -> BTreeMap<String, usize> {
    let mut numbers = BTreeMap::new();
    let mut add = |key: &str, n: usize| *numbers.entry(key.to_owned()).or_insert(0) += n;
    let mut longest = 0;
    for (path, text) in sources() {
        longest = longest.max(text.lines().count());
        if is_test(&path) {
            continue;
        }
        let code = code(&text);
        add("unwrap", code.matches(".unwrap()").count());
        add("expect", code.matches(".expect(").count());
        add("unsafe-blocks", words(&code, "unsafe {"));
        add("allow-attributes", code.matches("[allow(").count());
    }
    numbers.insert("longest-file".to_owned(), longest);
    numbers.insert("redundancies".to_owned(), repeated().len());
    numbers
}

#[test]
fn numbers_only_go_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ratchet.txt");
    let now = measured();
    if std::env::var_os("UPDATE_RATCHET").is_some() {
        let lines: Vec<String> = now.iter().map(|(k, n)| format!("{k} {n}")).collect();
        let head = "# Numbers that may only go down; UPDATE_RATCHET=1 cargo test writes what is.\n";
        std::fs::write(&path, format!("{head}{}\n", lines.join("\n"))).expect("the ratchet can be written");
        return;
    }
    let text = std::fs::read_to_string(&path).expect("ratchet.txt");
    let mut wrong = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (key, limit) = line.split_once(' ').expect("KEY NUMBER");
        let limit: usize = limit.parse().expect("a number");
        let is = now.get(key).copied().unwrap_or(0);
        if is > limit {
            wrong.push(format!("{key}: {is}, at most {limit} allowed"));
            if key == "redundancies" {
                let blocks = repeated().into_iter().map(|(here, first)| format!("{here} repeats {first}"));
                println!("{}", blocks.collect::<Vec<_>>().join("\n"));
            }
        } else if is < limit {
            println!("{key} has gone down to {is} from {limit}: lower it in ratchet.txt");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The names of the calls that the sentry's table answers.
fn implemented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("sentry/src/syscalls/table.rs")).unwrap_or_default();
    let lines = text.lines().map(str::trim_start).filter(|l| l.starts_with(|c: char| c.is_ascii_digit()));
    lines
        .filter_map(|line| line.split_once("=>"))
        .filter_map(|(_, rest)| rest.trim_start().split('(').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_implemented_call_is_named_by_a_case() {
    let map = Command::new(env!("CARGO_BIN_EXE_guest")).arg("--map").output().expect("the guest runs");
    let map = String::from_utf8(map.stdout).expect("text");
    let named: BTreeSet<String> = map
        .lines()
        .filter_map(|l| l.split('\t').nth(2))
        .flat_map(|calls| calls.split_whitespace().map(str::to_owned))
        .collect();
    // Calls that are always refused stand in another table.
    assert!(implemented().len() >= 220, "only {} calls", implemented().len());
    let missing: Vec<String> = implemented().difference(&named).cloned().collect();
    assert!(missing.is_empty(), "implemented, but no case names them: {missing:?}");
}

/// The first string literal of a text.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

#[test]
fn every_gap_is_on_the_list() {
    let (mut counted, mut listed) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in sources() {
        if path == "sentry/kernel/src/gap.rs" {
            let list = text.split("NAMES: &[&str] = &[").nth(1).and_then(|t| t.split("];").next());
            listed.extend(list.unwrap_or_default().lines().filter_map(quoted).map(str::to_owned));
        } else if path.starts_with("sentry/") {
            counted.extend(text.split("gap!(").skip(1).filter_map(quoted).map(str::to_owned));
        }
    }
    assert!(!listed.is_empty());
    assert_eq!(counted, listed, "gap! in the sentry's code against NAMES in sentry/kernel/src/gap.rs");
}

#[test]
fn the_map_names_calls_that_exist() {
    let run = |arg: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_guest")).arg(arg).output().expect("the guest runs");
        String::from_utf8(out.stdout).expect("text")
    };
    let calls: BTreeSet<String> =
        run("--calls").lines().filter_map(|l| l.split('\t').next()).map(str::to_owned).collect();
    let map = run("--map");
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in map.lines() {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap_or_default();
        if !names.insert(name.to_owned()) {
            wrong.push(format!("two cases are called {name}"));
        }
        let named = columns.nth(1).unwrap_or_default();
        wrong.extend(
            named.split_whitespace().filter(|c| !calls.contains(*c)).map(|c| format!("{name}: no call {c}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(names.len() >= 300, "only {} cases", names.len());
}
