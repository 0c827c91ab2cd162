//! Who may look into whom (ptrace(2), "Ptrace access mode checking").

use super::Task;
use crate::creds::CapSet;

impl Task {
    /// Whether this task may read and change another's memory and registers (`PTRACE_MODE_ATTACH_REALCREDS`).
    pub fn may_attach(&self, target: &Task) -> bool {
        let c = self.creds();
        self.may_look(target, c.uid, c.gid)
    }

    /// Whether this task may see what is private to another (`PTRACE_MODE_READ_FSCREDS`: much of /proc/pid).
    pub fn may_read(&self, target: &Task) -> bool {
        let c = self.creds();
        self.may_look(target, c.fsuid, c.fsgid)
    }

    fn may_look(&self, target: &Task, uid: u32, gid: u32) -> bool {
        if std::sync::Arc::ptr_eq(self.group(), target.group()) {
            return true;
        }
        let (mine, theirs) = (self.creds(), target.creds());
        let powerful = mine.has_cap_in(&theirs.user_ns, CapSet::SYS_PTRACE);
        let same_user = [theirs.euid, theirs.suid, theirs.uid].iter().all(|u| *u == uid)
            && [theirs.egid, theirs.sgid, theirs.gid].iter().all(|g| *g == gid);
        let dumpable = target.group().dumpable() == 1;
        let no_more_rights = mine.permitted.contains(theirs.permitted);
        powerful || same_user && dumpable && no_more_rights
    }
}
