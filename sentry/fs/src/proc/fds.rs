//! /proc/PID/fd, fdinfo, ns, and the links cwd, root, exe.

use super::process::{Of, ino, may_inspect, owner_of};
use super::root::number;
use crate::pseudo::{DirNode, FileNode, LinkNode, Node, Owner, PseudoFs, PseudoInode};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::Task;
use kernel::task::NsKind;
use kernel::vfs::{Caller, Fd, File, Inode, LinkTarget};
use std::sync::Arc;

/// cwd
pub(super) fn cwd(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<LinkTarget> {
    Ok(LinkTarget::Jump(task.try_fs().ok_or(Errno::ENOENT)?.cwd()))
}

/// root
pub(super) fn root(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<LinkTarget> {
    Ok(LinkTarget::Jump(task.try_fs().ok_or(Errno::ENOENT)?.root()))
}

/// exe
pub(super) fn exe(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<LinkTarget> {
    let file = task.try_mm().and_then(|m| m.exe()).ok_or(Errno::ENOENT)?;
    Ok(LinkTarget::Jump(file.path().clone()))
}

/// /proc/PID/fd and /proc/PID/fdinfo
pub(super) struct FdDir {
    pub of: Of,
    pub info: bool,
}

fn file_of(of: &Of, fd: Fd) -> Result<Arc<File>> {
    let files = of.task()?.try_files().ok_or(Errno::ENOENT)?;
    files.get(fd).map_err(|_| Errno::ENOENT)
}

fn entry_ino(nr: i32, info: bool, fd: i32) -> u64 {
    let base: u64 = if info { 0x40_0000 } else { 0x20_0000 };
    ino(nr, base + u64::from(fd.unsigned_abs() & 0x1f_ffff))
}

impl DirNode for FdDir {
    fn lookup(&self, cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let task = self.of.task().map_err(|_| Errno::ENOENT)?;
        let n = if name == b"0" { 0 } else { number(name).ok_or(Errno::ENOENT)? };
        may_inspect(cx, &task)?;
        let fd = Fd(n);
        let file = file_of(&self.of, fd)?;
        let owner = Owner::Asked(owner_of(&task));
        let of = self.of.clone();
        let (perm, node) = if self.info {
            (0o444, Node::File(Arc::new(FdInfo { of, fd })))
        } else {
            // The mode of the link tells what the descriptor can do.
            let f = file.flags();
            let read = if f.can_read() { 0o500 } else { 0 };
            let write = if f.can_write() { 0o300 } else { 0 };
            (read | write, Node::Link(Arc::new(FdLink { of, fd })))
        };
        Ok(PseudoInode::new(fs, entry_ino(self.of.nr, self.info, n), perm, owner, node))
    }

    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        let Ok(task) = self.of.task() else { return };
        if may_inspect(cx, &task).is_err() {
            return;
        }
        let Some(files) = task.try_files() else { return };
        let kind = if self.info { FileType::Regular } else { FileType::Symlink };
        for Fd(n) in files.list() {
            let at = u64::from(n.unsigned_abs()) + 2;
            if at >= from && !emit(at, entry_ino(self.of.nr, self.info, n), kind, n.to_string().as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], _child: Option<&Arc<dyn Inode>>) -> bool {
        // The mode of the entry may have changed with the descriptor: always look anew.
        false
    }

    fn nlink(&self) -> u32 {
        if self.of.task().is_ok() { 2 } else { 0 }
    }
}

struct FdLink {
    of: Of,
    fd: Fd,
}

impl LinkNode for FdLink {
    fn target(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        let task = self.of.task()?;
        may_inspect(cx, &task)?;
        Ok(LinkTarget::Jump(file_of(&self.of, self.fd)?.path().clone()))
    }
}

struct FdInfo {
    of: Of,
    fd: Fd,
}

impl FileNode for FdInfo {
    fn read(&self, _cx: &Caller<'_>) -> Result<Vec<u8>> {
        let files = self.of.task()?.try_files().ok_or(Errno::ENOENT)?;
        let file = files.get(self.fd).map_err(|_| Errno::ENOENT)?;
        let cloexec = files.cloexec(self.fd).unwrap_or(false);
        let mut flags = file.flags() | OpenFlags::LARGEFILE;
        if cloexec {
            flags |= OpenFlags::CLOEXEC;
        }
        let pos = file.pos().shown();
        let inode = file.path().inode().map_or(0, |i| i.ino());
        let more = file.ops().fdinfo(&file);
        let (flags, mnt) = (flags.bits(), file.path().mount.id);
        Ok(format!("pos:\t{pos}\nflags:\t0{flags:o}\nmnt_id:\t{mnt}\nino:\t{inode}\n{more}").into_bytes())
    }
}

/// /proc/PID/ns
pub(super) struct NsDir {
    pub of: Of,
}

const KINDS: &[(&str, NsKind, bool)] = &[
    ("cgroup", NsKind::Cgroup, false),
    ("ipc", NsKind::Ipc, false),
    ("mnt", NsKind::Mnt, false),
    ("net", NsKind::Net, false),
    ("pid", NsKind::Pid, false),
    ("pid_for_children", NsKind::Pid, true),
    ("time", NsKind::Time, false),
    ("time_for_children", NsKind::Time, true),
    ("user", NsKind::User, false),
    ("uts", NsKind::Uts, false),
];

impl DirNode for NsDir {
    fn lookup(&self, _cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let task = self.of.task().map_err(|_| Errno::ENOENT)?;
        let (i, (_, kind, children)) =
            KINDS.iter().enumerate().find(|(_, k)| k.0.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let link = NsLink { of: self.of.clone(), kind: *kind, children: *children };
        let owner = Owner::Asked(owner_of(&task));
        Ok(PseudoInode::new(
            fs,
            ino(self.of.nr, 0x10_0000 + i as u64),
            0o777,
            owner,
            Node::Link(Arc::new(link)),
        ))
    }

    fn list(&self, _cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        for (i, (name, ..)) in KINDS.iter().enumerate() {
            let at = i as u64 + 2;
            let number = ino(self.of.nr, 0x10_0000 + i as u64);
            if at >= from && !emit(at, number, FileType::Symlink, name.as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, _cx: &Caller<'_>, _name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        child.is_none() || self.of.task().is_ok()
    }

    fn nlink(&self) -> u32 {
        if self.of.task().is_ok() { 2 } else { 0 }
    }
}

struct NsLink {
    of: Of,
    kind: NsKind,
    children: bool,
}

impl LinkNode for NsLink {
    fn target(&self, cx: &Caller<'_>) -> Result<LinkTarget> {
        let task = self.of.task()?;
        may_inspect(cx, &task)?;
        crate::nsfs::link(&task, self.kind, self.children)
    }
}
