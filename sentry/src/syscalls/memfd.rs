//! memfd_create(2).

use crate::Current;
use abi::Errno;
use fs::tmpfs::{MemfdFlags, memfd_create as create};
use kernel::SysResult;
use kernel::uaccess::UserCStr;

/// Longest name (`MFD_NAME_MAX_LEN`).
const NAME_MAX: usize = 249;

pub fn memfd_create(t: &mut Current<'_>, name: UserCStr, flags: u32) -> SysResult {
    let flags = match flags & 0xfc00_0000 {
        0 => MemfdFlags::from_bits(flags).ok_or(Errno::EINVAL)?,
        _ if flags & MemfdFlags::HUGETLB.bits() != 0 => MemfdFlags::HUGETLB,
        _ => return Err(Errno::EINVAL.into()),
    };
    if flags.contains(MemfdFlags::EXEC | MemfdFlags::NOEXEC_SEAL) {
        return Err(Errno::EINVAL.into());
    }
    let name = name.read(&t.mm(), NAME_MAX + 1, Errno::EINVAL)?;
    let file = create(t.kernel(), &t.creds(), &name, flags)?;
    Ok(t.install_fd(file, flags.contains(MemfdFlags::CLOEXEC))?)
}
