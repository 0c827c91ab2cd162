//! The reference platform: guest threads are host threads of a stub process, each traced with PTRACE_SYSEMU by the
//! sentry thread that runs it. The host's kernel stops them at every system call and exception; none is ever made.
//!
//! Guest threads also carry a seccomp filter that traps everything. It is never reached by PTRACE_SYSEMU stops, which
//! come first, but answers what ptrace does not see: the vsyscall page, whose calls the kernel emulates in its fault handler.
//!
//! Not here: address spaces (`stub`).

mod context;
mod rules;
mod tracee;

pub use rules::seccomp_rules;

use crate::stub::{self, StubSpace, Stubs};
use crate::*;

/// See the module.
pub struct PtracePlatform {
    stubs: Arc<Stubs>,
    limits: AddressLimits,
}

impl PtracePlatform {
    /// Starts the zygote and runs one guest instruction, so that a host that forbids ptrace is found out now.
    pub fn open() -> Result<Arc<PtracePlatform>, PlatformError> {
        let limits = stub::limits();
        let platform = Arc::new(PtracePlatform { stubs: Stubs::start()?, limits });
        let space = platform.new_address_space()?;
        let mut context = platform.new_context()?;
        // Nothing is mapped there, so the first instruction faults.
        let mut regs = Registers::new(limits.min, limits.min);
        let first = context.switch(&space, &mut regs);
        context.release();
        match first {
            Ok(Trap::Fault(_)) => Ok(platform),
            Ok(other) => Err(unavailable(format!("the first guest instruction gave {other:?}"))),
            Err(e) => {
                Err(unavailable(format!("{e} (is ptrace forbidden, by Yama or by a seccomp profile?)")))
            }
        }
    }
}

fn unavailable(why: String) -> PlatformError {
    PlatformError::Unavailable { name: "ptrace".to_owned(), why }
}

impl Platform for PtracePlatform {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(PtraceSpace(StubSpace::new(&self.stubs, self.limits)?)))
    }

    fn new_context(&self) -> Result<Box<dyn Context>, PlatformError> {
        Ok(Box::new(context::PtraceContext::new()))
    }

    fn address_limits(&self) -> AddressLimits {
        self.limits
    }

    fn features(&self) -> Features {
        let clock_code = self.stubs.clock_code();
        Features { fault_around: 64 << 10, fpu_len: FpuState::len(), fault_access_known: false, clock_code }
    }

    fn stub_pids(&self) -> Vec<u32> {
        vec![self.stubs.zygote_pid().cast_unsigned()]
    }
}

/// An address space of this platform.
pub(crate) struct PtraceSpace(pub(crate) StubSpace);

impl AddressSpace for PtraceSpace {
    fn map(
        &self,
        at: GuestRange,
        file: &Arc<HostFile>,
        offset: u64,
        prot: Prot,
        precommit: bool,
    ) -> Result<(), PlatformError> {
        self.0.apply(&[MapChange::Map { at, file, offset, prot, precommit }])
    }

    fn unmap(&self, range: GuestRange) -> Result<(), PlatformError> {
        self.0.apply(&[MapChange::Unmap(range)])
    }

    fn protect(&self, range: GuestRange, prot: Prot) -> Result<(), PlatformError> {
        self.0.apply(&[MapChange::Protect(range, prot)])
    }

    fn apply(&self, changes: &[MapChange<'_>]) -> Result<(), PlatformError> {
        self.0.apply(changes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn host_pid(&self) -> Option<u32> {
        Some(self.0.pid().cast_unsigned())
    }
}
