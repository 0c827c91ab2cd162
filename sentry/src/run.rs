//! The task loop: guest code runs until it traps, the trap is answered, signals are delivered. One host
//! thread for each task.
//!
//! What a trap means is decided elsewhere: calls in `syscalls`, faults in `kernel::mm`, signals in
//! `kernel::signal`. Here is only the order in which Linux deals with them.

use crate::syscalls;
use crate::{Current, tracing_stops};
use abi::Errno;
use abi::siginfo::SigInfo;
use abi::signal::{SaFlags, Signal};
use kernel::mm::OVER_LIMIT;
use kernel::restart::Restart;
use kernel::seccomp::{self, ret};
use kernel::signal::{Delivery, FaultRecord, FrameContext, HandlerCall, write_frame};
use kernel::task::{ExitStatus, Reason, Step, StopEvent};
use kernel::{SysError, SysResult, Task, gap};
use platform::hostsys::account;
use platform::{Constants, Context, FpuState, Registers, Trap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;
const RESTART_SYSCALL: u64 = 219;
/// Calls after which `Runner::constants` may be different: execve, those of user and group, prctl, seccomp, ptrace, namespaces.
const CHANGES_CONSTANTS: [u64; 13] = [59, 101, 105, 106, 113, 114, 117, 119, 157, 272, 308, 317, 322];

/// How tasks are run, for a whole sandbox.
#[derive(Debug, Default)]
pub struct Options {
    /// Log every call of every task.
    pub strace: AtomicBool,
}

struct Runner<'a> {
    task: &'a Arc<Task>,
    regs: Registers,
    context: Box<dyn Context>,
    /// The call that was just made wants to be restarted.
    restart: Option<Restart>,
    fault: FaultRecord,
    options: Arc<Options>,
    /// What the platform may answer by itself must be looked at again.
    constants_stale: bool,
}

/// Runs a task to its end on the calling thread.
pub(crate) fn run(task: &Arc<Task>, regs: Registers, fpu: Option<FpuState>) {
    let kernel = Arc::clone(task.kernel());
    let options = kernel.extensions.get_or_init(Options::default);
    let context = kernel.platform.new_context();
    task.cpu.set_host_thread(platform::hostsys::signals::gettid());
    account::work_for(task.group().members().account());
    platform::load::wants();
    platform::later::comes_by(true);
    let status = match context {
        Ok(mut context) => {
            let ready = fpu.map_or(Ok(()), |f| context.set_fpu(&f));
            if let Err(error) = ready {
                tracing::error!("floating-point state of a new task: {error}");
            }
            task.set_interrupt(Some(context.interrupter()));
            let fault = FaultRecord::default();
            let mut r = Runner { task, regs, context, restart: None, fault, options, constants_stale: true };
            let status = r.serve();
            tracing_stops::exit_stop(task, &mut r.regs, r.context.as_mut(), status);
            r.context.release();
            status
        }
        Err(error) => {
            tracing::error!("no platform context for a task: {error}");
            task.exit_group(ExitStatus::killed(Signal::SIGKILL, false))
        }
    };
    platform::later::comes_by(false);
    task.exit(status);
    platform::load::rests();
    task.cpu.set_host_thread(0);
}

impl Runner<'_> {
    /// Runs the task to its end.
    fn serve(&mut self) -> ExitStatus {
        let mut mm = self.task.mm();
        mm.warm(&[self.regs.rip, self.regs.rsp]);
        let mut changes = self.task.mm_changes();
        let mut clock = platform::clock::Ticker::default();
        loop {
            if self.restart.is_some() || self.task.look().any() {
                self.constants_stale = true;
                if let Some(status) = self.look_up() {
                    return status;
                }
            }
            if self.constants_stale {
                self.constants_stale = false;
                let constants = self.constants();
                self.context.set_constants(constants);
            }
            let now = self.task.mm_changes();
            if now != changes {
                changes = now;
                mm = self.task.mm();
                mm.warm(&[self.regs.rip, self.regs.rsp]);
            }
            let cpu = &self.task.cpu;
            cpu.enter_guest(clock.now());
            let trap = self.context.switch(mm.space(), &mut self.regs);
            mm.add_guest_time(cpu.leave_guest(clock.now()));
            match trap {
                Ok(Trap::Syscall) => {
                    if self.context.is_hot() {
                        mm.speed_up(self.regs.rip, self.regs.syscall_nr());
                    }
                    self.syscall();
                    if account::take_overdrawn() {
                        self.task.settle_memory();
                    }
                }
                Ok(Trap::Fault(info)) => {
                    if let Err(s) = mm.handle_fault(&info, self.regs.rip) {
                        let gp = info.code == abi::signal::code::SI_KERNEL;
                        self.fault = FaultRecord {
                            trapno: if gp { 13 } else { 14 },
                            err: fault_error(&info, s.code),
                            cr2: if gp { 0 } else { info.addr },
                        };
                        match Signal::new(s.signo) {
                            Some(Signal::SIGKILL) if s.code == OVER_LIMIT && self.task.out_of_memory() => {}
                            Some(Signal::SIGKILL) | None => {
                                tracing::warn!(task = self.task.tid(), "killed: no memory for a fault");
                                self.task.exit_group(ExitStatus::killed(Signal::SIGKILL, false));
                            }
                            Some(signal) => {
                                self.task.force_signal(&SigInfo::fault(signal, s.code, s.addr));
                            }
                        }
                    } else {
                        cpu.minor_faults.fetch_add(1, Ordering::Relaxed);
                        // A page of a file in memory.
                        if account::take_overdrawn() {
                            self.task.settle_memory();
                        }
                    }
                }
                Ok(Trap::Signal(info)) => {
                    let signal = Signal::new(info.signo).unwrap_or(Signal::SIGSEGV);
                    self.fault = FaultRecord { trapno: trap_number(signal), err: 0, cr2: 0 };
                    self.task.force_signal(&SigInfo::fault(signal, info.code, info.addr));
                }
                Ok(Trap::Interrupted) => self.constants_stale = true,
                Ok(Trap::Dead) => {
                    tracing::warn!(task = self.task.tid(), "the process that ran the guest was killed");
                    self.task.exit_group(ExitStatus::killed(Signal::SIGKILL, false));
                }
                Err(error) => {
                    tracing::error!(task = self.task.tid(), "cannot run guest code: {error}");
                    self.task.exit_group(ExitStatus::killed(Signal::SIGKILL, false));
                }
            }
        }
    }

    /// What the task may be told about itself without asking here: nothing while somebody watches its calls.
    fn constants(&self) -> Option<Constants> {
        let task = self.task;
        if task.is_traced() || task.seccomp().is_some() || self.options.strace.load(Ordering::Relaxed) {
            return None;
        }
        let number = |n: i32| u32::try_from(n).ok();
        let c = task.creds();
        Some(Constants {
            pid: number(task.group().pid().number())?,
            tid: number(task.own_tid())?,
            uid: c.user_ns.uid_in(c.uid),
            euid: c.user_ns.uid_in(c.euid),
            gid: c.user_ns.gid_in(c.gid),
            egid: c.user_ns.gid_in(c.egid),
        })
    }

    fn current(&mut self) -> Current<'_> {
        Current { task: self.task, regs: &mut self.regs, context: self.context.as_mut() }
    }

    /// Answers a system call.
    fn syscall(&mut self) {
        let mut nr = self.regs.syscall_nr();
        self.regs.set_return(-i64::from(Errno::ENOSYS.raw()));
        let traced = self.task.is_traced();
        if traced {
            if !tracing_stops::syscall_entry(&mut self.current()) {
                // The tracer emulates the call, or the task dies: nothing is made.
                return self.syscall_exit_stop();
            }
            nr = self.regs.syscall_nr();
        }
        if let Some(chain) = self.task.seccomp() {
            match self.filter(&chain, nr) {
                Verdict::Go => nr = self.regs.syscall_nr(),
                Verdict::Skip => return self.syscall_exit_stop(),
            }
        }
        let narrow = u32::try_from(nr).unwrap_or(u32::MAX);
        let args = self.regs.args();
        self.task.begin_call(narrow.cast_signed(), &args, self.regs.rsp, self.regs.rip);
        let call = self
            .options
            .strace
            .load(Ordering::Relaxed)
            .then(|| syscalls::describe_call(self.task, nr, &args));
        let result = if nr == u64::MAX {
            Err(SysError::NoReturn)
        } else {
            syscalls::dispatch(&mut self.current(), nr, &args)
        };
        self.task.current_call.store(-1, Ordering::Relaxed);
        self.constants_stale |= CHANGES_CONSTANTS.contains(&nr);
        if let Some(call) = call {
            let text = syscalls::describe_result(&result);
            tracing::info!(target: "strace", "[{:>3}] {call} = {text}", self.task.tid());
        }
        self.set_result(result);
        // exit and exit_group do not come back.
        if !self.task.is_dying() {
            self.syscall_exit_stop();
        }
    }

    fn set_result(&mut self, result: SysResult) {
        match result {
            Ok(v) => self.regs.rax = v,
            Err(SysError::Errno(e)) => self.regs.set_return(-i64::from(e.raw())),
            Err(SysError::NoReturn) => {}
            Err(SysError::Restart(r)) => {
                // What a tracer sees in rax; it is replaced before the guest runs.
                self.regs.set_return(match r {
                    Restart::Sys => -512,
                    Restart::NoIntr => -513,
                    Restart::NoHandler => -514,
                    Restart::Block => -516,
                });
                self.restart = Some(r);
            }
        }
    }

    fn syscall_exit_stop(&mut self) {
        if self.task.is_traced() {
            tracing_stops::syscall_exit(&mut self.current());
        }
    }

    /// Deals with all reasons to look up. A status: the task ends.
    fn look_up(&mut self) -> Option<ExitStatus> {
        let task = self.task;
        loop {
            match task.look().next() {
                Step::Exit => return Some(task.final_status()),
                Step::Freeze => task.freeze_here(),
                Step::Trap => tracing_stops::trap_stop(&mut self.current()),
                Step::Stop => {
                    if !tracing_stops::group_stop(&mut self.current()) {
                        task.stop_here();
                    }
                }
                Step::CpuTimers => {
                    task.look().clear(Reason::CpuTimers);
                    task.group().timers.check_cpu(task.group());
                }
                Step::Signals => {
                    let mut delivery = task.next_signal(None);
                    if let Delivery::Traced(info) = delivery {
                        delivery = match tracing_stops::signal_stop(&mut self.current(), info) {
                            Some(info) => task.next_signal(Some(info)),
                            None => Delivery::Again,
                        };
                    }
                    match delivery {
                        Delivery::Handler(call) => self.handler(&call),
                        Delivery::Exit(status) => {
                            task.exit_group(status);
                        }
                        Delivery::None | Delivery::Again | Delivery::Traced(_) => {}
                    }
                }
                Step::Run => break,
            }
        }
        // No handler ran for the interrupted call.
        if let Some(r) = self.restart.take() {
            self.regs.rax = if r == Restart::Block { RESTART_SYSCALL } else { self.regs.orig_rax };
            self.regs.rip = self.regs.rip.wrapping_sub(SYSCALL_LEN);
            self.regs.orig_rax = u64::MAX;
        }
        task.restore_mask();
        None
    }

    /// Sets up the frame of a handler; an interrupted call ends or is restarted after it.
    fn handler(&mut self, call: &HandlerCall) {
        if let Some(r) = self.restart.take() {
            let flags = SaFlags::from_bits_retain(call.action.flags);
            let again = match r {
                Restart::NoIntr => true,
                Restart::Sys => flags.contains(SaFlags::RESTART),
                Restart::NoHandler | Restart::Block => false,
            };
            if again {
                self.regs.rax = self.regs.orig_rax;
                self.regs.rip = self.regs.rip.wrapping_sub(SYSCALL_LEN);
            } else {
                self.regs.set_return(-i64::from(Errno::EINTR.raw()));
            }
        }
        let fpu = match self.context.fpu() {
            Ok(f) => f,
            Err(error) => {
                tracing::error!("floating-point state for a signal frame: {error}");
                FpuState::initial()
            }
        };
        let mm = self.task.mm();
        let fault = if matches!(
            call.signal,
            Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGTRAP | Signal::SIGFPE | Signal::SIGILL
        ) {
            self.fault
        } else {
            FaultRecord::default()
        };
        let cx = FrameContext { mm: &mm, fpu: &fpu, fault };
        if write_frame(self.task, &cx, call, &mut self.regs).is_err() {
            // No room for the frame: SIGSEGV, and death if that was what should be delivered.
            if call.signal == Signal::SIGSEGV {
                self.task.group().sighand().set(Signal::SIGSEGV, abi::siginfo::SigAction::default());
            }
            self.task.force_signal(&SigInfo::kernel(Signal::SIGSEGV));
            return;
        }
        self.task.enter_handler(call);
        tracing_stops::handler_step(&mut self.current());
    }

    /// Asks the task's own seccomp filters.
    fn filter(&mut self, chain: &seccomp::Chain, nr: u64) -> Verdict {
        let narrow = u32::try_from(nr & 0xffff_ffff).unwrap_or(u32::MAX).cast_signed();
        let data = seccomp::Data {
            nr: narrow,
            arch: seccomp::ARCH_X86_64,
            instruction_pointer: self.regs.rip,
            args: self.regs.args(),
        };
        let verdict = chain.run(&data);
        let value = verdict & ret::DATA;
        match verdict & ret::ACTION_FULL {
            ret::ALLOW => Verdict::Go,
            ret::LOG => {
                tracing::info!(task = self.task.tid(), nr, "seccomp: logged");
                Verdict::Go
            }
            ret::ERRNO => {
                self.regs.set_return(-i64::from(value.min(4095)));
                Verdict::Skip
            }
            ret::TRAP => {
                self.regs.rax = self.regs.orig_rax;
                let data = i32::try_from(value).unwrap_or(0);
                let info = SigInfo::seccomp(self.regs.rip, narrow, seccomp::ARCH_X86_64, data);
                self.task.force_signal(&info);
                Verdict::Skip
            }
            ret::TRACE => {
                if self.task.is_traced() && tracing_stops::seccomp_stop(&mut self.current(), value) {
                    if self.regs.syscall_nr() == u64::MAX {
                        return Verdict::Skip;
                    }
                    return Verdict::Go;
                }
                self.regs.set_return(-i64::from(Errno::ENOSYS.raw()));
                Verdict::Skip
            }
            ret::USER_NOTIF => {
                gap!(self.task.kernel(), "seccomp user notification");
                self.regs.set_return(-i64::from(Errno::ENOSYS.raw()));
                Verdict::Skip
            }
            action => {
                let signal = if chain.is_strict() { Signal::SIGKILL } else { Signal::SIGSYS };
                let status = ExitStatus::killed(signal, false);
                let alone = self.task.group().state().lock().live == 1;
                if action == ret::KILL_THREAD && !alone {
                    self.task.end_thread(status);
                } else {
                    self.task.exit_group(status);
                }
                Verdict::Skip
            }
        }
    }
}

enum Verdict {
    Go,
    Skip,
}

/// The page fault's error code as the processor would have pushed it: user mode, and what is known.
fn fault_error(info: &platform::FaultInfo, code: i32) -> u64 {
    let present = u64::from(code == abi::signal::code::SEGV_ACCERR);
    let access = match info.access {
        Some(platform::Access::Write) => 2,
        Some(platform::Access::Exec) => 16,
        _ => 0,
    };
    4 | present | access
}

fn trap_number(s: Signal) -> u64 {
    match s {
        Signal::SIGFPE => 0,
        Signal::SIGTRAP => 1,
        Signal::SIGILL => 6,
        _ => 13,
    }
}

/// The event of a clone for the tracer, by how the child was made.
pub fn clone_event(vfork: bool, exit_signal: u8) -> StopEvent {
    match (vfork, exit_signal) {
        (true, _) => StopEvent::Vfork,
        (false, 17) => StopEvent::Fork,
        (false, _) => StopEvent::Clone,
    }
}
