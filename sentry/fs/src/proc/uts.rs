//! What comes from the caller's UTS namespace: /proc/version and the names below /proc/sys/kernel.

use crate::pseudo::{Node, text, writable};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::task::{Task, uts};
use kernel::vfs::Caller;

fn task<'a>(cx: &Caller<'a>) -> Result<&'a Task> {
    cx.task.ok_or(Errno::ESRCH)
}

/// /proc/version
pub(super) fn version(_cx: &Caller<'_>) -> Result<Vec<u8>> {
    Ok(format!("Linux version {} (runsc@sandbox) {}\n", uts::RELEASE, uts::VERSION).into_bytes())
}

fn line(mut name: Vec<u8>) -> Vec<u8> {
    name.push(b'\n');
    name
}

/// The name that was written: up to the newline, at most 64 bytes.
fn written(data: &[u8]) -> Vec<u8> {
    let end = data.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(data.len()).min(64);
    data[..end].to_vec()
}

fn may_set(cx: &Caller<'_>) -> Result<()> {
    let ns = task(cx)?.namespaces();
    if cx.creds.has_cap_in(&ns.uts.user_ns, CapSet::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Adds the files below /proc/sys.
pub(super) fn add(put: &mut dyn FnMut(&str, u32, Node)) {
    put(
        "kernel/hostname",
        0o644,
        writable(
            |cx| Ok(line(task(cx)?.namespaces().uts.hostname())),
            |cx, data| {
                may_set(cx)?;
                task(cx)?.namespaces().uts.set_hostname(written(data));
                Ok(())
            },
        ),
    );
    put(
        "kernel/domainname",
        0o644,
        writable(
            |cx| Ok(line(task(cx)?.namespaces().uts.domainname())),
            |cx, data| {
                may_set(cx)?;
                task(cx)?.namespaces().uts.set_domainname(written(data));
                Ok(())
            },
        ),
    );
    put("kernel/osrelease", 0o444, text(|_| Ok(line(uts::RELEASE.as_bytes().to_vec()))));
    put("kernel/version", 0o444, text(|_| Ok(line(uts::VERSION.as_bytes().to_vec()))));
    put("kernel/ns_last_pid", 0o444, text(|cx| Ok(format!("{}\n", task(cx)?.pid_ns().last()).into_bytes())));
}
