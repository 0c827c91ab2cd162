//! clone(2), clone3(2), fork(2), vfork(2).

use super::namespace;
use super::pidfd;
use crate::{Current, run, tracing_stops, workers};
use abi::sched::CloneFlags;
use abi::siginfo::SigInfo;
use abi::signal::{Signal, code};
use abi::{Errno, Result};
use kernel::SysResult;
use kernel::mm::TASK_SIZE;
use kernel::task::{CloneArgs, Reason, StopEvent, TraceOptions};
use kernel::uaccess::UserPtr;
use kernel::vfs::FdTable;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Exit signal and flags share clone(2)'s first argument.
const CSIGNAL: u64 = 0xff;

struct Request {
    flags: CloneFlags,
    exit_signal: u8,
    /// 0: the parent's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
    pidfd: u64,
    set_tid: Vec<i32>,
}

pub fn clone(
    t: &mut Current<'_>,
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
) -> SysResult {
    let exit_signal = u8::try_from(flags & CSIGNAL).unwrap_or(0);
    // The high half of the register does not count for clone.
    let flags = CloneFlags::from_bits_retain(flags & 0xffff_ff00);
    if flags.contains(CloneFlags::PIDFD) && flags.contains(CloneFlags::PARENT_SETTID) {
        return Err(Errno::EINVAL.into());
    }
    start(
        t,
        Request {
            flags,
            exit_signal,
            stack,
            parent_tid,
            child_tid,
            tls,
            pidfd: parent_tid,
            set_tid: Vec::new(),
        },
    )
}

pub fn fork(t: &mut Current<'_>) -> SysResult {
    clone(t, u64::from(Signal::SIGCHLD.number()), 0, 0, 0, 0)
}

pub fn vfork(t: &mut Current<'_>) -> SysResult {
    let flags = (CloneFlags::VM | CloneFlags::VFORK).bits();
    clone(t, flags | u64::from(Signal::SIGCHLD.number()), 0, 0, 0, 0)
}

/// `struct clone_args`, all versions.
#[derive(
    Clone, Copy, Default, FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
#[repr(C)]
struct Args3 {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Copies a structure in whose length the caller tells (`copy_struct_from_user`): E2BIG when what we do not know is
/// not zero.
pub fn read_sized<T: FromBytes + zerocopy::IntoBytes + zerocopy::Immutable>(
    t: &Current<'_>,
    addr: u64,
    size: usize,
) -> Result<T> {
    let mm = t.mm();
    let mut value = T::new_zeroed();
    let known = size.min(size_of::<T>());
    mm.copy_in(addr, &mut zerocopy::IntoBytes::as_mut_bytes(&mut value)[..known])?;
    if size > known {
        let mut rest = vec![0; size - known];
        mm.copy_in(addr + known as u64, &mut rest)?;
        if rest.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG);
        }
    }
    Ok(value)
}

pub fn clone3(t: &mut Current<'_>, args: UserPtr<u64>, size: usize) -> SysResult {
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    if size < 64 {
        return Err(Errno::EINVAL.into());
    }
    let a: Args3 = read_sized(t, args.addr(), size)?;
    let flags = CloneFlags::from_bits_retain(a.flags);
    if a.set_tid_size > 32 || (a.set_tid == 0) != (a.set_tid_size == 0) {
        return Err(Errno::EINVAL.into());
    }
    if a.exit_signal > 64 {
        return Err(Errno::EINVAL.into());
    }
    let known = CloneFlags::all();
    if !known.contains(flags)
        || flags.contains(CloneFlags::DETACHED)
        || a.flags & (CSIGNAL & !CloneFlags::NEWTIME.bits()) != 0
        || (flags.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && a.exit_signal != 0)
    {
        return Err(Errno::EINVAL.into());
    }
    if (a.stack == 0) != (a.stack_size == 0)
        || a.stack.checked_add(a.stack_size).is_none_or(|end| end > TASK_SIZE)
    {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloneFlags::INTO_CGROUP) {
        kernel::gap!(t.kernel(), "clone3 CLONE_INTO_CGROUP");
        return Err(Errno::EBADF.into());
    }
    let n = usize::try_from(a.set_tid_size).map_err(|_| Errno::EINVAL)?;
    let set_tid = if n == 0 { Vec::new() } else { UserPtr::<i32>::new(a.set_tid).read_array(&t.mm(), n)? };
    if !set_tid.is_empty() {
        let ns = t.pid_ns();
        if n > ns.level + 1 {
            return Err(Errno::EINVAL.into());
        }
        if !t.creds().has_cap_in(&ns.user_ns, kernel::creds::CapSet::SYS_ADMIN)
            && !t.creds().has_cap_in(&ns.user_ns, kernel::creds::CapSet::CHECKPOINT_RESTORE)
        {
            return Err(Errno::EPERM.into());
        }
    }
    start(
        t,
        Request {
            flags,
            exit_signal: u8::try_from(a.exit_signal).unwrap_or(0),
            stack: a.stack.wrapping_add(a.stack_size),
            parent_tid: a.parent_tid,
            child_tid: a.child_tid,
            tls: a.tls,
            pidfd: a.pidfd,
            set_tid,
        },
    )
}

/// A copy of the caller's descriptor table; EMFILE when fs.nr_open has been lowered below what is open (`dup_fd`).
pub(super) fn copied_files(t: &Current<'_>) -> Result<Arc<FdTable>> {
    /// What every table has room for.
    const ALWAYS: usize = 64;
    let files = t.files();
    let most = usize::try_from(t.kernel().sysctls.get_int("fs/nr_open")).unwrap_or(0).next_multiple_of(64);
    if files.span() > most.max(ALWAYS) {
        return Err(Errno::EMFILE);
    }
    Ok(files.fork())
}

fn start(t: &mut Current<'_>, r: Request) -> SysResult {
    let flags = r.flags;
    let has = |f| flags.contains(f);
    if has(CloneFlags::PIDFD) && has(CloneFlags::DETACHED) {
        return Err(Errno::EINVAL.into());
    }
    if has(CloneFlags::SETTLS) && r.tls >= TASK_SIZE {
        return Err(Errno::EPERM.into());
    }
    kernel::task::check_clone_flags(flags)?;
    if has(CloneFlags::PIDFD) {
        // A bad address is an error before there is a child that somebody could wait for.
        UserPtr::<i32>::new(r.pidfd).write(&t.mm(), &-1)?;
    }
    let vfork = has(CloneFlags::VFORK);
    let (creds, namespaces, fs) = namespace::for_child(t, flags)?;
    let mm = if has(CloneFlags::VM) {
        t.mm()
    } else {
        let mm = t.mm();
        mm.expect_write(t.regs.rsp);
        let alone = t.group().state().lock().live == 1;
        let copy = mm.fork_with(alone)?;
        if !Arc::ptr_eq(&namespaces.time, &t.namespaces().time) {
            crate::loader::fit_vdso(&copy, t.kernel(), namespaces.time.is_shifted());
        }
        copy
    };
    let files = if has(CloneFlags::FILES) { t.files() } else { copied_files(t)? };
    let child = t.task.clone_task(CloneArgs {
        flags,
        exit_signal: r.exit_signal,
        set_tid: r.set_tid,
        child_tid: r.child_tid,
        mm,
        fs,
        files,
        creds,
        namespaces,
    })?;
    let tid = child.tid_in(&t.pid_ns());
    let undo = |e: Errno| {
        child.exit(kernel::task::ExitStatus::killed(Signal::SIGKILL, false));
        e
    };
    if has(CloneFlags::PIDFD) {
        let fd = pidfd::open_for(t, &child, has(CloneFlags::THREAD), false).map_err(undo)?;
        let mm = t.mm();
        UserPtr::<i32>::new(r.pidfd).write(&mm, &fd).map_err(undo)?;
    }
    if has(CloneFlags::PARENT_SETTID) {
        // Linux ignores a bad address here.
        let _ = UserPtr::<i32>::new(r.parent_tid).write(&t.mm(), &tid);
    }
    if has(CloneFlags::CHILD_SETTID) {
        let _ = UserPtr::<i32>::new(r.child_tid).write(&child.mm(), &child.own_tid());
    }
    let mut regs = *t.regs;
    regs.set_return(0);
    regs.orig_rax = u64::MAX;
    regs.set_single_step(false);
    if r.stack != 0 {
        regs.rsp = r.stack;
    }
    if has(CloneFlags::SETTLS) {
        regs.fs_base = r.tls;
    }
    let fpu = t.context.fpu().ok();
    let event = trace_child(t, &child, flags, r.exit_signal);
    workers::spawn(&child, regs, fpu)?;
    if let Some(event) = event {
        let seen = t.tracer().map_or(0, |tr| child.tid_in(&tr.pid_ns()));
        tracing_stops::event_stop(t, event, u64::from(seen.unsigned_abs()));
    }
    if vfork {
        t.wait_vfork(&child);
        let seen = t.tracer().map_or(0, |tr| child.tid_in(&tr.pid_ns()));
        tracing_stops::event_stop(t, StopEvent::VforkDone, u64::from(seen.unsigned_abs()));
    }
    Ok(u64::from(tid.unsigned_abs()))
}

/// A tracer may follow its tracee's children. The event to report.
fn trace_child(
    t: &Current<'_>,
    child: &Arc<kernel::Task>,
    flags: CloneFlags,
    exit_signal: u8,
) -> Option<StopEvent> {
    let (tracer, options, seized) = {
        let sig = t.signals().lock();
        let trace = sig.trace.as_ref()?;
        (trace.tracer.upgrade()?, trace.options, trace.seized)
    };
    let event = run::clone_event(flags.contains(CloneFlags::VFORK), exit_signal);
    let wanted = match event {
        StopEvent::Vfork => TraceOptions::VFORK,
        StopEvent::Fork => TraceOptions::FORK,
        _ => TraceOptions::CLONE,
    };
    let report = options.contains(wanted) && !flags.contains(CloneFlags::UNTRACED);
    if report || flags.contains(CloneFlags::PTRACE) {
        child.set_tracer(&tracer, seized, options);
        if seized {
            child.raise(Reason::Trap);
        } else {
            child.send_signal(&SigInfo::user(Signal::SIGSTOP, code::SI_USER, 0, 0));
        }
    }
    report.then_some(event)
}
