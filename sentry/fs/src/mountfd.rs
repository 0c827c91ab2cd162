//! Descriptors of the new mount interface: file system contexts (fsopen(2)) and mounts that hang nowhere yet
//! (fsmount(2), open_tree(2)).

use abi::fcntl::OpenFlags;
use abi::{Errno, Result};
use kernel::creds::Creds;
use kernel::vfs::{Caller, File, FileOps, FsType, Mount, MountFlags, MountNamespace, Path, SuperBlock};
use ksync::{LockClass, Mutex};
use std::sync::Arc;

/// What a context is there for.
enum Stage {
    /// Options are collected for a new file system.
    Collecting,
    /// The file system is made.
    Made(Arc<SuperBlock>),
    /// Options are collected for changing a mounted one.
    Picked(Path),
    /// Its mount was made.
    Used,
}

struct State {
    stage: Stage,
    options: Vec<u8>,
    source: Option<Vec<u8>>,
    readonly: bool,
}

/// A file system context.
pub struct FsContext {
    kind: Option<Arc<dyn FsType>>,
    state: Mutex<State>,
}

impl FsContext {
    fn with(kind: Option<Arc<dyn FsType>>, stage: Stage, readonly: bool) -> Arc<FsContext> {
        let state = State { stage, options: Vec::new(), source: None, readonly };
        Arc::new(FsContext { kind, state: Mutex::new(LockClass::Stream, state) })
    }

    /// For making a file system.
    pub fn new(kind: Arc<dyn FsType>) -> Arc<FsContext> {
        FsContext::with(Some(kind), Stage::Collecting, false)
    }

    /// For changing a mounted one.
    pub fn pick(at: Path) -> Arc<FsContext> {
        let readonly = at.mount.sb.readonly();
        FsContext::with(None, Stage::Picked(at), readonly)
    }

    /// `FSCONFIG_SET_FLAG` (no value) and `FSCONFIG_SET_STRING`.
    pub fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut s = self.state.lock();
        if !matches!(s.stage, Stage::Collecting | Stage::Picked(_)) {
            return Err(Errno::EBUSY);
        }
        match (key, value) {
            (b"ro", None) => s.readonly = true,
            (b"rw", None) => s.readonly = false,
            (b"source", Some(v)) => {
                if s.source.is_some() {
                    return Err(Errno::EINVAL);
                }
                s.source = Some(v.to_vec());
            }
            (k, v) => {
                let len = k.len() + v.map_or(0, <[u8]>::len) + 2;
                if s.options.len() + len > 4096 || k.contains(&b',') {
                    return Err(Errno::EINVAL);
                }
                if !s.options.is_empty() {
                    s.options.push(b',');
                }
                s.options.extend_from_slice(k);
                if let Some(v) = v {
                    s.options.push(b'=');
                    s.options.extend_from_slice(v);
                }
            }
        }
        Ok(())
    }

    /// `FSCONFIG_CMD_CREATE`.
    pub fn create(&self, cx: &Caller<'_>) -> Result<()> {
        let (source, options, readonly) = {
            let s = self.state.lock();
            match s.stage {
                Stage::Collecting => {}
                _ => return Err(Errno::EBUSY),
            }
            (s.source.clone().unwrap_or_default(), s.options.clone(), s.readonly)
        };
        let fs = self.kind.as_ref().ok_or(Errno::EINVAL)?.make(cx, &source, &options)?;
        self.state.lock().stage = Stage::Made(SuperBlock::new(fs, readonly));
        Ok(())
    }

    /// `FSCONFIG_CMD_RECONFIGURE`.
    pub fn reconfigure(&self, ns: &MountNamespace) -> Result<()> {
        let (at, options, readonly) = {
            let s = self.state.lock();
            match &s.stage {
                Stage::Picked(at) => (at.clone(), s.options.clone(), s.readonly),
                _ => return Err(Errno::EBUSY),
            }
        };
        ns.remount(&at, readonly, at.mount.flags(), &options)
    }

    /// The mount that fsmount(2) makes of it.
    pub fn mount(&self, ns: &MountNamespace, flags: MountFlags) -> Result<Arc<Mount>> {
        let (sb, source) = {
            let mut s = self.state.lock();
            let Stage::Made(sb) = &s.stage else {
                return Err(Errno::EINVAL);
            };
            let sb = Arc::clone(sb);
            s.stage = Stage::Used;
            (sb, s.source.clone().unwrap_or_else(|| b"none".to_vec()))
        };
        Ok(ns.new_detached(sb, flags, &source))
    }
}

impl FileOps for FsContext {
    /// The messages of the file system; there are none.
    fn read(&self, _: &Caller<'_>, _: &File, _: &mut dyn kernel::io::Sink, _: &mut u64) -> Result<usize> {
        Err(Errno::ENODATA)
    }
    fn seekable(&self) -> bool {
        false
    }
}

/// A tree of mounts that goes with its descriptor unless it was attached somewhere.
struct Detached {
    ns: Arc<MountNamespace>,
    mount: Arc<Mount>,
}

impl FileOps for Detached {
    fn release(&self, _: &File) {
        self.ns.drop_detached(&self.mount);
    }
}

/// The `O_PATH` description of a mount that hangs nowhere.
pub fn detached_file(ns: &Arc<MountNamespace>, mount: Arc<Mount>, creds: Arc<Creds>) -> Arc<File> {
    let path = mount.root_path();
    File::new(Arc::new(Detached { ns: Arc::clone(ns), mount }), path, OpenFlags::PATH, creds)
}
