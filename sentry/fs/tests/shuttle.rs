//! Futexes, pipes and epoll under many schedules. Nothing here times out: a wake-up that is lost leaves a task waiting, which shuttle
//! reports.
#![forbid(unsafe_code)]

use abi::Errno;
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use fs::epoll::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, Epoll, EpollEvent};
use kernel::Kernel;
use kernel::creds::{Creds, UserNamespace};
use kernel::futex::{MATCH_ANY, WaitError, Word};
use kernel::io::{SliceSink, SliceSource};
use kernel::mm::{Mm, MmLimits, MmapArgs, Placement, Vma};
use kernel::task::{InitArgs, Members, Namespaces, Reason, Task};
use kernel::vfs::{Fd, FdTable, File, FsContext, MountFlags, MountNamespace, SuperBlock, rw};
use kernel::wait::WaitOn;
use platform::mock::{MockPlatform, Step};
use platform::{MemoryFile, Prot, Trap};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use std::sync::Arc;

/// Where each world has a page of memory.
const PAGE: u64 = 0x10_0000;
const FIRST: Word = Word { addr: PAGE, shared: false };
const SECOND: Word = Word { addr: PAGE + 64, shared: false };

/// A kernel and what its tasks have in common.
struct World {
    kernel: Arc<Kernel>,
    mm: Arc<Mm>,
    mounts: Arc<MountNamespace>,
    creds: Arc<Creds>,
    /// Opens when all who take part are there: to make a task takes so many steps that the first would have finished before the last begins.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl World {
    fn new() -> World {
        let mock = MockPlatform::new(|_| Step::Trap(Trap::Dead));
        let kernel = Kernel::new(mock, MemoryFile::new().unwrap(), platform::Machine::read());
        let tmp = fs::tmpfs::TmpFs::new(&kernel, fs::tmpfs::Options::parse(b"").unwrap());
        let user_ns: Arc<UserNamespace> = Arc::clone(&kernel.root_user_ns);
        let root = SuperBlock::new(tmp, false);
        let mounts =
            kernel.vfs.mounts.new_namespace(Arc::clone(&user_ns), root, MountFlags::RELATIME, b"tmpfs");
        let mm = Mm::new(&kernel).unwrap();
        let page = MmapArgs {
            at: Placement::Fixed(PAGE),
            len: 4096,
            prot: Prot::READ | Prot::WRITE,
            flags: Vma::MAY_ALL,
            file: None,
            populate: false,
            name: None,
        };
        assert_eq!(mm.mmap(page, &MmLimits::NONE), Ok(PAGE));
        // It is there: no store of a guest has to wait for a lock of the address space.
        mm.copy_out(PAGE, &[0; 128]).unwrap();
        World { kernel, mm, mounts, creds: Arc::new(Creds::root(user_ns)), gate: Arc::default() }
    }

    /// A task of a process of its own in the same memory.
    fn task(&self) -> Arc<Task> {
        let root = self.mounts.root();
        let user_ns = &self.kernel.root_user_ns;
        let init = InitArgs {
            members: Members::new(None, self.kernel.memfile.new_account()),
            pid_ns: Arc::clone(&self.kernel.root_pid_ns),
            mm: Arc::clone(&self.mm),
            fs: FsContext::new(root.clone(), root, 0o022),
            files: FdTable::new(),
            creds: Arc::clone(&self.creds),
            namespaces: Arc::new(Namespaces::root(&self.kernel, user_ns, Arc::clone(&self.mounts), b"host")),
            limits: None,
            comm: b"task".to_vec(),
        };
        Task::new_process(&self.kernel, init).unwrap()
    }

    /// Runs `f` as a task, once the gate is open.
    fn spawn<R: Send + 'static>(&self, f: impl FnOnce(&Task) -> R + Send + 'static) -> JoinHandle<R> {
        self.spawn_as(&self.task(), f)
    }

    fn spawn_as<R: Send + 'static>(
        &self,
        task: &Arc<Task>,
        f: impl FnOnce(&Task) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let (task, gate) = (Arc::clone(task), Arc::clone(&self.gate));
        thread::spawn(move || {
            let mut open = gate.0.lock().unwrap();
            while !*open {
                open = gate.1.wait(open).unwrap();
            }
            drop(open);
            f(&task)
        })
    }

    fn go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn pipe(&self, task: &Task) -> (Arc<File>, Arc<File>) {
        task.as_caller(|cx| fs::pipe::pipe_files(&self.kernel, cx, OpenFlags::empty()))
    }
}

fn under_schedules(runs: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    let scheduler = shuttle::scheduler::RandomScheduler::new(runs);
    shuttle::Runner::new(scheduler, config).run(test);
}

fn all<R>(threads: Vec<JoinHandle<R>>) -> Vec<R> {
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// Waits for a word to change from zero, as a lock of a guest's library does.
fn wait_for_change(task: &Task, word: Word) {
    loop {
        match task.kernel().futexes.wait(task, word, 0, MATCH_ANY, None) {
            Ok(()) => {}
            Err(WaitError::Errno(Errno::EAGAIN)) => return,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn futex_value_and_wake_up_are_one_step() {
    under_schedules(RUNS, || {
        let w = World::new();
        let waits = (0..2).map(|_| w.spawn(|t| wait_for_change(t, FIRST))).collect();
        let wakes = w.spawn(|t| {
            t.mm().copy_out(FIRST.addr, &1u32.to_ne_bytes()).unwrap();
            t.kernel().futexes.wake(&t.mm(), FIRST, usize::MAX, MATCH_ANY).unwrap()
        });
        w.go();
        all(waits);
        assert!(wakes.join().unwrap() <= 2);
        let nobody = w.kernel.futexes.wake(&w.mm, FIRST, 9, MATCH_ANY);
        assert_eq!(nobody, Ok(0), "nobody is left in the bucket");
    });
}

/// Each wake-up that says it woke somebody has ended exactly one wait, and an interrupted wait has not taken one.
#[test]
fn futex_wake_ups_are_counted() {
    under_schedules(RUNS, || {
        let w = World::new();
        let tasks = [w.task(), w.task()];
        let waits: Vec<_> = tasks
            .iter()
            .map(|t| w.spawn_as(t, |t| t.kernel().futexes.wait(t, FIRST, 0, MATCH_ANY, None)))
            .collect();
        let wakes = w.spawn(|t| t.kernel().futexes.wake(&t.mm(), FIRST, 1, MATCH_ANY).unwrap());
        w.go();
        tasks.iter().for_each(|t| t.raise(Reason::Signal));
        let ended = all(waits);
        let woken = ended.iter().filter(|e| e.is_ok()).count();
        assert!(ended.iter().all(|e| matches!(e, Ok(()) | Err(WaitError::Interrupted))), "{ended:?}");
        assert_eq!(woken, wakes.join().unwrap());
        assert_eq!(w.kernel.futexes.wake(&w.mm, FIRST, 9, MATCH_ANY), Ok(0));
    });
}

/// Who is moved is woken where it has been moved to, whether it was moved, woken or interrupted first.
#[test]
fn futex_requeue_loses_nobody() {
    under_schedules(RUNS, || {
        let w = World::new();
        let tasks = [w.task(), w.task(), w.task()];
        let waits: Vec<_> = tasks
            .iter()
            .map(|t| w.spawn_as(t, |t| t.kernel().futexes.wait(t, FIRST, 0, MATCH_ANY, None)))
            .collect();
        let moves = w.spawn(|t| {
            let f = &t.kernel().futexes;
            let first = f.requeue(&t.mm(), FIRST, SECOND, 1, usize::MAX, Some(0));
            t.mm().copy_out(FIRST.addr, &1u32.to_ne_bytes()).unwrap();
            first.unwrap()
        });
        let interrupts = {
            let t = Arc::clone(&tasks[0]);
            thread::spawn(move || t.raise(Reason::Signal))
        };
        w.go();
        moves.join().unwrap();
        interrupts.join().unwrap();
        // Nobody can come any more: the first word has changed.
        let wakes = w.spawn(|t| {
            let f = &t.kernel().futexes;
            [SECOND, FIRST].map(|word| f.wake(&t.mm(), word, usize::MAX, MATCH_ANY).unwrap())
        });
        wakes.join().unwrap();
        for (i, e) in all(waits).into_iter().enumerate() {
            let may = match e {
                Ok(()) | Err(WaitError::Errno(Errno::EAGAIN)) => true,
                Err(WaitError::Interrupted) => i == 0,
                Err(_) => false,
            };
            assert!(may, "{i}: {e:?}");
        }
        for word in [FIRST, SECOND] {
            assert_eq!(w.kernel.futexes.wake(&w.mm, word, 9, MATCH_ANY), Ok(0));
        }
    });
}

/// Waits until a file operation does not say EAGAIN, as read(2) and write(2) do.
fn blocking<R>(
    task: &Task,
    file: &File,
    events: PollEvents,
    mut op: impl FnMut() -> abi::Result<R>,
) -> abi::Result<R> {
    let queue = file.ops().wait_queue(file).unwrap();
    let mask = (events | PollEvents::ERR | PollEvents::HUP).bits();
    let again = |r| if matches!(r, Err(Errno::EAGAIN)) { None } else { Some(r) };
    task.block_on(&[WaitOn::mask(&queue, mask)], None, || again(op())).unwrap()
}

fn read(task: &Task, file: &File, len: usize) -> abi::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let n = blocking(task, file, PollEvents::READABLE | PollEvents::RDHUP, || {
        task.as_caller(|cx| rw::read(cx, file, &mut SliceSink::new(&mut buf), None))
    })?;
    buf.truncate(n);
    Ok(buf)
}

fn write(task: &Task, file: &File, data: &mut [u8]) -> abi::Result<usize> {
    let mut src = SliceSource::new(data);
    blocking(task, file, PollEvents::WRITABLE, || task.as_caller(|cx| rw::write(cx, file, &mut src, None)))
}

/// A pipe of one page: who reads and who write wait for each other, nothing is lost or mixed, and the end is seen.
#[test]
fn pipe_readers_and_writers_wait_for_each_other() {
    under_schedules(RUNS, || {
        let w = World::new();
        let (r, wr) = w.pipe(&w.task());
        r.ops().as_pipe().unwrap().set_capacity(4096, true).unwrap();
        let writers = (1..=2u8)
            .map(|byte| {
                let file = Arc::clone(&wr);
                w.spawn(move |t| {
                    for _ in 0..2 {
                        assert_eq!(write(t, &file, &mut [byte; 3000]), Ok(3000));
                    }
                })
            })
            .collect();
        drop(wr);
        let reader = w.spawn(move |t| {
            let mut got = Vec::new();
            loop {
                let part = read(t, &r, 3000).unwrap();
                if part.is_empty() {
                    return got;
                }
                got.extend(part);
            }
        });
        w.go();
        all(writers);
        let got = reader.join().unwrap();
        assert_eq!(got.len(), 4 * 3000);
        assert!(got.chunks(3000).all(|c| c.iter().all(|b| *b == c[0])), "a write is one piece");
    });
}

/// The last reader goes while a writer waits for room: EPIPE, and who polls is told of the error.
#[test]
fn pipe_writers_learn_that_the_readers_have_gone() {
    under_schedules(RUNS, || {
        let w = World::new();
        let first = w.task();
        let (r, wr) = w.pipe(&first);
        r.ops().as_pipe().unwrap().set_capacity(4096, true).unwrap();
        assert_eq!(write(&first, &wr, &mut [1; 4096]), Ok(4096));
        let writer = {
            let wr = Arc::clone(&wr);
            w.spawn(move |t| write(t, &wr, &mut [2; 4096]))
        };
        let poller = {
            let wr = Arc::clone(&wr);
            w.spawn(move |t| {
                let queue = wr.ops().wait_queue(&wr).unwrap();
                let mask = (PollEvents::ERR | PollEvents::HUP).bits();
                let gone =
                    || t.as_caller(|cx| wr.ops().poll(cx, &wr)).contains(PollEvents::ERR).then_some(());
                t.block_on(&[WaitOn::mask(&queue, mask)], None, gone).unwrap();
            })
        };
        w.go();
        drop(r);
        assert_eq!(writer.join().unwrap(), Err(Errno::EPIPE));
        poller.join().unwrap();
    });
}

const IN: u32 = PollEvents::IN.bits();

/// An epoll instance that watches one file.
fn watching(w: &World, task: &Task, file: &Arc<File>, events: u32) -> Arc<Epoll> {
    let ep = Epoll::new();
    let ev = EpollEvent { events: IN | events, data: 7 };
    task.as_caller(|cx| ep.add(cx, &w.kernel, file, Fd(3), ev)).unwrap();
    ep
}

/// One waits and reads, another writes piece by piece: no news is lost in either mode. The end of the pipe would be news as
/// well, so it comes only when all is read.
#[test]
fn epoll_loses_no_news() {
    for mode in [0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLEXCLUSIVE] {
        under_schedules(5 * RUNS, move || {
            let w = World::new();
            let first = w.task();
            let (r, wr) = w.pipe(&first);
            let ep = watching(&w, &first, &r, mode);
            let reader = w.spawn(move |t| {
                let mut got = 0;
                while got < 12 {
                    let events = ep.wait(t, 4, None).unwrap();
                    assert!(events.iter().all(|e| e.data == 7));
                    // Edge-triggered: all there is has to be read.
                    loop {
                        let mut buf = [0; 8];
                        let n = t.as_caller(|cx| rw::read(cx, &r, &mut SliceSink::new(&mut buf), None));
                        match n {
                            Ok(n) => got += n,
                            Err(Errno::EAGAIN) => break,
                            Err(e) => panic!("{e:?}"),
                        }
                    }
                    if mode == EPOLLONESHOT {
                        let again = EpollEvent { events: IN | mode, data: 7 };
                        t.as_caller(|cx| ep.modify(cx, &r, Fd(3), again)).unwrap();
                    }
                }
                assert_eq!(got, 12);
            });
            w.go();
            for _ in 0..3 {
                assert_eq!(write(&first, &wr, &mut [1; 4]), Ok(4));
            }
            reader.join().unwrap();
        });
    }
}

/// Two wait for one instance: of one piece of news each mode tells as many as it has to, and of two both get one.
#[test]
fn epoll_tells_one_or_all() {
    for mode in [0, EPOLLET, EPOLLONESHOT] {
        under_schedules(RUNS, move || {
            let w = World::new();
            let first = w.task();
            let (r, wr) = w.pipe(&first);
            let ep = watching(&w, &first, &r, mode);
            let tasks = [w.task(), w.task()];
            let waits: Vec<_> = [0, 1]
                .map(|i| {
                    let (ep, other) = (Arc::clone(&ep), Arc::clone(&tasks[1 - i]));
                    w.spawn_as(&tasks[i], move |me| {
                        let got = ep.wait(me, 1, None).map_or(0, |events| events.len());
                        if mode != 0 {
                            // One is told; the other one has to be interrupted.
                            other.raise(Reason::Signal);
                        }
                        got
                    })
                })
                .into();
            w.go();
            assert_eq!(write(&first, &wr, &mut [1]), Ok(1));
            // Without an edge it stays readable: the other one must be told as well, by the first or by the write.
            let told: usize = all(waits).iter().sum();
            assert_eq!(told, if mode == 0 { 2 } else { 1 }, "mode {mode:#x}");
            drop((r, wr));
        });
    }
}

/// Two instances watch one file for themselves alone: one wake-up reaches at least one that waits.
#[test]
fn epoll_exclusive_reaches_somebody_who_waits() {
    under_schedules(RUNS, || {
        let w = World::new();
        let first = w.task();
        let (r, wr) = w.pipe(&first);
        let instances = [0, 1].map(|_| watching(&w, &first, &r, EPOLLEXCLUSIVE));
        let readers: Vec<_> = instances
            .into_iter()
            .map(|ep| {
                let r = Arc::clone(&r);
                w.spawn(move |t| {
                    let mut got = 0;
                    loop {
                        ep.wait(t, 1, None).unwrap();
                        let mut buf = [0; 1];
                        match t.as_caller(|cx| rw::read(cx, &r, &mut SliceSink::new(&mut buf), None)) {
                            Ok(0) => return got,
                            Ok(n) => got += n,
                            Err(Errno::EAGAIN) => {}
                            Err(e) => panic!("{e:?}"),
                        }
                    }
                })
            })
            .collect();
        w.go();
        for _ in 0..2 {
            assert_eq!(write(&first, &wr, &mut [1]), Ok(1));
        }
        drop(wr);
        assert_eq!(all(readers).iter().sum::<usize>(), 2);
    });
}

const RUNS: usize = 300;
