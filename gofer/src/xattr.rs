//! Extended attributes.
//!
//! They need a real descriptor (O_PATH ones have none before Linux 6.13), so only regular files and
//! directories are reachable; Linux lets nothing else carry `user.` attributes anyway. Which may be written
//! is a short list: what a host program could take for a privilege (`security.`, `trusted.`) is not on it.

use std::os::fd::OwnedFd;

use gofer_protocol::codec::MAX_XATTR;
use gofer_protocol::{GetXattr, Node, Reader, SetXattr, Writer};
use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

use crate::dispatch::{Answer, Refusal, Server};
use crate::place::Place;

const MAX_ATTRIBUTE_NAME: usize = 255;

fn attribute_name<'a>(request: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    let name = request.bytes(MAX_ATTRIBUTE_NAME)?;
    if name.is_empty() || name.contains(&0) {
        return Err(Refusal(Errno::INVAL));
    }
    Ok(name)
}

fn check_settable(name: &[u8]) -> Result<(), Errno> {
    let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    if acl || name.starts_with(b"user.") { Ok(()) } else { Err(Errno::PERM) }
}

/// The file opened for its attributes. `otherwise` is Linux's answer for what is neither file nor directory.
fn open(place: &Place<'_>, otherwise: Errno) -> Result<OwnedFd, Errno> {
    match place.open(OFlags::RDONLY) {
        Ok((fd, _)) => Ok(fd),
        Err(Errno::NXIO | Errno::LOOP) => Err(otherwise),
        Err(errno) => Err(errno),
    }
}

/// Asks for the size, then for the value, again when it grew in between.
fn sized(
    query: impl Fn() -> Result<usize, Errno>,
    fetch: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for _ in 0..8 {
        let size = query()?;
        if size > MAX_XATTR {
            return Err(Errno::TOOBIG);
        }
        let mut value = Vec::with_capacity(size + 1);
        match fetch(&mut value) {
            Err(Errno::RANGE) => {}
            Ok(_) => return Ok(value),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::AGAIN)
}

impl Server {
    pub fn get_xattr(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: GetXattr = request.get()?;
        let place = self.place(body.node, request)?;
        let name = attribute_name(request)?;
        request.end()?;
        let fd = open(&place, Errno::NODATA)?;
        let value = sized(
            || rustix::fs::fgetxattr_query(&fd, name),
            |value| rustix::fs::fgetxattr(&fd, name, rustix::buffer::spare_capacity(value)),
        )?;
        if body.size != 0 && u64::try_from(value.len()).unwrap_or(u64::MAX) > body.size {
            return Err(Refusal(Errno::RANGE));
        }
        reply.put_bytes(&value);
        Ok(None)
    }

    pub fn list_xattr(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: GetXattr = request.get()?;
        let place = self.place(body.node, request)?;
        request.end()?;
        let names = match open(&place, Errno::NODATA) {
            Err(Errno::NODATA) => Vec::new(),
            Err(errno) => return Err(Refusal(errno)),
            Ok(fd) => sized(
                || rustix::fs::flistxattr_query(&fd),
                |names| rustix::fs::flistxattr(&fd, rustix::buffer::spare_capacity(names)),
            )?,
        };
        if body.size != 0 && u64::try_from(names.len()).unwrap_or(u64::MAX) > body.size {
            return Err(Refusal(Errno::RANGE));
        }
        reply.put_bytes(&names);
        Ok(None)
    }

    pub fn set_xattr(&self, request: &mut Reader<'_>) -> Answer {
        let body: SetXattr = request.get()?;
        let place = self.place(body.node, request)?;
        let name = attribute_name(request)?;
        let value = request.bytes(MAX_XATTR)?;
        request.end()?;
        place.check_writable()?;
        check_settable(name)?;
        let flags = XattrFlags::from_bits(body.flags).ok_or(Errno::INVAL)?;
        let fd = open(&place, Errno::PERM)?;
        rustix::fs::fsetxattr(&fd, name, value, flags)?;
        Ok(None)
    }

    pub fn remove_xattr(&self, request: &mut Reader<'_>) -> Answer {
        let node: Node = request.get()?;
        let place = self.place(node, request)?;
        let name = attribute_name(request)?;
        request.end()?;
        place.check_writable()?;
        check_settable(name)?;
        let fd = open(&place, Errno::PERM)?;
        rustix::fs::fremovexattr(&fd, name)?;
        Ok(None)
    }
}
