//! How many kernel objects of each kind are alive, for the test that nothing is leaked. Counted in debug and test
//! builds only; a release build has neither the numbers nor the fields. The numbers are the process's: they
//! are for a test to look at, nothing depends on them.

/// Kinds of objects that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    Kernel,
    Task,
    ThreadGroup,
    ProcessGroup,
    Session,
    Pid,
    PidNamespace,
    UserNamespace,
    MountNamespace,
    Mm,
    FdTable,
    FsContext,
    File,
    Dentry,
    Mount,
    SuperBlock,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 16] = [
        Kind::Kernel,
        Kind::Task,
        Kind::ThreadGroup,
        Kind::ProcessGroup,
        Kind::Session,
        Kind::Pid,
        Kind::PidNamespace,
        Kind::UserNamespace,
        Kind::MountNamespace,
        Kind::Mm,
        Kind::FdTable,
        Kind::FsContext,
        Kind::File,
        Kind::Dentry,
        Kind::Mount,
        Kind::SuperBlock,
    ];
}

#[cfg(debug_assertions)]
mod counts {
    use super::Kind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static COUNTS: [AtomicUsize; Kind::ALL.len()] = [const { AtomicUsize::new(0) }; Kind::ALL.len()];

    /// A field of every counted object.
    #[derive(Debug)]
    pub struct Live(Kind);

    impl Live {
        /// Counts one more of that kind until the value is dropped.
        pub fn new(kind: Kind) -> Live {
            COUNTS[kind as usize].fetch_add(1, Ordering::Relaxed);
            Live(kind)
        }
    }

    impl Drop for Live {
        fn drop(&mut self) {
            COUNTS[self.0 as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many there are of a kind.
    pub fn count(kind: Kind) -> usize {
        COUNTS[kind as usize].load(Ordering::Relaxed)
    }
}

#[cfg(not(debug_assertions))]
mod counts {
    /// A field of every counted object; nothing in release builds.
    #[derive(Debug)]
    pub struct Live;

    impl Live {
        pub fn new(_kind: super::Kind) -> Live {
            Live
        }
    }
}

pub use counts::Live;
#[cfg(debug_assertions)]
pub use counts::count;
