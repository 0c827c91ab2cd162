//! How arguments come out of registers, and how strace prints them.

use kernel::Task;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::Fd;
use std::fmt::Write;

/// The type of a system call's argument.
pub trait Arg: Sized {
    /// From a register, as Linux' prototypes narrow it.
    fn decode(raw: u64) -> Self;
    /// As strace shows it. May read guest memory.
    fn trace(&self, task: &Task, out: &mut String);
}

impl Arg for i32 {
    fn decode(raw: u64) -> Self {
        u32::decode(raw).cast_signed()
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Arg for i64 {
    fn decode(raw: u64) -> Self {
        raw.cast_signed()
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Arg for u32 {
    #[expect(clippy::cast_possible_truncation, reason = "registers are narrowed as the C prototype does")]
    fn decode(raw: u64) -> Self {
        raw as u32
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = if *self < 4096 { write!(out, "{self}") } else { write!(out, "{self:#x}") };
    }
}

impl Arg for u64 {
    fn decode(raw: u64) -> Self {
        raw
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = if *self < 4096 { write!(out, "{self}") } else { write!(out, "{self:#x}") };
    }
}

impl Arg for usize {
    #[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits wide on x86-64")]
    fn decode(raw: u64) -> Self {
        raw as usize
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}

impl Arg for Fd {
    fn decode(raw: u64) -> Self {
        Fd(i32::decode(raw))
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ =
            if self.0 == abi::fcntl::AT_FDCWD { write!(out, "AT_FDCWD") } else { write!(out, "{}", self.0) };
    }
}

impl<T> Arg for UserPtr<T> {
    fn decode(raw: u64) -> Self {
        UserPtr::new(raw)
    }
    fn trace(&self, _: &Task, out: &mut String) {
        let _ = if self.is_null() { write!(out, "NULL") } else { write!(out, "{self:?}") };
    }
}

impl Arg for UserCStr {
    fn decode(raw: u64) -> Self {
        UserCStr(raw)
    }
    fn trace(&self, task: &Task, out: &mut String) {
        match task.mm().copy_in_str(self.0, 4096) {
            Ok(Some(s)) => {
                let cut = &s[..s.len().min(128)];
                let more = if cut.len() < s.len() { "..." } else { "" };
                let _ = write!(out, "\"{}\"{more}", cut.escape_ascii());
            }
            _ => {
                let _ = write!(out, "{:#x}", self.0);
            }
        }
    }
}
