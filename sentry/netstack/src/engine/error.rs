//! Errors of the engine, and errors that packets bring for sockets.

use std::net::IpAddr;

use super::chunk::Chunk;

/// Why a call did nothing. The socket layer turns them into Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No such endpoint (any more).
    Stale,
    WouldBlock,
    Invalid,
    NotConnected,
    InProgress,
    /// The local end was shut down for writing.
    BrokenPipe,
    ConnectionRefused,
    ConnectionReset,
    ConnectionAborted,
    TimedOut,
    HostUnreachable,
    NetworkUnreachable,
    ProtocolUnreachable,
    AccessDenied,
    AddressInUse,
    AddressNotAvailable,
    MessageTooLong,
    NoBuffers,
    InterfaceDown,
}

/// What an ICMP message (or the neighbour cache) says about a packet that was sent.
#[derive(Clone, Debug)]
pub struct PacketError {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub protocol: u8,
    /// The first bytes of the transport header of the packet, at least eight.
    pub header: [u8; 8],
    /// What is known of the packet from its transport header on.
    pub quote: Chunk,
    /// Bytes of that packet before its transport header.
    pub before: usize,
    pub error: Error,
    /// A hard error ends a connection attempt; others are remembered.
    pub hard: bool,
    /// The MTU, of a packet that was too big.
    pub mtu: Option<usize>,
    /// What the message says beside its type and code: that MTU, or where in a packet the problem is.
    pub info: u32,
    /// Where its extensions begin (RFC 4884), counted as the quote is, and whether they are sound.
    pub extension: Option<(u16, bool)>,
    /// Type and code of the message, and who sent it: none if it arose here.
    pub icmp: Option<(u8, u8, IpAddr)>,
    pub interface: u32,
}

impl PacketError {
    /// The ports of the packet: ours, and the peer's.
    pub fn ports(&self) -> (u16, u16) {
        (
            u16::from_be_bytes([self.header[0], self.header[1]]),
            u16::from_be_bytes([self.header[2], self.header[3]]),
        )
    }

    /// The sequence number, for TCP.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }
}
