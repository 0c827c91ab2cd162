//! The files of a process that tell about the task itself: stat, status, limits, maps of ids, mounts.

use super::process::Of;
use super::system::HZ;
use abi::resource::Resource;
use abi::{Errno, Result};
use kernel::Task;
use kernel::creds::{CapSet, IdRange, UserNamespace};
use kernel::vfs::{Caller, MountFlags};
use std::fmt::Write;
use std::sync::Arc;

fn ticks(ns: i64) -> i64 {
    ns / (1_000_000_000 / HZ)
}

/// Numbers of the caller's view are those of the namespace that this proc shows.
fn ids(of: &Of, task: &Task) -> (i32, i32, i32, i32) {
    let group = task.group();
    let ppid = group.parent().and_then(|p| p.pid().number_in(&of.ns)).unwrap_or(0);
    let pgrp = group.pgrp();
    let pgid = pgrp.pid().number_in(&of.ns).unwrap_or(0);
    let sid = pgrp.session().pid().number_in(&of.ns).unwrap_or(0);
    let tgid = group.pid().number_in(&of.ns).unwrap_or(0);
    (tgid, ppid, pgid, sid)
}

/// The command name with what would break a line escaped, as /proc/pid/status shows it.
fn escaped(name: &[u8]) -> String {
    let mut s = String::new();
    for b in name {
        match b {
            b'\n' => s.push_str("\\n"),
            b'\\' => s.push_str("\\\\"),
            b => s.push(char::from(*b)),
        }
    }
    s
}

/// stat (proc_pid_stat(5))
pub(super) fn stat(of: &Of, cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let group = task.group();
    let (_, ppid, pgid, sid) = ids(of, task);
    let (tty, tpgid) = match group.tty() {
        Some(t) => {
            let fg = t.foreground().and_then(|g| g.pid().number_in(&of.ns)).unwrap_or(-1);
            (i64::try_from(t.rdev()).unwrap_or(0), fg)
        }
        None => (0, -1),
    };
    let (user, system) = if of.whole { group.cpu_time() } else { task.cpu_time() };
    let children = group.children_usage();
    let usage = group.total_usage();
    let start = task.start_time - task.kernel().machine.booted;
    let sched = task.sched.lock().clone();
    let prio = if sched.priority > 0 { -1 - sched.priority } else { 20 + sched.nice };
    let (mut vsize, mut rss, mut code, mut end, mut stack) = (0, 0, 0, 0, 0);
    let (mut data, mut edata, mut brk) = (0, 0, 0);
    let (mut args, mut env) = (0..0, 0..0);
    if let Some(mm) = task.try_mm() {
        let c = mm.counts();
        vsize = c.total;
        rss = (c.anon_rss + c.file_rss) / abi::PAGE_SIZE;
        if super::process::may_inspect(cx, task).is_ok() {
            let l = mm.layout();
            (code, end, stack) = (l.start_code, l.end_code, l.start_stack);
            (data, edata, brk) = (l.start_data, l.end_data, l.start_brk);
            (args, env) = (l.arg, l.env);
        }
    }
    let signals = task.signals().lock();
    let pending = signals.pending.set().0 & 0x7fff_ffff;
    let blocked = signals.blocked.0 & 0x7fff_ffff;
    drop(signals);
    let (ignored, caught) = group.sighand().ignored_and_caught();
    let exit_signal = group.exit_signal.load(std::sync::atomic::Ordering::Relaxed);
    let exit_code = group.exit_status().map_or(0, |s| s.0);
    let mut out = format!("{} (", of.nr).into_bytes();
    out.extend(task.comm());
    let rest = format!(
        ") {} {ppid} {pgid} {sid} {tty} {tpgid} 4194304 {} {} 0 0 {} {} {} {} {prio} {} {} 0 {} {vsize} {rss} {} {code} {end} {stack} 0 0 {pending} {blocked} {} {} 0 0 0 {exit_signal} 0 {} {} 0 0 0 {data} {edata} {brk} {} {} {} {} {exit_code}\n",
        task.state_letter(),
        usage.minflt,
        children.minflt,
        ticks(user),
        ticks(system),
        ticks(children.user),
        ticks(children.system),
        sched.nice,
        group.threads().len(),
        ticks(start.max(0)),
        group.soft_limit(Resource::Rss),
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        sched.priority,
        sched.policy,
        args.start,
        args.end,
        env.start,
        env.end,
    );
    out.extend(rest.into_bytes());
    Ok(out)
}

fn state_text(letter: char) -> &'static str {
    match letter {
        'R' => "R (running)",
        'S' => "S (sleeping)",
        'D' => "D (disk sleep)",
        'T' => "T (stopped)",
        't' => "t (tracing stop)",
        'Z' => "Z (zombie)",
        _ => "X (dead)",
    }
}

/// status (proc_pid_status(5))
pub(super) fn status(of: &Of, cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let group = task.group();
    let c = task.creds();
    let ns = &cx.creds.user_ns;
    let (tgid, ppid, pgid, sid) = ids(of, task);
    let letter = task.state_letter();
    let umask = task.try_fs().map_or(0, |f| f.umask());
    let tracer = task.tracer().and_then(|t| t.pid().number_in(&of.ns)).unwrap_or(0);
    let mut s = String::new();
    let _ = write!(
        s,
        "Name:\t{}\nUmask:\t{umask:04o}\nState:\t{}\nTgid:\t{tgid}\nNgid:\t0\nPid:\t{}\nPPid:\t{ppid}\nTracerPid:\t{tracer}\n",
        escaped(&task.comm()),
        state_text(letter),
        of.nr
    );
    let (u, g) = (|k| ns.uid_in(k), |k| ns.gid_in(k));
    let _ = writeln!(s, "Uid:\t{}\t{}\t{}\t{}", u(c.uid), u(c.euid), u(c.suid), u(c.fsuid));
    let _ = writeln!(s, "Gid:\t{}\t{}\t{}\t{}", g(c.gid), g(c.egid), g(c.sgid), g(c.fsgid));
    let fdsize = task.try_files().map_or(0, |f| f.capacity().next_multiple_of(64));
    let _ = write!(s, "FDSize:\t{fdsize}\nGroups:\t");
    let groups: Vec<String> = c.groups.iter().map(|id| g(*id).to_string()).collect();
    // The blank at the end is Linux'.
    let _ = write!(s, "{} ", groups.join(" "));
    s.push('\n');
    for (name, of_ns) in [
        ("NStgid", group.pid().numbers_from(&of.ns)),
        ("NSpid", task.pid().numbers_from(&of.ns)),
        ("NSpgid", group.pgrp().pid().numbers_from(&of.ns)),
        ("NSsid", group.pgrp().session().pid().numbers_from(&of.ns)),
    ] {
        let _ = write!(s, "{name}:");
        for n in of_ns {
            let _ = write!(s, "\t{n}");
        }
        s.push('\n');
    }
    let _ = (pgid, sid);
    s.push_str("Kthread:\t0\n");
    if let Some(mm) = task.try_mm() {
        let v = mm.counts();
        let kb = |b: u64| b / 1024;
        for (name, value) in [
            ("VmPeak", v.peak),
            ("VmSize", v.total),
            ("VmLck", v.locked),
            ("VmPin", 0),
            ("VmHWM", v.peak_rss),
            ("VmRSS", v.anon_rss + v.file_rss),
            ("RssAnon", v.anon_rss),
            ("RssFile", v.file_rss),
            ("RssShmem", 0),
            ("VmData", v.data),
            ("VmStk", v.stack),
            ("VmExe", v.exec),
            ("VmLib", v.lib),
            ("VmPTE", 0),
            ("VmSwap", 0),
        ] {
            let _ = writeln!(s, "{name}:\t{:8} kB", kb(value));
        }
        s.push_str(
            "HugetlbPages:\t       0 kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n",
        );
    }
    let (pending, blocked) = {
        let sig = task.signals().lock();
        (sig.pending.set(), sig.blocked)
    };
    let shared = group.state().lock().pending.set();
    let (ignored, caught) = group.sighand().ignored_and_caught();
    let users = &task.kernel().tasks.users;
    let queued = users.signals(c.uid);
    let _ = write!(
        s,
        "Threads:\t{}\nSigQ:\t{queued}/{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        group.threads().len(),
        group.soft_limit(Resource::Sigpending),
        pending.0,
        shared.0,
        blocked.0,
        ignored.0,
        caught.0
    );
    for (name, set) in [
        ("CapInh", c.inheritable),
        ("CapPrm", c.permitted),
        ("CapEff", c.effective),
        ("CapBnd", c.bounding),
        ("CapAmb", c.ambient),
    ] {
        let _ = writeln!(s, "{name}:\t{:016x}", set.bits());
    }
    let (seccomp, filters) = match task.seccomp() {
        Some(chain) => (2, chain.len()),
        None => (0, 0),
    };
    let cpus = task.kernel().machine.cpus();
    let _ = write!(
        s,
        "NoNewPrivs:\t{}\nSeccomp:\t{seccomp}\nSeccomp_filters:\t{filters}\nSpeculation_Store_Bypass:\tthread vulnerable\nSpeculationIndirectBranch:\tconditional enabled\n",
        u8::from(c.no_new_privs)
    );
    let mask = task.affinity();
    let word = mask.0[0];
    let list: Vec<String> = (0..cpus.min(64)).filter(|i| word >> i & 1 == 1).map(|i| i.to_string()).collect();
    let _ = write!(
        s,
        "Cpus_allowed:\t{word:x}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        ranges(&list),
        task.cpu.voluntary_switches.load(std::sync::atomic::Ordering::Relaxed),
        task.cpu.involuntary_switches.load(std::sync::atomic::Ordering::Relaxed)
    );
    Ok(s.into_bytes())
}

/// `0,1,2,5` as `0-2,5`.
fn ranges(list: &[String]) -> String {
    let n: Vec<usize> = list.iter().filter_map(|s| s.parse().ok()).collect();
    let mut out = String::new();
    let mut i = 0;
    while i < n.len() {
        let start = i;
        while i + 1 < n.len() && n[i + 1] == n[i] + 1 {
            i += 1;
        }
        if !out.is_empty() {
            out.push(',');
        }
        let _ = if start == i { write!(out, "{}", n[i]) } else { write!(out, "{}-{}", n[start], n[i]) };
        i += 1;
    }
    out
}

/// comm
pub(super) fn comm(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut name = task.comm();
    name.push(b'\n');
    Ok(name)
}

/// A write to comm: only by the process itself.
pub(super) fn set_comm(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    if !cx.task.is_some_and(|t| Arc::ptr_eq(t.group(), task.group())) {
        return Err(Errno::EINVAL);
    }
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len()).min(15);
    task.set_comm(&data[..end]);
    Ok(())
}

/// cgroup
pub(super) fn cgroup(_: &Of, _cx: &Caller<'_>, _task: &Task) -> Result<Vec<u8>> {
    Ok(b"0::/\n".to_vec())
}

fn id_map(map: &[IdRange]) -> Vec<u8> {
    let mut s = String::new();
    for r in map {
        let _ = writeln!(s, "{:>10} {:>10} {:>10}", r.inside, r.outside, r.count);
    }
    s.into_bytes()
}

/// uid_map
pub(super) fn uid_map(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    Ok(id_map(&task.creds().user_ns.uid_map.lock()))
}

/// gid_map
pub(super) fn gid_map(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    Ok(id_map(&task.creds().user_ns.gid_map.lock()))
}

/// The rules of user_namespaces(7) for writing a map.
fn set_map(cx: &Caller<'_>, ns: &Arc<UserNamespace>, data: &[u8], users: bool) -> Result<()> {
    let parent = ns.parent.as_ref().ok_or(Errno::EPERM)?;
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let mut ranges = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let n: Vec<u32> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| Errno::EINVAL)?;
        let [inside, outside, count] = n[..] else { return Err(Errno::EINVAL) };
        if count == 0 || inside.checked_add(count).is_none() || outside.checked_add(count).is_none() {
            return Err(Errno::EINVAL);
        }
        ranges.push((inside, outside, count));
    }
    if ranges.is_empty() || ranges.len() > 340 {
        return Err(Errno::EINVAL);
    }
    for (i, a) in ranges.iter().enumerate() {
        for b in &ranges[i + 1..] {
            let overlap = |x: u32, y: u32| x < y + b.2 && y < x + a.2;
            if overlap(a.0, b.0) || overlap(a.1, b.1) {
                return Err(Errno::EINVAL);
            }
        }
    }
    let cap = if users { CapSet::SETUID } else { CapSet::SETGID };
    if !cx.creds.has_cap_in(parent, cap) {
        // Without the capability: one entry, for the writer's own id, and groups only without setgroups(2).
        let own = if users { cx.creds.euid } else { cx.creds.egid };
        let [(_, outside, 1)] = ranges[..] else { return Err(Errno::EPERM) };
        let mapped = if users { parent.kuid(outside) } else { parent.kgid(outside) };
        let denied = ns.setgroups_denied.load(std::sync::atomic::Ordering::Relaxed);
        if mapped != Some(own) || ns.owner_uid != cx.creds.euid || (!users && !denied) {
            return Err(Errno::EPERM);
        }
    }
    let mut kernel_ranges = Vec::new();
    for (inside, outside, count) in ranges {
        let to = if users { parent.kuid(outside) } else { parent.kgid(outside) };
        kernel_ranges.push(IdRange { inside, outside: to.ok_or(Errno::EPERM)?, count });
    }
    let mut map = if users { ns.uid_map.lock() } else { ns.gid_map.lock() };
    if !map.is_empty() {
        return Err(Errno::EPERM);
    }
    *map = kernel_ranges;
    Ok(())
}

/// Who is in the namespace may know its ids without asking: they are others now.
fn ids_have_changed(task: &Task, ns: &Arc<UserNamespace>) {
    let threads = task.kernel().tasks.all_groups().into_iter().flat_map(|g| g.threads());
    threads.filter(|t| Arc::ptr_eq(&t.creds().user_ns, ns)).for_each(|t| t.kick());
}

/// A write to uid_map.
pub(super) fn set_uid_map(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let ns = Arc::clone(&task.creds().user_ns);
    set_map(cx, &ns, data, true)?;
    ids_have_changed(task, &ns);
    Ok(())
}

/// A write to gid_map.
pub(super) fn set_gid_map(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let ns = Arc::clone(&task.creds().user_ns);
    set_map(cx, &ns, data, false)?;
    ids_have_changed(task, &ns);
    Ok(())
}

/// setgroups
pub(super) fn setgroups(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let denied = task.creds().user_ns.setgroups_denied.load(std::sync::atomic::Ordering::Relaxed);
    Ok(if denied { b"deny\n".to_vec() } else { b"allow\n".to_vec() })
}

/// A write to setgroups: only before gid_map is set.
pub(super) fn set_setgroups(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let ns = Arc::clone(&task.creds().user_ns);
    if !cx.creds.has_cap_in(&ns, CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let deny = match data.trim_ascii() {
        b"allow" => false,
        b"deny" => true,
        _ => return Err(Errno::EINVAL),
    };
    let set = !ns.gid_map.lock().is_empty();
    let flag = &ns.setgroups_denied;
    if deny && set || !deny && flag.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Errno::EPERM);
    }
    flag.store(deny, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// io: of the whole process or of one thread. Storage is the host's: none of the sandbox' own is read or written.
pub(super) fn io(of: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let sums = if of.whole { task.group().total_usage() } else { task.usage() };
    let [rchar, wchar, syscr, syscw] = sums.io;
    Ok(format!(
        "rchar: {rchar}\nwchar: {wchar}\nsyscr: {syscr}\nsyscw: {syscw}\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
    )
    .into_bytes())
}

/// limits
pub(super) fn limits(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    const ROWS: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let show = |v: u64| if v == u64::MAX { "unlimited".to_owned() } else { v.to_string() };
    let mut s = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), l) in ROWS.iter().zip(task.group().limits()) {
        let _ = writeln!(s, "{name:<25} {:<20} {:<20} {unit:<10}", show(l.cur), show(l.max));
    }
    Ok(s.into_bytes())
}

/// loginuid: not set.
pub(super) fn loginuid(_: &Of, _cx: &Caller<'_>, _task: &Task) -> Result<Vec<u8>> {
    Ok(b"4294967295".to_vec())
}

/// There is no audit, as on a kernel without it: EPERM.
pub(super) fn set_loginuid(_: &Of, _cx: &Caller<'_>, _task: &Task, _data: &[u8]) -> Result<()> {
    Err(Errno::EPERM)
}

/// sessionid: not set.
pub(super) fn sessionid(_: &Of, _cx: &Caller<'_>, _task: &Task) -> Result<Vec<u8>> {
    Ok(b"4294967295".to_vec())
}

fn octal(text: &[u8]) -> String {
    let mut s = String::new();
    for b in text {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                let _ = write!(s, "\\{b:03o}");
            }
            b => s.push(char::from(*b)),
        }
    }
    s
}

fn mount_options(flags: MountFlags, readonly: bool) -> String {
    let mut s = String::from(if readonly { "ro" } else { "rw" });
    for (flag, text) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
    ] {
        if flags.contains(flag) {
            s.push_str(text);
        }
    }
    s
}

fn each_mount(task: &Task, mut f: impl FnMut(&kernel::vfs::MountInfo)) -> Result<()> {
    let fs = task.try_fs().ok_or(Errno::EINVAL)?;
    for info in task.namespaces().mnt.mount_info(&fs.root()) {
        f(&info);
    }
    Ok(())
}

fn text_bytes(s: String) -> Vec<u8> {
    // Names are bytes; they were put into the string as one character each.
    s.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// mountinfo (proc_pid_mountinfo(5))
pub(super) fn mountinfo(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut s = String::new();
    each_mount(task, |i| {
        let m = &i.mount;
        let dev = m.fs.dev();
        let mut optional = String::new();
        if i.group != 0 {
            let _ = write!(optional, " shared:{}", i.group);
        }
        if i.master != 0 {
            let _ = write!(optional, " master:{}", i.master);
        }
        if i.unbindable {
            optional.push_str(" unbindable");
        }
        let more = m.fs.show_options();
        let sep = if more.is_empty() { "" } else { "," };
        let _ = writeln!(
            s,
            "{} {} {}:{} {} {} {}{optional} - {} {} {}{sep}{more}",
            m.id,
            i.parent_id,
            abi::stat::major(dev),
            abi::stat::minor(dev),
            octal(&i.root),
            octal(&i.mount_point),
            mount_options(m.flags(), m.flags().contains(MountFlags::RDONLY)),
            m.fs.name(),
            octal(&m.source),
            if m.sb.readonly() { "ro" } else { "rw" },
        );
    })?;
    Ok(text_bytes(s))
}

/// mounts (fstab(5))
pub(super) fn mounts(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut s = String::new();
    each_mount(task, |i| {
        let m = &i.mount;
        let more = m.fs.show_options();
        let sep = if more.is_empty() { "" } else { "," };
        let options = mount_options(m.flags(), m.readonly());
        let _ = writeln!(
            s,
            "{} {} {} {options}{sep}{more} 0 0",
            octal(&m.source),
            octal(&i.mount_point),
            m.fs.name()
        );
    })?;
    Ok(text_bytes(s))
}

/// mountstats
pub(super) fn mountstats(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut s = String::new();
    each_mount(task, |i| {
        let m = &i.mount;
        let _ = writeln!(
            s,
            "device {} mounted on {} with fstype {}",
            octal(&m.source),
            octal(&i.mount_point),
            m.fs.name()
        );
    })?;
    Ok(text_bytes(s))
}

fn adj(task: &Task) -> i32 {
    task.group().oom_score_adj.load(std::sync::atomic::Ordering::Relaxed)
}

fn set_adj(cx: &Caller<'_>, task: &Task, value: i32) -> Result<()> {
    if value < adj(task) && !cx.creds.has_cap(CapSet::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    task.group().oom_score_adj.store(value, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

fn parsed(data: &[u8]) -> Result<i32> {
    std::str::from_utf8(data).ok().and_then(|t| t.trim().parse().ok()).ok_or(Errno::EINVAL)
}

/// oom_adj: the older scale, -17 to 15.
pub(super) fn oom_adj(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let a = adj(task);
    let old = if a == 1000 { 15 } else { a * 17 / 1000 };
    Ok(format!("{old}\n").into_bytes())
}

/// A write to oom_adj.
pub(super) fn set_oom_adj(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let v = parsed(data)?;
    if !(-17..=15).contains(&v) {
        return Err(Errno::EINVAL);
    }
    set_adj(cx, task, if v == 15 { 1000 } else { v * 1000 / 17 })
}

/// oom_score
pub(super) fn oom_score(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let total = task.kernel().machine.memory().max(1);
    let used = task.try_mm().map_or(0, |m| {
        let c = m.counts();
        c.anon_rss + c.file_rss
    });
    let base = i64::try_from(used.saturating_mul(1000) / total).unwrap_or(1000);
    let score = ((1000 + base + i64::from(adj(task))) * 2 / 3).clamp(0, 2000);
    Ok(format!("{score}\n").into_bytes())
}

/// oom_score_adj
pub(super) fn oom_score_adj(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    Ok(format!("{}\n", adj(task)).into_bytes())
}

/// A write to oom_score_adj.
pub(super) fn set_oom_score_adj(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    let v = parsed(data)?;
    if !(-1000..=1000).contains(&v) {
        return Err(Errno::EINVAL);
    }
    set_adj(cx, task, v)
}

/// personality
pub(super) fn personality(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let p = task.attrs.lock().personality;
    Ok(format!("{p:08x}\n").into_bytes())
}

/// sched: what is known of what Linux tells with CONFIG_SCHED_DEBUG.
pub(super) fn sched(of: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut out = task.comm();
    let (user, system) = task.cpu_time();
    let total = user + system;
    let (own, forced) =
        (task.cpu.voluntary_switches.load(Relaxed), task.cpu.involuntary_switches.load(Relaxed));
    let (policy, prio) = {
        let s = task.sched.lock();
        (s.policy, if s.priority > 0 { 99 - s.priority } else { 120 + s.nice })
    };
    let mut s = format!(" ({}, #threads: {})\n{}\n", of.nr, task.group().threads().len(), "-".repeat(67));
    let time = format!("{}.{:06}", total / 1_000_000, total % 1_000_000);
    for (name, value) in [
        ("se.sum_exec_runtime", time),
        ("nr_switches", (own + forced).to_string()),
        ("nr_voluntary_switches", own.to_string()),
        ("nr_involuntary_switches", forced.to_string()),
        ("policy", policy.to_string()),
        ("prio", prio.to_string()),
    ] {
        let _ = writeln!(s, "{name:<45}:{value:>21}");
    }
    out.extend(s.into_bytes());
    Ok(out)
}

/// schedstat
pub(super) fn schedstat(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let (user, system) = task.cpu_time();
    let n = task.cpu.voluntary_switches.load(std::sync::atomic::Ordering::Relaxed);
    Ok(format!("{} 0 {n}\n", user + system).into_bytes())
}

/// stack: there is no kernel stack to show.
pub(super) fn stack(_: &Of, _cx: &Caller<'_>, _task: &Task) -> Result<Vec<u8>> {
    Ok(Vec::new())
}

/// syscall: the call in which the task sleeps, with arguments, stack pointer and instruction pointer.
pub(super) fn syscall(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let (nr, words) = task.call();
    if nr < 0 || !task.is_sleeping() {
        return Ok(b"running\n".to_vec());
    }
    let mut s = nr.to_string();
    for w in words {
        let _ = write!(s, " {w:#x}");
    }
    s.push('\n');
    Ok(s.into_bytes())
}

/// timers: those of timer_create(2).
pub(super) fn timers(of: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut s = String::new();
    for (id, signal, value, how, clock) in task.group().timers.posix_timers() {
        let pid = match how {
            Some(thread) => format!("tid.{}", thread.pid().number_in(&of.ns).unwrap_or(0)),
            None => format!("pid.{}", task.group().pid().number_in(&of.ns).unwrap_or(0)),
        };
        let kind = if signal == 0 { "none" } else { "signal" };
        let _ =
            write!(s, "ID: {id}\nsignal: {signal}/{value:016x}\nnotify: {kind}/{pid}\nClockID: {clock}\n");
    }
    Ok(s.into_bytes())
}

/// timerslack_ns
pub(super) fn timer_slack(_: &Of, cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    may_adjust(cx, task)?;
    Ok(format!("{}\n", task.attrs.lock().timer_slack).into_bytes())
}

/// A write to timerslack_ns: 0 is the default again.
pub(super) fn set_timer_slack(_: &Of, cx: &Caller<'_>, task: &Task, data: &[u8]) -> Result<()> {
    may_adjust(cx, task)?;
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let ns: u64 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    let mut attrs = task.attrs.lock();
    attrs.timer_slack = if ns == 0 { attrs.default_timer_slack } else { ns };
    Ok(())
}

/// Only oneself, or with `CAP_SYS_NICE`: EPERM.
fn may_adjust(cx: &Caller<'_>, task: &Task) -> Result<()> {
    let own = cx.task.is_some_and(|t| std::ptr::eq(t, task));
    if own || cx.creds.has_cap_in(&task.creds().user_ns, CapSet::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// children: those of the process, as seen from the proc's namespace; only its first thread has them here.
pub(super) fn children(of: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mut s = String::new();
    if task.is_leader() {
        let key = task.group().key();
        for g in of.ns.groups() {
            if g.parent().is_some_and(|p| p.key() == key)
                && let Some(nr) = g.pid().number_in(&of.ns)
            {
                let _ = write!(s, "{nr} ");
            }
        }
    }
    Ok(s.into_bytes())
}

/// wchan
pub(super) fn wchan(_: &Of, _cx: &Caller<'_>, _task: &Task) -> Result<Vec<u8>> {
    Ok(b"0".to_vec())
}
