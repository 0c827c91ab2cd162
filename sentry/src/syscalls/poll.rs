//! poll(2), ppoll(2), select(2), pselect6(2).

use crate::Current;
use abi::fcntl::OpenFlags;
use abi::poll::{PollEvents, PollFd};
use abi::signal::SigSet;
use abi::time::{Timespec, Timeval};
use abi::{Errno, Result};
use kernel::restart::Restart;
use kernel::task::RestartBlock;
use kernel::time::Deadline;
use kernel::uaccess::UserPtr;
use kernel::vfs::{Fd, File};
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// One file to look at.
struct Polled {
    file: Arc<File>,
    asked: PollEvents,
    got: PollEvents,
}

/// Looks at all files until one has news (or `at_once` holds); how many have.
/// `timeout` in nanoseconds, `None` for ever.
fn wait_files(
    t: &Current<'_>,
    files: &mut [Polled],
    at_once: bool,
    deadline: Option<Deadline>,
) -> Result<(), Blocked> {
    let look = |files: &mut [Polled]| {
        let mut any = false;
        t.as_caller(|cx| {
            for p in files.iter_mut() {
                p.got = p.file.ops().poll(cx, &p.file) & (p.asked | PollEvents::UNASKED);
                any |= !p.got.is_empty();
            }
        });
        any
    };
    if look(files) || at_once {
        return Ok(());
    }
    let queues: Vec<WaitOn> = files
        .iter()
        .filter_map(|p| {
            let queue = p.file.ops().wait_queue(&p.file)?;
            Some(WaitOn::mask(&queue, (p.asked | PollEvents::UNASKED).bits()))
        })
        .collect();
    t.block_on(&queues, deadline, || look(files).then_some(()))
}

/// Whether a timeout of nanoseconds is over at once, and when else.
fn deadline(t: &Current<'_>, timeout: Option<i64>) -> (bool, Option<Deadline>) {
    (timeout == Some(0), timeout.map(|ns| Deadline::after(t.kernel(), ns)))
}

fn do_poll(
    t: &Current<'_>,
    ufds: UserPtr<PollFd>,
    n: u32,
    at_once: bool,
    until: Option<Deadline>,
) -> SysResult {
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?;
    if n as u64 > t.fd_limit() {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let mut fds = ufds.read_array(&mm, n)?;
    let table = t.files();
    let mut files = Vec::with_capacity(n);
    // Which entry of `fds` each of `files` is.
    let mut index = Vec::with_capacity(n);
    let mut count = 0;
    for (i, p) in fds.iter_mut().enumerate() {
        p.revents = 0;
        if p.fd < 0 {
            continue;
        }
        match table.get(Fd(p.fd)) {
            Ok(file) if !file.flags().contains(OpenFlags::PATH) => {
                let asked = PollEvents::from_bits_retain(p.events.into());
                files.push(Polled { file, asked, got: PollEvents::empty() });
                index.push(i);
            }
            _ => {
                p.revents = 0x20;
                count += 1;
            }
        }
    }
    let waited = wait_files(t, &mut files, at_once || count > 0, until);
    for (p, i) in files.iter().zip(index) {
        if !p.got.is_empty() {
            fds[i].revents = u16::try_from(p.got.bits() & 0xffff).unwrap_or(0);
            count += 1;
        }
    }
    for (i, p) in fds.iter().enumerate() {
        let at = ufds.add(i).addr().wrapping_add(6);
        mm.copy_out(at, p.revents.as_bytes())?;
    }
    if count == 0 && waited == Err(Blocked::Interrupted) {
        return Err(Restart::NoHandler.into());
    }
    Ok(count)
}

pub fn poll(t: &mut Current<'_>, fds: UserPtr<PollFd>, n: u32, timeout: i32) -> SysResult {
    let ns = u32::try_from(timeout).ok().map(|ms| i64::from(ms) * 1_000_000);
    let (at_once, until) = deadline(t, ns);
    poll_until(t, fds, n, at_once, until)
}

/// poll(2) goes on after a stop with the time that is left.
fn poll_until(
    t: &mut Current<'_>,
    fds: UserPtr<PollFd>,
    n: u32,
    at_once: bool,
    until: Option<Deadline>,
) -> SysResult {
    match do_poll(t, fds, n, at_once, until) {
        Err(SysError::Restart(_)) => {
            let deadline = until.map(|d| d.0);
            t.set_restart(RestartBlock::Poll { fds: fds.addr(), count: n, deadline });
            Err(SysError::Restart(Restart::Block))
        }
        r => r,
    }
}

/// restart_syscall(2) of a poll.
pub fn restart_poll(t: &mut Current<'_>, fds: u64, n: u32, until: Option<i64>) -> SysResult {
    poll_until(t, UserPtr::new(fds), n, false, until.map(Deadline))
}

/// A timeout argument in one of its two forms.
#[derive(Clone, Copy)]
enum TimePtr {
    Spec(UserPtr<Timespec>),
    Val(UserPtr<Timeval>),
}

impl TimePtr {
    fn read(self, t: &Current<'_>) -> Result<Option<i64>> {
        let spec = match self {
            TimePtr::Spec(p) => match p.optional() {
                None => return Ok(None),
                Some(p) => p.read(&t.mm())?,
            },
            TimePtr::Val(p) => match p.optional() {
                None => return Ok(None),
                Some(p) => {
                    let v = p.read(&t.mm())?;
                    Timespec {
                        tv_sec: v.tv_sec.wrapping_add(v.tv_usec / 1_000_000),
                        tv_nsec: v.tv_usec % 1_000_000 * 1000,
                    }
                }
            },
        };
        Ok(Some(spec.to_nanos_checked()?))
    }

    /// Writes back what is left. A call that wants to be restarted needs that: without it, EINTR.
    fn finish(self, t: &Current<'_>, until: Option<Deadline>, result: SysResult) -> SysResult {
        let Some(until) = until else { return result };
        let left = until.remaining(t.kernel()).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        let wrote = match self {
            TimePtr::Spec(p) => p.write(&t.mm(), &Timespec::from_nanos(left)),
            TimePtr::Val(p) => p.write(&t.mm(), &Timeval::from_nanos(left)),
        };
        match (wrote, result) {
            (Err(_), Err(SysError::Restart(_))) => Err(Errno::EINTR.into()),
            (_, result) => result,
        }
    }
}

/// Runs a call with the signal mask that the guest gave for its time (`set_user_sigmask`).
pub fn with_mask(
    t: &mut Current<'_>,
    mask: UserPtr<u64>,
    size: usize,
    call: impl FnOnce(&mut Current<'_>) -> SysResult,
) -> SysResult {
    if let Some(mask) = mask.optional() {
        if size != 8 {
            return Err(Errno::EINVAL.into());
        }
        t.set_temporary_mask(SigSet(mask.read(&t.mm())?));
    }
    let result = call(t);
    // While a signal waits to be delivered the mask stays; delivery puts the old one back.
    if !matches!(result, Err(SysError::Restart(_) | SysError::Errno(Errno::EINTR))) {
        t.restore_mask();
    }
    result
}

pub fn ppoll(
    t: &mut Current<'_>,
    fds: UserPtr<PollFd>,
    n: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    let time = TimePtr::Spec(timeout);
    let (at_once, until) = deadline(t, time.read(t)?);
    with_mask(t, mask, size, |t| {
        let result = do_poll(t, fds, n, at_once, until);
        time.finish(t, until, result)
    })
}

/// The three sets of select, as words.
struct Sets {
    ptrs: [UserPtr<u64>; 3],
    /// What is asked for.
    asked: [Vec<u64>; 3],
}

/// Events behind the three sets.
const SET_EVENTS: [PollEvents; 3] = [
    PollEvents::READABLE.union(PollEvents::RDBAND).union(PollEvents::UNASKED),
    PollEvents::WRITABLE.union(PollEvents::WRBAND).union(PollEvents::ERR),
    PollEvents::PRI,
];

fn do_select(
    t: &Current<'_>,
    n: i32,
    ptrs: [UserPtr<u64>; 3],
    at_once: bool,
    until: Option<Deadline>,
) -> SysResult {
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?;
    let mm = t.mm();
    let table = t.files();
    let n = n.min(table.capacity());
    let words = n.div_ceil(64);
    let mut sets = Sets { ptrs, asked: [const { Vec::new() }; 3] };
    for (ptr, words_in) in sets.ptrs.iter().zip(&mut sets.asked) {
        *words_in = match ptr.optional() {
            Some(p) => p.read_array(&mm, words)?,
            None => vec![0; words],
        };
    }
    let mut files = Vec::new();
    let mut fds = Vec::new();
    for fd in 0..n {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        let mut asked = PollEvents::empty();
        for (set, events) in sets.asked.iter().zip(SET_EVENTS) {
            if set[word] & bit != 0 {
                asked |= events;
            }
        }
        if !asked.is_empty() {
            let file = super::at::file(t, Fd(i32::try_from(fd).map_err(|_| Errno::EBADF)?))?;
            files.push(Polled { file, asked, got: PollEvents::empty() });
            fds.push(fd);
        }
    }
    // select hears of hang-ups and errors only through its sets: what nobody asked for is no news.
    let waited = wait_selected(t, &mut files, &fds, &sets, at_once, until);
    let mut out = [vec![0u64; words], vec![0; words], vec![0; words]];
    let mut count = 0;
    for (p, fd) in files.iter().zip(&fds) {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        for ((set, result), events) in sets.asked.iter().zip(&mut out).zip(SET_EVENTS) {
            if set[word] & bit != 0 && p.got.intersects(events) {
                result[word] |= bit;
                count += 1;
            }
        }
    }
    if count == 0 && waited == Err(Blocked::Interrupted) {
        return Err(Restart::NoHandler.into());
    }
    for (ptr, result) in sets.ptrs.iter().zip(&out) {
        if let Some(p) = ptr.optional() {
            p.write_array(&mm, result)?;
        }
    }
    Ok(count)
}

fn wait_selected(
    t: &Current<'_>,
    files: &mut [Polled],
    fds: &[usize],
    sets: &Sets,
    at_once: bool,
    until: Option<Deadline>,
) -> Result<(), Blocked> {
    let counts = |fd: usize, got: PollEvents| {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        sets.asked.iter().zip(SET_EVENTS).any(|(set, e)| set[word] & bit != 0 && got.intersects(e))
    };
    let look = |files: &mut [Polled]| {
        let mut any = false;
        t.as_caller(|cx| {
            for (p, fd) in files.iter_mut().zip(fds) {
                p.got = p.file.ops().poll(cx, &p.file);
                any |= counts(*fd, p.got);
            }
        });
        any
    };
    if look(files) || at_once {
        return Ok(());
    }
    let queues: Vec<WaitOn> = files
        .iter()
        .filter_map(|p| {
            let queue = p.file.ops().wait_queue(&p.file)?;
            Some(WaitOn::mask(&queue, (p.asked | PollEvents::UNASKED).bits()))
        })
        .collect();
    t.block_on(&queues, until, || look(files).then_some(()))
}

pub fn select(
    t: &mut Current<'_>,
    n: i32,
    readable: UserPtr<u64>,
    writable: UserPtr<u64>,
    exceptional: UserPtr<u64>,
    timeout: UserPtr<Timeval>,
) -> SysResult {
    let time = TimePtr::Val(timeout);
    let (at_once, until) = deadline(t, time.read(t)?);
    let result = do_select(t, n, [readable, writable, exceptional], at_once, until);
    time.finish(t, until, result)
}

pub fn pselect6(
    t: &mut Current<'_>,
    n: i32,
    readable: UserPtr<u64>,
    writable: UserPtr<u64>,
    exceptional: UserPtr<u64>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[u64; 2]>,
) -> SysResult {
    let [mask, size] = match mask.optional() {
        Some(p) => p.read(&t.mm())?,
        None => [0, 0],
    };
    let time = TimePtr::Spec(timeout);
    let (at_once, until) = deadline(t, time.read(t)?);
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    with_mask(t, UserPtr::new(mask), size, |t| {
        let result = do_select(t, n, [readable, writable, exceptional], at_once, until);
        time.finish(t, until, result)
    })
}
