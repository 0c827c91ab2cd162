//! Directory listings in large batches.
//!
//! No state is kept between batches: a cookie is the host's own directory position, which
//! Linux file systems keep valid across opens of the same directory.

use std::os::fd::AsFd;

use gofer_protocol::codec::{MAX_MESSAGE, MAX_WALK};
use gofer_protocol::{DirEntry, READDIR_STAT, Readdir, ReaddirReply, Reader, Stat, Writer};
use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

use crate::dispatch::{Answer, Refusal, Server};
use crate::place;

/// Room for one getdents64 call.
const BUFFER: usize = 32 * 1024;
/// The longest an entry can get in the reply.
const LONGEST: usize = size_of::<DirEntry>() + 2 + 256 + size_of::<Stat>();

impl Server {
    pub fn readdir(&self, request: &mut Reader<'_>, reply: &mut Writer) -> Answer {
        let body: Readdir = request.get()?;
        let count = usize::try_from(body.count).map_err(|_| Errno::INVAL)?;
        if body.flags & !READDIR_STAT != 0 || count > MAX_WALK {
            return Err(Refusal(Errno::INVAL));
        }
        let mut names = request.clone();
        for _ in 0..count {
            request.name()?;
        }
        request.end()?;
        let start = self.directory(body.node.handle)?;
        let fd = match count {
            0 => place::reopen_directory(start.as_fd())?,
            _ => {
                let mut at = None;
                for _ in 1..count {
                    let from = at.as_ref().map_or(start.as_fd(), AsFd::as_fd);
                    at = Some(place::open_path(from, names.name()?.bytes())?);
                }
                let from = at.as_ref().map_or(start.as_fd(), AsFd::as_fd);
                place::open_directory(from, names.name()?.bytes())?
            }
        };
        if body.node.ino != 0 && place::stat_fd(fd.as_fd())?.ino != body.node.ino {
            return Err(Refusal(Errno::STALE));
        }
        if body.cookie != 0 {
            // Positions are signed for some file systems; the bits are what counts.
            rustix::fs::seek(&fd, SeekFrom::Start(body.cookie))?;
        }
        let head = reply.len();
        let mut summary = ReaddirReply { next: body.cookie, count: 0, end: 0 };
        reply.put(&summary);
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(fd.as_fd(), buffer.spare_capacity_mut());
        loop {
            if reply.len() + LONGEST > MAX_MESSAGE {
                break;
            }
            let Some(entry) = entries.next() else {
                summary.end = 1;
                break;
            };
            let entry = entry?;
            summary.next = entry.next_entry_cookie();
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let mut stat = None;
            if body.flags & READDIR_STAT != 0 {
                match place::stat_at(fd.as_fd(), name) {
                    Ok(found) => stat = Some(found),
                    Err(Errno::NOENT) => continue,
                    Err(_) => {}
                }
            }
            let kind = entry.file_type().as_raw_mode() >> 12;
            let ino = stat.as_ref().map_or(entry.ino(), |stat| stat.ino);
            reply.put(&DirEntry { ino, cookie: summary.next, kind, has_stat: u32::from(stat.is_some()) });
            reply.put_name(name);
            if let Some(stat) = &stat {
                reply.put(stat);
            }
            summary.count += 1;
        }
        reply.patch(head, &summary);
        Ok(None)
    }
}
