//! memfd_create(2): files of a tmpfs that is mounted nowhere.

use super::data::seal;
use super::inode::{NewInode, TmpInode};
use super::{Options, TmpFs};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use bitflags::bitflags;
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::vfs::{File, Mount, Path};
use std::sync::Arc;

bitflags! {
    /// `MFD_*`
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MemfdFlags: u32 {
        const CLOEXEC = 1;
        const ALLOW_SEALING = 2;
        const HUGETLB = 4;
        const NOEXEC_SEAL = 8;
        const EXEC = 16;
    }
}

/// The sandbox's file system of such files.
struct MemfdFs {
    fs: Arc<TmpFs>,
    mount: Arc<Mount>,
}

/// A file in memory with a name that only /proc shows. The flags have been checked.
pub fn memfd_create(
    kernel: &Arc<Kernel>,
    creds: &Arc<Creds>,
    name: &[u8],
    flags: MemfdFlags,
) -> Result<Arc<File>> {
    if flags.contains(MemfdFlags::HUGETLB) {
        kernel::gap!(kernel, "memfd_create MFD_HUGETLB");
        return Err(Errno::EINVAL);
    }
    let all = kernel.extensions.get_or_init(|| {
        let options = Options { size: Some(0), nr_inodes: Some(0), ..Options::default() };
        let fs = TmpFs::new(kernel, options);
        let mount = Mount::internal(Arc::clone(&fs) as Arc<dyn kernel::vfs::FileSystem>);
        MemfdFs { fs, mount }
    });
    let noexec = flags.contains(MemfdFlags::NOEXEC_SEAL);
    let mode = FileType::Regular.mode_bits() | if noexec { 0o666 } else { 0o777 };
    let new = NewInode { mode, uid: creds.fsuid, gid: creds.fsgid, rdev: 0, target: None };
    let inode = TmpInode::new(all.fs.shared(), &new, 0)?;
    if let Some(data) = inode.data() {
        data.init_seals(match (noexec, flags.contains(MemfdFlags::ALLOW_SEALING)) {
            (true, _) => seal::EXEC,
            (false, true) => 0,
            (false, false) => seal::SEAL,
        });
    }
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    shown.extend_from_slice(b" (deleted)");
    let path = Path::nameless(&all.mount, inode.clone(), &shown);
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    Ok(File::new(inode, path, flags, Arc::clone(creds)))
}
