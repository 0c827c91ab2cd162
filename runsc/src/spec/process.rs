//! `process` of config.json, and the same object in the file that `exec --process` reads.

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::{ByteString, CapabilitySets, ProcessSpec, RlimitSpec, UserSpec, WindowSize};

use super::{capabilities, schedule};

/// `field` is the object's own name, for messages.
pub fn process_spec(process: &oci::Process, field: &str) -> Result<ProcessSpec> {
    // What would change the process's confinement and is not there must not be passed over.
    let refused = [
        ("apparmorProfile", process.apparmor_profile().as_deref().is_some_and(|p| !p.is_empty())),
        ("selinuxLabel", process.selinux_label().as_deref().is_some_and(|l| !l.is_empty())),
    ];
    for (name, present) in refused {
        if present {
            bail!("{field}.{name}: not supported");
        }
    }
    let args: Vec<ByteString> =
        process.args().iter().flatten().map(|a| ByteString::from(a.as_str())).collect();
    if args.is_empty() {
        bail!("{field}.args: must not be empty");
    }
    if args[0].as_bytes().is_empty() {
        bail!("{field}.args[0]: must not be empty: no such file or directory");
    }
    let cwd = process.cwd().to_str().context(format!("{field}.cwd: not UTF-8"))?;
    if !cwd.starts_with('/') {
        bail!("{field}.cwd: {cwd:?} is not an absolute path");
    }
    for (index, variable) in process.env().iter().flatten().enumerate() {
        if !variable.contains('=') || variable.starts_with('=') {
            bail!("{field}.env[{index}]: {variable:?} is not NAME=value");
        }
    }
    for (name, strings) in [("args", process.args()), ("env", process.env())] {
        if let Some(index) = strings.iter().flatten().position(|s| s.contains('\0')) {
            bail!("{field}.{name}[{index}]: contains a NUL");
        }
    }
    let user = process.user();
    if let Some(umask) = user.umask().filter(|&umask| umask > 0o777) {
        bail!("{field}.user.umask: {umask:o} is no umask");
    }
    let console_size = match process.console_size() {
        Some(size) => {
            let number = |value: u64, name: &str| {
                u16::try_from(value)
                    .with_context(|| format!("{field}.consoleSize.{name}: {value} is too large"))
            };
            Some(WindowSize {
                rows: number(size.height(), "height")?,
                columns: number(size.width(), "width")?,
            })
        }
        None => None,
    };
    if let Some(score) = process.oom_score_adj().filter(|s| !(-1000..=1000).contains(s)) {
        bail!("{field}.oomScoreAdj: {score} is not between -1000 and 1000");
    }
    Ok(ProcessSpec {
        args,
        env: process.env().iter().flatten().map(|v| ByteString::from(v.as_str())).collect(),
        cwd: cwd.into(),
        user: UserSpec {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        capabilities: process
            .capabilities()
            .as_ref()
            .map(|c| capability_sets(c, field))
            .transpose()?
            .unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process, field)?,
        terminal: process.terminal().unwrap_or(false),
        console_size,
        oom_score_adj: process.oom_score_adj(),
        scheduler: process.scheduler().as_ref().map(|s| schedule::scheduler(s, field)).transpose()?,
        io_priority: process.io_priority().as_ref().map(|p| schedule::io_priority(p, field)).transpose()?,
        // A container's first process has no use for it; the file is read for exec's too.
        cpus: process
            .exec_cpu_affinity()
            .as_ref()
            .map(|a| schedule::exec_cpus(a, field))
            .transpose()?
            .flatten(),
        mortal: false,
    })
}

/// The bit of a capability's name.
pub fn capability_bit(name: &str, field: &str) -> Result<u64> {
    capabilities::bit(name).with_context(|| format!("{field}: unknown capability {name:?}"))
}

fn capability_sets(sets: &oci::LinuxCapabilities, field: &str) -> Result<CapabilitySets> {
    let mask = |names: &Option<oci::Capabilities>, name: &str| {
        let field = format!("{field}.capabilities.{name}");
        names.iter().flatten().try_fold(0, |mask, capability| {
            Ok::<u64, anyhow::Error>(mask | capability_bit(&capability.to_string(), &field)?)
        })
    };
    Ok(CapabilitySets {
        bounding: mask(sets.bounding(), "bounding")?,
        effective: mask(sets.effective(), "effective")?,
        permitted: mask(sets.permitted(), "permitted")?,
        inheritable: mask(sets.inheritable(), "inheritable")?,
        ambient: mask(sets.ambient(), "ambient")?,
    })
}

fn rlimits(process: &oci::Process, field: &str) -> Result<Vec<RlimitSpec>> {
    let mut limits: Vec<RlimitSpec> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("{field}.rlimits[{index}]");
        let resource = rlimit_number(limit.typ());
        if limits.iter().any(|l| l.resource == resource) {
            bail!("{field}.type: {} is there twice", limit.typ());
        }
        if limit.soft() > limit.hard() {
            bail!("{field}: the soft limit {} is above the hard one {}", limit.soft(), limit.hard());
        }
        limits.push(RlimitSpec { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

/// `RLIMIT_*` of <asm-generic/resource.h>.
fn rlimit_number(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}
