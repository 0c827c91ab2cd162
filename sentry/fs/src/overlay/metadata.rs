//! Attributes of overlay inodes: those of the lower layer until the first change, then our own.

use std::collections::BTreeMap;

use abi::fcntl::OpenFlags;
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::vfs::{Attr, Caller, CreateArgs, File, MountFlags, SetAttr, SetTime, XattrFlags};

use super::inode::OverlayInode;

/// Largest number of links of one file.
const MAX_LINKS: u32 = 65_000;

pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the overlay keeps of a changed or new inode.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// As stat tells, but size and blocks only as long as the data is not in the upper layer.
    pub attr: Attr,
    /// All attributes, once one was changed.
    pub xattrs: Option<Xattrs>,
}

/// The time of a change.
pub(super) fn now(cx: &Caller<'_>) -> Timespec {
    match cx.task {
        Some(task) => task.kernel().clocks.now(),
        None => Timespec::from_nanos(platform::clock::realtime()),
    }
}

impl Metadata {
    /// Of something new.
    pub fn new(cx: &Caller<'_>, dev: u64, ino: u64, args: &CreateArgs, nlink: u32) -> Metadata {
        let time = now(cx);
        let attr = Attr {
            dev,
            ino,
            mode: args.mode,
            nlink,
            uid: args.uid,
            gid: args.gid,
            rdev: args.rdev,
            size: 0,
            blksize: 4096,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: Some(time),
        };
        Metadata { attr, xattrs: Some(Xattrs::new()) }
    }
}

impl OverlayInode {
    /// Attributes of the lower inode under the overlay's device.
    fn lower_attr(&self) -> Result<Attr> {
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        Ok(Attr { dev: self.fs.dev, ..lower.attr()? })
    }

    pub(super) fn current_attr(&self) -> Result<Attr> {
        let (own, upper) = {
            let state = self.state.lock();
            (state.metadata.as_ref().map(|metadata| metadata.attr), state.upper.clone())
        };
        let mut attr = match own {
            Some(attr) => attr,
            None => self.lower_attr()?,
        };
        if let Some(upper) = upper {
            let data = upper.inode.attr()?;
            (attr.size, attr.blocks) = (data.size, data.blocks);
        }
        Ok(attr)
    }

    /// Makes the metadata the overlay's own if they are not, and changes them.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Metadata) -> T) -> Result<T> {
        let missing = self.state.lock().metadata.is_none();
        let base = if missing { Some(self.lower_attr()?) } else { None };
        let mut state = self.state.lock();
        if state.metadata.is_none() {
            let attr = base.ok_or(Errno::EIO)?;
            state.metadata = Some(Metadata { attr, xattrs: None });
        }
        let metadata = state.metadata.as_mut().ok_or(Errno::EIO)?;
        let result = change(metadata);
        let linked = metadata.attr.nlink > 0;
        drop(state);
        self.keep(linked);
        Ok(result)
    }

    /// The content of this directory or file changed.
    pub(super) fn touch(&self, cx: &Caller<'_>) -> Result<()> {
        let time = now(cx);
        self.change(|metadata| {
            metadata.attr.mtime = time;
            metadata.attr.ctime = time;
        })
    }

    /// One name more (1) or less (-1) leads here.
    pub(super) fn count_links(&self, cx: &Caller<'_>, by: i32) -> Result<()> {
        let time = now(cx);
        self.change(|metadata| {
            let nlink = metadata.attr.nlink.checked_add_signed(by).ok_or(Errno::EMLINK)?;
            if by > 0 && nlink > MAX_LINKS {
                return Err(Errno::EMLINK);
            }
            metadata.attr.nlink = nlink;
            metadata.attr.ctime = time;
            Ok(())
        })?
    }

    /// A directory in here came (1) or went (-1). File systems that do not count keep saying 1.
    pub(super) fn count_directories(&self, by: i32) -> Result<()> {
        self.change(|metadata| {
            if metadata.attr.nlink >= 2 {
                metadata.attr.nlink = metadata.attr.nlink.saturating_add_signed(by).max(2);
            }
        })
    }

    /// It was read by way of `file`. What is as below stays so: its times are the image's.
    pub(super) fn accessed(&self, cx: &Caller<'_>, file: &File) {
        let flags = file.path().mount.flags();
        if file.flags().contains(OpenFlags::NOATIME) || flags.contains(MountFlags::NOATIME) {
            return;
        }
        let mut state = self.state.lock();
        let Some(metadata) = state.metadata.as_mut() else { return };
        let attr = &mut metadata.attr;
        let strict = flags.contains(MountFlags::STRICTATIME);
        // relatime: when the last access was before the last change.
        if strict || attr.atime <= attr.mtime || attr.atime <= attr.ctime {
            attr.atime = now(cx);
        } else {
            let time = now(cx);
            if time.tv_sec.saturating_sub(attr.atime.tv_sec) >= 24 * 60 * 60 {
                attr.atime = time;
            }
        }
    }

    pub(super) fn change_attr(&self, cx: &Caller<'_>, set: &SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            self.truncate(cx, size)?;
        }
        let time = now(cx);
        let at = |set: SetTime| match set {
            SetTime::Now => time,
            SetTime::At(at) => at,
        };
        self.change(|metadata| {
            let attr = &mut metadata.attr;
            if let Some(mode) = set.mode {
                attr.mode = attr.mode & !0o7777 | mode & 0o7777;
            }
            attr.uid = set.uid.unwrap_or(attr.uid);
            attr.gid = set.gid.unwrap_or(attr.gid);
            attr.atime = set.atime.map_or(attr.atime, at);
            attr.mtime = set.mtime.map_or(attr.mtime, at);
            if set.size.is_some() {
                attr.mtime = set.mtime.map_or(time, at);
            }
            attr.ctime = time;
        })
    }

    pub(super) fn read_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        {
            let state = self.state.lock();
            if let Some(own) = state.metadata.as_ref().and_then(|metadata| metadata.xattrs.as_ref()) {
                return own.get(name).cloned().ok_or(Errno::ENODATA);
            }
        }
        match &self.lower {
            Some(lower) => lower.getxattr(name),
            None => Err(Errno::ENODATA),
        }
    }

    pub(super) fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        {
            let state = self.state.lock();
            if let Some(own) = state.metadata.as_ref().and_then(|metadata| metadata.xattrs.as_ref()) {
                return Ok(own.keys().cloned().collect());
            }
        }
        self.lower.as_ref().map_or_else(|| Ok(Vec::new()), |lower| lower.listxattr())
    }

    /// Changes the extended attributes, which become the overlay's own.
    fn change_xattrs(&self, change: impl FnOnce(&mut Xattrs) -> Result<()>) -> Result<()> {
        let own = self.state.lock().metadata.as_ref().is_some_and(|metadata| metadata.xattrs.is_some());
        let mut below = Xattrs::new();
        if !own && let Some(lower) = &self.lower {
            for name in lower.listxattr()? {
                match lower.getxattr(&name) {
                    Ok(value) => drop(below.insert(name, value)),
                    Err(Errno::ENODATA) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        self.change(|metadata| {
            let xattrs = metadata.xattrs.get_or_insert(below);
            change(xattrs)?;
            // The caller's clock is not at hand here; realtime is what all clocks come from.
            metadata.attr.ctime = Timespec::from_nanos(platform::clock::realtime());
            Ok(())
        })?
    }

    pub(super) fn write_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.change_xattrs(|xattrs| {
            let present = xattrs.contains_key(name);
            if present && flags.contains(XattrFlags::CREATE) {
                return Err(Errno::EEXIST);
            }
            if !present && flags.contains(XattrFlags::REPLACE) {
                return Err(Errno::ENODATA);
            }
            xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    pub(super) fn delete_xattr(&self, name: &[u8]) -> Result<()> {
        self.change_xattrs(|xattrs| xattrs.remove(name).map(|_| ()).ok_or(Errno::ENODATA))
    }
}
