//! Processes as the kernel sees them: birth, end, waiting, stops, signals. The mock platform runs the
//! scripts, so a failure here is the kernel's and no backend's.

mod stage;

use kernel::task::Members;
use ksync::Listener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use stage::{HANDLER, PAGE, nr, run, run_in};

const ECHILD: i64 = -10;
const EAGAIN: i64 = -11;
const EINTR: i64 = -4;
const ESRCH: i64 = -3;

const WNOHANG: u64 = 1;
const WUNTRACED: u64 = 2;
const WCONTINUED: u64 = 8;

const SIGUSR1: u64 = 10;
const SIGKILL: u64 = 9;
const SIGCONT: u64 = 18;
const SIGSTOP: u64 = 19;

/// CLONE_VM | FS | FILES | SIGHAND | THREAD
const THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;

fn exited(code: u32) -> u32 {
    code << 8
}

#[test]
fn a_child_is_waited_for_once() {
    let status = run(|g| {
        let me = g.call(nr::GETPID, &[]);
        let child = g.fork(move |c| {
            assert_eq!(c.call(nr::GETPPID, &[]), me);
            c.exit_group(7);
        });
        assert!(child > me);
        assert_eq!(g.wait(child, 0), (child, exited(7)));
        assert_eq!(g.wait(-1, 0).0, ECHILD);
        assert_eq!(g.call(nr::KILL, &[child.cast_unsigned(), 0]), ESRCH);
        g.exit_group(3);
    });
    assert_eq!(status.code(), 3);
}

#[test]
fn a_script_that_ends_is_an_exit() {
    assert_eq!(run(|_| {}).code(), 0);
}

#[test]
fn waiting_without_hanging_and_for_any() {
    run(|g| {
        let one = g.fork(|c| c.spin());
        assert_eq!(g.wait(-1, WNOHANG).0, 0);
        let two = g.fork(|c| c.exit_group(2));
        assert_eq!(g.wait(-1, 0), (two, exited(2)));
        assert_eq!(g.call(nr::KILL, &[one.cast_unsigned(), SIGKILL]), 0);
        assert_eq!(g.wait(-1, 0), (one, 9));
        g.exit_group(0);
    });
}

#[test]
fn stop_and_continue_are_reported() {
    run(|g| {
        let child = g.fork(|c| c.spin());
        let pid = child.cast_unsigned();
        for _ in 0..3 {
            assert_eq!(g.call(nr::KILL, &[pid, SIGSTOP]), 0);
            assert_eq!(g.wait(child, WUNTRACED), (child, 0x137f));
            assert_eq!(g.wait(child, WUNTRACED | WNOHANG).0, 0);
            assert_eq!(g.call(nr::KILL, &[pid, SIGCONT]), 0);
            assert_eq!(g.wait(child, WCONTINUED), (child, 0xffff));
        }
        // A stopped process can be killed, too.
        assert_eq!(g.call(nr::KILL, &[pid, SIGSTOP]), 0);
        assert_eq!(g.wait(child, WUNTRACED).0, child);
        assert_eq!(g.call(nr::KILL, &[pid, SIGKILL]), 0);
        assert_eq!(g.wait(child, 0), (child, 9));
        g.exit_group(0);
    });
}

#[test]
fn exit_group_ends_threads_wherever_they_are() {
    let status = run(|g| {
        let spinning = g.clone_with(THREAD, |t| t.spin());
        let sleeping = g.clone_with(THREAD, |t| {
            t.call(nr::FUTEX, &[PAGE + 0x800, 0, 0, 0]);
        });
        assert!(spinning > 0 && sleeping > spinning);
        let child = g.fork(|c| {
            c.clone_with(THREAD, |t| t.spin());
            c.clone_with(THREAD, |t| t.exit_group(42));
            c.spin();
        });
        assert_eq!(g.wait(child, 0), (child, exited(42)));
        g.exit_group(5);
    });
    assert_eq!(status.code(), 5);
}

/// Counts what it hears.
#[derive(Default)]
struct Heard(AtomicU32);

impl Listener for Heard {
    fn notify(&self, _mask: u32) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[test]
fn whoever_watches_for_killings_is_not_woken_by_ends() {
    let (killed, freed) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let (k, f) = (Arc::clone(&killed), Arc::clone(&freed));
    run_in(
        |kernel| {
            let members = Members::new(None, kernel.memfile.new_account());
            let _ = members.news.register(k, Members::KILLED, false);
            let _ = members.news.register(f, Members::FREED, false);
            members
        },
        |g| {
            g.clone_with(THREAD, |t| {
                t.call(nr::EXIT, &[0]);
            });
            let child = g.fork(|c| c.exit_group(3));
            assert_eq!(g.wait(child, 0), (child, exited(3)));
            g.exit_group(0);
        },
    );
    assert!(freed.0.load(Ordering::SeqCst) >= 2);
    assert_eq!(killed.0.load(Ordering::SeqCst), 0);
}

#[test]
fn a_process_lives_as_long_as_its_last_thread() {
    run(|g| {
        let child = g.fork(|c| {
            let leader = c.task();
            c.clone_with(THREAD, move |t| {
                t.until("the leader is a zombie", || leader.has_exited());
                t.exit_group(9);
            });
            c.call(nr::EXIT, &[1]);
        });
        assert_eq!(g.wait(child, 0), (child, exited(9)));
        g.exit_group(0);
    });
}

#[test]
fn orphans_go_to_init_or_to_the_subreaper() {
    run(|g| {
        let middle = g.fork(|c| {
            c.fork(|o| {
                while o.call(nr::GETPPID, &[]) != 1 {}
                o.exit_group(11);
            });
            c.exit_group(0);
        });
        let mut seen = vec![g.wait(-1, 0), g.wait(-1, 0)];
        seen.sort_unstable_by_key(|s| s.1);
        assert_eq!(seen[0], (middle, 0));
        assert_eq!(seen[1].1, exited(11));

        let reaper = g.fork(|c| {
            // PR_SET_CHILD_SUBREAPER
            assert_eq!(c.call(nr::PRCTL, &[36, 1]), 0);
            let me = c.call(nr::GETPID, &[]);
            let between = c.fork(move |b| {
                b.fork(move |o| {
                    while o.call(nr::GETPPID, &[]) != me {}
                    o.exit_group(12);
                });
                b.exit_group(0);
            });
            let mut seen = vec![c.wait(-1, 0), c.wait(-1, 0)];
            seen.sort_unstable_by_key(|s| s.1);
            assert_eq!(seen[0], (between, 0));
            assert_eq!(seen[1].1, exited(12));
            c.exit_group(1);
        });
        assert_eq!(g.wait(reaper, 0), (reaper, exited(1)));
        assert_eq!(g.wait(-1, 0).0, ECHILD);
        g.exit_group(0);
    });
}

#[test]
fn a_handler_interrupts_or_restarts_a_call() {
    // struct sigaction of the kernel: handler, flags, restorer, mask. SA_RESTORER, and SA_RESTART.
    fn action(flags: u64) -> Vec<u8> {
        [HANDLER, 0x0400_0000 | flags, 0x6666_0000, 0].iter().flat_map(|w| w.to_le_bytes()).collect()
    }
    run(|g| {
        let me = g.call(nr::GETPID, &[]).cast_unsigned();
        g.poke(PAGE + 0x100, &action(0));
        assert_eq!(g.call(nr::RT_SIGACTION, &[SIGUSR1, PAGE + 0x100, 0, 8]), 0);
        let helper = g.fork(move |c| {
            let target = c.find(1);
            c.until("pause", || target.current_call.load(Ordering::Relaxed) == 34);
            c.call(nr::KILL, &[me, SIGUSR1]);
            c.exit_group(0);
        });
        assert_eq!(g.call(nr::PAUSE, &[]), EINTR);
        assert_eq!(g.handlers(), 1);
        assert_eq!(g.wait(helper, 0), (helper, 0));

        // With SA_RESTART, wait4 goes on after the handler.
        g.poke(PAGE + 0x100, &action(0x1000_0000));
        assert_eq!(g.call(nr::RT_SIGACTION, &[SIGUSR1, PAGE + 0x100, 0, 8]), 0);
        let helper = g.fork(move |c| {
            let target = c.find(1);
            c.until("wait4", || target.current_call.load(Ordering::Relaxed) == 61);
            c.call(nr::KILL, &[me, SIGUSR1]);
            c.exit_group(4);
        });
        assert_eq!(g.wait(helper, 0), (helper, exited(4)));
        assert_eq!(g.handlers(), 2);
        g.exit_group(0);
    });
}

#[test]
fn a_dead_guest_is_a_killed_process() {
    run(|g| {
        let child = g.fork(|c| {
            c.clone_with(THREAD, |t| t.spin());
            c.trap(platform::Trap::Dead);
        });
        assert_eq!(g.wait(child, 0), (child, 9));
        g.exit_group(0);
    });
}

#[test]
fn the_end_of_init_is_the_end_of_all() {
    let status = run(|g| {
        let one = g.fork(|c| {
            c.call(nr::SETSID, &[]);
            c.fork(|d| d.spin());
            c.spin();
        });
        let two = g.fork(|c| {
            c.call(nr::PAUSE, &[]);
        });
        assert!(one > 0 && two > one);
        g.exit_group(8);
    });
    assert_eq!(status.code(), 8);
}

/// Its threads end at the same time, and one of them must be the last.
#[test]
fn an_init_with_threads_takes_all_along() {
    /// CLONE_NEWPID and SIGCHLD
    const NAMESPACE: u64 = 0x2000_0000 | 17;
    run(|g| {
        for _ in 0..100 {
            let init = g.clone_with(NAMESPACE, |i| {
                i.fork(|c| {
                    c.call(nr::PAUSE, &[]);
                });
                i.clone_with(THREAD, |t| t.spin());
                i.exit_group(3);
            });
            assert_eq!(g.wait(init, 0), (init, exited(3)));
            assert_eq!(g.processes(), 1);
        }
        g.exit_group(0);
    });
}

#[test]
fn a_futex_wakes_whom_it_should() {
    run(|g| {
        let word = PAGE + 0x200;
        // FUTEX_WAIT with another value than the word's.
        assert_eq!(g.call(nr::FUTEX, &[word, 0, 1, 0]), EAGAIN);
        g.clone_with(THREAD, move |t| {
            while t.call(nr::FUTEX, &[word, 1, 1, 0]) == 0 {}
            t.call(nr::EXIT, &[0]);
        });
        assert_eq!(g.call(nr::FUTEX, &[word, 0, 0, 0]), 0);
        g.exit_group(0);
    });
}
