//! Guests whose code is a closure: each guest thread of the mock platform runs a script on a host thread of
//! its own and makes system calls through [`Guest`]. No guest process exists, so these tests see the kernel
//! alone.

use kernel::Kernel;
use kernel::creds::{Creds, UserNamespace};
use kernel::mm::Mm;
use kernel::task::{ExitStatus, InitArgs, Members, Namespaces, PidNamespace, Task};
use kernel::vfs::{FdTable, FsContext, MountFlags, SuperBlock};
use platform::mock::{MockCpu, MockPlatform, Step};
use platform::{MemoryFile, Registers, Trap};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Numbers of the calls that scripts make.
pub mod nr {
    pub const MMAP: u64 = 9;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGRETURN: u64 = 15;
    pub const PAUSE: u64 = 34;
    pub const GETPID: u64 = 39;
    pub const CLONE: u64 = 56;
    pub const EXIT: u64 = 60;
    pub const WAIT4: u64 = 61;
    pub const KILL: u64 = 62;
    pub const GETPPID: u64 = 110;
    pub const SETSID: u64 = 112;
    pub const PRCTL: u64 = 157;
    pub const GETTID: u64 = 186;
    pub const FUTEX: u64 = 202;
    pub const EXIT_GROUP: u64 = 231;
}

/// A page of memory that every script has, and the top of its stack.
pub const PAGE: u64 = 0x10_0000;
const STACK_TOP: u64 = PAGE + 0xf000;
/// Where a signal handler is said to be.
pub const HANDLER: u64 = 0x7777_0000;
const START: u64 = 0x40_0000;
const LIMIT: Duration = Duration::from_secs(20);

type Script = Box<dyn FnOnce(&mut Guest) + Send>;

enum Ask {
    Call(u64, [u64; 6]),
    /// clone(2), and which script the new task runs: a register carries it there.
    Clone([u64; 6], u64),
    Spin,
    Trap(Trap),
}

/// A guest thread, from its own point of view.
pub struct Guest {
    asks: Sender<Ask>,
    answers: Receiver<i64>,
    /// Ends with the sandbox, and this thread's channel with it.
    world: Weak<World>,
    handlers: u32,
}

impl Guest {
    /// Makes a system call.
    pub fn call(&mut self, nr: u64, args: &[u64]) -> i64 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.asks.send(Ask::Call(nr, all)).expect("the sentry's side lives");
        self.result(nr)
    }

    fn result(&mut self, nr: u64) -> i64 {
        loop {
            match self.answers.recv_timeout(LIMIT) {
                Ok(HANDLER_RAN) => {
                    self.handlers += 1;
                    self.asks.send(Ask::Call(nr::RT_SIGRETURN, [0; 6])).expect("the sentry's side lives");
                }
                Ok(value) => return value,
                // The task has ended: so does its script.
                Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(Box::new(Ended)),
                Err(RecvTimeoutError::Timeout) => panic!("call {nr} did not return"),
            }
        }
    }

    /// Makes a process that runs `script`; its pid.
    pub fn fork(&mut self, script: impl FnOnce(&mut Guest) + Send + 'static) -> i64 {
        self.clone_with(17, script)
    }

    /// clone(2) with these flags; the new task runs `script`.
    pub fn clone_with(&mut self, flags: u64, script: impl FnOnce(&mut Guest) + Send + 'static) -> i64 {
        let world = self.world();
        let key = world.keys.fetch_add(1, Ordering::Relaxed);
        world.scripts.lock().unwrap().insert(key, Box::new(script));
        drop(world);
        let stack = if flags & 0x100 != 0 { STACK_TOP - 0x4000 } else { 0 };
        self.asks.send(Ask::Clone([flags, stack, 0, 0, 0, 0], key)).expect("the sentry's side lives");
        self.result(nr::CLONE)
    }

    /// Runs without a call until it is interrupted for good.
    pub fn spin(&mut self) {
        let _ = self.asks.send(Ask::Spin);
        let _ = self.answers.recv();
    }

    /// Something else than a call happens.
    pub fn trap(&mut self, trap: Trap) {
        let _ = self.asks.send(Ask::Trap(trap));
        let _ = self.answers.recv_timeout(LIMIT);
    }

    pub fn exit_group(&mut self, code: u64) -> ! {
        self.call(nr::EXIT_GROUP, &[code]);
        panic!("exit_group has returned");
    }

    /// How many handlers have run in this thread.
    pub fn handlers(&self) -> u32 {
        self.handlers
    }

    /// wait4(2) for `pid` with `options`: its result and the status.
    pub fn wait(&mut self, pid: i64, options: u64) -> (i64, u32) {
        let got = self.call(nr::WAIT4, &[pid.cast_unsigned(), PAGE, options]);
        (got, self.peek(PAGE))
    }

    /// A word of this task's memory.
    pub fn peek(&mut self, addr: u64) -> u32 {
        let mut word = [0; 4];
        self.task().mm().copy_in(addr, &mut word).expect("mapped memory");
        u32::from_le_bytes(word)
    }

    pub fn poke(&mut self, addr: u64, bytes: &[u8]) {
        self.task().mm().copy_out(addr, bytes).expect("mapped memory");
    }

    /// Waits until `done`, for what no call reports.
    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The kernel's object for this thread.
    pub fn task(&mut self) -> Arc<Task> {
        let tid = i32::try_from(self.call(nr::GETTID, &[])).expect("a thread id");
        self.find(tid)
    }

    fn world(&self) -> Arc<World> {
        self.world.upgrade().unwrap_or_else(|| std::panic::resume_unwind(Box::new(Ended)))
    }

    /// How many processes there are in the sandbox.
    pub fn processes(&self) -> usize {
        self.world().pid_ns.groups().len()
    }

    pub fn find(&self, tid: i32) -> Arc<Task> {
        self.world().pid_ns.task(tid).expect("a task of that number")
    }
}

/// The script's thread ends because its task did.
struct Ended;

/// An answer that no call gives: a handler was entered.
const HANDLER_RAN: i64 = i64::MIN;

struct World {
    /// Scripts of tasks that have not run yet, by a number that their register r15 has.
    scripts: Mutex<HashMap<u64, Script>>,
    keys: AtomicU64,
    lines: Mutex<HashMap<u64, Lines>>,
    failures: Mutex<Vec<String>>,
    pid_ns: Arc<PidNamespace>,
}

/// The sentry's end of a script.
struct Lines {
    asks: Receiver<Ask>,
    answers: Sender<i64>,
    /// The call under way, its arguments and where its instruction ends.
    call: Option<(u64, [u64; 6], u64)>,
    spinning: bool,
}

fn step(world: &Arc<World>, cpu: &mut MockCpu<'_>) -> Step {
    let mut all = world.lines.lock().unwrap();
    let mut lines = match all.remove(&cpu.thread) {
        Some(lines) => lines,
        None => begin(world, cpu.regs.r15),
    };
    drop(all);
    let next = advance(&mut lines, cpu);
    world.lines.lock().unwrap().insert(cpu.thread, lines);
    next
}

fn begin(world: &Arc<World>, key: u64) -> Lines {
    let script = world.scripts.lock().unwrap().remove(&key).expect("a script for each new task");
    let (asks, to_sentry) = channel();
    let (answers, to_script) = channel();
    let mut guest = Guest { asks, answers: to_script, world: Arc::downgrade(world), handlers: 0 };
    std::thread::spawn(move || {
        let world = guest.world.clone();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(&mut guest)));
        if let Err(why) = ran
            && !why.is::<Ended>()
            && let Some(world) = world.upgrade()
        {
            let text = why.downcast_ref::<String>().cloned();
            let text = text.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            world.failures.lock().unwrap().push(text.unwrap_or_default());
        }
    });
    Lines { asks: to_sentry, answers, call: None, spinning: false }
}

fn advance(lines: &mut Lines, cpu: &mut MockCpu<'_>) -> Step {
    if lines.spinning {
        return Step::Spin;
    }
    if cpu.regs.rip == HANDLER {
        let _ = lines.answers.send(HANDLER_RAN);
    } else if let Some((nr, args, after)) = lines.call {
        if cpu.regs.rip == after - 2 {
            // The kernel wants the call to be made again.
            cpu.regs.rip = after;
            return cpu.syscall(nr, args);
        }
        lines.call = None;
        let _ = lines.answers.send(cpu.regs.rax.cast_signed());
    }
    match lines.asks.recv() {
        Ok(Ask::Call(nr, args)) => {
            if nr == nr::RT_SIGRETURN {
                // The handler's return has taken the restorer's address from the stack.
                cpu.regs.rsp += 8;
            } else {
                lines.call = Some((nr, args, cpu.regs.rip));
            }
            cpu.syscall(nr, args)
        }
        Ok(Ask::Clone(args, key)) => {
            cpu.regs.r15 = key;
            lines.call = Some((nr::CLONE, args, cpu.regs.rip));
            cpu.syscall(nr::CLONE, args)
        }
        Ok(Ask::Spin) => {
            lines.spinning = true;
            Step::Spin
        }
        Ok(Ask::Trap(trap)) => Step::Trap(trap),
        // The script has come to its end without exit.
        Err(_) => cpu.syscall(nr::EXIT_GROUP, [0; 6]),
    }
}

/// Runs `script` as the first process of a sandbox; how it ended.
pub fn run(script: impl FnOnce(&mut Guest) + Send + 'static) -> ExitStatus {
    run_in(|kernel| Members::new(None, kernel.memfile.new_account()), script)
}

/// The same, in a container of the test's own.
pub fn run_in(
    members: impl FnOnce(&Kernel) -> Arc<Members>,
    script: impl FnOnce(&mut Guest) + Send + 'static,
) -> ExitStatus {
    let slot: Arc<std::sync::OnceLock<Arc<World>>> = Arc::default();
    let seen = Arc::clone(&slot);
    let mock = MockPlatform::new(move |cpu| step(seen.get().expect("the world is set up"), cpu));
    let memory = MemoryFile::new().expect("a memory file");
    let kernel = Kernel::new(mock, memory, platform::Machine::read());
    let tmp = fs::tmpfs::TmpFs::new(&kernel, fs::tmpfs::Options::parse(b"").expect("no options"));
    let user_ns: Arc<UserNamespace> = Arc::clone(&kernel.root_user_ns);
    let sb = SuperBlock::new(tmp, false);
    let mnt = kernel.vfs.mounts.new_namespace(Arc::clone(&user_ns), sb, MountFlags::RELATIME, b"tmpfs");
    let root = mnt.root();
    let namespaces = Arc::new(Namespaces::root(&kernel, &kernel.root_user_ns, mnt, b"host"));
    let first: Script = Box::new(|guest: &mut Guest| {
        // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        assert_eq!(guest.call(nr::MMAP, &[PAGE, 0x1_0000, 3, 0x32, u64::MAX, 0]), PAGE.cast_signed());
        script(guest);
    });
    let world = Arc::new(World {
        scripts: Mutex::new(HashMap::from([(0, first)])),
        keys: AtomicU64::new(1),
        lines: Mutex::default(),
        failures: Mutex::default(),
        pid_ns: Arc::clone(&kernel.root_pid_ns),
    });
    assert!(slot.set(Arc::clone(&world)).is_ok());
    let init = InitArgs {
        members: members(&kernel),
        pid_ns: Arc::clone(&kernel.root_pid_ns),
        mm: Mm::new(&kernel).expect("memory"),
        fs: FsContext::new(root.clone(), root, 0o022),
        files: FdTable::new(),
        creds: Arc::new(Creds::root(user_ns)),
        namespaces,
        limits: None,
        comm: b"init".to_vec(),
    };
    let task = Task::new_process(&kernel, init).expect("a first process");
    let group = Arc::clone(task.group());
    sentry::workers::spawn(&task, Registers::new(START, STACK_TOP), None).expect("a host thread");
    drop(task);
    let end = Instant::now() + 2 * LIMIT;
    while !group.is_dead() {
        assert!(Instant::now() < end, "the sandbox did not end: {:?}", world.failures.lock().unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    let failures = world.failures.lock().unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    group.exit_status().expect("it has ended")
}
