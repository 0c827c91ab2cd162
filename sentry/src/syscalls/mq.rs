//! POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2),
//! mq_getsetattr(2).

use super::at;
use crate::Current;
use abi::fcntl::OpenFlags;
use abi::siginfo::{SigEvent, sigev};
use abi::signal::Signal;
use abi::stat::FileType;
use abi::time::Timespec;
use abi::{Errno, Result};
use fs::mqueue::{MqFile, MqNamespace, Notify, Shape};
use kernel::restart::Restart;
use kernel::time::Deadline;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::change::{self, New};
use kernel::vfs::permission::{May, check};
use kernel::vfs::{Caller, Fd, File, Last, Parent, Path, child};
use kernel::wait::{Blocked, WaitOn};
use kernel::{SysError, SysResult, ThreadGroup};
use std::sync::Arc;

/// Priorities are below this (`MQ_PRIO_MAX`).
const PRIORITIES: u32 = 32_768;

/// `struct mq_attr`: flags, most messages, most bytes of one, messages there are.
pub type MqAttr = [i64; 8];

fn namespace(t: &Current<'_>) -> Arc<MqNamespace> {
    MqNamespace::of(t.kernel(), &t.namespaces().ipc)
}

/// The directory and the name; names with a slash are no queues.
fn parent(mq: &MqNamespace, name: &[u8]) -> Result<Parent> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Errno::EACCES);
    }
    if name.len() > 255 {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(Parent { dir: mq.mount.root_path(), name: name.into(), last: Last::Normal, slash: false })
}

pub fn mq_open(
    t: &mut Current<'_>,
    name: UserCStr,
    flags: u32,
    mode: u32,
    attr: UserPtr<MqAttr>,
) -> SysResult {
    let shape = match attr.optional() {
        None => None,
        Some(p) => {
            let [_, messages, size, ..] = p.read(&t.mm())?;
            Some(Shape { messages, size })
        }
    };
    let name = name.read_path(&t.mm())?;
    t.files().check_room(usize::try_from(t.fd_limit()).unwrap_or(usize::MAX))?;
    let mq = namespace(t);
    let parent = parent(&mq, &name)?;
    let flags = OpenFlags::from_bits_retain(flags);
    let path = t.as_caller(|cx| find_or_make(cx, &parent, flags, mode, shape))?;
    let kept = OpenFlags::from_bits_retain(flags.bits() & OpenFlags::ACCMODE) | flags & OpenFlags::NONBLOCK;
    let ops = t.as_caller(|cx| path.inode()?.open(cx, &path, kept))?;
    Ok(t.install_fd(File::new(ops, path, kept, t.creds()), true)?)
}

fn find_or_make(
    cx: &Caller<'_>,
    parent: &Parent,
    flags: OpenFlags,
    mode: u32,
    shape: Option<Shape>,
) -> Result<Path> {
    loop {
        let found = child(cx, &parent.dir, &parent.name)?;
        if found.inode().is_some() {
            if flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) {
                return Err(Errno::EEXIST);
            }
            let may = match flags.bits() & OpenFlags::ACCMODE {
                0 => May::READ,
                1 => May::WRITE,
                2 => May::READ | May::WRITE,
                _ => return Err(Errno::EINVAL),
            };
            let path = Path { mount: Arc::clone(&parent.dir.mount), dentry: found };
            check(cx, &path, may)?;
            return Ok(path);
        }
        if !flags.contains(OpenFlags::CREAT) {
            return Err(Errno::ENOENT);
        }
        let mode = FileType::Regular.mode_bits() | mode & 0o7777;
        // Numbers that do not fit are as wrong as those below one.
        let fits = |s: &Shape| i32::try_from(s.messages).is_ok() && i32::try_from(s.size).is_ok();
        let rdev = match shape {
            None => 0,
            Some(s) if s.messages > 0 && s.size > 0 && fits(&s) => s.pack(),
            Some(_) => return Err(Errno::EINVAL),
        };
        match change::make(cx, parent, &New::Node { mode, rdev }) {
            Err(Errno::EEXIST) => {}
            made => return made,
        }
    }
}

pub fn mq_unlink(t: &mut Current<'_>, name: UserCStr) -> SysResult {
    let name = name.read_path(&t.mm())?;
    let parent = parent(&namespace(t), &name)?;
    t.as_caller(|cx| change::unlink(cx, &parent))?;
    Ok(0)
}

/// An open queue, opened for reading or for writing: EBADF.
fn queue(t: &Current<'_>, fd: Fd, writes: bool) -> Result<Arc<File>> {
    let file = at::file(t, fd)?;
    let allowed = if writes { file.flags().can_write() } else { file.flags().can_read() };
    if MqFile::of(&file).is_none() || !allowed { Err(Errno::EBADF) } else { Ok(file) }
}

/// An absolute time on the clock of the day as a deadline.
fn deadline(t: &Current<'_>, at: UserPtr<Timespec>) -> Result<Option<Deadline>> {
    let Some(at) = at.optional() else { return Ok(None) };
    let at = at.read(&t.mm())?.to_nanos_checked()?;
    Ok(Some(Deadline::after(t.kernel(), at.saturating_sub(t.kernel().clocks.realtime()))))
}

fn ended(b: Blocked) -> SysError {
    match b {
        Blocked::Interrupted => SysError::Restart(Restart::Sys),
        Blocked::TimedOut => Errno::ETIMEDOUT.into(),
    }
}

pub fn mq_timedsend(
    t: &mut Current<'_>,
    fd: Fd,
    text: UserPtr<u8>,
    len: usize,
    priority: u32,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let deadline = deadline(t, timeout)?;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL.into());
    }
    let file = queue(t, fd, true)?;
    let open = MqFile::of(&file).ok_or(Errno::EBADF)?;
    let queue = &open.queue;
    if i64::try_from(len).map_or(true, |len| len > queue.shape.size) {
        return Err(Errno::EMSGSIZE.into());
    }
    let text = text.read_array(&t.mm(), len)?;
    let me = t.task;
    let sender = |to: &ThreadGroup| {
        let info = me.sender_info(Signal::SIGUSR1, 0, to);
        (info.pid(), info.uid())
    };
    let nonblocking = file.nonblocking();
    t.block_on(&[WaitOn::any(&queue.wait)], deadline, || match queue.send(&text, priority, sender) {
        true => Some(Ok(())),
        false if nonblocking => Some(Err(Errno::EAGAIN)),
        false => None,
    })
    .map_err(ended)??;
    open.used(true);
    Ok(0)
}

pub fn mq_timedreceive(
    t: &mut Current<'_>,
    fd: Fd,
    out: UserPtr<u8>,
    len: usize,
    priority: UserPtr<u32>,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let deadline = deadline(t, timeout)?;
    let file = queue(t, fd, false)?;
    let open = MqFile::of(&file).ok_or(Errno::EBADF)?;
    let queue = &open.queue;
    if i64::try_from(len).is_ok_and(|len| len < queue.shape.size) {
        return Err(Errno::EMSGSIZE.into());
    }
    let got = match queue.receive() {
        Some(got) => got,
        None if file.nonblocking() => return Err(Errno::EAGAIN.into()),
        None => {
            queue.receiving(true);
            let got = t.block_on(&[WaitOn::any(&queue.wait)], deadline, || queue.receive());
            queue.receiving(false);
            got.map_err(ended)?
        }
    };
    open.used(false);
    let mm = t.mm();
    if let Some(p) = priority.optional() {
        p.write(&mm, &got.priority)?;
    }
    mm.copy_out(out.addr(), &got.text)?;
    Ok(got.text.len() as u64)
}

pub fn mq_notify(t: &mut Current<'_>, fd: Fd, event: UserPtr<SigEvent>) -> SysResult {
    let event = event.optional().map(|p| p.read(&t.mm())).transpose()?;
    let signal = match &event {
        Some(e) if e.notify == sigev::SIGNAL => {
            // 0 is a number that Linux takes and never sends.
            let known = (0..=64).contains(&e.signo);
            if !known {
                return Err(Errno::EINVAL.into());
            }
            Signal::new(e.signo).map(|s| (s, e.value))
        }
        Some(e) if e.notify == sigev::THREAD => {
            kernel::gap!(t.kernel(), "mq_notify SIGEV_THREAD");
            return Err(Errno::EBADF.into());
        }
        Some(e) if e.notify != sigev::NONE => return Err(Errno::EINVAL.into()),
        _ => None,
    };
    let file = at::file(t, fd)?;
    let open = MqFile::of(&file).ok_or(Errno::EBADF)?;
    let group = t.group();
    match event {
        None => open.queue.unregister(group),
        Some(_) => {
            let table = t.files().lock_owner();
            open.queue.register(Notify { group: Arc::downgrade(group), table, signal })?;
        }
    }
    Ok(0)
}

pub fn mq_getsetattr(t: &mut Current<'_>, fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> SysResult {
    let nonblock = OpenFlags::NONBLOCK;
    let set = match new.optional() {
        None => None,
        Some(p) => {
            let [flags, ..] = p.read(&t.mm())?;
            if flags & !i64::from(nonblock.bits()) != 0 {
                return Err(Errno::EINVAL.into());
            }
            Some(flags != 0)
        }
    };
    let file = at::file(t, fd)?;
    let queue = &MqFile::of(&file).ok_or(Errno::EBADF)?.queue;
    let flags = i64::from((file.flags() & nonblock).bits());
    let was: MqAttr = [flags, queue.shape.messages, queue.shape.size, queue.len(), 0, 0, 0, 0];
    if let Some(on) = set {
        let mut flags = file.flags();
        flags.set(nonblock, on);
        file.set_flags(flags);
    }
    if let Some(p) = old.optional() {
        p.write(&t.mm(), &was)?;
    }
    Ok(0)
}
