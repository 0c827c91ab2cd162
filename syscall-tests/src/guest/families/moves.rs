//! Moving data inside the kernel, and regions of files: sendfile, splice, tee, vmsplice,
//! copy_file_range, fallocate, fadvise, memfd and its seals.

use crate::case::{Case, NOWHERE, case, close, file, open, pipe, zeroed};
use crate::out::{done, ret, text};
use crate::{say, sys};
use libc::{
    F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE,
    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_APPEND,
    O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR,
};

fn contents(name: &str) -> String {
    text(&std::fs::read(name).unwrap_or_default())
}

fn size(fd: i32) -> i64 {
    let mut st: libc::stat = zeroed();
    sys!(fstat, fd, &mut st);
    st.st_size
}

pub const CASES: &[Case] = &[
    case("sendfile/file_to_file", "", || {
        let from = file("a", b"0123456789");
        let to = file("b", b"");
        ret("all", sys!(sendfile, to, from, 0, 100));
        ret("source position", sys!(lseek, from, 0, SEEK_CUR));
        ret("at end", sys!(sendfile, to, from, 0, 100));
        let mut offset = 3i64;
        ret("with offset", sys!(sendfile, to, from, &mut offset, 4));
        say!("offset {offset}");
        say!("{}", contents("b"));
        offset = -1;
        ret("negative offset", sys!(sendfile, to, from, &mut offset, 4));
        ret("bad offset pointer", sys!(sendfile, to, from, NOWHERE, 4));
        ret("zero", sys!(sendfile, to, from, 0, 0));
    }),
    case("sendfile/kinds", "socketpair", || {
        let from = file("a", b"0123456789");
        let (r, w) = pipe(0);
        ret("to a pipe", sys!(sendfile, w, from, 0, 5));
        ret("from a pipe", sys!(sendfile, file("c", b""), r, 0, 5));
        let mut pair = [0i32; 2];
        sys!(socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair);
        ret("to a socket", sys!(sendfile, pair[0], from, 0, 5));
        let mut b = [0u8; 16];
        ret("read", sys!(read, pair[1], &mut b, 16));
        say!("{}", text(&b[..5]));
        ret("to append", sys!(sendfile, open("a", O_WRONLY | O_APPEND), from, 0, 5));
        ret("to read only", sys!(sendfile, open("a", O_RDONLY), from, 0, 5));
        ret("from write only", sys!(sendfile, w, open("a", O_WRONLY), 0, 5));
        ret("bad", sys!(sendfile, 99, from, 0, 5));
        ret("to a directory", sys!(sendfile, open(".", O_RDONLY), from, 0, 5));
    }),
    case("splice/file_and_pipe", "", || {
        let from = file("a", b"0123456789");
        let (r, w) = pipe(0);
        let mut offset = 2i64;
        ret("file to pipe", sys!(splice, from, &mut offset, w, 0, 5, 0));
        say!("offset {offset}");
        let to = file("b", b"");
        ret("pipe to file", sys!(splice, r, 0, to, 0, 100, 0));
        say!("{}", contents("b"));
        ret("empty pipe nonblock", sys!(splice, r, 0, to, 0, 10, libc::SPLICE_F_NONBLOCK));
        close(w);
        ret("no writer", sys!(splice, r, 0, to, 0, 10, 0));
        ret("neither a pipe", sys!(splice, from, 0, to, 0, 10, 0));
        let (r, w) = pipe(0);
        offset = 0;
        ret("offset of a pipe", sys!(splice, r, &mut offset, to, 0, 10, 0));
        ret("zero", sys!(splice, from, 0, w, 0, 0, 0));
        ret("bad flags", sys!(splice, from, 0, w, 0, 5, 0x100));
        ret("bad fd", sys!(splice, 99, 0, w, 0, 5, 0));
        ret("same pipe", sys!(splice, r, 0, w, 0, 5, 0));
        ret("append target", sys!(splice, r, 0, open("b", O_WRONLY | O_APPEND), 0, 5, 0));
    }),
    case("splice/pipe_to_pipe", "", || {
        let (r1, w1) = pipe(0);
        let (r2, w2) = pipe(0);
        sys!(write, w1, b"hello world", 11);
        ret("move", sys!(splice, r1, 0, w2, 0, 5, 0));
        let mut b = [0u8; 16];
        ret("read second", sys!(read, r2, &mut b, 16));
        say!("{}", text(&b[..5]));
        ret("read rest", sys!(read, r1, &mut b, 16));
        say!("{}", text(&b[..6]));
    }),
    case("tee/copies", "", || {
        let (r1, w1) = pipe(0);
        let (r2, w2) = pipe(0);
        sys!(write, w1, b"hello", 5);
        ret("tee", sys!(tee, r1, w2, 100, 0));
        let mut b = [0u8; 16];
        ret("first keeps", sys!(read, r1, &mut b, 16));
        ret("second has", sys!(read, r2, &mut b, 16));
        ret("empty nonblock", sys!(tee, r1, w2, 100, libc::SPLICE_F_NONBLOCK));
        ret("not a pipe", sys!(tee, file("f", b""), w2, 100, 0));
        ret("same pipe", sys!(tee, r1, w1, 100, 0));
        ret("zero", sys!(tee, r1, w2, 0, 0));
    }),
    case("vmsplice/into_pipe", "", || {
        let (r, w) = pipe(0);
        let data = *b"from memory";
        let iov = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: 11 };
        ret("vmsplice", sys!(vmsplice, w, &iov, 1, 0));
        let mut b = [0u8; 16];
        ret("read", sys!(read, r, &mut b, 16));
        say!("{}", text(&b[..11]));
        sys!(write, w, b"back", 4);
        let mut out = [0u8; 8];
        let iov = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: 8 };
        ret("out of pipe", sys!(vmsplice, r, &iov, 1, 0));
        say!("{}", text(&out[..4]));
        ret("file", sys!(vmsplice, file("f", b""), &iov, 1, 0));
        ret("none", sys!(vmsplice, w, &iov, 0, 0));
        ret("bad", sys!(vmsplice, w, NOWHERE, 1, 0));
    }),
    case("copy_file_range/basics", "", || {
        let from = file("a", b"0123456789");
        let to = file("b", b"");
        ret("copy", sys!(copy_file_range, from, 0, to, 0, 4, 0));
        let (mut i, mut o) = (6i64, 10i64);
        ret("offsets", sys!(copy_file_range, from, &mut i, to, &mut o, 100, 0));
        say!("{i} {o} {}", contents("b"));
        ret("beyond", sys!(copy_file_range, from, &mut i, to, &mut o, 100, 0));
        ret("flags", sys!(copy_file_range, from, 0, to, 0, 4, 1));
        ret("pipe", sys!(copy_file_range, from, 0, pipe(0).1, 0, 4, 0));
        ret("directory", sys!(copy_file_range, from, 0, open(".", O_RDONLY), 0, 4, 0));
        ret("read only target", sys!(copy_file_range, from, 0, open("b", O_RDONLY), 0, 4, 0));
        ret("append target", sys!(copy_file_range, from, 0, open("b", O_WRONLY | O_APPEND), 0, 4, 0));
        (i, o) = (0, 5);
        ret("overlap", sys!(copy_file_range, from, &mut i, from, &mut o, 8, 0));
        ret("same file apart", sys!(copy_file_range, from, &mut i, from, &mut o, 5, 0));
        say!("{}", contents("a"));
        ret("bad fd", sys!(copy_file_range, 99, 0, to, 0, 4, 0));
    }),
    case("fallocate/modes", "", || {
        let fd = file("f", b"0123456789");
        ret("extend", sys!(fallocate, fd, 0, 0, 20));
        say!("size {}", size(fd));
        ret("keep size", sys!(fallocate, fd, FALLOC_FL_KEEP_SIZE, 0, 100));
        say!("size {}", size(fd));
        ret("punch", sys!(fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 4));
        say!("{}", contents("f"));
        ret("punch without keep", sys!(fallocate, fd, FALLOC_FL_PUNCH_HOLE, 2, 4));
        ret("zero length", sys!(fallocate, fd, 0, 0, 0));
        ret("negative", sys!(fallocate, fd, 0, -1, 4));
        ret("too far", sys!(fallocate, fd, 0, i64::MAX, 4));
        ret("read only", sys!(fallocate, open("f", O_RDONLY), 0, 0, 4));
        ret("pipe", sys!(fallocate, pipe(0).1, 0, 0, 4));
        ret("directory", sys!(fallocate, open(".", O_RDONLY), 0, 0, 4));
        ret("bad fd", sys!(fallocate, 99, 0, 0, 4));
        ret(
            "collapse and zero",
            sys!(fallocate, fd, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE, 0, 4096),
        );
        ret("unknown", sys!(fallocate, fd, 0x1000, 0, 4096));
        ret("dev null", sys!(fallocate, open("/dev/null", O_RDWR), 0, 0, 4));
    }),
    case("fadvise64/errors", "", || {
        let fd = file("f", b"0123456789");
        for advice in 0..=6 {
            ret(format!("advice {advice}"), sys!(fadvise64, fd, 0, 10, advice));
        }
        ret("pipe", sys!(fadvise64, pipe(0).0, 0, 10, 0));
        ret("negative length", sys!(fadvise64, fd, 0, -1, 0));
        ret("bad fd", sys!(fadvise64, 99, 0, 10, 0));
    }),
    case("memfd_create/basics", "ftruncate mmap", || {
        let fd = done("create", sys!(memfd_create, c"name", 0)) as i32;
        ret("write", sys!(write, fd, b"hello", 5));
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        say!("{}", link.display());
        let mut st: libc::stat = zeroed();
        sys!(fstat, fd, &mut st);
        say!("mode {:o} links {}", st.st_mode, st.st_nlink);
        ret("seals", sys!(fcntl, fd, F_GET_SEALS));
        ret("add without allow", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_GROW));
        ret("bad flag", sys!(memfd_create, c"name", 0x100));
        ret("249 characters", sys!(memfd_create, &*crate::case::cstr("x".repeat(249)), 0) >> 8);
        ret("250 characters", sys!(memfd_create, &*crate::case::cstr("x".repeat(250)), 0));
        ret("bad name", sys!(memfd_create, NOWHERE, 0));
        let c = sys!(memfd_create, c"", libc::MFD_CLOEXEC);
        ret("cloexec", sys!(fcntl, c, libc::F_GETFD));
    }),
    case("memfd_create/seals", "fcntl mmap", || {
        let fd = done("create", sys!(memfd_create, c"name", libc::MFD_ALLOW_SEALING)) as i32;
        sys!(write, fd, b"hello", 5);
        ret("grow", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_GROW));
        ret("write beyond", sys!(pwrite64, fd, b"xx", 2, 10));
        ret("truncate up", sys!(ftruncate, fd, 10));
        ret("truncate down", sys!(ftruncate, fd, 4));
        ret("shrink", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK));
        ret("truncate down", sys!(ftruncate, fd, 3));
        let map = sys!(mmap, 0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0);
        ret("write seal while mapped", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE));
        sys!(munmap, map, 4096);
        ret("write seal", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE));
        ret("write", sys!(pwrite64, fd, b"x", 1, 0));
        ret("punch", sys!(fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1));
        ret(
            "map shared writable",
            sys!(mmap, 0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0),
        );
        done(
            "map private",
            sys!(mmap, 0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE, fd, 0),
        );
        ret("seal seal", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_SEAL));
        ret("more", sys!(fcntl, fd, F_ADD_SEALS, F_SEAL_GROW));
        ret("all", sys!(fcntl, fd, F_GET_SEALS));
        ret("seals of a plain file", sys!(fcntl, file("f", b""), F_GET_SEALS));
    }),
    case("splice/socket_to_file", "socketpair", || {
        let mut pair = [0i32; 2];
        sys!(socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut pair);
        sys!(write, pair[0], b"through", 7);
        let (r, w) = pipe(O_NONBLOCK);
        ret("socket to pipe", sys!(splice, pair[1], 0, w, 0, 100, 0));
        ret("pipe to socket", sys!(splice, r, 0, pair[1], 0, 100, 0));
        let mut b = [0u8; 16];
        ret("came back", sys!(read, pair[0], &mut b, 16));
        say!("{}", text(&b[..7]));
    }),
];
