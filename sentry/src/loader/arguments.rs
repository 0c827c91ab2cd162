//! argv and envp: copying them in and the limits on their size.

use super::ExecArgs;
use abi::{Errno, Result};
use kernel::mm::Mm;
use kernel::uaccess::{UserCStr, UserPtr};

/// Longest single string with its NUL (`MAX_ARG_STRLEN`).
const MAX_STRING: usize = 32 * 4096;
/// Most strings in a vector.
const MAX_STRINGS: usize = 0x7fff_ffff;
/// What every limit allows (`ARG_MAX`).
const ARG_MIN: u64 = 32 * 4096;
/// Three quarters of the default stack: what no limit exceeds.
const ARG_CAP: u64 = (8 << 20) / 4 * 3;
/// Longest total that is copied in before the exact check is made.
const COPY_MAX: u64 = ARG_CAP + ARG_MIN;

/// Strings of a vector.
pub type Strings = Vec<Vec<u8>>;

/// Copies a NULL-terminated vector of strings in: EFAULT, E2BIG. A null vector is an empty one.
pub fn read_strings(mm: &Mm, vector: UserPtr<u64>) -> Result<Strings> {
    let mut out = Vec::new();
    let mut total = 0u64;
    if vector.is_null() {
        return Ok(out);
    }
    loop {
        let ptr = vector.add(out.len()).read(mm)?;
        if ptr == 0 {
            return Ok(out);
        }
        if out.len() >= MAX_STRINGS {
            return Err(Errno::E2BIG);
        }
        let s = UserCStr(ptr).read(mm, MAX_STRING, Errno::E2BIG)?;
        total += s.len() as u64 + 1 + 8;
        if total > COPY_MAX {
            return Err(Errno::E2BIG);
        }
        out.push(s);
    }
}

/// E2BIG when strings and pointers do not fit into a quarter of the stack (`bprm_stack_limits`).
pub(super) fn check_size(args: &ExecArgs<'_>, execfn: &[u8]) -> Result<()> {
    let limit = (args.limits.stack / 4).clamp(ARG_MIN, ARG_CAP.max(ARG_MIN));
    let mut total = execfn.len() as u64 + 1;
    for s in args.argv.iter().chain(&args.envp) {
        if s.len() >= MAX_STRING {
            return Err(Errno::E2BIG);
        }
        total += s.len() as u64 + 1;
    }
    let pointers = (args.argv.len().max(1) + args.envp.len()) as u64 * 8;
    if total.saturating_add(pointers) > limit { Err(Errno::E2BIG) } else { Ok(()) }
}
