//! Nothing stays behind: processes, threads, descriptors. One test, because it counts for the whole process.

mod common;

use common::{DATA, Guest, regs};
use platform::*;
use std::time::{Duration, Instant};

fn children() -> usize {
    let mut n = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        n += list.split_whitespace().count();
    }
    n
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn churn(name: &str) {
    let g = Guest::new(platform::open(name).unwrap());
    let once = |g: &Guest| {
        let space = g.space();
        g.map_data(&space, Prot::READ | Prot::WRITE);
        let mut cx = g.platform.new_context().unwrap();
        let mut r = regs(at!(g_store));
        (r.rdi, r.rbx) = (DATA, 1);
        assert_eq!(cx.switch(&space, &mut r).unwrap(), Trap::Syscall);
        if r.rbx.is_multiple_of(2) {
            cx.release();
        }
    };
    // Processes beside those of address spaces: the zygote, and those that wait for another guest.
    let settle = |spaces: usize| {
        let start = Instant::now();
        while children() != spaces + g.platform.stub_pids().len() && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let helpers = g.platform.stub_pids().len();
        assert_eq!(children(), spaces + helpers);
        assert!(helpers <= 7, "{helpers} helper processes");
    };
    once(&g);
    settle(0);
    let (fds, maps) = (descriptors(), mappings());
    for _ in 0..500 {
        once(&g);
    }
    settle(0);
    assert_eq!(descriptors(), fds);
    // Kept alive together, ended together.
    let spaces: Vec<_> = (0..100).map(|_| g.space()).collect();
    settle(100);
    drop(spaces);
    settle(0);
    assert_eq!(descriptors(), fds);
    assert!(mappings() <= maps + 8, "{} mappings, were {maps}", mappings());
    drop(g);
    let start = Instant::now();
    while children() > 0 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(children(), 0);
}

#[test]
fn nothing_is_left() {
    let fds = descriptors();
    for name in ["ptrace", "systrap"] {
        churn(name);
        assert_eq!(descriptors(), fds);
    }
}
