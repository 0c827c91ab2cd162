//! Code that is taken out of memory comes back.

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|l| l.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn code_is_forgotten_and_comes_back() {
    // Far more code than what follows.
    let error = std::panic::catch_unwind(|| format!("{:?}", std::backtrace::Backtrace::force_capture()));
    assert!(error.unwrap().contains("code_is_forgotten"));
    let before = resident();
    hostsys::process::forget_text();
    let after = resident();
    assert!(after + 100 < before, "{before} {after} KiB");
    assert!(format!("{:?}", std::backtrace::Backtrace::force_capture()).contains("code_is_forgotten"));
}
