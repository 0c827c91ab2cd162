//! Attributes and extended attributes of gofer inodes.

use abi::stat::{FileType, makedev};
use abi::time::Timespec;
use abi::{Errno, Result};
use gofer_protocol::{
    ATTR_ATIME, ATTR_ATIME_NOW, ATTR_GID, ATTR_MODE, ATTR_MTIME, ATTR_MTIME_NOW, ATTR_SIZE, ATTR_UID, Node,
    Stat, Timestamp,
};
use kernel::vfs::{Attr, Inode, SetAttr, SetTime, XattrFlags};
use platform::HostFile;

use super::inode::{GoferInode, monotonic};

/// STATX_BTIME: the host knows the time of birth.
const MASK_BTIME: u32 = 0x800;

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) }
}

fn timestamp(time: Timespec) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0), reserved: 0 }
}

/// Takes what fstat(2) tells of the donated descriptor into `stat`.
fn refresh_from_host(stat: &mut Stat, host: &HostFile) {
    let Ok(now) = host.stat() else { return };
    let time = |seconds: i64, nanoseconds: u64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        reserved: 0,
    };
    stat.size = u64::try_from(now.st_size).unwrap_or(0);
    stat.blocks = u64::try_from(now.st_blocks).unwrap_or(0);
    stat.mode = now.st_mode;
    stat.nlink = u32::try_from(now.st_nlink).unwrap_or(u32::MAX);
    stat.atime = time(now.st_atime, now.st_atime_nsec);
    stat.mtime = time(now.st_mtime, now.st_mtime_nsec);
    stat.ctime = time(now.st_ctime, now.st_ctime_nsec);
}

impl GoferInode {
    fn attr_of(&self, stat: &Stat) -> Attr {
        Attr {
            dev: self.fs.options.dev,
            ino: self.ino(),
            mode: stat.mode,
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            rdev: makedev(stat.rdev_major, stat.rdev_minor),
            size: stat.size,
            blksize: stat.blksize,
            blocks: stat.blocks,
            atime: timespec(stat.atime),
            mtime: timespec(stat.mtime),
            ctime: timespec(stat.ctime),
            btime: (stat.mask & MASK_BTIME != 0).then(|| timespec(stat.btime)),
        }
    }

    pub(super) fn ask_for_stat(&self) -> Result<gofer_protocol::Stat> {
        self.with_node(|node, name| self.fs.connection().stat(node, name))
    }

    pub(super) fn current_attr(&self) -> Result<Attr> {
        if self.kind == FileType::Regular {
            let mut state = self.state.lock();
            let changes = !self.fs.exclusive() || state.host_writable;
            if changes && let Some(host) = state.host.clone() {
                // uid and gid are not taken: the sentry's user namespace shows them differently.
                let before = state.stat.ctime;
                refresh_from_host(&mut state.stat, &host);
                if self.fs.exclusive() || state.stat.ctime == before {
                    state.known_at = state.known_at.map(|_| monotonic());
                }
                if state.known_at.is_some() && (self.fs.exclusive() || state.stat.ctime == before) {
                    return Ok(self.attr_of(&state.stat));
                }
            }
        }
        if !self.fresh() {
            match self.ask_for_stat() {
                Ok(stat) => self.learn(stat),
                // The host removed or moved it; it is still what it was to those who hold it.
                Err(Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR) => {
                    self.state.lock().known_at = Some(monotonic());
                }
                Err(errno) => return Err(errno),
            }
        }
        let state = self.state.lock();
        Ok(self.attr_of(&state.stat))
    }

    /// The size of a regular file now.
    pub(super) fn size(&self, host: &HostFile) -> Result<u64> {
        if self.fs.exclusive() && !self.state.lock().host_writable {
            return Ok(self.state.lock().stat.size);
        }
        host.size().map_err(|error| Errno::from_host(&error))
    }

    pub(super) fn change_attr(&self, set: &SetAttr) -> Result<()> {
        let mut set = *set;
        let shrinks =
            set.size.filter(|size| *size < self.state.lock().stat.size || !self.mappings.is_empty());
        if let Some(size) = set.size {
            let host = {
                let state = self.state.lock();
                state.host.clone().filter(|_| state.host_writable)
            };
            if let Some(host) = host {
                host.set_len(size).map_err(|error| Errno::from_host(&error))?;
                set.size = None;
            }
        }
        let mut valid = 0;
        let mut times = [Timestamp::default(); 2];
        for (which, (time, bit, now)) in
            [(set.atime, ATTR_ATIME, ATTR_ATIME_NOW), (set.mtime, ATTR_MTIME, ATTR_MTIME_NOW)]
                .into_iter()
                .enumerate()
        {
            match time {
                None => {}
                Some(SetTime::Now) => valid |= now,
                Some(SetTime::At(at)) => {
                    valid |= bit;
                    times[which] = timestamp(at);
                }
            }
        }
        for (given, bit) in [
            (set.mode.is_some(), ATTR_MODE),
            (set.uid.is_some(), ATTR_UID),
            (set.gid.is_some(), ATTR_GID),
            (set.size.is_some(), ATTR_SIZE),
        ] {
            if given {
                valid |= bit;
            }
        }
        if let Some(size) = shrinks
            && set.size.is_none()
        {
            self.mappings.invalidate(self, &(size..u64::MAX), true);
        }
        if valid == 0 {
            return Ok(());
        }
        let stat = self.with_node(|node: Node, name| {
            let request = gofer_protocol::SetAttr {
                node,
                valid,
                mode: set.mode.unwrap_or(0) & 0o7777,
                uid: set.uid.unwrap_or(0),
                gid: set.gid.unwrap_or(0),
                size: set.size.unwrap_or(0),
                atime: times[0],
                mtime: times[1],
            };
            self.fs.connection().set_attr(&request, name)
        })?;
        self.learn_change(stat);
        if set.size.is_some()
            && let Some(size) = shrinks
        {
            self.mappings.invalidate(self, &(size..u64::MAX), true);
        }
        Ok(())
    }

    pub(super) fn read_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        if !self.fresh() {
            self.current_attr()?;
        }
        if self.xattr_names()?.is_empty() {
            return Err(Errno::ENODATA);
        }
        self.with_node(|node, file| self.fs.connection().get_xattr(node, file, name))
    }

    pub(super) fn xattr_names(&self) -> Result<Vec<Vec<u8>>> {
        if self.state.lock().no_xattrs && self.fresh() {
            return Ok(Vec::new());
        }
        let names = self.with_node(|node, file| self.fs.connection().list_xattr(node, file))?;
        let visible = |name: &&[u8]| {
            name.starts_with(b"user.")
                || name.starts_with(b"system.posix_acl_")
                || *name == b"security.capability"
        };
        let names: Vec<Vec<u8>> =
            names.split(|byte| *byte == 0).filter(visible).map(<[u8]>::to_vec).collect();
        if names.is_empty() {
            self.state.lock().no_xattrs = true;
        }
        Ok(names)
    }

    pub(super) fn write_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.with_node(|node, file| self.fs.connection().set_xattr(node, file, name, value, flags.bits()))?;
        let mut state = self.state.lock();
        state.no_xattrs = false;
        state.known_at = None;
        self.fs.changed();
        Ok(())
    }

    pub(super) fn delete_xattr(&self, name: &[u8]) -> Result<()> {
        if self.state.lock().no_xattrs && self.fresh() {
            return Err(Errno::ENODATA);
        }
        self.with_node(|node, file| self.fs.connection().remove_xattr(node, file, name))?;
        self.state.lock().known_at = None;
        self.fs.changed();
        Ok(())
    }
}
