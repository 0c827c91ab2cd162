//! `struct tcp_info` (`TCP_INFO`).

use netstack::tcp::{TcpInfo, TcpSocket, TcpState, Terms};
use std::time::Duration;

/// `sizeof(struct tcp_info)` of Linux 6.12.
const SIZE: usize = 248;

/// `TCP_MAXSEG` as getsockopt tells it.
pub fn segment_size(tcp: &TcpSocket) -> i32 {
    let size = match (tcp.state(), tcp.info(), terms(tcp)) {
        (TcpState::Close | TcpState::Listen | TcpState::SynSent, ..) => 536,
        (_, Some(info), _) => info.snd_mss,
        (_, _, Some(terms)) => terms.send_segment,
        _ => 536,
    };
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// What the ends of a connection inside the stack agreed on.
fn terms(tcp: &TcpSocket) -> Option<Terms> {
    tcp.transport()?.terms()
}

/// The structure for a connection over packets.
fn of_packets(info: &TcpInfo) -> Vec<u8> {
    let mut out = vec![0; SIZE];
    out[..5].copy_from_slice(&[info.state, info.ca_state, info.retransmits, info.probes, info.backoff]);
    out[5] = u8::from(info.timestamps) | u8::from(info.sack) << 1 | u8::from(info.window_scaling) << 2;
    out[6] = info.snd_scale & 15 | info.rcv_scale << 4;
    out[7] = u8::from(info.delivery_starved);
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let long_micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    for (at, value) in [
        (8, micros(info.rto)),
        (12, 40_000),
        (16, info.snd_mss),
        (20, info.rcv_mss),
        (24, info.unacked),
        (28, info.sacked),
        (32, info.lost),
        (36, info.retransmitted),
        (44, millis(info.last_data_sent)),
        (52, millis(info.last_data_received)),
        (56, millis(info.last_ack_received)),
        (60, info.path_mtu),
        (64, info.rcv_space),
        (68, micros(info.rtt)),
        (72, micros(info.rtt_variance)),
        (76, info.ssthresh),
        (80, info.cwnd),
        (84, info.advertised_mss),
        (88, 3),
        (96, info.rcv_space),
        (100, info.total_retransmissions),
        (136, info.segments_out),
        (140, info.segments_in),
        (144, info.not_sent),
        (148, micros(info.min_rtt)),
        (152, info.data_segments_in),
        (156, info.data_segments_out),
        (192, info.delivered),
        (216, info.dsack_duplicates),
        (224, info.out_of_order),
        (240, info.timeouts.into()),
        (228, info.snd_window),
        (232, info.rcv_window),
    ] {
        out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    for (at, value) in [
        (104, info.pacing_rate),
        (112, info.most_pacing),
        (120, info.bytes_acked + 1),
        (128, info.bytes_received),
        (160, info.delivery_rate),
        (168, long_micros(info.busy)),
        (176, long_micros(info.window_limited)),
        (184, long_micros(info.buffer_limited)),
        (200, info.bytes_sent),
        (208, info.bytes_retransmitted),
    ] {
        out[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
    out
}

/// The structure for a socket.
pub fn encode(tcp: &TcpSocket) -> Vec<u8> {
    if let Some(info) = tcp.info() {
        return of_packets(&info);
    }
    let mut out = vec![0; SIZE];
    let state = tcp.state();
    out[0] = state as u8;
    let mut put32 = |at: usize, v: u64| {
        out[at..at + 4].copy_from_slice(&u32::try_from(v).unwrap_or(u32::MAX).to_ne_bytes());
    };
    let segment = u64::from(segment_size(tcp).unsigned_abs());
    put32(8, if state == TcpState::Close || state == TcpState::Listen { 1_000_000 } else { 201_000 });
    put32(16, segment);
    put32(20, 536);
    if let Some(l) = tcp.listener() {
        let (waiting, backlog) = l.lengths();
        // For a listening socket these two are the queue and its limit.
        put32(24, waiting as u64);
        put32(28, backlog as u64);
    }
    put32(60, 65535);
    put32(64, 65495);
    put32(68, 33);
    put32(72, 16);
    put32(76, i32::MAX as u64);
    put32(80, 10);
    put32(84, 65483);
    put32(88, 3);
    put32(96, 65495);
    if let Some(t) = tcp.transport() {
        let c = t.counts();
        out[5] = 7;
        out[6] = 0x77;
        let mut put64 = |at: usize, v: u64| out[at..at + 8].copy_from_slice(&v.to_ne_bytes());
        let most = tcp.settings().pacing.unwrap_or(u64::MAX);
        // Twice ten segments in the round trip told above.
        put64(104, most.min(segment * 20 * 1_000_000 / 33));
        put64(112, most);
        put64(120, c.bytes_sent.saturating_sub(c.unacked) + 1);
        put64(128, c.bytes_received);
        put64(200, c.bytes_sent);
        let mut put32 = |at: usize, v: u64| {
            out[at..at + 4].copy_from_slice(&u32::try_from(v).unwrap_or(u32::MAX).to_ne_bytes());
        };
        if let Some(terms) = t.terms() {
            put32(20, terms.receive_segment.into());
            put32(84, terms.advertised.into());
            put32(228, terms.send_window.into());
            put32(232, terms.receive_window.into());
        }
        put32(148, 33);
        put32(192, c.segments_sent + 1);
        put32(136, c.segments_sent + 2);
        put32(140, c.segments_received + 1);
        put32(152, c.segments_received);
        put32(156, c.segments_sent);
    }
    out
}
