//! execve(2), execveat(2).

use super::memory;
use crate::loader::{self, ExecArgs, Identity, Loaded};
use crate::{Current, tracing_stops};
use abi::fcntl::AT_FDCWD;
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::task::{ExecFile, FileCaps, NewProgram, exec_creds};
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::{Caller, Fd, File, FsFlags, LookupFlags, Start, open_exec, resolve};
use kernel::{SysError, SysResult, Task};
use std::cell::Cell;
use std::sync::Arc;

const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
const AT_EMPTY_PATH: i32 = 0x1000;
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

pub fn execve(t: &mut Current<'_>, path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>) -> SysResult {
    execveat(t, Fd(AT_FDCWD), path, argv, envp, 0)
}

pub fn execveat(
    t: &mut Current<'_>,
    dir: Fd,
    path: UserCStr,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: i32,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = t.mm();
    let path = path.read_path(&mm)?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT.into());
    }
    let (file, name) = t.as_caller(|cx| open_program(cx, t, dir, &path, flags))?;
    let argv = loader::read_strings(&mm, argv)?;
    let envp = loader::read_strings(&mm, envp)?;
    drop(mm);
    let (loaded, gained) = prepare(t.task, file, &name, argv, envp)?;
    enter(t, loaded, gained, &name)
}

fn open_program(cx: &Caller<'_>, t: &Task, dir: Fd, path: &[u8], flags: i32) -> Result<(Arc<File>, Vec<u8>)> {
    let start = if dir.0 == AT_FDCWD || path.first() == Some(&b'/') {
        Start::of(cx)?
    } else {
        let base = t.files().get(dir)?;
        if path.is_empty() {
            let file = open_exec(cx, base.path())?;
            return Ok((file, format!("/dev/fd/{}", dir.0).into_bytes()));
        }
        Start::at(cx, base.path().clone())?
    };
    if path.is_empty() {
        // AT_EMPTY_PATH with AT_FDCWD: the current directory, which is no program.
        return Err(Errno::EACCES);
    }
    let mut look = LookupFlags::empty();
    if flags & AT_SYMLINK_NOFOLLOW == 0 {
        look |= LookupFlags::FOLLOW;
    }
    let place = resolve(cx, start, path, look)?;
    if flags & AT_SYMLINK_NOFOLLOW != 0 && place.inode()?.file_type() == abi::stat::FileType::Symlink {
        return Err(Errno::ELOOP);
    }
    let file = open_exec(cx, &place)?;
    let name = if dir.0 == AT_FDCWD || path.first() == Some(&b'/') {
        path.to_vec()
    } else {
        let mut n = format!("/dev/fd/{}/", dir.0).into_bytes();
        n.extend_from_slice(path);
        n
    };
    Ok((file, name))
}

/// Loads a program for a task: everything of execve that may still fail. Also for the first program of a
/// process that the runtime starts.
pub fn prepare(
    task: &Task,
    file: Arc<File>,
    name: &[u8],
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<(Loaded, bool)> {
    let creds = task.creds();
    let caller = Caller { creds: &creds, task: Some(task) };
    let gained = Cell::new(false);
    let watched = task.is_traced()
        && !task.tracer().is_some_and(|x| x.creds().has_cap_in(&creds.user_ns, CapSet::SYS_PTRACE));
    let identity = |f: &Arc<File>| -> Result<Identity> {
        let inode = f.path().inode()?;
        let attr = inode.attr()?;
        let nosuid = f.path().mount.nosuid() || inode.fs().flags().contains(FsFlags::NOSUID);
        let caps = match inode.getxattr(b"security.capability") {
            Ok(bytes) => FileCaps::parse(&bytes, |root| creds.user_ns.kuid(0) == Some(root) || root == 0)?,
            Err(_) => None,
        };
        let facts = ExecFile { uid: attr.uid, gid: attr.gid, mode: attr.mode, nosuid, caps, watched };
        let new = exec_creds(&creds, &facts)?;
        gained.set(new.gained);
        Ok(Identity { creds: Arc::new(new.creds), secure: new.secure })
    };
    let open = |path: &[u8]| -> Result<Arc<File>> {
        let place = resolve(&caller, Start::of(&caller)?, path, LookupFlags::FOLLOW)?;
        open_exec(&caller, &place)
    };
    let no_randomize = task.attrs.lock().personality & ADDR_NO_RANDOMIZE != 0;
    let loaded = loader::load(ExecArgs {
        kernel: task.kernel(),
        caller,
        file,
        path: name.to_vec(),
        argv,
        envp,
        limits: memory::limits(task),
        account: task.group().members().account(),
        no_randomize,
        open: &open,
        identity: &identity,
    })?;
    Ok((loaded, gained.get()))
}

/// The last component of a path, cut as the kernel cuts names.
pub fn comm_of(path: &[u8]) -> Vec<u8> {
    path.rsplit(|b| *b == b'/').next().unwrap_or(path).to_vec()
}

fn enter(t: &mut Current<'_>, loaded: Loaded, gained: bool, name: &[u8]) -> SysResult {
    let old_tid = t.own_tid();
    t.task.become_only_thread()?;
    let secure = loaded.identity.secure || gained;
    t.task.install_program(NewProgram {
        mm: loaded.mm,
        creds: (*loaded.identity.creds).clone(),
        comm: comm_of(name),
        secure,
        unreadable: false,
    });
    // Only now: who sees a descriptor close knows that the program has changed.
    let files = t.files();
    if Arc::strong_count(&files) > 2 {
        let own = files.fork();
        own.close_on_exec();
        drop(t.set_files(own));
    } else {
        files.close_on_exec();
    }
    drop(files);
    *t.regs = loaded.regs;
    t.regs.set_return(0);
    tracing_stops::exec_stop(t, old_tid);
    Err(SysError::NoReturn)
}
