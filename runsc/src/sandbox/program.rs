//! An early look whether the program can be run at all. Engines want that known at create, in
//! words they search for. The sentry decides in the end, since only it sees the container's files
//! as they will be; here only what is certain from the root directory alone is refused.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::NotRun;
use crate::spec::Plan;

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum Look {
    Runnable,
    Missing(&'static str),
    Forbidden(&'static str),
    /// A mount may have something else there.
    Unknown,
}

/// Fails if the first process's program is certainly not there or not runnable.
pub fn check(plan: &Plan) -> Result<()> {
    let process = &plan.container.process;
    let Some(program) = process.args.first() else { return Ok(()) };
    let Ok(root) = File::open(&plan.rootfs) else { return Ok(()) };
    let mounts: Vec<PathBuf> = plan
        .container
        .mounts
        .iter()
        .map(|m| PathBuf::from(OsStr::from_bytes(m.destination.as_bytes())))
        .collect();
    let name = OsStr::from_bytes(program.as_bytes());
    let fail = |why: &str, code| Err(NotRun { reason: format!("exec: {name:?}: {why}"), code }.into());
    let missing = |why: String| fail(&why, NotRun::MISSING);
    let forbidden = |why: &str| fail(why, NotRun::FORBIDDEN);
    if program.as_bytes().contains(&b'/') {
        let path = Path::new(OsStr::from_bytes(process.cwd.as_bytes())).join(name);
        return match look(&root, &path, &mounts) {
            Look::Runnable | Look::Unknown => Ok(()),
            Look::Missing(why) => missing(format!("stat {}: {why}", path.display())),
            Look::Forbidden(why) => forbidden(why),
        };
    }
    let path = process.env.iter().find_map(|v| v.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut found = None;
    for directory in path.split(|&b| b == b':').filter(|d| d.starts_with(b"/")) {
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match look(&root, &candidate, &mounts) {
            Look::Runnable | Look::Unknown => return Ok(()),
            Look::Missing(_) => {}
            Look::Forbidden(why) => found = found.or(Some(why)),
        }
    }
    match found {
        Some(why) => forbidden(why),
        None => missing("executable file not found in $PATH: no such file or directory".to_owned()),
    }
}

fn look(root: &File, path: &Path, mounts: &[PathBuf]) -> Look {
    let path = normal(path);
    if mounts.iter().any(|mount| path.starts_with(mount)) {
        return Look::Unknown;
    }
    let relative = path.strip_prefix("/").unwrap_or(&path);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, relative, flags, Mode::empty(), inside) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Look::Missing("no such file or directory"),
        Err(Errno::NOTDIR) => return Look::Missing("not a directory: no such file or directory"),
        Err(_) => return Look::Unknown,
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Look::Forbidden("is a directory: permission denied"),
        Ok(metadata) if !metadata.is_file() => Look::Forbidden("not a regular file: permission denied"),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => Look::Forbidden("permission denied"),
        Ok(_) => Look::Runnable,
        Err(_) => Look::Unknown,
    }
}

/// Without `.` and doubled slashes. `..` stays: only the kernel knows where it leads.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, Component::CurDir)).collect()
}
