//! Asynchronous I/O of the old kind (io_setup(2) and kin). Each request is carried out while it is submitted, as
//! Linux itself does for files that know nothing better; what remains is the queue of completions.
//!
//! Programs may read completions from the ring that a context's address is. Ours has no valid header, which
//! libaio takes as "ask the kernel".

use super::at;
use super::read_write::{read_file, write_file};
use crate::Current;
use abi::time::Timespec;
use abi::{Errno, PAGE_SIZE, Result};
use fs::eventfd::EventFd;
use kernel::mm::Mm;
use kernel::restart::Restart;
use kernel::time::Deadline;
use kernel::uaccess::{UserIoVec, UserPtr};
use kernel::vfs::Fd;
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use ksync::{LockClass, Mutex, WaitQueue};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `struct io_event`: the request's data, its address, two results.
pub type IoEvent = [u64; 4];

/// One context of io_setup(2).
struct Context {
    done: Mutex<VecDeque<IoEvent>>,
    limit: usize,
    /// io_destroy(2) was called; who waits still has it.
    dead: AtomicBool,
    queue: Arc<WaitQueue>,
}

/// The contexts of an address space, by the address of their ring.
struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

fn contexts(mm: &Mm) -> Arc<Contexts> {
    mm.objects().get_or_init(|| Contexts(Mutex::new(LockClass::Leaf, BTreeMap::new())))
}

fn context(mm: &Mm, id: u64) -> Result<Arc<Context>> {
    contexts(mm).0.lock().get(&id).cloned().ok_or(Errno::EINVAL)
}

pub fn io_setup(t: &mut Current<'_>, events: u32, out: UserPtr<u64>) -> SysResult {
    let mm = t.mm();
    if out.read(&mm)? != 0 || events == 0 {
        return Err(Errno::EINVAL.into());
    }
    let most = t.kernel().sysctls.get_int("fs/aio-max-nr");
    if i64::from(events) > most {
        return Err(Errno::EAGAIN.into());
    }
    const READ_WRITE: u64 = 3;
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    let id = super::memory::mmap(t, 0, PAGE_SIZE, READ_WRITE, PRIVATE_ANONYMOUS, Fd(-1), 0)?;
    if let Err(e) = out.write(&mm, &id) {
        super::memory::munmap(t, id, PAGE_SIZE)?;
        return Err(e.into());
    }
    let limit = usize::try_from(events).unwrap_or(usize::MAX);
    let queue = Arc::new(WaitQueue::new());
    let new = Context {
        done: Mutex::new(LockClass::Leaf, VecDeque::new()),
        limit,
        dead: AtomicBool::new(false),
        queue,
    };
    contexts(&mm).0.lock().insert(id, Arc::new(new));
    Ok(0)
}

pub fn io_destroy(t: &mut Current<'_>, id: u64) -> SysResult {
    let gone = contexts(&t.mm()).0.lock().remove(&id);
    let gone = gone.ok_or(Errno::EINVAL)?;
    gone.dead.store(true, Ordering::Release);
    gone.queue.wake_all(u32::MAX);
    super::memory::munmap(t, id, PAGE_SIZE)
}

/// `struct iocb`, as words.
struct Request {
    data: u64,
    flags: u32,
    opcode: u16,
    fd: Fd,
    buf: u64,
    len: u64,
    offset: i64,
    event_fd: Option<Fd>,
}

impl Request {
    fn read(mm: &Mm, at: u64) -> Result<Request> {
        const RESFD: u32 = 1;
        let w: [u64; 8] = UserPtr::new(at).read(mm)?;
        let half =
            |w: u64, high: bool| u32::try_from(if high { w >> 32 } else { w & 0xffff_ffff }).unwrap_or(0);
        let flags = half(w[7], false);
        if w[6] != 0 || flags & !3 != 0 {
            return Err(Errno::EINVAL);
        }
        let resfd = Fd(half(w[7], true).cast_signed());
        Ok(Request {
            data: w[0],
            flags: half(w[1], true),
            opcode: u16::try_from(w[2] & 0xffff).unwrap_or(0),
            fd: Fd(half(w[2], true).cast_signed()),
            buf: w[3],
            len: w[4],
            offset: w[5].cast_signed(),
            event_fd: (flags & RESFD != 0).then_some(resfd),
        })
    }
}

/// Carries a request out. An error of the request itself refuses it; one of the work is its result.
fn perform(t: &mut Current<'_>, r: &Request) -> Result<i64> {
    const PREAD: u16 = 0;
    const PWRITE: u16 = 1;
    const FSYNC: u16 = 2;
    const FDSYNC: u16 = 3;
    const PREADV: u16 = 7;
    const PWRITEV: u16 = 8;
    let file = at::file(t, r.fd)?;
    if r.flags != 0 {
        kernel::gap!(t.kernel(), "io_submit with RWF flags", r.flags);
        return Err(Errno::EOPNOTSUPP);
    }
    let mm = t.mm();
    let len = usize::try_from(r.len).map_err(|_| Errno::EINVAL)?;
    let iov = match r.opcode {
        PREAD | PWRITE => UserIoVec::single(r.buf, len)?,
        PREADV | PWRITEV => UserIoVec::import(&mm, UserPtr::new(r.buf), len)?,
        FSYNC | FDSYNC => {
            let result = file.ops().fsync(&file, r.opcode == FDSYNC);
            return Ok(result.map_or_else(|e| -i64::from(e.raw()), |()| 0));
        }
        other => {
            if other == 5 {
                kernel::gap!(t.kernel(), "io_submit IOCB_CMD_POLL");
            }
            return Err(Errno::EINVAL);
        }
    };
    let at =
        if file.ops().seekable() { Some(u64::try_from(r.offset).map_err(|_| Errno::EINVAL)?) } else { None };
    let reads = matches!(r.opcode, PREAD | PREADV);
    if !(if reads { file.flags().can_read() } else { file.flags().can_write() }) {
        return Err(Errno::EBADF);
    }
    let result = if reads {
        read_file(t, &file, &mut iov.sink(&mm), at, false)
    } else {
        write_file(t, &file, &mut iov.source(&mm), at, false)
    };
    Ok(match result {
        Ok(n) => n.cast_signed(),
        Err(SysError::Errno(e)) => -i64::from(e.raw()),
        Err(_) => -i64::from(Errno::EINTR.raw()),
    })
}

fn submit(t: &mut Current<'_>, context: &Context, at: u64) -> Result<()> {
    let request = Request::read(&t.mm(), at)?;
    if context.done.lock().len() >= context.limit {
        return Err(Errno::EAGAIN);
    }
    let told = match request.event_fd {
        None => None,
        Some(fd) => {
            let file = at::file(t, fd)?;
            if file.ops_as::<EventFd>().is_none() {
                return Err(Errno::EINVAL);
            }
            Some(file)
        }
    };
    let result = perform(t, &request)?;
    context.done.lock().push_back([request.data, at, result.cast_unsigned(), 0]);
    context.queue.wake_all(u32::MAX);
    if let Some(e) = told.as_ref().and_then(|f| f.ops_as::<EventFd>()) {
        e.add(1);
    }
    Ok(())
}

pub fn io_submit(t: &mut Current<'_>, id: u64, count: i64, requests: UserPtr<u64>) -> SysResult {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let context = context(&t.mm(), id)?;
    for i in 0..count.min(context.limit) {
        let one = requests.add(i).read(&t.mm()).and_then(|at| submit(t, &context, at));
        match one {
            Ok(()) => {}
            Err(e) if i == 0 => return Err(e.into()),
            Err(_) => return Ok(i as u64),
        }
    }
    Ok(count.min(context.limit) as u64)
}

/// Nothing is ever under way.
pub fn io_cancel(t: &mut Current<'_>, id: u64, request: UserPtr<u64>, _out: UserPtr<IoEvent>) -> SysResult {
    request.add(1).cast::<u32>().read(&t.mm())?;
    context(&t.mm(), id)?;
    Err(Errno::EINVAL.into())
}

pub fn io_getevents(
    t: &mut Current<'_>,
    id: u64,
    least: i64,
    most: i64,
    out: UserPtr<IoEvent>,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let limit = match timeout.optional() {
        None => None,
        Some(p) => Some(p.read(&t.mm())?.to_nanos_checked()?),
    };
    let mm = t.mm();
    let context = context(&mm, id)?;
    let (Ok(least), Ok(most)) = (usize::try_from(least), usize::try_from(most)) else {
        return Err(Errno::EINVAL.into());
    };
    if least > most {
        return Err(Errno::EINVAL.into());
    }
    let until = limit.map(|ns| Deadline::after(t.kernel(), ns));
    let waited = t.block_on(&[WaitOn::any(&context.queue)], until, || {
        let dead = context.dead.load(Ordering::Acquire);
        (dead || context.done.lock().len() >= least).then_some(())
    });
    let mut got = 0;
    while got < most {
        let Some(event) = context.done.lock().pop_front() else { break };
        if let Err(e) = out.add(got).write(&mm, &event) {
            context.done.lock().push_front(event);
            return if got > 0 { Ok(got as u64) } else { Err(e.into()) };
        }
        got += 1;
    }
    match waited {
        _ if got == 0 && context.dead.load(Ordering::Acquire) => Err(Errno::EINVAL.into()),
        Err(Blocked::Interrupted) if got == 0 => Err(Restart::NoHandler.into()),
        _ => Ok(got as u64),
    }
}

/// As io_getevents(2), with a signal mask for its time.
pub fn io_pgetevents(
    t: &mut Current<'_>,
    id: u64,
    least: i64,
    most: i64,
    out: UserPtr<IoEvent>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[u64; 2]>,
) -> SysResult {
    let (set, size) = match mask.optional() {
        None => (0, 0),
        Some(p) => {
            let [set, size] = p.read(&t.mm())?;
            (set, usize::try_from(size).map_err(|_| Errno::EINVAL)?)
        }
    };
    super::poll::with_mask(t, UserPtr::new(set), size, |t| io_getevents(t, id, least, most, out, timeout))
}
