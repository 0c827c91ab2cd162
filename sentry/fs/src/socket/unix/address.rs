//! Addresses of AF_UNIX (unix(7)) and the abstract name space.

use super::{Kind, UnixSocket};
use abi::socket::AF_UNIX;
use abi::{Errno, Result};
use kernel::vfs::Caller;
use ksync::{LockClass, Mutex};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// `sizeof(sun_path)`
const PATH_LEN: usize = 108;

/// An address that a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixAddr {
    /// A path, as it was given, without its NUL.
    Path(Vec<u8>),
    /// A name in the abstract name space, without the leading NUL.
    Abstract(Vec<u8>),
}

/// What an address argument says.
#[derive(Debug)]
pub enum Parsed {
    Addr(UnixAddr),
    /// Only the family: choose an address (bind).
    Auto,
}

impl UnixAddr {
    /// From a `struct sockaddr_un`; EINVAL.
    pub fn parse(raw: &[u8]) -> Result<Parsed> {
        let family: [u8; 2] = raw.get(..2).and_then(|f| f.try_into().ok()).ok_or(Errno::EINVAL)?;
        let path = raw.get(2..).unwrap_or_default();
        if path.len() > PATH_LEN || u16::from_ne_bytes(family) != AF_UNIX {
            return Err(Errno::EINVAL);
        }
        Ok(match path {
            [] => Parsed::Auto,
            [0, name @ ..] => Parsed::Addr(UnixAddr::Abstract(name.to_vec())),
            _ => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                Parsed::Addr(UnixAddr::Path(path[..end].to_vec()))
            }
        })
    }

    /// As a `struct sockaddr_un`.
    pub fn encode(addr: Option<&UnixAddr>) -> Vec<u8> {
        let mut out = AF_UNIX.to_ne_bytes().to_vec();
        match addr {
            None => {}
            Some(UnixAddr::Path(p)) => {
                out.extend(p);
                out.push(0);
            }
            Some(UnixAddr::Abstract(n)) => {
                out.push(0);
                out.extend(n);
            }
        }
        out
    }
}

/// The abstract names of a network namespace.
pub struct AbstractNames {
    /// Each kind of socket has names of its own.
    names: Mutex<BTreeMap<(Kind, Vec<u8>), Weak<UnixSocket>>>,
    /// All sockets of the namespace, for /proc/net/unix; also some that are gone.
    all: Mutex<Vec<Weak<UnixSocket>>>,
    next: std::sync::atomic::AtomicU32,
}

impl AbstractNames {
    /// Those of the caller's network namespace.
    pub fn of(cx: &Caller<'_>) -> Arc<AbstractNames> {
        let new = || AbstractNames {
            names: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            all: Mutex::new(LockClass::Leaf, Vec::new()),
            next: std::sync::atomic::AtomicU32::new(0),
        };
        match cx.task {
            Some(t) => t.namespaces().net.objects.get_or_init(new),
            None => Arc::new(new()),
        }
    }

    /// Takes a socket into the list.
    pub fn enlist(&self, socket: &Arc<UnixSocket>) {
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            // Before it grows: those that are gone make room.
            all.retain(|s| s.strong_count() > 0);
        }
        all.push(Arc::downgrade(socket));
    }

    /// The sockets there are, oldest first.
    pub fn sockets(&self) -> Vec<Arc<UnixSocket>> {
        self.all.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Finds the socket of a name.
    pub fn find(&self, kind: Kind, name: &[u8]) -> Option<Arc<UnixSocket>> {
        self.names.lock().get(&(kind, name.to_vec())).and_then(Weak::upgrade)
    }

    /// Takes a name; EADDRINUSE.
    pub fn bind(&self, name: &[u8], socket: &Arc<UnixSocket>) -> Result<()> {
        let mut names = self.names.lock();
        let key = (socket.kind, name.to_vec());
        if names.get(&key).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(key, Arc::downgrade(socket));
        Ok(())
    }

    /// Takes a free name of five hexadecimal digits.
    pub fn autobind(&self, socket: &Arc<UnixSocket>) -> Result<UnixAddr> {
        for _ in 0..0x10_0000 {
            let n = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) & 0xf_ffff;
            let name = format!("{n:05x}").into_bytes();
            if self.bind(&name, socket).is_ok() {
                return Ok(UnixAddr::Abstract(name));
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Gives a name back.
    pub fn unbind(&self, name: &[u8], socket: &UnixSocket) {
        let mut names = self.names.lock();
        let key = (socket.kind, name.to_vec());
        if names.get(&key).is_some_and(|s| std::ptr::eq(s.as_ptr(), socket)) {
            names.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_as_linux_does() {
        let parse = |b: &[u8]| UnixAddr::parse(&[&1u16.to_ne_bytes(), b].concat());
        assert!(matches!(parse(b"").unwrap(), Parsed::Auto));
        let Parsed::Addr(a) = parse(b"/a\0junk").unwrap() else { panic!() };
        assert_eq!(a, UnixAddr::Path(b"/a".to_vec()));
        assert_eq!(UnixAddr::encode(Some(&a)).len(), 5);
        let Parsed::Addr(a) = parse(b"\0x\0y").unwrap() else { panic!() };
        assert_eq!(a, UnixAddr::Abstract(b"x\0y".to_vec()));
        assert!(parse(&[b'a'; 109]).is_err() && parse(&[b'a'; 108]).is_ok());
        assert!(UnixAddr::parse(&[2, 0, b'/']).is_err() && UnixAddr::parse(&[1]).is_err());
    }
}
