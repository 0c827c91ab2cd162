//! Pipes and FIFOs (pipe(7), fifo(7)).
//!
//! A pipe is a ring of page buffers, as on Linux, because the slots show: a write appends to the last
//! page only if it fits there, `POLLOUT` means a free slot, and capacity counts slots.

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, File, FileOps, SplicePipe};
use kernel::{Kernel, SysResult, Task};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = abi::PAGE_BYTES;
/// Slots of a new pipe: 64 KiB.
const DEFAULT_SLOTS: usize = 16;
/// `/proc/sys/fs/pipe-max-size`.
pub const MAX_SIZE: u32 = 1 << 20;
/// Free pages a pipe keeps for its next writes.
const SPARE: usize = 2;
/// The smallest size, one page.
const SMALLEST: u32 = 4096;
/// `FIONREAD`
const FIONREAD: u32 = 0x541b;

type Page = Box<[u8; PAGE]>;

struct Buf {
    page: Page,
    off: usize,
    len: usize,
    /// Written in packet mode (`O_DIRECT`): read as one, never appended to.
    packet: bool,
}

struct State {
    bufs: VecDeque<Buf>,
    slots: usize,
    readers: u32,
    writers: u32,
    /// How many were ever opened for reading and for writing: a waiting open compares them.
    reader_opens: u64,
    writer_opens: u64,
    spare: Vec<Page>,
}

impl State {
    fn bytes(&self) -> usize {
        self.bufs.iter().map(|b| b.len).sum()
    }
    fn opens(&self) -> PipeOpens {
        PipeOpens {
            readers: self.readers,
            writers: self.writers,
            reader_opens: self.reader_opens,
            writer_opens: self.writer_opens,
        }
    }
    fn full(&self) -> bool {
        self.bufs.len() >= self.slots
    }
    fn page(&mut self) -> Page {
        self.spare.pop().unwrap_or_else(|| Box::new([0; PAGE]))
    }
    fn recycle(&mut self, page: Page) {
        if self.spare.len() < SPARE {
            self.spare.push(page);
        }
    }
}

/// A pipe, with or without a name.
pub struct Pipe {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    id: u64,
}

impl Pipe {
    /// A pipe that nobody has opened.
    pub fn new() -> Arc<Pipe> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let state = State {
            bufs: VecDeque::new(),
            slots: DEFAULT_SLOTS,
            readers: 0,
            writers: 0,
            reader_opens: 0,
            writer_opens: 0,
            spare: Vec::new(),
        };
        Arc::new(Pipe {
            state: Mutex::new(LockClass::Stream, state),
            queue: Arc::new(WaitQueue::new()),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Counts an opening in the given directions and gives its operations.
    pub fn end(self: &Arc<Self>, read: bool, write: bool) -> Arc<PipeEnd> {
        let (seen_writers, then) = {
            let mut s = self.state.lock();
            if read {
                s.readers += 1;
                s.reader_opens += 1;
            }
            if write {
                s.writers += 1;
                s.writer_opens += 1;
            }
            (if s.writers > 0 { u64::MAX } else { s.writer_opens }, s.opens())
        };
        self.queue.wake_all(u32::MAX);
        let seen_writers = AtomicU64::new(seen_writers);
        Arc::new(PipeEnd { pipe: Arc::clone(self), read, write, then, seen_writers })
    }

    /// Where changes are told.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// How many readers and writers there are now, and how many openings of each kind there ever were.
    pub fn opens(&self) -> PipeOpens {
        self.state.lock().opens()
    }
}

/// See [`Pipe::opens`].
#[derive(Clone, Copy, Debug)]
pub struct PipeOpens {
    pub readers: u32,
    pub writers: u32,
    pub reader_opens: u64,
    pub writer_opens: u64,
}

/// The two ends of a new pipe(2). `flags`: `O_NONBLOCK`, `O_DIRECT`.
pub fn pipe_files(kernel: &Kernel, cx: &Caller<'_>, flags: OpenFlags) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new();
    let path = crate::anon::pipe_path(kernel, cx.creds);
    crate::fifo::attach(&path, &pipe);
    let file =
        |ops: Arc<PipeEnd>, mode: OpenFlags| File::new(ops, path.clone(), flags | mode, Arc::clone(cx.creds));
    let reader = pipe.end(true, false);
    reader.met();
    let r = file(reader, OpenFlags::empty());
    let w = file(pipe.end(false, true), OpenFlags::WRONLY);
    (r, w)
}

/// What one open file description of a pipe may do.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// Who was there in the moment this was opened, itself included.
    then: PipeOpens,
    /// Writers that there had been when this was opened: no hang-up before another one came.
    seen_writers: AtomicU64,
}

impl PipeEnd {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Whether the other side was there when this was opened, or came since (fifo(7)). It need not still be there:
    /// a writer that waited for this reader may have written and gone before the reader looks.
    pub fn partner_came(&self) -> bool {
        let now = self.pipe.opens();
        if self.read {
            self.then.writers > 0 || now.writer_opens != self.then.writer_opens
        } else {
            self.then.readers > 0 || now.reader_opens != self.then.reader_opens
        }
    }

    /// A writer came while the opening waited: from now on its absence is a hang-up.
    pub fn met(&self) {
        self.seen_writers.store(u64::MAX, Ordering::Relaxed);
    }

    /// The opening was given up; no open file will release this.
    pub fn abandon(&self) {
        self.close();
    }

    fn close(&self) {
        let mut freed = VecDeque::new();
        {
            let mut s = self.pipe.state.lock();
            if self.read {
                s.readers -= 1;
            }
            if self.write {
                s.writers -= 1;
            }
            if s.readers == 0 && s.writers == 0 {
                // A FIFO that nobody has open forgets its data.
                freed = std::mem::take(&mut s.bufs);
                s.spare.clear();
                s.slots = DEFAULT_SLOTS;
            }
        }
        drop(freed);
        let all = PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ERR | PollEvents::HUP;
        self.pipe.queue.wake_all(all.bits());
    }
}

impl FileOps for PipeEnd {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut done = 0;
        let mut error = None;
        let was_full;
        {
            let mut s = self.pipe.state.lock();
            was_full = s.full();
            while dst.remaining() > 0 {
                let Some(buf) = s.bufs.front_mut() else { break };
                let n = buf.len.min(dst.remaining());
                // A piece that cannot be copied whole stays, as on Linux.
                match dst.put(&buf.page[buf.off..buf.off + n]) {
                    Ok(k) if k == n => {}
                    other => {
                        error = Some(other.err().unwrap_or(Errno::EFAULT));
                        break;
                    }
                }
                done += n;
                buf.off += n;
                buf.len -= n;
                let packet = buf.packet;
                if buf.len == 0 || packet {
                    if let Some(b) = s.bufs.pop_front() {
                        s.recycle(b.page);
                    }
                }
                if packet {
                    break;
                }
            }
            if done == 0 && error.is_none() && s.bufs.is_empty() {
                if s.writers == 0 {
                    return Ok(0);
                }
                return Err(Errno::EAGAIN);
            }
        }
        if done == 0
            && let Some(e) = error
        {
            return Err(e);
        }
        if was_full {
            self.pipe.queue.wake(PollEvents::WRITABLE.bits());
        }
        Ok(done)
    }

    fn write(&self, cx: &Caller<'_>, f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        let total = src.remaining();
        if total == 0 {
            return Ok(0);
        }
        let packet = f.flags().contains(OpenFlags::DIRECT);
        let mut done = 0;
        let mut error = None;
        {
            let mut s = self.pipe.state.lock();
            if s.readers == 0 {
                error = Some(Errno::EPIPE);
            }
            let odd = total % PAGE;
            if error.is_none()
                && odd != 0
                && !packet
                && let Some(last) = s.bufs.back_mut()
                && !last.packet
                && last.off + last.len + odd <= PAGE
            {
                let at = last.off + last.len;
                match src.take(&mut last.page[at..at + odd]) {
                    Ok(k) if k == odd => {
                        last.len += odd;
                        done += odd;
                    }
                    Ok(_) => error = Some(Errno::EFAULT),
                    Err(e) => error = Some(e),
                }
            }
            while error.is_none() && done < total {
                if s.full() {
                    error = Some(Errno::EAGAIN);
                    break;
                }
                let n = (total - done).min(PAGE);
                let mut page = s.page();
                match src.take(&mut page[..n]) {
                    Ok(k) if k == n => {
                        s.bufs.push_back(Buf { page, off: 0, len: n, packet });
                        done += n;
                    }
                    other => {
                        s.recycle(page);
                        error = Some(other.err().unwrap_or(Errno::EFAULT));
                    }
                }
            }
        }
        if done > 0 {
            self.pipe.queue.wake(PollEvents::READABLE.bits());
            return Ok(done);
        }
        let error = error.unwrap_or(Errno::EAGAIN);
        if error == Errno::EPIPE {
            crate::sigpipe(cx);
        }
        Err(error)
    }

    fn writes_all(&self) -> bool {
        true
    }
    fn as_pipe(&self) -> Option<&dyn SplicePipe> {
        Some(self)
    }
    fn seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let s = self.pipe.state.lock();
        let mut events = PollEvents::empty();
        if self.read {
            if !s.bufs.is_empty() {
                events |= PollEvents::READABLE;
            }
            if s.writers == 0 && s.writer_opens != self.seen_writers.load(Ordering::Relaxed) {
                events |= PollEvents::HUP;
            }
        }
        if self.write {
            if !s.full() {
                events |= PollEvents::WRITABLE;
            }
            if s.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.pipe.queue))
    }

    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> SysResult {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY.into());
        }
        let bytes = i32::try_from(self.available()).unwrap_or(i32::MAX);
        UserPtr::new(arg).write(&task.mm(), &bytes)?;
        Ok(0)
    }

    fn release(&self, _f: &File) {
        self.close();
    }
}

impl SplicePipe for PipeEnd {
    fn pipe_id(&self) -> u64 {
        self.pipe.id
    }
    fn available(&self) -> usize {
        self.pipe.state.lock().bytes()
    }
    fn room(&self) -> usize {
        let s = self.pipe.state.lock();
        s.slots.saturating_sub(s.bufs.len()) * PAGE
    }
    fn unread(&self, data: Vec<u8>) {
        let mut s = self.pipe.state.lock();
        for part in data.rchunks(PAGE) {
            let mut page = s.page();
            page[..part.len()].copy_from_slice(part);
            s.bufs.push_front(Buf { page, off: 0, len: part.len(), packet: false });
        }
    }
    fn peek(&self, max: usize) -> Result<Vec<u8>> {
        let s = self.pipe.state.lock();
        if s.bufs.is_empty() && s.writers > 0 {
            return Err(Errno::EAGAIN);
        }
        let mut out = Vec::new();
        for b in &s.bufs {
            let n = b.len.min(max - out.len());
            out.extend_from_slice(&b.page[b.off..b.off + n]);
            if out.len() == max {
                break;
            }
        }
        Ok(out)
    }
    fn capacity(&self) -> usize {
        self.pipe.state.lock().slots * PAGE
    }
    fn set_capacity(&self, bytes: u32, privileged: bool) -> Result<usize> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = (bytes.max(SMALLEST)).next_power_of_two();
        let slots = size as usize / PAGE;
        let mut s = self.pipe.state.lock();
        if slots > s.slots && size > MAX_SIZE && !privileged {
            return Err(Errno::EPERM);
        }
        if slots < s.bufs.len() {
            return Err(Errno::EBUSY);
        }
        let grew = slots > s.slots;
        s.slots = slots;
        drop(s);
        if grew {
            self.pipe.queue.wake_all(PollEvents::WRITABLE.bits());
        }
        Ok(size as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_that_has_gone_was_there() {
        let pipe = Pipe::new();
        let writer = pipe.end(false, true);
        assert!(!writer.partner_came());
        let reader = pipe.end(true, false);
        // The writer goes on, and is gone before the reader looks.
        assert!(writer.partner_came());
        writer.abandon();
        assert!(reader.partner_came());
        reader.abandon();
        // Who had gone before does not count.
        let reader = pipe.end(true, false);
        assert!(!reader.partner_came());
        pipe.end(false, true).abandon();
        assert!(reader.partner_came());
    }
}
