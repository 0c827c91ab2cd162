//! `#!` lines (execve(2), "Interpreter scripts").

use super::HEAD;
use abi::{Errno, Result};

/// What a script asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub interpreter: Vec<u8>,
    /// All that follows the interpreter, as one argument.
    pub argument: Option<Vec<u8>>,
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Parses the beginning of a file; `None` when it is no script. ENOEXEC for a line without an interpreter, or whose
/// interpreter does not end within what was read.
pub fn parse(head: &[u8; HEAD]) -> Result<Option<Line>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    // The last byte of the buffer is never part of the line.
    let rest = &rest[..rest.len() - 1];
    let cut = rest.iter().position(|b| *b == b'\n' || *b == 0);
    let line = match cut {
        Some(end) => &rest[..end],
        None => {
            // Cut off: an argument may be, the interpreter's name must not.
            let name = rest.iter().position(|b| !is_blank(*b)).ok_or(Errno::ENOEXEC)?;
            if !rest[name..].iter().copied().any(is_blank) {
                return Err(Errno::ENOEXEC);
            }
            rest
        }
    };
    let start = line.iter().position(|b| !is_blank(*b)).ok_or(Errno::ENOEXEC)?;
    let end = line.iter().rposition(|b| !is_blank(*b)).map_or(start, |i| i + 1);
    let line = &line[start..end];
    let name_end = line.iter().position(|b| is_blank(*b)).unwrap_or(line.len());
    let argument: Vec<u8> = line[name_end..].iter().copied().skip_while(|b| is_blank(*b)).collect();
    let argument = if argument.is_empty() { None } else { Some(argument) };
    Ok(Some(Line { interpreter: line[..name_end].to_vec(), argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(s: &[u8]) -> [u8; HEAD] {
        let mut h = [0; HEAD];
        h[..s.len().min(HEAD)].copy_from_slice(&s[..s.len().min(HEAD)]);
        h
    }

    #[test]
    fn lines() {
        let line = |i: &str, a: Option<&str>| {
            Ok(Some(Line { interpreter: i.as_bytes().to_vec(), argument: a.map(|a| a.as_bytes().to_vec()) }))
        };
        assert_eq!(parse(&head(b"\x7fELF")), Ok(None));
        assert_eq!(parse(&head(b"#!/bin/sh\necho")), line("/bin/sh", None));
        assert_eq!(parse(&head(b"#! \t/bin/sh  -e  x \t\n")), line("/bin/sh", Some("-e  x")));
        assert_eq!(parse(&head(b"#!/bin/sh")), line("/bin/sh", None));
        assert_eq!(parse(&head(b"#!\n")), Err(Errno::ENOEXEC));
        assert_eq!(parse(&head(b"#!   \n")), Err(Errno::ENOEXEC));
        let long = [b"#!".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(parse(&head(&long)), Err(Errno::ENOEXEC));
        let long = [b"#!/x ".as_slice(), &[b'a'; 300]].concat();
        let cut = "a".repeat(HEAD - 1 - 5);
        assert_eq!(parse(&head(&long)), line("/x", Some(&cut)));
    }
}
