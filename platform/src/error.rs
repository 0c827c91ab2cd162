//! What can go wrong below the traits.

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The host refused a call; `what` says which.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The process that holds the address space is gone (killed from outside).
    #[error("the process of the guest's address space was killed")]
    Dead,
    /// A range outside the limits, not page-aligned, or empty.
    #[error("bad guest range {start:#x}..{end:#x}")]
    BadRange {
        /// First address.
        start: u64,
        /// First address after.
        end: u64,
    },
    /// An image of the wrong length or with bits the processor refuses.
    #[error("bad floating-point state: {0}")]
    BadFpu(&'static str),
    /// The caller broke a rule of the interface.
    #[error("misuse of the platform: {0}")]
    Misuse(&'static str),
    /// The platform does not work on this host, or there is no such platform.
    #[error("platform {name}: {why}")]
    Unavailable {
        /// Name of the platform.
        name: String,
        /// Why, and what to do.
        why: String,
    },
}

impl PlatformError {
    /// The last OS error with a text.
    pub(crate) fn last(what: &'static str) -> PlatformError {
        PlatformError::Host { what, source: std::io::Error::last_os_error() }
    }

    /// From an errno value.
    pub(crate) fn errno(what: &'static str, errno: i32) -> PlatformError {
        PlatformError::Host { what, source: std::io::Error::from_raw_os_error(errno) }
    }

    /// The host's errno, if a host call failed.
    pub fn host_errno(&self) -> Option<i32> {
        match self {
            PlatformError::Host { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
