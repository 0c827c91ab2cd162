//! The fast platform: guest threads are host threads of a stub process whose seccomp filter traps every system call into a
//! handler in the stub's text. The handler posts the trap in a context block shared with the sentry and waits there;
//! neither ptrace nor any privilege is needed.
//!
//! The signal frame that the host's kernel built *is* the guest's register file: it lies in the shared block, the
//! sentry reads and writes it in place, and rt_sigreturn loads it. Everything in a block can be changed by guest code at any time; what is
//! read from it is used as registers of that guest and for nothing else.
//!
//! Call sites that trap often are patched (`site`, `patches`): their jump leads to code in the stub that saves the registers in the block and
//! posts without a signal. A thread that waits there has its other registers where they were (`waiting`).
//!
//! Here: spaces and contexts. Not here: stub processes (`stub`), which part of the text does what (`stub.s`).

mod blocks;
mod context;
mod frame;
mod handoff;
mod hot;
mod patches;
mod pool;
mod rules;
mod site;
mod turn;
mod waiting;

pub use rules::seccomp_rules;

use crate::stub::layout::{CTX_BASE, CTX_SIZE, CTX_XSAVE_LEN, LOW, NUMBERS};
use crate::stub::{self, Selector, StubSpace, Stubs};
use crate::*;
use blocks::ContextFile;
// Whoever hands off and waits for turns takes them from here: `tests/shuttle.rs` puts others in their place.
use hostsys::futex;
use hot::Counts;
use patches::Patches;
use pool::{HostThread, Kept, Pool};
use std::sync;
use std::time::Instant;
use sync::atomic::Ordering::Relaxed;
use sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
pub struct SystrapPlatform {
    pool: Arc<Pool>,
    renewer: Option<std::thread::JoinHandle<()>>,
    stubs: Arc<Stubs>,
    file: Arc<ContextFile>,
    limits: AddressLimits,
    cpus: usize,
    /// Memory of patches; none if threads cannot be told their number.
    patch_memory: Option<Arc<MemoryFile>>,
}

fn unavailable(why: String) -> PlatformError {
    PlatformError::Unavailable { name: "systrap".to_owned(), why }
}

impl SystrapPlatform {
    /// Starts the zygote and runs a guest instruction, to find out now whether the host allows all that is needed.
    pub fn open() -> Result<Arc<SystrapPlatform>, PlatformError> {
        const HWCAP2_FSGSBASE: u64 = 2;
        // SAFETY: no preconditions.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return Err(unavailable(
                "the host has no FSGSBASE instructions (Linux 5.9); use ptrace".to_owned(),
            ));
        }
        const EDX_RDTSCP: u32 = 1 << 27;
        if std::arch::x86_64::__cpuid(0x8000_0001).edx & EDX_RDTSCP == 0 {
            return Err(unavailable("the processor has no RDTSCP instruction; use ptrace".to_owned()));
        }
        if FpuState::len() > frame::MAX_XSTATE {
            return Err(unavailable(
                "vector registers too large for the signal stack; use ptrace".to_owned(),
            ));
        }
        let limits = stub::limits();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let (stubs, file) = (Stubs::start()?, ContextFile::new()?);
        let (pool, renewer) = Pool::start()
            .map_err(|source| PlatformError::Host { what: "starting the renewer thread", source })?;
        let host = |source| PlatformError::Host { what: "memory for patched code", source };
        let mut platform =
            SystrapPlatform { pool, renewer: Some(renewer), stubs, file, limits, cpus, patch_memory: None };
        if FpuState::len() <= CTX_XSAVE_LEN {
            platform.patch_memory = Some(MemoryFile::new().map_err(host)?);
            match platform.try_out() {
                Ok(()) => return Ok(Arc::new(platform)),
                Err(e) => {
                    // No 32-bit calls on this host, most likely.
                    tracing::debug!("call sites are not patched: {e}");
                    platform.patch_memory = None;
                }
            }
        }
        platform.try_out()?;
        Ok(Arc::new(platform))
    }

    /// Runs a guest instruction.
    fn try_out(&self) -> Result<(), PlatformError> {
        let space = self.new_address_space()?;
        let mut context = self.new_context()?;
        // Nothing is mapped there, so the first instruction faults.
        let mut regs = Registers::new(self.limits.max - PAGE, self.limits.max - PAGE);
        let first = context.switch(&space, &mut regs);
        context.release();
        match first {
            Ok(Trap::Fault(_)) => Ok(()),
            Ok(other) => Err(unavailable(format!("the first guest instruction gave {other:?}"))),
            Err(e) => Err(unavailable(e.to_string())),
        }
    }
}

impl Platform for SystrapPlatform {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let (stub, places, idle, made) = match self.pool.take() {
            Some(Kept { stub, thread }) => (stub, blocks::Places::after_first(), vec![thread], 1),
            None => (
                Arc::new(StubSpace::new(&self.stubs, self.limits)?),
                blocks::Places::default(),
                Vec::new(),
                0,
            ),
        };
        let patches = self
            .patch_memory
            .clone()
            .map(|memory| Mutex::new(Shared { patches: Patches::new(memory), low: Low::Free }));
        Ok(Arc::new(SystrapSpace {
            patches,
            patched: AtomicBool::new(false),
            low_mapped: AtomicBool::new(false),
            calls: Calls::default(),
            hot: Mutex::default(),
            stub,
            places,
            idle: Mutex::new(idle),
            made: AtomicUsize::new(made),
            empty: AtomicBool::new(true),
            pool: self.pool.clone(),
        }))
    }

    fn new_context(&self) -> Result<Box<dyn Context>, PlatformError> {
        Ok(Box::new(context::SystrapContext::new(self.file.clone(), self.cpus)))
    }

    fn address_limits(&self) -> AddressLimits {
        self.limits
    }

    fn stub_pids(&self) -> Vec<u32> {
        let mut all = self.pool.pids();
        all.push(self.stubs.zygote_pid().cast_unsigned());
        all
    }

    fn features(&self) -> Features {
        let clock_code = self.stubs.clock_code();
        Features { fault_around: 64 << 10, fpu_len: FpuState::len(), fault_access_known: true, clock_code }
    }
}

impl Drop for SystrapPlatform {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
    }
}

/// Most host threads of a process that wait for a new guest thread.
const IDLE_MAX: usize = 8;

/// What is at the low place of the command page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Low {
    Free,
    /// The command page.
    Ours,
    /// Something of the guest's, or it was.
    Guests,
}

struct Shared {
    patches: Patches,
    low: Low,
}

/// How often guests came in by a signal, and from patched sites.
#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) trapped: AtomicU64,
    pub(crate) patched: AtomicU64,
}

/// An address space of this platform.
pub(crate) struct SystrapSpace {
    pub(crate) stub: Arc<StubSpace>,
    /// Which context places of the process are taken.
    pub(crate) places: blocks::Places,
    /// Host threads whose guest thread has ended.
    idle: Mutex<Vec<HostThread>>,
    /// How many host threads were ever made.
    made: AtomicUsize,
    /// Nothing is mapped.
    empty: AtomicBool,
    pool: Arc<Pool>,
    patches: Option<Mutex<Shared>>,
    /// There have been patches.
    patched: AtomicBool,
    /// The low place shows the command page.
    low_mapped: AtomicBool,
    pub(crate) calls: Calls,
    hot: Mutex<Counts>,
}

impl SystrapSpace {
    /// A call came by a signal; true when its site has just become worth a patch.
    pub(crate) fn count(&self, after: u64) -> bool {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner).count(after)
    }

    /// A thread is here that cannot be told from others.
    fn never_patch(&self) {
        let Some(mut shared) = self.shared() else { return };
        if let Err(e) = shared.patches.turn_off(&self.stub) {
            tracing::error!("patches of a stub process stay though a thread has no number: {e}");
            self.stub.kill(libc::SIGKILL);
        }
    }

    fn shared(&self) -> Option<MutexGuard<'_, Shared>> {
        self.patches.as_ref().map(|p| p.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a new thread with its context at `place` is told its number; `None` where no site is or will be patched.
    pub(crate) fn selector(&self, place: u64) -> Option<Selector> {
        let mut shared = self.shared()?;
        if place >= CTX_BASE + NUMBERS * CTX_SIZE {
            drop(shared);
            self.never_patch();
            return None;
        }
        match shared.low {
            Low::Free => {
                shared.low = Low::Ours;
                Some(Selector { map: true })
            }
            // The thread that is to map it may not have come to it.
            Low::Ours => Some(Selector { map: !self.low_mapped.load(Relaxed) }),
            Low::Guests => {
                drop(shared);
                self.never_patch();
                None
            }
        }
    }

    /// The patches, if there have ever been any.
    fn with_patches<R>(&self, f: impl FnOnce(&Patches) -> R) -> Option<R> {
        if !self.patched.load(Relaxed) {
            return None;
        }
        self.shared().map(|s| f(&s.patches))
    }

    fn change(&self, changes: &[MapChange<'_>]) -> Result<(), PlatformError> {
        let range = |c: &MapChange<'_>| match *c {
            MapChange::Map { at, .. } => at,
            MapChange::Unmap(at) | MapChange::Protect(at, _) => at,
        };
        let low = changes.iter().any(|c| range(c).start < LOW + PAGE);
        if !low && !self.patched.load(Relaxed) {
            return self.stub.apply(changes);
        }
        let Some(mut shared) = self.shared() else { return self.stub.apply(changes) };
        if low {
            for c in changes.iter().filter(|c| range(c).start < LOW + PAGE && range(c).end > LOW) {
                // Threads that are there keep their number; new ones find nothing of ours there.
                shared.low = match c {
                    MapChange::Unmap(_) => Low::Free,
                    MapChange::Map { .. } => Low::Guests,
                    MapChange::Protect(..) => shared.low,
                };
                if !matches!(shared.low, Low::Ours) {
                    self.low_mapped.store(false, Relaxed);
                }
            }
        }
        let gone = shared.patches.make_way(&self.stub, changes)?;
        self.stub.apply(changes)?;
        shared.patches.free(gone);
        Ok(())
    }

    /// A host thread that waits in the handler.
    fn take_idle(&self) -> Option<HostThread> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a host thread that waits in the handler for the next guest thread of this process; gives it back if there are
    /// enough. It may be anywhere if the guest is hostile, but only that guest will use it.
    fn keep_idle(&self, thread: HostThread) -> Option<HostThread> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE_MAX {
            return Some(thread);
        }
        idle.push(thread);
        None
    }
}

impl AddressSpace for SystrapSpace {
    fn map(
        &self,
        at: GuestRange,
        file: &Arc<HostFile>,
        offset: u64,
        prot: Prot,
        precommit: bool,
    ) -> Result<(), PlatformError> {
        self.apply(&[MapChange::Map { at, file, offset, prot, precommit }])
    }

    fn unmap(&self, range: GuestRange) -> Result<(), PlatformError> {
        self.change(&[MapChange::Unmap(range)])?;
        if self.stub.is_all(range) {
            self.empty.store(true, Relaxed);
        }
        Ok(())
    }

    fn protect(&self, range: GuestRange, prot: Prot) -> Result<(), PlatformError> {
        self.change(&[MapChange::Protect(range, prot)])
    }

    fn apply(&self, changes: &[MapChange<'_>]) -> Result<(), PlatformError> {
        self.empty.store(false, Relaxed);
        self.change(changes)
    }

    fn patch_call(&self, call: &CallSite<'_>) -> Result<bool, PlatformError> {
        let Some(mut shared) = self.shared() else { return Ok(false) };
        self.patched.store(true, Relaxed);
        shared.patches.patch(&self.stub, call)
    }

    fn patch_room(&self, after: u64) -> Option<(GuestRange, u64)> {
        Some((self.shared()?.patches.room_wanted(after)?, patches::AREA))
    }

    fn code_changed(&self, range: GuestRange) -> Result<(), PlatformError> {
        if !self.patched.load(Relaxed) {
            return Ok(());
        }
        let Some(mut shared) = self.shared() else { return Ok(()) };
        let gone = shared.patches.show_own(&self.stub, range)?;
        shared.patches.free(gone);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn host_pid(&self) -> Option<u32> {
        Some(self.stub.pid().cast_unsigned())
    }
}

impl Drop for SystrapSpace {
    /// A hostile guest may have threads that still run though their contexts look stopped. The memory is taken from them before the
    /// kernel above gives it to anybody else; the process itself is kept for another guest, or killed and reaped later.
    fn drop(&mut self) {
        let empty = self.empty.load(Relaxed) || self.stub.unmap_all();
        let sites = self.shared().map_or(0, |mut s| {
            let n = s.patches.seen();
            s.patches.free_all();
            n
        });
        let (trapped, patched) = (self.calls.trapped.load(Relaxed), self.calls.patched.load(Relaxed));
        tracing::debug!(stub = self.stub.pid(), trapped, patched, sites, "calls of a process");
        let mut idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        if empty
            && self.made.load(Relaxed) == 1
            && idle.len() == 1
            && let Some(thread) = idle.pop()
        {
            return self.pool.give(Kept { stub: self.stub.clone(), thread });
        }
        for thread in idle {
            self.stub.after_death(Box::new(move || thread.block.free()));
        }
    }
}
