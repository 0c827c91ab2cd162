//! What can be read of connections: TCP_INFO, /proc/net/tcp and SOCK_DIAG.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::slab::Handle;
use super::super::time::Time;
use super::conn::{Conn, Mode, Wait};
use super::remnant::Remnant;
use super::{Entry, Tcp};

/// What TCP_INFO tells; sizes in bytes, the congestion window and threshold in segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpInfo {
    pub state: u8,
    /// Open, disorder, CWR, recovery, loss: 0 to 4.
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub timestamps: bool,
    pub sack: bool,
    pub window_scaling: bool,
    pub snd_scale: u8,
    pub rcv_scale: u8,
    pub rto: Duration,
    pub rtt: Duration,
    pub rtt_variance: Duration,
    pub min_rtt: Duration,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub advertised_mss: u32,
    pub path_mtu: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retransmitted: u32,
    pub total_retransmissions: u32,
    pub cwnd: u32,
    pub ssthresh: u32,
    pub snd_window: u32,
    pub rcv_window: u32,
    pub rcv_space: u32,
    pub not_sent: u32,
    pub last_data_sent: Duration,
    pub last_data_received: Duration,
    pub last_ack_received: Duration,
    pub bytes_sent: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_retransmitted: u64,
    pub segments_out: u32,
    pub segments_in: u32,
    pub data_segments_out: u32,
    pub data_segments_in: u32,
    pub dsack_duplicates: u32,
    /// Segments that have arrived, the SYN among them.
    pub delivered: u32,
    pub out_of_order: u32,
    pub timeouts: u16,
    /// Bytes a second: what the window makes of a round trip, and what is allowed.
    pub pacing_rate: u64,
    pub most_pacing: u64,
    /// Bytes a second that arrived at the peer, and whether the user gave no more to send.
    pub delivery_rate: u64,
    pub delivery_starved: bool,
    /// How long there was data to send, and how long that waited for the peer's window or for room in the send buffer.
    pub busy: Duration,
    pub window_limited: Duration,
    pub buffer_limited: Duration,
}

/// One line of a listing.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLine {
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub state: u8,
    pub send_queue: usize,
    pub receive_queue: usize,
    pub handle: Option<Handle>,
    /// What the timer waits for, as /proc/net/tcp numbers it, and when.
    pub timer: (u8, Option<Time>),
    pub retransmits: u32,
}

impl Conn {
    /// Twice what goes in a round trip while the window grows fast, else a fifth more (`tcp_update_pacing_rate`).
    fn pacing_rate(&self) -> u64 {
        let most = self.options.pacing.unwrap_or(u64::MAX);
        let Some(rtt) = self.rtt.smoothed.filter(|rtt| !rtt.is_zero()) else { return most };
        let (cwnd, threshold) = (self.congestion.cwnd, self.congestion.ssthresh);
        let percent = if cwnd < threshold / 2 { 200 } else { 120 };
        let rate = cwnd as u128 * percent * 10_000_000 / rtt.as_nanos();
        most.min(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

impl Tcp {
    pub fn info(&self, handle: Handle, now: Time) -> Option<TcpInfo> {
        let conn = self.conns.get(handle)?;
        let mss = conn.mss.max(1);
        let segments = |bytes: usize| bytes.div_ceil(mss).min(u32::MAX as usize) as u32;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (delivery_rate, delivery_starved) = conn.delivery.rate();
        let (busy, window_limited, buffer_limited) = conn.holds.times(now);
        Some(TcpInfo {
            state: conn.state.number(),
            ca_state: match conn.mode {
                Mode::Open if conn.board.sacked > 0 => 1,
                Mode::Open => 0,
                Mode::Recovery => 3,
                Mode::Loss => 4,
            },
            retransmits: conn.retries.min(255) as u8,
            probes: conn.probes.max(conn.keep_probes).min(255) as u8,
            backoff: conn.backoff.min(255) as u8,
            timestamps: conn.timestamps,
            sack: conn.sack,
            window_scaling: conn.rcv_scale > 0,
            snd_scale: conn.snd_scale,
            rcv_scale: conn.rcv_scale,
            rto: conn.rtt.backed_off(conn.backoff),
            rtt: conn.rtt.smoothed.unwrap_or_default(),
            rtt_variance: conn.rtt.variance,
            min_rtt: conn.rtt.least(),
            snd_mss: size(conn.mss),
            rcv_mss: size(conn.rcv_mss),
            // What a segment of the peer can hold beside its timestamps.
            advertised_mss: u32::from(conn.own_mss()) - if conn.timestamps { 12 } else { 0 },
            path_mtu: size(conn.path.map_or(0, |path| path.mtu)),
            unacked: segments(conn.board.in_flight + conn.board.sacked + conn.board.lost),
            sacked: segments(conn.board.sacked),
            lost: segments(conn.board.lost),
            retransmitted: 0,
            total_retransmissions: conn.counters.retransmissions,
            cwnd: segments(conn.congestion.cwnd),
            ssthresh: segments(conn.congestion.ssthresh).min(0x7fff_ffff),
            snd_window: size(conn.snd_wnd),
            rcv_window: size(conn.rcv_edge.after(conn.rcv_nxt)),
            rcv_space: size(conn.receive_capacity),
            not_sent: size(conn.unsent()),
            last_data_sent: now.since(conn.last_sent),
            last_data_received: now.since(conn.data_at),
            last_ack_received: now.since(conn.last_received),
            bytes_sent: conn.counters.bytes_sent,
            bytes_acked: conn.counters.bytes_acked,
            bytes_received: conn.counters.bytes_received,
            bytes_retransmitted: conn.counters.bytes_retransmitted,
            segments_out: conn.counters.segments_out,
            segments_in: conn.counters.segments_in,
            data_segments_out: conn.counters.data_segments_out,
            data_segments_in: conn.counters.data_segments_in,
            dsack_duplicates: conn.counters.dsack_duplicates,
            delivered: segments(usize::try_from(conn.delivery.bytes).unwrap_or(usize::MAX)).saturating_add(1),
            out_of_order: conn.counters.out_of_order,
            timeouts: u16::try_from(conn.counters.timeouts).unwrap_or(u16::MAX),
            pacing_rate: conn.pacing_rate(),
            most_pacing: conn.options.pacing.unwrap_or(u64::MAX),
            delivery_rate,
            delivery_starved,
            busy,
            window_limited,
            buffer_limited,
        })
    }

    /// All listeners, connections and remnants.
    pub fn list(&self) -> Vec<ConnectionLine> {
        let mut lines = Vec::new();
        for (handle, listener) in self.listeners.iter() {
            lines.push(ConnectionLine {
                local: listener.local,
                remote: None,
                state: 10,
                send_queue: listener.backlog,
                receive_queue: listener.queue.len(),
                handle: Some(handle),
                timer: (0, None),
                retransmits: 0,
            });
        }
        for (handle, conn) in self.conns.iter() {
            if self.demux.get(&conn.tuple) != Some(&Entry::Conn(handle)) {
                continue;
            }
            lines.push(ConnectionLine {
                local: conn.tuple.local(),
                remote: Some(conn.tuple.remote()),
                state: conn.state.number(),
                send_queue: conn.send.len(),
                receive_queue: conn.receive.len(),
                handle: Some(handle),
                timer: match conn.retransmit {
                    Some((Wait::WindowProbe, at)) => (4, Some(at)),
                    Some((_, at)) => (1, Some(at)),
                    None => (if conn.keep_at.is_some() { 2 } else { 0 }, conn.keep_at),
                },
                retransmits: conn.retries,
            });
        }
        for (_, remnant) in self.remnants.iter() {
            let (state, timer) = match remnant {
                Remnant::Half(half) => (3, (1, Some(half.deadline))),
                Remnant::TimeWait(wait) => (6, (3, Some(wait.until))),
            };
            lines.push(ConnectionLine {
                local: remnant.tuple().local(),
                remote: Some(remnant.tuple().remote()),
                state,
                send_queue: 0,
                receive_queue: 0,
                handle: None,
                timer,
                retransmits: 0,
            });
        }
        lines
    }
}
