//! Raw and ping sockets on the packet engine.

use super::{PacketWire, fragmenting, name, report};
use crate::addr::Endpoint;
use crate::buf::Buf;
use crate::datagram::{Datagram, SendHow};
use crate::engine::Handle;
use crate::engine::error::PacketError;
use crate::engine::events::{self, DatagramSink};
use crate::engine::raw::{RawBinding, Way};
use crate::engine::sending::{Extra, Outgoing};
use crate::error::Result;
use crate::raw::{ICMPV6, RawHow, RawSocket};
use crate::stack::RawWire;
use std::sync::{Arc, Weak};

/// A socket's endpoint in the engine.
pub(super) struct Opened {
    wire: Arc<PacketWire>,
    handle: Handle,
}

impl RawWire for Opened {}

impl Opened {
    pub(super) fn new(
        wire: Arc<PacketWire>,
        socket: &Weak<RawSocket>,
        v4: bool,
        protocol: u8,
        ident: Option<u16>,
    ) -> Opened {
        let binding = RawBinding { v4, protocol, local: None, remote: None, interface: None, ident };
        let sink = Arc::new(Sink(socket.clone()));
        let handle = wire.with(|engine| engine.raw.bind(binding, sink));
        Opened { wire, handle }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.wire.with(|engine| engine.raw.close(self.handle));
    }
}

struct Sink(Weak<RawSocket>);

impl DatagramSink for Sink {
    fn deliver(&self, datagram: events::Datagram) {
        let Some(socket) = self.0.upgrade() else { return };
        let (local, remote) = (socket.local(), socket.remote());
        let meant = (local.ip.is_unspecified() || local.ip == datagram.destination)
            && remote.is_none_or(|r| r.ip == datagram.source);
        if !meant {
            return;
        }
        let kind = datagram.payload.get(datagram.header).copied();
        socket.arrived(
            Datagram {
                from: Endpoint::new(datagram.source, 0),
                to: Endpoint::new(datagram.destination, datagram.destination_port),
                device: datagram.interface,
                data: Buf::from(datagram.payload),
                time: socket.stack().env.realtime(),
                ttl: datagram.ttl,
                tos: datagram.tos,
                drops: 0,
                tag: Default::default(),
                segment: None,
                fragment: datagram.fragment,
                between: datagram.between,
                flow: datagram.flow,
            },
            kind,
        );
    }

    fn error(&self, error: &PacketError) {
        let Some(socket) = self.0.upgrade() else { return };
        let report = report(error, Endpoint::new(error.remote, 0), socket.stack().env.realtime(), 0);
        socket.reported(report, error.hard);
    }
}

/// Sends a packet of a socket.
pub(super) fn send(
    wire: &PacketWire,
    raw: RawHow,
    extra: &Extra<'_>,
    protocol: u8,
    from: Endpoint,
    to: Endpoint,
    data: &[u8],
    how: &SendHow,
) -> Result<()> {
    let device = if how.device != 0 { how.device } else { to.scope };
    let hop = how.hop(to.ip);
    let way = Way {
        interface: (device != 0).then_some(device),
        hop: (hop != to.ip).then_some(hop),
        direct: how.direct && to.ip.is_ipv4(),
    };
    let out = Outgoing {
        ttl: (how.ttl != 0).then_some(how.ttl),
        tos: how.tos,
        fragmenting: fragmenting(how, to.ip, protocol),
        ignore_path_mtu: how.discover >= 3,
        extra: *extra,
        ..Outgoing::new(from.ip, to.ip, protocol)
    };
    wire.with(|engine| {
        let (net, raws) = (&mut engine.net, &mut engine.raw);
        if from.port != 0 {
            return raws.ping(net, super::address(from), &out, way, data);
        }
        if raw.header_included {
            return raws.send_with_header(net, to.ip, way, data);
        }
        let checksum_at = if protocol == ICMPV6 { Some(2) } else { raw.checksum_at };
        raws.send(net, &out, way, data, checksum_at)
    })
    .map_err(name)
}
