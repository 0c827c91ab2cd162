//! The tables of docs/sockets.md against what a sandbox answers.

use crate::batch::Runner;
use libtest_mimic::Failed;
use std::collections::BTreeMap;
use std::path::Path;

/// The levels by the headings of the page.
const LEVELS: &[(&str, i32)] = &[
    ("## SOL_SOCKET", 1),
    ("## IPPROTO_IP", 0),
    ("## IPPROTO_IPV6", 41),
    ("## IPPROTO_TCP", 6),
    ("## IPPROTO_UDP and IPPROTO_UDPLITE", 17),
];

/// What the page says of each option: its name, and whether it is answered.
fn page() -> BTreeMap<(i32, i32), (String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sockets.md");
    let text = std::fs::read_to_string(path).expect("the page about sockets");
    let mut level = None;
    let mut options = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("## ") {
            level = LEVELS.iter().find(|(head, _)| *head == line).map(|(_, level)| *level);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (Some(level), [_, name, number, here, ..]) = (level, cells.as_slice()) else { continue };
        let Ok(number) = number.parse() else { continue };
        assert!(matches!(*here, "real" | "kept" | "refused"), "{name}: '{here}'");
        options.insert((level, number), ((*name).to_owned(), *here != "refused"));
    }
    assert!(options.len() > 150, "only {} options", options.len());
    options
}

/// Compares the page with the answers of a sandbox.
pub fn check(platform: &str) -> Result<(), Failed> {
    let runner = Runner::named(platform);
    let text = runner.helper(crate::GUEST, "sockopts")?;
    let mut answered = Vec::new();
    for line in text.lines() {
        let mut numbers = line.split(' ').map(|n| n.parse::<i32>());
        match (numbers.next(), numbers.next()) {
            (Some(Ok(level)), Some(Ok(name))) => answered.push((level, name)),
            _ => return Err(format!("no line of the helper: '{line}'").into()),
        }
    }
    let page = page();
    let mut wrong = Vec::new();
    for (key, (name, here)) in &page {
        if *here && !answered.contains(key) {
            wrong.push(format!("{name} ({} {}) is refused", key.0, key.1));
        }
        if !*here && answered.contains(key) {
            wrong.push(format!("{name} ({} {}) is answered", key.0, key.1));
        }
    }
    wrong.extend(
        answered.iter().filter(|k| !page.contains_key(k)).map(|(l, n)| format!("{l} {n} is not on the page")),
    );
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("docs/sockets.md is wrong:\n{}", wrong.join("\n")).into())
    }
}
