//! sync(2), fsync(2), sync_file_range(2), and advice: posix_fadvise(2), readahead(2).

use super::at;
use crate::Current;
use abi::Errno;
use abi::stat::FileType;
use kernel::SysResult;
use kernel::vfs::Fd;

pub fn fsync(t: &mut Current<'_>, fd: Fd) -> SysResult {
    let file = at::file(t, fd)?;
    file.ops().fsync(&file, false)?;
    Ok(0)
}

pub fn fdatasync(t: &mut Current<'_>, fd: Fd) -> SysResult {
    let file = at::file(t, fd)?;
    file.ops().fsync(&file, true)?;
    Ok(0)
}

pub fn sync(t: &mut Current<'_>) -> SysResult {
    let ns = t.namespaces();
    for m in ns.mnt.mount_info(&ns.mnt.root()) {
        let _ = m.mount.fs.sync();
    }
    Ok(0)
}

pub fn syncfs(t: &mut Current<'_>, fd: Fd) -> SysResult {
    let file = at::file(t, fd)?;
    file.path().mount.fs.sync()?;
    Ok(0)
}

pub fn sync_file_range(t: &mut Current<'_>, fd: Fd, offset: i64, len: i64, flags: u32) -> SysResult {
    let file = at::file(t, fd)?;
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    match file.path().inode()?.file_type() {
        FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink => {}
        _ => return Err(Errno::ESPIPE.into()),
    }
    // Waiting for what was written is the only part that can be seen.
    if flags & 5 != 0 {
        file.ops().fsync(&file, true)?;
    }
    Ok(0)
}

pub fn fadvise64(t: &mut Current<'_>, fd: Fd, _offset: i64, len: i64, advice: i32) -> SysResult {
    let file = at::file(t, fd)?;
    if file.path().inode()?.file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || !(0..=5).contains(&advice) {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

pub fn readahead(t: &mut Current<'_>, fd: Fd, _offset: i64, _count: usize) -> SysResult {
    let file = at::file(t, fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    match file.path().inode()?.file_type() {
        FileType::Regular | FileType::BlockDevice => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}
