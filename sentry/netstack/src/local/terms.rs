//! What the SYNs of a connection inside the stack would have said, and what follows from them: sizes of segments and windows,
//! as a connection over Linux' loopback interface has them.

use crate::tcp::StreamOptions;
use std::net::IpAddr;

/// The MTU as connections reckon with it.
const MTU: u32 = 65_535;
/// The options of a segment that has timestamps.
const TIMESTAMPS: u32 = 12;
/// The window of 64 KiB that is there when nobody asked for another.
const WINDOW: u32 = 65_536;
const LEAST_SEGMENT: u32 = 88;

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Payload of a full segment that it sends.
    pub send_segment: u32,
    /// Payload of a full segment that it is ready to take.
    pub advertised: u32,
    /// What it guesses of the segments that come, before one came.
    pub receive_segment: u32,
    /// The first windows, of the other end and its own.
    pub send_window: u32,
    pub receive_window: u32,
}

/// The terms of the end that connects to an address and of the one that listens.
pub fn agree(to: IpAddr, client: &StreamOptions, server: &StreamOptions) -> [Terms; 2] {
    let most = match to {
        IpAddr::V4(_) => MTU - 40,
        IpAddr::V6(_) => MTU + 1 - 60,
    };
    let said =
        |options: &StreamOptions| options.max_segment.map_or(most, |n| most.min(n.into())) - TIMESTAMPS;
    let (from_client, from_server) = (said(client), said(server));
    let segment = from_client.min(from_server);
    // The window of the SYN that answers is made of whole segments; that of the segment after it is scaled.
    let clamped = |options: &StreamOptions, window: u32| {
        options.window_clamp.and_then(|n| u32::try_from(n).ok()).map_or(window, |clamp| window.min(clamp))
    };
    let of_server = clamped(server, most - TIMESTAMPS);
    let of_client = clamped(client, WINDOW);
    let end = |advertised: u32, window: u32, own: u32| {
        // No more than half of the largest window (`tcp_bound_to_half_wnd`).
        let half = if window > 536 { window / 2 } else { window };
        let send_segment = segment.min(half.max(68 - 32));
        Terms {
            send_segment,
            advertised,
            receive_segment: advertised.min(send_segment).min(own / 2).clamp(LEAST_SEGMENT, 536),
            send_window: window,
            receive_window: own,
        }
    };
    let own_of_client = clamped(client, most - TIMESTAMPS).min(of_client);
    [end(from_client, of_server, own_of_client), end(from_server, of_client, of_server)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Sent, ready to take, guessed, windows: as seen on Linux 6.18.
    fn seen(client: StreamOptions, server: StreamOptions) -> [[u32; 4]; 2] {
        let lo = IpAddr::V4(Ipv4Addr::LOCALHOST);
        agree(lo, &client, &server).map(|t| [t.send_segment, t.advertised, t.receive_segment, t.send_window])
    }

    #[test]
    fn segments_are_those_of_linux() {
        let o = StreamOptions::default();
        let max = |n| StreamOptions { max_segment: Some(n), ..o };
        let clamp = |n| StreamOptions { window_clamp: Some(n), ..o };
        assert_eq!(seen(o, o), [[32_741, 65_483, 536, 65_483], [32_768, 65_483, 536, 65_536]]);
        assert_eq!(seen(max(1000), o), [[988, 988, 536, 65_483], [988, 65_483, 536, 65_536]]);
        assert_eq!(seen(max(1000), max(500)), [[488, 988, 488, 65_483], [488, 488, 488, 65_536]]);
        assert_eq!(seen(max(88), o), [[76, 76, 88, 65_483], [76, 65_483, 88, 65_536]]);
        assert_eq!(seen(max(32_767), o), [[32_741, 32_755, 536, 65_483], [32_755, 65_483, 536, 65_536]]);
        assert_eq!(seen(o, clamp(1200)), [[600, 65_483, 536, 1200], [32_768, 65_483, 536, 65_536]]);
        assert_eq!(seen(clamp(3000), o), [[32_741, 65_483, 536, 65_483], [1500, 65_483, 536, 3000]]);
    }
}
