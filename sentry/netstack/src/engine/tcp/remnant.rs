//! What is not a whole connection: half-open ones that wait for the last word of the handshake, and
//! pairs of ends that rest in TIME-WAIT. Both are small, for there may be many.

use std::time::Duration;

use super::super::addresses::Tuple;
use super::super::frame::TxFrame;
use super::super::net::{Net, TCP};
use super::super::sending::{Fragmenting, Outgoing};
use super::super::slab::Handle;
use super::super::time::Time;
use super::segment::{ACK, Header, Options, RST, SYN, Segment};
use super::seq::Seq;

/// How long a pair rests (Linux's TCP_TIMEWAIT_LEN).
pub const TIME_WAIT: Duration = Duration::from_secs(60);

/// A connection request that was answered (SYN-RECEIVED).
#[derive(Clone, Debug)]
pub struct Half {
    pub tuple: Tuple,
    pub listener: Handle,
    pub interface: u32,
    pub irs: Seq,
    pub iss: Seq,
    /// What the peer's SYN said.
    pub options: Options,
    pub window: u16,
    pub own_window: u16,
    pub ts_offset: u32,
    pub sent_at: Time,
    pub tries: u32,
    /// Timeouts for which an acknowledgement without data does not make a connection (TCP_DEFER_ACCEPT).
    pub defer: u32,
    /// Such an acknowledgement came.
    pub acknowledged: bool,
    pub max_segment: Option<u16>,
    /// The SYN, if the listener keeps it.
    pub syn: Option<Box<[u8]>>,
    pub deadline: Time,
    pub timer: Option<Time>,
}

#[derive(Clone, Debug)]
pub struct TimeWait {
    pub tuple: Tuple,
    pub interface: Option<u32>,
    pub snd_nxt: Seq,
    pub rcv_nxt: Seq,
    pub window: u16,
    pub ts_recent: Option<u32>,
    pub ts_offset: u32,
    pub since: Time,
    pub until: Time,
    pub timer: Option<Time>,
    pub answered: Option<Time>,
}

#[derive(Clone, Debug)]
pub enum Remnant {
    Half(Half),
    TimeWait(TimeWait),
}

impl Remnant {
    pub fn tuple(&self) -> Tuple {
        match self {
            Remnant::Half(half) => half.tuple,
            Remnant::TimeWait(wait) => wait.tuple,
        }
    }

    pub fn timer(&mut self) -> &mut Option<Time> {
        match self {
            Remnant::Half(half) => &mut half.timer,
            Remnant::TimeWait(wait) => &mut wait.timer,
        }
    }

    pub fn deadline(&self) -> Time {
        match self {
            Remnant::Half(half) => half.deadline,
            Remnant::TimeWait(wait) => wait.until,
        }
    }
}

/// A segment that belongs to no connection.
#[derive(Debug)]
pub struct Bare {
    pub tuple: Tuple,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    pub window: u16,
    pub options: Options,
    pub interface: Option<u32>,
}

impl Bare {
    pub fn send(self, net: &mut Net) {
        let (local, remote) = (self.tuple.local(), self.tuple.remote());
        let link = matches!(remote.ip(), std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
        let Ok(path) = net.path(remote.ip(), Some(local.ip()), self.interface.filter(|_| link)) else {
            return;
        };
        let mut frame = TxFrame::default();
        let header = Header {
            source: (local.ip(), local.port()),
            destination: (remote.ip(), remote.port()),
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            window: self.window,
            urgent: 0,
            options: self.options,
        };
        header.push(&mut frame);
        net.stats.tcp_out += 1;
        let out = Outgoing { fragmenting: Fragmenting::Never, ..Outgoing::new(local.ip(), remote.ip(), TCP) };
        let _ = net.output(&path, &out, frame);
    }

    /// The reset that a segment to nobody gets (RFC 9293, 3.10.7.1).
    pub fn reset(tuple: Tuple, segment: &Segment, interface: u32) -> Option<Bare> {
        if segment.has(RST) {
            return None;
        }
        let (seq, ack, flags) =
            if segment.has(ACK) { (segment.ack, Seq(0), RST) } else { (Seq(0), segment.end(), RST | ACK) };
        Some(Bare {
            tuple,
            seq,
            ack,
            flags,
            window: 0,
            options: Options::default(),
            interface: Some(interface),
        })
    }
}

impl Half {
    pub fn answer(&self, net: &mut Net, own_mss: u16) {
        let options = Options {
            mss: Some(own_mss),
            scale: self.options.scale.map(|_| super::conn::SCALE),
            sack_permitted: self.options.sack_permitted,
            timestamp: self
                .options
                .timestamp
                .map(|(value, _)| ((net.now.as_millis() as u32).wrapping_add(self.ts_offset), value)),
            ..Options::default()
        };
        let bare = Bare {
            tuple: self.tuple,
            seq: self.iss,
            ack: self.irs.plus(1),
            flags: SYN | ACK,
            window: self.own_window,
            options,
            interface: Some(self.interface),
        };
        bare.send(net);
    }
}

impl TimeWait {
    pub fn answer(&self, net: &mut Net) {
        let mut options = Options::default();
        if let Some(recent) = self.ts_recent {
            options.timestamp = Some(((net.now.as_millis() as u32).wrapping_add(self.ts_offset), recent));
        }
        let bare = Bare {
            tuple: self.tuple,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: ACK,
            window: self.window,
            options,
            interface: self.interface,
        };
        bare.send(net);
    }
}
