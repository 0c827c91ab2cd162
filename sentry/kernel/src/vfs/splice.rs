//! What splice(2), tee(2) and vmsplice(2) need of a pipe beyond reading and writing it.

use abi::Result;

/// One end of a pipe. Data is moved with the file's own `read` and `write` on kernel buffers; what a
/// destination did not take goes back with [`SplicePipe::unread`].
pub trait SplicePipe {
    /// The same number for both ends of one pipe.
    fn pipe_id(&self) -> u64;
    /// Bytes that can be read now.
    fn available(&self) -> usize;
    /// Bytes that certainly fit now (whole free pages).
    fn room(&self) -> usize;
    /// Puts bytes back at the front, from where they were just read.
    fn unread(&self, data: Vec<u8>);
    /// Copies up to `max` bytes from the front without taking them. EAGAIN when there are none but
    /// there are writers; an empty vector at the end.
    fn peek(&self, max: usize) -> Result<Vec<u8>>;
    /// Capacity in bytes (`F_GETPIPE_SZ`).
    fn capacity(&self) -> usize;
    /// Sets the capacity, rounded up as fcntl(2) says for `F_SETPIPE_SZ`; the new one. `privileged`
    /// tells of `CAP_SYS_RESOURCE`.
    fn set_capacity(&self, bytes: u32, privileged: bool) -> Result<usize>;
}
