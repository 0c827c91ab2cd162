//! Forking and confining a process, from a program with one thread (so without the usual test harness).

use hostsys::process::{self, Exit, ForkOptions, Namespaces};
use hostsys::seccomp::{self, Violation, allow};
use hostsys::{caps, fd, mountsys, ns, signals};
use std::os::fd::AsRawFd;

fn main() {
    exit_codes();
    kept_descriptors();
    namespaces();
    seccomp_kills();
    real_faults_still_crash();
    println!("confine: ok");
}

fn run(options: ForkOptions, f: impl FnOnce() -> i32) -> Exit {
    process::fork_run(options, f).expect("fork").wait().expect("wait")
}

fn exit_codes() {
    assert_eq!(run(ForkOptions::default(), || 7), Exit::Code(7));
    let killed = run(ForkOptions::default(), || {
        let me = std::process::id().cast_signed();
        let _ = signals::tgkill(me, signals::gettid(), 9);
        0
    });
    assert_eq!(killed, Exit::Signal(9));
}

fn kept_descriptors() {
    let (r, w) = rustix::pipe::pipe().expect("pipe");
    let keep = w.as_raw_fd();
    let code = run(ForkOptions::default(), || {
        fd::close_all_but(&[2, keep]).expect("close");
        let open = (0..256).filter(|n| fd::adopt(*n).map(std::mem::forget).is_ok()).count();
        open as i32
    });
    assert_eq!(code, Exit::Code(2));
    drop(r);
}

fn namespaces() {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let all = Namespaces::USER
        | Namespaces::PID
        | Namespaces::MOUNT
        | Namespaces::IPC
        | Namespaces::UTS
        | Namespaces::NET;
    let code = run(ForkOptions { namespaces: all, sibling: false }, move || {
        let map = |id| [ns::IdMap { inside: 0, outside: id, count: 1 }];
        ns::write_id_maps(None, &map(uid), &map(gid), true).expect("id maps");
        mountsys::make_root_private().expect("private");
        mountsys::pivot_into_empty(std::path::Path::new("/tmp")).expect("pivot");
        assert!(
            std::fs::read_dir("/").expect("the root can be read").next().is_none(),
            "nothing in the root"
        );
        assert!(std::fs::write("/x", "").is_err());
        caps::drop_all().expect("caps");
        assert_eq!(caps::get().expect("capget"), caps::CapSets::default());
        assert_eq!(caps::bounding_has(0), Some(false));
        assert_eq!(std::process::id(), 1);
        0
    });
    if code != Exit::Code(0) {
        // Hosts may forbid user namespaces to ordinary users; then there is nothing to see here.
        assert_ne!(uid, 0, "namespaces as root: {code:?}");
    }
}

fn seccomp_kills() {
    let code = run(ForkOptions::default(), || {
        let rules = [allow(231, "exit_group"), allow(1, "messages of a failing test")];
        let filter = seccomp::compile(&rules, Violation::Kill).expect("compile");
        seccomp::install(&filter).expect("install");
        let _ = rustix::process::getppid();
        0
    });
    assert_eq!(code, Exit::Signal(31));
}

fn real_faults_still_crash() {
    let code = run(ForkOptions::default(), || {
        hostsys::fault::install();
        process::set_rlimit(4, 0, 0).expect("no core dumps");
        fd::close_range(2, 2).expect("no message");
        // SAFETY: not sound, and meant so: this is what a bug does. The address is never mapped.
        unsafe { std::ptr::write_volatile(8 as *mut u32, 1) };
        0
    });
    assert_eq!(code, Exit::Signal(11));
}
