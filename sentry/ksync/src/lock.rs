//! Mutex and RwLock with a class; the one place where the lock order is written down.

use crate::sync;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

/// The classes of locks, outermost first: while a lock of some class is held, only locks of later
/// classes may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LockClass {
    /// The sandbox: its containers, its life-cycle state.
    Sandbox,
    /// One container.
    Container,
    /// Mount tree: renames of directories and mount/umount against each other.
    MountTree,
    /// Serialises directory changes of one directory (`i_rwsem` of a directory).
    Directory,
    /// Position of an open file description (`f_pos_lock`), held over a read or write.
    FileOffset,
    /// Serialises writers and copy-up of one regular file of a stacked file system (overlay), whose
    /// layers take `FileWrite`.
    StackedFile,
    /// Serialises writers of one regular file (`i_rwsem` of a file).
    FileWrite,
    /// Interest list of an epoll instance.
    Epoll,
    /// State of a pipe, socket, tty or other stream object; user memory may be copied under it.
    Stream,
    /// A second object of class `Stream` taken through the first (socket peer, tty session side).
    StreamPeer,
    /// Address space: VMAs and what backs them.
    AddressSpace,
    /// PID namespaces and the task tree (`tasklist_lock`): parents, children, groups, sessions.
    TaskTree,
    /// Thread group state: group exit, stop, timers, shared signal handlers.
    ThreadGroup,
    /// State of a single task.
    Task,
    /// Signal handlers (`sighand`).
    SignalHandlers,
    /// Pending signals.
    SignalQueue,
    /// Descriptor table.
    FdTable,
    /// The file system context of a task (root, cwd, umask); only copied under it.
    FsContext,
    /// Which mount is where (`mount_lock`); read by every walk.
    Mounts,
    /// Dentry: children and name.
    Dentry,
    /// Inode attributes and content of in-memory inodes.
    Inode,
    /// A second inode, e.g. source of a hard link.
    InodeInner,
    /// File-system wide tables (inode numbers, free space).
    FileSystem,
    /// Advisory locks of an inode.
    FileLocks,
    /// Futex buckets.
    Futex,
    /// Timers.
    Timer,
    /// Which address spaces map an object.
    Mappings,
    /// The memory file's allocator.
    MemoryFile,
    /// Ready list of an epoll instance, taken from wake-ups.
    EpollReady,
    /// Innermost locks, that take nothing else.
    Leaf,
}

#[cfg(debug_assertions)]
mod order {
    use super::LockClass;
    use crate::sync::thread_local;
    use std::cell::RefCell;
    use std::panic::Location;

    thread_local! {
        static HELD: RefCell<Vec<(LockClass, &'static Location<'static>)>> = const { RefCell::new(Vec::new()) };
    }

    #[track_caller]
    pub fn acquire(class: LockClass) {
        let here = Location::caller();
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some((last, place)) = held.iter().max_by_key(|(c, _)| *c)
                && *last >= class
            {
                panic!("lock order: {class:?} taken at {here} while {last:?} of {place} is held");
            }
            held.push((class, here));
        });
    }

    /// Notes the second lock of a pair, whose class is held already.
    #[track_caller]
    pub fn acquire_second(class: LockClass) {
        let here = Location::caller();
        HELD.with(|held| held.borrow_mut().push((class, here)));
    }

    pub fn release(class: LockClass) {
        HELD.with(|held| {
            let mut held = held.borrow_mut();
            if let Some(i) = held.iter().rposition(|(c, _)| *c == class) {
                held.remove(i);
            }
        });
    }

    pub fn held() -> Vec<String> {
        HELD.with(|held| held.borrow().iter().map(|(c, place)| format!("{c:?} of {place}")).collect())
    }
}

/// In debug builds, panics when the calling thread holds any classed lock. Called before waiting,
/// before a message to the gofer, before a file may be released.
#[track_caller]
pub fn assert_no_locks() {
    #[cfg(debug_assertions)]
    {
        let held = order::held();
        assert!(held.is_empty(), "locks held where none may be: {held:?}");
    }
}

macro_rules! guard {
    ($guard:ident, $inner:ident $(, $mutable:ident)?) => {
        /// Access to the value; gives the lock back when dropped.
        pub struct $guard<'a, T: ?Sized> {
            inner: sync::$inner<'a, T>,
            #[cfg(debug_assertions)]
            class: LockClass,
        }

        impl<T: ?Sized + std::fmt::Debug> std::fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized> Deref for $guard<'_, T> {
            type Target = T;
            fn deref(&self) -> &T {
                &self.inner
            }
        }

        $(impl<T: ?Sized> DerefMut for $guard<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                let $mutable = &mut self.inner;
                $mutable
            }
        })?

        #[cfg(debug_assertions)]
        impl<T: ?Sized> Drop for $guard<'_, T> {
            fn drop(&mut self) {
                order::release(self.class);
            }
        }
    };
}

guard!(MutexGuard, MutexGuard, inner);
guard!(RwLockReadGuard, RwLockReadGuard);
guard!(RwLockWriteGuard, RwLockWriteGuard, inner);

/// Mutual exclusion with a class.
#[derive(Debug)]
pub struct Mutex<T: ?Sized> {
    class: LockClass,
    inner: sync::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A new lock of a class around a value.
    pub const fn new(class: LockClass, value: T) -> Self {
        Mutex { class, inner: sync::Mutex::new(value) }
    }

    /// The value, the lock is gone.
    pub fn into_inner(self) -> T {
        self.inner.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// The value without locking: nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        order::acquire(self.class);
        MutexGuard {
            inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            class: self.class,
        }
    }

    /// The class of this lock.
    pub fn class(&self) -> LockClass {
        self.class
    }

    /// Takes two locks of one class, in the order of their addresses, so that two such calls cannot
    /// wait for each other. The two must be different locks.
    #[track_caller]
    pub fn lock_pair<'a>(a: &'a Mutex<T>, b: &'a Mutex<T>) -> (MutexGuard<'a, T>, MutexGuard<'a, T>)
    where
        T: Sized,
    {
        assert!(!std::ptr::eq(a, b), "lock_pair of a lock with itself");
        #[cfg(debug_assertions)]
        {
            order::acquire(a.class);
            order::acquire_second(b.class);
        }
        let raw = |m: &'a Mutex<T>| MutexGuard {
            inner: m.inner.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            class: m.class,
        };
        if std::ptr::from_ref(a) < std::ptr::from_ref(b) {
            let ga = raw(a);
            let gb = raw(b);
            (ga, gb)
        } else {
            let gb = raw(b);
            let ga = raw(a);
            (ga, gb)
        }
    }
}

/// Many readers or one writer, with a class.
#[derive(Debug)]
pub struct RwLock<T: ?Sized> {
    #[cfg(debug_assertions)]
    class: LockClass,
    inner: sync::RwLock<T>,
}

impl<T> RwLock<T> {
    /// A new lock of a class around a value.
    pub const fn new(class: LockClass, value: T) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = class;
        RwLock {
            #[cfg(debug_assertions)]
            class,
            inner: sync::RwLock::new(value),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock shared.
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        #[cfg(debug_assertions)]
        order::acquire(self.class);
        RwLockReadGuard {
            inner: self.inner.read().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            class: self.class,
        }
    }

    /// Takes the lock alone.
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        #[cfg(debug_assertions)]
        order::acquire(self.class);
        RwLockWriteGuard {
            inner: self.inner.write().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            class: self.class,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_in_order_are_fine_and_given_back() {
        let outer = Mutex::new(LockClass::Sandbox, 1);
        let inner = RwLock::new(LockClass::Leaf, 2);
        for _ in 0..2 {
            let a = outer.lock();
            let b = inner.read();
            assert_eq!(*a + *b, 3);
        }
        assert_no_locks();
        let (x, y) = (Mutex::new(LockClass::Task, 1), Mutex::new(LockClass::Task, 2));
        let (gx, gy) = Mutex::lock_pair(&y, &x);
        assert_eq!((*gx, *gy), (2, 1));
        drop(gx);
        #[cfg(debug_assertions)]
        assert_eq!(order::held().len(), 1, "the other one is still held");
        drop(gy);
        assert_no_locks();
    }
}
