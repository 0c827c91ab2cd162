//! `linux.seccomp` of the OCI configuration as a filter program: the same instructions that seccomp(2) takes, so
//! that one machine carries out both. What libseccomp and runc make of a profile is the measure: unknown names are
//! other architectures' calls and are left out, rules with the default action say nothing new, several conditions on
//! one argument are alternatives, and calls newer than the profile knows fail with ENOSYS, so that programs fall
//! back to older ones.

use super::BootError;
use super::spec::{SeccompAction, SeccompArg, SeccompOp, SeccompRule, SeccompSpec};
use crate::control::protocol::ErrorKind;
use abi::Errno;
use kernel::bpf::{Insn, Program};
use kernel::seccomp::{ARCH_X86_64, Chain, ret};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bit of the numbers of x32 calls.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RETURN: u16 = 0x06;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

fn invalid(text: String) -> BootError {
    BootError::new(ErrorKind::Invalid, text)
}

fn verdict(action: SeccompAction) -> Result<u32, BootError> {
    Ok(match action {
        SeccompAction::Allow => ret::ALLOW,
        SeccompAction::Log => ret::LOG,
        SeccompAction::Errno(e) => ret::ERRNO | u32::from(e),
        SeccompAction::Trace(m) => ret::TRACE | u32::from(m),
        SeccompAction::Trap => ret::TRAP,
        SeccompAction::KillThread => ret::KILL_THREAD,
        SeccompAction::KillProcess => ret::KILL_PROCESS,
        SeccompAction::Notify => {
            return Err(BootError::new(
                ErrorKind::Unsupported,
                "linux.seccomp: SCMP_ACT_NOTIFY is not supported",
            ));
        }
    })
}

/// Where a comparison goes on.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    /// The condition holds.
    Holds,
    /// It does not.
    Fails,
}

/// The instructions of one condition, with the jumps still open.
fn condition(arg: &SeccompArg) -> Vec<(u16, To, To, u32)> {
    let at = ARGS + 8 * u32::from(arg.index);
    let halves = |v: u64| {
        let low = u32::try_from(v & 0xffff_ffff).unwrap_or(0);
        (u32::try_from(v >> 32).unwrap_or(0), low)
    };
    let (high, low) = halves(arg.value);
    let load = |offset: u32| (LOAD, To::Next, To::Next, offset);
    let upper = load(at + 4);
    let lower = load(at);
    use To::{Fails, Holds, Next};
    match arg.op {
        SeccompOp::Equal => vec![upper, (JEQ, Next, Fails, high), lower, (JEQ, Holds, Fails, low)],
        SeccompOp::NotEqual => vec![upper, (JEQ, Next, Holds, high), lower, (JEQ, Fails, Holds, low)],
        SeccompOp::Greater => {
            vec![upper, (JGT, Holds, Next, high), (JEQ, Next, Fails, high), lower, (JGT, Holds, Fails, low)]
        }
        SeccompOp::GreaterOrEqual => {
            vec![upper, (JGT, Holds, Next, high), (JEQ, Next, Fails, high), lower, (JGE, Holds, Fails, low)]
        }
        SeccompOp::Less => {
            vec![upper, (JGT, Fails, Next, high), (JEQ, Next, Holds, high), lower, (JGE, Fails, Holds, low)]
        }
        SeccompOp::LessOrEqual => {
            vec![upper, (JGT, Fails, Next, high), (JEQ, Next, Holds, high), lower, (JGT, Fails, Holds, low)]
        }
        SeccompOp::MaskedEqual => {
            let (want_high, want_low) = halves(arg.value_two);
            vec![
                upper,
                (AND, Next, Next, high),
                (JEQ, Next, Fails, want_high),
                lower,
                (AND, Next, Next, low),
                (JEQ, Holds, Fails, want_low),
            ]
        }
    }
}

/// All conditions, then the verdict; falls through to what follows if one does not hold.
fn rule(args: &[SeccompArg], verdict: u32) -> Vec<Insn> {
    let conditions: Vec<_> = args.iter().map(condition).collect();
    let length: usize = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    let mut out = Vec::with_capacity(length);
    for c in &conditions {
        let end = out.len() + c.len();
        for (code, yes, no, k) in c {
            let here = out.len() + 1;
            // Six arguments have 36 instructions at most: every distance fits.
            let distance = |to: To| match to {
                To::Next => 0,
                To::Holds => u8::try_from(end - here).unwrap_or(u8::MAX),
                To::Fails => u8::try_from(length - here).unwrap_or(u8::MAX),
            };
            out.push(insn(*code, distance(*yes), distance(*no), *k));
        }
    }
    out.push(insn(RETURN, 0, 0, verdict));
    out
}

/// The conditions of a rule; as in runc, two on one argument make each one a rule of its own.
fn alternatives(rule: &SeccompRule) -> Vec<Vec<SeccompArg>> {
    let twice = rule.args.iter().enumerate().any(|(i, a)| rule.args[..i].iter().any(|b| a.index == b.index));
    if twice { rule.args.iter().map(|a| vec![*a]).collect() } else { vec![rule.args.clone()] }
}

/// The program of a profile.
fn program(spec: &SeccompSpec) -> Result<Program, BootError> {
    const NATIVE: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_NATIVE", "SCMP_ARCH_X32"];
    if !spec.architectures.is_empty() && !spec.architectures.iter().any(|a| NATIVE.contains(&a.as_str())) {
        return Err(invalid("linux.seccomp.architectures: SCMP_ARCH_X86_64 is not among them".to_owned()));
    }
    let default = verdict(spec.default_action)?;
    let mut calls: BTreeMap<u32, Vec<Insn>> = BTreeMap::new();
    let mut decided: BTreeMap<u32, u32> = BTreeMap::new();
    let mut newest = None;
    for r in &spec.rules {
        let value = verdict(r.action)?;
        for nr in r.names.iter().filter_map(|name| abi::nr::number(name)) {
            let nr = u32::try_from(nr).unwrap_or(0);
            newest = newest.max(Some(nr));
            if value == default {
                continue;
            }
            if r.args.is_empty() {
                decided.entry(nr).or_insert(value);
            } else {
                let code = calls.entry(nr).or_default();
                alternatives(r).iter().for_each(|args| code.extend(rule(args, value)));
            }
        }
    }
    // A rule without conditions holds whatever others on that call say.
    for (nr, value) in decided {
        calls.insert(nr, vec![insn(RETURN, 0, 0, value)]);
    }
    let mut out = vec![
        insn(LOAD, 0, 0, ARCH),
        insn(JEQ, 1, 0, ARCH_X86_64),
        insn(RETURN, 0, 0, ret::KILL_THREAD),
        insn(LOAD, 0, 0, NR),
    ];
    // Numbers of x32, which nobody answers: as on a host without that interface, but only where it was allowed.
    let x32 = if spec.architectures.iter().any(|a| a == "SCMP_ARCH_X32") {
        ret::ERRNO | u32::from(Errno::ENOSYS.raw())
    } else {
        ret::KILL_THREAD
    };
    out.extend([insn(JGE, 0, 1, X32), insn(RETURN, 0, 0, x32)]);
    let refuses = !matches!(default & ret::ACTION_FULL, ret::ALLOW | ret::LOG | ret::TRACE);
    if refuses && let Some(newest) = newest {
        let nosys = ret::ERRNO | u32::from(Errno::ENOSYS.raw());
        out.extend([insn(JGT, 0, 1, newest), insn(RETURN, 0, 0, nosys)]);
    }
    for (nr, mut code) in calls {
        if !matches!(code.last(), Some(i) if code.len() == 1 && i.code == RETURN) {
            code.push(insn(RETURN, 0, 0, default));
        }
        match u8::try_from(code.len()) {
            Ok(length) => out.push(insn(JEQ, 0, length, nr)),
            Err(_) => {
                out.push(insn(JEQ, 1, 0, nr));
                out.push(insn(JUMP, 0, 0, u32::try_from(code.len()).unwrap_or(u32::MAX)));
            }
        }
        out.extend(code);
    }
    out.push(insn(RETURN, 0, 0, default));
    Program::for_calls(out)
        .map_err(|_| invalid("linux.seccomp: the profile is too long for a filter".to_owned()))
}

/// The filter that every process of the container starts with.
pub fn compile(spec: &SeccompSpec) -> Result<Arc<Chain>, BootError> {
    const KNOWN: [&str; 4] = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    if let Some(flag) = spec.flags.iter().find(|f| !KNOWN.contains(&f.as_str())) {
        return Err(invalid(format!("linux.seccomp.flags: unknown flag {flag:?}")));
    }
    let log = spec.flags.iter().any(|f| f == "SECCOMP_FILTER_FLAG_LOG");
    Chain::push(None, program(spec)?, log)
        .map_err(|_| invalid("linux.seccomp: the profile is too long for a filter".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::seccomp::Data;

    fn spec(default_action: SeccompAction, rules: Vec<SeccompRule>) -> SeccompSpec {
        SeccompSpec { default_action, architectures: vec!["SCMP_ARCH_X86_64".into()], flags: vec![], rules }
    }

    fn of(names: &[&str], action: SeccompAction, args: Vec<SeccompArg>) -> SeccompRule {
        SeccompRule { names: names.iter().map(|n| (*n).to_owned()).collect(), action, args }
    }

    fn ask(chain: &Chain, name: &str, first: u64) -> u32 {
        let nr = i32::try_from(abi::nr::number(name).unwrap()).unwrap();
        chain.run(&Data { nr, arch: ARCH_X86_64, instruction_pointer: 0, args: [first, 0, 0, 0, 0, 0] })
    }

    #[test]
    fn an_allow_list() {
        let allow = SeccompAction::Allow;
        let chain = compile(&spec(
            SeccompAction::Errno(1),
            vec![
                of(&["read", "exit_group", "socketcall", "no_such_call"], allow, vec![]),
                of(&["mkdir"], SeccompAction::KillProcess, vec![]),
                of(&["openat2"], SeccompAction::Errno(38), vec![]),
            ],
        ))
        .unwrap();
        assert_eq!(ask(&chain, "read", 0), ret::ALLOW);
        assert_eq!(ask(&chain, "write", 0), ret::ERRNO | 1);
        assert_eq!(ask(&chain, "mkdir", 0), ret::KILL_PROCESS);
        assert_eq!(ask(&chain, "openat2", 0), ret::ERRNO | 38);
        // Newer than anything in the profile.
        assert_eq!(ask(&chain, "mseal", 0), ret::ERRNO | 38);
        let foreign = Data { nr: 0, arch: 3, ..Data::default() };
        assert_eq!(chain.run(&foreign), ret::KILL_THREAD);
        let x32 = Data { nr: 0x4000_0000, arch: ARCH_X86_64, ..Data::default() };
        assert_eq!(chain.run(&x32), ret::KILL_THREAD);
    }

    #[test]
    fn conditions() {
        use SeccompOp as O;
        const BIG: u64 = 0x1_0000_0005;
        let cases = [
            (O::Equal, BIG, 0, vec![(BIG, true), (5, false), (0x2_0000_0005, false), (BIG + 1, false)]),
            (O::NotEqual, BIG, 0, vec![(BIG, false), (5, true), (0x2_0000_0005, true)]),
            (
                O::Less,
                BIG,
                0,
                vec![(BIG - 1, true), (BIG, false), (0xffff_ffff, true), (0x2_0000_0000, false)],
            ),
            (O::LessOrEqual, BIG, 0, vec![(BIG, true), (BIG + 1, false), (7, true), (u64::MAX, false)]),
            (
                O::Greater,
                BIG,
                0,
                vec![(BIG, false), (BIG + 1, true), (0xffff_ffff, false), (0x2_0000_0000, true)],
            ),
            (O::GreaterOrEqual, BIG, 0, vec![(BIG, true), (BIG - 1, false), (u64::MAX, true), (6, false)]),
            (O::MaskedEqual, 0x7e02_0000, 0, vec![(0x11, true), (0x1000_0000, false), (1 << 40, true)]),
            (O::MaskedEqual, 0xf0_0000_00f0, 0x10_0000_0010, vec![(0x10_0000_0010, true), (0x10, false)]),
        ];
        for (op, value, value_two, values) in cases {
            let arg = SeccompArg { index: 0, op, value, value_two };
            let rule = of(&["clone"], SeccompAction::Allow, vec![arg]);
            let chain = compile(&spec(SeccompAction::Errno(1), vec![rule])).unwrap();
            for (given, holds) in values {
                let want = if holds { ret::ALLOW } else { ret::ERRNO | 1 };
                assert_eq!(ask(&chain, "clone", given), want, "{op:?} {value:#x} of {given:#x}");
            }
        }
    }

    #[test]
    fn several_conditions() {
        let equal = |index, value| SeccompArg { index, op: SeccompOp::Equal, value, value_two: 0 };
        let rules = vec![
            // Alternatives.
            of(&["personality"], SeccompAction::Allow, vec![equal(0, 0), equal(0, 8)]),
            // Both must hold; then another rule on the same call.
            of(&["socket"], SeccompAction::Errno(22), vec![equal(0, 16), equal(1, 0)]),
            of(&["socket"], SeccompAction::Allow, vec![equal(0, 1)]),
        ];
        let chain = compile(&spec(SeccompAction::Errno(1), rules)).unwrap();
        for (value, want) in [(0, ret::ALLOW), (8, ret::ALLOW), (1, ret::ERRNO | 1)] {
            assert_eq!(ask(&chain, "personality", value), want);
        }
        for (value, want) in [(16, ret::ERRNO | 22), (1, ret::ALLOW), (2, ret::ERRNO | 1)] {
            assert_eq!(ask(&chain, "socket", value), want);
        }
        let notify = spec(SeccompAction::Allow, vec![of(&["mount"], SeccompAction::Notify, vec![])]);
        assert!(compile(&notify).unwrap_err().message.contains("SCMP_ACT_NOTIFY"));
    }
}
