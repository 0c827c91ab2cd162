//! Filters of system calls (seccomp(2)): classic BPF programs over `struct seccomp_data`. Who asks and what becomes of
//! the verdict is the task loop's.

use crate::bpf::{self, Program};
use abi::{Errno, Result};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AUDIT_ARCH_X86_64`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// The longest chain, in instructions (`MAX_INSNS_PER_PATH`).
const MAX_PATH: usize = 32768;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Data {
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// `SECCOMP_RET_*`.
pub mod ret {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    pub const ACTION_FULL: u32 = 0xffff_0000;
    pub const DATA: u32 = 0xffff;
}

impl bpf::Data for Data {
    fn load(&self, at: u32, _: u32) -> Option<u32> {
        let at = at as usize;
        let word = self.as_bytes().get(at..at + 4)?;
        word.try_into().ok().map(u32::from_ne_bytes)
    }
    fn length(&self) -> u32 {
        64
    }
}

/// All that is known of a call before it is made.
struct Number(u32);

impl bpf::Data for Number {
    fn load(&self, at: u32, _: u32) -> Option<u32> {
        match at {
            0 => Some(self.0),
            4 => Some(ARCH_X86_64),
            _ => None,
        }
    }
    fn length(&self) -> u32 {
        64
    }
}

/// Runs a program: `SECCOMP_RET_*` with its data.
fn ask(program: &Program, data: &Data) -> u32 {
    program.run(data).unwrap_or(ret::KILL_PROCESS)
}

/// Whether a program allows a call whatever its arguments are and wherever it is made.
fn always_allows(program: &Program, nr: u32) -> bool {
    program.run(&Number(nr)) == Some(ret::ALLOW)
}

/// Numbers of calls for which a chain remembers that it allows them.
const REMEMBERED: u32 = 512;

/// One installed filter.
#[derive(Debug)]
pub struct Filter {
    pub program: Program,
    /// `SECCOMP_FILTER_FLAG_LOG`
    pub log: bool,
}

/// The filters of a task, the oldest first; all are asked.
#[derive(Clone, Debug)]
pub struct Chain {
    filters: Vec<Arc<Filter>>,
    strict: bool,
    /// A bit for each call that all filters allow without a look at its arguments: no program runs for those.
    allowed: [u64; (REMEMBERED / 64) as usize],
}

impl Chain {
    /// A filter on top of others; ENOMEM when that is too long.
    pub fn push(previous: Option<&Chain>, program: Program, log: bool) -> Result<Arc<Chain>> {
        let mut filters = previous.map_or_else(Vec::new, |p| p.filters.clone());
        let mut allowed = previous.map_or([u64::MAX; (REMEMBERED / 64) as usize], |p| p.allowed);
        for nr in 0..REMEMBERED {
            if !always_allows(&program, nr) {
                allowed[(nr / 64) as usize] &= !(1 << (nr % 64));
            }
        }
        filters.push(Arc::new(Filter { program, log }));
        // Each program counts four more than its length, as in Linux.
        if filters.iter().map(|f| f.program.len() + 4).sum::<usize>() > MAX_PATH {
            return Err(Errno::ENOMEM);
        }
        Ok(Arc::new(Chain { filters, strict: false, allowed }))
    }

    /// Number of filters (`Seccomp_filters` of /proc/pid/status).
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The one filter that is strict mode.
    pub fn strict(program: Program) -> Arc<Chain> {
        Arc::new(Chain {
            filters: vec![Arc::new(Filter { program, log: false })],
            strict: true,
            allowed: [0; 8],
        })
    }

    /// Whether it is strict mode, as `PR_GET_SECCOMP` tells it.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Asks all filters: the verdict with the highest precedence, of equal ones that of the newest.
    pub fn run(&self, data: &Data) -> u32 {
        let nr = data.nr.cast_unsigned();
        if data.arch == ARCH_X86_64
            && self.allowed.get((nr / 64) as usize).is_some_and(|word| word & (1 << (nr % 64)) != 0)
        {
            return ret::ALLOW;
        }
        let mut verdict = ret::ALLOW;
        for f in self.filters.iter().rev() {
            let v = ask(&f.program, data);
            // As signed numbers KILL_PROCESS comes first.
            if (v & ret::ACTION_FULL).cast_signed() < (verdict & ret::ACTION_FULL).cast_signed() {
                verdict = v;
            }
        }
        verdict
    }

    /// How many filters.
    pub fn count(&self) -> usize {
        self.filters.len()
    }

    /// The filters, the oldest first.
    pub fn filters(&self) -> &[Arc<Filter>] {
        &self.filters
    }

    /// Whether `self` is `other` or on top of it (SECCOMP_FILTER_FLAG_TSYNC).
    pub fn descends_from(&self, other: Option<&Chain>) -> bool {
        let older = other.map_or(&[][..], |o| &o.filters);
        older.len() <= self.filters.len() && older.iter().zip(&self.filters).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::Insn;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    #[test]
    fn a_filter_that_refuses_one_call() {
        let p = Program::for_calls(vec![
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, 39),
            insn(0x06, 0, 0, ret::ERRNO | 13),
            insn(0x06, 0, 0, ret::ALLOW),
        ])
        .unwrap();
        let data = |nr| Data { nr, arch: ARCH_X86_64, ..Data::default() };
        assert_eq!(ask(&p, &data(39)), ret::ERRNO | 13);
        assert_eq!(ask(&p, &data(40)), ret::ALLOW);
        let kill = Program::for_calls(vec![insn(0x06, 0, 0, ret::KILL_PROCESS)]).unwrap();
        let chain = Chain::push(Some(&Chain::push(None, p, false).unwrap()), kill, false).unwrap();
        assert_eq!(chain.run(&data(40)), ret::KILL_PROCESS);
        assert_eq!(chain.count(), 2);
    }

    #[test]
    fn bad_programs_are_refused() {
        let bad = [
            vec![],
            vec![insn(0x20, 0, 0, 0)],
            vec![insn(0x15, 5, 0, 0), insn(0x06, 0, 0, 0)],
            vec![insn(0x20, 0, 0, 64), insn(0x06, 0, 0, 0)],
            vec![insn(0x20, 0, 0, 2), insn(0x06, 0, 0, 0)],
            vec![insn(0x34, 0, 0, 0), insn(0x06, 0, 0, 0)],
            vec![insn(0x60, 0, 0, 0), insn(0x06, 0, 0, 0)],
            vec![insn(0x28, 0, 0, 0), insn(0x06, 0, 0, 0)],
            vec![insn(0x05, 0, 0, 1), insn(0x06, 0, 0, 0)],
        ];
        for b in bad {
            assert_eq!(Program::for_calls(b.clone()), Err(Errno::EINVAL), "{b:?}");
        }
    }
}
