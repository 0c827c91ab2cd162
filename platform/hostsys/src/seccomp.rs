//! Seccomp allow-lists as data: each rule names a system call, what its arguments may be, and why it is needed.
//!
//! `seccompiler` compiles them. Everything that no rule allows kills the process. Filters of stub processes, which test the
//! instruction pointer, are assembled by the platform crate and installed by their own threads.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Which argument, from 0.
    pub index: u8,
    /// The test.
    pub test: Test,
    /// Compare all 64 bits (else the low 32, right for `int` arguments).
    pub wide: bool,
}

/// What an argument must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Eq(u64),
    /// Different.
    Ne(u64),
    /// At most.
    Le(u64),
    /// At least.
    Ge(u64),
    /// The bits of the mask equal the value.
    Masked {
        /// Bits to look at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// Allows a system call if all argument tests hold. Several rules for one call are alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// SYS_*.
    pub nr: i64,
    /// All must hold.
    pub args: Vec<Arg>,
    /// Who needs it and for what.
    pub reason: &'static str,
}

/// Allows a system call whatever its arguments.
pub fn allow(nr: i64, reason: &'static str) -> Rule {
    Rule { nr, args: Vec::new(), reason }
}

impl Rule {
    /// Adds a test of a 32-bit argument.
    pub fn arg(mut self, index: u8, test: Test) -> Rule {
        self.args.push(Arg { index, test, wide: false });
        self
    }

    /// Adds a test of a 64-bit argument.
    pub fn wide(mut self, index: u8, test: Test) -> Rule {
        self.args.push(Arg { index, test, wide: true });
        self
    }

    /// Adds: argument `index` is `value`.
    pub fn eq(self, index: u8, value: u64) -> Rule {
        self.arg(index, Test::Eq(value))
    }
}

/// What happens on a call that no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The process is killed with SIGSYS. The only choice outside tests and debugging.
    Kill,
    /// The call fails with EPERM.
    Errno,
    /// The call is made and logged by the host (to find what is missing).
    Log,
}

/// A bad rule set.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Rules that add nothing, from [`redundancies`].
    #[error("redundant seccomp rules: {0}")]
    Redundant(String),
    /// The compiler refused.
    #[error("seccomp rules do not compile: {0}")]
    Compile(String),
    /// The kernel refused.
    #[error("installing the seccomp filter: {0}")]
    Install(#[from] io::Error),
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Number of BPF instructions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if it has no instructions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Describes every rule that adds nothing: duplicates, and rules with conditions beside one without for the same call.
pub fn redundancies(rules: &[Rule]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        for (j, other) in rules.iter().enumerate() {
            let covers = rule.nr == other.nr && other.args.iter().all(|a| rule.args.contains(a));
            let equal = covers && other.args.len() == rule.args.len();
            if i != j && covers && (!equal || i > j) {
                let (nr, mine, theirs) = (rule.nr, rule.reason, other.reason);
                found.push(format!("system call {nr} ({mine}) is already allowed for: {theirs}"));
            }
        }
    }
    found
}

/// Drops what [`redundancies`] reports: for sets put together from several lists.
pub fn merge(lists: impl IntoIterator<Item = Vec<Rule>>) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    for rule in lists.into_iter().flatten() {
        let covers = |a: &Rule, b: &Rule| a.nr == b.nr && a.args.iter().all(|x| b.args.contains(x));
        if all.iter().any(|have| covers(have, &rule)) {
            continue;
        }
        all.retain(|have| !covers(&rule, have));
        all.push(rule);
    }
    all
}

/// Compiles an allow-list.
pub fn compile(rules: &[Rule], violation: Violation) -> Result<Filter, SeccompError> {
    let redundant = redundancies(rules);
    if !redundant.is_empty() {
        return Err(SeccompError::Redundant(redundant.join("; ")));
    }
    let err = |e: &dyn std::fmt::Display| SeccompError::Compile(e.to_string());
    let mut map: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let entry = map.entry(rule.nr).or_default();
        if rule.args.is_empty() {
            continue;
        }
        let mut conditions = Vec::new();
        for arg in &rule.args {
            let (op, value) = match arg.test {
                Test::Eq(v) => (SeccompCmpOp::Eq, v),
                Test::Ne(v) => (SeccompCmpOp::Ne, v),
                Test::Le(v) => (SeccompCmpOp::Le, v),
                Test::Ge(v) => (SeccompCmpOp::Ge, v),
                Test::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
            };
            let len = if arg.wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
            conditions.push(SeccompCondition::new(arg.index, len, op, value).map_err(|e| err(&e))?);
        }
        entry.push(SeccompRule::new(conditions).map_err(|e| err(&e))?);
    }
    let mismatch = match violation {
        Violation::Kill => SeccompAction::KillProcess,
        Violation::Errno => SeccompAction::Errno(libc::EPERM as u32),
        Violation::Log => SeccompAction::Log,
    };
    let filter =
        SeccompFilter::new(map, mismatch, SeccompAction::Allow, TargetArch::x86_64).map_err(|e| err(&e))?;
    Ok(Filter(filter.try_into().map_err(|e| err(&e))?))
}

/// Installs the filter on all threads of this process, and sets no_new_privs. There is no way back.
pub fn install(filter: &Filter) -> Result<(), SeccompError> {
    seccompiler::apply_filter_all_threads(&filter.0).map_err(|e| SeccompError::Install(io::Error::other(e)))
}

/// Installs the filter on the calling thread only (and those it makes later).
pub fn install_thread(filter: &Filter) -> Result<(), SeccompError> {
    seccompiler::apply_filter(&filter.0).map_err(|e| SeccompError::Install(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_redundant_rules() {
        let rules = vec![
            allow(libc::SYS_read, "a"),
            allow(libc::SYS_read, "b").eq(0, 3),
            allow(libc::SYS_write, "c").eq(0, 1),
            allow(libc::SYS_write, "d").eq(0, 2),
        ];
        assert_eq!(redundancies(&rules).len(), 1);
        assert!(compile(&rules, Violation::Kill).is_err());
        let merged = merge([vec![rules[1].clone()], rules]);
        assert_eq!(merged.len(), 3);
        assert!(compile(&merged, Violation::Kill).is_ok());
    }

    #[test]
    fn denies_on_this_thread() {
        std::thread::spawn(|| {
            let everything_but = [
                allow(libc::SYS_getppid, "test").eq(0, 77),
                allow(libc::SYS_exit, "thread end"),
                allow(libc::SYS_munmap, "thread end"),
                allow(libc::SYS_madvise, "thread end"),
                allow(libc::SYS_sigaltstack, "thread end"),
                allow(libc::SYS_rt_sigprocmask, "thread end"),
                allow(libc::SYS_futex, "join"),
                allow(libc::SYS_gettid, "test"),
                allow(libc::SYS_mmap, "allocator"),
                allow(libc::SYS_mprotect, "allocator"),
                allow(libc::SYS_brk, "allocator"),
            ];
            install_thread(&compile(&everything_but, Violation::Errno).unwrap()).unwrap();
            // SAFETY: calls without memory arguments.
            let (tid, ok, denied) = unsafe {
                (
                    libc::syscall(libc::SYS_gettid),
                    libc::syscall(libc::SYS_getppid, 77),
                    libc::syscall(libc::SYS_getppid, 78),
                )
            };
            assert!(tid > 0 && ok >= 0 && denied == -1);
        })
        .join()
        .unwrap();
    }
}
