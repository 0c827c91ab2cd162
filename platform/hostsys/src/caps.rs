//! Capabilities of the calling thread (call before there are other threads).

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set, remove_capability_from_bounding_set};
use std::io;

/// CAP_LAST_CAP is below this on every kernel so far.
const MAX: u32 = 63;

/// The sets of a thread as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// capget(2).
pub fn get() -> io::Result<CapSets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 takes two data elements.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let join = |f: fn(&Data) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(CapSets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// capset(2).
pub fn set(sets: CapSets) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let part = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [part(0), part(32)];
    // SAFETY: version 3 takes two data elements.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_of(cap: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1u64.checked_shl(cap).unwrap_or(0))
}

/// Whether a capability is in the bounding set; `None` if the kernel does not know it.
pub fn bounding_has(cap: u32) -> Option<bool> {
    capability_is_in_bounding_set(set_of(cap)).ok()
}

/// Takes everything but `keep` out of the bounding set. Needs CAP_SETPCAP for what is still in.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for cap in 0..=MAX {
        match bounding_has(cap) {
            None => break,
            Some(true) if keep >> cap & 1 == 0 => remove_capability_from_bounding_set(set_of(cap))?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// Clears the ambient set.
pub fn clear_ambient() -> io::Result<()> {
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// Keeps exactly the capabilities of the mask (those that are permitted now), effective and permitted, nothing inheritable or ambient,
/// and cuts the bounding set down to them where the process may (a process without CAP_SETPCAP cannot; it can then gain
/// nothing either once no_new_privs is set, so that is no error).
pub fn keep_only(mask: u64) -> io::Result<()> {
    clear_ambient()?;
    match limit_bounding(mask) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        other => other?,
    }
    let kept = get()?.permitted & mask;
    set(CapSets { effective: kept, permitted: kept, inheritable: 0 })
}

/// Drops everything.
pub fn drop_all() -> io::Result<()> {
    keep_only(0)
}
