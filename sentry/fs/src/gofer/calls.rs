//! The gofer's operations as functions.

use std::os::fd::OwnedFd;

use abi::{Errno, Result};
use gofer_protocol::codec::{MAX_MESSAGE, Malformed};
use gofer_protocol::{
    Attach, Attached, Create, DirEntry, Entry, GetXattr, Link, Mknod, Node, Op, Open, READDIR_STAT, Readdir,
    ReaddirReply, Reader, Rename, SetAttr, SetXattr, Stat, StatFs, StatResult, Unlink, WALK_FAILED,
    WALK_MISSING, WALK_OPEN_FAILED, WALK_SYMLINK, Walk, Walked, Writer,
};

use super::connection::{Connection, errno};

/// What a walk found.
#[derive(Debug)]
pub struct WalkResult {
    /// The components that exist, in order.
    pub entries: Vec<Entry>,
    /// The component after them does not exist.
    pub missing: bool,
    /// The last entry is a symlink that leads there.
    pub target: Option<Vec<u8>>,
    /// Why looking up the component after the entries failed.
    pub failed: Option<Errno>,
}

/// A part of a directory.
#[derive(Debug)]
pub struct Batch {
    pub next: u64,
    pub end: bool,
}

fn nothing(_: &mut Writer) {}

fn body<T: gofer_protocol::codec::Body>(reader: &mut Reader<'_>) -> Result<T, Malformed> {
    reader.get()
}

fn bytes(reader: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    Ok(reader.bytes(MAX_MESSAGE)?.to_vec())
}

/// A descriptor that must have come with the reply. Linux drops it without a word when this process can have no more.
fn with_descriptor<T>((value, descriptor): (T, Option<OwnedFd>)) -> Result<(T, OwnedFd)> {
    Ok((value, descriptor.ok_or(Errno::EMFILE)?))
}

impl Connection {
    pub fn attach(&self, mount: u32) -> Result<Attached> {
        Ok(self.call(Op::Attach, &Attach { mount, reserved: 0 }, nothing, body)?.0)
    }

    /// Walks down from a directory.
    pub fn walk(&self, handle: u64, names: &[&[u8]], flags: u32) -> Result<WalkResult> {
        let count = u32::try_from(names.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        let request = Walk { handle, count, flags, open: 0, reserved: 0 };
        let tail = |writer: &mut Writer| {
            for name in names {
                writer.put_name(name);
            }
        };
        let read = |reader: &mut Reader<'_>| {
            let walked: Walked = reader.get()?;
            if walked.count > count {
                return Err(Malformed);
            }
            let entries = (0..walked.count).map(|_| reader.get()).collect::<Result<Vec<Entry>, _>>()?;
            let target = if walked.end == WALK_SYMLINK { Some(bytes(reader)?) } else { None };
            let failed = matches!(walked.end, WALK_FAILED | WALK_OPEN_FAILED).then(|| errno(walked.errno));
            Ok(WalkResult { entries, missing: walked.end == WALK_MISSING, target, failed })
        };
        Ok(self.call(Op::Walk, &request, tail, read)?.0)
    }

    pub fn open(&self, node: Node, name: &[u8], flags: u32) -> Result<(Entry, OwnedFd)> {
        let request = Open { node, flags, reserved: 0 };
        with_descriptor(self.call(
            Op::Open,
            &request,
            |writer| {
                writer.put_name(name);
            },
            body,
        )?)
    }

    pub fn create(&self, request: &Create, name: &[u8]) -> Result<(Entry, OwnedFd)> {
        with_descriptor(self.call(
            Op::Create,
            request,
            |writer| {
                writer.put_name(name);
            },
            body,
        )?)
    }

    pub fn create_unnamed(&self, request: &Create) -> Result<(Entry, OwnedFd)> {
        with_descriptor(self.call(Op::TmpFile, request, nothing, body)?)
    }

    pub fn mkdir(&self, request: &Create, name: &[u8]) -> Result<Entry> {
        Ok(self
            .call(
                Op::Mkdir,
                request,
                |writer| {
                    writer.put_name(name);
                },
                body,
            )?
            .0)
    }

    pub fn symlink(&self, request: &Create, name: &[u8], target: &[u8]) -> Result<Entry> {
        let tail = |writer: &mut Writer| {
            writer.put_name(name).put_bytes(target);
        };
        Ok(self.call(Op::Symlink, request, tail, body)?.0)
    }

    pub fn mknod(&self, request: &Mknod, name: &[u8]) -> Result<Entry> {
        Ok(self
            .call(
                Op::Mknod,
                request,
                |writer| {
                    writer.put_name(name);
                },
                body,
            )?
            .0)
    }

    pub fn link(&self, source: Node, source_name: &[u8], directory: u64, name: &[u8]) -> Result<Entry> {
        let tail = |writer: &mut Writer| {
            writer.put_name(source_name).put_name(name);
        };
        Ok(self.call(Op::Link, &Link { source, directory }, tail, body)?.0)
    }

    pub fn unlink(&self, node: Node, name: &[u8], flags: u32) -> Result<Entry> {
        let request = Unlink { node, flags, reserved: 0 };
        Ok(self
            .call(
                Op::Unlink,
                &request,
                |writer| {
                    writer.put_name(name);
                },
                body,
            )?
            .0)
    }

    pub fn rename(&self, old: (u64, &[u8]), new: (u64, &[u8]), flags: u32) -> Result<Entry> {
        let request = Rename { old_directory: old.0, new_directory: new.0, flags, reserved: 0 };
        let tail = |writer: &mut Writer| {
            writer.put_name(old.1).put_name(new.1);
        };
        Ok(self.call(Op::Rename, &request, tail, body)?.0)
    }

    pub fn readlink(&self, node: Node, name: &[u8]) -> Result<Vec<u8>> {
        Ok(self
            .call(
                Op::Readlink,
                &node,
                |writer| {
                    writer.put_name(name);
                },
                bytes,
            )?
            .0)
    }

    pub fn set_attr(&self, request: &SetAttr, name: &[u8]) -> Result<Stat> {
        Ok(self
            .call(
                Op::SetAttr,
                request,
                |writer| {
                    writer.put_name(name);
                },
                body,
            )?
            .0)
    }

    /// The attributes of one file.
    pub fn stat(&self, node: Node, name: &[u8]) -> Result<Stat> {
        let tail = |writer: &mut Writer| {
            writer.put(&node).put_name(name);
        };
        let read = |reader: &mut Reader<'_>| {
            if reader.get::<u32>()? != 1 {
                return Err(Malformed);
            }
            reader.get::<StatResult>()
        };
        let (result, _) = self.call(Op::GetStats, &1u32, tail, read)?;
        if result.errno == 0 { Ok(result.stat) } else { Err(errno(result.errno)) }
    }

    pub fn stat_fs(&self, handle: u64) -> Result<StatFs> {
        Ok(self.call(Op::StatFs, &Node::handle(handle), nothing, body)?.0)
    }

    /// Reads a part of the directory where `names` lead from the node's handle, giving each entry (and its attributes, if asked for) to `each`.
    pub fn readdir(
        &self,
        (node, names): (Node, &[Box<[u8]>]),
        cookie: u64,
        with_stat: bool,
        mut each: impl FnMut(&DirEntry, &[u8], Option<Stat>),
    ) -> Result<Batch> {
        let flags = if with_stat { READDIR_STAT } else { 0 };
        let count = u32::try_from(names.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        let request = Readdir { node, cookie, flags, count };
        let tail = |writer: &mut Writer| {
            for name in names {
                writer.put_name(name);
            }
        };
        let read = |reader: &mut Reader<'_>| {
            let summary: ReaddirReply = reader.get()?;
            for _ in 0..summary.count {
                let entry: DirEntry = reader.get()?;
                let name = reader.entry_name()?;
                let stat = if entry.has_stat == 1 { Some(reader.get()?) } else { None };
                each(&entry, name, stat);
            }
            Ok(Batch { next: summary.next, end: summary.end == 1 })
        };
        Ok(self.call(Op::Readdir, &request, tail, read)?.0)
    }

    pub fn get_xattr(&self, node: Node, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>> {
        let tail = |writer: &mut Writer| {
            writer.put_name(name).put_bytes(attribute);
        };
        Ok(self.call(Op::GetXattr, &GetXattr { node, size: 0 }, tail, bytes)?.0)
    }

    pub fn set_xattr(
        &self,
        node: Node,
        name: &[u8],
        attribute: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        let tail = |writer: &mut Writer| {
            writer.put_name(name).put_bytes(attribute).put_bytes(value);
        };
        self.call(Op::SetXattr, &SetXattr { node, flags, reserved: 0 }, tail, |_| Ok(())).map(|_| ())
    }

    /// The names of all attributes, each ended by NUL.
    pub fn list_xattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>> {
        let tail = |writer: &mut Writer| {
            writer.put_name(name);
        };
        Ok(self.call(Op::ListXattr, &GetXattr { node, size: 0 }, tail, bytes)?.0)
    }

    pub fn remove_xattr(&self, node: Node, name: &[u8], attribute: &[u8]) -> Result<()> {
        let tail = |writer: &mut Writer| {
            writer.put_name(name).put_bytes(attribute);
        };
        self.call(Op::RemoveXattr, &node, tail, |_| Ok(())).map(|_| ())
    }

    pub fn fsync(&self, node: Node, name: &[u8]) -> Result<()> {
        self.call(
            Op::Fsync,
            &node,
            |writer| {
                writer.put_name(name);
            },
            |_| Ok(()),
        )
        .map(|_| ())
    }

    pub fn sync_fs(&self, handle: u64) -> Result<()> {
        self.call(Op::SyncFs, &Node::handle(handle), nothing, |_| Ok(())).map(|_| ())
    }

    /// Gives handles back. That this fails means that the gofer is gone, and its handles with it.
    pub fn close(&self, handles: &[u64]) {
        for some in handles.chunks(MAX_MESSAGE / 16) {
            let count = u32::try_from(some.len()).unwrap_or(0);
            let tail = |writer: &mut Writer| {
                for handle in some {
                    writer.put(handle);
                }
            };
            let _ = self.call(Op::Close, &count, tail, |_| Ok(()));
        }
    }
}
