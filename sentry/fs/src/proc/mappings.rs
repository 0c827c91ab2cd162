//! What is known of a task's memory: maps, smaps, statm, mem, and the strings on its stack.

use super::process::Of;
use abi::{Errno, Result};
use kernel::Task;
use kernel::io::{Sink, Source};
use kernel::mm::{MapsEntry, MapsName, Mm, SmapsCounts};
use kernel::vfs::{Caller, File, FileOps, SeekFrom, d_path};
use std::fmt::Write;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// The most that is read of argument and environment strings: the kernel's limit for both.
const MAX_STRINGS: u64 = 6 << 20;

fn line(m: &MapsEntry, cx: &Caller<'_>) -> Vec<u8> {
    let mut head = m.head();
    let name = match &m.name {
        MapsName::None => Vec::new(),
        MapsName::Text(t) => t.clone(),
        MapsName::File(f) => {
            let path = match cx.task.and_then(Task::try_fs) {
                Some(fs) => d_path(f.path(), &fs.root()),
                None => f.path().dentry.name().to_vec(),
            };
            // A newline would end the line; everything else stands as it is.
            path.iter().flat_map(|b| if *b == b'\n' { b"\\012".to_vec() } else { vec![*b] }).collect()
        }
    };
    if !name.is_empty() {
        while head.len() < 73 {
            head.push(' ');
        }
    }
    let mut out = head.into_bytes();
    out.extend(name);
    out.push(b'\n');
    out
}

/// maps
pub(super) fn maps(_: &Of, cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(Vec::new()) };
    Ok(mm.maps().iter().flat_map(|m| line(m, cx)).collect())
}

fn counts(out: &mut Vec<u8>, size: u64, c: &SmapsCounts, rollup: bool) {
    let mut s = String::new();
    let kb = |b: u64| b / 1024;
    if !rollup {
        let _ = write!(
            s,
            "Size:           {:8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n",
            kb(size)
        );
    }
    for (name, v) in [
        ("Rss:", c.rss),
        ("Pss:", c.pss),
        ("Pss_Dirty:", c.private_dirty),
        ("Shared_Clean:", c.shared_clean),
        ("Shared_Dirty:", c.shared_dirty),
        ("Private_Clean:", c.private_clean),
        ("Private_Dirty:", c.private_dirty),
        ("Referenced:", c.rss),
        ("Anonymous:", c.anonymous),
        ("LazyFree:", 0),
        ("AnonHugePages:", 0),
        ("ShmemPmdMapped:", 0),
        ("FilePmdMapped:", 0),
        ("Shared_Hugetlb:", 0),
        ("Private_Hugetlb:", 0),
        ("Swap:", 0),
        ("SwapPss:", 0),
        ("Locked:", c.locked),
    ] {
        let _ = writeln!(s, "{name:<16}{:8} kB", kb(v));
        if rollup && name == "Pss_Dirty:" {
            let anon = c.anonymous.min(c.pss);
            for (name, v) in [("Pss_Anon:", anon), ("Pss_File:", c.pss - anon), ("Pss_Shmem:", 0)] {
                let _ = writeln!(s, "{name:<16}{:8} kB", kb(v));
            }
        }
    }
    out.extend(s.into_bytes());
}

/// smaps
pub(super) fn smaps(_: &Of, cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for m in mm.maps() {
        out.extend(line(&m, cx));
        counts(&mut out, m.range.end - m.range.start, &mm.smaps_counts(&m.range), false);
        out.extend(b"THPeligible:           0\nVmFlags:");
        out.extend(vm_flags(&m).into_bytes());
        out.push(b'\n');
    }
    Ok(out)
}

fn vm_flags(m: &MapsEntry) -> String {
    let r = m.rights();
    let mut s = String::new();
    for (bit, name) in
        [(r[0] == b'r', " rd"), (r[1] == b'w', " wr"), (r[2] == b'x', " ex"), (r[3] == b's', " sh")]
    {
        if bit {
            s.push_str(name);
        }
    }
    s.push_str(" mr mw me");
    if r[1] == b'w' && r[3] != b's' {
        s.push_str(" ac");
    }
    // As Linux has it, which puts a blank behind each.
    s + " "
}

/// smaps_rollup
pub(super) fn smaps_rollup(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let mm = task.try_mm().ok_or(Errno::ESRCH)?;
    let mut sum = SmapsCounts::default();
    let all = mm.maps();
    for m in &all {
        let c = mm.smaps_counts(&m.range);
        sum.rss += c.rss;
        sum.pss += c.pss;
        sum.shared_clean += c.shared_clean;
        sum.shared_dirty += c.shared_dirty;
        sum.private_clean += c.private_clean;
        sum.private_dirty += c.private_dirty;
        sum.anonymous += c.anonymous;
        sum.locked += c.locked;
    }
    let (start, end) = (all.first().map_or(0, |m| m.range.start), all.last().map_or(0, |m| m.range.end));
    let head = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0                          [rollup]\n");
    let mut out = head.into_bytes();
    counts(&mut out, 0, &sum, true);
    Ok(out)
}

/// statm
pub(super) fn statm(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(b"0 0 0 0 0 0 0\n".to_vec()) };
    let c = mm.counts();
    let p = |b: u64| b / abi::PAGE_SIZE;
    Ok(format!(
        "{} {} {} {} 0 {} 0\n",
        p(c.total),
        p(c.anon_rss + c.file_rss),
        p(c.file_rss),
        p(c.exec),
        p(c.data + c.stack)
    )
    .into_bytes())
}

fn strings(mm: &Mm, r: Range<u64>) -> Vec<u8> {
    let len = r.end.saturating_sub(r.start).min(MAX_STRINGS);
    let mut buf = vec![0; usize::try_from(len).unwrap_or(0)];
    let n = mm.copy_in_forced(r.start, &mut buf);
    buf.truncate(n);
    buf
}

/// cmdline: what stands where execve put the arguments. A program that overwrote the end of them, to
/// show a status, is shown up to the first NUL, into the environment.
pub(super) fn cmdline(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(Vec::new()) };
    let l = mm.layout();
    let mut args = strings(&mm, l.arg.clone());
    if args.last().is_some_and(|b| *b != 0) {
        args.extend(strings(&mm, l.arg.end..l.env.end));
        if let Some(end) = args.iter().position(|b| *b == 0) {
            args.truncate(end);
        }
    }
    Ok(args)
}

/// environ
pub(super) fn environ(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(Vec::new()) };
    let env = mm.layout().env;
    Ok(strings(&mm, env))
}

/// auxv
pub(super) fn auxv(_: &Of, _cx: &Caller<'_>, task: &Task) -> Result<Vec<u8>> {
    let Some(mm) = task.try_mm() else { return Ok(Vec::new()) };
    Ok(mm.layout().auxv.iter().flat_map(|(k, v)| [k.to_le_bytes(), v.to_le_bytes()].concat()).collect())
}

/// An open mem: the address space that the task had when it was opened.
pub(super) fn mem(task: &Task) -> Arc<dyn FileOps> {
    let mm = task.try_mm().map_or_else(Weak::new, |m| Arc::downgrade(&m));
    Arc::new(Mem { mm })
}

struct Mem {
    mm: Weak<Mm>,
}

/// Bytes moved in one step.
const STEP: usize = 64 * 1024;

impl FileOps for Mem {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, pos: &mut u64) -> Result<usize> {
        let Some(mm) = self.mm.upgrade() else { return Ok(0) };
        let mut buf = vec![0; dst.remaining().min(STEP)];
        let mut done = 0;
        while dst.remaining() > 0 {
            let want = buf.len().min(dst.remaining());
            let got = mm.copy_in_forced(*pos, &mut buf[..want]);
            if got == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
            match dst.put(&buf[..got]) {
                Ok(n) => {
                    *pos += n as u64;
                    done += n;
                    if n < want {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write(&self, _cx: &Caller<'_>, _f: &File, src: &mut dyn Source, pos: &mut u64) -> Result<usize> {
        let Some(mm) = self.mm.upgrade() else { return Ok(0) };
        let mut buf = vec![0; src.remaining().min(STEP)];
        let mut done = 0;
        while src.remaining() > 0 {
            let got = match src.take(&mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let put = mm.copy_out_forced(*pos, &buf[..got]);
            *pos += put as u64;
            done += put;
            if put < got {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
        }
        Ok(done)
    }

    fn seek(&self, _cx: &Caller<'_>, _f: &File, pos: u64, from: SeekFrom) -> Result<u64> {
        // Addresses of the upper half are positions too, so the sum may wrap.
        match from {
            SeekFrom::Set(o) => Ok(o.cast_unsigned()),
            SeekFrom::Cur(o) => Ok(pos.wrapping_add(o.cast_unsigned())),
            _ => Err(Errno::EINVAL),
        }
    }
}
