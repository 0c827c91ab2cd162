//! Filters that programs attach to sockets (socket(7)): `SO_ATTACH_FILTER`, `SO_DETACH_FILTER`, `SO_LOCK_FILTER`,
//! `SO_GET_FILTER`, `SO_ATTACH_REUSEPORT_CBPF`, `SO_DETACH_REUSEPORT_BPF`. The programs are classic BPF.

use super::SocketOps;
use abi::socket::so;
use abi::{Errno, Result};
use kernel::bpf::{Data, Fprog, Insn, MAX_INSNS, Program};
use kernel::uaccess::UserPtr;
use kernel::vfs::Caller;
use netstack::reuse::Chooser;
use netstack::sieve::{Seen, Sieve};
use std::sync::Arc;
use zerocopy::FromBytes;

/// Places below zero: `SKF_AD_OFF`, `SKF_NET_OFF`, `SKF_LL_OFF`.
const FACTS: u32 = 0xffff_f000;
const NETWORK: u32 = 0xfff0_0000;
const LINK: u32 = 0xffe0_0000;

/// `SKF_AD_*`
mod fact {
    pub const PROTOCOL: u32 = 0;
    pub const KIND: u32 = 4;
    pub const DEVICE: u32 = 8;
    pub const MARK: u32 = 20;
    pub const QUEUE: u32 = 24;
    pub const HARDWARE: u32 = 28;
    pub const HASH: u32 = 32;
    pub const CPU: u32 = 36;
    pub const XOR_X: u32 = 40;
    pub const VLAN: u32 = 44;
    pub const VLAN_PRESENT: u32 = 48;
    pub const RANDOM: u32 = 56;
    pub const VLAN_PROTOCOL: u32 = 60;
}

/// A packet as a program looks at it.
#[derive(Clone, Copy, Default)]
pub struct Packet<'a> {
    /// From the link's header on, if there is one.
    pub link: &'a [u8],
    /// From the network header on, if there is one.
    pub network: &'a [u8],
    /// From the place 0 on.
    pub data: &'a [u8],
    /// The EtherType.
    pub protocol: u16,
    /// `PACKET_*`
    pub kind: u8,
    pub device: u32,
    pub mark: u32,
    /// `ARPHRD_*`
    pub hardware: u16,
}

impl Data for Packet<'_> {
    const XOR_X: Option<u32> = Some(FACTS + fact::XOR_X);

    fn load(&self, at: u32, size: u32) -> Option<u32> {
        let (bytes, at) = match at {
            0..=0x7fff_ffff => (self.data, at),
            LINK..NETWORK => (self.link, at - LINK),
            NETWORK..FACTS => (self.network, at - NETWORK),
            _ => return self.fact(at.checked_sub(FACTS)?),
        };
        let bytes = bytes.get(at as usize..at as usize + size as usize)?;
        Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    fn length(&self) -> u32 {
        u32::try_from(self.data.len()).unwrap_or(u32::MAX)
    }
}

impl Packet<'_> {
    fn fact(&self, which: u32) -> Option<u32> {
        Some(match which {
            fact::PROTOCOL => self.protocol.into(),
            fact::KIND => self.kind.into(),
            fact::DEVICE => self.device,
            fact::HARDWARE => self.hardware.into(),
            fact::RANDOM => {
                let mut bytes = [0; 4];
                platform::hostsys::rand::fill(&mut bytes);
                u32::from_ne_bytes(bytes)
            }
            fact::MARK => self.mark,
            fact::QUEUE | fact::HASH | fact::CPU | fact::VLAN | fact::VLAN_PRESENT | fact::VLAN_PROTOCOL => 0,
            _ => return None,
        })
    }

    /// How many of its bytes a program keeps; `None` keeps the packet out.
    pub fn kept_by(&self, program: &Program) -> Option<usize> {
        match program.run(self) {
            None | Some(0) => None,
            Some(most) => Some(self.data.len().min(most as usize)),
        }
    }
}

/// A program as the network stack asks it.
pub struct Asked(pub Arc<Program>);

impl Asked {
    fn packet<'a>(seen: &Seen<'a>) -> Packet<'a> {
        const ARPHRD_ETHER: u16 = 1;
        const ARPHRD_LOOPBACK: u16 = 772;
        let hardware = if seen.device == netstack::LOOPBACK { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
        Packet {
            link: &[],
            network: seen.packet,
            data: seen.packet.get(seen.start..).unwrap_or_default(),
            protocol: seen.protocol,
            kind: 0,
            device: seen.device,
            mark: seen.mark,
            hardware,
        }
    }
}

impl Sieve for Asked {
    fn keep(&self, seen: &Seen<'_>) -> usize {
        // A packet without a byte may be kept, too.
        Asked::packet(seen).kept_by(&self.0).map_or(0, |kept| kept.max(1))
    }
}

impl Chooser for Asked {
    fn choose(&self, seen: &Seen<'_>) -> u32 {
        self.0.run(&Asked::packet(seen)).unwrap_or(0)
    }
}

/// Whether an option is one of these.
pub fn is_filter_option(name: i32) -> bool {
    matches!(
        name,
        so::ATTACH_FILTER
            | so::DETACH_FILTER
            | so::LOCK_FILTER
            | so::ATTACH_REUSEPORT_CBPF
            | so::DETACH_REUSEPORT_BPF
    )
}

/// setsockopt(2) of one of these: EINVAL, EFAULT, EPERM when it is locked, ENOENT, ENOPROTOOPT for sockets that have none.
pub fn set(ops: &dyn SocketOps, cx: &Caller<'_>, name: i32, value: &[u8]) -> Result<()> {
    let int: [u8; 4] = value.get(..4).and_then(|v| v.try_into().ok()).ok_or(Errno::EINVAL)?;
    let options = ops.options();
    match name {
        so::ATTACH_REUSEPORT_CBPF if options.is_filter_locked() => return Err(Errno::EPERM),
        so::ATTACH_REUSEPORT_CBPF => return ops.choose_by(Some(Arc::new(read(cx, value)?))),
        so::DETACH_REUSEPORT_BPF => return ops.choose_by(None),
        _ => {}
    }
    if !ops.has_filters() {
        return Err(Errno::ENOPROTOOPT);
    }
    match name {
        so::LOCK_FILTER => options.lock_filter(i32::from_ne_bytes(int) != 0),
        so::DETACH_FILTER => {
            if options.filter().is_none() {
                return if options.is_filter_locked() { Err(Errno::EPERM) } else { Err(Errno::ENOENT) };
            }
            options.set_filter(None)?;
            ops.filter_changed(None);
            Ok(())
        }
        _ => {
            let program = Arc::new(read(cx, value)?);
            options.set_filter(Some(Arc::clone(&program)))?;
            ops.filter_changed(Some(program));
            Ok(())
        }
    }
}

fn read(cx: &Caller<'_>, value: &[u8]) -> Result<Program> {
    let head = Fprog::read_from_bytes(value).map_err(|_| Errno::EINVAL)?;
    let count = usize::from(head.len);
    if head.filter == 0 || count == 0 || count > MAX_INSNS {
        return Err(Errno::EINVAL);
    }
    let task = cx.task.ok_or(Errno::EFAULT)?;
    let insns: Vec<Insn> = UserPtr::new(head.filter).read_array(&task.mm(), count)?;
    let known = |k: u32| k < FACTS || Packet::default().fact(k - FACTS).is_some() || k == FACTS + fact::XOR_X;
    let absent = insns.iter().find(|i| matches!(i.code, 0x20 | 0x28 | 0x30) && !known(i.k));
    if let Some(insn) = absent {
        kernel::gap!(task.kernel(), "places of filters of sockets", insn.k);
    }
    Program::for_packets(insns, known)
}
