//! The ioctls of interfaces (netdevice(7)) and settings below /proc/sys/net.

use super::kit::*;
use crate::case::{Case, NOWHERE, case, in_child};
use crate::out::{must, number, ret, until_nul};
use crate::{say, sys};
use libc::{AF_UNIX, SOCK_STREAM};

/// A `struct ifreq` for a name, with what follows it.
fn request(name: &[u8]) -> [u8; 40] {
    let mut r = [0u8; 40];
    r[..name.len()].copy_from_slice(name);
    r
}

fn ask(fd: i32, cmd: u32, name: &[u8]) -> Result<[u8; 40], isize> {
    let mut r = request(name);
    let got = sys!(ioctl, fd, cmd, &mut r);
    if got < 0 { Err(got) } else { Ok(r) }
}

fn words(got: Result<[u8; 40], isize>, len: usize) -> String {
    got.map_or_else(number, |r| format!("{:?}", &r[16..16 + len]))
}

fn asked() {
    let fd = udp(V4);
    say!("flags {}", words(ask(fd, 0x8913, b"lo"), 2));
    say!("address {}", words(ask(fd, 0x8915, b"lo"), 8));
    say!("netmask {}", words(ask(fd, 0x891b, b"lo"), 8));
    say!("broadcast {}", words(ask(fd, 0x8919, b"lo"), 8));
    say!("destination {}", words(ask(fd, 0x8917, b"lo"), 8));
    say!("mtu {}", words(ask(fd, 0x8921, b"lo"), 4));
    say!("metric {}", words(ask(fd, 0x891d, b"lo"), 4));
    say!("hardware {}", words(ask(fd, 0x8927, b"lo"), 8));
    say!("index {}", words(ask(fd, 0x8933, b"lo"), 4));
    say!("queue {}", words(ask(fd, 0x8942, b"lo"), 4));
    let mut r = request(b"");
    r[16..20].copy_from_slice(&1i32.to_ne_bytes());
    ret("name", sys!(ioctl, fd, 0x8910, &mut r));
    say!("{}", until_nul(&r[..16]));
    r[16..20].copy_from_slice(&99i32.to_ne_bytes());
    ret("name of 99", sys!(ioctl, fd, 0x8910, &mut r));
}

fn wrong() {
    let fd = udp(V4);
    for cmd in [0x8913u32, 0x8915, 0x8921, 0x8927, 0x8933] {
        say!("{cmd:x} {}", words(ask(fd, cmd, b"nope0"), 4));
        ret("bad pointer", sys!(ioctl, fd, cmd, NOWHERE));
    }
    let unix = socket(AF_UNIX, SOCK_STREAM, 0);
    say!("unix flags {}", words(ask(unix, 0x8913, b"lo"), 2));
    say!("unix index {}", words(ask(unix, 0x8933, b"lo"), 4));
    say!("unix address {}", words(ask(unix, 0x8915, b"lo"), 4));
    let tcp6 = tcp(V6);
    say!("v6 flags {}", words(ask(tcp6, 0x8913, b"lo"), 2));
    let (pipe, _) = crate::case::pipe(0);
    say!("pipe {}", words(ask(pipe, 0x8913, b"lo"), 2));
}

fn list() {
    let fd = udp(V4);
    let mut buf = [0u8; 400];
    let mut head = [0u64; 2];
    head[0] = 400;
    head[1] = buf.as_mut_ptr() as u64;
    ret("list", sys!(ioctl, fd, 0x8912, &mut head));
    say!("{} {} {:?}", head[0] as u32, until_nul(&buf[..16]), &buf[16..24]);
    head[0] = 39;
    ret("too small", sys!(ioctl, fd, 0x8912, &mut head));
    say!("{}", head[0] as u32);
    (buf, head[0]) = ([7; 400], u64::from(u32::MAX));
    ret("less than nothing", sys!(ioctl, fd, 0x8912, &mut head));
    say!("{} {:?}", head[0] as u32, &buf[..4]);
    head = [0, 0];
    ret("only the size", sys!(ioctl, fd, 0x8912, &mut head));
    say!("{}", head[0] as u32);
}

fn changed() {
    let fd = udp(V4);
    let mut r = request(b"lo");
    r[16..20].copy_from_slice(&1400i32.to_ne_bytes());
    ret("mtu", sys!(ioctl, fd, 0x8922, &r));
    say!("{}", words(ask(fd, 0x8921, b"lo"), 4));
    r[16..20].copy_from_slice(&65536i32.to_ne_bytes());
    ret("mtu", sys!(ioctl, fd, 0x8922, &r));
    let mut r = request(b"lo");
    ret("down", sys!(ioctl, fd, 0x8914, &r));
    say!("{}", words(ask(fd, 0x8913, b"lo"), 2));
    r[16] = 1;
    ret("up", sys!(ioctl, fd, 0x8914, &r));
    say!("{}", words(ask(fd, 0x8913, b"lo"), 2));
    ret("connect", connect(udp(V4), &V4.loopback(9)));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("down", sys!(ioctl, fd, 0x8914, &r));
        ret("mtu", sys!(ioctl, fd, 0x8922, &r));
        say!("{}", words(ask(fd, 0x8921, b"lo"), 4));
        0
    });
}

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}"))
        .map_or_else(|e| number(-(e.raw_os_error().unwrap_or(0) as isize)), |s| s.trim_end().to_owned())
}

fn write(path: &str, value: &str) -> String {
    let r = std::fs::write(format!("/proc/sys/net/{path}"), value);
    r.map_or_else(|e| number(-(e.raw_os_error().unwrap_or(0) as isize)), |()| "written".to_owned())
}

fn settings() {
    // Those that are of a network namespace, so that the machine's do not show.
    for path in [
        "ipv4/ip_local_port_range",
        "ipv4/ip_unprivileged_port_start",
        "ipv4/ip_default_ttl",
        "ipv4/ip_nonlocal_bind",
        "ipv4/tcp_keepalive_time",
        "ipv4/tcp_keepalive_probes",
        "ipv4/tcp_keepalive_intvl",
        "ipv6/bindv6only",
        "ipv6/ip_nonlocal_bind",
        "unix/max_dgram_qlen",
    ] {
        say!("{path} {}", setting(path));
    }
    say!("{}", write("ipv4/ip_local_port_range", "40000 40010"));
    say!("{}", setting("ipv4/ip_local_port_range"));
    let port = own(bound(tcp(V4), V4).0).port();
    crate::out::claim("from the range", (40000..=40010).contains(&port));
    say!("{}", write("ipv4/ip_local_port_range", "nonsense"));
    say!("{}", write("ipv4/ip_local_port_range", "32768 60999"));
    say!("{}", write("ipv6/bindv6only", "1"));
    say!("{}", get(tcp(V6), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY));
    say!("{}", write("ipv6/bindv6only", "0"));
    say!("{}", write("ipv4/ip_default_ttl", "77"));
    say!("{}", get(udp(V4), libc::IPPROTO_IP, libc::IP_TTL));
    say!("{}", write("ipv4/ip_default_ttl", "64"));
    say!("{}", write("ipv4/ip_nonlocal_bind", "1"));
    ret("nobody's address", bind(tcp(V4), &V4.nowhere(0)));
    say!("{}", write("ipv4/ip_nonlocal_bind", "0"));
    ret("nobody's address", bind(tcp(V4), &V4.nowhere(0)));
    say!("{}", get(udp(V4), libc::IPPROTO_IP, libc::IP_FREEBIND));
    say!("{}", write("ipv4/tcp_keepalive_time", "77"));
    say!("{}", get(tcp(V4), libc::IPPROTO_TCP, libc::TCP_KEEPIDLE));
    say!("{}", write("ipv4/tcp_keepalive_time", "7200"));
    say!("{}", write("ipv4/tcp_keepalive_probes", "3"));
    say!("{}", get(tcp(V6), libc::IPPROTO_TCP, libc::TCP_KEEPCNT));
    say!("{}", write("ipv4/tcp_keepalive_probes", "9"));
}

/// Who may do what.
fn rights() {
    say!("{}", setting("ipv4/ping_group_range"));
    say!("{}", write("ipv4/ip_unprivileged_port_start", "70"));
    in_child("user", || {
        must("setuid", sys!(setuid, 1000));
        ret("80", bind(tcp(V4), &V4.loopback(80)));
        ret("69", bind(tcp(V4), &V4.loopback(69)));
        0
    });
    say!("{}", write("ipv4/ip_unprivileged_port_start", "1024"));
}

pub const CASES: &[Case] = &[
    case("ioctl/interface_asked", "", asked),
    case("ioctl/interface_wrong", "", wrong),
    case("ioctl/interface_list", "", list),
    case("ioctl/interface_changed", "setuid", changed),
    case("bind/network_settings", "write", settings),
    case("bind/network_rights", "write setuid", rights),
];
