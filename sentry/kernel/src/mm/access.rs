//! Copies to and from guest memory, and words of it for futexes.
//!
//! All go through the sentry's own view of the pages, under the lock taken shared. Rights of the mappings are
//! respected (EFAULT), except in the forced forms, which are those of ptrace and /proc/pid/mem.

use super::fault::{Miss, allows};
use super::{Inner, Mm, TASK_SIZE};
use abi::{Errno, PAGE_SIZE, Result};
use platform::hostsys::account;
use platform::{Access, Block, FileRange, GuestRange, PlatformError};
use smallvec::SmallVec;

/// Most bytes that are gathered for one call of a block function.
const BATCH: usize = 1 << 20;
/// What is ready is used without waiting for more when it is at least this long.
const ENOUGH: usize = 64 << 10;
/// Tries to get a page that others take away meanwhile.
const TRIES: usize = 64;

/// What a word in memory is for those who wait for it: the same for all that can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WordKey {
    /// Memory of one address space: its id and the address.
    Private(u64, u64),
    /// Memory of an object: device, inode, offset.
    Shared(u64, u64, u64),
}

impl Inner {
    /// The run of pages at `addr` if an access can go ahead: its backing's block, at most `max` bytes.
    fn block_at(&self, addr: u64, max: u64, want: Access, forced: bool) -> Option<Block<'_>> {
        let (start, end, p) = self.pmas.get(addr)?;
        if !forced && !allows(p.prot, want) || want == Access::Write && !p.write_ready() {
            return None;
        }
        let off = p.off + (addr - start);
        let len = (end - addr).min(max);
        p.backing.block(FileRange { start: off, end: off + len }).ok()
    }
}

/// Whether `addr..addr+len` is inside the user's half; what of `len` is.
fn clip_user(addr: u64, len: usize) -> usize {
    usize::try_from(TASK_SIZE.saturating_sub(addr)).unwrap_or(0).min(len)
}

impl Mm {
    /// Calls `f` with blocks one after the other; `f` says how many bytes it used. The sum, up to the first byte
    /// that cannot be accessed.
    fn each_block(
        &self,
        addr: u64,
        len: usize,
        want: Access,
        forced: bool,
        f: &mut dyn FnMut(Block<'_>) -> usize,
    ) -> usize {
        let len = clip_user(addr, len);
        let mut done = 0;
        let mut tries = 0;
        while done < len {
            let at = addr + done as u64;
            {
                let inner = self.inner.read();
                let mut here = at;
                while done < len
                    && let Some(block) = inner.block_at(here, (len - done) as u64, want, forced)
                {
                    tries = 0;
                    let size = block.len();
                    let used = f(block);
                    done += used;
                    if used < size {
                        return done;
                    }
                    here = addr + done as u64;
                }
            }
            if done == len {
                break;
            }
            let at = addr + done as u64;
            tries += 1;
            if tries > TRIES || !self.ready_for_call(at, want, forced) {
                break;
            }
        }
        done
    }

    /// As `ready`. A call cannot wait here for what the end of another process gives: it may go some way beyond the
    /// container's limit, and the limit is seen to after it.
    fn ready_for_call(&self, addr: u64, want: Access, forced: bool) -> bool {
        let mut looks = 0..2;
        loop {
            match self.ready(&mut self.inner.write(), addr, want, forced) {
                Ok(()) => return true,
                Err(Miss::OverLimit) if looks.next().is_some() => {
                    if !self.memfile.look(self.account()) {
                        account::overdraw();
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Copies in; EFAULT when any byte cannot be read.
    pub fn copy_in(&self, addr: u64, dst: &mut [u8]) -> Result<()> {
        if self.copy_in_partial(addr, dst) == dst.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies out; EFAULT when any byte cannot be written (earlier ones may have been).
    pub fn copy_out(&self, addr: u64, src: &[u8]) -> Result<()> {
        if self.copy_out_partial(addr, src) == src.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies in up to the first byte that cannot be read; the count.
    pub fn copy_in_partial(&self, addr: u64, dst: &mut [u8]) -> usize {
        self.copy_in_with(addr, dst, false)
    }

    /// Copies out up to the first byte that cannot be written; the count.
    pub fn copy_out_partial(&self, addr: u64, src: &[u8]) -> usize {
        self.copy_out_with(addr, src, false)
    }

    /// As `copy_in_partial`, also from memory that the guest itself may not read (ptrace, /proc/pid/mem).
    pub fn copy_in_forced(&self, addr: u64, dst: &mut [u8]) -> usize {
        self.copy_in_with(addr, dst, true)
    }

    /// As `copy_out_partial`, also to private memory that the guest itself may not write.
    pub fn copy_out_forced(&self, addr: u64, src: &[u8]) -> usize {
        let n = self.copy_out_with(addr, src, true);
        if n > 0 {
            // Code may have become a copy with patches before these bytes came, but not meanwhile.
            let range = GuestRange { start: addr, end: addr + n as u64 };
            match self.space.code_changed(range) {
                Ok(()) | Err(PlatformError::Dead) => {}
                Err(e) => tracing::error!(error = %e, addr, "code that was written is not what runs"),
            }
        }
        n
    }

    fn copy_in_with(&self, addr: u64, dst: &mut [u8], forced: bool) -> usize {
        let mut at = 0;
        self.each_block(addr, dst.len(), Access::Read, forced, &mut |block| {
            let n = block.len().min(dst.len() - at);
            let k = block.read_partial(0, &mut dst[at..at + n]);
            at += k;
            k
        })
    }

    fn copy_out_with(&self, addr: u64, src: &[u8], forced: bool) -> usize {
        let mut at = 0;
        self.each_block(addr, src.len(), Access::Write, forced, &mut |block| {
            let n = block.len().min(src.len() - at);
            let k = block.write_partial(0, &src[at..at + n]);
            at += k;
            k
        })
    }

    /// Writes zeroes up to the first byte that cannot be written; the count.
    pub fn zero_out_partial(&self, addr: u64, len: usize) -> usize {
        self.each_block(addr, len, Access::Write, false, &mut |block| block.zero_partial(0, block.len()))
    }

    /// Writes zeroes; EFAULT when any byte cannot be written.
    pub fn zero_out(&self, addr: u64, len: usize) -> Result<()> {
        if self.zero_out_partial(addr, len) == len { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// A NUL-terminated string without its NUL; `None` when there is no NUL in the first `max` bytes.
    pub fn copy_in_str(&self, addr: u64, max: usize) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        let mut chunk = [0u8; 256];
        while out.len() < max {
            let at = addr.checked_add(out.len() as u64).ok_or(Errno::EFAULT)?;
            // Not across a page's end: the next one may be missing and the string may end before it.
            let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(1);
            let want = in_page.min(chunk.len()).min(max - out.len());
            let got = self.copy_in_partial(at, &mut chunk[..want]);
            if let Some(n) = chunk[..got].iter().position(|b| *b == 0) {
                out.extend_from_slice(&chunk[..n]);
                return Ok(Some(out));
            }
            if got < want {
                return Err(Errno::EFAULT);
            }
            out.extend_from_slice(&chunk[..got]);
        }
        Ok(None)
    }

    /// Gives `f` guest memory as blocks, in order from `addr` on; `f` says how many bytes it used, and is called
    /// again with what follows as long as it uses all it is given. The sum; EFAULT when not even the first
    /// byte can be accessed.
    ///
    /// `f` runs with the address space locked (shared): it must not touch guest memory by other ways.
    pub fn with_blocks(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        f: &mut dyn FnMut(&[Block<'_>]) -> Result<usize>,
    ) -> Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        let len = clip_user(addr, len);
        let mut done = 0;
        let mut tries = 0;
        // Where memory that can be accessed ends, once that is known.
        let mut end = len;
        while done < end {
            let inner = self.inner.read();
            let mut blocks: SmallVec<[Block<'_>; 8]> = SmallVec::new();
            let mut ready = 0;
            let want = (end - done).min(BATCH);
            while ready < want {
                let at = addr + (done + ready) as u64;
                let Some(b) = inner.block_at(at, (want - ready) as u64, access, false) else { break };
                ready += b.len();
                blocks.push(b);
            }
            if ready == want || ready >= ENOUGH {
                tries = 0;
                let used = match f(&blocks) {
                    Ok(n) => n.min(ready),
                    Err(_) if done > 0 => break,
                    Err(e) => return Err(e),
                };
                done += used;
                if used < ready {
                    break;
                }
                continue;
            }
            drop(blocks);
            drop(inner);
            tries += 1;
            let missing = addr + (done + ready) as u64;
            if tries > TRIES || !self.ready_for_call(missing, access, false) {
                end = done + ready;
                tries = 0;
            }
        }
        if end == 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Calls `f` with the aligned 32-bit word at `addr` and the key that all who can reach it agree on, with the address
    /// space locked shared. `shared`: look whether the memory is an object's; else it is taken as private.
    /// EFAULT when the word cannot be accessed.
    pub fn with_word<R>(
        &self,
        addr: u64,
        access: Access,
        shared: bool,
        f: &mut dyn FnMut(WordKey, Block<'_>) -> R,
    ) -> Result<R> {
        if addr % 4 != 0 {
            return Err(Errno::EINVAL);
        }
        if addr >= TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        for _ in 0..TRIES {
            {
                let inner = self.inner.read();
                if let Some(block) = inner.block_at(addr, 4, access, false)
                    && block.len() == 4
                {
                    let key =
                        if shared { self.key_in(&inner, addr) } else { WordKey::Private(self.id, addr) };
                    return Ok(f(key, block));
                }
            }
            if !self.ready_for_call(addr, access, false) {
                return Err(Errno::EFAULT);
            }
        }
        Err(Errno::EFAULT)
    }

    /// The key of a word without a look at the word. EFAULT when nothing is mapped there (shared only).
    pub fn word_key(&self, addr: u64, shared: bool) -> Result<WordKey> {
        if addr % 4 != 0 {
            return Err(Errno::EINVAL);
        }
        if addr >= TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        if !shared {
            return Ok(WordKey::Private(self.id, addr));
        }
        self.with_word(addr, Access::Read, true, &mut |key, _| key)
    }

    fn key_in(&self, inner: &Inner, addr: u64) -> WordKey {
        match inner.vmas.get(addr) {
            Some((s, _, vma)) if vma.is_shared() => match &vma.file {
                Some(f) => {
                    let (dev, ino) = f.object.identity();
                    WordKey::Shared(dev, ino, vma.offset + (addr - s))
                }
                None => WordKey::Private(self.id, addr),
            },
            _ => WordKey::Private(self.id, addr),
        }
    }

    /// Loads a word; EFAULT.
    pub fn load_u32(&self, addr: u64) -> Result<u32> {
        self.with_word(addr, Access::Read, false, &mut |_, b| b.load_u32(0))?.map_err(|_| Errno::EFAULT)
    }

    /// Compares and exchanges a word; the inner result is as for `AtomicU32`.
    pub fn cas_u32(&self, addr: u64, old: u32, new: u32) -> Result<core::result::Result<u32, u32>> {
        self.with_word(addr, Access::Write, false, &mut |_, b| b.compare_exchange_u32(0, old, new))?
            .map_err(|_| Errno::EFAULT)
    }
}
