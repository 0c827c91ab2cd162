//! Descriptor tables (`files_struct`).

use super::File;
use super::locks::LockOwner;
use abi::{Errno, Result};
use ksync::live::{Kind, Live};
use ksync::{LockClass, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A descriptor as a guest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(pub i32);

/// Room in the smallest table (`NR_OPEN_DEFAULT`).
const SMALLEST: usize = 64;

#[derive(Clone, Default)]
struct Slots {
    files: Vec<Option<Arc<File>>>,
    /// One bit for each open descriptor.
    open: Vec<u64>,
    /// One bit for each descriptor that execve(2) closes.
    cloexec: Vec<u64>,
    /// No descriptor below is free.
    hint: usize,
}

/// The descriptors of one or more tasks.
pub struct FdTable {
    slots: RwLock<Slots>,
    /// Owner of the POSIX locks set through this table.
    id: u64,
    /// For the test that nothing is leaked.
    _live: Live,
}

fn bit(map: &[u64], i: usize) -> bool {
    map.get(i / 64).is_some_and(|w| w >> (i % 64) & 1 != 0)
}

fn set_bit(map: &mut [u64], i: usize, on: bool) {
    if let Some(w) = map.get_mut(i / 64) {
        if on {
            *w |= 1 << (i % 64);
        } else {
            *w &= !(1 << (i % 64));
        }
    }
}

impl Slots {
    fn get(&self, fd: Fd) -> Result<&Arc<File>> {
        usize::try_from(fd.0)
            .ok()
            .and_then(|i| self.files.get(i))
            .and_then(Option::as_ref)
            .ok_or(Errno::EBADF)
    }

    /// The lowest free descriptor from `min` on.
    fn lowest_free(&self, min: usize) -> usize {
        let from = min.max(self.hint);
        let mut word = from / 64;
        let mut skip = (1u64 << (from % 64)) - 1;
        while let Some(w) = self.open.get(word) {
            let free = !(w | skip);
            if free != 0 {
                return word * 64 + free.trailing_zeros() as usize;
            }
            skip = 0;
            word += 1;
        }
        from.max(word * 64)
    }

    fn span(&self) -> usize {
        self.open.iter().rposition(|word| *word != 0).map_or(1, |word| word + 1) * 64
    }

    fn resize(&mut self, len: usize) {
        self.files.resize_with(len, || None);
        self.open.resize(len.div_ceil(64), 0);
        self.cloexec.resize(len.div_ceil(64), 0);
    }

    fn put(&mut self, at: usize, file: Arc<File>, cloexec: bool) -> Option<Arc<File>> {
        if at >= self.files.len() {
            self.resize((at + 1).max(SMALLEST).next_power_of_two());
        }
        set_bit(&mut self.open, at, true);
        set_bit(&mut self.cloexec, at, cloexec);
        self.files.get_mut(at).and_then(|s| s.replace(file))
    }

    fn take(&mut self, at: usize) -> Option<Arc<File>> {
        let file = self.files.get_mut(at)?.take()?;
        set_bit(&mut self.open, at, false);
        set_bit(&mut self.cloexec, at, false);
        self.hint = self.hint.min(at);
        Some(file)
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl FdTable {
    /// An empty table.
    pub fn new() -> Arc<FdTable> {
        FdTable::with(Slots::default())
    }

    fn with(slots: Slots) -> Arc<FdTable> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(FdTable {
            _live: Live::new(Kind::FdTable),
            slots: RwLock::new(LockClass::FdTable, slots),
            id,
        })
    }

    /// Who owns the POSIX locks that are set through this table.
    pub fn lock_owner(&self) -> LockOwner {
        LockOwner::Table(self.id)
    }

    /// A copy for a new process, no larger than the open descriptors need.
    pub fn fork(&self) -> Arc<FdTable> {
        let mut slots = self.slots.read().clone();
        let used = slots.span();
        let len = if used <= SMALLEST { SMALLEST } else { used.next_power_of_two() };
        slots.resize(len.min(slots.files.len()));
        FdTable::with(slots)
    }

    /// How many descriptors a copy must have room for: up to the last open one, in steps of 64.
    pub fn span(&self) -> usize {
        self.slots.read().span()
    }

    /// A copy without the descriptors of a range (`CLOSE_RANGE_UNSHARE`).
    pub fn fork_without(&self, first: u32, last: u32) -> Arc<FdTable> {
        let copy = self.fork();
        let gone = copy.take_range(first, last);
        drop(gone);
        copy
    }

    /// The description behind a descriptor; EBADF.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>> {
        self.slots.read().get(fd).cloned()
    }

    /// Puts a description at the lowest free descriptor that is at least `min`; EMFILE from `limit`
    /// (`RLIMIT_NOFILE`) on.
    pub fn install(&self, file: Arc<File>, cloexec: bool, min: usize, limit: usize) -> Result<Fd> {
        let mut slots = self.slots.write();
        let at = slots.lowest_free(min);
        if at >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = i32::try_from(at).map_err(|_| Errno::EMFILE)?;
        if min <= slots.hint {
            slots.hint = at + 1;
        }
        let old = slots.put(at, file, cloexec);
        debug_assert!(old.is_none());
        drop(slots);
        Ok(Fd(fd))
    }

    /// Whether another descriptor can be had at all; EMFILE.
    pub fn check_room(&self, limit: usize) -> Result<()> {
        if self.slots.read().lowest_free(0) < limit { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Puts a description at a given descriptor; what was there is the caller's to close with
    /// [`FdTable::closed`].
    pub fn install_at(
        &self,
        fd: Fd,
        file: Arc<File>,
        cloexec: bool,
        limit: usize,
    ) -> Result<Option<Arc<File>>> {
        let at = usize::try_from(fd.0).ok().filter(|i| *i < limit).ok_or(Errno::EBADF)?;
        Ok(self.slots.write().put(at, file, cloexec))
    }

    /// All open descriptors are below this (`max_fds`); select(2) looks at none beyond it.
    pub fn capacity(&self) -> usize {
        self.slots.read().files.len().max(SMALLEST)
    }

    /// The open descriptors, in order.
    pub fn list(&self) -> Vec<Fd> {
        self.entries().into_iter().map(|(fd, _)| fd).collect()
    }

    /// The open descriptors with their descriptions, in order.
    pub fn entries(&self) -> Vec<(Fd, Arc<File>)> {
        let slots = self.slots.read();
        let open = slots.files.iter().enumerate();
        open.filter_map(|(i, f)| Some((Fd(i32::try_from(i).ok()?), Arc::clone(f.as_ref()?)))).collect()
    }

    /// Whether the descriptor is closed by execve; EBADF.
    pub fn cloexec(&self, fd: Fd) -> Result<bool> {
        let slots = self.slots.read();
        slots.get(fd)?;
        Ok(usize::try_from(fd.0).is_ok_and(|i| bit(&slots.cloexec, i)))
    }

    /// Sets or clears close-on-exec; EBADF.
    pub fn set_cloexec(&self, fd: Fd, on: bool) -> Result<()> {
        let mut slots = self.slots.write();
        slots.get(fd)?;
        if let Ok(i) = usize::try_from(fd.0) {
            set_bit(&mut slots.cloexec, i, on);
        }
        Ok(())
    }

    /// Sets close-on-exec for a range of descriptors (`CLOSE_RANGE_CLOEXEC`).
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.write();
        let end = (last as usize).saturating_add(1).min(slots.files.len());
        for i in first as usize..end {
            let on = bit(&slots.open, i);
            set_bit(&mut slots.cloexec, i, on);
        }
    }

    /// Takes a descriptor out; EBADF. The caller closes it with [`FdTable::closed`] or drops it if it
    /// never was the guest's.
    pub fn remove(&self, fd: Fd) -> Result<Arc<File>> {
        let at = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        self.slots.write().take(at).ok_or(Errno::EBADF)
    }

    /// close(2): what the file says to it.
    pub fn close(&self, fd: Fd) -> Result<()> {
        let file = self.remove(fd)?;
        self.closed(&file)
    }

    /// A descriptor of this table for `file` is gone: its POSIX locks go, the file is told.
    pub fn closed(&self, file: &Arc<File>) -> Result<()> {
        self.drop_locks(file);
        file.ops().closed_in(self.lock_owner());
        if file.flags().contains(abi::fcntl::OpenFlags::PATH) { Ok(()) } else { file.ops().flush(file) }
    }

    fn drop_locks(&self, file: &File) {
        if let Some(inode) = file.path().dentry.inode()
            && let Some(locks) = inode.extras().locks_if_any()
        {
            locks.release_owner(self.lock_owner());
        }
    }

    fn take_range(&self, first: u32, last: u32) -> Vec<Arc<File>> {
        let mut slots = self.slots.write();
        let end = (last as usize).saturating_add(1).min(slots.files.len());
        (first as usize..end).filter_map(|i| slots.take(i)).collect()
    }

    /// Closes a range of descriptors.
    pub fn close_range(&self, first: u32, last: u32) {
        for file in self.take_range(first, last) {
            let _ = self.closed(&file);
        }
    }

    /// Closes what execve(2) closes.
    pub fn close_on_exec(&self) {
        let gone: Vec<Arc<File>> = {
            let mut slots = self.slots.write();
            (0..slots.files.len())
                .filter_map(|i| if bit(&slots.cloexec, i) { slots.take(i) } else { None })
                .collect()
        };
        for file in gone {
            let _ = self.closed(&file);
        }
    }

    /// Closes everything.
    pub fn close_all(&self) {
        self.close_range(0, u32::MAX);
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        self.close_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_descriptor() {
        let mut s = Slots::default();
        assert_eq!(s.lowest_free(0), 0);
        s.open = vec![u64::MAX, 0b1011];
        assert_eq!(s.lowest_free(0), 66);
        assert_eq!(s.lowest_free(67), 68);
        assert_eq!(s.lowest_free(1000), 1000);
        s.hint = 66;
        assert_eq!(s.lowest_free(3), 66);
    }
}
