//! The container's network namespace as the sandbox gets it: which mode holds, and the sockets that are opened there for
//! the sentry once engines and their hooks have put interfaces into it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hostsys::{inet, packet, rtnetlink, steer};
use rustix::pipe::PipeFlags;
use sentry::boot::NetworkMode;
use sentry::net::{CONVERSATIONS, DOORS, Donation, NAME_SERVER, NameServer, Steered, TABLES};

use super::namespaces::{Privilege, Visit};
use crate::spec::{JoinedNamespaces, Plan};

/// Packet sockets for interfaces that come later. One that goes gives its socket back.
const SPARE: usize = 4;

/// The mode that a container gets: whoever asks for a sandbox's network in the namespace that this command itself is in,
/// as `docker run --network host` does, gets the host's sockets, since its interfaces cannot be taken from the host.
pub fn mode(asked: NetworkMode, plan: &Plan, privilege: Privilege) -> Result<NetworkMode> {
    if asked != NetworkMode::Sandbox {
        return Ok(asked);
    }
    let own = match &plan.joined.network {
        Some(path) => is_own(path)?,
        None => plan.joined.own_network,
    };
    if own {
        tracing::debug!("--network=sandbox in the host's own network namespace is --network=host");
        return Ok(NetworkMode::Host);
    }
    if !privilege.root {
        // Nobody can put interfaces into the sandbox's namespace.
        tracing::debug!("--network=sandbox without root is loopback only");
        return Ok(NetworkMode::None);
    }
    Ok(asked)
}

/// Whether a path is the network namespace that this process is in.
fn is_own(path: &Path) -> Result<bool> {
    let id = |path: &Path| {
        std::fs::metadata(path)
            .map(|data| (data.dev(), data.ino()))
            .with_context(|| format!("namespace {}", path.display()))
    };
    Ok(id(path)? == id(Path::new("/proc/self/ns/net"))?)
}

/// Opens what the sentry needs of its network namespace, and keeps the host's own stack silent there. `None` if nobody can
/// put interfaces into it. `settings` are the container's (`linux.sysctl`).
pub fn donation(
    sentry: i32,
    mode: NetworkMode,
    joined: &JoinedNamespaces,
    settings: &BTreeMap<String, String>,
) -> Result<Option<Donation>> {
    if !Privilege::current().root {
        // It is the namespace of this process, or nobody can have put interfaces into it.
        return if mode == NetworkMode::Host { shown(sentry).map(Some) } else { Ok(None) };
    }
    let path = joined.network.as_deref();
    let own = path.map_or(Ok(joined.own_network), is_own)?;
    let visit = Visit::network(sentry)?;
    let donation = match mode {
        NetworkMode::Host if own => shown(sentry).map(Some),
        NetworkMode::Host => set(settings).and_then(|()| shown(sentry)).map(Some),
        NetworkMode::None | NetworkMode::Sandbox => open(path.is_some()),
    };
    visit.leave()?;
    donation.context("cannot take the network namespace over")
}

/// What it takes to show interfaces and sockets that stay the host's.
fn shown(sentry: i32) -> Result<Donation> {
    let questions = rtnetlink::open().context("rtnetlink")?;
    let news = rtnetlink::open_news(false).context("rtnetlink")?;
    let settings = Some(told().context("settings of the network namespace")?);
    let tables = tables(sentry);
    let packets = Vec::new();
    Ok(Donation { questions, news, names: None, steered: None, packets, keeper: None, settings, tables })
}

/// The tables of the network namespace that the sentry is in. Of what this kernel does not have there is none.
fn tables(sentry: i32) -> Vec<(usize, OwnedFd)> {
    let directory = PathBuf::from(format!("/proc/{sentry}/net"));
    let open = |name| {
        let file = std::fs::File::open(directory.join(name));
        file.inspect_err(|error| tracing::debug!("no {name} of the network namespace: {error}")).ok()
    };
    let files = TABLES.iter().enumerate();
    files.filter_map(|(place, name)| Some((place, open(name)?.into()))).collect()
}

/// The file of a setting in the namespace that is visited; `None` if it is none of a network.
fn setting(name: &str) -> Option<PathBuf> {
    let plain =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'));
    let fits = name.starts_with("net.") && plain && !name.contains("..");
    // /proc/sys/net is that of the namespace of whoever opens it.
    fits.then(|| Path::new("/proc/sys").join(name.replace('.', "/")))
}

/// Sets what the container wants of its network, where the host's sockets are its own.
fn set(settings: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in settings {
        if let Some(file) = setting(name) {
            std::fs::write(file, value).with_context(|| format!("linux.sysctl: {name} = {value}"))?;
        }
    }
    Ok(())
}

/// The settings that decide what the host's sockets do, as they are now.
fn told() -> std::io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let mut write = std::fs::File::from(write);
    for name in sentry::net::settings() {
        // One that cannot be read stays as it is at first.
        if let Ok(value) = std::fs::read_to_string(Path::new("/proc/sys").join(name)) {
            writeln!(write, "{name} {}", value.trim_end())?;
        }
    }
    Ok(read)
}

fn open(joined: bool) -> Result<Option<Donation>> {
    let questions = rtnetlink::open().context("rtnetlink")?;
    // Before anything is read: what changes from here on is news.
    let news = rtnetlink::open_news(true).context("rtnetlink")?;
    let found = rtnetlink::snapshot(&questions).context("interfaces")?;
    let count = found.links.iter().filter(|link| link.hardware == rtnetlink::ETHERNET).count();
    // Where nobody has prepared anything but lo, an interface may come, but need not.
    let alone = found.links.len() <= 1 && !joined;
    match take_over(questions, news, count, alone) {
        Err(error) if alone => {
            tracing::debug!("the network namespace stays loopback only: {error:#}");
            Ok(None)
        }
        donation => donation.map(Some),
    }
}

/// Opens the sockets for `count` interfaces and those to come. `alone`: there is only lo.
fn take_over(questions: OwnedFd, news: OwnedFd, count: usize, alone: bool) -> Result<Donation> {
    rtnetlink::silence(&questions).context("routing rules")?;
    let packets = (0..count + SPARE).map(|_| packet::open_unbound()).collect::<std::io::Result<Vec<_>>>();
    let packets = packets.context("packet sockets")?;
    // Without it the sentry's end takes longer, and nothing else.
    let keeper = packet::closed_later(&packets)
        .inspect_err(|error| tracing::debug!("whoever waits for the sentry waits for its sockets: {error}"))
        .ok();
    let mut names = None;
    // Nobody answers on a lone lo; what is not needed takes no time.
    if !alone {
        let (first, last) = rtnetlink::HOST_PORTS;
        host_ports(first, last);
        names = name_server()?;
    }
    Ok(Donation {
        questions,
        news,
        names,
        steered: steered(alone),
        packets,
        keeper,
        settings: None,
        tables: Vec::new(),
    })
}

/// Sets which ports the host's own stack gives to whoever asks for any in the namespace that is visited: those whose
/// answers from name servers it gets to see.
fn host_ports(first: u16, last: u16) {
    // /proc/sys/net is that of the namespace of whoever opens it. It may be read-only; then only Docker's name server
    // has no answers from servers outside.
    if let Err(error) = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}")) {
        tracing::debug!("the port range of the network namespace: {error}");
    }
}

/// The way to Docker's name server; none if loopback is down.
fn name_server() -> Result<Option<NameServer>> {
    let Ok(datagrams) = inet::udp_to(NAME_SERVER) else { return Ok(None) };
    let list: Vec<OwnedFd> =
        (0..CONVERSATIONS).map(|_| inet::tcp()).collect::<std::io::Result<_>>().context("TCP sockets")?;
    // It listens on a port of its own at that address, to which the namespace's rules translate.
    let text = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let present = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|own| own.starts_with("0B00007F:"));
    match list.try_into() {
        Ok(conversations) => Ok(Some(NameServer { datagrams, conversations, present })),
        Err(_) => bail!("TCP sockets"),
    }
}

/// A socket to which all connections to the namespace's 127.0.0.1 come, or sockets for single ports. Only those who would forward a
/// port notice if there is none. `alone`: there is only lo; Podman without root makes the interface later.
fn steered(alone: bool) -> Option<Steered> {
    // As `net.core.somaxconn` has it at most.
    const BACKLOG: i32 = 128;
    let open = || -> std::io::Result<Steered> {
        let listener = inet::tcp()?;
        inet::bind(&listener, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))?;
        inet::listen(&listener, BACKLOG)?;
        let steering = steer::all_of_localhost(&listener)?;
        Ok(Steered::All { listener, steering })
    };
    let each = || -> std::io::Result<Steered> {
        unprivileged_ports(0);
        let socket = |_| -> std::io::Result<OwnedFd> {
            let socket = inet::tcp()?;
            // It listens again where connections of the last time are not forgotten yet.
            inet::reuse_address(&socket)?;
            Ok(socket)
        };
        let sockets = (0..DOORS).map(socket).collect::<std::io::Result<Vec<_>>>()?;
        sockets.try_into().map(Steered::Each).map_err(|_| std::io::ErrorKind::InvalidData.into())
    };
    // The socket for all takes a moment to make, and whoever can have it has prepared the namespace by now.
    let found = if alone { Err(std::io::ErrorKind::Unsupported.into()) } else { open() };
    found
        .or_else(|error| {
            tracing::debug!("no socket for all of 127.0.0.1 of the network namespace: {error}");
            each()
        })
        .inspect_err(|error| tracing::debug!("no way in by the network namespace's own addresses: {error}"))
        .ok()
}

/// Sets from which port on anybody may listen in the namespace that is visited: the sentry has no rights.
fn unprivileged_ports(first: u16) {
    if let Err(error) = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", first.to_string()) {
        tracing::debug!("the unprivileged ports of the network namespace: {error}");
    }
}

/// Gives a namespace that outlives the container back to the host's stack.
pub fn give_back(path: &Path) -> Result<()> {
    let visit = Visit::at(path)?;
    let done = rtnetlink::open().and_then(rtnetlink::unsilence);
    // As Linux has them at first.
    host_ports(32_768, 60_999);
    visit.leave()?;
    done.with_context(|| format!("cannot give the network namespace {} back", path.display()))
}
