//! What is received from a socket of the host: data, control messages, reports of errors.

use super::{HostSocket, PIECE, host};
use crate::socket::inet::address::{encode, encode4};
use crate::socket::inet::control::{extended_error, pktinfo4, pktinfo6};
use crate::socket::inet::options::{SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, ip, ipv6, tcp, udp};
use crate::socket::{ControlMessage, Received};
use abi::socket::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, SOL_SOCKET, so};
use abi::{Errno, Result};
use kernel::io::Sink;
use netstack::Family;
use platform::hostsys::datagram::{self, Message, Told};
use platform::hostsys::edges::Side;
use platform::hostsys::inet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

impl HostSocket {
    /// recvmsg(2)
    pub(super) fn take(&self, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_ERRQUEUE != 0 {
            return self.take_report(dst);
        }
        let kept = flags & (MSG_OOB | MSG_PEEK);
        if self.stream() && kept & MSG_OOB == 0 && !self.given_back.lock().is_empty() {
            return self.take_given_back(dst, flags);
        }
        let mut buffer = vec![0; dst.remaining().min(PIECE)];
        let waits = flags & MSG_DONTWAIT == 0;
        // Who waits at a socket that is shut for datagrams hears of the end, who does not wait of nothing.
        let ended = !self.stream() && self.shut.load(Ordering::Relaxed) && waits;
        let mut once = || self.message(&mut buffer, kept);
        let got = if ended { host(once()) } else { self.later(Side::In, once) };
        let got = match got {
            Err(Errno::EAGAIN) if ended => return Ok(Received::default()),
            got => got?,
        };
        let mut control = Vec::new();
        self.tell(&got.told, &mut control);
        let data = buffer.get(..got.count).unwrap_or_default();
        // Of a stream, what is cut off is not given to anybody.
        let dropped = self.stream() && flags & MSG_TRUNC != 0 && flags & MSG_OOB == 0;
        let len = if data.is_empty() || dropped {
            got.count
        } else {
            match dst.put(data) {
                Ok(n) if n == got.count => n,
                result => {
                    // Of a stream it stays, as on Linux.
                    if self.stream() && kept == 0 {
                        self.given_back.lock().extend_from_slice(data);
                    }
                    return Err(result.err().unwrap_or(Errno::EFAULT));
                }
            }
        };
        if self.tells_left.load(Ordering::Relaxed) && flags & MSG_OOB == 0 {
            let left = i32::try_from(inet::readable(&*self.fd).unwrap_or(0)).unwrap_or(i32::MAX);
            control.push(ControlMessage::int(SOL_TCP, tcp::INQ, left));
        }
        Ok(Received {
            len: if got.cut && flags & MSG_TRUNC != 0 { got.length } else { len },
            from: got.from.filter(|_| !self.stream()).map(|from| self.encode(from)),
            flags: if got.cut { MSG_TRUNC } else { 0 },
            control,
            may_continue: self.stream() && got.count > 0 && kept == 0 && !dropped,
            ..Received::default()
        })
    }

    fn message(&self, buffer: &mut [u8], flags: u32) -> std::io::Result<Message> {
        if self.tells.load(Ordering::Relaxed) {
            return datagram::receive(&*self.fd, buffer, flags, self.stream());
        }
        let (count, length, from) = inet::receive_from(&*self.fd, buffer, flags, !self.stream())?;
        let cut = !self.stream() && length > count;
        Ok(Message { count, length, cut, from, told: Vec::new() })
    }

    /// What an earlier call could not write to the guest's memory comes first.
    fn take_given_back(&self, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        let data = self.given_back.lock().clone();
        let data = &data[..data.len().min(dst.remaining())];
        let dropped = flags & MSG_TRUNC != 0;
        if !data.is_empty() && !dropped && dst.put(data)? < data.len() {
            return Err(Errno::EFAULT);
        }
        let peek = flags & MSG_PEEK != 0;
        if !peek {
            let mut all = self.given_back.lock();
            let end = data.len().min(all.len());
            all.drain(..end);
        }
        Ok(Received { len: data.len(), may_continue: !peek && !dropped, ..Received::default() })
    }

    /// What the queue of errors has (`MSG_ERRQUEUE`).
    fn take_report(&self, dst: &mut dyn Sink) -> Result<Received> {
        if let Some(report) = self.copies.take(self.family) {
            return Ok(report);
        }
        let mut buffer = vec![0; dst.remaining().min(PIECE)];
        let got = host(datagram::receive(&*self.fd, &mut buffer, MSG_ERRQUEUE, true))?;
        let data = buffer.get(..got.count).unwrap_or_default();
        let len = if data.is_empty() { 0 } else { dst.put(data)? };
        let mut control = Vec::new();
        self.tell(&got.told, &mut control);
        Ok(Received {
            len,
            from: got.from.map(|from| self.encode(from)),
            flags: MSG_ERRQUEUE | if got.cut { MSG_TRUNC } else { 0 },
            control,
            ..Received::default()
        })
    }

    /// Control messages of what the host tells.
    fn tell(&self, told: &[Told], out: &mut Vec<ControlMessage>) {
        for one in told {
            match *one {
                Told::Time(ns) => self.options.stamp(ns, out),
                Told::Packet4(device, local, to) => out.push(pktinfo4(device, local, to)),
                Told::Packet6(device, to) => out.push(pktinfo6(device, to.into())),
                Told::Ttl(n) => out.push(ControlMessage::int(SOL_IP, ip::TTL, n)),
                Told::Tos(n) => out.push(ControlMessage { level: SOL_IP, kind: ip::TOS, data: vec![n] }),
                Told::HopLimit(n) => out.push(ControlMessage::int(SOL_IPV6, ipv6::HOPLIMIT, n)),
                Told::TrafficClass(n) => out.push(ControlMessage::int(SOL_IPV6, ipv6::TCLASS, n)),
                Told::Segment(n) => out.push(ControlMessage::int(SOL_UDP, udp::GRO, n)),
                Told::Lost(n) => {
                    out.push(ControlMessage::int(SOL_SOCKET, so::RXQ_OVFL, n.cast_signed()));
                }
                Told::Destination(SocketAddr::V4(to)) => {
                    let data = encode4(*to.ip(), to.port());
                    out.push(ControlMessage { level: SOL_IP, kind: ip::RECVORIGDSTADDR, data });
                }
                Told::Destination(to) => {
                    let data = encode(Family::V6, super::to_guest(to));
                    out.push(ControlMessage { level: SOL_IPV6, kind: ipv6::RECVORIGDSTADDR, data });
                }
                Told::Report(r) => {
                    let offender = r.offender.map(super::to_guest);
                    out.push(extended_error(self.family, r.errno, r.what, r.more, offender));
                }
            }
        }
    }
}
