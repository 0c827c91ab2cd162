//! A guest address space held by a stub process.

use super::keeper::Stubs;
use super::layout;
use super::mapper::{BatchError, Command, Mapper, kill};
use crate::error::PlatformError;
use crate::{AddressLimits, GuestRange, HostFile, MapChange, Prot};
use hostsys::futex;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
pub struct StubSpace {
    stubs: Arc<Stubs>,
    mapper: Option<Mapper>,
    limits: AddressLimits,
    /// Runs when the process is gone.
    after_death: Mutex<Vec<AfterDeath>>,
}

/// See [`StubSpace::after_death`].
pub(super) type AfterDeath = Box<dyn FnOnce() + Send>;

/// How a new thread gets the descriptor that tells its number.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// The low place of the command page is not mapped yet.
    pub map: bool,
}

const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// Where guests may map, for platforms with stub processes.
pub fn limits() -> AddressLimits {
    let min =
        std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").ok().and_then(|s| s.trim().parse::<u64>().ok());
    let min = min.unwrap_or(0x1_0000).clamp(0x1000, 0x100_0000).next_multiple_of(0x1000);
    AddressLimits { min, max: layout::CTX_BASE }
}

impl StubSpace {
    /// Forks the process.
    pub fn new(stubs: &Arc<Stubs>, limits: AddressLimits) -> Result<StubSpace, PlatformError> {
        Ok(StubSpace {
            stubs: stubs.clone(),
            mapper: Some(stubs.new_process()?),
            limits,
            after_death: Mutex::default(),
        })
    }

    fn mapper(&self) -> &Mapper {
        self.mapper.as_ref().expect("the mapper is only taken by drop")
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.mapper().pid()
    }

    /// Notes that the process has died.
    pub fn set_dead(&self) {
        self.mapper().set_dead();
    }

    /// What to do when the process has ended and was reaped. Lost if it is still to be made a process.
    pub fn after_death(&self, f: AfterDeath) {
        self.after_death.lock().unwrap_or_else(PoisonError::into_inner).push(f);
    }

    fn kept(&self) -> (&AtomicU32, &AtomicU32) {
        let slot = self.mapper().slot();
        (slot.word(layout::CMD_KEPT), slot.word(layout::CMD_TAKEN))
    }

    /// Whether a guest thread that is told to wait for another guest has to wait.
    pub fn set_kept(&self, kept: bool) {
        self.kept().0.store(kept.into(), SeqCst);
    }

    /// Whether a thread sleeps in the stub's code for kept threads, and nowhere else.
    pub fn kept_sleeps(&self) -> bool {
        let (kept, taken) = self.kept();
        futex::requeue(kept, taken, 1) == 1
    }

    /// Lets the kept thread go on with the signal frame at an address.
    pub fn wake_kept(&self, frame: u64) {
        let (kept, taken) = self.kept();
        self.mapper().slot().long(layout::CMD_FRAME).store(frame, Relaxed);
        kept.store(0, SeqCst);
        // It is on the first word again if something else has woken it.
        if futex::wake(taken, 1) == 0 {
            futex::wake(kept, 1);
        }
    }

    /// Sends a signal to the whole process.
    pub fn kill(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    /// Clones a thread that parks itself; returns its id.
    pub fn clone_thread(&self) -> Result<i32, PlatformError> {
        let clone = Command { nr: libc::SYS_clone, args: [THREAD as u64, 0, 0, 0, 0, 0], report: true };
        self.started(self.mapper().run(&[clone]))
    }

    /// Maps a context block of `file` at `at` and clones a thread that traps into the handler there; returns its id. `selector`: what
    /// tells the thread its number.
    pub fn clone_with_context(
        &self,
        at: u64,
        file: i32,
        offset: u64,
        selector: Option<Selector>,
    ) -> Result<i32, PlatformError> {
        let mut batch: smallvec::SmallVec<[Command; 4]> = smallvec::SmallVec::new();
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        let map = [at, layout::CTX_SIZE, prot, flags, file as u64, offset];
        batch.push(Command { nr: libc::SYS_mmap, args: map, report: false });
        if let Some(selector) = selector {
            if selector.map {
                let (file, offset) = self.stubs.command_page(self.mapper());
                let args = [layout::LOW, 4096, libc::PROT_READ as u64, flags, file as u64, offset];
                batch.push(Command { nr: libc::SYS_mmap, args, report: false });
            }
            // struct user_desc: entry, base, limit, flags (32 bits, usable).
            let entry = u64::from(layout::SELECTOR >> 3);
            let number = (at - layout::CTX_BASE) / layout::CTX_SIZE;
            let args = [0, 0, entry, (8 * number) | 0x41 << 32, 0, 0];
            batch.push(Command { nr: layout::NR_SELECTOR, args, report: false });
        }
        let flags = (THREAD | libc::CLONE_CHILD_CLEARTID) as u64;
        let clone = [flags, 0, 0, at + layout::CTX_TID as u64, 0, at];
        batch.push(Command { nr: libc::SYS_clone, args: clone, report: true });
        self.started(self.mapper().run(&batch))
    }

    /// Writes the record of the thread whose context is at `at`: where it goes for answers, and the answers. Threads behind the first few
    /// have none.
    pub fn set_record(&self, at: u64, go: (u64, u64), answers: [u32; 6]) {
        let number = (at - layout::CTX_BASE) / layout::CTX_SIZE;
        if number >= layout::RECORDS {
            return;
        }
        let slot = self.mapper().slot();
        let base = layout::CMD_RECORDS + layout::RECORD_LEN * number as usize;
        for (i, value) in answers.into_iter().enumerate() {
            slot.word(base + 16 + 4 * i).store(value, Relaxed);
        }
        slot.long(base + 48).store(at, Relaxed);
        slot.long(base).store(go.0, Relaxed);
        slot.long(base + 8).store(go.1, Relaxed);
    }

    /// Writes what the record of that thread says of its parent process.
    pub fn set_record_parent(&self, at: u64, parent: u32) {
        let number = (at - layout::CTX_BASE) / layout::CTX_SIZE;
        if number < layout::RECORDS {
            let base = layout::CMD_RECORDS + layout::RECORD_LEN * number as usize;
            self.mapper().slot().word(base + layout::RECORD_PARENT).store(parent, Relaxed);
        }
    }

    /// A new thread may run everywhere; it has inherited the mapper's binding.
    fn started(&self, tid: Result<i32, BatchError>) -> Result<i32, PlatformError> {
        let tid = tid.map_err(|e| e.into_platform("cloning a guest thread"))?;
        // Without it the thread only runs on fewer processors than it could.
        let _ = hostsys::process::set_affinity(tid, self.stubs.cpus());
        Ok(tid)
    }

    /// Unmaps a context block whose thread has ended.
    pub fn unmap_context(&self, at: u64) -> Result<(), PlatformError> {
        let unmap = Command { nr: libc::SYS_munmap, args: [at, layout::CTX_SIZE, 0, 0, 0, 0], report: false };
        self.mapper().run(&[unmap]).map_err(|e| e.into_platform("unmapping a context")).map(drop)
    }

    /// Unmaps everything of the guest's: when it returns, no guest thread can touch the memory, even if it still runs.
    /// False: the process is dead, and so are its mappings.
    pub fn unmap_all(&self) -> bool {
        let all = Command { nr: libc::SYS_munmap, args: [0, self.limits.max, 0, 0, 0, 0], report: false };
        self.mapper().run(&[all]).is_ok()
    }

    /// Whether the process has ended.
    pub fn has_exited(&self) -> bool {
        self.mapper().is_dead() || super::mapper::has_exited(self.pid())
    }

    /// Whether a range holds all that a guest may map.
    pub fn is_all(&self, r: GuestRange) -> bool {
        r.start <= self.limits.min && r.end >= self.limits.max
    }

    fn check(&self, r: GuestRange) -> Result<(), PlatformError> {
        let aligned = r.start.is_multiple_of(4096) && r.end.is_multiple_of(4096);
        if aligned && r.start < r.end && r.start >= self.limits.min && r.end <= self.limits.max {
            Ok(())
        } else {
            Err(PlatformError::BadRange { start: r.start, end: r.end })
        }
    }

    fn mmap(
        &self,
        at: GuestRange,
        file: &HostFile,
        offset: u64,
        prot: Prot,
        precommit: bool,
    ) -> Result<Command, PlatformError> {
        self.check(at)?;
        if !offset.is_multiple_of(4096) || offset.checked_add(at.len()).is_none_or(|e| e > i64::MAX as u64) {
            return Err(PlatformError::BadRange { start: offset, end: offset.wrapping_add(at.len()) });
        }
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | if precommit { libc::MAP_POPULATE } else { 0 };
        let fd = file.as_fd().as_raw_fd();
        let args = [at.start, at.len(), prot.bits().into(), flags as u64, fd as u64, offset];
        Ok(Command { nr: libc::SYS_mmap, args, report: false })
    }

    /// Makes the changes in order, in as few round trips as possible.
    pub fn apply(&self, changes: &[MapChange<'_>]) -> Result<(), PlatformError> {
        let mut commands: smallvec::SmallVec<[Command; 4]> = smallvec::SmallVec::new();
        for change in changes {
            commands.push(match *change {
                MapChange::Map { at, file, offset, prot, precommit } => {
                    self.mmap(at, file, offset, prot, precommit)?
                }
                MapChange::Unmap(range) => self.munmap(range)?,
                MapChange::Protect(range, prot) => {
                    self.check(range)?;
                    let args = [range.start, range.len(), prot.bits().into(), 0, 0, 0];
                    Command { nr: libc::SYS_mprotect, args, report: false }
                }
            });
        }
        let mut rest = &commands[..];
        loop {
            match self.mapper().run(rest) {
                Ok(_) => return Ok(()),
                Err(BatchError::Failed { index, errno: libc::ENOMEM })
                    if rest[index].nr == libc::SYS_mprotect =>
                {
                    // mprotect stops at the first hole. Unmapping is the safe equivalent: what is still wanted faults in again.
                    let a = rest[index].args;
                    let all = self.munmap(GuestRange { start: a[0], end: a[0] + a[1] })?;
                    self.mapper().run(&[all]).map_err(|e| e.into_platform("munmap in a stub process"))?;
                    rest = &rest[index + 1..];
                    if rest.is_empty() {
                        return Ok(());
                    }
                }
                Err(e) => return Err(e.into_platform("changing mappings of a stub process")),
            }
        }
    }

    fn munmap(&self, range: GuestRange) -> Result<Command, PlatformError> {
        self.check(range)?;
        Ok(Command { nr: libc::SYS_munmap, args: [range.start, range.len(), 0, 0, 0, 0], report: false })
    }
}

impl Drop for StubSpace {
    fn drop(&mut self) {
        if let Some(mapper) = self.mapper.take() {
            let after = std::mem::take(&mut *self.after_death.lock().unwrap_or_else(PoisonError::into_inner));
            self.stubs.end(mapper, after);
        }
    }
}
