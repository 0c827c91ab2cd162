//! capget(2), capset(2).

use crate::Current;
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::creds::CapSet;
use kernel::uaccess::UserPtr;

const V1: u32 = 0x1998_0330;
const V2: u32 = 0x2007_1026;
const V3: u32 = 0x2008_0522;

/// How many words each set has in the version of the header; EINVAL for an unknown one, with ours written back.
fn words(t: &Current<'_>, header: UserPtr<[u32; 2]>) -> Result<(usize, i32)> {
    let mm = t.mm();
    let [version, pid] = header.read(&mm)?;
    match version {
        V1 => Ok((1, pid.cast_signed())),
        V2 | V3 => Ok((2, pid.cast_signed())),
        _ => {
            header.cast::<u32>().write(&mm, &V3)?;
            Err(Errno::EINVAL)
        }
    }
}

pub fn capget(t: &mut Current<'_>, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> SysResult {
    let (n, pid) = match words(t, header) {
        // Asking for the version with no place for the answer.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        r => r?,
    };
    if data.is_null() {
        return Ok(0);
    }
    if pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let c = match pid {
        0 => t.creds(),
        p => t.pid_ns().task(p).ok_or(Errno::ESRCH)?.creds(),
    };
    let half = |s: CapSet, i: usize| -> u32 {
        let bits = s.bits() >> (32 * i);
        u32::try_from(bits & 0xffff_ffff).unwrap_or(0)
    };
    let out: Vec<[u32; 3]> =
        (0..n).map(|i| [half(c.effective, i), half(c.permitted, i), half(c.inheritable, i)]).collect();
    data.write_array(&t.mm(), &out)?;
    Ok(0)
}

pub fn capset(t: &mut Current<'_>, header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> SysResult {
    let (n, pid) = words(t, header)?;
    if pid != 0 && pid != t.own_tid() {
        return Err(Errno::EPERM.into());
    }
    let given = data.read_array(&t.mm(), n)?;
    let set = |which: usize| {
        let bits =
            given.iter().enumerate().map(|(i, w)| u64::from(w[which]) << (32 * i)).fold(0, |a, b| a | b);
        CapSet::from_bits_truncate(bits)
    };
    let (effective, permitted, inheritable) = (set(0), set(1), set(2));
    let old = t.creds();
    let may_add = old.has_cap(CapSet::SETPCAP);
    if !may_add && !(old.inheritable | old.permitted).contains(inheritable) {
        return Err(Errno::EPERM.into());
    }
    if !(old.inheritable | old.bounding).contains(inheritable)
        || !old.permitted.contains(permitted)
        || !permitted.contains(effective)
    {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    new.ambient &= permitted & inheritable;
    t.set_creds(new);
    Ok(0)
}
