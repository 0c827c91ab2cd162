//! The options of a TCP socket as the stack takes them (tcp(7)).

use super::base::Base;
use super::options::{SOL_IP, SOL_IPV6, SOL_TCP, ip, ipv6, tcp};
use abi::{Errno, Result};
use netstack::Family;
use netstack::tcp::{Algorithm, StreamOptions};
use std::time::Duration;

/// Timeouts of the handshake in so many seconds, the first after one and each twice as long as the one
/// before (`secs_to_retrans`).
pub fn timeouts(seconds: i32) -> u32 {
    let mut count = 0;
    let mut sum = 0;
    while sum < seconds.min(127) {
        sum += 1 << count;
        count += 1;
    }
    count
}

/// The seconds that those timeouts take together (`retrans_to_secs`).
pub fn seconds(timeouts: u32) -> i32 {
    (1 << timeouts.min(7)) - 1
}

/// A time in microseconds as it is kept: in ticks of Linux' clock, at least two and no more than 200 ms. EINVAL.
pub fn ticks(micros: i32) -> Result<i32> {
    const TICK: i32 = 4000;
    let ticks = micros.max(0).div_euclid(TICK) + i32::from(micros.max(0) % TICK != 0);
    if (2..=50).contains(&ticks) { Ok(ticks * TICK) } else { Err(Errno::EINVAL) }
}

/// What the numbers of a socket say; all else stays as it was.
pub fn update(base: &Base, options: &mut StreamOptions) {
    let number = |name| base.numbers.get(SOL_TCP, name).unwrap_or(0);
    let on = |name| number(name) != 0;
    let positive = |name| usize::try_from(number(name)).ok().filter(|n| *n > 0);
    let time = |name| Duration::from_secs(number(name).max(1).unsigned_abs().into());
    let (hops, class) = match base.family {
        Family::V4 => (base.numbers.get(SOL_IP, ip::TTL), base.numbers.get(SOL_IP, ip::TOS)),
        Family::V6 => {
            (base.numbers.get(SOL_IPV6, ipv6::UNICAST_HOPS), base.numbers.get(SOL_IPV6, ipv6::TCLASS))
        }
    };
    options.no_delay = on(tcp::NODELAY);
    options.cork = on(tcp::CORK);
    options.keep_alive = base.options.keep_alive();
    options.keep_idle = time(tcp::KEEPIDLE);
    options.keep_interval = time(tcp::KEEPINTVL);
    options.keep_count = number(tcp::KEEPCNT).unsigned_abs();
    options.user_timeout = positive(tcp::USER_TIMEOUT).map(|millis| Duration::from_millis(millis as u64));
    options.max_segment = positive(tcp::MAXSEG).and_then(|n| u16::try_from(n).ok());
    options.window_clamp = positive(tcp::WINDOW_CLAMP);
    options.congestion = if on(tcp::CONGESTION) { Algorithm::Reno } else { Algorithm::Cubic };
    options.quick_ack = on(tcp::QUICKACK);
    options.tos = class.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    options.ttl = hops.and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0);
    let least = |level, name| base.numbers.get(level, name).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    options.least_hops = [least(SOL_IP, ip::MINTTL), least(SOL_IPV6, ipv6::MINHOPCOUNT)];
    options.syn_retries = number(tcp::SYNCNT).unsigned_abs();
    options.fin_timeout = match base.numbers.get(SOL_TCP, tcp::LINGER2) {
        Some(n) if n < 0 => None,
        Some(n) if n > 0 => Some(Duration::from_secs(n.unsigned_abs().into())),
        _ => Some(Duration::from_secs(60)),
    };
    // The number has no sign: -1 is more than there ever is.
    options.not_sent_low = Some(number(tcp::NOTSENT_LOWAT).cast_unsigned() as usize).filter(|n| *n > 0);
    options.save_syn = u8::try_from(number(tcp::SAVE_SYN)).unwrap_or(0);
    options.thin_linear = on(tcp::THIN_LINEAR_TIMEOUTS);
    let micros = |name| Duration::from_micros(number(name).unsigned_abs().into());
    options.rto_bounds =
        (micros(tcp::RTO_MIN_US), Duration::from_millis(number(tcp::RTO_MAX_MS).unsigned_abs().into()));
    options.ack_most = micros(tcp::DELACK_MAX_US);
    options.pacing = base.options.pacing();
    options.defer_accept = timeouts(number(tcp::DEFER_ACCEPT));
}
