//! Test suites of others: what passes on the host must pass in the sandbox, case by case, or stand in
//! `apps/expectations.txt` with its reason; and what stands there must really fail.

use crate::place::Place;
use crate::{Shared, package};
use libtest_mimic::{Failed, Trial};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const CPYTHON: &str = "test_os test_posix test_signal test_mmap test_fcntl test_epoll test_select test_selectors \
    test_poll test_pty test_resource test_tempfile test_shutil test_eintr test_fork1 test_wait3 test_wait4 \
    test_threading test_subprocess test_socket test_ssl test_httplib test_urllib2_localnet \
    test_socketserver";

/// CPython's `test_asyncio` takes minutes, so its modules run in parts.
const ASYNCIO: &[(&str, &str)] = &[
    ("loop", "base_events events selector_events unix_events proactor_events sendfile sock_lowlevel"),
    (
        "tasks",
        "buffered_proto context futures futures2 locks pep492 protocols queues runners taskgroups tasks threads \
         timeouts transports waitfor",
    ),
    ("processes", "server streams subprocess"),
    ("ssl", "ssl sslproto"),
];

/// Packages of Go's library whose own tests run.
pub const GO: &[&str] = &["net", "net/http", "internal/poll", "os/signal", "syscall"];

/// Where file suites run: a tmpfs, the root's overlay, a bind mount.
const PLACES: &[(&str, &str)] = &[("tmpfs", "/tmp"), ("overlay", "/opt"), ("bind", "/bind")];

type Cases = BTreeMap<String, bool>;

/// One suite: its name, its command, its time, how its output is read.
struct Suite {
    name: String,
    command: Vec<String>,
    limit_s: u64,
    read: fn(&str) -> Cases,
}

/// A trial for each part of each suite.
pub fn trials(platform: &str, shared: &Arc<Shared>) -> Vec<Trial> {
    let mut list = Vec::new();
    for suite in suites() {
        let (platform, shared) = (platform.to_owned(), Arc::clone(shared));
        list.push(Trial::test(format!("{platform}::{}", suite.name), move || {
            let root = shared.with_tool(suite.name.split("::").next().unwrap_or_default())?;
            check(&root, &platform, &suite, &shared)
        }));
    }
    list
}

fn suites() -> Vec<Suite> {
    let shell = |script: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
    let mut list = Vec::new();
    for (name, path) in PLACES {
        let prepare = "printf '[features]\\n[dummy_auth]\\nentries = [[\"nobody\", \"nogroup\"], [\"games\", \"games\"]]\\n' > /tmp/pjd.toml";
        list.push(Suite {
            name: format!("pjdfstest::{name}"),
            command: shell(format!("{prepare}; mkdir -p {path}/pjd; cd {path}; exec /opt/tools/pjdfstest -c /tmp/pjd.toml -p {path}/pjd 2>&1")),
            limit_s: 600,
            read: pjdfstest,
        });
        let seeds = "for seed in 1 2 3 4 5 6 7 8 9 10; do";
        let fsx = format!("/opt/tools/fsx -N 5000 -S $seed {path}/fsx-$seed >/tmp/log 2>&1");
        list.push(Suite {
            name: format!("fsx::{name}"),
            command: shell(format!("{seeds} if {fsx}; then echo seed-$seed ... ok; else echo seed-$seed ... FAILED; tail -5 /tmp/log; fi; done")),
            limit_s: 600,
            read: dotted,
        });
    }
    let cpython = |name: String, modules: String| Suite {
        name: format!("cpython::{name}"),
        command: shell(format!("cd /tmp && exec timeout 800 python3 -m test -v {modules} 2>&1")),
        limit_s: 900,
        read: unittest,
    };
    for module in CPYTHON.split_whitespace() {
        // The network it asks for is the loopback interface.
        let resources = if module == "test_socketserver" { "-u network " } else { "" };
        list.push(cpython(module.to_owned(), format!("{resources}{module}")));
    }
    for (part, modules) in ASYNCIO {
        let modules: Vec<String> =
            modules.split_whitespace().map(|m| format!("test.test_asyncio.test_{m}")).collect();
        list.push(cpython(format!("test_asyncio::{part}"), modules.join(" ")));
    }
    for package in GO {
        list.push(Suite {
            name: format!("go::{package}"),
            command: shell(format!("cd /opt/tools/go/{package} && exec ./tests -test.v -test.short 2>&1")),
            limit_s: 300,
            read: go,
        });
    }
    list
}

/// Reads unittest's verbose output: `name (where.it.is) … ok`, the result maybe lines later.
fn unittest(output: &str) -> Cases {
    let mut cases = Cases::new();
    let mut current: Option<String> = None;
    for line in output.lines() {
        if let Some((name, rest)) = line.split_once(" (")
            && name.starts_with("test")
            && !name.contains(' ')
            && let Some((place, _)) = rest.split_once(')')
        {
            current = Some(place.to_owned());
        }
        let Some(name) = &current else { continue };
        let result = line.rsplit("... ").next().unwrap_or_default().trim();
        let passed = result == "ok" || (line.trim() == "ok" && !line.contains("..."));
        let failed = result == "FAIL" || result == "ERROR";
        if passed || failed {
            cases.insert(name.clone(), passed);
            current = None;
        } else if result.starts_with("skipped") || result.starts_with("expected failure") {
            current = None;
        }
    }
    cases
}

/// Reads `name ... ok` lines.
fn dotted(output: &str) -> Cases {
    let lines = output.lines().filter_map(|line| line.split_once(" ... "));
    lines.map(|(name, result)| (name.trim().to_owned(), result.trim() == "ok")).collect()
}

/// Reads the lines `--- PASS: name (time)`, which may come after what the test itself printed.
fn go(output: &str) -> Cases {
    let mut cases = Cases::new();
    let named = |line: &str, mark: &str| {
        let (_, rest) = line.split_once(mark)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let mut begun = Vec::new();
    let mut left_out = Vec::new();
    for line in output.lines() {
        for (mark, passed) in [("--- PASS: ", true), ("--- FAIL: ", false)] {
            cases.extend(named(line, mark).map(|name| (name, passed)));
        }
        begun.extend(named(line, "=== RUN "));
        left_out.extend(named(line, "--- SKIP: "));
    }
    // What else writes to the same place can hide a line; the last one says that nothing failed.
    if output.trim_end().ends_with("\nPASS") {
        for name in begun.into_iter().filter(|name| !left_out.contains(name)) {
            cases.entry(name).or_insert(true);
        }
    }
    cases
}

/// Reads pjdfstest's lines: the name, blanks or dots, the result.
fn pjdfstest(output: &str) -> Cases {
    let mut cases = Cases::new();
    for line in output.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(result)) = (words.next(), words.next_back()) else { continue };
        if !name.contains("::") {
            continue;
        }
        match result.to_ascii_lowercase().trim_matches(|c: char| !c.is_alphabetic()) {
            "success" | "ok" | "passed" => cases.insert(name.to_owned(), true),
            "failed" | "fail" | "error" => cases.insert(name.to_owned(), false),
            _ => None,
        };
    }
    cases
}

/// The expected failures: `PLATFORM SUITE CASE reason`, the platform may be `*`. Those whose reason begins
/// with `flaky:` may pass as well; the flag says that.
fn expected(platform: &str, suite: &str) -> BTreeMap<String, bool> {
    let text = std::fs::read_to_string(package().join("apps/expectations.txt")).unwrap_or_default();
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let words: Vec<&str> = line.splitn(4, char::is_whitespace).collect();
            let [for_platform, for_suite, case, reason] = words.as_slice() else {
                panic!("apps/expectations.txt: '{line}': wants PLATFORM SUITE CASE reason");
            };
            ((*for_platform == "*" || *for_platform == platform) && *for_suite == suite)
                .then(|| ((*case).to_owned(), reason.starts_with("flaky:")))
        })
        .collect()
}

fn check(root: &Path, platform: &str, suite: &Suite, shared: &Shared) -> Result<(), Failed> {
    let limit = Duration::from_secs(suite.limit_s);
    let native_run = shared.native(&suite.name, root, &suite.command, limit);
    let native = (suite.read)(&native_run.output);
    let passing: Vec<&String> = native.iter().filter(|(_, passed)| **passed).map(|(name, _)| name).collect();
    if passing.is_empty() {
        let text = format!("no case passes on the host: {}\n{}", native_run.status, native_run.tail(20));
        return Err(text.into());
    }
    let sandbox_run = Place::of(platform).run(root, &suite.command, limit);
    let sandbox = (suite.read)(&sandbox_run.output);
    let expected = expected(platform, &suite.name);
    let mut wrong = Vec::new();
    for name in &passing {
        let passes = sandbox.get(*name).copied();
        let known = expected.get(name.as_str()).copied();
        match passes {
            Some(true) if known == Some(false) => {
                wrong.push(format!("passes, but is expected to fail: {name}"))
            }
            Some(false) if known.is_none() => wrong.push(format!("fails: {name}")),
            None if known.is_none() => wrong.push(format!("did not run to its end: {name}")),
            _ => {}
        }
    }
    wrong.extend(
        expected.keys().filter(|e| !native.contains_key(*e)).map(|e| format!("expected, but no case: {e}")),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = wrong.iter().take(40).cloned().collect();
    let count = format!("{} of {} cases", wrong.len(), passing.len());
    Err(format!(
        "{count}; the sandbox ended with {}\n{}\n{}",
        sandbox_run.status,
        shown.join("\n"),
        sandbox_run.tail(15)
    )
    .into())
}
