//! The roots of a sandbox.

use crate::extensions::Extensions;
use crate::futex::Futexes;
use crate::gap::Gaps;
use crate::hardware::Hardware;
use crate::sysctl::Sysctls;
use crate::time::Clocks;
use ksync::live::{Kind, Live};
use platform::{MemoryFile, Platform};
use std::sync::{Arc, Weak};

/// One sandbox's kernel: what its containers and tasks have in common.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub memfile: Arc<MemoryFile>,
    pub clocks: Clocks,
    /// What the guest is told about its hardware.
    pub machine: Hardware,
    pub gaps: Gaps,
    /// All processes.
    pub tasks: crate::task::TaskTree,
    pub timers: crate::timer::Timers,
    pub root_user_ns: Arc<crate::creds::UserNamespace>,
    /// The namespace above those of all containers.
    pub root_pid_ns: Arc<crate::task::PidNamespace>,
    /// Mounts, device drivers, file system types.
    pub vfs: crate::vfs::Vfs,
    pub futexes: Futexes,
    pub sysctls: Sysctls,
    /// State of subsystems that live in other crates (sockets, terminals, …).
    pub extensions: Extensions,
    /// For the test that nothing is leaked.
    _live: Live,
}

impl Kernel {
    /// The roots of a new sandbox, with one user namespace and one PID namespace.
    pub fn new(
        platform: Arc<dyn Platform>,
        memfile: Arc<MemoryFile>,
        machine: platform::Machine,
    ) -> Arc<Kernel> {
        let clocks = Clocks::default();
        let booted = clocks.monotonic();
        let root_user_ns = crate::creds::UserNamespace::root();
        let root_pid_ns = crate::task::PidNamespace::new(0xefff_fffc, None, Arc::clone(&root_user_ns));
        let kernel = Arc::new(Kernel {
            _live: Live::new(Kind::Kernel),
            platform,
            memfile,
            clocks,
            machine: Hardware::new(machine, booted),
            gaps: Gaps::default(),
            tasks: crate::task::TaskTree::default(),
            timers: crate::timer::Timers::default(),
            futexes: Default::default(),
            root_user_ns,
            root_pid_ns,
            vfs: crate::vfs::Vfs::default(),
            sysctls: Sysctls::default(),
            extensions: Extensions::default(),
        });
        kernel.memfile.set_trimmer(Box::new(Trimmer(Arc::downgrade(&kernel))));
        kernel
    }

    /// In a second the memory file is asked what of its freed pages is not used any more.
    pub(crate) fn trim_later(self: &Arc<Self>) {
        let deadline = self.clocks.monotonic().saturating_add(1_000_000_000);
        self.timers.arm(self, deadline, crate::timer::Target::Trim(Arc::downgrade(self)));
    }
}

struct Trimmer(Weak<Kernel>);

impl platform::Trimmer for Trimmer {
    fn trim_later(&self) {
        if let Some(kernel) = self.0.upgrade() {
            kernel.trim_later();
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel")
    }
}
