//! File calls relative to a descriptor that no crate in use wraps.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// chmod of what `fd` stands for, O_PATH descriptors included (fchmodat2, Linux 6.6; ENOSYS before).
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let empty = c"";
    // SAFETY: fchmodat2 reads the NUL-terminated string and touches no other memory of ours.
    let result = unsafe {
        libc::syscall(libc::SYS_fchmodat2, fd.as_raw_fd() as c_int, empty.as_ptr(), mode, libc::AT_EMPTY_PATH)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
