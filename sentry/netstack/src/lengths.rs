//! How long a packet may be: what is sent whole, what in pieces, what not at all (`IP_MTU_DISCOVER`, `IPV6_DONTFRAG`), and who is
//! told of it.

use crate::addr::Endpoint;
use crate::buf::Buf;
use crate::datagram::{DatagramBase, ErrorReport, SendHow};
use crate::engine::net::{ICMPV6, UDP};
use crate::engine::sending::Extra;
use crate::env::Events;
use crate::error::{NetError, Result};
use crate::extensions::{Arrival, Between, Chain, Extensions};
use crate::interface::Route;
use crate::options::{Giver, Options, Sent, Stamp};
use crate::raw::RAW;
use crate::stack::Stack;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// The longest packet of IPv4, and what may follow the header of IPv6.
const MOST: usize = 65_535;
const HEADER4: usize = 20;
const HEADER6: usize = 40;
/// The header of a piece of IPv6.
const PIECE6: usize = 8;

/// Which way a packet goes.
pub(crate) struct Way<'a> {
    /// Where it ends. The port is told to who asks for errors.
    pub to: Endpoint,
    /// Where it goes first.
    pub hop: IpAddr,
    pub route: &'a Route,
    pub source: Option<IpAddr>,
    pub device: u32,
    pub protocol: u8,
}

/// What a packet has beside the header of IP, ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    sent: Option<Sent>,
    chain: Option<Chain>,
    flow: u32,
    pieces: u32,
}

impl SendHow {
    fn extensions(&self, to: IpAddr) -> Option<&Arc<Extensions>> {
        self.extensions.as_ref().filter(|_| to.is_ipv6())
    }

    fn options(&self, to: IpAddr) -> Option<&Arc<Options>> {
        self.options.as_ref().filter(|options| to.is_ipv4() && !options.is_empty())
    }

    /// Where a packet to `to` goes first.
    pub(crate) fn hop(&self, to: IpAddr) -> IpAddr {
        match (to, self.extensions(to), self.options(to)) {
            (IpAddr::V6(end), Some(all), _) => IpAddr::V6(all.first_hop(end)),
            (IpAddr::V4(end), _, Some(options)) => options.hop().map_or(IpAddr::V4(end), IpAddr::V4),
            _ => to,
        }
    }

    /// What a packet from `from` to `to` has beside the header; `now`: nanoseconds since 1970.
    pub(crate) fn beside(&self, stack: &Stack, from: Endpoint, to: Endpoint, now: u64) -> Beside {
        let mut out = Beside { flow: self.flow, pieces: self.pieces, ..Beside::default() };
        if self.auto_flow && out.flow == 0 && to.ip.is_ipv6() {
            out.flow = stack.flow_label(from, to);
        }
        let to = to.ip;
        match (from.ip, to) {
            (IpAddr::V4(from), IpAddr::V4(end)) => {
                out.sent = self.options(to).map(|options| options.sent(Stamp::new(from, now), end));
            }
            (_, IpAddr::V6(end)) => out.chain = self.extensions(to).map(|all| all.chain(end)),
            _ => {}
        }
        out
    }

    /// Bytes of headers: of all, and of those that each piece has.
    fn headers(&self, to: IpAddr) -> (usize, usize) {
        match to {
            IpAddr::V4(_) => {
                let all = HEADER4 + self.options(to).map_or(0, |options| options.len());
                (all, all)
            }
            IpAddr::V6(end) => match self.extensions(to) {
                Some(all) => {
                    let chain = all.chain(end);
                    (HEADER6 + chain.len(), HEADER6 + chain.len_in_all())
                }
                None => (HEADER6, HEADER6),
            },
        }
    }

    /// `IPV6_DONTFRAG` counts for these only.
    pub(crate) fn kept_whole(&self, to: IpAddr, protocol: u8) -> bool {
        self.dont_fragment && to.is_ipv6() && matches!(protocol, UDP | ICMPV6 | RAW)
    }
}

impl Stack {
    /// A label for all packets from one end to another (RFC 6437), which nobody else can foretell.
    fn flow_label(&self, from: Endpoint, to: Endpoint) -> u32 {
        let mut hash = DefaultHasher::new();
        (self.flow_key, from.ip, from.port, to.ip, to.port).hash(&mut hash);
        (hash.finish() as u32 & 0xf_ffff).max(1)
    }
}

impl Beside {
    pub(crate) fn flow(&self) -> u32 {
        self.flow
    }

    /// As the engine takes it.
    pub(crate) fn extra(&self) -> Extra<'_> {
        Extra {
            options: self.sent.as_ref().map(|sent| &*sent.bytes).unwrap_or_default(),
            chain: self.chain.as_ref(),
            flow: self.flow,
            pieces: self.pieces,
        }
    }

    /// What comes of it if the packet is for this host.
    pub(crate) fn arrive(&self, hop: IpAddr, protocol: u8, now: u64) -> Arrival {
        match (&self.sent, &self.chain, hop) {
            (Some(sent), _, IpAddr::V4(own)) => match Options::read(&sent.bytes, Giver::Packet) {
                Ok(options) if !options.is_source_routed() => {
                    let options = options.arrived(Stamp::new(own, now));
                    Arrival::Taken(Some(Between { first: 0, bytes: options.told().into() }))
                }
                _ => Arrival::Lost,
            },
            (_, Some(chain), IpAddr::V6(own)) => chain.arrive(own, protocol),
            _ => Arrival::Taken(None),
        }
    }
}

/// The largest of the pieces that `length` bytes behind headers are cut into, with headers; 0: they are not cut.
fn largest_piece(v4: bool, headers: (usize, usize), length: usize, mtu: usize, pieces: usize) -> usize {
    let (all, in_all) = headers;
    if all + length <= mtu {
        return 0;
    }
    if v4 {
        let room = mtu.saturating_sub(all);
        let step = room & !7;
        // The last piece need not be a multiple of 8.
        let mut rest = length;
        while step > 0 && rest > room {
            rest -= step;
        }
        return all + rest.max(step);
    }
    let mtu = if pieces > 0 { mtu.min(pieces) } else { mtu };
    let step = mtu.saturating_sub(in_all + PIECE6) & !7;
    in_all + PIECE6 + step.min(all - in_all + length)
}

impl<P> DatagramBase<P> {
    /// Whether `length` bytes behind the headers of IP may go; EMSGSIZE, with reports to who wants them. Gives the size of the largest
    /// piece that comes to this host, 0 if it comes whole.
    pub(crate) fn fits(&self, way: &Way<'_>, how: &SendHow, length: usize) -> Result<u32> {
        let v4 = way.to.ip.is_ipv4();
        let headers = how.headers(way.to.ip);
        let own = |mtu: u32| if v4 { (mtu as usize).min(MOST) } else { mtu as usize };
        let device = own(way.route.mtu);
        let kept = how.kept_whole(way.to.ip, way.protocol);
        let whole = kept || matches!(how.discover, 2..=4);
        let mtu = || {
            let path = match self.stack.wire().filter(|_| how.discover < 3 && !way.route.local) {
                Some(wire) => wire.path_mtu(way.hop, way.source, way.device).map_or(device, own),
                None => device,
            };
            if !v4 && how.pieces > 0 { path.min(how.pieces as usize) } else { path }
        };
        let most = match v4 {
            _ if whole => mtu(),
            true => MOST,
            false => HEADER6 + MOST,
        };
        // All extension headers are in the first piece (RFC 7112).
        let upper = if way.protocol == UDP { 8 } else { 0 };
        let crowded = !v4 && headers.0 > HEADER6 && headers.0 + upper > mtu();
        if headers.0 + length > most || crowded {
            let (mtu, fixed) = (mtu(), if v4 { HEADER4 } else { HEADER6 });
            let told = u32::try_from((mtu + fixed).saturating_sub(headers.0)).unwrap_or(u32::MAX);
            self.too_long(way, how, told, kept && !crowded);
            return Err(NetError::MessageSize);
        }
        if !way.route.local {
            return Ok(0);
        }
        let piece = largest_piece(v4, headers, length, device, how.pieces as usize);
        Ok(u32::try_from(piece).unwrap_or(u32::MAX))
    }

    /// A datagram was too long for its path: the report says what is not.
    pub(crate) fn too_long(&self, way: &Way<'_>, how: &SendHow, mtu: u32, path: bool) {
        {
            let mut state = self.lock();
            if path && state.want_path_mtu {
                let scope = way.device;
                state.path_mtu = Some((Endpoint { scope, ..way.to.with_port(0) }, mtu));
            }
            if !how.want_errors {
                return;
            }
            // As `ip_append_data`: of IPv4 the port that the socket is connected to.
            let port = match way.to.ip {
                IpAddr::V4(_) => state.remote.map_or(0, |remote| remote.port),
                IpAddr::V6(_) => way.to.port,
            };
            state.report(ErrorReport {
                error: NetError::MessageSize,
                // `SO_EE_ORIGIN_LOCAL`
                origin: 1,
                kind: 0,
                code: 0,
                info: mtu,
                offender: None,
                to: way.to.with_port(port),
                data: Buf::from_vec(Vec::new()),
                time: self.stack.env.realtime(),
                extension: None,
            });
        }
        self.waker.wake(Events::ERR);
    }

    /// A packet came to this host whose headers are wrong: what ICMPv6 would say of it (`data`: behind the headers of IP or UDP).
    pub(crate) fn problem(&self, to: Endpoint, hop: IpAddr, code: u8, pointer: u32, data: Buf) {
        let report = ErrorReport {
            error: NetError::Protocol,
            origin: 3,
            kind: 4,
            code,
            info: pointer,
            offender: Some(hop),
            to,
            data,
            time: self.stack.env.realtime(),
            extension: None,
        };
        self.reported(report, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_large_as_they_may_be() {
        let four = |length, mtu| largest_piece(true, (20, 20), length, mtu, 0);
        assert_eq!((four(1480, 1500), four(1481, 1500), four(2961, 1501)), (0, 1500, 1501));
        let six = |length, mtu, pieces| largest_piece(false, (40, 40), length, mtu, pieces);
        assert_eq!((six(1460, 1500, 0), six(1461, 1500, 0)), (0, 1496));
        assert_eq!((six(3000, 4000, 1400), six(5000, 4000, 1400)), (0, 1400));
    }
}
