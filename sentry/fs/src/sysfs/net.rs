//! /sys/class/net: a directory for each interface of the reader's network stack.

use crate::pseudo::{DirNode, Node, Owner, PseudoFs, PseudoInode, StaticDir, text};
use crate::socket::host::tables::count;
use crate::socket::inet::stack_for;
use crate::socket::interfaces;
use abi::stat::FileType;
use abi::{Errno, Result};
use kernel::vfs::{Caller, Inode};
use netstack::Interface;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Inode numbers of the directories: no other of sysfs is as large.
const FIRST_INO: u64 = 1 << 32;
/// Inodes of one interface.
const INOS: u64 = 64;

/// The directory of all interfaces.
pub(super) struct NetClass;

fn find(cx: &Caller<'_>, index: u32) -> Result<Interface> {
    let (task, stack) = (cx.task.ok_or(Errno::ENODEV)?, stack_for(cx).ok_or(Errno::ENODEV)?);
    count(task.kernel(), &stack);
    stack.interfaces.by_index(index).ok_or(Errno::ENODEV)
}

fn mac(address: &[u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// What the files of an interface say.
type Show = fn(&Interface) -> Result<String>;

fn counter(value: &std::sync::atomic::AtomicU64) -> Result<String> {
    Ok(value.load(Ordering::Relaxed).to_string())
}

const FILES: [(&str, Show); 14] = [
    ("address", |i| Ok(mac(&i.hardware))),
    ("addr_assign_type", |i| Ok(if i.loopback { "0" } else { "3" }.to_owned())),
    ("addr_len", |_| Ok("6".to_owned())),
    ("broadcast", |i| Ok(mac(&if i.loopback { [0; 6] } else { [0xff; 6] }))),
    // Linux gives EINVAL for one that is down.
    ("carrier", |i| if i.up { Ok(u8::from(i.carrier).to_string()) } else { Err(Errno::EINVAL) }),
    ("dev_id", |_| Ok("0x0".to_owned())),
    ("flags", |i| {
        const SETTABLE: u32 = !(interfaces::IFF_RUNNING | interfaces::IFF_LOWER_UP);
        Ok(format!("0x{:x}", interfaces::flags(i) & SETTABLE))
    }),
    ("ifindex", |i| Ok(i.index.to_string())),
    ("iflink", |i| Ok(i.index.to_string())),
    ("link_mode", |_| Ok("0".to_owned())),
    ("mtu", |i| Ok(i.mtu.to_string())),
    ("operstate", |i| {
        let state = match (i.loopback, i.up && i.carrier) {
            (true, true) => "unknown",
            (false, true) => "up",
            (_, false) => "down",
        };
        Ok(state.to_owned())
    }),
    ("tx_queue_len", |_| Ok("1000".to_owned())),
    ("type", |i| Ok(interfaces::hardware_type(i).to_string())),
];

const COUNTERS: [(&str, Show); 4] = [
    ("rx_bytes", |i| counter(&i.traffic.received_bytes)),
    ("rx_packets", |i| counter(&i.traffic.received_packets)),
    ("tx_bytes", |i| counter(&i.traffic.sent_bytes)),
    ("tx_packets", |i| counter(&i.traffic.sent_packets)),
];

const ZEROES: [&str; 8] = [
    "collisions",
    "multicast",
    "rx_dropped",
    "rx_errors",
    "rx_fifo_errors",
    "tx_dropped",
    "tx_errors",
    "tx_fifo_errors",
];

fn file(index: u32, show: Show) -> Node {
    text(move |cx| Ok(format!("{}\n", show(&find(cx, index)?)?).into_bytes()))
}

fn directory(index: u32) -> StaticDir {
    let mut ino = FIRST_INO + u64::from(index) * INOS;
    let mut statistics = StaticDir::new();
    for (name, show) in COUNTERS {
        statistics.add(&mut ino, name, 0o444, file(index, show));
    }
    for name in ZEROES {
        statistics.add(&mut ino, name, 0o444, file(index, |_| Ok("0".to_owned())));
    }
    let mut dir = StaticDir::new();
    for (name, show) in FILES {
        dir.add(&mut ino, name, 0o444, file(index, show));
    }
    dir.add(&mut ino, "statistics", 0o755, Node::Dir(Arc::new(statistics)));
    dir
}

impl DirNode for NetClass {
    fn lookup(&self, cx: &Caller<'_>, fs: &Arc<PseudoFs>, name: &[u8]) -> Result<Arc<PseudoInode>> {
        let stack = stack_for(cx).ok_or(Errno::ENOENT)?;
        let index = stack.interfaces.by_name(name).ok_or(Errno::ENOENT)?.index;
        let ino = FIRST_INO + u64::from(index) * INOS;
        Ok(PseudoInode::new(fs, ino, 0o755, Owner::Fixed(0, 0), Node::Dir(Arc::new(directory(index)))))
    }

    fn list(&self, cx: &Caller<'_>, from: u64, emit: &mut dyn FnMut(u64, u64, FileType, &[u8]) -> bool) {
        let Some(stack) = stack_for(cx) else { return };
        let mut list = stack.interfaces.list();
        list.sort_by_key(|i| i.index);
        for i in list.iter().filter(|i| u64::from(i.index) + 1 >= from) {
            let ino = FIRST_INO + u64::from(i.index) * INOS;
            if !emit(u64::from(i.index) + 1, ino, FileType::Directory, i.name.as_bytes()) {
                return;
            }
        }
    }

    fn revalidate(&self, cx: &Caller<'_>, name: &[u8], child: Option<&Arc<dyn Inode>>) -> bool {
        let found = stack_for(cx).and_then(|stack| stack.interfaces.by_name(name));
        let ino = found.map(|i| FIRST_INO + u64::from(i.index) * INOS);
        ino == child.map(|inode| inode.ino())
    }
}
