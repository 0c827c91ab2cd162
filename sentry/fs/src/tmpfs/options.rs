//! Mount options of tmpfs(5).

use abi::{Errno, Result};
use platform::PAGE;

/// Size, number of inodes, and what the root directory shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// As given, in pages; 0 is no limit.
    pub size: Option<u64>,
    /// As given; 0 is no limit.
    pub nr_inodes: Option<u64>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub(super) max_pages: u64,
    pub(super) max_inodes: u64,
    pub(super) uid_given: bool,
    pub(super) gid_given: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: None,
            nr_inodes: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            max_pages: 0,
            max_inodes: 0,
            uid_given: false,
            gid_given: false,
        }
    }
}

fn text(v: Option<&[u8]>) -> Result<&str> {
    v.and_then(|v| std::str::from_utf8(v).ok()).ok_or(Errno::EINVAL)
}

/// A number with a suffix k, m, g, t, p or e (`memparse`).
fn number(v: Option<&[u8]>) -> Result<(u64, bool)> {
    let s = text(v)?;
    let digits = s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let n: u64 = s[..digits].parse().map_err(|_| Errno::EINVAL)?;
    let shift = match &s[digits..] {
        "" => 0,
        "%" => return Ok((n, true)),
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return Err(Errno::EINVAL),
    };
    n.checked_mul(1 << shift).map(|n| (n, false)).ok_or(Errno::EINVAL)
}

impl Options {
    /// From the option string of mount(2); EINVAL for what tmpfs does not know.
    pub fn parse(data: &[u8]) -> Result<Options> {
        let mut o = Options::default();
        for part in data.split(|c| *c == b',').filter(|p| !p.is_empty()) {
            let (key, value) = match part.iter().position(|c| *c == b'=') {
                Some(i) => (&part[..i], Some(&part[i + 1..])),
                None => (part, None),
            };
            match key {
                b"size" => {
                    let (n, percent) = number(value)?;
                    // A percentage is of memory and is resolved when that is known.
                    o.size = Some(if percent { u64::MAX - n.min(100_000) } else { n.div_ceil(PAGE) });
                }
                b"nr_blocks" => o.size = Some(number(value)?.0),
                b"nr_inodes" => o.nr_inodes = Some(number(value)?.0),
                b"mode" => {
                    o.mode = u32::from_str_radix(text(value)?, 8).map_err(|_| Errno::EINVAL)? & 0o7777;
                }
                b"uid" => {
                    o.uid = text(value)?.parse().map_err(|_| Errno::EINVAL)?;
                    o.uid_given = true;
                }
                b"gid" => {
                    o.gid = text(value)?.parse().map_err(|_| Errno::EINVAL)?;
                    o.gid_given = true;
                }
                b"huge" | b"mpol" => {
                    text(value)?;
                }
                b"noswap" | b"inode32" | b"inode64" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }

    /// Resolves what was not given, knowing how many pages of memory there are.
    pub(super) fn with_defaults(mut self, memory: u64) -> Options {
        if let Some(n) = self.size.filter(|n| *n >= u64::MAX - 100_000) {
            self.size = Some((memory / 100).saturating_mul(u64::MAX - n));
        }
        self.max_pages = self.size.unwrap_or(memory / 2);
        self.max_inodes = self.nr_inodes.unwrap_or(memory / 2);
        self
    }

    /// The owner of the root if none was given.
    pub(super) fn owner_default(&mut self, uid: u32, gid: u32) {
        if !self.uid_given {
            self.uid = uid;
        }
        if !self.gid_given {
            self.gid = gid;
        }
    }

    /// As /proc/mounts shows them.
    pub(super) fn show(&self) -> String {
        let mut parts = Vec::new();
        if self.size.is_some() && self.max_pages != 0 {
            parts.push(format!("size={}k", self.max_pages * (PAGE / 1024)));
        }
        if let Some(n) = self.nr_inodes {
            parts.push(format!("nr_inodes={n}"));
        }
        if self.mode != 0o1777 {
            parts.push(format!("mode={:o}", self.mode));
        }
        if self.uid != 0 {
            parts.push(format!("uid={}", self.uid));
        }
        if self.gid != 0 {
            parts.push(format!("gid={}", self.gid));
        }
        parts.push("inode64".to_owned());
        parts.join(",")
    }
}
