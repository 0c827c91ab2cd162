//! The syscall table: the single source of dispatch, argument decoding, strace text,
//! `runsc help syscalls` and the documentation page. One line for each call that is really answered.

use super::Arg;
use super::aio::IoEvent;
use super::futex::FutexWaitv;
use super::mq::MqAttr;
use super::system::SysInfo;
use super::trace::{Entry, unknown};
use crate::Current;
use abi::ipc::{MsqidDs, SemBuf};
use abi::poll::{EpollEvent, PollFd};
use abi::resource::{Rlimit, Rusage};
use abi::siginfo::{SigAction, SigEvent, SigInfo, StackT};
use abi::socket::{MMsgHdr, MsgHdr};
use abi::stat::{Stat, StatFs, Statx};
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use kernel::SysResult;
use kernel::uaccess::{UserCStr, UserPtr};
use kernel::vfs::Fd;

macro_rules! syscalls {
    ($($nr:literal => $name:ident($($arg:ident: $ty:ty),*) in $family:ident;)*) => {
        /// Every implemented call, by number.
        pub static TABLE: &[Entry] = &[
            $(Entry {
                nr: $nr,
                name: stringify!($name),
                args: &[$((stringify!($arg), stringify!($ty))),*],
                family: stringify!($family),
                trace_args: |task, raw, out| {
                    let mut first = true;
                    let mut raw = raw.iter().copied();
                    $(
                        if !first {
                            out.push_str(", ");
                        }
                        first = false;
                        let $arg = <$ty as Arg>::decode(raw.next().unwrap_or(0));
                        $arg.trace(task, out);
                    )*
                    let _ = (task, &mut first, &mut raw, out);
                },
            },)*
        ];

        /// Answers a call.
        pub fn dispatch(t: &mut Current<'_>, nr: u64, raw: &[u64; 6]) -> SysResult {
            match nr {
                $($nr => {
                    let mut raw = raw.iter().copied();
                    $(let $arg = <$ty as Arg>::decode(raw.next().unwrap_or(0));)*
                    let _ = &mut raw;
                    super::$family::$name(t, $($arg),*)
                })*
                _ => unknown(t, nr),
            }
        }
    };
}

// Calls that are refused whatever their arguments stand in refused.rs.
syscalls! {
    0 => read(fd: Fd, buf: UserPtr<u8>, count: usize) in read_write;
    1 => write(fd: Fd, buf: UserPtr<u8>, count: usize) in read_write;
    2 => open(path: UserCStr, flags: u32, mode: u32) in open;
    3 => close(fd: Fd) in open;
    4 => stat(path: UserCStr, out: UserPtr<Stat>) in stat;
    5 => fstat(fd: Fd, out: UserPtr<Stat>) in stat;
    6 => lstat(path: UserCStr, out: UserPtr<Stat>) in stat;
    7 => poll(fds: UserPtr<PollFd>, n: u32, timeout: i32) in poll;
    8 => lseek(fd: Fd, offset: i64, whence: u32) in read_write;
    9 => mmap(addr: u64, len: u64, prot: u64, flags: u64, fd: Fd, offset: u64) in memory;
    10 => mprotect(addr: u64, len: u64, prot: u64) in memory;
    11 => munmap(addr: u64, len: u64) in memory;
    12 => brk(to: u64) in memory;
    13 => rt_sigaction(signal: i32, new: UserPtr<SigAction>, old: UserPtr<SigAction>, size: usize) in signal;
    14 => rt_sigprocmask(how: i32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) in signal;
    15 => rt_sigreturn() in signal;
    16 => ioctl(fd: Fd, cmd: u32, arg: u64) in ioctl;
    17 => pread64(fd: Fd, buf: UserPtr<u8>, count: usize, offset: i64) in read_write;
    18 => pwrite64(fd: Fd, buf: UserPtr<u8>, count: usize, offset: i64) in read_write;
    19 => readv(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize) in read_write;
    20 => writev(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize) in read_write;
    21 => access(path: UserCStr, mode: u32) in stat;
    22 => pipe(fds: UserPtr<[i32; 2]>) in pipe;
    23 => select(n: i32, readable: UserPtr<u64>, writable: UserPtr<u64>, exceptional: UserPtr<u64>, timeout: UserPtr<Timeval>) in poll;
    24 => sched_yield() in sched;
    25 => mremap(old: u64, old_len: u64, new_len: u64, flags: u64, new: u64) in memory;
    26 => msync(addr: u64, len: u64, flags: u32) in memory;
    27 => mincore(addr: u64, len: u64, vec: UserPtr<u8>) in memory;
    28 => madvise(addr: u64, len: u64, advice: i32) in memory;
    29 => shmget(key: i32, size: u64, flags: u32) in shm;
    30 => shmat(id: i32, addr: u64, flags: u32) in shm;
    31 => shmctl(id: i32, cmd: i32, buf: UserPtr<u8>) in shm;
    32 => dup(fd: Fd) in open;
    33 => dup2(old: Fd, new: Fd) in open;
    34 => pause() in signal;
    35 => nanosleep(time: UserPtr<Timespec>, rest: UserPtr<Timespec>) in time;
    36 => getitimer(which: i32, out: UserPtr<Itimerval>) in timer;
    37 => alarm(seconds: u32) in timer;
    38 => setitimer(which: i32, new: UserPtr<Itimerval>, old: UserPtr<Itimerval>) in timer;
    39 => getpid() in ids;
    40 => sendfile(out: Fd, input: Fd, offset: UserPtr<i64>, count: usize) in splice;
    41 => socket(domain: i32, kind: i32, protocol: i32) in socket;
    42 => connect(fd: Fd, addr: UserPtr<u8>, len: i32) in socket;
    43 => accept(fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) in socket;
    44 => sendto(fd: Fd, buf: UserPtr<u8>, len: usize, flags: u32, addr: UserPtr<u8>, addr_len: i32) in socket_msg;
    45 => recvfrom(fd: Fd, buf: UserPtr<u8>, len: usize, flags: u32, addr: UserPtr<u8>, addr_len: UserPtr<i32>) in socket_msg;
    46 => sendmsg(fd: Fd, msg: UserPtr<MsgHdr>, flags: u32) in socket_msg;
    47 => recvmsg(fd: Fd, msg: UserPtr<MsgHdr>, flags: u32) in socket_msg;
    48 => shutdown(fd: Fd, how: i32) in socket;
    49 => bind(fd: Fd, addr: UserPtr<u8>, len: i32) in socket;
    50 => listen(fd: Fd, backlog: i32) in socket;
    51 => getsockname(fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) in socket;
    52 => getpeername(fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>) in socket;
    53 => socketpair(domain: i32, kind: i32, protocol: i32, fds: UserPtr<[i32; 2]>) in socket;
    54 => setsockopt(fd: Fd, level: i32, name: i32, value: UserPtr<u8>, len: i32) in socket;
    55 => getsockopt(fd: Fd, level: i32, name: i32, value: UserPtr<u8>, len: UserPtr<i32>) in socket;
    56 => clone(flags: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) in clone;
    57 => fork() in clone;
    58 => vfork() in clone;
    59 => execve(path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>) in exec;
    60 => exit(code: i32) in exit;
    61 => wait4(pid: i32, status: UserPtr<i32>, options: u32, usage: UserPtr<Rusage>) in wait;
    62 => kill(pid: i32, signal: i32) in signal;
    63 => uname(out: UserPtr<u8>) in system;
    64 => semget(key: i32, count: i32, flags: u32) in sem;
    65 => semop(id: i32, ops: UserPtr<SemBuf>, count: u32) in sem;
    66 => semctl(id: i32, num: i32, cmd: i32, arg: u64) in sem;
    67 => shmdt(addr: u64) in shm;
    68 => msgget(key: i32, flags: u32) in msg;
    69 => msgsnd(id: i32, msg: UserPtr<i64>, size: usize, flags: u32) in msg;
    70 => msgrcv(id: i32, msg: UserPtr<i64>, size: usize, kind: i64, flags: u32) in msg;
    71 => msgctl(id: i32, cmd: i32, arg: UserPtr<MsqidDs>) in msg;
    72 => fcntl(fd: Fd, cmd: u32, arg: u64) in fcntl;
    73 => flock(fd: Fd, op: u32) in fcntl;
    74 => fsync(fd: Fd) in sync;
    75 => fdatasync(fd: Fd) in sync;
    76 => truncate(path: UserCStr, len: i64) in attr;
    77 => ftruncate(fd: Fd, len: i64) in attr;
    78 => getdents(fd: Fd, out: UserPtr<u8>, count: u32) in dir;
    79 => getcwd(buf: UserPtr<u8>, size: usize) in dir;
    80 => chdir(path: UserCStr) in dir;
    81 => fchdir(fd: Fd) in dir;
    82 => rename(old: UserCStr, new: UserCStr) in name;
    83 => mkdir(path: UserCStr, mode: u32) in dir;
    84 => rmdir(path: UserCStr) in dir;
    85 => creat(path: UserCStr, mode: u32) in open;
    86 => link(old: UserCStr, new: UserCStr) in name;
    87 => unlink(path: UserCStr) in name;
    88 => symlink(target: UserCStr, path: UserCStr) in name;
    89 => readlink(path: UserCStr, buf: UserPtr<u8>, size: i32) in name;
    90 => chmod(path: UserCStr, mode: u32) in attr;
    91 => fchmod(fd: Fd, mode: u32) in attr;
    92 => chown(path: UserCStr, uid: u32, gid: u32) in attr;
    93 => fchown(fd: Fd, uid: u32, gid: u32) in attr;
    94 => lchown(path: UserCStr, uid: u32, gid: u32) in attr;
    95 => umask(mask: u32) in dir;
    96 => gettimeofday(tv: UserPtr<Timeval>, tz: UserPtr<[i32; 2]>) in time;
    97 => getrlimit(which: u32, out: UserPtr<Rlimit>) in rlimit;
    98 => getrusage(who: i32, out: UserPtr<Rusage>) in rlimit;
    99 => sysinfo(out: UserPtr<SysInfo>) in system;
    100 => times(out: UserPtr<[i64; 4]>) in rlimit;
    101 => ptrace(request: i64, pid: i32, addr: u64, data: u64) in ptrace;
    102 => getuid() in ids;
    103 => syslog(kind: i32, buf: UserPtr<u8>, len: i32) in system;
    104 => getgid() in ids;
    105 => setuid(uid: u32) in ids;
    106 => setgid(gid: u32) in ids;
    107 => geteuid() in ids;
    108 => getegid() in ids;
    109 => setpgid(pid: i32, pgid: i32) in ids;
    110 => getppid() in ids;
    111 => getpgrp() in ids;
    112 => setsid() in ids;
    113 => setreuid(ruid: u32, euid: u32) in ids;
    114 => setregid(rgid: u32, egid: u32) in ids;
    115 => getgroups(size: i32, list: UserPtr<u32>) in ids;
    116 => setgroups(size: i32, list: UserPtr<u32>) in ids;
    117 => setresuid(ruid: u32, euid: u32, suid: u32) in ids;
    118 => getresuid(ruid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) in ids;
    119 => setresgid(rgid: u32, egid: u32, sgid: u32) in ids;
    120 => getresgid(rgid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) in ids;
    121 => getpgid(pid: i32) in ids;
    122 => setfsuid(uid: u32) in ids;
    123 => setfsgid(gid: u32) in ids;
    124 => getsid(pid: i32) in ids;
    125 => capget(header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) in caps;
    126 => capset(header: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) in caps;
    127 => rt_sigpending(set: UserPtr<u8>, size: usize) in signal;
    128 => rt_sigtimedwait(set: UserPtr<u64>, info: UserPtr<SigInfo>, timeout: UserPtr<Timespec>, size: usize) in signal;
    129 => rt_sigqueueinfo(pid: i32, signal: i32, info: UserPtr<SigInfo>) in signal;
    130 => rt_sigsuspend(mask: UserPtr<u64>, size: usize) in signal;
    131 => sigaltstack(new: UserPtr<StackT>, old: UserPtr<StackT>) in signal;
    132 => utime(path: UserCStr, times: UserPtr<[i64; 2]>) in attr;
    133 => mknod(path: UserCStr, mode: u32, dev: u32) in name;
    135 => personality(new: u32) in system;
    136 => ustat(dev: u32, out: UserPtr<[u64; 4]>) in stat;
    137 => statfs(path: UserCStr, out: UserPtr<StatFs>) in stat;
    138 => fstatfs(fd: Fd, out: UserPtr<StatFs>) in stat;
    139 => sysfs(option: i32, arg: u64, out: UserPtr<u8>) in stat;
    140 => getpriority(which: i32, who: i32) in sched;
    141 => setpriority(which: i32, who: i32, nice: i32) in sched;
    142 => sched_setparam(pid: i32, param: UserPtr<i32>) in sched;
    143 => sched_getparam(pid: i32, param: UserPtr<i32>) in sched;
    144 => sched_setscheduler(pid: i32, policy: i32, param: UserPtr<i32>) in sched;
    145 => sched_getscheduler(pid: i32) in sched;
    146 => sched_get_priority_max(policy: i32) in sched;
    147 => sched_get_priority_min(policy: i32) in sched;
    148 => sched_rr_get_interval(pid: i32, out: UserPtr<Timespec>) in sched;
    149 => mlock(addr: u64, len: u64) in memory;
    150 => munlock(addr: u64, len: u64) in memory;
    151 => mlockall(flags: u32) in memory;
    152 => munlockall() in memory;
    153 => vhangup() in system;
    154 => modify_ldt(func: i32, ptr: UserPtr<[u32; 4]>, bytes: u64) in machine;
    155 => pivot_root(new_root: UserCStr, put_old: UserCStr) in mount;
    157 => prctl(option: i32, a: u64, b: u64, c: u64, d: u64) in prctl;
    158 => arch_prctl(code: i32, addr: u64) in prctl;
    159 => adjtimex(buf: UserPtr<u8>) in time;
    160 => setrlimit(which: u32, new: UserPtr<Rlimit>) in rlimit;
    161 => chroot(path: UserCStr) in dir;
    162 => sync() in sync;
    163 => acct(path: UserCStr) in system;
    164 => settimeofday(tv: UserPtr<Timeval>, tz: UserPtr<[i32; 2]>) in time;
    165 => mount(source: UserCStr, target: UserCStr, kind: UserCStr, flags: u64, data: UserPtr<u8>) in mount;
    166 => umount2(target: UserCStr, flags: u32) in mount;
    167 => swapon(path: UserCStr, flags: u32) in system;
    168 => swapoff(path: UserCStr) in system;
    169 => reboot(magic1: u32, magic2: u32, cmd: u32, arg: u64) in system;
    170 => sethostname(name: UserPtr<u8>, len: i32) in system;
    171 => setdomainname(name: UserPtr<u8>, len: i32) in system;
    186 => gettid() in ids;
    187 => readahead(fd: Fd, offset: i64, count: usize) in sync;
    188 => setxattr(path: UserCStr, name: UserCStr, value: UserPtr<u8>, size: usize, flags: u32) in xattr;
    189 => lsetxattr(path: UserCStr, name: UserCStr, value: UserPtr<u8>, size: usize, flags: u32) in xattr;
    190 => fsetxattr(fd: Fd, name: UserCStr, value: UserPtr<u8>, size: usize, flags: u32) in xattr;
    191 => getxattr(path: UserCStr, name: UserCStr, out: UserPtr<u8>, size: usize) in xattr;
    192 => lgetxattr(path: UserCStr, name: UserCStr, out: UserPtr<u8>, size: usize) in xattr;
    193 => fgetxattr(fd: Fd, name: UserCStr, out: UserPtr<u8>, size: usize) in xattr;
    194 => listxattr(path: UserCStr, out: UserPtr<u8>, size: usize) in xattr;
    195 => llistxattr(path: UserCStr, out: UserPtr<u8>, size: usize) in xattr;
    196 => flistxattr(fd: Fd, out: UserPtr<u8>, size: usize) in xattr;
    197 => removexattr(path: UserCStr, name: UserCStr) in xattr;
    198 => lremovexattr(path: UserCStr, name: UserCStr) in xattr;
    199 => fremovexattr(fd: Fd, name: UserCStr) in xattr;
    200 => tkill(tid: i32, signal: i32) in signal;
    201 => time(out: UserPtr<i64>) in time;
    202 => futex(addr: u64, op: u32, val: u32, timeout: UserPtr<Timespec>, addr2: u64, val3: u32) in futex;
    203 => sched_setaffinity(pid: i32, len: u32, mask: UserPtr<u8>) in sched;
    204 => sched_getaffinity(pid: i32, len: u32, out: UserPtr<u8>) in sched;
    206 => io_setup(events: u32, out: UserPtr<u64>) in aio;
    207 => io_destroy(id: u64) in aio;
    208 => io_getevents(id: u64, least: i64, most: i64, out: UserPtr<IoEvent>, timeout: UserPtr<Timespec>) in aio;
    209 => io_submit(id: u64, count: i64, requests: UserPtr<u64>) in aio;
    210 => io_cancel(id: u64, request: UserPtr<u64>, out: UserPtr<IoEvent>) in aio;
    213 => epoll_create(size: i32) in epoll;
    216 => remap_file_pages(start: u64, size: u64, prot: u64, page: u64, flags: u64) in memory;
    217 => getdents64(fd: Fd, out: UserPtr<u8>, count: u32) in dir;
    218 => set_tid_address(addr: u64) in exit;
    219 => restart_syscall() in time;
    220 => semtimedop(id: i32, ops: UserPtr<SemBuf>, count: u32, timeout: UserPtr<Timespec>) in sem;
    221 => fadvise64(fd: Fd, offset: i64, len: i64, advice: i32) in sync;
    222 => timer_create(clock: i32, event: UserPtr<SigEvent>, out: UserPtr<i32>) in timer;
    223 => timer_settime(id: i32, flags: u32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) in timer;
    224 => timer_gettime(id: i32, out: UserPtr<Itimerspec>) in timer;
    225 => timer_getoverrun(id: i32) in timer;
    226 => timer_delete(id: i32) in timer;
    227 => clock_settime(clock: i32, new: UserPtr<Timespec>) in time;
    228 => clock_gettime(clock: i32, out: UserPtr<Timespec>) in time;
    229 => clock_getres(clock: i32, out: UserPtr<Timespec>) in time;
    230 => clock_nanosleep(clock: i32, flags: u32, time: UserPtr<Timespec>, rest: UserPtr<Timespec>) in time;
    231 => exit_group(code: i32) in exit;
    232 => epoll_wait(epfd: Fd, events: UserPtr<EpollEvent>, max: i32, timeout: i32) in epoll;
    233 => epoll_ctl(epfd: Fd, op: i32, fd: Fd, event: UserPtr<EpollEvent>) in epoll;
    234 => tgkill(tgid: i32, tid: i32, signal: i32) in signal;
    235 => utimes(path: UserCStr, times: UserPtr<[Timeval; 2]>) in attr;
    237 => mbind(addr: u64, len: u64, mode: u32, mask: UserPtr<u64>, maxnode: u64, flags: u32) in memory;
    238 => set_mempolicy(mode: u32, mask: UserPtr<u64>, maxnode: u64) in memory;
    239 => get_mempolicy(mode: UserPtr<i32>, mask: UserPtr<u64>, maxnode: u64, addr: u64, flags: u64) in memory;
    240 => mq_open(name: UserCStr, flags: u32, mode: u32, attr: UserPtr<MqAttr>) in mq;
    241 => mq_unlink(name: UserCStr) in mq;
    242 => mq_timedsend(fd: Fd, text: UserPtr<u8>, len: usize, priority: u32, timeout: UserPtr<Timespec>) in mq;
    243 => mq_timedreceive(fd: Fd, out: UserPtr<u8>, len: usize, priority: UserPtr<u32>, timeout: UserPtr<Timespec>) in mq;
    244 => mq_notify(fd: Fd, event: UserPtr<SigEvent>) in mq;
    245 => mq_getsetattr(fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) in mq;
    247 => waitid(which: i32, id: i32, info: UserPtr<SigInfo>, options: u32, usage: UserPtr<Rusage>) in wait;
    251 => ioprio_set(which: i32, who: i32, prio: i32) in sched;
    252 => ioprio_get(which: i32, who: i32) in sched;
    253 => inotify_init() in inotify;
    254 => inotify_add_watch(fd: Fd, path: UserCStr, mask: u32) in inotify;
    255 => inotify_rm_watch(fd: Fd, wd: i32) in inotify;
    256 => migrate_pages(pid: i32, maxnode: u64, old: UserPtr<u64>, new: UserPtr<u64>) in numa;
    257 => openat(dir: Fd, path: UserCStr, flags: u32, mode: u32) in open;
    258 => mkdirat(dir: Fd, path: UserCStr, mode: u32) in dir;
    259 => mknodat(dir: Fd, path: UserCStr, mode: u32, dev: u32) in name;
    260 => fchownat(dir: Fd, path: UserCStr, uid: u32, gid: u32, flags: u32) in attr;
    261 => futimesat(dir: Fd, path: UserCStr, times: UserPtr<[Timeval; 2]>) in attr;
    262 => newfstatat(dir: Fd, path: UserCStr, out: UserPtr<Stat>, flags: u32) in stat;
    263 => unlinkat(dir: Fd, path: UserCStr, flags: u32) in name;
    264 => renameat(old_dir: Fd, old: UserCStr, new_dir: Fd, new: UserCStr) in name;
    265 => linkat(old_dir: Fd, old: UserCStr, new_dir: Fd, new: UserCStr, flags: u32) in name;
    266 => symlinkat(target: UserCStr, dir: Fd, path: UserCStr) in name;
    267 => readlinkat(dir: Fd, path: UserCStr, buf: UserPtr<u8>, size: i32) in name;
    268 => fchmodat(dir: Fd, path: UserCStr, mode: u32) in attr;
    269 => faccessat(dir: Fd, path: UserCStr, mode: u32) in stat;
    270 => pselect6(n: i32, readable: UserPtr<u64>, writable: UserPtr<u64>, exceptional: UserPtr<u64>, timeout: UserPtr<Timespec>, mask: UserPtr<[u64; 2]>) in poll;
    271 => ppoll(fds: UserPtr<PollFd>, n: u32, timeout: UserPtr<Timespec>, mask: UserPtr<u64>, size: usize) in poll;
    272 => unshare(flags: u64) in namespace;
    273 => set_robust_list(head: u64, len: usize) in exit;
    274 => get_robust_list(pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) in exit;
    275 => splice(fd_in: Fd, off_in: UserPtr<i64>, fd_out: Fd, off_out: UserPtr<i64>, len: usize, flags: u32) in splice;
    276 => tee(fd_in: Fd, fd_out: Fd, len: usize, flags: u32) in splice;
    277 => sync_file_range(fd: Fd, offset: i64, len: i64, flags: u32) in sync;
    278 => vmsplice(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize, flags: u32) in splice;
    279 => move_pages(pid: i32, count: u64, pages: UserPtr<u64>, nodes: UserPtr<i32>, status: UserPtr<i32>, flags: u32) in numa;
    280 => utimensat(dir: Fd, path: UserCStr, times: UserPtr<[Timespec; 2]>, flags: u32) in attr;
    281 => epoll_pwait(epfd: Fd, events: UserPtr<EpollEvent>, max: i32, timeout: i32, mask: UserPtr<u64>, size: usize) in epoll;
    282 => signalfd(fd: Fd, mask: UserPtr<u64>, size: usize) in signalfd;
    283 => timerfd_create(clock: i32, flags: u32) in timerfd;
    284 => eventfd(count: u32) in eventfd;
    285 => fallocate(fd: Fd, mode: u32, offset: i64, len: i64) in attr;
    286 => timerfd_settime(fd: Fd, flags: u32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) in timerfd;
    287 => timerfd_gettime(fd: Fd, now: UserPtr<Itimerspec>) in timerfd;
    288 => accept4(fd: Fd, addr: UserPtr<u8>, len: UserPtr<i32>, flags: i32) in socket;
    289 => signalfd4(fd: Fd, mask: UserPtr<u64>, size: usize, flags: u32) in signalfd;
    290 => eventfd2(count: u32, flags: u32) in eventfd;
    291 => epoll_create1(flags: u32) in epoll;
    292 => dup3(old: Fd, new: Fd, flags: u32) in open;
    293 => pipe2(fds: UserPtr<[i32; 2]>, flags: u32) in pipe;
    294 => inotify_init1(flags: u32) in inotify;
    295 => preadv(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize, offset: i64, high: u64) in read_write;
    296 => pwritev(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize, offset: i64, high: u64) in read_write;
    297 => rt_tgsigqueueinfo(tgid: i32, tid: i32, signal: i32, info: UserPtr<SigInfo>) in signal;
    299 => recvmmsg(fd: Fd, msgs: UserPtr<MMsgHdr>, count: u32, flags: u32, timeout: UserPtr<Timespec>) in socket_msg;
    300 => fanotify_init(flags: u32, event_flags: u32) in fanotify;
    301 => fanotify_mark(fd: Fd, flags: u32, mask: u64, dir: Fd, path: UserCStr) in fanotify;
    302 => prlimit64(pid: i32, which: u32, new: UserPtr<Rlimit>, old: UserPtr<Rlimit>) in rlimit;
    303 => name_to_handle_at(dir: Fd, path: UserCStr, handle: UserPtr<[u32; 2]>, mount_id: UserPtr<i32>, flags: u32) in handle;
    304 => open_by_handle_at(mount: Fd, handle: UserPtr<[u32; 2]>, flags: u32) in handle;
    305 => clock_adjtime(clock: i32, buf: UserPtr<u8>) in time;
    306 => syncfs(fd: Fd) in sync;
    307 => sendmmsg(fd: Fd, msgs: UserPtr<MMsgHdr>, count: u32, flags: u32) in socket_msg;
    308 => setns(fd: Fd, kind: i32) in namespace;
    309 => getcpu(cpu: UserPtr<u32>, node: UserPtr<u32>) in sched;
    310 => process_vm_readv(pid: i32, local: u64, local_count: u64, remote: u64, remote_count: u64, flags: u64) in memory;
    311 => process_vm_writev(pid: i32, local: u64, local_count: u64, remote: u64, remote_count: u64, flags: u64) in memory;
    312 => kcmp(pid1: i32, pid2: i32, kind: i32, a: u64, b: u64) in system;
    314 => sched_setattr(pid: i32, attr: UserPtr<u32>, flags: u32) in sched;
    315 => sched_getattr(pid: i32, attr: u64, size: u32, flags: u32) in sched;
    316 => renameat2(old_dir: Fd, old: UserCStr, new_dir: Fd, new: UserCStr, flags: u32) in name;
    317 => seccomp(op: u32, flags: u32, args: UserPtr<u8>) in seccomp;
    318 => getrandom(buf: UserPtr<u8>, len: usize, flags: u32) in system;
    319 => memfd_create(name: UserCStr, flags: u32) in memfd;
    322 => execveat(dir: Fd, path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: i32) in exec;
    324 => membarrier(cmd: i32, flags: u32, cpu: i32) in system;
    325 => mlock2(addr: u64, len: u64, flags: u32) in memory;
    326 => copy_file_range(fd_in: Fd, off_in: UserPtr<i64>, fd_out: Fd, off_out: UserPtr<i64>, len: usize, flags: u32) in splice;
    327 => preadv2(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize, offset: i64, high: u64, flags: u32) in read_write;
    328 => pwritev2(fd: Fd, iov: UserPtr<[u64; 2]>, count: usize, offset: i64, high: u64, flags: u32) in read_write;
    329 => pkey_mprotect(addr: u64, len: u64, prot: u64, pkey: i32) in memory;
    330 => pkey_alloc(flags: u64, rights: u64) in memory;
    331 => pkey_free(pkey: i32) in memory;
    332 => statx(dir: Fd, path: UserCStr, flags: u32, mask: u32, out: UserPtr<Statx>) in stat;
    333 => io_pgetevents(id: u64, least: i64, most: i64, out: UserPtr<IoEvent>, timeout: UserPtr<Timespec>, mask: UserPtr<[u64; 2]>) in aio;
    424 => pidfd_send_signal(fd: Fd, signal: i32, info: UserPtr<SigInfo>, flags: u32) in pidfd;
    428 => open_tree(dir: Fd, path: UserCStr, flags: u32) in mount_fd;
    429 => move_mount(from_dir: Fd, from: UserCStr, to_dir: Fd, to: UserCStr, flags: u32) in mount_fd;
    430 => fsopen(name: UserCStr, flags: u32) in mount_fd;
    431 => fsconfig(fd: Fd, cmd: u32, key: UserCStr, value: UserCStr, aux: i32) in mount_fd;
    432 => fsmount(fd: Fd, flags: u32, attrs: u32) in mount_fd;
    433 => fspick(dir: Fd, path: UserCStr, flags: u32) in mount_fd;
    434 => pidfd_open(pid: i32, flags: u32) in pidfd;
    435 => clone3(args: UserPtr<u64>, size: usize) in clone;
    436 => close_range(first: u32, last: u32, flags: u32) in open;
    437 => openat2(dir: Fd, path: UserCStr, how: UserPtr<[u64; 3]>, size: usize) in open;
    438 => pidfd_getfd(pidfd: Fd, target: Fd, flags: u32) in pidfd;
    439 => faccessat2(dir: Fd, path: UserCStr, mode: u32, flags: u32) in stat;
    440 => process_madvise(pidfd: Fd, iov: UserPtr<[u64; 2]>, count: usize, advice: i32, flags: u32) in memory;
    441 => epoll_pwait2(epfd: Fd, events: UserPtr<EpollEvent>, max: i32, timeout: UserPtr<Timespec>, mask: UserPtr<u64>, size: usize) in epoll;
    442 => mount_setattr(dir: Fd, path: UserCStr, flags: u32, attr: UserPtr<[u64; 4]>, size: usize) in mount;
    448 => process_mrelease(pidfd: Fd, flags: u32) in pidfd;
    449 => futex_waitv(waiters: UserPtr<FutexWaitv>, n: u32, flags: u32, timeout: UserPtr<Timespec>, clockid: i32) in futex;
    450 => set_mempolicy_home_node(start: u64, len: u64, node: u64, flags: u64) in numa;
    452 => fchmodat2(dir: Fd, path: UserCStr, mode: u32, flags: u32) in attr;
    454 => futex_wake(addr: u64, mask: u64, n: i32, flags: u32) in futex;
    455 => futex_wait(addr: u64, value: u64, mask: u64, flags: u32, timeout: UserPtr<Timespec>, clockid: i32) in futex;
    456 => futex_requeue(waiters: UserPtr<FutexWaitv>, flags: u32, wake: i32, requeue: i32) in futex;
    457 => statmount(req: UserPtr<u64>, out: UserPtr<u8>, size: usize, flags: u32) in mount_query;
    458 => listmount(req: UserPtr<u64>, out: UserPtr<u64>, count: usize, flags: u32) in mount_query;
    461 => lsm_list_modules(out: UserPtr<u64>, size: UserPtr<u32>, flags: u32) in mount_query;
    462 => mseal(addr: u64, len: u64, flags: u64) in memory;
}

/// The entry of a call.
pub(super) fn entry(nr: u64) -> Option<&'static Entry> {
    let nr = u32::try_from(nr).ok()?;
    TABLE.binary_search_by_key(&nr, |e| e.nr).ok().map(|i| &TABLE[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_linux_and_in_order() {
        for e in TABLE {
            assert_eq!(abi::nr::name(u64::from(e.nr)), Some(e.name), "number {}", e.nr);
        }
        assert!(TABLE.is_sorted_by(|a, b| a.nr < b.nr));
    }
}
