//! The initial stack: strings, random bytes, the auxiliary vector, the pointers (getauxval(3); the order is Linux').

use super::elf::{Image, STACK_FLAGS};
use super::{ExecArgs, Identity};
use abi::{Errno, PAGE_SIZE, Result, page_down, page_up};
use kernel::mm::{Mm, MmapArgs, Placement};
use platform::Prot;
use std::sync::Arc;

const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_MINSIGSTKSZ: u64 = 51;

/// What a signal frame takes beside the floating-point image, with its alignment.
const FRAME_SIZE: u64 = 944;
/// Room that the stack has at first beyond its contents.
const STACK_EXTRA: u64 = 128 << 10;
/// Bit of `AT_HWCAP2`: user space may use rdfsbase and kin.
const HWCAP2_FSGSBASE: u64 = 2;

/// Writes downwards from an address.
struct Down {
    at: u64,
    /// Everything from `at` up to the top.
    bytes: Vec<u8>,
}

impl Down {
    fn push(&mut self, data: &[u8]) -> u64 {
        self.bytes.extend(data.iter().rev());
        self.at -= data.len() as u64;
        self.at
    }
    fn string(&mut self, s: &[u8]) -> u64 {
        self.push(&[0]);
        self.push(s)
    }
    /// Moves down to `to` with zeroes.
    fn skip_to(&mut self, to: u64) {
        let n = usize::try_from(self.at - to).unwrap_or(0);
        self.bytes.extend(std::iter::repeat_n(0, n));
        self.at = to;
    }
}

/// Maps and fills the stack; the stack pointer to start with.
pub(super) fn build(
    mm: &Arc<Mm>,
    args: &ExecArgs<'_>,
    execfn: &[u8],
    image: &Image,
    identity: &Identity,
) -> Result<u64> {
    let top = image.stack_top;
    let mut d = Down { at: top, bytes: Vec::new() };
    d.push(&[0; 8]);
    let execfn_at = d.string(execfn);
    let mut env_at: Vec<u64> = args.envp.iter().rev().map(|s| d.string(s)).collect();
    env_at.reverse();
    let env_range = d.at..execfn_at;
    let mut arg_at: Vec<u64> = args.argv.iter().rev().map(|s| d.string(s)).collect();
    arg_at.reverse();
    let arg_range = d.at..env_range.start;
    // Colours the caches as Linux does.
    let shift = if args.no_randomize { 0 } else { platform::hostsys::rand::u64() % 8192 };
    d.skip_to((d.at - shift) & !15);
    let platform_at = d.string(b"x86_64");
    let mut seed = [0; 16];
    platform::hostsys::rand::fill(&mut seed);
    let random_at = d.push(&seed);

    let host = &args.kernel.machine.host;
    let fsgsbase = host.flags.contains(&"fsgsbase");
    let fpu = args.kernel.platform.features().fpu_len as u64;
    let ns = &identity.creds.user_ns;
    let c = &identity.creds;
    let mut auxv: Vec<(u64, u64)> = Vec::new();
    let vdso = mm.layout().vdso;
    if vdso != 0 {
        auxv.push((AT_SYSINFO_EHDR, vdso));
    }
    auxv.extend([
        (AT_MINSIGSTKSZ, fpu + FRAME_SIZE),
        (AT_HWCAP, host.hwcap),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, 100),
        (AT_PHDR, image.phdr),
        (AT_PHENT, 56),
        (AT_PHNUM, image.phnum),
        (AT_BASE, image.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, u64::from(ns.uid_in(c.uid))),
        (AT_EUID, u64::from(ns.uid_in(c.euid))),
        (AT_GID, u64::from(ns.gid_in(c.gid))),
        (AT_EGID, u64::from(ns.gid_in(c.egid))),
        (AT_SECURE, u64::from(identity.secure)),
        (AT_RANDOM, random_at),
        (AT_HWCAP2, if fsgsbase { HWCAP2_FSGSBASE } else { 0 }),
        (AT_EXECFN, execfn_at),
        (AT_PLATFORM, platform_at),
        (0, 0),
    ]);
    let words = 1 + arg_at.len() + 1 + env_at.len() + 1 + auxv.len() * 2;
    let rsp = (d.at - words as u64 * 8) & !15;
    let mut table: Vec<u64> = Vec::with_capacity(words);
    table.push(arg_at.len() as u64);
    table.extend(&arg_at);
    table.push(0);
    table.extend(&env_at);
    table.push(0);
    table.extend(auxv.iter().flat_map(|(k, v)| [*k, *v]));
    let raw: Vec<u8> = table.iter().flat_map(|w| w.to_le_bytes()).collect();
    d.skip_to(rsp + raw.len() as u64);
    d.push(&raw);

    let used = page_up(top - rsp).ok_or(Errno::E2BIG)?;
    let size = used + STACK_EXTRA.min(page_down(args.limits.stack).saturating_sub(used));
    let prot = Prot::READ | Prot::WRITE | if image.exec_stack { Prot::EXEC } else { Prot::empty() };
    let at = Placement::FixedNoReplace(top - size);
    let map = MmapArgs { at, len: size, prot, flags: STACK_FLAGS, file: None, populate: false, name: None };
    mm.mmap(map, &args.limits).map_err(|_| Errno::ENOMEM)?;
    d.bytes.reverse();
    mm.copy_out(rsp, &d.bytes)?;
    mm.set_layout(|l| {
        l.start_stack = rsp;
        l.arg = arg_range;
        l.env = env_range;
        l.auxv = auxv;
    });
    Ok(rsp)
}
