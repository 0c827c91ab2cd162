//! Root, current directory and umask of tasks (`fs_struct`).

use super::Path;
use ksync::live::{Kind, Live};
use ksync::{LockClass, RwLock};
use std::sync::Arc;

/// Shared between tasks by `CLONE_FS`.
pub struct FsContext {
    inner: RwLock<Inner>,
    /// For the test that nothing is leaked.
    _live: Live,
}

#[derive(Clone)]
struct Inner {
    root: Path,
    cwd: Path,
    umask: u32,
}

impl FsContext {
    /// A context at a root.
    pub fn new(root: Path, cwd: Path, umask: u32) -> Arc<FsContext> {
        Arc::new(FsContext {
            _live: Live::new(Kind::FsContext),
            inner: RwLock::new(LockClass::FsContext, Inner { root, cwd, umask }),
        })
    }
    /// A copy for a new task.
    pub fn fork(&self) -> Arc<FsContext> {
        let inner = self.inner.read().clone();
        Arc::new(FsContext {
            _live: Live::new(Kind::FsContext),
            inner: RwLock::new(LockClass::FsContext, inner),
        })
    }
    pub fn root(&self) -> Path {
        self.inner.read().root.clone()
    }
    pub fn cwd(&self) -> Path {
        self.inner.read().cwd.clone()
    }
    pub fn root_and_cwd(&self) -> (Path, Path) {
        let inner = self.inner.read();
        (inner.root.clone(), inner.cwd.clone())
    }
    /// pivot_root(2) moved the root: whoever stood at the old one stands at the new one.
    pub fn replace(&self, old: &Path, new: &Path) {
        let gone = {
            let mut inner = self.inner.write();
            let before = inner.clone();
            if inner.root.same(old) {
                inner.root = new.clone();
            }
            if inner.cwd.same(old) {
                inner.cwd = new.clone();
            }
            before
        };
        drop(gone);
    }
    pub fn umask(&self) -> u32 {
        self.inner.read().umask
    }
    pub fn set_root(&self, root: Path) {
        let old = std::mem::replace(&mut self.inner.write().root, root);
        drop(old);
    }
    pub fn set_cwd(&self, cwd: Path) {
        let old = std::mem::replace(&mut self.inner.write().cwd, cwd);
        drop(old);
    }
    /// Sets the umask; the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        std::mem::replace(&mut self.inner.write().umask, umask & 0o777)
    }
}
