//! Classic BPF: the validator and the interpreter, for filters of system calls (`seccomp`) and of packets (socket(7)).

use abi::{Errno, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest program (`BPF_MAXINSNS`).
pub const MAX_INSNS: usize = 4096;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `struct sock_fprog`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fprog {
    pub len: u16,
    pad: [u16; 3],
    /// Where the instructions are in the guest's memory.
    pub filter: u64,
}

/// What a program looks at.
pub trait Data {
    /// The number of `size` bytes (1, 2 or 4) at a place; `None` ends the program.
    fn load(&self, at: u32, size: u32) -> Option<u32>;
    /// What `BPF_LEN` gives.
    fn length(&self) -> u32;
    /// The place that `BPF_ANC_ALU_XOR_X` stands for, which needs no data.
    const XOR_X: Option<u32> = None;
}

/// A program that has passed the validator: every jump goes forward and stays inside, and it ends in a return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Insn>);

const MEMWORDS: u32 = 16;

mod op {
    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_H_ABS: u16 = 0x28;
    pub const LD_B_ABS: u16 = 0x30;
    pub const LD_W_IND: u16 = 0x40;
    pub const LD_H_IND: u16 = 0x48;
    pub const LD_B_IND: u16 = 0x50;
    pub const LDX_B_MSH: u16 = 0xb1;
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
    pub const DIV_K: u16 = 0x34;
    pub const MOD_K: u16 = 0x94;
    pub const MOD_X: u16 = 0x9c;
}

/// Bytes that a load of this code takes.
fn size_of_load(code: u16) -> u32 {
    match code & 0x18 {
        0x08 => 2,
        0x10 => 1,
        _ => 4,
    }
}

impl Program {
    /// Checks a program that looks at system calls (kernel/seccomp.c, `seccomp_check_filter`): whole words of `struct
    /// seccomp_data` only; EINVAL.
    pub fn for_calls(insns: Vec<Insn>) -> Result<Program> {
        Self::checked(insns, |insn| match insn.code {
            op::LD_W_ABS => insn.k % 4 == 0 && insn.k <= 60,
            _ => false,
        })
    }

    /// Checks a program that looks at packets (net/core/filter.c, `bpf_check_classic`): EINVAL. `special` says which places
    /// below zero there are.
    pub fn for_packets(insns: Vec<Insn>, special: impl Fn(u32) -> bool) -> Result<Program> {
        Self::checked(insns, |insn| match insn.code {
            op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS => insn.k.cast_signed() >= 0 || special(insn.k),
            op::LD_W_IND | op::LD_H_IND | op::LD_B_IND | op::LDX_B_MSH | op::MOD_X => true,
            op::MOD_K => insn.k != 0,
            _ => false,
        })
    }

    /// `own` are the instructions that not all kinds of programs have.
    fn checked(insns: Vec<Insn>, own: impl Fn(&Insn) -> bool) -> Result<Program> {
        let len = insns.len();
        if len == 0 || len > MAX_INSNS {
            return Err(Errno::EINVAL);
        }
        for (i, insn) in insns.iter().enumerate() {
            let forward = |o: u32| (o as usize) < len - i - 1;
            let ok = match insn.code {
                op::LD_W_LEN | op::LDX_W_LEN | op::LD_IMM | op::LDX_IMM => true,
                op::LD_MEM | op::LDX_MEM | op::ST | op::STX => insn.k < MEMWORDS,
                op::RET_K | op::RET_A | op::TAX | op::TXA | op::NEG => true,
                op::JA => forward(insn.k),
                // ALU with K or X: add sub mul div or and lsh rsh xor.
                0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c | 0x7c
                | 0xa4 | 0xac => true,
                op::DIV_K => insn.k != 0,
                0x64 | 0x74 => insn.k < 32,
                // JEQ JGT JGE JSET with K or X.
                0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                    forward(u32::from(insn.jt)) && forward(u32::from(insn.jf))
                }
                _ => own(insn),
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
    /// The instructions (PTRACE_SECCOMP_GET_FILTER, SO_GET_FILTER).
    pub fn insns(&self) -> &[Insn] {
        &self.0
    }

    /// Runs the program; `None` when it asks for something that is not there.
    pub fn run<D: Data>(&self, data: &D) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut mem = [0u32; MEMWORDS as usize];
        let mut pc = 0usize;
        while let Some(i) = self.0.get(pc) {
            pc += 1;
            let operand = if i.code & 8 != 0 { x } else { i.k };
            match i.code {
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS if Some(i.k) == D::XOR_X => a ^= x,
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS => a = data.load(i.k, size_of_load(i.code))?,
                op::LD_W_IND | op::LD_H_IND | op::LD_B_IND => {
                    a = data.load(x.wrapping_add(i.k), size_of_load(i.code))?;
                }
                op::LDX_B_MSH => x = (data.load(i.k, 1)? & 15) << 2,
                op::LD_W_LEN => a = data.length(),
                op::LDX_W_LEN => x = data.length(),
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
                    // Division by zero ends the program with 0.
                    0x34 => match a.checked_div(operand) {
                        Some(q) => a = q,
                        None => return Some(0),
                    },
                    0x94 => match a.checked_rem(operand) {
                        Some(r) => a = r,
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
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    struct Bytes(&'static [u8]);
    impl Data for Bytes {
        fn load(&self, at: u32, size: u32) -> Option<u32> {
            let bytes = self.0.get(at as usize..at as usize + size as usize)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
        }
        fn length(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }
        const XOR_X: Option<u32> = Some(7);
    }

    fn result(insns: &[Insn]) -> Option<u32> {
        let p = Program::for_packets(insns.to_vec(), |_| false).unwrap();
        p.run(&Bytes(&[0x45, 1, 2, 3, 9]))
    }

    #[test]
    fn loads_of_packets() {
        let ret = insn(0x16, 0, 0, 0);
        assert_eq!(result(&[insn(0x28, 0, 0, 1), ret]), Some(0x102));
        assert_eq!(result(&[insn(0x30, 0, 0, 4), ret]), Some(9));
        assert_eq!(result(&[insn(0x20, 0, 0, 2), ret]), None);
        assert_eq!(result(&[insn(0xb1, 0, 0, 0), insn(0x87, 0, 0, 0), ret]), Some(20));
        assert_eq!(result(&[insn(0x01, 0, 0, 2), insn(0x50, 0, 0, 1), ret]), Some(3));
        assert_eq!(result(&[insn(0x80, 0, 0, 0), insn(0x94, 0, 0, 3), ret]), Some(2));
        let xor = [insn(0x00, 0, 0, 6), insn(0x01, 0, 0, 5), insn(0x20, 0, 0, 7), ret];
        assert_eq!(result(&xor), Some(3));
    }

    #[test]
    fn what_only_one_kind_of_program_may_have() {
        let ret = insn(0x06, 0, 0, 1);
        for code in [0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x94, 0x9c] {
            let program = vec![insn(code, 0, 0, 4), ret];
            assert!(Program::for_packets(program.clone(), |_| false).is_ok(), "{code:#x}");
            assert!(Program::for_calls(program).is_err(), "{code:#x}");
        }
        let bad =
            [insn(0x94, 0, 0, 0), insn(0x34, 0, 0, 0), insn(0x20, 0, 0, 0xffff_f000), insn(0x18, 0, 0, 0)];
        for one in bad {
            assert!(Program::for_packets(vec![one, ret], |_| false).is_err(), "{one:?}");
        }
        assert!(Program::for_packets(vec![bad[2], ret], |k| k == 0xffff_f000).is_ok());
    }
}
