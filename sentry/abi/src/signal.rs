//! Signal numbers, sets and sigaction flags (signal(7)).

use bitflags::bitflags;
use core::fmt;

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $value:literal;)*) => {
        impl Signal {
            $(pub const $name: Signal = Signal($value);)*

            /// The name of a standard signal, e.g. `SIGTERM`.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7; SIGFPE = 8;
    SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14; SIGTERM = 15;
    SIGSTKFLT = 16; SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20; SIGTTIN = 21; SIGTTOU = 22;
    SIGURG = 23; SIGXCPU = 24; SIGXFSZ = 25; SIGVTALRM = 26; SIGPROF = 27; SIGWINCH = 28; SIGIO = 29;
    SIGPWR = 30; SIGSYS = 31;
}

impl Signal {
    /// The first real-time signal.
    pub const SIGRTMIN: u8 = 32;
    /// The largest signal number.
    pub const MAX: u8 = 64;

    /// From a number; `None` outside 1 to 64.
    pub const fn new(n: i32) -> Option<Signal> {
        if n >= 1 && n <= 64 { Some(Signal((n.cast_unsigned() & 0x7f) as u8)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether this is a real-time signal, which queues.
    pub const fn is_realtime(self) -> bool {
        self.0 >= Self::SIGRTMIN
    }

    /// Position in tables, 0 to 63.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(n) => f.write_str(n),
            None => write!(f, "SIGRT_{}", self.0 - Self::SIGRTMIN),
        }
    }
}

/// A set of signals (`sigset_t` of the kernel: 64 bits).
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// SIGKILL and SIGSTOP, which can be neither blocked nor caught.
    pub const UNBLOCKABLE: SigSet = SigSet((1 << 8) | (1 << 18));

    /// Just one signal.
    pub const fn of(s: Signal) -> SigSet {
        SigSet(1 << s.index())
    }
    /// Whether the signal is in the set.
    pub const fn contains(self, s: Signal) -> bool {
        self.0 & (1 << s.index()) != 0
    }
    /// Adds a signal.
    pub fn insert(&mut self, s: Signal) {
        self.0 |= 1 << s.index();
    }
    /// Takes a signal out.
    pub fn remove(&mut self, s: Signal) {
        self.0 &= !(1 << s.index());
    }
    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// All signals of either set.
    #[must_use]
    pub const fn union(self, o: SigSet) -> SigSet {
        SigSet(self.0 | o.0)
    }
    /// The signals of this set that are not in the other.
    #[must_use]
    pub const fn minus(self, o: SigSet) -> SigSet {
        SigSet(self.0 & !o.0)
    }
    /// The signals in both sets.
    #[must_use]
    pub const fn and(self, o: SigSet) -> SigSet {
        SigSet(self.0 & o.0)
    }
    /// The lowest signal of the set.
    pub fn first(self) -> Option<Signal> {
        Signal::new(self.0.trailing_zeros().cast_signed() + 1)
    }
    /// The signals of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64).filter_map(Signal::new).filter(move |s| self.contains(*s))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

bitflags! {
    /// `SA_*` flags of sigaction(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SaFlags: u64 {
        const NOCLDSTOP = 1;
        const NOCLDWAIT = 2;
        const SIGINFO = 4;
        const UNSUPPORTED = 0x400;
        const EXPOSE_TAGBITS = 0x800;
        const RESTORER = 0x0400_0000;
        const ONSTACK = 0x0800_0000;
        const RESTART = 0x1000_0000;
        const NODEFER = 0x4000_0000;
        const RESETHAND = 0x8000_0000;
    }
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

/// Values of `si_code` (sigaction(2)).
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_MESGQ: i32 = -3;
    pub const SI_ASYNCIO: i32 = -4;
    pub const SI_SIGIO: i32 = -5;
    pub const SI_TKILL: i32 = -6;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
    pub const SYS_SECCOMP: i32 = 1;
    pub const TRAP_BRKPT: i32 = 1;
    pub const TRAP_TRACE: i32 = 2;
}
