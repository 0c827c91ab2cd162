//! Terminals of the host that were donated to the sandbox.

use std::io;
use std::os::fd::AsFd;

/// Rows and columns.
pub fn window_size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}
