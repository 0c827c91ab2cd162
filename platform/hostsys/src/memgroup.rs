//! The memory controller's group of the host that this process is in: how much the host holds for it, and how to have an end
//! for lack of memory noted there.
//!
//! The host chooses badly who has to go: memory of guests is a file's, which the end of a stub process does not free, and what
//! the sentry writes for a guest is nobody's size. So the sentry looks in time, and ends a guest process itself. Engines learn of
//! such ends from the host's kernel alone (memory.events, the event of memory.oom_control); it is given one to note.

use crate::process;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Kernel memory counts as held up to this part of the limit where the host does not tell how much of it can be had back
/// (v1: dentries and inodes are in it), and up to [`KERNEL_LEAST`] in any case.
const KERNEL_PART: u64 = 8;
const KERNEL_LEAST: u64 = 4 << 20;
/// What the process uses at most beyond what is believed to be left. More than 32 MiB, since malloc(3) has the kernel make a
/// larger piece: its pages are the child's own to touch.
const BEYOND: u64 = 48 << 20;
/// Beats every other process's size (oom_badness in mm/oom_kill.c).
const FIRST: &str = "1000";

/// Files of the group, open for reading, and /proc/self/oom_score_adj of the process, open for both.
pub struct MemoryGroup {
    usage: File,
    stat: File,
    score: Option<File>,
}

// Not derived: to show a `File` is to look in /proc, which the sentry may not.
impl std::fmt::Debug for MemoryGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryGroup").finish_non_exhaustive()
    }
}

/// How much there is of what, bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    file: u64,
    shmem: u64,
    anon: u64,
    reclaimable: Option<u64>,
}

impl Stat {
    /// memory.stat of v1 (with those below: `total_`) or v2.
    fn parse(text: &str) -> Stat {
        let mut stat = Stat::default();
        let mut v2 = true;
        for (key, value) in text.lines().filter_map(|l| l.split_once(' ')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "total_cache" => (stat.file, v2) = (value, false),
                "total_shmem" => stat.shmem = value,
                "total_rss" => stat.anon = value,
                "slab_reclaimable" => stat.reclaimable = Some(value),
                "file" if v2 => stat.file = value,
                "shmem" if v2 => stat.shmem = value,
                "anon" if v2 => stat.anon = value,
                _ => {}
            }
        }
        stat
    }

    /// What of `usage` the host cannot take back by itself.
    fn held(&self, usage: u64, limit: u64) -> u64 {
        let kernel = usage.saturating_sub(self.file + self.anon);
        let kernel = match self.reclaimable {
            Some(reclaimable) => kernel.saturating_sub(reclaimable),
            None => kernel.min((limit / KERNEL_PART).max(KERNEL_LEAST)),
        };
        (self.anon + self.shmem + kernel).min(usage)
    }
}

impl MemoryGroup {
    /// `usage`: memory.usage_in_bytes or memory.current; `stat`: memory.stat; `score`: oom_score_adj of the calling process,
    /// without which nothing can be noted.
    pub fn new(usage: OwnedFd, stat: OwnedFd, score: Option<OwnedFd>) -> MemoryGroup {
        MemoryGroup { usage: usage.into(), stat: stat.into(), score: score.map(File::from) }
    }

    /// The descriptors, in the order of `new`.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = vec![self.usage.as_fd(), self.stat.as_fd()];
        all.extend(self.score.iter().map(File::as_fd));
        all
    }

    /// Bytes that the host cannot take back by itself, and those of them that are pages of files in memory; under `limit` bytes.
    pub fn held(&self, limit: u64) -> io::Result<(u64, u64)> {
        let usage = read(&self.usage)?;
        let usage = usage.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        let stat = Stat::parse(&read(&self.stat)?);
        Ok((stat.held(usage, limit), stat.shmem))
    }

    /// Has the host note that a process was killed for lack of memory: a child of this process uses up what is left. It is the
    /// first that the host kills. Takes some milliseconds, and this process is as likely to be killed until the child is there.
    pub fn note_kill(&self, limit: u64) -> io::Result<()> {
        let score = self.score.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let left = limit.saturating_sub(self.held(limit)?.0);
        let own = read(score)?;
        let go = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        score.write_all_at(FIRST.as_bytes(), 0)?;
        let child = process::use_up(usize::try_from(left + BEYOND).unwrap_or(usize::MAX), go.as_fd());
        let back = score.write_all_at(own.trim().as_bytes(), 0);
        let child = child?;
        // Not before this process has its own value back: the host would choose it. If that failed, the child must still end.
        rustix::io::write(&go, &1u64.to_ne_bytes())?;
        let exit = child.wait()?;
        back?;
        match exit {
            process::Exit::Signal(9) => Ok(()),
            other => Err(io::Error::other(format!("a process that used up memory ended with {other:?}"))),
        }
    }
}

/// The whole of a small file of the kernel's.
fn read(file: &File) -> io::Result<String> {
    let mut text = vec![0; 8192];
    let n = file.read_at(&mut text, 0)?;
    text.truncate(n);
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_cannot_take_back() {
        let v2 =
            Stat::parse("anon 100\nfile 5000\nkernel 700\nshmem 3000\nslab_reclaimable 200\nanon_thp 7\n");
        assert_eq!(v2, Stat { file: 5000, shmem: 3000, anon: 100, reclaimable: Some(200) });
        // The file's pages but for shared memory, and slabs, can be had back.
        assert_eq!(v2.held(5800, 10_000), 100 + 3000 + 500);
        let v1 = Stat::parse("cache 1\nrss 2\nshmem 3\ntotal_cache 5000\ntotal_rss 100\ntotal_shmem 3000\n");
        assert_eq!(v1, Stat { file: 5000, shmem: 3000, anon: 100, reclaimable: None });
        assert_eq!(v1.held(5800, 10_000), 100 + 3000 + 700);
        // Only so much of it: the rest is believed to be dentries.
        assert_eq!(v1.held(5100 + (40 << 20), 64 << 20), 3100 + (8 << 20));
    }
}
