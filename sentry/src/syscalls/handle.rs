//! File handles: name_to_handle_at(2), open_by_handle_at(2). What a handle means is the VFS' matter.

use super::at;
use super::mount_query::UNIQUE;
use crate::Current;
use abi::Errno;
use abi::fcntl::{AtFlags, OpenFlags};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{Fd, FileId, encode_handle, find_handle, open_path};

/// `MAX_HANDLE_SZ`
const MOST: u32 = 128;
/// Bytes of our handles: inode number and generation.
const BYTES: u32 = 12;
/// `FILEID_INO32_GEN`, whose length says that the number has 64 bits, and the type of handles that only tell files apart.
const KIND: u32 = 1;
const KIND_ID_ONLY: u32 = 0x81;

pub fn name_to_handle_at(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    handle: UserPtr<[u32; 2]>,
    mount_id: UserPtr<i32>,
    flags: u32,
) -> SysResult {
    const ID_ONLY: u32 = 0x200;
    const UNIQUE_MOUNT: u32 = 1;
    let known = AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH;
    let mut look = at::flags(flags & !(ID_ONLY | UNIQUE_MOUNT), known)?;
    look.set(AtFlags::SYMLINK_NOFOLLOW, !look.contains(AtFlags::SYMLINK_FOLLOW));
    let place = at::place(t, dir, path, look)?;
    let id_only = flags & ID_ONLY != 0;
    let mm = t.mm();
    // Whether the file system can is asked before the argument is looked at.
    let id = encode_handle(&place.dentry, !id_only)?;
    let [room, _] = handle.read(&mm)?;
    if room > MOST {
        return Err(Errno::EINVAL.into());
    }
    let fits = room >= BYTES;
    if flags & UNIQUE_MOUNT != 0 {
        mount_id.cast::<u64>().write(&mm, &(place.mount.id + UNIQUE))?;
    } else {
        mount_id.write(&mm, &i32::try_from(place.mount.id).unwrap_or(i32::MAX))?;
    }
    let kind = match (fits, id_only) {
        (false, _) => 255,
        (true, false) => KIND,
        (true, true) => KIND_ID_ONLY,
    };
    handle.write(&mm, &[BYTES, kind])?;
    if !fits {
        return Err(Errno::EOVERFLOW.into());
    }
    mm.copy_out(handle.addr().wrapping_add(8), &encode(id))?;
    Ok(0)
}

fn encode(id: FileId) -> [u8; 12] {
    let mut raw = [0; 12];
    raw[..8].copy_from_slice(&id.ino.to_ne_bytes());
    raw[8..].copy_from_slice(&id.generation.to_ne_bytes());
    raw
}

pub fn open_by_handle_at(t: &mut Current<'_>, mount: Fd, handle: UserPtr<[u32; 2]>, flags: u32) -> SysResult {
    let place = at::whole(t, mount)?;
    // A handle leads past all directories above the file, so the right must be one over the whole sandbox.
    let root = t.kernel().root_user_ns.clone();
    if !t.creds().has_cap_in(&root, CapSet::DAC_READ_SEARCH) {
        return Err(Errno::EPERM.into());
    }
    let mm = t.mm();
    let [bytes, kind] = handle.read(&mm)?;
    if bytes == 0 || bytes > MOST {
        return Err(Errno::EINVAL.into());
    }
    let mut raw = vec![0; usize::try_from(bytes).unwrap_or(0)];
    mm.copy_in(handle.addr().wrapping_add(8), &mut raw)?;
    let (Some(ino), Some(generation)) = (raw.first_chunk::<8>(), raw.last_chunk::<4>()) else {
        return Err(Errno::ESTALE.into());
    };
    if bytes != BYTES || kind != KIND {
        return Err(Errno::ESTALE.into());
    }
    let id = FileId { ino: u64::from_ne_bytes(*ino), generation: u32::from_ne_bytes(*generation) };
    let flags = OpenFlags::from_bits_retain(flags);
    let file = t.as_caller(|cx| {
        let path = find_handle(cx, &place.mount, id)?;
        open_path(cx, &path, flags - (OpenFlags::CREAT | OpenFlags::EXCL))
    })?;
    Ok(t.install_fd(file, flags.contains(OpenFlags::CLOEXEC))?)
}
