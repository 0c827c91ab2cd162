//! Devices: the drivers of the fixed character devices.

mod mem;

use kernel::Kernel;
use std::sync::Arc;

/// Major numbers (the kernel's devices.txt).
pub mod majors {
    /// null, zero, full, random, urandom.
    pub const MEM: u32 = 1;
    /// tty, console, ptmx.
    pub const TTY_AUX: u32 = 5;
    /// Pseudoterminal replicas.
    pub const PTS: u32 = 136;
}

/// Tells a new kernel of all drivers and makers in this crate that the VFS asks for by number or name.
pub fn register(kernel: &Kernel) {
    kernel.vfs.set_fifo_opener(Arc::new(crate::fifo::Fifos));
    kernel.vfs.register_device(false, majors::MEM, Arc::new(mem::Driver::new(&kernel.memfile)));
    kernel.vfs.register_device(false, majors::TTY_AUX, Arc::new(crate::devpts::Auxiliary));
    kernel.vfs.register_device(false, majors::PTS, Arc::new(crate::devpts::Terminals));
}
