//! What can go wrong, under the names that errno(3) has for it.

/// An error of the stack; each is one error number of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetError {
    /// EPERM
    NotPermitted,
    /// EACCES
    Access,
    /// EAGAIN
    WouldBlock,
    /// EINVAL
    Invalid,
    /// ENODEV
    NoDevice,
    /// EEXIST
    Exists,
    /// ESRCH
    NotFound,
    /// EPIPE
    BrokenPipe,
    /// EPROTO
    Protocol,
    /// EMSGSIZE
    MessageSize,
    /// EDESTADDRREQ
    NoDestination,
    /// EOPNOTSUPP
    NotSupported,
    /// EAFNOSUPPORT
    WrongFamily,
    /// EADDRINUSE
    AddressInUse,
    /// EADDRNOTAVAIL
    AddressNotAvailable,
    /// ENETDOWN
    NetworkDown,
    /// ENETUNREACH
    NetworkUnreachable,
    /// EHOSTUNREACH
    HostUnreachable,
    /// ECONNABORTED
    Aborted,
    /// ECONNRESET
    Reset,
    /// ECONNREFUSED
    Refused,
    /// ENOBUFS
    NoBuffers,
    /// EISCONN
    Connected,
    /// ENOTCONN
    NotConnected,
    /// ETIMEDOUT
    TimedOut,
    /// EALREADY
    Already,
    /// EINPROGRESS
    InProgress,
}

/// What calls of the stack give.
pub type Result<T> = std::result::Result<T, NetError>;
