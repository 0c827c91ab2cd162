//! The documentation page of the system calls, made from the tables: `UPDATE_DOCS=1 cargo test -p sentry page` writes it.

use super::{GAPS, REFUSED, TABLE};
use std::fmt::Write;
use std::path::Path;

fn page() -> String {
    let mut s = String::from(
        "# System calls\n\nMade from the tables in `sentry/src/syscalls`; a test keeps it true. The measure is \
         Linux 6.12 on x86-64.\nFlags and options that a call does not support give the error that Linux has for that \
         and are logged once (`gap`).\n\n## Answered\n\n| number | call | in |\n|---|---|---|\n",
    );
    for e in TABLE {
        let args: Vec<&str> = e.args.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(s, "| {} | `{}({})` | `{}.rs` |", e.nr, e.name, args.join(", "), e.family);
    }
    s.push_str("\n## Always refused\n\n| number | call | error | why |\n|---|---|---|---|\n");
    for r in REFUSED {
        let _ = writeln!(s, "| {} | `{}` | {:?} | {} |", r.nr, r.name, r.errno, r.why);
    }
    s.push_str("\nAll other numbers give ENOSYS.\n\n## Gaps of the answered calls\n\n");
    for name in GAPS {
        let _ = writeln!(s, "- {name}");
    }
    s
}

#[test]
fn the_page_of_the_system_calls_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/syscalls.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        assert!(std::fs::write(&path, page()).is_ok(), "cannot write {}", path.display());
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, page(), "docs/syscalls.md is old: UPDATE_DOCS=1 cargo test -p sentry page");
}
