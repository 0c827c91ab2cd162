//! /proc/sys: the settings of `kernel::sysctl` as a tree, and the few that are computed.

use super::system::kernel;
use crate::pseudo::{Node, StaticDir, text, writable};
use abi::Result;
use kernel::sysctl::{Kind, SETTINGS, Setting, Sysctls};
use kernel::vfs::Caller;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
struct Branch {
    dirs: BTreeMap<String, Branch>,
    files: Vec<(String, u32, Node)>,
}

impl Branch {
    fn put(&mut self, path: &str, perm: u32, node: Node) {
        match path.split_once('/') {
            Some((dir, rest)) => self.dirs.entry(dir.to_owned()).or_default().put(rest, perm, node),
            None => self.files.push((path.to_owned(), perm, node)),
        }
    }

    fn build(self, next_ino: &mut u64) -> StaticDir {
        let mut dir = StaticDir::new();
        for (name, perm, node) in self.files {
            dir.add(next_ino, &name, perm, node);
        }
        for (name, branch) in self.dirs {
            let sub = branch.build(next_ino);
            dir.add(next_ino, &name, 0o555, Node::Dir(Arc::new(sub)));
        }
        dir
    }
}

fn setting(s: &'static Setting) -> (u32, Node) {
    let read = move |cx: &Caller<'_>| -> Result<Vec<u8>> {
        Ok(format!("{}\n", kernel(cx)?.sysctls.get(s)).into_bytes())
    };
    match s.kind {
        Kind::Fixed => (0o444, text(read)),
        _ => (0o644, writable(read, move |cx, data| kernel(cx)?.sysctls.set(s, data))),
    }
}

fn uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn random_uuid() -> String {
    let mut b = [0; 16];
    platform::hostsys::rand::fill(&mut b);
    // RFC 9562, version 4.
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    uuid(b)
}

/// The directory.
pub(super) fn tree(next_ino: &mut u64) -> StaticDir {
    let mut root = Branch::default();
    for s in SETTINGS {
        let (perm, node) = setting(s);
        root.put(s.path, perm, node);
    }
    let boot_id = random_uuid();
    root.put("kernel/random/boot_id", 0o444, text(move |_| Ok(boot_id.clone().into_bytes())));
    root.put("kernel/random/uuid", 0o444, text(|_| Ok(random_uuid().into_bytes())));
    root.put(
        "fs/file-nr",
        0o444,
        text(|cx| {
            let k = kernel(cx)?;
            let open = k.vfs.files.load(std::sync::atomic::Ordering::Relaxed);
            Ok(format!("{open}\t0\t{}\n", k.sysctls.get_int("fs/file-max")).into_bytes())
        }),
    );
    root.put("fs/inode-nr", 0o444, text(|_| Ok(b"0\t0\n".to_vec())));
    super::uts::add(&mut |path, perm, node| root.put(path, perm, node));
    root.build(next_ino)
}

/// Sets a setting by the dotted name of sysctl(8), as a container's configuration has it. `None` when there is no such setting.
pub fn set_by_name(sysctls: &Sysctls, name: &str, value: &str) -> Option<Result<()>> {
    let path = name.replace('.', "/");
    Sysctls::find(&path).map(|s| sysctls.set(s, value.as_bytes()))
}
