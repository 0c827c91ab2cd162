//! The gofer: the only process of a sandbox that can open files of the host.
//!
//! The command line forks it (no exec) into namespaces of its own whose mount tree holds the
//! container's mounts and nothing else, then calls [`serve`]. It answers the
//! sentry's requests ([`gofer_protocol`]) until the sentry is gone.
//!
//! Its threat model is a hostile sentry: every field of every message is checked, each name is a single
//! component without `.`, `..`, slash or NUL, every lookup is relative to a descriptor it
//! holds and follows no symlink, and only regular files are ever donated. It decides nothing
//! about permissions inside the sandbox; the sentry's kernel does, as Linux would. What this
//! process may do at most is decided by its mounts, its few capabilities and its seccomp filter.
#![forbid(unsafe_code)]

mod change;
mod channel;
mod confine;
mod dispatch;
mod handles;
mod lookup;
mod place;
mod readdir;
mod xattr;

use std::io;
use std::os::fd::OwnedFd;

pub use confine::{ConfineError, Confinement, seccomp_rules};
pub use handles::MountRoot;

/// One tree (or one file) that the sentry may attach to.
#[derive(Debug)]
pub struct MountConfig {
    pub root: MountRoot,
    /// Refuse every change and donate read-only descriptors only. (The mount should be read-only too.)
    pub readonly: bool,
    /// Let the sentry make device nodes. It can never open one through the gofer.
    pub allow_devices: bool,
}

/// What a gofer process serves, and to whom.
#[derive(Debug)]
pub struct GoferConfig {
    /// In the order of the indices in `Attach`.
    pub mounts: Vec<MountConfig>,
    /// Our end of a SOCK_SEQPACKET pair.
    pub socket: OwnedFd,
    /// What is given up before the first request. `None` is for tests that serve from a thread.
    pub confinement: Option<Confinement>,
}

/// Why a gofer ended other than by its sentry's end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("gofer: {0}")]
    Io(#[from] io::Error),
}

/// Confines the process and serves until the sentry closes its end. Called by the only thread of the process, with the mount
/// tree in place. The caller exits the process afterwards: worker threads may still sit in a host call.
pub fn serve(config: GoferConfig) -> Result<(), ServeError> {
    hostsys::process::one_malloc_arena();
    // Modes in requests are exact.
    rustix::process::umask(rustix::fs::Mode::empty());
    let server = dispatch::Server::new(config.mounts)?;
    if let Some(confinement) = config.confinement {
        confine::drop_privileges(confinement)?;
    }
    channel::start_workers(&server)?;
    if config.confinement.is_some() {
        confine::install_filter(place::have_openat2())?;
    }
    hostsys::process::forget_text();
    let ended = channel::run(&server, &config.socket);
    if config.confinement.is_none() {
        // The filter allows no thread to end; there the process does.
        server.workers.close();
    }
    Ok(ended?)
}
