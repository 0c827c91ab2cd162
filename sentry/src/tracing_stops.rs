//! The stops of a traced task (ptrace(2)): where in the task loop they are, and what the tracer's answers
//! do to the registers.

use crate::Current;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use kernel::Task;
use kernel::task::{AfterStop, ExitStatus, Reason, Resume, StopEvent, TraceOptions};
use platform::{Context, FpuState, Registers};
use std::sync::Arc;

/// Stops and takes over what the tracer changed.
fn stop(
    task: &Arc<Task>,
    regs: &mut Registers,
    context: &mut dyn Context,
    event: StopEvent,
    info: SigInfo,
    at_entry: bool,
) -> Option<AfterStop> {
    let fpu = context.fpu().unwrap_or_else(|_| FpuState::initial());
    let after = task.trace_stop(event, info, at_entry, *regs, fpu)?;
    if let Some(new) = after.registers {
        *regs = new;
        regs.sanitize();
    }
    if let Some(new) = &after.fpu
        && let Err(error) = context.set_fpu(new)
    {
        tracing::warn!("floating-point state from a tracer: {error}");
    }
    let step = resume(task) == Some(Resume::Step);
    regs.set_single_step(step);
    Some(after)
}

fn resume(task: &Task) -> Option<Resume> {
    task.signals().lock().trace.as_ref().map(|t| t.resume)
}

fn options(task: &Task) -> TraceOptions {
    task.signals().lock().trace.as_ref().map_or(TraceOptions::empty(), |t| t.options)
}

fn trap_info(task: &Task, signo: i32, si_code: i32) -> SigInfo {
    let mut info = SigInfo::new(Signal::SIGTRAP, si_code);
    info.signo = signo;
    info.set_sender(task.own_tid(), task.creds().uid);
    info
}

fn syscall_signo(task: &Task) -> i32 {
    let trap = i32::from(Signal::SIGTRAP.number());
    if options(task).contains(TraceOptions::SYSGOOD) { trap | 0x80 } else { trap }
}

/// After a stop the tracer may want a signal delivered.
fn inject(task: &Task, after: &AfterStop) {
    if let Some(s) = Signal::new(after.inject) {
        task.send_signal(&SigInfo::user(s, code::SI_USER, task.own_tid(), task.creds().uid));
    }
}

/// At the entry of a call. `false`: the call is not to be made.
pub fn syscall_entry(t: &mut Current<'_>) -> bool {
    let Some(how) = resume(t.task) else {
        return true;
    };
    if !matches!(how, Resume::Syscall | Resume::Emulate) {
        return true;
    }
    let signo = syscall_signo(t.task);
    let info = trap_info(t.task, signo, signo);
    if let Some(after) = stop(t.task, t.regs, t.context, StopEvent::Signal, info, true)
        && after.inject & 0x80 == 0
        && after.inject != i32::from(Signal::SIGTRAP.number())
    {
        inject(t.task, &after);
    }
    how != Resume::Emulate && !t.task.is_dying()
}

/// After a call.
pub fn syscall_exit(t: &mut Current<'_>) {
    let how = resume(t.task);
    if how == Some(Resume::Step) {
        // A step over a system call ends behind it.
        let info = trap_info(t.task, i32::from(Signal::SIGTRAP.number()), code::TRAP_TRACE);
        t.task.force_signal(&info);
        return;
    }
    if how != Some(Resume::Syscall) {
        return;
    }
    let signo = syscall_signo(t.task);
    let info = trap_info(t.task, signo, signo);
    if let Some(after) = stop(t.task, t.regs, t.context, StopEvent::Signal, info, false)
        && after.inject & 0x80 == 0
        && after.inject != i32::from(Signal::SIGTRAP.number())
    {
        inject(t.task, &after);
    }
}

/// Before a signal is delivered: what the tracer made of it.
pub fn signal_stop(t: &mut Current<'_>, info: SigInfo) -> Option<SigInfo> {
    let after = match stop(t.task, t.regs, t.context, StopEvent::Signal, info, false) {
        Some(a) => a,
        // Nobody traces any more: the signal goes on as it is.
        None => return (!t.task.is_dying()).then_some(info),
    };
    let signal = Signal::new(after.inject)?;
    let mut info = after.info;
    if info.signo != i32::from(signal.number()) {
        info = SigInfo::user(signal, code::SI_USER, t.task.own_tid(), t.task.creds().uid);
    }
    // A signal that the tracer chose and the task blocks waits like any other.
    if t.task.blocked().contains(signal) {
        t.task.send_signal(&info);
        return None;
    }
    Some(info)
}

/// PTRACE_INTERRUPT, or the first stop of a new tracee.
pub fn trap_stop(t: &mut Current<'_>) {
    t.task.look().clear(Reason::Trap);
    let seized = t.task.signals().lock().trace.as_ref().map(|x| x.seized);
    match seized {
        Some(true) => {
            let info = trap_info(
                t.task,
                i32::from(Signal::SIGTRAP.number()),
                i32::from(Signal::SIGTRAP.number()) | (StopEvent::Stop as i32) << 8,
            );
            if let Some(a) = stop(t.task, t.regs, t.context, StopEvent::Stop, info, false)
                && a.inject != info.signo
            {
                inject(t.task, &a);
            }
        }
        Some(false) | None => {}
    }
}

/// The process stops and this thread is traced: the tracer is told instead of the parent. `false`: not traced.
pub fn group_stop(t: &mut Current<'_>) -> bool {
    let seized = t.task.signals().lock().trace.as_ref().map(|x| x.seized);
    let Some(seized) = seized else {
        return false;
    };
    let signal = match t.task.group().state().lock().stop {
        kernel::task::StopState::Stopping(s) | kernel::task::StopState::Stopped(s) => s,
        kernel::task::StopState::Running => {
            t.task.look().clear(Reason::Stop);
            return true;
        }
    };
    t.task.look().clear(Reason::Stop);
    let mut info = SigInfo::new(signal, 0);
    let event = if seized {
        info.code = i32::from(signal.number()) | (StopEvent::Stop as i32) << 8;
        StopEvent::Stop
    } else {
        StopEvent::Signal
    };
    let _ = stop(t.task, t.regs, t.context, event, info, false);
    true
}

/// An event that the tracer asked for: fork, exec and kin. The message is what PTRACE_GETEVENTMSG gives.
pub fn event_stop(t: &mut Current<'_>, event: StopEvent, message: u64) {
    let wanted = match event {
        StopEvent::Fork => TraceOptions::FORK,
        StopEvent::Vfork => TraceOptions::VFORK,
        StopEvent::Clone => TraceOptions::CLONE,
        StopEvent::Exec => TraceOptions::EXEC,
        StopEvent::VforkDone => TraceOptions::VFORK_DONE,
        StopEvent::Exit => TraceOptions::EXIT,
        StopEvent::Seccomp => TraceOptions::SECCOMP,
        StopEvent::Signal | StopEvent::Stop => return,
    };
    if !options(t.task).contains(wanted) {
        return;
    }
    set_message(t.task, message);
    let trap = i32::from(Signal::SIGTRAP.number());
    let info = trap_info(t.task, trap, trap | (event as i32) << 8);
    if let Some(a) = stop(t.task, t.regs, t.context, event, info, false)
        && a.inject != trap
    {
        inject(t.task, &a);
    }
}

/// `SECCOMP_RET_TRACE`. `false`: the tracer does not want it.
pub fn seccomp_stop(t: &mut Current<'_>, data: u32) -> bool {
    if !options(t.task).contains(TraceOptions::SECCOMP) {
        return false;
    }
    event_stop(t, StopEvent::Seccomp, u64::from(data));
    true
}

/// `PTRACE_EVENT_EXIT`.
pub fn exit_stop(task: &Arc<Task>, regs: &mut Registers, context: &mut dyn Context, status: ExitStatus) {
    if options(task).contains(TraceOptions::EXIT) && !task.is_dying_at_once() {
        let mut t = Current { task, regs, context };
        event_stop(&mut t, StopEvent::Exit, u64::from(status.0.unsigned_abs()));
    }
}

/// A single step into a handler ends at its first instruction.
pub fn handler_step(t: &mut Current<'_>) {
    if resume(t.task) == Some(Resume::Step) {
        let info = trap_info(t.task, i32::from(Signal::SIGTRAP.number()), code::TRAP_TRACE);
        t.task.force_signal(&info);
    }
}

/// execve of a task whose tracer did not ask for the event gets a plain SIGTRAP.
pub fn exec_stop(t: &mut Current<'_>, old_tid: i32) {
    let seized = t.task.signals().lock().trace.as_ref().map(|x| x.seized);
    if options(t.task).contains(TraceOptions::EXEC) {
        event_stop(t, StopEvent::Exec, u64::from(old_tid.unsigned_abs()));
    } else if seized == Some(false) {
        t.task.send_signal(&SigInfo::user(
            Signal::SIGTRAP,
            code::SI_USER,
            t.task.own_tid(),
            t.task.creds().uid,
        ));
    }
}

fn set_message(task: &Task, message: u64) {
    if let Some(trace) = task.signals().lock().trace.as_mut() {
        trace.event_message = message;
    }
}
