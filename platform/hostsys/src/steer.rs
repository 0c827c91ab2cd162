//! One listening socket for all TCP ports of 127.0.0.1 in a network namespace: a program of a few instructions, which the
//! host's kernel asks for each connection there (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9), names the socket.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const SOCKMAP: u32 = 15;
const PROGRAM: u32 = 30;
const ATTACH: u32 = 36;

/// What the program calls.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

/// Fields of `struct bpf_sk_lookup`.
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;

const TCP: i32 = 6;
/// 127.0.0.1, as it stands in memory.
const LOCALHOST: i32 = i32::from_ne_bytes([127, 0, 0, 1]);

/// `union bpf_attr`, as far as it is used here; the rest is zero. What it has the address of lives as long.
struct Attributes<'a> {
    bytes: [u8; 120],
    named: PhantomData<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    fn new() -> Attributes<'a> {
        Attributes { bytes: [0; 120], named: PhantomData }
    }

    fn with<const N: usize>(mut self, at: usize, bytes: [u8; N]) -> Attributes<'a> {
        self.bytes[at..at + N].copy_from_slice(&bytes);
        self
    }

    fn word(self, at: usize, value: u32) -> Attributes<'a> {
        self.with(at, value.to_ne_bytes())
    }

    fn fd(self, at: usize, fd: RawFd) -> Attributes<'a> {
        self.with(at, fd.to_ne_bytes())
    }

    fn address(self, at: usize, of: &'a [u8]) -> Attributes<'a> {
        self.with(at, (of.as_ptr() as u64).to_ne_bytes())
    }
}

/// bpf(2); the descriptor that it makes, if it makes one. Nothing but [`all_of_localhost`] below calls it.
fn bpf(command: i32, attributes: &Attributes<'_>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the kernel reads the attributes, which have the size that is told, and what they have the addresses of:
    // keys and values of the map's sizes, the told number of instructions, a text with its zero. A descriptor is new.
    unsafe {
        let size = attributes.bytes.len();
        match libc::syscall(libc::SYS_bpf, command, attributes.bytes.as_ptr(), size) {
            ..0 => Err(io::Error::last_os_error()),
            _ if command == MAP_UPDATE_ELEM => Ok(None),
            fd => Ok(Some(OwnedFd::from_raw_fd(fd as RawFd))),
        }
    }
}

fn bpf_fd(command: i32, attributes: &Attributes<'_>) -> io::Result<OwnedFd> {
    bpf(command, attributes)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, to | from << 4, a, b, c, d, e, f]
}

/// Registers: r1 to r5 are arguments, r6 to r9 survive calls, r10 is the frame.
fn program(map: RawFd) -> Vec<u8> {
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const LOAD: u8 = 0x61;
    const STORE: u8 = 0x62;
    const MAP: u8 = 0x18;
    const MAP_BY_FD: u8 = 1;
    const CALL: u8 = 0x85;
    const IF_EQUAL: u8 = 0x15;
    const UNLESS_EQUAL: u8 = 0x55;
    const RETURN: u8 = 0x95;
    [
        instruction(MOVE, 6, 1, 0, 0),
        instruction(LOAD, 2, 6, PROTOCOL, 0),
        instruction(UNLESS_EQUAL, 2, 0, 16, TCP),
        instruction(LOAD, 2, 6, LOCAL_IP4, 0),
        instruction(UNLESS_EQUAL, 2, 0, 14, LOCALHOST),
        // The socket is number 0 of the map.
        instruction(STORE, 10, 0, -4, 0),
        instruction(MAP, 1, MAP_BY_FD, 0, map),
        instruction(0, 0, 0, 0, 0),
        instruction(MOVE, 2, 10, 0, 0),
        instruction(ADD, 2, 0, 0, -4),
        instruction(CALL, 0, 0, 0, MAP_LOOKUP_ELEM),
        instruction(IF_EQUAL, 0, 0, 7, 0),
        instruction(MOVE, 7, 0, 0, 0),
        instruction(MOVE, 1, 6, 0, 0),
        instruction(MOVE, 2, 7, 0, 0),
        instruction(SET, 3, 0, 0, 0),
        instruction(CALL, 0, 0, 0, SK_ASSIGN),
        instruction(MOVE, 1, 7, 0, 0),
        instruction(CALL, 0, 0, 0, SK_RELEASE),
        // Let it pass, to that socket or wherever it would have gone.
        instruction(SET, 0, 0, 0, 1),
        instruction(RETURN, 0, 0, 0, 0),
    ]
    .concat()
}

/// Has every TCP connection to 127.0.0.1 in the caller's network namespace come to `listener`, whatever its port, as long as
/// what this gives is open. getsockname(2) of the accepted socket tells the port. Needs CAP_NET_ADMIN and CAP_BPF.
pub fn all_of_localhost(listener: impl AsFd) -> io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Dual MIT/GPL";
    // type, key_size, value_size, max_entries
    let map = Attributes::new().word(0, SOCKMAP).word(4, 4).word(8, 8).word(12, 1);
    let map = bpf_fd(MAP_CREATE, &map)?;
    let key = 0u32.to_ne_bytes();
    let value = u64::try_from(listener.as_fd().as_raw_fd()).unwrap_or(u64::MAX).to_ne_bytes();
    let update = Attributes::new().fd(0, map.as_raw_fd()).address(8, &key).address(16, &value);
    bpf(MAP_UPDATE_ELEM, &update)?;
    let code = program(map.as_raw_fd());
    let count = u32::try_from(code.len() / 8).unwrap_or(0);
    // prog_type, insn_cnt, insns, license, …, expected_attach_type
    let load = Attributes::new().word(0, PROGRAM).word(4, count).address(8, code.as_slice());
    let load = load.address(16, LICENSE.to_bytes_with_nul()).word(68, ATTACH);
    let program = bpf_fd(PROG_LOAD, &load)?;
    let namespace = File::open("/proc/thread-self/ns/net")?;
    let link = Attributes::new().fd(0, program.as_raw_fd()).fd(4, namespace.as_raw_fd()).word(8, ATTACH);
    bpf_fd(LINK_CREATE, &link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// In a namespace of its own, if there may be one.
    #[test]
    fn every_port_until_it_is_closed() {
        std::thread::spawn(|| {
            if let Err(error) = crate::ns::unshare(crate::ns::Namespaces::NET) {
                crate::ns::skipped(&format!("no private network namespace: {error}"));
                return;
            }
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            if !up.is_ok_and(|status| status.success()) {
                crate::ns::skipped("no ip");
                return;
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let link = match all_of_localhost(&listener) {
                Ok(link) => link,
                Err(error) => {
                    crate::ns::skipped(&error.to_string());
                    return;
                }
            };
            for port in [1, 80, 40_000] {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (mut server, _) = listener.accept().unwrap();
                assert_eq!(server.local_addr().unwrap().port(), port);
                server.write_all(b"x").unwrap();
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                assert_eq!(byte, *b"x");
            }
            // Other addresses of loopback are none of ours.
            TcpStream::connect("127.0.0.11:80").unwrap_err();
            drop(link);
            TcpStream::connect("127.0.0.1:80").unwrap_err();
        })
        .join()
        .unwrap();
    }
}
