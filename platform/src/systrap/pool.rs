//! Stub processes whose guest has ended and that wait for another one.
//!
//! A new process and a new thread cost several hundred microseconds of the host, most of it for their seccomp filters. So the
//! process of a guest that had one thread only is kept: everything of the guest's is unmapped, the thread is *renewed*, and the
//! next address space gets both.
//!
//! A hostile guest may have brought its thread anywhere while its context looks stopped. So nothing in the process is believed:
//! the thread must sleep on a word on which the filter lets it sleep at one instruction only, which the kernel tells by
//! moving it to another word. What it executes from there on is the stub's, and all it can have prepared (registers,
//! signal mask, signal stack, vector state) is loaded anew from a frame that is written only then. If its first
//! trap after that is not exactly the one expected, the process is killed. No guest memory is mapped before.

use super::blocks::ContextBlock;
use super::frame::Template;
use super::handoff::{self, Answer};
use crate::Registers;
use crate::stub::layout::{CTX_STATE, STATE_KEEP};
use crate::stub::{self, StubSpace};
use hostsys::futex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Most processes that wait.
const MOST: usize = 6;
/// How often it is looked whether a thread sleeps, and how long between.
const LOOKS: u32 = 40;
const BETWEEN: Duration = Duration::from_micros(50);

/// A host thread in a stub process. It waits in the stub.
pub(super) struct HostThread {
    pub(super) block: ContextBlock,
    /// Where the block is in the stub.
    pub(super) place: u64,
    pub(super) tid: i32,
    /// It waits after a call from a patched site; the registers there. Else it waits in the handler, and they are in the frame.
    pub(super) at_call: Option<Registers>,
    /// It can be told from others, so that it may run patched sites.
    pub(super) numbered: bool,
}

/// A process with its only thread, which waits as a new one does.
pub(super) struct Kept {
    pub(super) stub: Arc<StubSpace>,
    pub(super) thread: HostThread,
}

/// See the module.
pub(super) struct Pool {
    ready: Mutex<Vec<Kept>>,
    /// Those that are ready or about to be.
    count: AtomicUsize,
    to_renewer: Mutex<Option<Sender<Kept>>>,
    /// What a new thread's first signal frame looks like on this host.
    template: OnceLock<Template>,
}

impl Pool {
    /// An empty pool, and the thread that renews.
    pub(super) fn start() -> std::io::Result<(Arc<Pool>, std::thread::JoinHandle<()>)> {
        let (sender, work) = channel();
        let pool = Arc::new(Pool {
            ready: Mutex::default(),
            count: AtomicUsize::new(0),
            to_renewer: Mutex::new(Some(sender)),
            template: OnceLock::new(),
        });
        let own = pool.clone();
        let renewer = std::thread::Builder::new()
            .name("stub-renewer".into())
            .stack_size(64 << 10)
            .spawn(move || own.serve(&work))?;
        Ok((pool, renewer))
    }

    /// No process is kept any more.
    pub(super) fn close(&self) {
        *self.to_renewer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ready = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        ready.into_iter().for_each(Kept::discard);
    }

    /// Notes the frame of a thread that has not run guest code yet.
    pub(super) fn learn(&self, thread: &HostThread) {
        if self.template.get().is_none()
            && let Some(template) = Template::of(&thread.block, thread.place)
        {
            let _ = self.template.set(template);
        }
    }

    /// A process for a new address space, if there is one.
    pub(super) fn take(&self) -> Option<Kept> {
        loop {
            let kept = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            self.count.fetch_sub(1, Relaxed);
            if !kept.stub.has_exited() {
                return Some(kept);
            }
            kept.discard();
        }
    }

    /// Keeps a process with nothing mapped, whose only thread ever is this one; or ends it.
    pub(super) fn give(&self, mut kept: Kept) {
        let sender = self.to_renewer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender
            && self.template.get().is_some()
            && self.count.load(Relaxed) < MOST
        {
            self.count.fetch_add(1, Relaxed);
            kept.thread.at_call = None;
            kept.lay_down();
            if let Err(refused) = sender.send(kept) {
                refused.0.discard();
            }
            return;
        }
        drop(sender);
        kept.discard();
    }

    /// Processes that wait.
    pub(super) fn pids(&self) -> Vec<u32> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.iter().map(|k| k.stub.pid().cast_unsigned()).collect()
    }

    fn serve(&self, work: &Receiver<Kept>) {
        while let Ok(kept) = work.recv() {
            let renewed = self.template.get().is_some_and(|t| kept.renew(t));
            let open = self.to_renewer.lock().unwrap_or_else(PoisonError::into_inner);
            if renewed && open.is_some() {
                self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
            } else {
                self.count.fetch_sub(1, Relaxed);
                kept.discard();
            }
        }
    }
}

impl Kept {
    /// Ends the process.
    fn discard(self) {
        self.stub.after_death(Box::new(move || self.thread.block.free()));
    }

    /// Tells the thread to go to sleep where its place is known.
    fn lay_down(&self) {
        self.stub.set_kept(true);
        let state = self.thread.block.word(CTX_STATE);
        state.store(STATE_KEEP, SeqCst);
        futex::wake(state, 1);
    }

    /// Makes the thread like a new one; false: it does not behave.
    fn renew(&self, template: &Template) -> bool {
        let asleep = (0..LOOKS).any(|_| {
            self.stub.kept_sleeps() || {
                std::thread::sleep(BETWEEN);
                false
            }
        });
        if !asleep {
            return false;
        }
        let HostThread { block, place, .. } = &self.thread;
        // Also what the guest left in it must not be seen by the next one.
        block.clear();
        template.write(block, *place, stub::first_address(), stub::guest_mask());
        self.stub.wake_kept(*place + template.context() as u64);
        handoff::wait_birth(block, &self.stub) == Answer::Trapped
            && template.is_first_trap(block, *place, stub::first_address())
    }
}
