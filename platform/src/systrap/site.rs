//! Call sites: which instructions around a `syscall` can give way to a jump, and the code that stands in for them.
//!
//! A jump of five bytes replaces either the one instruction of five bytes before the `syscall`, which stays where it is and works as ever
//! for whoever jumps to it, or the `syscall` and the first bytes of the comparison behind it. In the second case somebody may still come to
//! the comparison (a thread that was in the kernel, a signal's return): the jump's displacement is chosen such that what is found there
//! is no instruction in 64-bit mode, and the trap tells.

/// Bytes of the jump.
pub(super) const JUMP: usize = 5;
/// Bytes before and after the end of the `syscall` that are looked at.
pub(super) const BEFORE: usize = 8;
/// See `BEFORE`.
pub(super) const AFTER: usize = 6;
/// Code slots are handed out in units of so many bytes.
pub(super) const UNIT: u64 = 32;

/// What a site looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `mov $n,%eax; syscall`
    Number(u32),
    /// An instruction of five bytes that works at any address; then the `syscall`.
    Moved([u8; 5]),
    /// `syscall; cmp $imm32,%rax`
    Compare([u8; 6]),
}

/// musl's cancellation point: `mov %r11,8(%rsp)`.
const STORE_R11: [u8; 5] = [0x4c, 0x89, 0x5c, 0x24, 0x08];

/// Opcodes that do not exist in 64-bit mode.
const INVALID: [u8; 19] = [
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4,
    0xd6, 0xea,
];

impl Kind {
    /// `bytes`: `BEFORE` bytes up to the end of the `syscall`, then `AFTER`. `nr`: the number it was called with.
    pub(super) fn of(bytes: &[u8; BEFORE + AFTER], nr: u64) -> Option<Kind> {
        let (before, after) = bytes.split_at(BEFORE);
        if before[6..8] != [0x0f, 0x05] {
            return None;
        }
        let imm = u32::from_le_bytes([before[2], before[3], before[4], before[5]]);
        // With a REX.B prefix it loads r8d. That the number really was this one says the rest.
        let prefixed = before[0] & 0xf1 == 0x41;
        if before[1] == 0xb8 && !prefixed && u64::from(imm) == nr {
            return Some(Kind::Number(imm));
        }
        if before[1..6] == STORE_R11 && after[0] == 0xc3 {
            return Some(Kind::Moved(STORE_R11));
        }
        let compare: [u8; 6] = after[..6].try_into().ok()?;
        let ends = [[0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff], [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff]];
        ends.contains(&compare).then_some(Kind::Compare(compare))
    }

    /// Where the jump goes, for a site whose `syscall` ends at `after`.
    pub(super) fn jump_at(self, after: u64) -> u64 {
        match self {
            Kind::Number(_) | Kind::Moved(_) => after - 7,
            Kind::Compare(_) => after - 2,
        }
    }

    /// Units of code that stand in for it.
    pub(super) fn units(self) -> u64 {
        if matches!(self, Kind::Compare(_)) { 2 } else { 1 }
    }

    /// Whether the jump may lead to a slot.
    pub(super) fn fits(self, after: u64, slot: u64) -> bool {
        let Some(rel) = displacement(self.jump_at(after) + JUMP as u64, slot) else { return false };
        !matches!(self, Kind::Compare(_)) || INVALID.contains(&rel[1])
    }

    /// The jump.
    pub(super) fn jump(self, after: u64, slot: u64) -> Option<[u8; JUMP]> {
        let rel = displacement(self.jump_at(after) + JUMP as u64, slot)?;
        Some([0xe9, rel[0], rel[1], rel[2], rel[3]])
    }

    /// The code of a slot; `pointer` is where the address of the stub's way in lies.
    pub(super) fn code(self, after: u64, slot: u64, pointer: u64) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        let next = |out: &Vec<u8>, len: u64| slot + out.len() as u64 + len;
        match self {
            Kind::Number(nr) => {
                out.push(0xb8);
                out.extend(nr.to_le_bytes());
            }
            Kind::Moved(bytes) => out.extend(bytes),
            Kind::Compare(_) => {}
        }
        let go_on = if matches!(self, Kind::Compare(_)) { slot + GO_ON } else { after };
        // lea rcx, [go on]
        let rel = displacement(next(&out, 7), go_on)?;
        out.extend([0x48, 0x8d, 0x0d]);
        out.extend(rel);
        // jmp [pointer]
        let rel = displacement(next(&out, 6), pointer)?;
        out.extend([0xff, 0x25]);
        out.extend(rel);
        if let Kind::Compare(compare) = self {
            out.resize(GO_ON as usize - 8, 0xcc);
            out.extend(after.to_le_bytes());
            // As after the call: rcx is its return address.
            let rel = displacement(next(&out, 7), after)?;
            out.extend([0x48, 0x8d, 0x0d]);
            out.extend(rel);
            out.extend(compare);
            let rel = displacement(next(&out, 5), after + 6)?;
            out.push(0xe9);
            out.extend(rel);
        }
        out.resize((self.units() * UNIT) as usize, 0xcc);
        Some(out)
    }
}

/// Where in a slot of a `Compare` the code behind the call begins.
pub(super) const GO_ON: u64 = 24;

/// The 32-bit displacement from `from` to `to`.
fn displacement(from: u64, to: u64) -> Option<[u8; 4]> {
    let distance = to.wrapping_sub(from).cast_signed();
    Some(i32::try_from(distance).ok()?.to_le_bytes())
}

/// What an instruction pointer in a slot means at the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AtSite {
    /// The instruction pointer that guest, debugger and signal frames know.
    pub(super) rip: u64,
    /// rcx holds something of ours; this is the value after the call.
    pub(super) rcx: Option<u64>,
}

impl Kind {
    /// `off`: where in the slot.
    pub(super) fn at_site(self, after: u64, off: u64) -> AtSite {
        let plain = |rip| AtSite { rip, rcx: None };
        match self {
            Kind::Number(_) | Kind::Moved(_) if off < 5 => plain(after - 7),
            Kind::Number(_) | Kind::Moved(_) => plain(after - 2),
            Kind::Compare(_) if off < GO_ON => plain(after - 2),
            Kind::Compare(_) if off < GO_ON + 7 => AtSite { rip: after, rcx: Some(after) },
            Kind::Compare(_) if off < GO_ON + 13 => plain(after),
            Kind::Compare(_) => plain(after + 6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(before: &[u8], after: &[u8]) -> [u8; BEFORE + AFTER] {
        let mut out = [0x90; BEFORE + AFTER];
        out[BEFORE - before.len()..BEFORE].copy_from_slice(before);
        out[BEFORE..BEFORE + after.len()].copy_from_slice(after);
        out
    }

    #[test]
    fn patterns() {
        let number = site(&[0xb8, 39, 0, 0, 0, 0x0f, 0x05], &[0xc3]);
        assert_eq!(Kind::of(&number, 39), Some(Kind::Number(39)));
        assert_eq!(Kind::of(&number, 40), None, "the number was not loaded here");
        let r8 = site(&[0x41, 0xb8, 39, 0, 0, 0, 0x0f, 0x05], &[0xc3]);
        assert_eq!(Kind::of(&r8, 39), None);
        let go = site(&[0x0f, 0x05], &[0x48, 0x3d, 1, 0xf0, 0xff, 0xff]);
        assert!(matches!(Kind::of(&go, 7), Some(Kind::Compare(_))));
        let musl = site(&[0x4c, 0x89, 0x5c, 0x24, 8, 0x0f, 0x05], &[0xc3]);
        assert!(matches!(Kind::of(&musl, 7), Some(Kind::Moved(_))));
        assert_eq!(Kind::of(&site(&[0x0f, 0x34], &[0xc3]), 7), None);
    }

    #[test]
    fn code_leads_back() {
        let (after, slot, pointer) = (0x40_1009, 0x3f_0040, 0x3f_0000);
        let kind = Kind::Compare([0x48, 0x3d, 1, 0xf0, 0xff, 0xff]);
        let code = kind.code(after, slot, pointer).unwrap();
        let rel = |at: usize| i64::from(i32::from_le_bytes(code[at..at + 4].try_into().unwrap()));
        assert_eq!(slot.wrapping_add_signed(7 + rel(3)), slot + GO_ON);
        assert_eq!(slot.wrapping_add_signed(13 + rel(9)), pointer);
        assert_eq!(code[GO_ON as usize - 8..GO_ON as usize], after.to_le_bytes());
        let end = GO_ON as usize + 13;
        assert_eq!(code[end], 0xe9);
        assert_eq!((slot + end as u64 + 5).wrapping_add_signed(rel(end + 1)), after + 6);
        let fitting = (0..2048).map(|i| 0x3f_0000 + i * UNIT).filter(|s| kind.fits(after, *s)).count();
        assert!(fitting > 100, "{fitting}");
    }

    #[test]
    fn positions_at_the_site() {
        let n = Kind::Number(1);
        assert_eq!(n.at_site(100, 0).rip, 93);
        assert_eq!(n.at_site(100, 5).rip, 98);
        let c = Kind::Compare([0; 6]);
        assert_eq!(c.at_site(100, 0).rip, 98);
        assert_eq!(c.at_site(100, GO_ON), AtSite { rip: 100, rcx: Some(100) });
        assert_eq!(c.at_site(100, GO_ON + 13).rip, 106);
    }
}
