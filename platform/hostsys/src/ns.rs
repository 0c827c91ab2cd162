//! Namespaces: leaving, joining, and the id maps of user namespaces.

pub use crate::process::Namespaces;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

/// unshare(2) for the calling thread. PID: the next child is the first of the new namespace.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: only namespace flags can be in the value, none that concerns memory or descriptors.
    match unsafe { libc::unshare(namespaces.bits()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// setns(2): joins the namespace of a /proc/PID/ns/* descriptor, or several of a pidfd. `kind` empty: any (not with a pidfd).
pub fn join(fd: impl AsFd, kind: Namespaces) -> io::Result<()> {
    // SAFETY: setns has no memory preconditions.
    match unsafe { libc::setns(fd.as_fd().as_raw_fd(), kind.bits()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says why a test has not run; where everything has to be there, it has failed.
#[cfg(test)]
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// One line of uid_map or gid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Writes the maps of `pid`'s user namespace ("self" with `None`). `deny_setgroups` is needed where the writer is not privileged outside.
pub fn write_id_maps(
    pid: Option<i32>,
    uids: &[IdMap],
    gids: &[IdMap],
    deny_setgroups: bool,
) -> io::Result<()> {
    let dir = pid.map_or_else(|| "/proc/self".to_owned(), |p| format!("/proc/{p}"));
    let put = |file: &str, text: String| {
        let path = format!("{dir}/{file}");
        let write = || std::fs::OpenOptions::new().write(true).open(&path)?.write_all(text.as_bytes());
        write().map_err(|e: io::Error| io::Error::new(e.kind(), format!("writing {path}: {e}")))
    };
    let lines = |maps: &[IdMap]| -> String {
        maps.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect()
    };
    if deny_setgroups {
        put("setgroups", "deny".to_owned())?;
    }
    if !uids.is_empty() {
        put("uid_map", lines(uids))?;
    }
    if !gids.is_empty() {
        put("gid_map", lines(gids))?;
    }
    Ok(())
}
