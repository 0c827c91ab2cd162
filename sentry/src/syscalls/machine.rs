//! What speaks of the processor itself: modify_ldt(2).

use crate::Current;
use abi::Errno;
use kernel::SysResult;
use kernel::uaccess::UserPtr;

/// Entries of a local descriptor table.
const LDT_ENTRIES: u32 = 8192;

/// modify_ldt(2). The table of a process is empty and stays so: a 64-bit program has no use for one, and the
/// platforms run nothing else. Whoever wants an entry is told what a kernel without CONFIG_MODIFY_LDT_SYSCALL says.
pub fn modify_ldt(t: &mut Current<'_>, func: i32, ptr: UserPtr<[u32; 4]>, bytes: u64) -> SysResult {
    // The call gives an int: errors come without their upper half.
    let int = |e: Errno| Ok(u64::from((-i32::from(e.raw())).cast_unsigned()));
    match func {
        0 => Ok(0),
        2 => {
            let n = bytes.min(128);
            let zeroes = vec![0; usize::try_from(n).unwrap_or(0)];
            match t.mm().copy_out(ptr.addr(), &zeroes) {
                Ok(()) => Ok(n),
                Err(e) => int(e),
            }
        }
        1 | 0x11 => {
            if bytes != 16 {
                return int(Errno::EINVAL);
            }
            let [entry, base, limit, bits] = match ptr.read(&t.mm()) {
                Ok(d) => d,
                Err(e) => return int(e),
            };
            let contents = bits >> 1 & 3;
            let (not_present, old) = (bits >> 5 & 1 != 0, func == 1);
            if entry >= LDT_ENTRIES || contents == 3 && (old || !not_present) {
                return int(Errno::EINVAL);
            }
            // Emptying what is empty.
            let empty = base == 0 && limit == 0 && (old || bits & 0x7f == 0x28);
            if empty {
                return Ok(0);
            }
            kernel::gap!(t.kernel(), "modify_ldt with a descriptor");
            int(Errno::ENOSYS)
        }
        _ => int(Errno::ENOSYS),
    }
}
