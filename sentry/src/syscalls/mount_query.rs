//! Asking for mounts by number: listmount(2), statmount(2); and which security modules there are, lsm_list_modules(2).

use crate::Current;
use abi::stat::{major, minor};
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;
use kernel::vfs::{MountFlags, MountInfo};
use std::sync::Arc;

/// Where unique numbers of mounts begin, so that they are never taken for the old ones.
pub(super) const UNIQUE: u64 = 1 << 31;

/// `LSMT_ROOT`: the root of the caller's namespace.
const ROOT: u64 = u64::MAX;

/// `struct mnt_id_req`: its size, the mount, a parameter. Bytes beyond what is known must be zero.
fn request(t: &Current<'_>, at: UserPtr<u64>) -> Result<(u64, u64)> {
    let mm = t.mm();
    let size = at.cast::<u32>().read(&mm)?;
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let spare = at.cast::<u32>().add(1).read(&mm)?;
    let words = at.read_array(&mm, usize::try_from(size / 8).unwrap_or(3))?;
    // The fourth word names another mount namespace, by a number that no call here gives out.
    if spare != 0 || words.get(4..).is_some_and(|rest| rest.iter().any(|w| *w != 0)) {
        return Err(Errno::E2BIG);
    }
    if words.get(3).is_some_and(|ns| *ns != 0) {
        return Err(Errno::ENOENT);
    }
    if words[1] <= UNIQUE {
        return Err(Errno::EINVAL);
    }
    Ok((words[1], words[2]))
}

fn mounts(t: &Current<'_>) -> Vec<MountInfo> {
    t.namespaces().mnt.mount_info(&t.fs().root())
}

pub fn listmount(
    t: &mut Current<'_>,
    req: UserPtr<u64>,
    out: UserPtr<u64>,
    count: usize,
    flags: u32,
) -> SysResult {
    const REVERSE: u32 = 1;
    if flags & !REVERSE != 0 {
        return Err(Errno::EINVAL.into());
    }
    if count > 1_000_000 {
        return Err(Errno::EOVERFLOW.into());
    }
    let (below, after) = request(t, req)?;
    let all = mounts(t);
    let top = match below {
        ROOT => t.fs().root().mount.id,
        id => all.iter().map(|m| m.mount.id).find(|i| i + UNIQUE == id).ok_or(Errno::ENOENT)?,
    };
    let mut under = vec![top];
    let mut found: Vec<u64> = Vec::new();
    // Mounts come in the order of their numbers, which need not be that of the tree.
    while let Some(id) = under.pop() {
        for m in all.iter().filter(|m| m.parent_id == id && m.mount.id != id) {
            under.push(m.mount.id);
            found.push(m.mount.id + UNIQUE);
        }
    }
    if below == ROOT {
        found.push(top + UNIQUE);
    }
    found.sort_unstable();
    if flags & REVERSE != 0 {
        found.reverse();
        found.retain(|id| after == 0 || *id < after);
    } else {
        found.retain(|id| *id > after);
    }
    found.truncate(count);
    out.write_array(&t.mm(), &found)?;
    Ok(found.len() as u64)
}

/// `STATMOUNT_*`.
mod want {
    pub const SB_BASIC: u64 = 1;
    pub const MNT_BASIC: u64 = 2;
    pub const PROPAGATE_FROM: u64 = 4;
    pub const MNT_ROOT: u64 = 8;
    pub const MNT_POINT: u64 = 0x10;
    pub const FS_TYPE: u64 = 0x20;
    pub const MNT_OPTS: u64 = 0x80;
}

/// `struct statmount`: 512 bytes, then the strings.
const HEAD: usize = 512;

fn attributes(flags: MountFlags) -> u64 {
    let mut bits = 0;
    for (flag, bit) in [
        (MountFlags::RDONLY, 1),
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NOATIME, 0x10),
        (MountFlags::NODIRATIME, 0x80),
        (MountFlags::NOSYMFOLLOW, 0x20_0000),
    ] {
        if flags.contains(flag) {
            bits |= bit;
        }
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        bits |= 0x20;
    }
    bits
}

/// The structure being put together.
struct Answer {
    head: [u8; HEAD],
    text: Vec<u8>,
    mask: u64,
}

impl Answer {
    fn u32(&mut self, at: usize, value: u32) {
        self.head[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    fn u64(&mut self, at: usize, value: u64) {
        self.head[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    /// A string: its place among the others goes to `at`.
    fn text(&mut self, at: usize, bit: u64, text: &[u8]) {
        self.mask |= bit;
        let place = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.u32(at, place);
        self.text.extend_from_slice(text);
        self.text.push(0);
    }
}

pub fn statmount(
    t: &mut Current<'_>,
    req: UserPtr<u64>,
    out: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (id, wanted) = request(t, req)?;
    let this = |all: Vec<MountInfo>| all.into_iter().find(|m| m.mount.id + UNIQUE == id);
    let info = match this(mounts(t)) {
        Some(info) => info,
        None => {
            // One that the caller's root does not reach is shown to the privileged alone.
            let ns = Arc::clone(&t.namespaces().mnt);
            let hidden = this(ns.mount_info(&ns.root())).ok_or(Errno::ENOENT)?;
            if !t.creds().has_cap_in(&ns.owner, CapSet::SYS_ADMIN) {
                return Err(Errno::EPERM.into());
            }
            hidden
        }
    };
    let m = &info.mount;
    let mut a = Answer { head: [0; HEAD], text: Vec::new(), mask: 0 };
    if wanted & want::SB_BASIC != 0 {
        a.mask |= want::SB_BASIC;
        let dev = m.fs.dev();
        a.u32(16, major(dev));
        a.u32(20, minor(dev));
        let magic = m.fs.statfs().map_or(0, |s| s.f_type);
        a.u64(24, magic.cast_unsigned());
        a.u32(32, u32::from(m.sb.readonly()));
    }
    if wanted & want::MNT_BASIC != 0 {
        a.mask |= want::MNT_BASIC;
        a.u64(40, m.id + UNIQUE);
        a.u64(48, info.parent_id + UNIQUE);
        a.u32(56, u32::try_from(m.id).unwrap_or(u32::MAX));
        a.u32(60, u32::try_from(info.parent_id).unwrap_or(u32::MAX));
        a.u64(64, attributes(m.flags()));
        let propagation = match (info.group, info.master, info.unbindable) {
            (_, _, true) => 1 << 17,
            (0, 0, false) => 1 << 18,
            (group, master, false) => {
                (if group != 0 { 1 << 20 } else { 0 }) | if master != 0 { 1 << 19 } else { 0 }
            }
        };
        a.u64(72, propagation);
        a.u64(80, info.group);
        a.u64(88, info.master);
    }
    if wanted & want::PROPAGATE_FROM != 0 {
        a.mask |= want::PROPAGATE_FROM;
        a.u64(96, info.master);
    }
    if wanted & want::FS_TYPE != 0 {
        a.text(36, want::FS_TYPE, m.fs.name().as_bytes());
    }
    if wanted & want::MNT_ROOT != 0 {
        a.text(104, want::MNT_ROOT, &info.root);
    }
    if wanted & want::MNT_POINT != 0 {
        a.text(108, want::MNT_POINT, &info.mount_point);
    }
    let options = m.fs.show_options();
    if wanted & want::MNT_OPTS != 0 && !options.is_empty() {
        a.text(4, want::MNT_OPTS, options.as_bytes());
    }
    let total = HEAD + a.text.len();
    if size < total && !a.text.is_empty() {
        return Err(Errno::EOVERFLOW.into());
    }
    let mask = a.mask;
    a.u32(0, u32::try_from(total).unwrap_or(u32::MAX));
    a.u64(8, mask);
    let mm = t.mm();
    mm.copy_out(out.addr(), &a.head[..HEAD.min(size)])?;
    mm.copy_out(out.addr().wrapping_add(HEAD as u64), &a.text)?;
    Ok(0)
}

/// Only the capabilities are there, as everywhere.
pub fn lsm_list_modules(t: &mut Current<'_>, out: UserPtr<u64>, size: UserPtr<u32>, flags: u32) -> SysResult {
    const CAPABILITY: u64 = 100;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let room = size.read(&mm)?;
    size.write(&mm, &8)?;
    if room < 8 {
        return Err(Errno::E2BIG.into());
    }
    out.write(&mm, &CAPABILITY)?;
    Ok(1)
}
