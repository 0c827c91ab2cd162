//! `siginfo_t`, `struct sigaction`, `stack_t` and `struct sigevent` as they cross the boundary (sigaction(2)).

use crate::signal::{Signal, code};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `siginfo_t`: 128 bytes. The union behind the three head fields is read and written by offset.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    pad: i32,
    /// The union, in words.
    pub fields: [u64; 14],
}

const _: () = assert!(size_of::<SigInfo>() == 128);

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl SigInfo {
    /// A signal with nothing to tell.
    pub const fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo { signo: signal.number() as i32, errno: 0, code, pad: 0, fields: [0; 14] }
    }
    /// From the kernel itself (`SI_KERNEL`).
    pub const fn kernel(signal: Signal) -> SigInfo {
        SigInfo::new(signal, code::SI_KERNEL)
    }
    /// As kill(2), tkill(2) send it, with the sender as the receiver sees it.
    pub const fn user(signal: Signal, code: i32, pid: i32, uid: u32) -> SigInfo {
        let mut s = SigInfo::new(signal, code);
        s.fields[0] = pair(pid.cast_unsigned(), uid);
        s
    }
    /// A fault at an address.
    pub const fn fault(signal: Signal, code: i32, addr: u64) -> SigInfo {
        let mut s = SigInfo::new(signal, code);
        s.fields[0] = addr;
        s
    }
    /// News of a child; times in clock ticks.
    pub const fn child(
        signal: Signal,
        code: i32,
        pid: i32,
        uid: u32,
        status: i32,
        utime: i64,
        stime: i64,
    ) -> SigInfo {
        let mut s = SigInfo::new(signal, code);
        s.fields[0] = pair(pid.cast_unsigned(), uid);
        s.fields[1] = status.cast_unsigned() as u64;
        s.fields[2] = utime.cast_unsigned();
        s.fields[3] = stime.cast_unsigned();
        s
    }
    /// A POSIX timer expired.
    pub const fn timer(signal: Signal, id: i32, overrun: i32, value: u64) -> SigInfo {
        let mut s = SigInfo::new(signal, code::SI_TIMER);
        s.fields[0] = pair(id.cast_unsigned(), overrun.cast_unsigned());
        s.fields[1] = value;
        s
    }
    /// With a value, as sigqueue(3) and mq_notify(3) send it.
    pub const fn queued(signal: Signal, code: i32, pid: i32, uid: u32, value: u64) -> SigInfo {
        let mut s = SigInfo::user(signal, code, pid, uid);
        s.fields[1] = value;
        s
    }
    /// A seccomp filter said `SECCOMP_RET_TRAP`.
    pub const fn seccomp(call_addr: u64, nr: i32, arch: u32, data: i32) -> SigInfo {
        let mut s = SigInfo::new(Signal::SIGSYS, code::SYS_SECCOMP);
        s.errno = data;
        s.fields[0] = call_addr;
        s.fields[1] = pair(nr.cast_unsigned(), arch);
        s
    }
    /// Readiness of a descriptor (`F_SETSIG`): `band` are poll events.
    pub const fn poll(signal: Signal, code: i32, band: i64, fd: i32) -> SigInfo {
        let mut s = SigInfo::new(signal, code);
        s.fields[0] = band.cast_unsigned();
        s.fields[1] = fd.cast_unsigned() as u64;
        s
    }

    /// The signal; `None` for a number that is none.
    pub const fn signal(&self) -> Option<Signal> {
        Signal::new(self.signo)
    }
    /// `si_pid`.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of the word")]
    pub const fn pid(&self) -> i32 {
        (self.fields[0] as u32).cast_signed()
    }
    /// `si_uid`; also the overrun of a timer.
    pub const fn uid(&self) -> u32 {
        (self.fields[0] >> 32) as u32
    }
    /// `si_addr`.
    pub const fn addr(&self) -> u64 {
        self.fields[0]
    }
    /// `si_status`, `si_int`.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of the word")]
    pub const fn status(&self) -> i32 {
        (self.fields[1] as u32).cast_signed()
    }
    /// `si_value`.
    pub const fn value(&self) -> u64 {
        self.fields[1]
    }
    /// Sets `si_pid` and `si_uid`.
    pub fn set_sender(&mut self, pid: i32, uid: u32) {
        self.fields[0] = pair(pid.cast_unsigned(), uid);
    }
    /// Sets `si_overrun`.
    pub fn set_overrun(&mut self, n: i32) {
        self.fields[0] = (self.fields[0] & 0xffff_ffff) | pair(0, n.cast_unsigned());
    }
    /// Whether it says that it comes from user space (`SI_FROMUSER`).
    pub const fn from_user(&self) -> bool {
        self.code <= 0
    }
}

impl core::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigInfo({}, code {}, {:#x}, {:#x})", self.signo, self.code, self.fields[0], self.fields[1])
    }
}

/// `struct kernel_sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAction {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}

/// `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackT {
    pub sp: u64,
    pub flags: i32,
    pub pad: i32,
    pub size: u64,
}

/// `struct sigevent`: 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigEvent {
    pub value: u64,
    pub signo: i32,
    pub notify: i32,
    /// With `SIGEV_THREAD_ID`.
    pub tid: i32,
    pub pad: [i32; 11],
}

const _: () = assert!(size_of::<SigEvent>() == 64);

pub mod sigev {
    pub const SIGNAL: i32 = 0;
    pub const NONE: i32 = 1;
    pub const THREAD: i32 = 2;
    pub const THREAD_ID: i32 = 4;
}

/// `SS_*` flags of sigaltstack(2).
pub mod ss {
    pub const ONSTACK: i32 = 1;
    pub const DISABLE: i32 = 2;
    pub const AUTODISARM: i32 = i32::MIN;
    /// The least size of an alternate stack (`MINSIGSTKSZ`).
    pub const MIN_SIZE: u64 = 2048;
}
