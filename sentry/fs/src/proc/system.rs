//! The files at the root of /proc that speak of the whole sandbox (proc(5)).

use abi::{Errno, Result};
use kernel::Kernel;
use kernel::vfs::Caller;
use std::fmt::Write;
use std::sync::Arc;

/// Clock ticks per second in files of /proc (`USER_HZ`).
pub(super) const HZ: i64 = 100;

/// The kernel of the caller. There is no caller only while the sandbox boots, when nobody reads.
pub(super) fn kernel<'a>(cx: &Caller<'a>) -> Result<&'a Arc<Kernel>> {
    cx.task.map(|t| t.kernel()).ok_or(Errno::ESRCH)
}

fn ticks(ns: i64) -> i64 {
    ns / (1_000_000_000 / HZ)
}

/// /proc/cpuinfo
pub(super) fn cpuinfo(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let hw = &kernel(cx)?.machine;
    let m = &hw.host;
    let mut s = String::new();
    let flags = m.flags.join(" ");
    let n = hw.cpus();
    for cpu in 0..n {
        let mhz = m.khz as f64 / 1000.0;
        let _ = write!(
            s,
            "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nstepping\t: {}\n\
             cpu MHz\t\t: {mhz:.3}\nphysical id\t: 0\nsiblings\t: {n}\ncore id\t\t: {cpu}\ncpu cores\t: {n}\n\
             apicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\n\
             flags\t\t: {flags}\nbugs\t\t:\nbogomips\t: {:.2}\nclflush size\t: {}\ncache_alignment\t: {}\n\
             address sizes\t: {} bits physical, {} bits virtual\npower management:\n\n",
            m.vendor,
            m.family,
            m.model,
            m.name,
            m.stepping,
            mhz * 2.0,
            m.cache_line,
            m.cache_line,
            m.address_bits.0,
            m.address_bits.1,
        );
    }
    Ok(s.into_bytes())
}

/// /proc/meminfo: of the sandbox' own limit and use.
pub(super) fn meminfo(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let total = k.machine.memory();
    let used = k.memfile.usage().min(total);
    let free = total - used;
    let swap = k.machine.swap();
    let rows: [(&str, u64); 24] = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", swap),
        ("SwapFree", swap),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("CommitLimit", total / 2 + swap),
        ("Committed_AS", used),
    ];
    let mut s = String::new();
    for (name, bytes) in rows {
        let _ = writeln!(s, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
    }
    let _ = writeln!(
        s,
        "VmallocTotal:   34359738367 kB\nHugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB"
    );
    Ok(s.into_bytes())
}

/// /proc/uptime
pub(super) fn uptime(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let shift = cx.task.map_or(0, |t| t.namespaces().time.boottime());
    let up = k.clocks.monotonic() - k.machine.booted;
    let busy = super::stats::cpu_time(k);
    let cpus = i64::try_from(k.machine.cpus()).unwrap_or(1);
    let idle = (up.saturating_mul(cpus) - busy.0 - busy.1).max(0);
    let show = |ns: i64| format!("{}.{:02}", ns / 1_000_000_000, ns % 1_000_000_000 / 10_000_000);
    Ok(format!("{} {}\n", show(up + shift), show(idle)).into_bytes())
}

/// /proc/stat
pub(super) fn stat(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let up = k.clocks.monotonic() - k.machine.booted;
    let (user, system) = super::stats::cpu_time(k);
    let cpus = i64::try_from(k.machine.cpus()).unwrap_or(1);
    let idle = (up.saturating_mul(cpus) - user - system).max(0);
    let mut s = format!("cpu  {} 0 {} {} 0 0 0 0 0 0\n", ticks(user), ticks(system), ticks(idle));
    for cpu in 0..cpus {
        let _ = writeln!(
            s,
            "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0",
            ticks(user / cpus),
            ticks(system / cpus),
            ticks(idle / cpus)
        );
    }
    let booted = (k.clocks.realtime() - up) / 1_000_000_000;
    let (running, total_forks) = super::stats::task_counts(k);
    let switches = super::stats::sums(k).switches;
    let _ = write!(
        s,
        "intr 0\nctxt {switches}\nbtime {booted}\nprocesses {total_forks}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    Ok(s.into_bytes())
}

/// /proc/loadavg
pub(super) fn loadavg(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let [one, five, fifteen] = super::stats::load(k);
    let (running, _) = super::stats::task_counts(k);
    let (tasks, last) = super::stats::tasks_and_last_pid(cx)?;
    Ok(format!("{one:.2} {five:.2} {fifteen:.2} {running}/{tasks} {last}\n").into_bytes())
}

/// /proc/filesystems
pub(super) const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tdevpts\nnodev\tmqueue\n\
nodev\tpipefs\nnodev\tsockfs\nnodev\toverlay\nnodev\tcgroup2\n";

/// /proc/devices
pub(super) const DEVICES: &str =
    "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n";

/// /proc/vmstat: the counters of an own memory manager that has no zones.
pub(super) fn vmstat(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let k = kernel(cx)?;
    let used = k.memfile.usage() / abi::PAGE_SIZE;
    let free = k.machine.memory() / abi::PAGE_SIZE - used.min(k.machine.memory() / abi::PAGE_SIZE);
    let faults = super::stats::sums(k).faults;
    Ok(format!(
        "nr_free_pages {free}\nnr_anon_pages {used}\nnr_mapped 0\nnr_file_pages 0\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault {faults}\npgmajfault 0\n"
    )
    .into_bytes())
}

/// /proc/swaps
pub(super) fn swaps(_cx: &Caller<'_>) -> Result<Vec<u8>> {
    Ok(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_vec())
}
