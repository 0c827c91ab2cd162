//! POSIX access control lists (acl(5)) in the form of their extended attributes.

use super::inode::Perm;
use crate::creds::Creds;
use abi::{Errno, Result};

/// Name of the list that decides access.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of a directory's list for what is made in it.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list: entries in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Acl {
    /// From the bytes of the attribute; `None` for an empty list (which removes it). EINVAL when it is not
    /// a valid list, EOPNOTSUPP for another version.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() < 4 {
            return Err(Errno::EINVAL);
        }
        if u32_at(bytes, 0) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let body = &bytes[4..];
        if body.len() % 8 != 0 {
            return Err(Errno::EINVAL);
        }
        if body.is_empty() {
            return Ok(None);
        }
        let entries = body
            .chunks_exact(8)
            .map(|c| {
                let (tag, perm, id) = (u16_at(c, 0), u16_at(c, 2), u32_at(c, 4));
                if perm & !7 != 0 {
                    return Err(Errno::EINVAL);
                }
                let id = if tag == USER || tag == GROUP { id } else { NO_ID };
                Ok(Entry { tag, perm, id })
            })
            .collect::<Result<Vec<_>>>()?;
        let acl = Acl(entries);
        acl.check()?;
        Ok(Some(acl))
    }

    /// The rules of acl(5), "VALID ACLs", in the order Linux wants entries.
    fn check(&self) -> Result<()> {
        let mut last = 0;
        let mut mask = false;
        let mut needs_mask = false;
        for e in &self.0 {
            let ok = match e.tag {
                USER_OBJ | GROUP_OBJ | OTHER | MASK => e.tag > last,
                USER | GROUP => {
                    needs_mask = true;
                    e.tag >= last && e.id != NO_ID
                }
                _ => false,
            };
            if !ok {
                return Err(Errno::EINVAL);
            }
            mask |= e.tag == MASK;
            last = e.tag;
        }
        let has = |tag| self.0.iter().any(|e| e.tag == tag);
        if has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER) && (mask || !needs_mask) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The bytes of the attribute.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for e in &self.0 {
            out.extend_from_slice(&e.tag.to_le_bytes());
            out.extend_from_slice(&e.perm.to_le_bytes());
            out.extend_from_slice(&e.id.to_le_bytes());
        }
        out
    }

    fn find(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|e| e.tag == tag).map(|e| e.perm)
    }

    /// Whether the file's mode says it all; and the nine bits of that mode (`posix_acl_equiv_mode`).
    pub fn mode(&self) -> (u32, bool) {
        let group = self.find(MASK).or(self.find(GROUP_OBJ)).unwrap_or(0);
        let mode = (self.find(USER_OBJ).unwrap_or(0) << 6) | (group << 3) | self.find(OTHER).unwrap_or(0);
        let plain = self.0.iter().all(|e| matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER));
        (u32::from(mode), plain)
    }

    /// chmod(2) on a file with this list.
    pub fn chmod(&mut self, mode: u32) {
        let bits = |shift: u32| u16::try_from((mode >> shift) & 7).unwrap_or(0);
        let has_mask = self.find(MASK).is_some();
        for e in &mut self.0 {
            match e.tag {
                USER_OBJ => e.perm = bits(6),
                MASK => e.perm = bits(3),
                GROUP_OBJ if !has_mask => e.perm = bits(3),
                OTHER => e.perm = bits(0),
                _ => {}
            }
        }
    }

    /// The list of a new file in a directory with this default list, and the file's nine mode bits
    /// (`posix_acl_create_masq`).
    pub fn for_new(&self, mode: u32) -> (Acl, u32) {
        let mut acl = self.clone();
        let has_mask = acl.find(MASK).is_some();
        let bits = |shift: u32| u16::try_from((mode >> shift) & 7).unwrap_or(0);
        for e in &mut acl.0 {
            match e.tag {
                USER_OBJ => e.perm &= bits(6),
                MASK => e.perm &= bits(3),
                GROUP_OBJ if !has_mask => e.perm &= bits(3),
                OTHER => e.perm &= bits(0),
                _ => {}
            }
        }
        let (new, _) = acl.mode();
        (acl, new)
    }

    /// Whether the list allows what is wanted (bits of rwx) to somebody who is not the owner
    /// (`posix_acl_permission`).
    pub fn allows(&self, creds: &Creds, perm: &Perm, want: u16) -> bool {
        let mask = self.find(MASK).unwrap_or(7);
        if creds.fsuid == perm.uid {
            return self.find(USER_OBJ).is_some_and(|p| p & want == want);
        }
        if let Some(e) = self.0.iter().find(|e| e.tag == USER && e.id == creds.fsuid) {
            return e.perm & mask & want == want;
        }
        let mut in_some_group = false;
        for e in &self.0 {
            let gid = match e.tag {
                GROUP_OBJ => perm.gid,
                GROUP => e.id,
                _ => continue,
            };
            if creds.in_group(gid) {
                in_some_group = true;
                if e.perm & want == want {
                    return e.perm & mask & want == want;
                }
            }
        }
        !in_some_group && self.find(OTHER).is_some_and(|p| p & want == want)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect();
        Acl(entries).to_bytes()
    }

    #[test]
    fn parse_mode_and_inherit() {
        let b = bytes(&[(1, 7, NO_ID), (2, 6, 1000), (4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 0, NO_ID)]);
        let acl = Acl::parse(&b).unwrap().unwrap();
        assert_eq!(acl.to_bytes(), b);
        assert_eq!(acl.mode(), (0o770, false));
        let (new, mode) = acl.for_new(0o640);
        assert_eq!(mode, 0o640);
        let mut creds = Creds::root(crate::creds::UserNamespace::root());
        creds.fsuid = 1000;
        creds.fsgid = 1000;
        let perm = Perm { mode: 0o640, uid: 0, gid: 0 };
        assert!(acl.allows(&creds, &perm, 6));
        assert!(!new.allows(&creds, &perm, 2));
        assert!(new.allows(&creds, &perm, 4));
        assert!(Acl::parse(&bytes(&[(1, 7, NO_ID), (2, 6, 1000), (4, 5, NO_ID), (0x20, 0, NO_ID)])).is_err());
        assert!(Acl::parse(&bytes(&[(4, 5, NO_ID), (1, 7, NO_ID), (0x20, 0, NO_ID)])).is_err());
    }
}
