//! Calls about the machine and the kernel itself: segments, ports, nodes of memory, mounts by number, file handles; and
//! those that are refused.

use crate::case::{Case, NOWHERE, case, close, file, fork, in_child, wait};
use crate::out::{claim, done, ret, text};
use crate::{say, sys};
use libc::{AT_EMPTY_PATH, AT_FDCWD, O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR};

/// A handle with room for all of it.
fn handle_of(path: &std::ffi::CStr, flags: i32) -> ([u32; 34], i32, isize) {
    let mut handle = [0u32; 34];
    handle[0] = 128;
    let mut mount = 0;
    let result = sys!(name_to_handle_at, AT_FDCWD, path, &mut handle, &mut mount, flags);
    (handle, mount, result)
}

/// A call that some configuration or right denies: with which error differs between kernels.
fn refused(label: &str, result: isize) {
    let denied = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL, libc::EFAULT, libc::E2BIG];
    claim(label, denied.iter().any(|e| result == -(*e as isize)));
}

pub const CASES: &[Case] = &[
    case("modify_ldt/empty_table", "", || {
        let mut room = [0xffu8; 64];
        ret("read", sys!(modify_ldt, 0, &mut room, 64));
        ret("default", sys!(modify_ldt, 2, &mut room, 64));
        say!("{:?}", room.iter().all(|b| *b == 0));
        ret("default is short", sys!(modify_ldt, 2, &mut [0u8; 256], 256));
        let low = |r: isize| r as u32 as i32 as isize;
        ret("size", low(sys!(modify_ldt, 1, &[0u32; 4], 8)));
        ret("bad pointer", low(sys!(modify_ldt, 1, NOWHERE, 16)));
        ret("bad entry", low(sys!(modify_ldt, 1, &[9000u32, 0, 0, 0], 16)));
        ret("bad contents", low(sys!(modify_ldt, 1, &[0u32, 0, 0xfff, 7], 16)));
        ret("function", low(sys!(modify_ldt, 99, 0, 0)));
        ret("clear", low(sys!(modify_ldt, 0x11, &[3u32, 0, 0, 0x28], 16)));
    }),
    case("iopl/without_the_right", "ioperm", || {
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            // A kernel may be built without both.
            refused("level 3", sys!(iopl, 3));
            refused("level 4", sys!(iopl, 4));
            refused("ports", sys!(ioperm, 0x80, 1, 1));
            refused("too far", sys!(ioperm, 65_535, 2, 1));
            refused("none", sys!(ioperm, 0x80, 0, 1));
            0
        });
    }),
    case("move_pages/one_node", "migrate_pages set_mempolicy_home_node", || {
        let p = sys!(mmap, 0, 3 * 4096, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        // SAFETY: mapped above, writable.
        unsafe { (p as *mut u8).write_volatile(1) };
        let pages = [p as u64, p as u64 + 4096, 0x10000];
        let mut status = [77i32; 3];
        ret("ask", sys!(move_pages, 0, 3, &pages, 0, &mut status, 0));
        say!("{status:?}");
        ret("flags", sys!(move_pages, 0, 1, &pages, 0, &mut status, 1));
        ret("no process", sys!(move_pages, 999_999, 1, &pages, 0, &mut status, 0));
        ret("bad pages", sys!(move_pages, 0, 1, NOWHERE, 0, &mut status, 0));
        ret("nothing", sys!(move_pages, 0, 0, 0, 0, 0, 0));
        ret("no such node", sys!(move_pages, 0, 1, &pages, &[9i32], &mut status, 2));
        ret("migrate", sys!(migrate_pages, 0, 2, &[1u64], &[1u64]));
        ret("to nowhere", sys!(migrate_pages, 0, 2, &[1u64], &[0u64]));
        ret("of nobody", sys!(migrate_pages, 999_999, 2, &[1u64], &[1u64]));
        ret("home", sys!(set_mempolicy_home_node, p, 4096, 0, 0));
        ret("home flags", sys!(set_mempolicy_home_node, p, 4096, 0, 1));
        ret("home unaligned", sys!(set_mempolicy_home_node, p + 1, 4096, 0, 0));
        ret("home of nothing", sys!(set_mempolicy_home_node, p, 0, 0, 0));
    }),
    case("process_mrelease/errors", "pidfd_open", || {
        let child = fork(|| {
            crate::case::pause_ms(10_000);
            0
        });
        let fd = sys!(pidfd_open, child, 0);
        ret("flags", sys!(process_mrelease, fd, 1));
        ret("no descriptor", sys!(process_mrelease, -1, 0));
        ret("not a pidfd", sys!(process_mrelease, file("f", b""), 0));
        ret("alive", sys!(process_mrelease, fd, 0));
        sys!(kill, child, libc::SIGKILL);
        say!("{}", wait(child));
        ret("gone", sys!(process_mrelease, fd, 0));
    }),
    case("listmount/and_statmount", "statmount lsm_list_modules", || {
        in_child("mounts", || {
            sys!(unshare, libc::CLONE_NEWNS);
            sys!(mount, 0, c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0);
            sys!(mkdir, c"m", 0o755);
            done(
                "mount",
                sys!(mount, c"none", c"m", c"tmpfs", libc::MS_NOSUID | libc::MS_NODEV, c"size=64k"),
            );
            let mut ids = [0u64; 256];
            let request = |id: u64, param: u64| [24u64, id, param];
            let n = sys!(listmount, &request(u64::MAX, 0), &mut ids, 256, 0);
            claim("some", n > 1);
            let ids = &ids[..n.max(1) as usize];
            claim("in order", ids.is_sorted());
            let last = ids[ids.len() - 1];
            let mut b = [0u8; 2048];
            ret("statmount", sys!(statmount, &request(last, 0x3a), &mut b, 2048, 0));
            let word = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
            let string = |at: usize| {
                let from = 512 + word(at) as usize;
                text(b[from..].split(|c| *c == 0).next().unwrap_or_default())
            };
            say!("type {} root {} attributes {:#x}", string(36), string(104), word(64));
            claim("point", string(108).ends_with("/m"));
            ret("small", sys!(statmount, &request(last, 0x38), &mut [0u8; 600][..512], 512, 0));
            ret("an old number", sys!(statmount, &request(5, 2), &mut b, 2048, 0));
            ret("no such", sys!(statmount, &request(1 << 50, 2), &mut b, 2048, 0));
            ret("flags", sys!(statmount, &request(last, 2), &mut b, 2048, 8));
            ret("size", sys!(statmount, &[8u64, last, 2], &mut b, 2048, 0));
            ret("list of none", sys!(listmount, &request(1 << 50, 0), &mut [0u64; 4], 4, 0));
            ret("list flags", sys!(listmount, &request(u64::MAX, 0), &mut [0u64; 4], 4, 8));
            ret("bad request", sys!(listmount, NOWHERE, &mut [0u64; 4], 4, 0));
            ret("below the last", sys!(listmount, &request(last, 0), &mut [0u64; 4], 4, 0));
            ret("after the last", sys!(listmount, &request(u64::MAX, last), &mut [0u64; 4], 4, 0));
            sys!(umount2, c"m", 0);
            0
        });
        let mut size = 4u32;
        ret("modules, no room", sys!(lsm_list_modules, &mut [0u64; 1], &mut size, 0));
        ret("modules, flags", sys!(lsm_list_modules, &mut [0u64; 1], &mut size, 1));
        let (mut ids, mut size) = ([0u64; 32], 256u32);
        let n = sys!(lsm_list_modules, &mut ids, &mut size, 0);
        claim("capabilities", n > 0 && ids.contains(&100));
    }),
    case("name_to_handle_at/round_trip", "open_by_handle_at", || {
        in_child("tmpfs", || {
            sys!(unshare, libc::CLONE_NEWNS);
            sys!(mount, 0, c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0);
            sys!(mkdir, c"t", 0o755);
            sys!(mount, c"none", c"t", c"tmpfs", 0, 0);
            close(file("t/a", b"first"));
            close(file("t/b", b"second"));
            let (a, mount_a, r) = handle_of(c"t/a", 0);
            ret("a", r);
            let (b, mount_b, r) = handle_of(c"t/b", 0);
            ret("b", r);
            say!("bytes {} type {}", a[0], a[1]);
            claim("same mount", mount_a == mount_b);
            claim("different files", a != b);
            let (again, _, _) = handle_of(c"t/a", 0);
            claim("stable", a == again);
            let mut unique = [0u64; 1];
            let mut h = [0u32; 34];
            h[0] = 128;
            ret("unique mount", sys!(name_to_handle_at, AT_FDCWD, c"t/a", &mut h, &mut unique, 1));
            claim("a large number", unique[0] > 1 << 30);
            let root = sys!(open, c"t", O_RDONLY | O_DIRECTORY, 0);
            let fd = sys!(open_by_handle_at, root, &a, O_RDWR);
            done("open", fd);
            let mut text = [0u8; 8];
            let n = ret("read", sys!(read, fd, &mut text, 8));
            say!("{}", crate::out::text(&text[..n.max(0) as usize]));
            ret("rename", sys!(rename, c"t/a", c"t/c"));
            let moved = sys!(open_by_handle_at, root, &a, O_RDONLY);
            done("renamed", moved);
            close(moved as i32);
            close(fd as i32);
            let by_path = sys!(open, c"t/c", O_PATH);
            ret(
                "by path descriptor",
                sys!(name_to_handle_at, by_path, c"", &mut h, &mut [0i32; 1], AT_EMPTY_PATH),
            );
            claim("the same", h[..5] == a[..5]);
            close(by_path as i32);
            let (dir, _, _) = handle_of(c"t", 0);
            done("directory", sys!(open_by_handle_at, root, &dir, O_RDONLY | O_DIRECTORY));
            ret("unlink", sys!(unlink, c"t/c"));
            ret("stale", sys!(open_by_handle_at, root, &a, O_RDONLY));
            let mut odd = b;
            odd[2] ^= 0x55;
            ret("never was", sys!(open_by_handle_at, root, &odd, O_RDONLY));
            odd = b;
            odd[0] = 0;
            ret("no bytes", sys!(open_by_handle_at, root, &odd, O_RDONLY));
            odd[0] = 129;
            ret("many bytes", sys!(open_by_handle_at, root, &odd, O_RDONLY));
            ret("bad pointer", sys!(open_by_handle_at, root, NOWHERE, O_RDONLY));
            ret("bad descriptor", sys!(open_by_handle_at, -1, &b, O_RDONLY));
            in_child("user", || {
                sys!(setresuid, 9, 9, 9);
                done("name", handle_of(c"t/b", 0).2);
                ret("open", sys!(open_by_handle_at, root, &b, O_RDONLY));
                0
            });
            let mut small = [0u32; 34];
            small[0] = 4;
            ret("small", sys!(name_to_handle_at, AT_FDCWD, c"t/b", &mut small, &mut [0i32; 1], 0));
            say!("needs {}", small[0]);
            small[0] = 200;
            ret("large", sys!(name_to_handle_at, AT_FDCWD, c"t/b", &mut small, &mut [0i32; 1], 0));
            0
        });
        ret("proc has none", handle_of(c"/proc/self/status", 0).2);
        let (pipe, _) = crate::case::pipe(0);
        ret(
            "a pipe has none",
            sys!(name_to_handle_at, pipe, c"", &mut [128u32; 34], &mut [0i32; 1], AT_EMPTY_PATH),
        );
    }),
    case("open/refused_calls", "", || {
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            // Whether the host has these at all is a matter of its configuration.
            refused("init_module", sys!(init_module, 0, 0, 0));
            refused("delete_module", sys!(delete_module, 0, 0));
            refused("kexec_load", sys!(kexec_load, 0, 0, 0, 0));
            refused("kexec_file_load", sys!(kexec_file_load, -1, -1, 0, 0, 0));
            refused("bpf", sys!(bpf, 0, 0, 0));
            refused("perf_event_open", sys!(perf_event_open, 0, 0, -1, -1, 0));
            ret("acct", sys!(acct, 0));
            ret("swapon", sys!(swapon, c"/x", 0));
            ret("reboot", sys!(reboot, 0xfee1_dead_u32, 672_274_793, 0x0123_4567, 0));
            ret("uselib", sys!(uselib, c"/x"));
            ret("getpmsg", sys!(getpmsg));
            ret("nfsservctl", sys!(nfsservctl));
            ret("_sysctl", sys!(_sysctl));
            ret("epoll_ctl_old", sys!(epoll_ctl_old));
            ret("set_thread_area", sys!(set_thread_area, 0));
            ret("io_uring_enter", sys!(io_uring_enter, -1, 0, 0, 0, 0, 0));
            0
        });
        let _ = O_CREAT;
    }),
    case("mknod/devices_of_a_bind_mount", "mknod open", || {
        ret("null", sys!(mknod, c"null", libc::S_IFCHR | 0o640, 0x103));
        let mut stat: libc::stat = crate::case::zeroed();
        ret("stat", sys!(stat, c"null", &mut stat));
        say!("{:o} {:#x} {} {}", stat.st_mode, stat.st_rdev, stat.st_size, stat.st_nlink);
        ret("chmod", sys!(chmod, c"null", 0o666));
        ret("link", sys!(link, c"null", c"other"));
        ret("rename", sys!(rename, c"null", c"moved"));
        ret("stat", sys!(stat, c"moved", &mut stat));
        say!("{:o} {:#x} {}", stat.st_mode, stat.st_rdev, stat.st_nlink);
        let kinds: Vec<String> = std::fs::read_dir(".").map_or(Vec::new(), |d| {
            use std::os::unix::fs::FileTypeExt;
            let mut k: Vec<String> = d
                .flatten()
                .map(|e| {
                    let device = e.file_type().is_ok_and(|t| t.is_char_device());
                    format!("{}:{device}", e.file_name().to_string_lossy())
                })
                .collect();
            k.sort();
            k
        });
        say!("{kinds:?}");
        ret("unlink", sys!(unlink, c"moved"));
        ret("block", sys!(mknod, c"block", libc::S_IFBLK | 0o600, 0x3c07));
        ret("stat", sys!(stat, c"block", &mut stat));
        say!("{:o} {:#x}", stat.st_mode, stat.st_rdev);
        ret("open", sys!(open, c"block", O_RDONLY, 0));
        ret("unlink", sys!(unlink, c"block"));
        ret("unlink", sys!(unlink, c"other"));
    }),
];
