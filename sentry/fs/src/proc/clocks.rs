//! timens_offsets: by how much the clocks of the time namespace for a process's children differ (time_namespaces(7)).

use super::process::Of;
use abi::{Errno, Result};
use kernel::Task;
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;
/// Seconds that fit into the kernel's nanoseconds (`KTIME_SEC_MAX`).
const SECONDS_MAX: i64 = i64::MAX / SECOND;

pub(super) fn timens_offsets(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let ns = Arc::clone(&task.namespaces().time_for_children);
    let line = |name: &str, offset: i64| {
        format!("{name:<10} {:10} {:9}\n", offset.div_euclid(SECOND), offset.rem_euclid(SECOND))
    };
    Ok([line("monotonic", ns.monotonic()), line("boottime", ns.boottime())].concat().into_bytes())
}

/// Lines of a clock, seconds and nanoseconds.
pub(super) fn set_timens_offsets(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let (mut monotonic, mut boottime) = (None, None);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [clock, seconds, nanos] = words[..] else { return Err(Errno::EINVAL) };
        let seconds: i64 = seconds.parse().map_err(|_| Errno::EINVAL)?;
        let nanos: i64 = nanos.parse().map_err(|_| Errno::EINVAL)?;
        if !(0..SECOND).contains(&nanos) {
            return Err(Errno::EINVAL);
        }
        let slot = match clock {
            "monotonic" | "1" => &mut monotonic,
            "boottime" | "7" => &mut boottime,
            _ => return Err(Errno::EINVAL),
        };
        *slot = Some((seconds, nanos));
    }
    let ns = Arc::clone(&task.namespaces().time_for_children);
    if !cx.creds.has_cap_in(&ns.user_ns, CapSet::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    let now = task.kernel().clocks.monotonic();
    let whole = |offset: Option<(i64, i64)>| -> Result<Option<i64>> {
        let Some((seconds, nanos)) = offset else { return Ok(None) };
        if !(-SECONDS_MAX..=SECONDS_MAX).contains(&seconds) {
            return Err(Errno::ERANGE);
        }
        // The clock may neither be negative nor near its end.
        let there = now.div_euclid(SECOND) + seconds;
        if !(0..=SECONDS_MAX / 2).contains(&there) {
            return Err(Errno::ERANGE);
        }
        Ok(Some(seconds * SECOND + nanos))
    };
    ns.set(whole(monotonic)?, whole(boottime)?)
}
