//! Raw and ping sockets (raw(7), icmp(7)): packets above IP. What goes to this stack itself is handed over in
//! `local`; the rest goes through the packet engine.

mod local;

use crate::addr::{Endpoint, Family, unspecified};
use crate::datagram::{Datagram, DatagramBase, SendHow, reachable};
use crate::env::Waker;
use crate::error::{NetError, Result};
use crate::lengths::Way;
use crate::sieve::Shape;
use crate::stack::{BindOptions, RawWire, Stack};
use std::ops::Deref;
use std::sync::{Arc, Weak};

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
/// `IPPROTO_RAW`: for sending only.
pub const RAW: u8 = 255;

/// What changes of a raw socket, beside what all have.
#[derive(Default)]
pub struct RawState {
    /// `ICMP_FILTER`, `ICMPV6_FILTER`: a set bit keeps a type out.
    filter: [u32; 8],
    wire: Option<Box<dyn RawWire>>,
}

/// A raw or ping socket.
pub struct RawSocket {
    me: Weak<RawSocket>,
    pub protocol: u8,
    /// Sends echo requests and receives the answers to them.
    pub ping: bool,
    base: DatagramBase<RawState>,
}

impl Deref for RawSocket {
    type Target = DatagramBase<RawState>;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

/// How a raw socket sends beside what datagrams have.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawHow {
    /// `IP_HDRINCL`: the data begins with a header.
    pub header_included: bool,
    /// Where a checksum is to be put (`IPV6_CHECKSUM`).
    pub checksum_at: Option<usize>,
}

impl RawSocket {
    pub fn new(
        stack: &Arc<Stack>,
        family: Family,
        protocol: u8,
        ping: bool,
        waker: Arc<dyn Waker>,
    ) -> Arc<RawSocket> {
        let shape = Shape::Message { protocol, whole: family == Family::V4 && !ping };
        let base = DatagramBase::new(stack, family, waker, shape, RawState::default());
        let socket = Arc::new_cyclic(|me| RawSocket { me: me.clone(), protocol, ping, base });
        stack.list_raw(&socket);
        if !ping && protocol != RAW {
            socket.open_wire(None);
        }
        socket
    }

    /// Has the engine show this socket what comes from outside.
    fn open_wire(&self, ident: Option<u16>) {
        let Some(wire) = self.stack.wire() else { return };
        let new = wire.open_raw(&self.me, self.family == Family::V4, self.protocol, ident);
        self.lock().own.wire = new;
    }

    /// EINVAL for a second bind of a ping socket, EADDRNOTAVAIL.
    pub fn bind(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        self.check_local(to.ip, &options)?;
        if self.ping {
            if self.lock().local.port != 0 {
                return Err(NetError::Invalid);
            }
            self.take_ident(to.port)?;
        }
        let mut state = self.lock();
        state.local.ip = to.ip;
        state.options = options;
        Ok(())
    }

    pub fn set_bind_options(&self, options: BindOptions) {
        self.lock().options = options;
    }

    /// Takes an identifier, which others may have, too; 0 asks for one that nobody has.
    fn take_ident(&self, wish: u16) -> Result<u16> {
        let taken = |ident: u16| {
            self.stack
                .raw_sockets()
                .iter()
                .any(|s| s.id != self.id && s.ping && s.family == self.family && s.lock().local.port == ident)
        };
        let ident = if wish != 0 {
            wish
        } else {
            let fresh = || u16::try_from(self.stack.env.random_below(65535) + 1).unwrap_or(1);
            (0..1000).map(|_| fresh()).find(|i| !taken(*i)).ok_or(NetError::WouldBlock)?
        };
        self.lock().local.port = ident;
        self.open_wire(Some(ident));
        Ok(ident)
    }

    /// Sets the default destination. ENETUNREACH.
    pub fn connect(&self, to: Endpoint, options: BindOptions, how: &SendHow) -> Result<()> {
        let bound = self.lock().source();
        let to = reachable(to);
        let (source, device) = how.way(to.ip, bound);
        let route = self.route(how.hop(to.ip), source, device, how)?;
        if self.ping && self.lock().local.port == 0 {
            self.take_ident(0)?;
        }
        let mut state = self.lock();
        state.options = options;
        state.local.ip = bound.unwrap_or(route.source);
        state.remote = Some(to);
        Ok(())
    }

    pub fn disconnect(&self) {
        let mut state = self.lock();
        state.remote = None;
        state.local.ip = unspecified(self.family);
    }

    /// Sends a packet: EDESTADDRREQ, EINVAL, EACCES, ENETUNREACH, EMSGSIZE, EPIPE, or an error that came before.
    pub fn send(&self, to: Option<Endpoint>, data: &[u8], how: &SendHow, raw: RawHow) -> Result<()> {
        let (to, bound) = {
            let mut state = self.lock();
            (state.destination(to)?, how.source.or(state.source()))
        };
        let ident = if self.ping {
            self.check_ping(data)?;
            let ident = self.lock().local.port;
            Some(if ident == 0 { self.take_ident(0)? } else { ident })
        } else {
            None
        };
        let (wish, device) = how.way(to.ip, bound);
        // A header that is there already says all.
        let plain = SendHow { options: None, extensions: None, ..how.clone() };
        let how = if raw.header_included { &plain } else { how };
        let hop = how.hop(to.ip);
        let route = self.route(hop, wish, device, how)?;
        let source = wish.unwrap_or(route.source);
        let way = Way {
            to: self.told(to, data),
            hop,
            route: &route,
            source: wish,
            device,
            protocol: self.protocol,
        };
        let room = usize::try_from(route.mtu).unwrap_or(usize::MAX);
        let mut fragment = 0;
        if !raw.header_included {
            fragment = self.fits(&way, how, data.len())?;
        } else if data.len() > room {
            self.too_long(&way, how, route.mtu, false);
            return Err(NetError::MessageSize);
        }
        let from = Endpoint::new(source, ident.unwrap_or(0));
        let beside = how.beside(&self.stack, from, to, self.stack.env.realtime());
        if route.local {
            return self.send_local(source, to, hop, data, how, raw, ident, &beside, fragment);
        }
        let wire = self.stack.wire().ok_or(NetError::NetworkUnreachable)?;
        let how = SendHow { device, ..how.clone() };
        wire.send_raw(self.protocol, from, to, data, &how, raw, &beside.extra())
    }

    /// A destination as reports tell it: messages of ICMPv6 have type and code where others have a port.
    fn told(&self, to: Endpoint, data: &[u8]) -> Endpoint {
        match (self.protocol, data) {
            (ICMPV6, [kind, code, ..]) => to.with_port(u16::from_be_bytes([*kind, *code])),
            _ => to.with_port(0),
        }
    }

    /// Ping sockets send echo requests and nothing else.
    fn check_ping(&self, data: &[u8]) -> Result<()> {
        let kind = if self.family == Family::V4 { 8 } else { 128 };
        match data {
            [first, 0, ..] if data.len() >= 8 && *first == kind => Ok(()),
            _ => Err(NetError::Invalid),
        }
    }

    /// Whether a message's type is kept out.
    pub(crate) fn filtered(&self, kind: u8) -> bool {
        let state = self.lock();
        state.own.filter[usize::from(kind >> 5)] >> (kind & 31) & 1 == 1
    }

    pub fn filter(&self) -> [u32; 8] {
        self.lock().own.filter
    }
    pub fn set_filter(&self, filter: [u32; 8]) {
        self.lock().own.filter = filter;
    }

    pub fn close(&self) {
        let (queue, wire) = {
            let mut state = self.lock();
            (state.close(), state.own.wire.take())
        };
        drop(queue);
        drop(wire);
        self.stack.unlist_raw(self.id);
    }

    /// A packet that the engine received.
    pub(crate) fn arrived(&self, packet: Datagram, kind: Option<u8>) {
        if let (ICMP | ICMPV6, Some(kind), false) = (self.protocol, kind, self.ping)
            && self.filtered(kind)
        {
            return;
        }
        self.enqueue(packet);
    }
}

#[cfg(test)]
mod tests;
