//! Address spaces: VMAs, what backs them, faults, and the copies to and from guest memory.
//!
//! Two interval maps: mappings as the guest made them ([`vma::Vma`]), and which pages are behind which addresses
//! ([`vma::Pma`]), which also remembers what the platform has mapped, so that it is told only what changes.
//! One lock guards both; copies to and from guest memory take it shared and go through the sentry's own
//! view of the pages. Each subject (mmap, fault, fork …) has its file.

mod access;
mod advise;
mod brk;
mod fault;
mod fork;
mod host;
mod hot;
mod interval;
mod lock;
mod map;
mod mappable;
mod protect;
mod remap;
mod report;
mod room;
mod shmem;
mod sites;
mod vma;

#[cfg(test)]
mod tests;

pub use access::WordKey;
pub use advise::Advice;
pub use fault::{FaultSignal, OVER_LIMIT};
pub use interval::{IntervalMap, Piece};
pub use lock::LockAll;
pub use map::{MmapArgs, MmapFile, Placement};
pub use mappable::{MapError, Mappable, Segment};
pub use remap::RemapFlags;
pub use report::{MapsEntry, MapsName, SmapsCounts, VmCounts};
pub use shmem::SharedMemory;
pub use vma::{Pma, VmFile, VmFlags, Vma};

use self::room::NoRoom;
use crate::Kernel;
use crate::vfs::File;
use abi::{Errno, Result};
use ksync::live::{Kind, Live};
use ksync::{LockClass, RwLock};
use platform::hostsys::account;
use platform::{
    AddressLimits, AddressSpace, AllocOpts, FileRange, GuestRange, MemoryFile, Platform, PlatformError,
};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// End of the guest's half of the address space (`TASK_SIZE`, 47 bits).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Lowest address a guest may map (`vm.mmap_min_addr`).
pub const MMAP_MIN_ADDR: u64 = 0x1_0000;
/// Space kept free below a mapping that grows down.
pub const STACK_GUARD_GAP: u64 = 256 * abi::PAGE_SIZE;
/// Most mappings of an address space (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65530;

/// Resource limits and rights that memory calls are checked against; bytes, `u64::MAX` for none.
#[derive(Clone, Copy, Debug)]
pub struct MmLimits {
    /// `RLIMIT_AS`
    pub address_space: u64,
    /// `RLIMIT_DATA`
    pub data: u64,
    /// `RLIMIT_STACK`
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`
    pub memlock: u64,
    /// Whether `CAP_IPC_LOCK` lifts the limit on locked memory.
    pub may_lock: bool,
}

impl MmLimits {
    /// No limit at all.
    pub const NONE: MmLimits = MmLimits {
        address_space: u64::MAX,
        data: u64::MAX,
        stack: u64::MAX,
        memlock: u64::MAX,
        may_lock: true,
    };
}

/// Where the parts of a program are (`mm_struct`'s `start_code` and so on), as execve and prctl(`PR_SET_MM`) set it.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg: Range<u64>,
    pub env: Range<u64>,
    /// Where addresses are searched from, downwards.
    pub mmap_base: u64,
    /// Where the vdso is mapped; 0 for none.
    pub vdso: u64,
    /// The auxiliary vector as on the stack, for /proc/pid/auxv.
    pub auxv: Vec<(u64, u64)>,
}

/// The memory of one or more tasks (`mm_struct`).
pub struct Mm {
    id: u64,
    me: Weak<Mm>,
    platform: Arc<dyn Platform>,
    memfile: Arc<MemoryFile>,
    space: Arc<dyn AddressSpace>,
    limits: AddressLimits,
    /// State of subsystems that belongs to an address space (contexts of asynchronous I/O).
    objects: crate::extensions::Extensions,
    /// How long guest code ran in it by the clock, nanoseconds.
    guest_time: std::sync::atomic::AtomicI64,
    /// What the host's process had worked before: it may have held other memory.
    worked_before: i64,
    /// `RLIMIT_STACK` as the fault handler sees it.
    stack_limit: AtomicU64,
    hot: Arc<hot::HotPages>,
    /// Which account of the memory file is charged.
    account: AtomicU32,
    inner: RwLock<Inner>,
    /// For the test that nothing is leaked.
    _live: Live,
}

/// What the lock guards.
struct Inner {
    vmas: IntervalMap<Vma>,
    pmas: IntervalMap<Pma>,
    layout: Layout,
    no_room: NoRoom,
    exe: Option<Arc<File>>,
    /// Bytes mapped, of all kinds and of those that have limits.
    total_vm: u64,
    data_vm: u64,
    locked_vm: u64,
    /// Most bytes mapped at any time, and most backed.
    peak_vm: u64,
    peak_rss: u64,
    /// Bytes that have pages: of private memory, and of objects.
    anon_rss: u64,
    file_rss: u64,
    /// `VM_LOCKED` and `VM_LOCKONFAULT` for new mappings (mlockall).
    def_flags: VmFlags,
    /// Pages that the platform may still show although they should be gone; never given back.
    leaked: u64,
    /// The platform has been shown nothing yet: the first fault shows all there is.
    cold: bool,
}

/// What leaves an address space and is dropped only when its lock is no longer held, since dropping a file may do
/// much.
#[derive(Default)]
struct Gone {
    vmas: Vec<(Range<u64>, Vma)>,
}

impl std::fmt::Debug for Mm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mm({})", self.id)
    }
}

/// What the host's process behind an address space has worked.
fn host_cpu(space: &dyn AddressSpace) -> Option<i64> {
    let pid = i32::try_from(space.host_pid()?).ok()?;
    platform::clock::cpu_time_of(pid, false)
}

impl Mm {
    /// An empty address space.
    pub fn new(kernel: &Kernel) -> Result<Arc<Mm>> {
        Mm::on_platform(&kernel.platform, &kernel.memfile, Arc::new(hot::HotPages::new()), 0)
    }

    fn on_platform(
        platform: &Arc<dyn Platform>,
        memfile: &Arc<MemoryFile>,
        hot: Arc<hot::HotPages>,
        account: u32,
    ) -> Result<Arc<Mm>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let space = platform.new_address_space().map_err(|e| {
            tracing::warn!(error = %e, "no new address space");
            Errno::ENOMEM
        })?;
        let worked_before = host_cpu(&*space).unwrap_or(0);
        let limits = platform.address_limits();
        let top = limits.max.min(TASK_SIZE);
        Ok(Arc::new_cyclic(|me| Mm {
            _live: Live::new(Kind::Mm),
            platform: Arc::clone(platform),
            memfile: Arc::clone(memfile),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            me: Weak::clone(me),
            space,
            limits: AddressLimits { min: limits.min.max(MMAP_MIN_ADDR), max: top },
            objects: crate::extensions::Extensions::default(),
            guest_time: std::sync::atomic::AtomicI64::new(0),
            worked_before,
            stack_limit: AtomicU64::new(8 << 20),
            hot,
            account: AtomicU32::new(account),
            inner: RwLock::new(
                LockClass::AddressSpace,
                Inner {
                    vmas: IntervalMap::default(),
                    pmas: IntervalMap::default(),
                    layout: Layout { mmap_base: top - (128 << 20), ..Layout::default() },
                    no_room: NoRoom::default(),
                    exe: None,
                    total_vm: 0,
                    data_vm: 0,
                    locked_vm: 0,
                    peak_vm: 0,
                    peak_rss: 0,
                    anon_rss: 0,
                    file_rss: 0,
                    def_flags: VmFlags::empty(),
                    leaked: 0,
                    cold: true,
                },
            ),
        }))
    }

    /// A number that no other address space of the sandbox has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The platform's side: what `Context::switch` runs in.
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    /// Guest code ran in it for so many nanoseconds by the clock.
    pub fn add_guest_time(&self, ns: i64) {
        self.guest_time.fetch_add(ns, Ordering::Relaxed);
    }

    /// The part of a time by the clock that the processor really worked for guest code here. Waiting for a processor is no
    /// work: the host's process behind the address space knows. `under_way` is time not yet counted.
    pub fn worked(&self, by_clock: i64, under_way: i64) -> i64 {
        let total = self.guest_time.load(Ordering::Relaxed).saturating_add(under_way);
        match host_cpu(&*self.space).map(|cpu| cpu - self.worked_before) {
            Some(cpu) if cpu < total && total > 0 => {
                let part = i128::from(by_clock) * i128::from(cpu) / i128::from(total);
                i64::try_from(part).unwrap_or(by_clock)
            }
            _ => by_clock,
        }
    }

    /// State of other subsystems that belongs to it.
    pub fn objects(&self) -> &crate::extensions::Extensions {
        &self.objects
    }

    /// What a guest may map.
    pub fn limits(&self) -> AddressLimits {
        self.limits
    }

    /// Tells what `RLIMIT_STACK` is now: for the growth of stacks by faults.
    pub fn set_stack_limit(&self, bytes: u64) {
        self.stack_limit.store(bytes, Ordering::Relaxed);
    }

    /// Has new pages charged to an account of the memory file; those there are stay where they are, as in Linux.
    pub fn set_account(&self, account: u32) {
        self.account.store(account, Ordering::Relaxed);
    }

    /// The account that new pages are charged to; 0 for none.
    pub fn account(&self) -> u32 {
        self.account.load(Ordering::Relaxed)
    }

    /// How pages for this address space are taken.
    fn charged(&self) -> AllocOpts {
        let over = if account::is_overdrawing() { account::OVERDRAFT } else { 0 };
        AllocOpts { account: self.account(), over, ..AllocOpts::default() }
    }

    /// Where the program's parts are.
    pub fn layout(&self) -> Layout {
        self.inner.read().layout.clone()
    }

    /// Changes where the program's parts are.
    pub fn set_layout(&self, f: impl FnOnce(&mut Layout)) {
        let mut inner = self.inner.write();
        f(&mut inner.layout);
        inner.no_room = NoRoom::default();
    }

    /// The program's file (/proc/pid/exe).
    pub fn exe(&self) -> Option<Arc<File>> {
        self.inner.read().exe.clone()
    }

    /// Sets the program's file.
    pub fn set_exe(&self, file: Option<Arc<File>>) {
        let old = std::mem::replace(&mut self.inner.write().exe, file);
        drop(old);
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        let mut inner = self.inner.write();
        let vmas = inner.vmas.take_all();
        let pmas = inner.pmas.take_all();
        let exe = inner.exe.take();
        drop(inner);
        // No thread should run in the space any more, but a hostile guest may have kept one going, so nothing is given
        // back while it can still be seen.
        let mapped = pmas.iter().any(|(_, p)| p.mapped.is_some());
        let all = GuestRange { start: self.limits.min, end: self.limits.max };
        if mapped
            && let Err(e) = self.space.unmap(all)
            && !matches!(e, PlatformError::Dead)
        {
            tracing::error!(error = %e, "pages of an address space are lost");
            return;
        }
        for (r, p) in pmas {
            if let platform::Backing::Memory(m) = &p.backing {
                m.dec_ref(FileRange { start: p.off, end: p.off + (r.end - r.start) });
            }
        }
        for (r, v) in &vmas {
            if let Some(f) = &v.file {
                let bytes = v.offset..v.offset + (r.end - r.start);
                f.object.remove_mapping(&self.me, r.start, bytes, v.is_shared_writable());
            }
        }
        drop((vmas, exe));
    }
}
