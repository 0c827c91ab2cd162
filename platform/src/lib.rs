//! How guest code runs: the traits every backend implements, and the plain types of both sides.
//!
//! A [`Platform`] makes address spaces and contexts. An [`AddressSpace`] holds the mappings of one guest process group that
//! shares memory; a [`Context`] is one guest thread. [`Context::switch`] runs guest instructions until they trap.
//! Above these traits nothing knows a backend. Backends: `ptrace` (reference), `systrap` (default), `mock` (tests).
//!
//! No system call of a guest is ever made on the host by a backend: each one becomes a [`Trap::Syscall`].

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod error;
pub mod fpu;
pub mod later;
pub mod load;
pub mod mock;
pub mod ptrace;
pub mod registers;
mod stub;
pub mod systrap;

pub use error::PlatformError;
pub use fpu::FpuState;
pub use hostsys;
pub use hostsys::clock;
pub use hostsys::machine::Machine;
pub use hostsys::{
    Account, AllocOpts, Block, Fault, FileRange, HostFile, MemoryFile, MemoryGroup, NoMemory, PAGE, Trimmer,
};
pub use registers::Registers;
pub use stub::{ClockCode, remember_vdso};

use std::any::Any;
use std::sync::Arc;

/// Guest addresses `start..end`; both page-aligned where mappings are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestRange {
    /// First address.
    pub start: u64,
    /// First address after.
    pub end: u64,
}

impl GuestRange {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Whether `addr` lies inside.
    pub fn contains(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }
}

bitflags::bitflags! {
    /// Access rights of a mapping, with the values of PROT_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// PROT_READ
        const READ = 1;
        /// PROT_WRITE
        const WRITE = 2;
        /// PROT_EXEC
        const EXEC = 4;
    }
}

/// What an instruction tried to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// A memory fault of guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// SIGSEGV or SIGBUS.
    pub signo: i32,
    /// si_code as the host's kernel gave it (SEGV_MAPERR, SEGV_ACCERR, SI_KERNEL for a general protection fault …).
    pub code: i32,
    /// The address, where the hardware gives one (0 with SI_KERNEL).
    pub addr: u64,
    /// What was tried, where the backend can tell.
    pub access: Option<Access>,
}

/// Another exception of guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// SIGILL, SIGFPE, SIGTRAP, or SIGSEGV where no memory access is the cause (`int n`).
    pub signo: i32,
    /// si_code.
    pub code: i32,
    /// si_addr.
    pub addr: u64,
}

/// Why guest code stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call: `orig_rax` is its number, `rip` is after the instruction. `rax` must be set before going on.
    Syscall,
    /// A memory fault; `rip` is at the instruction.
    Fault(FaultInfo),
    /// Another exception.
    Signal(SignalInfo),
    /// [`Interrupt::interrupt`] was called.
    Interrupted,
    /// The process that runs the guest's code was killed from outside. The address space is of no more use.
    Dead,
}

/// The part of the address space a guest may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Lowest address that can be mapped.
    pub min: u64,
    /// First address that cannot.
    pub max: u64,
}

/// What the kernel should know about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Map this many bytes around a fault where possible, since a fault is a round trip.
    pub fault_around: u64,
    /// Length of the XSAVE image of [`FpuState`] in bytes.
    pub fpu_len: usize,
    /// Whether faults carry [`FaultInfo::access`].
    pub fault_access_known: bool,
    /// Code that guest code can call to read the host's clocks without a trap, if there is any.
    pub clock_code: Option<ClockCode>,
}

/// What memory a mapping shows.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Anonymous memory and tmpfs data.
    Memory(Arc<MemoryFile>),
    /// A donated file of the host.
    Host(Arc<HostFile>),
}

impl Backing {
    /// The file to map.
    pub fn host_file(&self) -> &Arc<HostFile> {
        match self {
            Backing::Memory(m) => m.host_file(),
            Backing::Host(f) => f,
        }
    }

    /// The sentry's own view of `start..end` of the file, clipped to a window.
    pub fn block(&self, range: FileRange) -> std::io::Result<Block<'_>> {
        self.host_file().block(range.start, range.len())
    }
}

/// A way to run guest code.
pub trait Platform: Send + Sync {
    /// The name of `--platform`.
    fn name(&self) -> &'static str;
    /// A new empty address space.
    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;
    /// A new guest thread, not yet in any address space.
    fn new_context(&self) -> Result<Box<dyn Context>, PlatformError>;
    /// Where guests may map.
    fn address_limits(&self) -> AddressLimits;
    /// Helper processes of the backend beside those of address spaces (for logs and posture tests).
    fn stub_pids(&self) -> Vec<u32> {
        Vec::new()
    }
    /// Properties of the backend.
    fn features(&self) -> Features;
}

/// A system call that guest code makes often, for [`AddressSpace::patch_call`].
#[derive(Clone, Copy, Debug)]
pub struct CallSite<'a> {
    /// Address after the instruction.
    pub after: u64,
    /// The number it was made with.
    pub nr: u64,
    /// What is mapped at the page that holds it and at which offset; it is private code, which the guest cannot write.
    pub file: &'a Arc<HostFile>,
    /// See `file`.
    pub offset: u64,
    /// Rights of the page.
    pub prot: Prot,
    /// Addresses the backend may use beside the site, of the length that [`AddressSpace::patch_room`] gave.
    pub room: Option<GuestRange>,
}

/// Answers to calls that only tell the thread about itself. One more, that of its parent, comes by [`Interrupt::set_parent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants {
    /// getpid(2)
    pub pid: u32,
    /// gettid(2)
    pub tid: u32,
    /// getuid(2)
    pub uid: u32,
    /// geteuid(2)
    pub euid: u32,
    /// getgid(2)
    pub gid: u32,
    /// getegid(2)
    pub egid: u32,
}

/// One change of an address space, for [`AddressSpace::apply`].
#[derive(Clone, Copy, Debug)]
pub enum MapChange<'a> {
    /// [`AddressSpace::map`].
    Map {
        /// Where.
        at: GuestRange,
        /// What.
        file: &'a Arc<HostFile>,
        /// From which byte of the file on; page-aligned.
        offset: u64,
        /// Rights.
        prot: Prot,
        /// Fill the page tables now.
        precommit: bool,
    },
    /// [`AddressSpace::unmap`].
    Unmap(GuestRange),
    /// [`AddressSpace::protect`].
    Protect(GuestRange, Prot),
}

/// The mappings of one guest address space. Methods may be called from any thread, also while guest threads run in it.
/// When a method returns, the change is in force for all of them.
pub trait AddressSpace: Send + Sync {
    /// Maps `file` from `offset` on at `at`, shared, replacing what was there. With `precommit` page tables are filled now.
    fn map(
        &self,
        at: GuestRange,
        file: &Arc<HostFile>,
        offset: u64,
        prot: Prot,
        precommit: bool,
    ) -> Result<(), PlatformError>;
    /// Removes all mappings in the range.
    fn unmap(&self, range: GuestRange) -> Result<(), PlatformError>;
    /// Changes the rights of mappings in the range; parts that are not mapped stay so.
    fn protect(&self, range: GuestRange, prot: Prot) -> Result<(), PlatformError>;
    /// Makes several changes in order, cheaper than one by one. After an error the first ones may have been made.
    fn apply(&self, changes: &[MapChange<'_>]) -> Result<(), PlatformError> {
        for change in changes {
            match *change {
                MapChange::Map { at, file, offset, prot, precommit } => {
                    self.map(at, file, offset, prot, precommit)?
                }
                MapChange::Unmap(range) => self.unmap(range)?,
                MapChange::Protect(range, prot) => self.protect(range, prot)?,
            }
        }
        Ok(())
    }
    /// Makes a call cheaper that is made often, if the backend can. The guest's kernel does not see the change: `map`, `unmap` and `protect` of
    /// the page undo it, and what is mapped stays what the kernel mapped. Must not run at the same time as those.
    fn patch_call(&self, call: &CallSite<'_>) -> Result<bool, PlatformError> {
        let _ = call;
        Ok(false)
    }
    /// What free addresses `patch_call` needs for the call that ends at `after`: anywhere in the range, so many bytes.
    fn patch_room(&self, after: u64) -> Option<(GuestRange, u64)> {
        let _ = after;
        None
    }
    /// The bytes behind `range` were changed without a change of mappings, by somebody who may write what the guest itself may not (a debugger):
    /// what `patch_call` made from them before is undone.
    fn code_changed(&self, range: GuestRange) -> Result<(), PlatformError> {
        let _ = range;
        Ok(())
    }
    /// For the backend to find its own type.
    fn as_any(&self) -> &dyn Any;
    /// The host process that holds the mappings, if there is one (for logs and posture tests).
    fn host_pid(&self) -> Option<u32> {
        None
    }
}

/// One guest thread. All `switch` calls and the release must come from one host thread (the one of the first `switch`).
pub trait Context: Send {
    /// Runs guest code with `regs` in `space` until it traps; then `regs` holds the state at the trap. Going to another space
    /// than the last time (execve) resets the floating-point state, unless `set_fpu` is called first.
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Trap, PlatformError>;
    /// A handle that makes a running or the next `switch` return `Interrupted`.
    fn interrupter(&self) -> Arc<dyn Interrupt>;
    /// The floating-point and vector state.
    fn fpu(&mut self) -> Result<FpuState, PlatformError>;
    /// Replaces the floating-point and vector state, also before the first `switch`.
    fn set_fpu(&mut self, state: &FpuState) -> Result<(), PlatformError>;
    /// After [`Trap::Syscall`]: whether this call is made so often that [`AddressSpace::patch_call`] is worth trying. Says so once.
    fn is_hot(&mut self) -> bool {
        false
    }
    /// What may be answered without a trap from now on; `None`: nothing. Lasts until the thread goes to another space.
    fn set_constants(&mut self, constants: Option<Constants>) {
        let _ = constants;
    }
    /// The guest thread ends: whatever the host runs for it goes away. `switch` may be called again and starts anew.
    fn release(&mut self);
}

/// See [`Context::interrupter`].
pub trait Interrupt: Send + Sync {
    /// May be called from any thread at any time. Sticky: consumed by the first `switch` that returns `Interrupted`.
    fn interrupt(&self);
    /// The guest thread is about to sleep in a call: what the host runs for it need not stay ready. Called by the thread of the context,
    /// between two calls of `switch`.
    fn rest(&self) {}
    /// What getppid(2) answers the thread from now on, where [`Context::set_constants`] lets it be answered; 0 until it is told. May be
    /// called from any thread at any time, since parents end while their children run; calls for one context must be kept in order.
    fn set_parent(&self, pid: u32) {
        let _ = pid;
    }
}

/// Opens the platform of that name: "ptrace", "systrap" or "auto". Must be called before the process is locked down, in the
/// process (and PID namespace) that will run guests.
pub fn open(name: &str) -> Result<Arc<dyn Platform>, PlatformError> {
    let no = |why: &str| Err(PlatformError::Unavailable { name: name.to_owned(), why: why.to_owned() });
    // Asked for now: afterwards the process may be locked down.
    clock::coarse_resolution();
    match name {
        "auto" => match systrap::SystrapPlatform::open() {
            Ok(platform) => Ok(platform),
            Err(e) => {
                tracing::warn!("{e}; taking ptrace instead");
                Ok(ptrace::PtracePlatform::open()?)
            }
        },
        "ptrace" => Ok(ptrace::PtracePlatform::open()?),
        "systrap" => Ok(systrap::SystrapPlatform::open()?),
        _ => no("there is no such platform; try auto, systrap or ptrace"),
    }
}

/// The host calls a platform makes after the sentry is locked down, beyond the sentry's base set.
pub fn seccomp_rules(platform: &dyn Platform) -> Vec<hostsys::seccomp::Rule> {
    match platform.name() {
        "ptrace" => ptrace::seccomp_rules(),
        "systrap" => systrap::seccomp_rules(),
        _ => Vec::new(),
    }
}
