//! Errors that a caller treats in a way of its own; all others are text for a person.

/// There is no container of that id.
#[derive(Debug, thiserror::Error)]
#[error("container {id:?} does not exist")]
pub struct Missing {
    pub id: String,
}

/// The program cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NotRun {
    pub reason: String,
    /// The exit status that a shell, env(1) or timeout(1) would give.
    pub code: u8,
}

impl NotRun {
    /// It is not there.
    pub const MISSING: u8 = 127;
    /// It is no program, or not for the caller.
    pub const FORBIDDEN: u8 = 126;
}
