//! What the sentry has said before a panic ended it. It may be in a guest's hands by then: what it says is cut and escaped.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use sentry::boot::last_words::MOST;

/// Our end of a pipe; the other one is the sentry's.
#[derive(Debug)]
pub struct LastWords(File);

impl LastWords {
    /// Both ends. Neither blocks.
    pub fn pair() -> Result<(LastWords, OwnedFd)> {
        let (ours, theirs) = std::io::pipe().context("cannot make a pipe")?;
        let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
        for end in [&ours, &theirs] {
            rustix::io::ioctl_fionbio(end, true).context("cannot make a pipe")?;
        }
        Ok((LastWords(File::from(ours)), theirs))
    }

    /// What was said, in one line of plain characters; `None` for nothing.
    pub fn text(&self) -> Option<String> {
        let mut bytes = [0; MOST];
        let length = (&self.0).read(&mut bytes).ok().filter(|length| *length > 0)?;
        Some(plain(&bytes[..length]))
    }
}

fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).trim().chars() {
        match c {
            // A panic's place and reason are two lines.
            '\n' => text.push(' '),
            ' '..='~' if c != '\\' => text.push(c),
            _ => text.extend(c.escape_default()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn nothing_reaches_a_terminal_as_it_is() {
        let hostile = "panicked at a.rs:1:2:\nno\x1b[2J \u{202e}\\ \u{fffd}".as_bytes();
        assert_eq!(plain(hostile), r"panicked at a.rs:1:2: no\u{1b}[2J \u{202e}\\ \u{fffd}");
        assert_eq!(plain(b"\xff"), r"\u{fffd}");
    }

    #[test]
    fn only_so_much_is_read() {
        let (words, theirs) = LastWords::pair().unwrap();
        assert_eq!(words.text(), None);
        let mut theirs = File::from(theirs);
        while theirs.write(&[b'x'; 4096]).is_ok() {}
        assert_eq!(words.text().map(|t| t.len()), Some(MOST));
    }
}
