//! System V semaphores and message queues, POSIX message queues.

use super::signals::{bits, block};
use crate::case::{Case, NOWHERE, asleep, case, fork, in_child, span_ms, wait, zeroed};
use crate::out::{claim, done, ret, text};
use crate::{say, sys};
use libc::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_RMID, IPC_STAT, SEM_UNDO,
    SETALL, SETVAL, sembuf,
};

fn op(n: u16, by: i16, flags: i32) -> sembuf {
    sembuf { sem_num: n, sem_op: by, sem_flg: flags as i16 }
}

#[repr(C)]
struct Message {
    kind: i64,
    text: [u8; 32],
}

fn message(kind: i64, words: &[u8]) -> Message {
    let mut m = Message { kind, text: [0; 32] };
    m.text[..words.len()].copy_from_slice(words);
    m
}

pub const CASES: &[Case] = &[
    case("semget/values_and_operations", "semop semctl", || {
        let id = done("create", sys!(semget, 0, 3, IPC_CREAT | 0o600)) as i32;
        ret("set", sys!(semctl, id, 0, SETVAL, 2));
        ret("get", sys!(semctl, id, 0, GETVAL));
        ret("down", sys!(semop, id, &[op(0, -1, 0)], 1));
        ret("down two would block", sys!(semop, id, &[op(0, -2, IPC_NOWAIT)], 1));
        ret("wait for zero would block", sys!(semop, id, &[op(0, 0, IPC_NOWAIT)], 1));
        ret("zero is zero", sys!(semop, id, &[op(1, 0, 0)], 1));
        ret("all or nothing", sys!(semop, id, &[op(1, 5, 0), op(0, -7, IPC_NOWAIT)], 2));
        let mut all = [9u16; 3];
        ret("getall", sys!(semctl, id, 0, GETALL, &mut all));
        say!("{all:?}");
        ret("setall", sys!(semctl, id, 0, SETALL, &[1u16, 2, 3]));
        claim("last pid", sys!(semctl, id, 0, GETPID) == sys!(getpid));
        ret("bad number", sys!(semop, id, &[op(3, 1, 0)], 1));
        ret("no operations", sys!(semop, id, &[op(0, 1, 0)], 0));
        ret("too many", sys!(semop, id, &[op(0, 1, 0)], 100_000));
        ret("overflow", sys!(semop, id, &[op(0, 32767, 0)], 1));
        ret("set too large", sys!(semctl, id, 0, SETVAL, 40_000));
        ret("bad pointer", sys!(semop, id, NOWHERE, 1));
        let mut ds: libc::semid_ds = zeroed();
        ret("stat", sys!(semctl, id, 0, IPC_STAT, &mut ds));
        say!("{} {:o}", ds.sem_nsems, ds.sem_perm.mode);
        ret("remove", sys!(semctl, id, 0, IPC_RMID));
        ret("gone", sys!(semop, id, &[op(0, 1, 0)], 1));
    }),
    case("semget/keys_and_permissions", "semctl", || {
        let id = sys!(semget, 0x77, 2, IPC_CREAT | IPC_EXCL | 0o600);
        ret("exclusive", sys!(semget, 0x77, 2, IPC_CREAT | IPC_EXCL | 0o600));
        say!("same {}", sys!(semget, 0x77, 0, 0) == id);
        ret("more than there are", sys!(semget, 0x77, 5, 0));
        ret("missing", sys!(semget, 0x78, 1, 0));
        ret("none", sys!(semget, 0x79, 0, IPC_CREAT));
        in_child("user", || {
            sys!(setresuid, 9, 9, 9);
            ret("get", sys!(semget, 0x77, 2, 0o600));
            ret("op", sys!(semop, id, &[op(0, 1, 0)], 1));
            ret("value", sys!(semctl, id, 0, GETVAL));
            ret("remove", sys!(semctl, id, 0, IPC_RMID));
            0
        });
        ret("remove", sys!(semctl, id, 0, IPC_RMID));
    }),
    case("semop/blocking_undo_removal", "semtimedop semctl", || {
        let id = sys!(semget, 0, 2, IPC_CREAT | 0o600) as i32;
        let child = fork(|| sys!(semop, id, &[op(0, -1, 0)], 1) as i32);
        asleep(child);
        ret("waiting", sys!(semctl, id, 0, GETNCNT));
        ret("waiting for zero", sys!(semctl, id, 0, GETZCNT));
        sys!(semop, id, &[op(0, 1, 0)], 1);
        say!("{}", wait(child));
        ret("timeout", sys!(semtimedop, id, &[op(0, -1, 0)], 1, &span_ms(20)));
        sys!(semctl, id, 1, SETVAL, 5);
        in_child("undo", || sys!(semop, id, &[op(1, -3, SEM_UNDO)], 1) as i32);
        ret("undone", sys!(semctl, id, 1, GETVAL));
        let child = fork(|| {
            ret("removed", sys!(semop, id, &[op(0, -1, 0)], 1));
            0
        });
        asleep(child);
        sys!(semctl, id, 0, IPC_RMID);
        say!("{}", wait(child));
    }),
    case("msgget/send_and_receive", "msgsnd msgrcv msgctl", || {
        let id = done("create", sys!(msgget, 0, IPC_CREAT | 0o600)) as i32;
        ret("send 1", sys!(msgsnd, id, &message(1, b"one"), 3, 0));
        ret("send 2", sys!(msgsnd, id, &message(2, b"two"), 3, 0));
        ret("send 5", sys!(msgsnd, id, &message(5, b"five"), 4, 0));
        let mut m = message(0, b"");
        ret("type 2", sys!(msgrcv, id, &mut m, 32, 2, 0));
        say!("{} {}", m.kind, text(&m.text[..3]));
        ret("lowest up to 4", sys!(msgrcv, id, &mut m, 32, -4, 0));
        say!("{}", m.kind);
        ret("none of type 9", sys!(msgrcv, id, &mut m, 32, 9, IPC_NOWAIT));
        ret("too long", sys!(msgrcv, id, &mut m, 2, 0, 0));
        ret("cut", sys!(msgrcv, id, &mut m, 2, 0, libc::MSG_NOERROR));
        ret("empty", sys!(msgrcv, id, &mut m, 32, 0, IPC_NOWAIT));
        sys!(msgsnd, id, &message(3, b"x"), 1, 0);
        ret("except 3", sys!(msgrcv, id, &mut m, 32, 3, IPC_NOWAIT | libc::MSG_EXCEPT));
        ret("bad type", sys!(msgsnd, id, &message(0, b"x"), 1, 0));
        ret("bad length", sys!(msgsnd, id, &message(1, b"x"), -1, 0));
        ret("too large", sys!(msgsnd, id, &message(1, b"x"), 100_000, 0));
        let mut sent = 0;
        let big = [1i64; 1025];
        let end = loop {
            let r = sys!(msgsnd, id, &big, 8000, IPC_NOWAIT);
            if r < 0 {
                break r;
            }
            sent += 1;
        };
        ret("full", end);
        say!("{sent}");
        let mut ds: libc::msqid_ds = zeroed();
        ret("stat", sys!(msgctl, id, IPC_STAT, &mut ds));
        say!("{} messages, {} bytes", ds.msg_qnum, ds.msg_qbytes);
        ret("remove", sys!(msgctl, id, IPC_RMID, 0));
        ret("gone", sys!(msgsnd, id, &message(1, b"x"), 1, 0));
    }),
    case("msgrcv/blocks_and_removal", "fork msgctl", || {
        let id = sys!(msgget, 0, IPC_CREAT | 0o600) as i32;
        let child = fork(|| {
            let mut m = message(0, b"");
            ret("got", sys!(msgrcv, id, &mut m, 32, 7, 0));
            ret("then removed", sys!(msgrcv, id, &mut m, 32, 7, 0));
            0
        });
        asleep(child);
        sys!(msgsnd, id, &message(6, b"not it"), 6, 0);
        sys!(msgsnd, id, &message(7, b"this"), 4, 0);
        crate::case::until(|| {
            let mut ds: libc::msqid_ds = zeroed();
            sys!(msgctl, id, IPC_STAT, &mut ds);
            ds.msg_qnum == 1
        });
        asleep(child);
        sys!(msgctl, id, IPC_RMID, 0);
        say!("{}", wait(child));
    }),
    case("mq_open/priorities_and_limits", "mq_timedsend mq_timedreceive mq_getsetattr mq_unlink", || {
        let attr = [0i64, 3, 16, 0, 0, 0, 0, 0];
        let q = ret_ok(
            "open",
            sys!(mq_open, c"queue", libc::O_CREAT | libc::O_RDWR | libc::O_NONBLOCK, 0o600, &attr),
        );
        if q < 0 {
            return;
        }
        for (text, priority) in [(b"low ", 1u32), (b"high", 9), (b"mid ", 5)] {
            ret("send", sys!(mq_timedsend, q, text, 4, priority, 0));
        }
        ret("full", sys!(mq_timedsend, q, b"more", 4, 1, 0));
        ret("too long", sys!(mq_timedsend, q, &[0u8; 17], 17, 1, 0));
        let mut b = [0u8; 16];
        let mut priority = 0u32;
        ret("small buffer", sys!(mq_timedreceive, q, &mut b, 15, &mut priority, 0));
        for _ in 0..3 {
            ret("receive", sys!(mq_timedreceive, q, &mut b, 16, &mut priority, 0));
            say!("{} {priority}", text(&b[..4]));
        }
        ret("empty", sys!(mq_timedreceive, q, &mut b, 16, &mut priority, 0));
        let mut now = [9i64; 8];
        ret("attributes", sys!(mq_getsetattr, q, 0, &mut now));
        say!("{:?}", &now[..4]);
        ret("exclusive", sys!(mq_open, c"queue", libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600, 0));
        ret("slash", sys!(mq_open, c"a/b", libc::O_CREAT | libc::O_RDWR, 0o600, 0));
        ret("missing", sys!(mq_open, c"nothing", libc::O_RDWR, 0, 0));
        ret("bad priority", sys!(mq_timedsend, q, b"x", 1, 40_000, 0));
        ret("unlink", sys!(mq_unlink, c"queue"));
        ret("again", sys!(mq_unlink, c"queue"));
        ret("still open", sys!(mq_timedsend, q, b"x", 1, 0, 0));
    }),
    case("mq_notify/signal", "mq_open mq_timedsend", || {
        let q = ret_ok("open", sys!(mq_open, c"queue", libc::O_CREAT | libc::O_RDWR, 0o600, 0));
        if q < 0 {
            return;
        }
        block(&[libc::SIGUSR1]);
        let event = [0u64, libc::SIGUSR1 as u64, 0, 0, 0, 0, 0, 0];
        ret("notify", sys!(mq_notify, q, &event));
        ret("busy", sys!(mq_notify, q, &event));
        sys!(mq_timedsend, q, b"x", 1, 0, 0);
        let mut raw = [0u64; 16];
        ret("signal", sys!(rt_sigtimedwait, &bits(&[libc::SIGUSR1]), &mut raw, &span_ms(2000), 8));
        say!("code {}", raw[1] as u32 as i32);
        ret("clear", sys!(mq_notify, q, 0));
        sys!(mq_unlink, c"queue");
    }),
];

fn ret_ok(label: &str, r: isize) -> isize {
    done(label, r)
}
