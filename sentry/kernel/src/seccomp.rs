//! Filters of system calls (seccomp(2)): the validator and the interpreter of classic BPF programs over
//! `struct seccomp_data`. Who asks and what becomes of the verdict is the task loop's.

use abi::{Errno, Result};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AUDIT_ARCH_X86_64`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// The longest program (`BPF_MAXINSNS`).
pub const MAX_INSNS: usize = 4096;
/// The longest chain, in instructions (`MAX_INSNS_PER_PATH`).
const MAX_PATH: usize = 32768;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

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

/// A program that has passed the validator: every jump goes forward and stays inside, every load is
/// in bounds, and it ends in a return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Insn>);

const MEMWORDS: u32 = 16;

/// Opcodes that a seccomp program may have (kernel/seccomp.c, `seccomp_check_filter`).
mod op {
    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_W_LEN: u16 = 0x80;
    pub const LDX_W_LEN: u16 = 0x81;
    pub const LD_IMM: u16 = 0x00;
    pub const LDX_IMM: u16 = 0x01;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const NEG: u16 = 0x84;
    pub const JA: u16 = 0x05;
}

impl Program {
    /// Checks a program; EINVAL.
    pub fn new(insns: Vec<Insn>) -> Result<Program> {
        let len = insns.len();
        if len == 0 || len > MAX_INSNS {
            return Err(Errno::EINVAL);
        }
        for (i, insn) in insns.iter().enumerate() {
            let forward = |o: u32| (o as usize) < len - i - 1;
            let ok = match insn.code {
                op::LD_W_ABS => insn.k % 4 == 0 && insn.k <= 60,
                op::LD_W_LEN | op::LDX_W_LEN | op::LD_IMM | op::LDX_IMM => true,
                op::LD_MEM | op::LDX_MEM | op::ST | op::STX => insn.k < MEMWORDS,
                op::RET_K | op::RET_A | op::TAX | op::TXA | op::NEG => true,
                op::JA => forward(insn.k),
                // ALU with K or X: add sub mul div or and lsh rsh xor.
                0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c | 0x7c
                | 0xa4 | 0xac => true,
                0x34 => insn.k != 0,
                0x64 | 0x74 => insn.k < 32,
                // JEQ JGT JGE JSET with K or X.
                0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                    forward(u32::from(insn.jt)) && forward(u32::from(insn.jf))
                }
                _ => false,
            };
            if !ok {
                return Err(Errno::EINVAL);
            }
        }
        if !matches!(insns[len - 1].code, op::RET_K | op::RET_A) {
            return Err(Errno::EINVAL);
        }
        let p = Program(insns);
        p.check_memory()?;
        Ok(p)
    }

    /// No scratch word may be read before it was written on every way there (`check_load_and_stores`).
    fn check_memory(&self) -> Result<()> {
        let mut valid = vec![u16::MAX; self.0.len()];
        let mut mem: u16 = 0;
        for (i, insn) in self.0.iter().enumerate() {
            mem &= valid[i];
            let mut jump = |o: usize, m: u16| {
                if let Some(v) = valid.get_mut(i + 1 + o) {
                    *v &= m;
                }
            };
            match insn.code {
                op::ST | op::STX => mem |= 1 << insn.k,
                op::LD_MEM | op::LDX_MEM if mem & (1 << insn.k) == 0 => return Err(Errno::EINVAL),
                op::JA => {
                    jump(insn.k as usize, mem);
                    mem = u16::MAX;
                }
                c if c & 7 == 5 => {
                    jump(usize::from(insn.jt), mem);
                    jump(usize::from(insn.jf), mem);
                    mem = u16::MAX;
                }
                op::RET_K | op::RET_A => mem = u16::MAX,
                _ => {}
            }
        }
        Ok(())
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Never.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The instructions (PTRACE_SECCOMP_GET_FILTER).
    pub fn insns(&self) -> &[Insn] {
        &self.0
    }

    /// Runs the program: `SECCOMP_RET_*` with its data.
    pub fn run(&self, data: &Data) -> u32 {
        let bytes = data.as_bytes();
        let load = |at: u32| {
            let at = at as usize;
            Some(bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])))
        };
        self.run_on(load).unwrap_or(ret::KILL_PROCESS)
    }

    /// Whether it allows a call whatever its arguments are and wherever it is made.
    fn always_allows(&self, nr: u32) -> bool {
        let verdict = self.run_on(|at| match at {
            0 => Some(nr),
            4 => Some(ARCH_X86_64),
            _ => None,
        });
        verdict == Some(ret::ALLOW)
    }

    /// Runs the program on what `load` knows; `None` when it asks for something else.
    fn run_on(&self, load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut mem = [0u32; MEMWORDS as usize];
        let mut pc = 0usize;
        while let Some(i) = self.0.get(pc) {
            pc += 1;
            let operand = if i.code & 8 != 0 { x } else { i.k };
            match i.code {
                op::LD_W_ABS => a = load(i.k)?,
                op::LD_W_LEN => a = 64,
                op::LDX_W_LEN => x = 64,
                op::LD_IMM => a = i.k,
                op::LDX_IMM => x = i.k,
                op::LD_MEM => a = mem[(i.k % MEMWORDS) as usize],
                op::LDX_MEM => x = mem[(i.k % MEMWORDS) as usize],
                op::ST => mem[(i.k % MEMWORDS) as usize] = a,
                op::STX => mem[(i.k % MEMWORDS) as usize] = x,
                op::RET_K => return Some(i.k),
                op::RET_A => return Some(a),
                op::TAX => x = a,
                op::TXA => a = x,
                op::NEG => a = a.wrapping_neg(),
                op::JA => pc += i.k as usize,
                c => match c & 0xf7 {
                    0x04 => a = a.wrapping_add(operand),
                    0x14 => a = a.wrapping_sub(operand),
                    0x24 => a = a.wrapping_mul(operand),
                    0x34 => match a.checked_div(operand) {
                        Some(q) => a = q,
                        // Division by zero ends the program with 0.
                        None => return Some(0),
                    },
                    0x44 => a |= operand,
                    0x54 => a &= operand,
                    0x64 => a = a.wrapping_shl(operand),
                    0x74 => a = a.wrapping_shr(operand),
                    0xa4 => a ^= operand,
                    jump => {
                        let yes = match jump {
                            0x15 => a == operand,
                            0x25 => a > operand,
                            0x35 => a >= operand,
                            _ => a & operand != 0,
                        };
                        pc += usize::from(if yes { i.jt } else { i.jf });
                    }
                },
            }
        }
        Some(ret::KILL_PROCESS)
    }
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
            if !program.always_allows(nr) {
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
            let v = f.program.run(data);
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

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    #[test]
    fn a_filter_that_refuses_one_call() {
        let p = Program::new(vec![
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, 39),
            insn(0x06, 0, 0, ret::ERRNO | 13),
            insn(0x06, 0, 0, ret::ALLOW),
        ])
        .unwrap();
        let data = |nr| Data { nr, arch: ARCH_X86_64, ..Data::default() };
        assert_eq!(p.run(&data(39)), ret::ERRNO | 13);
        assert_eq!(p.run(&data(40)), ret::ALLOW);
        let kill = Program::new(vec![insn(0x06, 0, 0, ret::KILL_PROCESS)]).unwrap();
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
            assert_eq!(Program::new(b.clone()), Err(Errno::EINVAL), "{b:?}");
        }
    }
}
