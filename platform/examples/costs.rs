//! Prints what the platforms cost: `cargo run -p platform --example costs [PLATFORM…]`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/sites.rs"]
#[expect(dead_code, reason = "only part of it is needed here")]
mod sites;

use common::{DATA, Guest, regs};
use platform::*;
use std::time::{Duration, Instant};

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let names = if names.is_empty() { vec!["ptrace".to_owned(), "systrap".to_owned()] } else { names };
    let n = 200_000;
    let native = time(n, |_| {
        std::hint::black_box(rustix::process::getppid());
    });
    println!("native getppid               {native:>10.2?}");
    for name in names {
        let platform = platform::open(&name).expect("open");
        println!("{name}");
        for threads in [1, 2, 4, 8] {
            let g = Guest::new(platform.clone());
            println!("  system call, {threads} threads     {:>10.2?}", calls(&g, threads));
        }
        let g = Guest::new(platform.clone());
        let space = g.space();
        if name == "systrap" {
            println!("  system call, patched       {:>10.2?}", patched_calls());
        }
        println!("  map, guest idle            {:>10.2?}", time(5000, |_| g.map_data(&space, Prot::READ)));
        println!("  map after each call        {:>10.2?}", call_and_map(&g));
        println!("  fault and map              {:>10.2?}", faults(&g));
        println!("  thread                     {:>10.2?}", new_threads(&g));
        println!("  address space and thread   {:>10.2?}", new_spaces(&g));
    }
}

/// A call from a patched site.
fn patched_calls() -> Duration {
    let mut w = sites::World::new();
    let mut r = sites::full(pos!(p_number));
    assert!(w.patch(pos!(p_number_end), 121));
    time(200_000, |_| {
        assert_eq!(w.switch(&mut r), Trap::Syscall);
        r.set_return(0);
    })
}

fn time(n: u32, mut f: impl FnMut(u32)) -> Duration {
    let start = Instant::now();
    for i in 0..n {
        f(i);
    }
    start.elapsed() / n
}

/// Time of all calls divided by their number: with more threads than cores it should stay near one core's.
fn calls(g: &Guest, threads: u32) -> Duration {
    let space = g.space();
    let n = 20_000;
    let start = Instant::now();
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                let mut cx = g.platform.new_context().expect("context");
                let mut r = regs(at!(g_loop));
                for _ in 0..n {
                    assert_eq!(cx.switch(&space, &mut r).expect("switch"), Trap::Syscall);
                    r.set_return(1);
                }
                cx.release();
            });
        }
    });
    start.elapsed() / (n * threads)
}

fn call_and_map(g: &Guest) -> Duration {
    let space = g.space();
    let mut cx = g.platform.new_context().expect("context");
    let mut r = regs(at!(g_loop));
    time(5000, |_| {
        assert_eq!(cx.switch(&space, &mut r).expect("switch"), Trap::Syscall);
        g.map_data(&space, Prot::READ);
    })
}

fn faults(g: &Guest) -> Duration {
    let space = g.space();
    let mut cx = g.platform.new_context().expect("context");
    time(5000, |_| {
        let mut r = regs(at!(g_store));
        r.rdi = DATA;
        assert!(matches!(cx.switch(&space, &mut r).expect("switch"), Trap::Fault(_)));
        g.map_data(&space, Prot::READ | Prot::WRITE);
        assert_eq!(cx.switch(&space, &mut r).expect("switch"), Trap::Syscall);
        space.unmap(GuestRange { start: DATA, end: DATA + 16 * PAGE }).expect("unmap");
    })
}

fn new_threads(g: &Guest) -> Duration {
    let space = g.space();
    time(500, |_| {
        let mut cx = g.platform.new_context().expect("context");
        assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).expect("switch"), Trap::Syscall);
        cx.release();
    })
}

fn new_spaces(g: &Guest) -> Duration {
    time(300, |_| {
        let space = g.space();
        let mut cx = g.platform.new_context().expect("context");
        assert_eq!(cx.switch(&space, &mut regs(at!(g_args))).expect("switch"), Trap::Syscall);
        cx.release();
    })
}
