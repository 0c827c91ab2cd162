//! Access times: when reading changes them (mount(2), `MS_RELATIME` and kin).

use super::Path;
use super::inode::{Attr, Caller, FsFlags, SetAttr, SetTime};
use super::mount::MountFlags;
use abi::stat::FileType;

/// Whether relatime lets an access change the time: when it is not newer than the last change, or a day old.
fn relatime_due(attr: &Attr, now: i64) -> bool {
    attr.atime <= attr.mtime || attr.atime <= attr.ctime || now - attr.atime.tv_sec >= 24 * 60 * 60
}

/// Somebody read the object at a place (`touch_atime`). Errors are nobody's concern.
pub(super) fn touch(cx: &Caller<'_>, path: &Path, noatime: bool) {
    let mount = &path.mount;
    let flags = mount.flags();
    if noatime || mount.fs_flags.contains(FsFlags::OWN_ATIME) || flags.contains(MountFlags::NOATIME) {
        return;
    }
    let Some(inode) = path.dentry.inode() else {
        return;
    };
    let kind = inode.file_type();
    if !matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink)
        || (kind == FileType::Directory && flags.contains(MountFlags::NODIRATIME))
        || mount.readonly()
    {
        return;
    }
    let Ok(attr) = inode.attr() else {
        return;
    };
    if !flags.contains(MountFlags::STRICTATIME) {
        let now = cx.task.map_or_else(platform::hostsys::clock::realtime, |t| t.kernel().clocks.realtime());
        if !relatime_due(&attr, now / 1_000_000_000) {
            return;
        }
    }
    let _ = inode.set_attr(cx, &SetAttr { atime: Some(SetTime::Now), ..SetAttr::default() });
}
