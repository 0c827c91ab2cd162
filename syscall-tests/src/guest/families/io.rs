//! Reading and writing through descriptors: read, write and their positioned and vectored forms, lseek.

use crate::case::{Case, NOWHERE, case, close, file, in_child, open, pipe, zeroed};
use crate::out::{done, ret, text};
use crate::{say, sys};
use libc::{
    O_APPEND, O_CREAT, O_DIRECTORY, O_PATH, O_RDONLY, O_WRONLY, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE,
    SEEK_SET,
};

fn iov(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn at(address: usize, len: usize) -> libc::iovec {
    libc::iovec { iov_base: address as *mut _, iov_len: len }
}

/// Two pages of which only the first is mapped: the address of the last `n` bytes before the hole.
fn before_hole(n: usize) -> usize {
    let p = sys!(
        mmap,
        0,
        8192,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0
    );
    sys!(munmap, p + 4096, 4096);
    p as usize + 4096 - n
}

pub const CASES: &[Case] = &[
    case("read/short_at_eof", "open", || {
        let fd = file("f", b"hello");
        let mut b = [0u8; 16];
        ret("read all", sys!(read, fd, &mut b, 16));
        say!("bytes {}", text(&b[..5]));
        ret("at eof", sys!(read, fd, &mut b, 16));
        ret("zero", sys!(read, fd, &mut b, 0));
        ret("zero at a bad address", sys!(read, fd, NOWHERE, 0));
        sys!(lseek, fd, 100, SEEK_SET);
        ret("beyond eof", sys!(read, fd, &mut b, 16));
    }),
    case("read/errors", "", || {
        let mut b = [0u8; 16];
        ret("no such fd", sys!(read, 77, &mut b, 16));
        ret("negative fd", sys!(read, -1, &mut b, 16));
        let w = open_wo("f");
        ret("write only", sys!(read, w, &mut b, 16));
        let d = open(".", O_RDONLY | O_DIRECTORY);
        ret("directory", sys!(read, d, &mut b, 16));
        let p = open(".", O_PATH);
        ret("O_PATH", sys!(read, p, &mut b, 16));
        let f = file("g", b"abc");
        ret("bad address", sys!(read, f, NOWHERE, 3));
        ret("position kept", sys!(lseek, f, 0, SEEK_CUR));
        ret("kernel address", sys!(read, f, 0xffff_8000_0000_0000usize, 3));
        ret("huge count", sys!(read, f, &mut b, isize::MAX as usize));
        ret("negative count", sys!(read, f, &mut b, -1));
    }),
    case("read/partial_at_hole", "mmap munmap", || {
        let f = file("f", &[b'x'; 300]);
        let p = before_hole(100);
        ret("into 100 mapped bytes", sys!(read, f, p, 300));
        ret("position", sys!(lseek, f, 0, SEEK_CUR));
        let (r, w) = pipe(0);
        sys!(write, w, &[b'y'; 300], 300);
        ret("pipe into 100 mapped bytes", sys!(read, r, before_hole(100), 300));
    }),
    case("read/devices", "open", || {
        let mut b = [7u8; 8];
        let z = open("/dev/zero", O_RDONLY);
        ret("zero", sys!(read, z, &mut b, 8));
        say!("bytes {b:?}");
        let n = open("/dev/null", O_RDONLY);
        ret("null", sys!(read, n, &mut b, 8));
        let f = open("/dev/full", libc::O_RDWR);
        ret("full", sys!(read, f, &mut b, 8));
        ret("write to full", sys!(write, f, &b, 8));
        let u = open("/dev/urandom", O_RDONLY);
        ret("urandom", sys!(read, u, &mut b, 8));
        ret("write urandom", sys!(write, open("/dev/urandom", O_WRONLY), &b, 8));
    }),
    case("write/append_and_gap", "open lseek", || {
        let fd = file("f", b"abc");
        sys!(lseek, fd, 6, SEEK_SET);
        ret("write after a gap", sys!(write, fd, b"x", 1));
        let a = open("f", O_WRONLY | O_APPEND);
        ret("append", sys!(write, a, b"yz", 2));
        ret("position of append", sys!(lseek, a, 0, SEEK_CUR));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
        ret("zero bytes", sys!(write, a, b"yz", 0));
    }),
    case("write/errors", "open pipe", || {
        ret("no such fd", sys!(write, 77, b"x", 1));
        file("f", b"abc");
        let r = open("f", O_RDONLY);
        ret("read only", sys!(write, r, b"x", 1));
        ret("read only, zero", sys!(write, r, b"x", 0));
        let fd = open("f", O_WRONLY);
        ret("bad address", sys!(write, fd, NOWHERE, 1));
        ret("null", sys!(write, fd, 0, 1));
        let d = open(".", O_RDONLY);
        ret("directory", sys!(write, d, b"x", 1));
        sys!(rt_sigaction, libc::SIGPIPE, &[1u64, 0, 0, 0], 0, 8);
        let (r, w) = pipe(0);
        close(r);
        ret("no readers", sys!(write, w, b"x", 1));
        ret("read end of pipe", sys!(write, pipe(0).0, b"x", 1));
    }),
    case("write/partial_at_hole", "", || {
        let fd = file("f", b"");
        let p = before_hole(10);
        ret("ten of hundred", sys!(write, fd, p, 100));
        ret("size", sys!(lseek, fd, 0, SEEK_END));
        let (_r, w) = pipe(0);
        ret("pipe", sys!(write, w, before_hole(10), 100));
    }),
    case("write/file_size_limit", "setrlimit prlimit64", || {
        let fd = file("f", b"");
        let limit = libc::rlimit { rlim_cur: 10, rlim_max: libc::RLIM_INFINITY };
        ret("setrlimit", sys!(setrlimit, libc::RLIMIT_FSIZE, &limit));
        sys!(rt_sigaction, libc::SIGXFSZ, &[1u64, 0, 0, 0], 0, 8);
        ret("clipped", sys!(write, fd, b"0123456789abcdef", 16));
        ret("at the limit", sys!(write, fd, b"x", 1));
        ret("truncate beyond", sys!(ftruncate, fd, 100));
        in_child("signal", || {
            sys!(rt_sigaction, libc::SIGXFSZ, &[0u64, 0, 0, 0], 0, 8);
            sys!(write, fd, b"x", 1);
            0
        });
    }),
    case("pread64/positions", "", || {
        let fd = file("f", b"0123456789");
        let mut b = [0u8; 4];
        ret("middle", sys!(pread64, fd, &mut b, 4, 3));
        say!("bytes {}", text(&b));
        ret("position", sys!(lseek, fd, 0, SEEK_CUR));
        ret("tail", sys!(pread64, fd, &mut b, 4, 8));
        ret("beyond", sys!(pread64, fd, &mut b, 4, 100));
        ret("negative offset", sys!(pread64, fd, &mut b, 4, -1));
        ret("pipe", sys!(pread64, pipe(0).0, &mut b, 4, 0));
        ret("bad fd", sys!(pread64, 77, &mut b, 4, 0));
        ret("bad address", sys!(pread64, fd, NOWHERE, 4, 0));
    }),
    case("pwrite64/positions", "", || {
        let fd = file("f", b"0123456789");
        ret("middle", sys!(pwrite64, fd, b"ab", 2, 4));
        ret("beyond", sys!(pwrite64, fd, b"z", 1, 12));
        ret("position", sys!(lseek, fd, 0, SEEK_CUR));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
        ret("negative", sys!(pwrite64, fd, b"z", 1, -1));
        ret("too far", sys!(pwrite64, fd, b"z", 1, i64::MAX));
        ret("pipe", sys!(pwrite64, pipe(0).1, b"z", 1, 0));
        let a = open("f", O_WRONLY | O_APPEND);
        ret("append ignores the offset", sys!(pwrite64, a, b"!", 1, 0));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
    }),
    case("readv/vectors", "", || {
        let fd = file("f", b"0123456789");
        let (mut a, mut b) = ([0u8; 3], [0u8; 4]);
        ret("two", sys!(readv, fd, &[iov(&mut a), iov(&mut b)], 2));
        say!("{} {}", text(&a), text(&b));
        ret("none", sys!(readv, fd, &[iov(&mut a)], 0));
        ret("too many", sys!(readv, fd, &[iov(&mut a)], 1025));
        ret("negative", sys!(readv, fd, &[iov(&mut a)], -1));
        ret("bad vector", sys!(readv, fd, NOWHERE, 1));
        ret("length overflow", sys!(readv, fd, &[at(a.as_ptr() as usize, usize::MAX)], 1));
        ret("second bad", sys!(readv, fd, &[iov(&mut a), at(NOWHERE, 4)], 2));
        ret("bad fd", sys!(readv, 77, &[iov(&mut a)], 1));
    }),
    case("writev/vectors", "", || {
        let fd = file("f", b"");
        let (mut a, mut b) = (*b"abc", *b"defg");
        ret("three", sys!(writev, fd, &[iov(&mut a), at(0, 0), iov(&mut b)], 3));
        ret("second bad", sys!(writev, fd, &[iov(&mut a), at(NOWHERE, 4)], 2));
        ret("first bad", sys!(writev, fd, &[at(NOWHERE, 4), iov(&mut a)], 2));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
        ret("none", sys!(writev, fd, 0, 0));
        ret("too many", sys!(writev, fd, &[iov(&mut a)], 1025));
        ret("negative length", sys!(writev, fd, &[at(a.as_ptr() as usize, usize::MAX)], 1));
    }),
    case("preadv/offsets", "", || {
        let fd = file("f", b"0123456789");
        let (mut a, mut b) = ([0u8; 2], [0u8; 2]);
        ret("at 5", sys!(preadv, fd, &[iov(&mut a), iov(&mut b)], 2, 5, 0));
        say!("{} {}", text(&a), text(&b));
        ret("negative", sys!(preadv, fd, &[iov(&mut a)], 1, -1, -1));
        ret("pipe", sys!(preadv, pipe(0).0, &[iov(&mut a)], 1, 0, 0));
    }),
    case("pwritev/offsets", "", || {
        let fd = file("f", b"0123456789");
        let (mut a, mut b) = (*b"ab", *b"cd");
        ret("at 5", sys!(pwritev, fd, &[iov(&mut a), iov(&mut b)], 2, 5, 0));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
        ret("negative", sys!(pwritev, fd, &[iov(&mut a)], 1, -1, -1));
    }),
    case("preadv2/flags", "", || {
        let fd = file("f", b"0123456789");
        let mut a = [0u8; 4];
        ret("current position", sys!(preadv2, fd, &[iov(&mut a)], 1, -1, -1, 0));
        ret("moved to", sys!(lseek, fd, 0, SEEK_CUR));
        ret("at 1", sys!(preadv2, fd, &[iov(&mut a)], 1, 1, 0, libc::RWF_HIPRI));
        ret("unknown flag", sys!(preadv2, fd, &[iov(&mut a)], 1, 0, 0, 0x4000_0000));
        ret("nowait on an empty pipe", sys!(preadv2, pipe(0).0, &[iov(&mut a)], 1, -1, -1, libc::RWF_NOWAIT));
    }),
    case("pwritev2/flags", "", || {
        let fd = file("f", b"0123456789");
        let mut a = *b"AB";
        ret("append", sys!(pwritev2, fd, &[iov(&mut a)], 1, 0, 0, libc::RWF_APPEND));
        ret("dsync", sys!(pwritev2, fd, &[iov(&mut a)], 1, 2, 0, libc::RWF_DSYNC));
        ret("current", sys!(pwritev2, fd, &[iov(&mut a)], 1, -1, -1, 0));
        say!("contents {}", text(&std::fs::read("f").unwrap_or_default()));
        ret("unknown flag", sys!(pwritev2, fd, &[iov(&mut a)], 1, 0, 0, 0x4000_0000));
    }),
    case("lseek/whence", "", || {
        let fd = file("f", b"0123456789");
        ret("set", sys!(lseek, fd, 4, SEEK_SET));
        ret("cur", sys!(lseek, fd, 3, SEEK_CUR));
        ret("cur back", sys!(lseek, fd, -2, SEEK_CUR));
        ret("end", sys!(lseek, fd, -1, SEEK_END));
        ret("beyond", sys!(lseek, fd, 100, SEEK_END));
        ret("negative", sys!(lseek, fd, -1, SEEK_SET));
        ret("before start", sys!(lseek, fd, -200, SEEK_CUR));
        ret("bad whence", sys!(lseek, fd, 0, 9));
        ret("pipe", sys!(lseek, pipe(0).0, 0, SEEK_CUR));
        ret("bad fd", sys!(lseek, 77, 0, SEEK_CUR));
        ret("O_PATH", sys!(lseek, open("f", O_PATH), 0, SEEK_CUR));
        ret("dev null", sys!(lseek, open("/dev/null", O_RDONLY), 10, SEEK_SET));
        ret("overflow", sys!(lseek, fd, i64::MAX, SEEK_END));
    }),
    case("lseek/data_and_hole", "ftruncate pwrite64", || {
        let fd = file("f", b"");
        sys!(ftruncate, fd, 1 << 20);
        sys!(pwrite64, fd, &[1u8; 4096], 4096, 512 << 10);
        ret("data from 0", sys!(lseek, fd, 0, SEEK_DATA));
        ret("hole from 0", sys!(lseek, fd, 0, SEEK_HOLE));
        ret("hole in the data", sys!(lseek, fd, 512 << 10, SEEK_HOLE));
        ret("data after the last", sys!(lseek, fd, 600 << 10, SEEK_DATA));
        ret("hole at the end", sys!(lseek, fd, 1 << 20, SEEK_HOLE));
    }),
    case("lseek/shared_by_dup_and_fork", "dup fork", || {
        let fd = file("f", b"0123456789");
        let two = done("dup", sys!(dup, fd)) as i32;
        sys!(lseek, fd, 7, SEEK_SET);
        ret("through the copy", sys!(lseek, two, 0, SEEK_CUR));
        in_child("child", || sys!(lseek, fd, 2, SEEK_SET) as i32);
        ret("after the child moved it", sys!(lseek, fd, 0, SEEK_CUR));
        let other = open("f", O_RDONLY);
        ret("another description", sys!(lseek, other, 0, SEEK_CUR));
    }),
    case("readahead/errors", "", || {
        let fd = file("f", b"0123456789");
        ret("file", sys!(readahead, fd, 0, 10));
        ret("bad fd", sys!(readahead, 77, 0, 10));
        ret("pipe", sys!(readahead, pipe(0).0, 0, 10));
        let st: libc::stat = zeroed();
        ret("write only", sys!(readahead, open_wo("f"), st.st_size, 10));
    }),
];

fn open_wo(name: &str) -> i32 {
    crate::out::must("open", sys!(open, &*crate::case::cstr(name), O_WRONLY | O_CREAT, 0o644)) as i32
}
