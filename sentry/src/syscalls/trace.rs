//! The table's entries as data, and the text of results.

use crate::Current;
use abi::Errno;
use kernel::{SysError, SysResult, Task};

/// One implemented call.
pub struct Entry {
    pub nr: u32,
    pub name: &'static str,
    /// (name, type) of each argument, as the handler declares them.
    pub args: &'static [(&'static str, &'static str)],
    /// The family file with the handler.
    pub family: &'static str,
    /// Appends the arguments as strace shows them.
    pub trace_args: fn(&Task, &[u64; 6], &mut String),
}

/// A call that is not in the table: refused for a reason, or ENOSYS and one log line for each number.
pub fn unknown(t: &mut Current<'_>, nr: u64) -> SysResult {
    if let Some(refused) = super::refused::find(nr) {
        return Err(refused.errno.into());
    }
    let name = abi::nr::name(nr).unwrap_or("a number that Linux has not");
    t.kernel().gaps.hit(name, nr);
    Err(Errno::ENOSYS.into())
}

/// The result as strace shows it.
pub fn describe_result(result: &SysResult) -> String {
    match result {
        Ok(v) if *v > 0xffff_ffff => format!("{v:#x}"),
        Ok(v) => format!("{v}"),
        Err(SysError::Errno(e)) => format!("-1 {e:?} ({e})"),
        Err(SysError::Restart(r)) => format!("? (restart: {r:?})"),
        Err(SysError::NoReturn) => "?".to_owned(),
    }
}

/// The whole call as strace shows it, without the result.
pub fn describe_call(task: &Task, nr: u64, args: &[u64; 6]) -> String {
    let mut out = String::new();
    match super::table::entry(nr) {
        Some(e) => {
            out.push_str(e.name);
            out.push('(');
            (e.trace_args)(task, args, &mut out);
            out.push(')');
        }
        None => {
            let name = abi::nr::name(nr).map_or_else(|| format!("syscall_{nr}"), str::to_owned);
            out.push_str(&name);
            out.push_str("(?)");
        }
    }
    out
}
