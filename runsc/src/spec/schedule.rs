//! `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity`: what sched_setattr(2), ioprio_set(2) and
//! sched_setaffinity(2) would set, with their checks.

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use sentry::boot::spec::SchedulerSpec;

/// Bits of an I/O priority below its class (`IOPRIO_CLASS_SHIFT` of <linux/ioprio.h>).
const CLASS_SHIFT: i32 = 13;
/// Largest number of a CPU in a list.
const CPU_MAX: u32 = 1023;

/// `field` is the process object's name, for messages.
pub fn scheduler(wanted: &oci::Scheduler, field: &str) -> Result<SchedulerSpec> {
    use oci::LinuxSchedulerFlag as F;
    use oci::LinuxSchedulerPolicy as P;
    let field = format!("{field}.scheduler");
    let policy = match wanted.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
        P::SchedIso => bail!("{field}.policy: Linux has no SCHED_ISO"),
    };
    let mut reset_on_fork = false;
    for (index, flag) in wanted.flags().iter().flatten().enumerate() {
        match flag {
            F::SchedResetOnFork => reset_on_fork = true,
            other => bail!("{field}.flags[{index}]: {other} is not supported"),
        }
    }
    let (nice, priority) = (wanted.nice().unwrap_or(0), wanted.priority().unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        bail!("{field}.nice: {nice} is not between -20 and 19");
    }
    let real_time = matches!(policy, 1 | 2);
    let range = if real_time { 1..=99 } else { 0..=0 };
    if !range.contains(&priority) {
        bail!("{field}.priority: {priority} is not between {} and {}", range.start(), range.end());
    }
    let deadline = [wanted.runtime(), wanted.deadline(), wanted.period()].map(|n| n.unwrap_or(0));
    match (policy, deadline) {
        (6, [runtime, deadline, period]) => {
            // The order that the kernel wants, and its smallest runtime.
            let period_of = if period == 0 { deadline } else { period };
            if runtime < 1024 || deadline < runtime || period_of < deadline {
                bail!(
                    "{field}: runtime {runtime}, deadline {deadline} and period {period} do not fit together"
                );
            }
        }
        (_, [0, 0, 0]) => {}
        _ => bail!("{field}: runtime, deadline and period are for SCHED_DEADLINE only"),
    }
    Ok(SchedulerSpec { policy, reset_on_fork, nice, priority, deadline })
}

/// The number that ioprio_set(2) takes.
pub fn io_priority(wanted: &oci::LinuxIOPriority, field: &str) -> Result<i32> {
    use oci::IOPriorityClass as C;
    let class = match wanted.class() {
        C::IoprioClassRt => 1,
        C::IoprioClassBe => 2,
        C::IoprioClassIdle => 3,
    };
    let level = i32::try_from(wanted.priority()).ok().filter(|level| (0..8).contains(level));
    let level = level.with_context(|| {
        format!("{field}.ioPriority.priority: {} is not between 0 and 7", wanted.priority())
    })?;
    Ok(class << CLASS_SHIFT | level)
}

/// The CPUs that a process of `exec` is to run on. Where this command itself runs until then is nobody's
/// business in a sandbox: `initial` is checked and has no effect.
pub fn exec_cpus(wanted: &oci::ExecCPUAffinity, field: &str) -> Result<Option<Vec<u32>>> {
    let field = format!("{field}.execCPUAffinity");
    let list = |text: Option<&String>, name: &str| match text.map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => {
            cpus(text).with_context(|| format!("{field}.{name}: {text:?} is no list of CPUs")).map(Some)
        }
    };
    list(wanted.initial().as_ref(), "initial")?;
    list(wanted.cpu_affinity_final().as_ref(), "final")
}

/// `0-2,5` as numbers.
fn cpus(list: &str) -> Option<Vec<u32>> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= CPU_MAX);
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpus("0-2,5"), Some(vec![0, 1, 2, 5]));
        for bad in ["", "a", "2-1", "1,", "1024", "-1"] {
            assert_eq!(cpus(bad), None, "{bad:?}");
        }
    }
}
