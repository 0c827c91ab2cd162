//! A guest thread on the systrap platform.

use super::SystrapSpace;
use super::blocks::ContextFile;
use super::frame::{Cause, Frame};
use super::handoff::{self, Adapt, Answer};
use super::patches::Patches;
use super::pool::HostThread;
use super::site::{GO_ON, Kind};
use super::turn::Turn;
use super::waiting;
use crate::stub::layout::{CTX_REST, CTX_SIZE, CTX_STACK, CTX_TID, STATE_EXIT, reg};
use crate::stub::{self, FastText, StubSpace};
use crate::*;
use hostsys::signals::{self, INTERRUPT};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a trap is, seen from the site.
enum Seen {
    Trap(Trap),
    /// Nothing for the guest's kernel; the thread goes on there.
    GoOn {
        rip: u64,
    },
}

/// Traps that patches cause, or that happen in their code. `again` is the instruction that was already tried once more.
fn at_site(patches: &Patches, now: &mut Registers, trap: Trap, again: &mut Option<u64>) -> Seen {
    let signal = |signo| matches!(trap, Trap::Signal(s) if s.signo == signo);
    if signal(libc::SIGILL)
        && let Some(rip) = patches.behind(now.rip)
        && (rip != now.rip || again.replace(rip) != Some(rip))
    {
        return Seen::GoOn { rip };
    }
    let Some((after, kind, off)) = patches.in_area(now.rip) else { return Seen::Trap(trap) };
    let rip = now.rip;
    if signal(libc::SIGTRAP) {
        // Single steps: those that the site does not have are not seen.
        match kind {
            Kind::Compare(_) if off == 0 => {
                (now.orig_rax, now.rax) = (now.rax, i64::from(-libc::ENOSYS).cast_unsigned());
                (now.rip, now.rcx, now.r11) = (after, after, now.eflags);
                return Seen::Trap(Trap::Syscall);
            }
            Kind::Compare(_) if off == GO_ON + 7 || off == GO_ON + 13 => return Seen::GoOn { rip },
            Kind::Number(_) | Kind::Moved(_) if off == 0 => return Seen::GoOn { rip },
            _ => {}
        }
    }
    let fetch = matches!(trap, Trap::Fault(f) if f.addr == rip);
    leave_area(patches, now);
    if fetch { Seen::GoOn { rip: now.rip } } else { Seen::Trap(trap) }
}

/// Gives the registers that the guest would have at the site, if it is in the code of a patch.
fn leave_area(patches: &Patches, now: &mut Registers) -> bool {
    let Some((after, kind, off)) = patches.in_area(now.rip) else { return false };
    let site = kind.at_site(after, off);
    now.rip = site.rip;
    if let Some(rcx) = site.rcx {
        now.rcx = rcx;
    }
    true
}

/// See the module.
pub(super) struct SystrapContext {
    file: Arc<ContextFile>,
    cpus: usize,
    guest: Option<GuestThread>,
    /// State to load before guest code runs next.
    fpu: Option<FpuState>,
    adapt: Adapt,
    interrupt: Arc<SystrapInterrupt>,
    constants: Option<Constants>,
    text: FastText,
    hot: bool,
}

/// How often in a row an interrupt is put off until the code of a patch has ended. A guest that jumps about in the stub's text could be "on
/// its way in" for ever.
const PUT_OFF: u32 = 1000;

/// Where the context is. The host thread waits in the stub whenever the sentry has control.
struct GuestThread {
    space: Arc<dyn AddressSpace>,
    host: HostThread,
    trapped: u64,
    patched: u64,
}

impl GuestThread {
    fn count(&self, space: &SystrapSpace) {
        space.calls.trapped.fetch_add(self.trapped, Relaxed);
        space.calls.patched.fetch_add(self.patched, Relaxed);
    }
}

struct SystrapInterrupt {
    pending: AtomicBool,
    /// Process and thread, 0 while no guest code runs.
    tgid: AtomicI32,
    tid: AtomicI32,
    file: Arc<ContextFile>,
    cpus: usize,
    /// The block of the host thread, `NONE` without one.
    block: AtomicU64,
    /// The host thread was told to sleep.
    rests: AtomicBool,
    turn: Arc<Turn>,
    parent: Mutex<Parent>,
}

/// What getppid(2) answers.
#[derive(Default)]
struct Parent {
    pid: u32,
    /// The process and the place of the context whose record says so, while there is one.
    record: Option<(Arc<StubSpace>, u64)>,
}

/// No block.
const NONE: u64 = u64::MAX;

impl SystrapInterrupt {
    fn parent(&self) -> MutexGuard<'_, Parent> {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread has a record there.
    fn set_record(&self, stub: &Arc<StubSpace>, place: u64) {
        let mut parent = self.parent();
        stub.set_record_parent(place, parent.pid);
        parent.record = Some((stub.clone(), place));
    }

    /// There is a host thread now.
    fn set_host(&self, tgid: i32, block: u64) {
        self.tgid.store(tgid, SeqCst);
        self.block.store(block, Relaxed);
        self.rests.store(false, Relaxed);
        // Whoever had the thread before may have left it so.
        self.file.word(block, CTX_REST).store(0, Relaxed);
    }
}

impl Interrupt for SystrapInterrupt {
    fn interrupt(&self) {
        if self.pending.swap(true, SeqCst) {
            return;
        }
        let tid = self.tid.load(SeqCst);
        if tid != 0 {
            // Blocked while the thread is in the handler, so it comes when guest code runs, not before.
            let _ = signals::tgkill(self.tgid.load(SeqCst), tid, INTERRUPT);
        }
        self.turn.leave();
    }

    fn rest(&self) {
        self.turn.give_up();
        let block = self.block.load(Relaxed);
        if block != NONE && handoff::rest(&self.file, block, self.cpus) {
            self.rests.store(true, Relaxed);
        }
    }

    fn set_parent(&self, pid: u32) {
        let mut parent = self.parent();
        parent.pid = pid;
        if let Some((stub, place)) = &parent.record {
            stub.set_record_parent(*place, pid);
        }
    }
}

fn systrap_space(space: &Arc<dyn AddressSpace>) -> Result<&SystrapSpace, PlatformError> {
    space.as_any().downcast_ref().ok_or(PlatformError::Misuse("address space of another platform"))
}

impl SystrapContext {
    pub(super) fn new(file: Arc<ContextFile>, cpus: usize) -> SystrapContext {
        let interrupt = SystrapInterrupt {
            pending: AtomicBool::new(false),
            tgid: AtomicI32::new(0),
            tid: AtomicI32::new(0),
            file: file.clone(),
            cpus,
            block: AtomicU64::new(NONE),
            rests: AtomicBool::new(false),
            turn: Arc::default(),
            parent: Mutex::default(),
        };
        SystrapContext {
            file,
            cpus,
            guest: None,
            fpu: None,
            adapt: Adapt::default(),
            interrupt: Arc::new(interrupt),
            constants: None,
            text: stub::fast_text(),
            hot: false,
        }
    }

    /// Makes sure that there is a host thread in `space`.
    fn enter(&mut self, space: &Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        if let Some(guest) = &self.guest {
            if Arc::ptr_eq(&guest.space, space) {
                return Ok(());
            }
            self.release();
        }
        let systrap = systrap_space(space)?;
        let guest = |host| GuestThread { space: space.clone(), host, trapped: 0, patched: 0 };
        if let Some(host) = systrap.take_idle() {
            // Whoever had the thread before left its vector registers.
            self.fpu.get_or_insert_with(FpuState::initial);
            if host.numbered {
                self.write_record(&systrap.stub, host.place);
                self.interrupt.set_record(&systrap.stub, host.place);
            } else {
                systrap.never_patch();
            }
            self.interrupt.set_host(systrap.stub.pid(), host.block.index());
            self.guest = Some(guest(host));
            return Ok(());
        }
        let block = self.file.block()?;
        let place = match systrap.places.take() {
            Ok(place) => place,
            Err(e) => {
                block.free();
                return Err(e);
            }
        };
        // stack_t: address, flags, size.
        block.put(CTX_STACK, place + 0x1000);
        block.put(CTX_STACK + 8, 0);
        block.put(CTX_STACK + 16, CTX_SIZE - 0x1000);
        block.word(CTX_TID).store(1, Relaxed);
        let selector = systrap.selector(place);
        if selector.is_some() {
            self.write_record(&systrap.stub, place);
            self.interrupt.set_record(&systrap.stub, place);
        }
        let tid = match systrap.stub.clone_with_context(place, block.raw_fd(), block.offset(), selector) {
            Ok(tid) => {
                if selector.is_some() {
                    systrap.low_mapped.store(true, Relaxed);
                }
                tid
            }
            Err(e) => {
                // The place may be mapped or not; it is unmapped now, or the process is gone.
                if matches!(e, PlatformError::Dead) || systrap.stub.unmap_context(place).is_ok() {
                    block.free();
                    systrap.places.give_back(place);
                }
                return Err(e);
            }
        };
        let born = handoff::wait_birth(&block, &systrap.stub);
        let host = HostThread { block, place, tid, at_call: None, numbered: selector.is_some() };
        // In a new process no guest code has run that could have changed the frame.
        if systrap.made.fetch_add(1, Relaxed) == 0 && born == Answer::Trapped {
            systrap.pool.learn(&host);
        }
        self.interrupt.set_host(systrap.stub.pid(), host.block.index());
        self.guest = Some(guest(host));
        // The zygote left its vector registers in the initial state, and clone copied that.
        if born == Answer::Dead { Err(PlatformError::Dead) } else { Ok(()) }
    }

    fn write_record(&self, stub: &StubSpace, place: u64) {
        let c = self.constants;
        let go = if c.is_some() { self.text.answer } else { self.text.ask };
        stub.set_record(place, go, c.map_or([0; 6], |c| [c.pid, c.tid, c.uid, c.euid, c.gid, c.egid]));
    }

    fn run(&mut self, regs: &mut Registers) -> Result<Trap, PlatformError> {
        let Some(guest) = &mut self.guest else { return Ok(Trap::Dead) };
        let space = systrap_space(&guest.space)?;
        let HostThread { block, place, tid, at_call, numbered } = &mut guest.host;
        let (stub, block, place) = (&space.stub, &*block, *place);
        let fpu = self.fpu.take();
        if !regs.is_sane() {
            regs.sanitize();
        }
        // All registers, for a thread in the handler.
        let load = |regs: &Registers, fpu: Option<&FpuState>| {
            let frame = Frame::find(block, place).ok_or(PlatformError::Dead)?;
            if let Some(fpu) = fpu {
                frame.set_fpu(block, place, fpu);
            }
            frame.set_registers(block, regs, stub::guest_mask());
            Ok::<(), PlatformError>(())
        };
        let mut result = match &*at_call {
            Some(at_call) => waiting::answer(block, at_call, regs, fpu.as_ref()),
            None => {
                load(regs, fpu.as_ref())?;
                None
            }
        };
        let interrupt = &self.interrupt;
        interrupt.tid.store(*tid, SeqCst);
        if interrupt.rests.load(Relaxed) {
            interrupt.rests.store(false, Relaxed);
            block.word(CTX_REST).store(0, Relaxed);
        }
        let mut look = true;
        let mut put_off = 0;
        let mut again = None;
        loop {
            if look && interrupt.pending.load(SeqCst) && interrupt.pending.swap(false, SeqCst) {
                // In the frame it is already; a thread that waits has not taken it yet.
                self.fpu = fpu.filter(|_| at_call.is_some());
                return Ok(Trap::Interrupted);
            }
            look = true;
            let interrupted = || interrupt.pending.load(Relaxed);
            let (adapt, turn) = (&mut self.adapt, &interrupt.turn);
            match handoff::run(block, result.take(), stub, adapt, turn, self.cpus, &interrupted) {
                Answer::Dead => return Err(PlatformError::Dead),
                Answer::Call => {
                    *regs = waiting::registers(block);
                    *at_call = Some(*regs);
                    guest.patched += 1;
                    return Ok(Trap::Syscall);
                }
                Answer::Trapped => {}
            }
            let frame = Frame::find(block, place).ok_or(PlatformError::Dead)?;
            let mut now = frame.registers(block);
            let cause = frame.trap(block, &mut now, INTERRUPT);
            let ours = matches!(cause, Some(Cause::Interrupt) | None);
            if *numbered {
                let (rip, text) = (now.rip, &self.text);
                if (text.all.0..=text.post).contains(&rip) && ours {
                    // On its way in: it will post in a moment. (An interrupt stays pending.)
                    put_off += 1;
                    look = put_off > PUT_OFF;
                    continue;
                }
                if (text.post + 1..text.all.1).contains(&rip) {
                    // On its way out: it was to go on with `regs`, and does so from here.
                    if ours {
                        *at_call = None;
                        load(regs, fpu.as_ref())?;
                        continue;
                    }
                    if rip == text.iret
                        && let Some(Cause::Trap(trap)) = cause
                    {
                        // A place where no code can be.
                        *at_call = None;
                        load(regs, fpu.as_ref())?;
                        return Ok(trap);
                    }
                }
                if (text.answers.0..text.answers.1).contains(&rip) && ours {
                    // Back to the site. Whatever was changed is restored from where it is.
                    if now.rsp.wrapping_sub(place) < 0x1000 {
                        now.rsp = block.get(reg(15));
                    }
                    if text.cleared.iter().any(|(s, e)| (*s..*e).contains(&rip)) {
                        now.eflags &= !0x40;
                    }
                    now.rip = now.rcx.wrapping_sub(7);
                    *at_call = None;
                    *regs = now;
                    regs.sanitize();
                    load(regs, None)?;
                    continue;
                }
            }
            *at_call = None;
            let cause = match cause {
                Some(Cause::Trap(trap)) => {
                    match space
                        .with_patches(|p| at_site(p, &mut now, trap, &mut again))
                        .unwrap_or(Seen::Trap(trap))
                    {
                        Seen::Trap(trap) => Some(trap),
                        Seen::GoOn { rip } => {
                            *regs = now;
                            let mut there = now;
                            there.rip = rip;
                            there.sanitize();
                            load(&there, None)?;
                            put_off += 1;
                            look = put_off > PUT_OFF;
                            continue;
                        }
                    }
                }
                _ => {
                    // An interrupt, or what is left of one that was consumed already.
                    let changed = space.with_patches(|p| leave_area(p, &mut now)).unwrap_or(false);
                    *regs = now;
                    if changed {
                        regs.sanitize();
                        load(regs, None)?;
                    }
                    None
                }
            };
            if let Some(trap) = cause {
                *regs = now;
                guest.trapped += 1;
                if trap == Trap::Syscall {
                    self.hot = space.count(now.rip);
                }
                return Ok(trap);
            }
        }
    }

    /// The process died, or its guest made it useless.
    fn died(&mut self) -> Trap {
        self.left();
        if let Some(guest) = self.guest.take()
            && let Ok(space) = systrap_space(&guest.space)
        {
            space.stub.kill(libc::SIGKILL);
            while !space.stub.has_exited() {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            space.stub.set_dead();
            guest.count(space);
            guest.host.block.free();
        }
        Trap::Dead
    }

    fn stopped(&self) {
        self.interrupt.tid.store(0, SeqCst);
    }

    /// There is no host thread any more.
    fn left(&self) {
        self.stopped();
        self.interrupt.turn.give_up();
        self.interrupt.block.store(NONE, Relaxed);
        self.interrupt.parent().record = None;
    }
}

impl Context for SystrapContext {
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Trap, PlatformError> {
        if self.interrupt.pending.load(Relaxed) && self.interrupt.pending.swap(false, SeqCst) {
            return Ok(Trap::Interrupted);
        }
        let entered = self.enter(space);
        let result = entered.and_then(|()| self.run(regs));
        self.stopped();
        match result {
            Err(PlatformError::Dead) => Ok(self.died()),
            other => other,
        }
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.interrupt.clone()
    }

    fn fpu(&mut self) -> Result<FpuState, PlatformError> {
        if let Some(state) = &self.fpu {
            return Ok(state.clone());
        }
        let Some(guest) = &self.guest else { return Ok(FpuState::initial()) };
        if guest.host.at_call.is_some() {
            match handoff::save_vectors(&guest.host.block, &systrap_space(&guest.space)?.stub) {
                Answer::Call => return Ok(waiting::fpu(&guest.host.block)),
                Answer::Trapped => {}
                Answer::Dead => return Err(PlatformError::Dead),
            }
        }
        let frame = Frame::find(&guest.host.block, guest.host.place).ok_or(PlatformError::Dead)?;
        Ok(frame.fpu(&guest.host.block, guest.host.place))
    }

    fn set_fpu(&mut self, state: &FpuState) -> Result<(), PlatformError> {
        self.fpu = Some(state.clone());
        Ok(())
    }

    fn is_hot(&mut self) -> bool {
        std::mem::take(&mut self.hot)
    }

    fn set_constants(&mut self, constants: Option<Constants>) {
        if self.constants == constants {
            return;
        }
        self.constants = constants;
        if let Some(guest) = &self.guest
            && guest.host.numbered
            && let Ok(space) = systrap_space(&guest.space)
        {
            self.write_record(&space.stub, guest.host.place);
        }
    }

    fn release(&mut self) {
        self.left();
        let Some(guest) = self.guest.take() else { return };
        let Ok(space) = systrap_space(&guest.space) else { return };
        guest.count(space);
        let HostThread { block, place, .. } = match space.keep_idle(guest.host) {
            None => return,
            Some(host) => host,
        };
        let ended = handoff::end(&block, &space.stub, STATE_EXIT);
        // Only memory that no stub maps may be handed out again.
        if !ended || space.stub.unmap_context(place).is_ok() || space.stub.has_exited() {
            block.free();
            space.places.give_back(place);
        }
    }
}

impl Drop for SystrapContext {
    fn drop(&mut self) {
        self.release();
    }
}
