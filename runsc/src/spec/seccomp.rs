//! `linux.seccomp`: typed for the sentry, which enforces it.

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{SeccompAction, SeccompArg, SeccompOp, SeccompRule, SeccompSpec};

/// EPERM, what SCMP_ACT_ERRNO and SCMP_ACT_TRACE give without an errnoRet.
const DEFAULT_ERRNO: u32 = 1;

pub fn seccomp(profile: &oci::LinuxSeccomp) -> Result<SeccompSpec> {
    if profile.listener_path().as_ref().is_some_and(|p| !p.as_os_str().is_empty()) {
        bail!("linux.seccomp.listenerPath: not supported");
    }
    let default_action =
        action(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.defaultAction")?;
    let mut rules = Vec::new();
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}]");
        let mut args = Vec::new();
        for (number, arg) in rule.args().iter().flatten().enumerate() {
            let index = u8::try_from(arg.index())
                .ok()
                .filter(|index| *index < 6)
                .with_context(|| format!("{field}.args[{number}].index: {} is above 5", arg.index()))?;
            args.push(SeccompArg {
                index,
                op: operator(arg.op()),
                value: arg.value(),
                value_two: arg.value_two().unwrap_or(0),
            });
        }
        if rule.names().is_empty() {
            bail!("{field}.names: must not be empty");
        }
        rules.push(SeccompRule {
            names: rule.names().clone(),
            action: action(rule.action(), rule.errno_ret(), &format!("{field}.action"))?,
            args,
        });
    }
    Ok(SeccompSpec {
        default_action,
        architectures: profile.architectures().iter().flatten().map(ToString::to_string).collect(),
        flags: profile.flags().iter().flatten().map(ToString::to_string).collect(),
        rules,
    })
}

fn action(action: oci::LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<SeccompAction> {
    use oci::LinuxSeccompAction as A;
    let errno = || {
        u16::try_from(errno.unwrap_or(DEFAULT_ERRNO))
            .with_context(|| format!("{field}: errnoRet is too large"))
    };
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => SeccompAction::KillThread,
        A::ScmpActKillProcess => SeccompAction::KillProcess,
        A::ScmpActTrap => SeccompAction::Trap,
        A::ScmpActErrno => SeccompAction::Errno(errno()?),
        A::ScmpActNotify => bail!("{field}: SCMP_ACT_NOTIFY is not supported"),
        A::ScmpActTrace => SeccompAction::Trace(errno()?),
        A::ScmpActLog => SeccompAction::Log,
        A::ScmpActAllow => SeccompAction::Allow,
    })
}

fn operator(op: oci::LinuxSeccompOperator) -> SeccompOp {
    use oci::LinuxSeccompOperator as O;
    match op {
        O::ScmpCmpNe => SeccompOp::NotEqual,
        O::ScmpCmpLt => SeccompOp::Less,
        O::ScmpCmpLe => SeccompOp::LessOrEqual,
        O::ScmpCmpEq => SeccompOp::Equal,
        O::ScmpCmpGe => SeccompOp::GreaterOrEqual,
        O::ScmpCmpGt => SeccompOp::Greater,
        O::ScmpCmpMaskedEq => SeccompOp::MaskedEqual,
    }
}
