//! The host's vdso in stub processes: code that reads the host's clocks without a system call.
//!
//! The kernel maps it into every process at a place of its choice, which may be one that a guest wants. The zygote moves it,
//! data pages and all, into the stub's region, where it does no harm: it holds the time and code to read it, which any
//! program of the host sees, and for what it cannot do it makes a system call that traps like every other.

use super::layout;
use std::ops::Range;
use std::sync::OnceLock;

/// Where the host's kernel put it in this process.
#[derive(Clone)]
pub(super) struct HostVdso {
    /// The pieces, data pages first, without holes between them.
    pub(super) pieces: Vec<Range<u64>>,
    functions: [u64; 4],
}

/// Addresses of functions with the C calling convention, as the guest's code can reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockCode {
    /// clock_gettime(2).
    pub clock_gettime: u64,
    /// gettimeofday(2).
    pub gettimeofday: u64,
    /// time(2).
    pub time: u64,
    /// clock_getres(2).
    pub clock_getres: u64,
}

const NAMES: [&[u8]; 4] =
    [b"__vdso_clock_gettime", b"__vdso_gettimeofday", b"__vdso_time", b"__vdso_clock_getres"];

/// What was found first: it does not move, and /proc may go away.
static FOUND: OnceLock<Option<HostVdso>> = OnceLock::new();

/// Looks for the host's vdso while /proc is there. Call it before a change of the root directory that comes before
/// [`crate::open`]; forks inherit what was found.
pub fn remember() {
    let _ = FOUND.get_or_init(HostVdso::look);
}

impl HostVdso {
    /// Where it is; `None` if it is not there, or not as expected.
    pub(super) fn find() -> Option<HostVdso> {
        FOUND.get_or_init(HostVdso::look).clone()
    }

    fn look() -> Option<HostVdso> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for line in
            maps.lines().filter(|l| l.ends_with("]") && (l.contains("[vvar") || l.ends_with("[vdso]")))
        {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            if pieces.last().is_some_and(|p| p.end != start) {
                return None;
            }
            pieces.push(start..u64::from_str_radix(end, 16).ok()?);
        }
        let code = pieces.last()?.clone();
        let all = pieces.first()?.start..code.end;
        // SAFETY: reads a value the kernel gave this process.
        let elf = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
        if elf != code.start || all.end - all.start > layout::VDSO_LEN {
            return None;
        }
        // SAFETY: the piece is mapped readable for the life of the process and never changes.
        let image = unsafe { std::slice::from_raw_parts(elf as *const u8, (code.end - code.start) as usize) };
        let offsets = symbols(image)?;
        let to = layout::VDSO + (code.start - all.start);
        Some(HostVdso { pieces, functions: offsets.map(|o| to + o) })
    }

    pub(super) fn code(&self) -> ClockCode {
        let [clock_gettime, gettimeofday, time, clock_getres] = self.functions;
        ClockCode { clock_gettime, gettimeofday, time, clock_getres }
    }

    /// Where a piece goes.
    pub(super) fn target(&self, piece: &Range<u64>) -> u64 {
        layout::VDSO + (piece.start - self.pieces[0].start)
    }
}

fn word(image: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = image.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
}

/// Offsets of the functions in the image, through its section headers or its dynamic section.
fn symbols(image: &[u8]) -> Option<[u64; 4]> {
    let phoff = word(image, 32, 8)?;
    let phnum = word(image, 56, 2)?;
    let (mut dynamic, mut base) = (None, None);
    for i in 0..phnum {
        let at = phoff + i * 56;
        match word(image, at, 4)? {
            1 if base.is_none() => {
                base = Some(word(image, at + 16, 8)?.wrapping_sub(word(image, at + 8, 8)?))
            }
            2 => dynamic = Some(word(image, at + 8, 8)?),
            _ => {}
        }
    }
    let (mut at, base) = (dynamic?, base?);
    let (mut strtab, mut symtab) = (None, None);
    loop {
        let (tag, value) = (word(image, at, 8)?, word(image, at + 8, 8)?);
        match tag {
            0 => break,
            5 => strtab = Some(value.wrapping_sub(base)),
            6 => symtab = Some(value.wrapping_sub(base)),
            _ => {}
        }
        at += 16;
    }
    let (strtab, symtab) = (strtab?, symtab?);
    let mut found = [None; 4];
    // The number of symbols stands nowhere simple; the table ends before the names or the image does.
    let count = if strtab > symtab { (strtab - symtab) / 24 } else { 64 };
    for i in 0..count.min(256) {
        let sym = symtab + i * 24;
        let Some(name) = word(image, sym, 4) else { break };
        let Some(text) = usize::try_from(strtab + name).ok().and_then(|n| image.get(n..)) else { continue };
        let len = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        if let Some(k) = NAMES.iter().position(|n| *n == &text[..len]) {
            let value = word(image, sym + 8, 8)?.wrapping_sub(base);
            if value != 0 && value < image.len() as u64 {
                found[k] = Some(value);
            }
        }
    }
    let [a, b, c, d] = found;
    Some([a?, b?, c?, d?])
}
