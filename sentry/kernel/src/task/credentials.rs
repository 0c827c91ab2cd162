//! How credentials change: the rules of setuid(2) and kin, and of execve (capabilities(7)).

use crate::creds::{CapSet, Creds};
use abi::{Errno, Result};

/// `SECBIT_*` of capabilities(7).
pub mod securebits {
    pub const NOROOT: u32 = 1;
    pub const NOROOT_LOCKED: u32 = 2;
    pub const NO_SETUID_FIXUP: u32 = 4;
    pub const NO_SETUID_FIXUP_LOCKED: u32 = 8;
    pub const KEEP_CAPS: u32 = 16;
    pub const KEEP_CAPS_LOCKED: u32 = 32;
    pub const NO_CAP_AMBIENT_RAISE: u32 = 64;
    pub const NO_CAP_AMBIENT_RAISE_LOCKED: u32 = 128;
    pub const ALL: u32 = 0xff;
    pub const ALL_LOCKS: u32 = 0xaa;
}

/// Capabilities that concern files: they follow the file system user.
const FS_CAPS: CapSet = CapSet::CHOWN
    .union(CapSet::DAC_OVERRIDE)
    .union(CapSet::DAC_READ_SEARCH)
    .union(CapSet::FOWNER)
    .union(CapSet::FSETID)
    .union(CapSet::LINUX_IMMUTABLE)
    .union(CapSet::MKNOD)
    .union(CapSet::MAC_OVERRIDE);

impl Creds {
    fn root_uid(&self) -> Option<u32> {
        self.user_ns.kuid(0)
    }

    /// What a change of user ids from `old` does to the capabilities (`cap_task_fix_setuid`).
    pub fn fix_caps_after_setuid(&mut self, old: &Creds) {
        if self.securebits & securebits::NO_SETUID_FIXUP != 0 {
            return;
        }
        let root = self.root_uid();
        let is_root = |u: u32| Some(u) == root;
        let was_any = is_root(old.uid) || is_root(old.euid) || is_root(old.suid);
        let is_any = is_root(self.uid) || is_root(self.euid) || is_root(self.suid);
        if was_any && !is_any {
            if self.securebits & securebits::KEEP_CAPS == 0 {
                self.permitted = CapSet::empty();
                self.effective = CapSet::empty();
            }
            self.ambient = CapSet::empty();
        }
        if is_root(old.euid) && !is_root(self.euid) {
            self.effective = CapSet::empty();
        }
        if !is_root(old.euid) && is_root(self.euid) {
            self.effective = self.permitted;
        }
    }

    /// What setfsuid(2) does to the capabilities.
    pub fn fix_caps_after_setfsuid(&mut self, old_fsuid: u32) {
        if self.securebits & securebits::NO_SETUID_FIXUP != 0 {
            return;
        }
        let root = self.root_uid();
        let (was, is) = (Some(old_fsuid) == root, Some(self.fsuid) == root);
        if was && !is {
            self.effective -= FS_CAPS;
        }
        if !was && is {
            self.effective |= self.permitted & FS_CAPS;
        }
    }
}

/// `security.capability` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCaps {
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub effective: bool,
}

impl FileCaps {
    /// From the attribute's bytes (versions 2 and 3); EINVAL for anything else. `root` says whether
    /// version 3's root id is that of the namespace.
    pub fn parse(bytes: &[u8], root: impl Fn(u32) -> bool) -> Result<Option<FileCaps>> {
        let word = |i: usize| -> Result<u32> {
            let b = bytes.get(i * 4..i * 4 + 4).ok_or(Errno::EINVAL)?;
            Ok(u32::from_le_bytes(b.try_into().map_err(|_| Errno::EINVAL)?))
        };
        let magic = word(0)?;
        let (len, rootid) = match magic & 0xff00_0000 {
            0x0200_0000 => (20, 0),
            0x0300_0000 => (24, word(5)?),
            _ => return Err(Errno::EINVAL),
        };
        if bytes.len() != len {
            return Err(Errno::EINVAL);
        }
        if !root(rootid) {
            return Ok(None);
        }
        let set = |lo: usize, hi: usize| -> Result<CapSet> {
            Ok(CapSet::from_bits_truncate(u64::from(word(lo)?) | u64::from(word(hi)?) << 32))
        };
        Ok(Some(FileCaps { permitted: set(1, 3)?, inheritable: set(2, 4)?, effective: magic & 1 != 0 }))
    }
}

/// What of a program's file matters for credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecFile {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Set-id bits and capabilities have no effect (mount, file system).
    pub nosuid: bool,
    pub caps: Option<FileCaps>,
    /// Somebody without CAP_SYS_PTRACE traces the task, or shares its file system context.
    pub watched: bool,
}

/// The credentials of the new program.
#[derive(Clone, Debug)]
pub struct ExecCreds {
    pub creds: Creds,
    /// `AT_SECURE`
    pub secure: bool,
    /// Some id or capability was gained.
    pub gained: bool,
}

/// capabilities(7), "Transformation of capabilities during execve()", and the set-id rules.
pub fn exec_creds(old: &Creds, file: &ExecFile) -> Result<ExecCreds> {
    let mut new = old.clone();
    let privileged = !file.nosuid && !old.no_new_privs;
    let mapped =
        old.user_ns.uid_map.lock().iter().any(|r| file.uid >= r.outside && file.uid - r.outside < r.count);
    if privileged && mapped {
        if file.mode & 0o4000 != 0 {
            new.euid = file.uid;
        }
        if file.mode & 0o2010 == 0o2010 {
            new.egid = file.gid;
        }
    }
    let fcaps = file.caps.filter(|_| !file.nosuid);
    let mut effective = false;
    new.permitted = CapSet::empty();
    if let Some(c) = fcaps {
        new.permitted = (c.permitted & new.bounding) | (c.inheritable & new.inheritable);
        effective = c.effective;
        if effective && !new.permitted.contains(c.permitted) {
            return Err(Errno::EPERM);
        }
    }
    let root = old.root_uid();
    let is_root = |u: u32| Some(u) == root;
    let set_root = new.euid != old.uid && is_root(new.euid);
    if new.securebits & securebits::NOROOT == 0 && !(fcaps.is_some() && set_root && !is_root(old.uid)) {
        if is_root(new.euid) || is_root(new.uid) {
            new.permitted = new.bounding | new.inheritable;
        }
        if is_root(new.euid) {
            effective = true;
        }
    }
    let mut setid = new.euid != old.uid || new.egid != old.gid;
    let grew = !old.permitted.contains(new.permitted);
    if (setid || grew) && (file.watched || old.no_new_privs) {
        if !old.has_cap(CapSet::SETUID) || old.no_new_privs {
            new.euid = new.uid;
            new.egid = new.gid;
        }
        new.permitted &= old.permitted;
        setid = new.euid != old.uid || new.egid != old.gid;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    if fcaps.is_some() || setid {
        new.ambient = CapSet::empty();
    }
    let before_ambient = new.permitted;
    new.permitted |= new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    new.securebits &= !securebits::KEEP_CAPS;
    let id_changed = new.euid != old.euid || new.egid != old.egid;
    let secure = setid || (!is_root(new.uid) && (effective || !new.ambient.contains(before_ambient)));
    Ok(ExecCreds { creds: new, secure, gained: id_changed || grew })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::creds::UserNamespace;

    fn user(uid: u32) -> Creds {
        let mut c = Creds::root(UserNamespace::root());
        (c.uid, c.euid, c.suid, c.fsuid) = (uid, uid, uid, uid);
        c.permitted = CapSet::empty();
        c.effective = CapSet::empty();
        c
    }

    #[test]
    fn setuid_root_and_no_new_privs() {
        let file = ExecFile { mode: 0o4755, ..ExecFile::default() };
        let e = exec_creds(&user(1000), &file).unwrap();
        assert_eq!((e.creds.uid, e.creds.euid, e.creds.suid), (1000, 0, 0));
        assert!(e.secure && e.creds.effective == CapSet::all());
        let mut nnp = user(1000);
        nnp.no_new_privs = true;
        let e = exec_creds(&nnp, &file).unwrap();
        assert_eq!(e.creds.euid, 1000);
        assert!(!e.secure && e.creds.effective.is_empty());
    }

    #[test]
    fn file_and_ambient_capabilities() {
        let caps = FileCaps { permitted: CapSet::NET_RAW, inheritable: CapSet::empty(), effective: true };
        let file = ExecFile { mode: 0o755, caps: Some(caps), ..ExecFile::default() };
        let e = exec_creds(&user(1000), &file).unwrap();
        assert_eq!(e.creds.effective, CapSet::NET_RAW);
        assert!(e.secure);
        let mut bounded = user(1000);
        bounded.bounding -= CapSet::NET_RAW;
        assert_eq!(exec_creds(&bounded, &file).unwrap_err(), Errno::EPERM);
        let mut ambient = user(1000);
        (ambient.permitted, ambient.inheritable, ambient.ambient) =
            (CapSet::KILL, CapSet::KILL, CapSet::KILL);
        let plain = ExecFile { mode: 0o755, ..ExecFile::default() };
        let e = exec_creds(&ambient, &plain).unwrap();
        assert_eq!((e.creds.effective, e.secure), (CapSet::KILL, false));
    }

    #[test]
    fn leaving_root_drops_capabilities() {
        let old = Creds::root(UserNamespace::root());
        let mut new = old.clone();
        (new.uid, new.euid, new.suid) = (5, 5, 5);
        new.fix_caps_after_setuid(&old);
        assert!(new.permitted.is_empty() && new.effective.is_empty());
        let mut keep = old.clone();
        keep.securebits = securebits::KEEP_CAPS;
        (keep.uid, keep.euid, keep.suid) = (5, 5, 5);
        keep.fix_caps_after_setuid(&old);
        assert!(!keep.permitted.is_empty() && keep.effective.is_empty());
    }
}
