//! ioctl(2): what is the same for all files; the rest is the files' own.

use super::at;
use crate::Current;
use abi::Errno;
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::termios::{FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE};
use kernel::SysResult;
use kernel::uaccess::UserPtr;
use kernel::vfs::Fd;

pub fn ioctl(t: &mut Current<'_>, fd: Fd, cmd: u32, arg: u64) -> SysResult {
    let file = at::file(t, fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    match cmd {
        FIOCLEX | FIONCLEX => {
            t.files().set_cloexec(fd, cmd == FIOCLEX)?;
            return Ok(0);
        }
        FIONBIO | FIOASYNC => {
            let on = UserPtr::<i32>::new(arg).read(&t.mm())? != 0;
            let flag = if cmd == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = file.flags();
            if cmd == FIOASYNC && flags.contains(flag) != on && file.ops().wait_queue(&file).is_none() {
                return Err(Errno::ENOTTY.into());
            }
            flags.set(flag, on);
            file.ops().flags_changed(&file, flags)?;
            file.set_flags(flags);
            return Ok(0);
        }
        _ => {}
    }
    let kind = file.path().dentry.inode().map(|i| i.file_type());
    match (cmd, kind) {
        (FIOQSIZE, Some(FileType::Regular | FileType::Directory | FileType::Symlink)) => {
            let size = file.ops().attr(&file)?.size;
            UserPtr::<u64>::new(arg).write(&t.mm(), &size)?;
            Ok(0)
        }
        (FIONREAD, Some(FileType::Regular)) if file.ops().seekable() => {
            let size = i64::try_from(file.ops().attr(&file)?.size).unwrap_or(i64::MAX);
            let pos = i64::try_from(file.pos().shown()).unwrap_or(i64::MAX);
            // The kernel stores the low 32 bits.
            let left = size.wrapping_sub(pos);
            let low = i32::from_ne_bytes(left.to_ne_bytes()[..4].try_into().unwrap_or_default());
            UserPtr::<i32>::new(arg).write(&t.mm(), &low)?;
            Ok(0)
        }
        _ => {
            let result = file.ops().ioctl(t.task, &file, cmd, arg);
            if let Err(kernel::SysError::Errno(Errno::ENOTTY)) = result {
                tracing::debug!(cmd = format_args!("{cmd:#x}"), "ioctl that the file does not know");
            }
            result
        }
    }
}
