//! sysfs(5): the little of it that programs look at: processors, memory, network interfaces.

mod net;

use crate::pseudo::{DirNode, Node, PseudoFs, StaticDir, fixed, text};
use abi::time::Timespec;
use abi::{Errno, Result};
use kernel::Kernel;
use kernel::vfs::{Caller, FsFlags};
use std::sync::Arc;

/// `SYSFS_MAGIC`
const MAGIC: i64 = 0x6265_6572;

fn kernel<'a>(cx: &Caller<'a>) -> Result<&'a Arc<Kernel>> {
    cx.task.map(|t| t.kernel()).ok_or(Errno::ESRCH)
}

fn cpu_range(cx: &Caller<'_>) -> Result<Vec<u8>> {
    let n = kernel(cx)?.machine.cpus();
    Ok(if n == 1 { "0\n".to_owned() } else { format!("0-{}\n", n - 1) }.into_bytes())
}

struct Builder {
    ino: u64,
}

impl Builder {
    fn dir(&mut self, entries: Vec<(&str, u32, Node)>) -> Node {
        let mut d = StaticDir::new();
        for (name, perm, node) in entries {
            d.add(&mut self.ino, name, perm, node);
        }
        Node::Dir(Arc::new(d))
    }

    fn empty(&mut self) -> Node {
        self.dir(Vec::new())
    }

    fn cpu(&mut self, n: usize, all: usize) -> Node {
        let mask = format!("{:x}\n", (1u128 << all.min(127)) - 1);
        let list = if all == 1 { "0\n".to_owned() } else { format!("0-{}\n", all - 1) };
        let topology = self.dir(vec![
            ("core_id", 0o444, fixed(format!("{n}\n"))),
            ("core_cpus", 0o444, fixed(format!("{:x}\n", 1u128 << n.min(127)))),
            ("core_cpus_list", 0o444, fixed(format!("{n}\n"))),
            ("core_siblings", 0o444, fixed(mask.clone())),
            ("core_siblings_list", 0o444, fixed(list.clone())),
            ("package_cpus", 0o444, fixed(mask)),
            ("package_cpus_list", 0o444, fixed(list)),
            ("physical_package_id", 0o444, fixed("0\n")),
            ("thread_siblings", 0o444, fixed(format!("{:x}\n", 1u128 << n.min(127)))),
            ("thread_siblings_list", 0o444, fixed(format!("{n}\n"))),
        ]);
        let cache = self.empty();
        self.dir(vec![("topology", 0o755, topology), ("cache", 0o755, cache)])
    }
}

/// A sysfs for a kernel with `cpus` processors at most.
pub fn new(dev: u64, born: Timespec, cpus: usize) -> Arc<PseudoFs> {
    let mut b = Builder { ino: 2 };
    let mut cpu_dir = StaticDir::new();
    for n in 0..cpus {
        let node = b.cpu(n, cpus);
        cpu_dir.add(&mut b.ino, &format!("cpu{n}"), 0o755, node);
    }
    for name in ["online", "possible", "present"] {
        cpu_dir.add(&mut b.ino, name, 0o444, text(cpu_range));
    }
    cpu_dir.add(&mut b.ino, "offline", 0o444, fixed("\n"));
    cpu_dir.add(&mut b.ino, "kernel_max", 0o444, fixed("8191\n"));
    cpu_dir.add(&mut b.ino, "isolated", 0o444, fixed("\n"));
    let node0 = b.dir(vec![("cpulist", 0o444, text(cpu_range)), ("distance", 0o444, fixed("10\n"))]);
    let nodes = b.dir(vec![
        ("node0", 0o755, node0),
        ("online", 0o444, fixed("0\n")),
        ("possible", 0o444, fixed("0\n")),
        ("has_cpu", 0o444, fixed("0\n")),
        ("has_memory", 0o444, fixed("0\n")),
    ]);
    let system = b.dir(vec![("cpu", 0o755, Node::Dir(Arc::new(cpu_dir))), ("node", 0o755, nodes)]);
    let net = Node::Dir(Arc::new(net::NetClass));
    let devices = {
        let virt = b.empty();
        b.dir(vec![("system", 0o755, system), ("virtual", 0o755, virt)])
    };
    let class = {
        let (block, mem, tty) = (b.empty(), b.empty(), b.empty());
        b.dir(vec![("net", 0o755, net), ("block", 0o755, block), ("mem", 0o755, mem), ("tty", 0o755, tty)])
    };
    let thp = b.dir(vec![
        ("enabled", 0o444, fixed("always [madvise] never\n")),
        ("defrag", 0o444, fixed("always defer defer+madvise [madvise] never\n")),
        ("hpage_pmd_size", 0o444, fixed("2097152\n")),
    ]);
    let hugepages = b.empty();
    let mm = b.dir(vec![("transparent_hugepage", 0o755, thp), ("hugepages", 0o755, hugepages)]);
    let (debug, security) = (b.empty(), b.empty());
    let kernel_dir = b.dir(vec![("mm", 0o755, mm), ("debug", 0o700, debug), ("security", 0o755, security)]);
    let cgroup = b.empty();
    let fs_dir = b.dir(vec![("cgroup", 0o755, cgroup)]);
    let (block, bus, dev_dir, firmware, hypervisor, module, power) =
        (b.empty(), b.empty(), b.empty(), b.empty(), b.empty(), b.empty(), b.empty());
    let mut root = StaticDir::new();
    for (name, node) in [
        ("block", block),
        ("bus", bus),
        ("class", class),
        ("dev", dev_dir),
        ("devices", devices),
        ("firmware", firmware),
        ("fs", fs_dir),
        ("hypervisor", hypervisor),
        ("kernel", kernel_dir),
        ("module", module),
        ("power", power),
    ] {
        root.add(&mut b.ino, name, 0o755, node);
    }
    let root: Arc<dyn DirNode> = Arc::new(root);
    // Interfaces come and go.
    let flags = FsFlags::REVALIDATE | FsFlags::NO_NEGATIVE;
    PseudoFs::new("sysfs", dev, MAGIC, flags, born, String::new(), root)
}
