//! The platforms inside the sentry's walls: first process of its PID namespace, no capabilities, empty root, not dumpable, and a
//! seccomp filter of just the rules the platform names and what this test's own program needs.

mod common;

use common::{DATA, Guest, regs};
use hostsys::process::{self, Exit, ForkOptions, Namespaces};
use hostsys::seccomp::{self, Violation, allow};
use hostsys::{caps, mountsys, ns};
use platform::*;

fn main() {
    for name in ["ptrace", "systrap"] {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let namespaces = Namespaces::all();
        let child = process::fork_run(ForkOptions { namespaces, sibling: false }, || inside(name, uid, gid));
        let child = match child {
            Ok(child) => child,
            Err(e) if uid != 0 => {
                println!("locked: no namespaces for ordinary users here: {e}");
                return;
            }
            Err(e) => panic!("fork into namespaces: {e}"),
        };
        assert_eq!(child.wait().expect("wait"), Exit::Code(0), "{name}");
        println!("locked {name}: ok");
        killed_sentry(name);
        println!("killed sentry {name}: ok");
    }
}

/// A sentry that is killed takes its stubs with it, also where no PID namespace does that.
fn killed_sentry(name: &str) {
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let child = process::fork_run(ForkOptions::default(), || {
        let g = Guest::new(platform::open(name).expect("open"));
        let spaces: Vec<_> = (0..3).map(|_| g.space()).collect();
        let pids = spaces.iter().filter_map(|s| s.host_pid()).chain(g.platform.stub_pids());
        let bytes: Vec<u8> = pids.flat_map(u32::to_le_bytes).collect();
        std::thread::scope(|s| {
            for space in &spaces {
                s.spawn(|| {
                    let mut cx = g.platform.new_context().expect("context");
                    let _ = cx.switch(space, &mut regs(at!(g_spin)));
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            rustix::io::write(&write, &bytes).expect("write");
        });
        0
    })
    .expect("fork");
    let mut bytes = [0u8; 64];
    let n = rustix::io::read(&read, &mut bytes).expect("read");
    child.signal(libc::SIGKILL).expect("kill");
    assert_eq!(child.wait().expect("wait"), Exit::Signal(libc::SIGKILL));
    // Those of the three spaces, the zygote, and perhaps one that waits for a space.
    assert!(n == 16 || n == 20, "{n}");
    for pid in bytes[..n].chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])) {
        let gone = (0..500).any(|_| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // What is dead may wait for whoever inherited it to look.
            let gone = stat.is_empty() || stat.contains(") Z ");
            if !gone {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            gone
        });
        assert!(gone, "stub {pid} outlives its sentry");
    }
}

fn inside(name: &str, uid: u32, gid: u32) -> i32 {
    let map = |id| [ns::IdMap { inside: 65534, outside: id, count: 1 }];
    ns::write_id_maps(None, &map(uid), &map(gid), true).expect("id maps");
    mountsys::make_root_private().expect("private");
    mountsys::pivot_into_empty(std::path::Path::new("/tmp")).expect("pivot");
    caps::drop_all().expect("caps");
    process::set_no_new_privs().expect("no_new_privs");
    process::set_dumpable(false).expect("dumpable");

    process::one_malloc_arena();
    let g = Guest::new(platform::open(name).expect("open"));
    let own = vec![
        allow(libc::SYS_write, "messages"),
        allow(libc::SYS_mmap, "windows and stacks").arg(2, seccomp::Test::Masked { mask: 4, value: 0 }),
        allow(libc::SYS_munmap, "stacks"),
        allow(libc::SYS_mprotect, "stacks").arg(2, seccomp::Test::Masked { mask: 4, value: 0 }),
        allow(libc::SYS_madvise, "stacks"),
        allow(libc::SYS_brk, "allocator"),
        allow(libc::SYS_clone3, "threads"),
        allow(libc::SYS_set_robust_list, "threads"),
        allow(libc::SYS_rseq, "threads"),
        allow(libc::SYS_rt_sigprocmask, "threads"),
        allow(libc::SYS_sigaltstack, "threads"),
        allow(libc::SYS_gettid, "threads"),
        allow(libc::SYS_sched_getaffinity, "threads"),
        allow(libc::SYS_exit, "threads"),
        allow(libc::SYS_exit_group, "end"),
        allow(libc::SYS_getrandom, "hash maps"),
        allow(libc::SYS_ftruncate, "memory file"),
        allow(libc::SYS_close, "descriptors at the end"),
        allow(libc::SYS_fcntl, "std's check of descriptors in debug builds").eq(1, libc::F_GETFD as u64),
        allow(libc::SYS_clock_nanosleep, "sleep"),
        allow(libc::SYS_prctl, "names of threads").eq(0, libc::PR_SET_NAME as u64),
    ];
    let rules = seccomp::merge([own, platform::seccomp_rules(&*g.platform)]);
    seccomp::install(&seccomp::compile(&rules, Violation::Kill).expect("compile")).expect("install");

    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for i in 0..5u64 {
                    let space = g.space();
                    g.map_data(&space, Prot::READ | Prot::WRITE);
                    let mut cx = g.platform.new_context().expect("context");
                    let mut r = regs(at!(g_store));
                    (r.rdi, r.rbx) = (DATA, i);
                    assert_eq!(cx.switch(&space, &mut r).expect("switch"), Trap::Syscall);
                    let state = cx.fpu().expect("fpu");
                    cx.set_fpu(&state).expect("set_fpu");
                    let handle = cx.interrupter();
                    s.spawn(move || {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                        handle.interrupt();
                    });
                    assert_eq!(cx.switch(&space, &mut regs(at!(g_spin))).expect("switch"), Trap::Interrupted);
                    assert!(matches!(
                        cx.switch(&space, &mut regs(at!(g_ud2))).expect("switch"),
                        Trap::Signal(_)
                    ));
                    cx.release();
                }
            });
        }
    });
    // A stub that died is noticed here too.
    let space = g.space();
    let pid = space.host_pid().expect("pid").cast_signed();
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let mut cx = g.platform.new_context().expect("context");
    let mut dead = 0;
    for _ in 0..100 {
        dead += usize::from(cx.switch(&space, &mut regs(at!(g_args))).expect("switch") == Trap::Dead);
    }
    assert!(dead > 0);
    0
}
