//! The settings below /proc/sys/net with sockets of the host: what the namespace has is shown, and what a guest writes there
//! holds for its own sockets, as far as options of sockets can bring it about. Nothing is written on the host.

use crate::socket::inet::options::{SOL_IP, SOL_IPV6, SOL_TCP, ip, ipv6, tcp};
use kernel::Kernel;
use kernel::sysctl::{Kind, SETTINGS, Setting, Sysctls};
use netstack::Family;
use platform::hostsys::inet;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

/// Names below /proc/sys of the settings that each network namespace has for itself and that tell how its sockets behave.
pub fn shown() -> impl Iterator<Item = &'static str> {
    let of_namespace = |path: &str| {
        path.starts_with("net/ipv4/") || path.starts_with("net/ipv6/") || path == "net/core/somaxconn"
    };
    let list = SETTINGS.iter().filter(|s| !matches!(s.kind, Kind::Fixed));
    list.map(|s| s.path).filter(move |path| of_namespace(path))
}

/// What the namespace has, and how often the sandbox's settings had been set when that was known.
#[derive(Default)]
pub struct Settings(OnceLock<(BTreeMap<&'static str, String>, u64)>);

/// Settings that are defaults of an option of sockets: of which family and of which kind of sockets.
const DEFAULTS: [(&str, Option<Family>, Option<inet::Kind>, i32, i32); 5] = [
    ("net/ipv4/ip_default_ttl", None, None, SOL_IP, ip::TTL),
    ("net/ipv6/bindv6only", Some(Family::V6), None, SOL_IPV6, ipv6::V6ONLY),
    ("net/ipv4/tcp_keepalive_time", None, Some(inet::Kind::Tcp), SOL_TCP, tcp::KEEPIDLE),
    ("net/ipv4/tcp_keepalive_intvl", None, Some(inet::Kind::Tcp), SOL_TCP, tcp::KEEPINTVL),
    ("net/ipv4/tcp_keepalive_probes", None, Some(inet::Kind::Tcp), SOL_TCP, tcp::KEEPCNT),
];

impl Settings {
    /// Those of the sandbox.
    pub fn of(kernel: &Kernel) -> Arc<Settings> {
        kernel.extensions.get_or_init(Settings::default)
    }

    /// Shows what the namespace has: a name and a value on each line.
    pub fn take_over(&self, sysctls: &Sysctls, text: &str) {
        let mut known = BTreeMap::new();
        for (path, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let setting = Sysctls::find(path);
            match setting.map(|s| (s, sysctls.set(s, value.as_bytes()))) {
                Some((s, Ok(()))) => {
                    known.insert(s.path, sysctls.get(s));
                }
                _ => tracing::warn!(
                    "the network namespace has {path} = {value}, which the sandbox cannot show"
                ),
            }
        }
        // There is one donation only.
        let _ = self.0.set((known, sysctls.writes()));
    }

    /// What a guest has written, where it is not what the namespace has.
    fn written(&self, sysctls: &Sysctls, path: &str) -> Option<String> {
        if self.0.get().is_some_and(|(_, writes)| *writes == sysctls.writes()) {
            return None;
        }
        let setting: &'static Setting = Sysctls::find(path)?;
        let now = sysctls.get(setting);
        let known = self.0.get().and_then(|(known, _)| known.get(path));
        (now != known.map_or(setting.default, String::as_str)).then_some(now)
    }

    /// Gives a new socket what the guest has written.
    pub(super) fn apply(&self, sysctls: &Sysctls, fd: &OwnedFd, family: Family, kind: inet::Kind) {
        let set = |path: &str, level: i32, name: i32, value: i32| {
            if let Err(e) = inet::set_option(fd, level, name, &value.to_ne_bytes()) {
                tracing::debug!("{path} of a socket of the host: {e}");
            }
        };
        for (path, of_family, of_kind, level, name) in DEFAULTS {
            let concerns = of_family.is_none_or(|f| f == family) && of_kind.is_none_or(|k| k == kind);
            let value = if concerns { self.written(sysctls, path) } else { None };
            if let Some(Ok(value)) = value.map(|text| text.parse()) {
                set(path, level, name, value);
            }
        }
        let path = "net/ipv4/ip_local_port_range";
        let range = self.written(sysctls, path);
        let mut ends = range.iter().flat_map(|text| text.split_whitespace()).map(str::parse::<u16>);
        if let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) {
            // Only within the namespace's range, and since Linux 6.3.
            let both = u32::from(first) | u32::from(last) << 16;
            set(path, SOL_IP, ip::LOCAL_PORT_RANGE, both.cast_signed());
        }
    }

    /// The option that lets a socket be bound to addresses of nobody, if the guest has written that all may.
    pub(super) fn anywhere(&self, sysctls: &Sysctls, family: Family) -> Option<(i32, i32)> {
        let (path, option) = match family {
            Family::V4 => ("net/ipv4/ip_nonlocal_bind", (SOL_IP, ip::FREEBIND)),
            Family::V6 => ("net/ipv6/ip_nonlocal_bind", (SOL_IPV6, ipv6::FREEBIND)),
        };
        (self.written(sysctls, path)? == "1").then_some(option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_namespace_has_is_not_written() {
        let (settings, sysctls) = (Settings::default(), Sysctls::default());
        settings.take_over(
            &sysctls,
            "net/ipv4/ip_default_ttl 99\nnet/ipv4/ip_local_port_range 100 200\nno/such 1\nnonsense\n",
        );
        let ttl = "net/ipv4/ip_default_ttl";
        assert_eq!(sysctls.get_int(ttl), 99);
        assert_eq!(settings.written(&sysctls, ttl), None);
        assert_eq!(settings.written(&sysctls, "net/ipv4/ip_local_port_range"), None);
        sysctls.set(Sysctls::find(ttl).unwrap(), b"64").unwrap();
        assert_eq!(settings.written(&sysctls, ttl).as_deref(), Some("64"));
        assert_eq!(settings.anywhere(&sysctls, Family::V6), None);
        sysctls.set(Sysctls::find("net/ipv6/ip_nonlocal_bind").unwrap(), b"1").unwrap();
        assert_eq!(settings.anywhere(&sysctls, Family::V6), Some((SOL_IPV6, ipv6::FREEBIND)));
    }

    #[test]
    fn all_that_are_asked_for_exist() {
        let shown: Vec<_> = shown().collect();
        for path in DEFAULTS.map(|d| d.0) {
            assert!(shown.contains(&path), "{path}");
        }
        assert!(shown.contains(&"net/ipv4/ping_group_range") && !shown.contains(&"net/unix/max_dgram_qlen"));
    }
}
