//! UDP sockets: what `datagram` has, with ports and groups; delivered by `table`.

mod groups;
mod table;

use groups::Membership;
pub use groups::SourceChange;
use table::UdpEntry;
pub use table::UdpTable;

use crate::addr::{Endpoint, Family, unspecified};
use crate::buf::Buf;
use crate::counters::bump;
use crate::datagram::{Datagram, DatagramBase, ErrorReport, SendHow, State, reachable};
use crate::engine::net::UDP;
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::extensions::Arrival;
use crate::lengths::Way;
use crate::ports::ClaimId;
use crate::reuse::{Choice, Chooser};
use crate::sieve::Shape;
use crate::stack::{BindOptions, Stack};
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// The bytes of the header of UDP.
const HEADER: usize = 8;
const LITE: u8 = 136;

/// What changes of a UDP socket, beside what all have.
#[derive(Default)]
pub struct UdpState {
    claim: Option<ClaimId>,
    bound: bool,
    bound_ip: bool,
    /// Groups joined.
    groups: Vec<Membership>,
    /// Not `IP_MULTICAST_ALL`.
    own_groups_only: bool,
    /// `UDP_NO_CHECK6_RX`
    unchecked: bool,
    choice: Arc<Choice>,
}

/// A UDP socket.
pub struct UdpSocket {
    me: Weak<UdpSocket>,
    pub lite: bool,
    base: DatagramBase<UdpState>,
}

impl Deref for UdpSocket {
    type Target = DatagramBase<UdpState>;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

impl UdpSocket {
    /// `lite`: UDP-Lite, which has ports of its own.
    pub fn new(stack: &Arc<Stack>, family: Family, lite: bool, waker: Arc<dyn Waker>) -> Arc<UdpSocket> {
        let base = DatagramBase::new(stack, family, waker, Shape::Udp { lite }, UdpState::default());
        let socket = Arc::new_cyclic(|me| UdpSocket { me: me.clone(), lite, base });
        stack.list_udp(&socket);
        socket
    }

    /// Tells the table of sockets what changed of the addresses.
    fn publish(&self, state: &mut State<UdpState>) {
        let Some(me) = self.me.upgrade() else { return };
        let entry = UdpEntry {
            socket: me,
            family: self.family,
            local: state.local.ip,
            remote: state.remote,
            v6only: state.options.v6only,
            device: state.options.device,
            reuse_port: state.options.reuse_port,
            choice: Arc::clone(&state.own.choice),
        };
        state.own.choice = self.stack.datagram_table(self.lite).publish(state.local.port, entry);
    }

    fn claim(&self, state: &mut State<UdpState>, to: Endpoint, options: BindOptions) -> Result<()> {
        let claim = options.claim(to.ip, None);
        let id = self.stack.datagram_ports(self.lite).claim(
            &*self.stack.env,
            options.range(self.stack.env.port_range()),
            to.port,
            claim,
        )?;
        state.options = options;
        state.own.claim = Some(id);
        state.local = to.with_port(id.port);
        Ok(())
    }

    /// EINVAL, EADDRINUSE, EADDRNOTAVAIL.
    pub fn bind(&self, to: Endpoint, options: BindOptions) -> Result<()> {
        let mut state = self.lock();
        if state.own.claim.is_some() {
            return Err(NetError::Invalid);
        }
        self.check_local(to.ip, &options)?;
        self.claim(&mut state, to, options)?;
        state.own.bound = to.port != 0;
        state.own.bound_ip = !to.ip.is_unspecified();
        self.publish(&mut state);
        Ok(())
    }

    /// Options that concern ports changed after bind.
    pub fn set_bind_options(&self, options: BindOptions) {
        let mut state = self.lock();
        state.options = options;
        if let Some(id) = state.own.claim {
            self.stack.datagram_ports(self.lite).note(id, |c| {
                c.reuse_addr = options.reuse_addr;
                c.reuse_port = options.reuse_port;
                c.device = options.device;
            });
            self.publish(&mut state);
        }
    }

    /// `SO_ATTACH_REUSEPORT_CBPF`: how the socket's group chooses from now on; whether there was a program.
    pub fn set_chooser(&self, chooser: Option<Arc<dyn Chooser>>) -> bool {
        let choice = Arc::clone(&self.lock().own.choice);
        choice.set(chooser)
    }

    /// `UDP_NO_CHECK6_RX`: datagrams of IPv6 without a checksum are taken.
    pub fn set_unchecked(&self, on: bool) {
        self.lock().own.unchecked = on;
    }

    fn autobind(&self, state: &mut State<UdpState>, options: BindOptions) -> Result<()> {
        if state.own.claim.is_some() {
            return Ok(());
        }
        let any = Endpoint { ip: state.local.ip, port: 0, scope: 0 };
        self.claim(state, any, options).map_err(|_| NetError::WouldBlock)?;
        self.publish(state);
        Ok(())
    }

    /// Sets the default destination. ENETUNREACH.
    pub fn connect(&self, to: Endpoint, options: BindOptions, how: &SendHow) -> Result<()> {
        let mut state = self.lock();
        let to = reachable(to);
        let bound = state.own.bound_ip.then_some(state.local.ip);
        let (source, device) = how.way(to.ip, bound);
        let route = self.route(how.hop(to.ip), source, device, how)?;
        if !state.own.bound_ip {
            state.local.ip = route.source;
        }
        state.remote = Some(to);
        if state.own.claim.is_none() {
            self.autobind(&mut state, options)?;
        }
        self.publish(&mut state);
        Ok(())
    }

    /// connect(2) to `AF_UNSPEC`.
    pub fn disconnect(&self) {
        let mut state = self.lock();
        state.remote = None;
        if !state.own.bound_ip {
            state.local.ip = unspecified(self.family);
        }
        if !state.own.bound {
            if let Some(id) = state.own.claim.take() {
                self.stack.datagram_table(self.lite).withdraw(state.local.port, self.id);
                self.stack.datagram_ports(self.lite).release(id);
            }
            state.local.port = 0;
        } else {
            self.publish(&mut state);
        }
    }

    /// Sends a datagram: EDESTADDRREQ, EACCES, ENETUNREACH, EPIPE, or an error that came before.
    pub fn send(&self, to: Option<Endpoint>, data: Buf, how: &SendHow, options: BindOptions) -> Result<()> {
        let (from_port, to, bound, connected) = {
            let mut state = self.lock();
            let to = state.destination(to)?;
            if to.port == 0 {
                return Err(NetError::Invalid);
            }
            self.autobind(&mut state, options)?;
            let bound = how.source.or(state.source());
            (state.local.port, to, bound, state.remote.is_some())
        };
        if bound.is_some_and(|b| b.is_ipv4() != to.ip.is_ipv4()) {
            return Err(NetError::NetworkUnreachable);
        }
        let (source, device) = how.way(to.ip, bound);
        if let Some(wish) = how.source
            && !options.any_address
            && !self.stack.is_local(wish)
        {
            // A source that is nobody's here has no route in IPv4 and is no source in IPv6.
            return Err(if wish.is_ipv4() { NetError::NetworkUnreachable } else { NetError::Invalid });
        }
        let hop = how.hop(to.ip);
        let route = self.route(hop, source, device, how)?;
        let way = Way { to, hop, route: &route, source, device, protocol: self.protocol() };
        let longest = how.segment.map_or(data.len(), |size| data.len().min(size.into()));
        let fragment = self.fits(&way, how, longest + HEADER)?;
        let multicast = to.ip.is_multicast();
        let from = Endpoint::new(source.unwrap_or(route.source), from_port);
        let now = self.stack.env.realtime();
        let beside = how.beside(&self.stack, from, to, now);
        if !route.local {
            let wire = self.stack.wire().ok_or(NetError::NetworkUnreachable)?;
            let how = SendHow { device, ..how.clone() };
            for data in pieces(&data, how.segment) {
                if let Err(error) = wire.send_datagram(from, to, data, &how, &beside.extra()) {
                    if error == NetError::MessageSize {
                        // The path has just become narrower.
                        self.too_long(&way, &how, wire.path_mtu(hop, source, device).unwrap_or(0), false);
                    }
                    return Err(error);
                }
                self.count_sent(to);
            }
            if !(route.broadcast || (multicast && how.multicast_loop)) {
                return Ok(());
            }
        } else if !self.lite
            && let Some(relay) = self.stack.relay(to, || self.stack.takes_datagram(from, to, route.device))
        {
            self.count_sent(to);
            return pieces(&data, how.segment).try_for_each(|data| relay.datagram(from, to, data.bytes()));
        } else {
            self.count_sent(to);
        }
        let between = match beside.arrive(hop, self.protocol(), now) {
            Arrival::Taken(between) => between,
            Arrival::Lost => return Ok(()),
            Arrival::Problem(code, pointer) => {
                self.problem(to, hop, code, pointer, data);
                return Ok(());
            }
        };
        let datagram = Datagram {
            from,
            to,
            device: route.device,
            data,
            time: now,
            ttl: how.ttl,
            tos: how.tos,
            drops: 0,
            tag: how.tag,
            segment: how.segment,
            fragment,
            between,
            flow: beside.flow(),
        };
        self.stack.count_local(to.ip, datagram.data.len() as u64 + 28);
        if route.broadcast || multicast {
            self.stack.deliver_to_many(&datagram, self.lite);
            return Ok(());
        }
        // IPv6 has no datagrams without a checksum but for those who ask.
        let bare = how.no_checksum && to.ip.is_ipv6() && !self.lite;
        if bare && !self.stack.takes_unchecked(from, to, route.device) {
            return Ok(());
        }
        if let Err(datagram) = self.stack.deliver_datagram(datagram, self.lite) {
            if !self.lite {
                bump(&self.stack.counters.of(to.ip).udp_no_port);
            }
            self.unreachable(datagram, connected, how.want_errors);
        }
        Ok(())
    }

    fn protocol(&self) -> u8 {
        if self.lite { LITE } else { UDP }
    }

    /// Whether a datagram of that many bytes may be sent, now that it is not finished: EMSGSIZE.
    pub fn check_length(&self, to: Endpoint, length: usize, how: &SendHow) -> Result<()> {
        let to = reachable(to);
        let bound = how.source.or(self.lock().source());
        let (source, device) = how.way(to.ip, bound);
        let hop = how.hop(to.ip);
        let route = self.route(hop, source, device, how)?;
        let way = Way { to, hop, route: &route, source, device, protocol: self.protocol() };
        self.fits(&way, how, length + HEADER).map(|_| ())
    }

    fn count_sent(&self, to: Endpoint) {
        if !self.lite {
            bump(&self.stack.counters.of(to.ip).udp_out);
        }
    }

    /// Nobody has the port: what ICMP would say.
    fn unreachable(&self, datagram: Datagram, connected: bool, want: bool) {
        {
            let mut state = self.lock();
            let v4 = datagram.to.ip.is_ipv4();
            if want {
                state.report(ErrorReport {
                    error: NetError::Refused,
                    origin: if v4 { 2 } else { 3 },
                    kind: if v4 { 3 } else { 1 },
                    code: if v4 { 3 } else { 4 },
                    info: 0,
                    offender: Some(datagram.to.ip),
                    to: datagram.to,
                    data: datagram.data,
                    time: datagram.time,
                    extension: None,
                });
            }
            if !connected && !want {
                return;
            }
            state.error = Some(NetError::Refused);
        }
        self.waker.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }

    pub fn close(&self) {
        let (port, claim, queue, groups) = {
            let mut state = self.lock();
            let groups = std::mem::take(&mut state.own.groups);
            (state.local.port, state.own.claim.take(), state.close(), groups)
        };
        drop(queue);
        self.leave_all(groups);
        if let Some(id) = claim {
            self.stack.datagram_table(self.lite).withdraw(port, self.id);
            self.stack.datagram_ports(self.lite).release(id);
        }
        self.stack.unlist_udp(self.id);
    }

    pub fn has_port(&self) -> bool {
        self.lock().own.claim.is_some()
    }
}

/// The datagrams that data makes which is cut at a size.
fn pieces(data: &Buf, size: Option<u16>) -> impl Iterator<Item = Buf> + use<> {
    let size = size.map_or(usize::MAX, usize::from).max(1);
    let mut rest = Some(data.clone());
    std::iter::from_fn(move || {
        let mut left = rest.take()?;
        let piece = left.split_to(size);
        rest = Some(left).filter(|left| !left.is_empty());
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
