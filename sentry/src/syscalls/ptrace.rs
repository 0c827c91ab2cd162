//! ptrace(2).

use crate::Current;
use abi::siginfo::SigInfo;
use abi::signal::{SigSet, Signal, code};
use abi::{Errno, Result};
use kernel::task::{Reason, Resume, TraceOptions, TraceStop};
use kernel::uaccess::UserPtr;
use kernel::{SysResult, Task, gap};
use platform::{FpuState, Registers};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Requests of ptrace(2).
mod req {
    pub const TRACEME: i64 = 0;
    pub const PEEKTEXT: i64 = 1;
    pub const PEEKDATA: i64 = 2;
    pub const PEEKUSER: i64 = 3;
    pub const POKETEXT: i64 = 4;
    pub const POKEDATA: i64 = 5;
    pub const POKEUSER: i64 = 6;
    pub const CONT: i64 = 7;
    pub const KILL: i64 = 8;
    pub const SINGLESTEP: i64 = 9;
    pub const GETREGS: i64 = 12;
    pub const SETREGS: i64 = 13;
    pub const GETFPREGS: i64 = 14;
    pub const SETFPREGS: i64 = 15;
    pub const ATTACH: i64 = 16;
    pub const DETACH: i64 = 17;
    pub const SYSCALL: i64 = 24;
    pub const SYSEMU: i64 = 31;
    pub const SYSEMU_SINGLESTEP: i64 = 32;
    pub const SETOPTIONS: i64 = 0x4200;
    pub const GETEVENTMSG: i64 = 0x4201;
    pub const GETSIGINFO: i64 = 0x4202;
    pub const SETSIGINFO: i64 = 0x4203;
    pub const GETREGSET: i64 = 0x4204;
    pub const SETREGSET: i64 = 0x4205;
    pub const SEIZE: i64 = 0x4206;
    pub const INTERRUPT: i64 = 0x4207;
    pub const LISTEN: i64 = 0x4208;
    pub const PEEKSIGINFO: i64 = 0x4209;
    pub const GETSIGMASK: i64 = 0x420a;
    pub const SETSIGMASK: i64 = 0x420b;
    pub const GET_SYSCALL_INFO: i64 = 0x420e;
}

const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
const FXSAVE: usize = 512;
/// `offsetof(struct user, u_debugreg)` and the end of `struct user`.
const DEBUG_REGS: u64 = 848;
const USER_END: u64 = 912;

/// The registers as the words of `struct user_regs_struct`.
fn words(r: &Registers) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
        r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs, r.gs,
    ]
}

fn from_words(w: &[u64; 27]) -> Registers {
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    ] = *w;
    let mut r = Registers {
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    };
    r.sanitize();
    r
}

/// A tracee of the caller; ESRCH otherwise.
fn tracee(t: &Current<'_>, pid: i32) -> Result<Arc<Task>> {
    let task = t.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    if task.tracer().is_some_and(|x| Arc::ptr_eq(&x, t.task)) { Ok(task) } else { Err(Errno::ESRCH) }
}

/// Works on the stop of a tracee; ESRCH when it is in none.
fn with_stop<R>(task: &Task, f: impl FnOnce(&mut TraceStop) -> Result<R>) -> Result<R> {
    let mut sig = task.signals().lock();
    let stop = sig.trace.as_mut().and_then(|x| x.stop.as_mut()).filter(|s| !s.resumed);
    f(stop.ok_or(Errno::ESRCH)?)
}

fn parse_options(raw: u64) -> Result<TraceOptions> {
    let bits = u32::try_from(raw).map_err(|_| Errno::EINVAL)?;
    TraceOptions::from_bits(bits).ok_or(Errno::EINVAL)
}

pub fn ptrace(t: &mut Current<'_>, request: i64, pid: i32, addr: u64, data: u64) -> SysResult {
    match request {
        req::TRACEME => return traceme(t),
        req::ATTACH | req::SEIZE => return attach(t, request == req::SEIZE, pid, addr, data),
        _ => {}
    }
    let task = tracee(t, pid)?;
    let mm = t.mm();
    match request {
        req::KILL => {
            if with_stop(&task, |_| Ok(())).is_ok() {
                task.send_signal(&SigInfo::kernel(Signal::SIGKILL));
            }
            return Ok(0);
        }
        req::INTERRUPT => {
            let seized = task.signals().lock().trace.as_mut().is_some_and(|x| x.seized);
            if !seized {
                return Err(Errno::EIO.into());
            }
            task.raise(Reason::Trap);
            return Ok(0);
        }
        _ => {}
    }
    // Everything else wants a stopped tracee.
    with_stop(&task, |_| Ok(()))?;
    match request {
        req::PEEKTEXT | req::PEEKDATA => {
            let theirs = task.try_mm().ok_or(Errno::ESRCH)?;
            let mut word = [0u8; 8];
            if theirs.copy_in_forced(addr, &mut word) < 8 {
                return Err(Errno::EIO.into());
            }
            UserPtr::<[u8; 8]>::new(data).write(&mm, &word)?;
        }
        req::POKETEXT | req::POKEDATA => {
            let theirs = task.try_mm().ok_or(Errno::ESRCH)?;
            if theirs.copy_out_forced(addr, &data.to_ne_bytes()) < 8 {
                return Err(Errno::EIO.into());
            }
        }
        req::PEEKUSER => {
            if addr % 8 != 0 || addr >= USER_END {
                return Err(Errno::EIO.into());
            }
            let regs = with_stop(&task, |s| Ok(s.registers))?;
            let index = usize::try_from(addr / 8).map_err(|_| Errno::EIO)?;
            let word = words(&regs).get(index).copied().unwrap_or(0);
            UserPtr::<u64>::new(data).write(&mm, &word)?;
        }
        req::POKEUSER => {
            if addr % 8 != 0 || addr >= USER_END {
                return Err(Errno::EIO.into());
            }
            let index = usize::try_from(addr / 8).map_err(|_| Errno::EIO)?;
            if index < 27 {
                with_stop(&task, |s| {
                    let mut w = words(&s.registers);
                    w[index] = data;
                    s.registers = from_words(&w);
                    s.registers_changed = true;
                    Ok(())
                })?;
            } else if addr >= DEBUG_REGS && data != 0 {
                gap!(t.kernel(), "ptrace: hardware breakpoints");
                return Err(Errno::EINVAL.into());
            }
        }
        req::GETREGS => {
            let regs = with_stop(&task, |s| Ok(s.registers))?;
            UserPtr::<[u64; 27]>::new(data).write(&mm, &words(&regs))?;
        }
        req::SETREGS => {
            let w = UserPtr::<[u64; 27]>::new(data).read(&mm)?;
            set_registers(&task, &w)?;
        }
        req::GETFPREGS => {
            let image = with_stop(&task, |s| Ok(s.fpu.as_bytes()[..FXSAVE].to_vec()))?;
            mm.copy_out(data, &image)?;
        }
        req::SETFPREGS => {
            let mut image = vec![0; FXSAVE];
            mm.copy_in(data, &mut image)?;
            set_fpu(&task, &image)?;
        }
        req::GETREGSET | req::SETREGSET => return regset(t, &task, request == req::SETREGSET, addr, data),
        req::SETOPTIONS => {
            let options = parse_options(data)?;
            if let Some(x) = task.signals().lock().trace.as_mut() {
                x.options = options;
            }
        }
        req::GETEVENTMSG => {
            let message = task.signals().lock().trace.as_ref().map_or(0, |x| x.event_message);
            UserPtr::<u64>::new(data).write(&mm, &message)?;
        }
        req::GETSIGINFO => {
            let info = with_stop(&task, |s| Ok(s.info))?;
            UserPtr::<SigInfo>::new(data).write(&mm, &info)?;
        }
        req::SETSIGINFO => {
            let info = UserPtr::<SigInfo>::new(data).read(&mm)?;
            with_stop(&task, |s| {
                s.info = info;
                Ok(())
            })?;
        }
        req::PEEKSIGINFO => return peek_siginfo(t, &task, addr, data),
        req::GETSIGMASK => {
            if addr != 8 {
                return Err(Errno::EINVAL.into());
            }
            UserPtr::<u64>::new(data).write(&mm, &task.blocked().0)?;
        }
        req::SETSIGMASK => {
            if addr != 8 {
                return Err(Errno::EINVAL.into());
            }
            let set = UserPtr::<u64>::new(data).read(&mm)?;
            task.set_blocked(SigSet(set));
        }
        req::GET_SYSCALL_INFO => return syscall_info(t, &task, addr, data),
        req::CONT => resume(&task, Resume::Run, data)?,
        req::SYSCALL => resume(&task, Resume::Syscall, data)?,
        req::SINGLESTEP => resume(&task, Resume::Step, data)?,
        req::SYSEMU => resume(&task, Resume::Emulate, data)?,
        req::SYSEMU_SINGLESTEP => {
            gap!(t.kernel(), "ptrace PTRACE_SYSEMU_SINGLESTEP");
            return Err(Errno::EIO.into());
        }
        req::LISTEN => {
            // The task stays stopped; SIGCONT makes it report again.
            let seized = task.signals().lock().trace.as_ref().is_some_and(|x| x.seized);
            if !seized {
                return Err(Errno::EIO.into());
            }
            if let Some(x) = task.signals().lock().trace.as_mut() {
                x.resume = Resume::Listen;
            }
        }
        req::DETACH => {
            if data > 64 {
                return Err(Errno::EIO.into());
            }
            let signal = i32::try_from(data).unwrap_or(0);
            with_stop(&task, |s| {
                s.registers.set_single_step(false);
                s.registers_changed = true;
                Ok(())
            })?;
            if let Some(x) = task.signals().lock().trace.as_mut() {
                x.resume = Resume::Run;
            }
            task.end_trace(signal);
        }
        _ => {
            gap!(t.kernel(), "ptrace request", request.unsigned_abs());
            return Err(Errno::EIO.into());
        }
    }
    Ok(0)
}

fn traceme(t: &mut Current<'_>) -> SysResult {
    let parent = t.group().parent().and_then(|p| p.live_thread()).ok_or(Errno::EPERM)?;
    if !t.task.set_tracer(&parent, false, TraceOptions::empty()) {
        return Err(Errno::EPERM.into());
    }
    Ok(0)
}

fn attach(t: &mut Current<'_>, seize: bool, pid: i32, addr: u64, data: u64) -> SysResult {
    let options = if seize {
        if addr != 0 {
            return Err(Errno::EIO.into());
        }
        parse_options(data).map_err(|_| Errno::EIO)?
    } else {
        TraceOptions::empty()
    };
    let task = t.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    if Arc::ptr_eq(task.group(), t.group()) || !t.may_trace(&task) || task.has_exited() {
        return Err(Errno::EPERM.into());
    }
    if !task.set_tracer(t.task, seize, options) {
        return Err(Errno::EPERM.into());
    }
    if !seize {
        task.send_signal(&SigInfo::user(Signal::SIGSTOP, code::SI_USER, t.own_tid(), t.creds().uid));
    }
    // A task that job control has stopped stops for the tracer now.
    task.kick();
    Ok(0)
}

fn resume(task: &Task, how: Resume, signal: u64) -> Result<()> {
    if signal > 64 {
        return Err(Errno::EIO);
    }
    {
        let mut sig = task.signals().lock();
        let trace = sig.trace.as_mut().ok_or(Errno::ESRCH)?;
        let stop = trace.stop.as_mut().filter(|s| !s.resumed).ok_or(Errno::ESRCH)?;
        stop.inject = i32::try_from(signal).unwrap_or(0);
        stop.resumed = true;
        trace.resume = how;
    }
    task.kick();
    Ok(())
}

fn set_registers(task: &Task, w: &[u64; 27]) -> Result<()> {
    with_stop(task, |s| {
        s.registers = from_words(w);
        s.registers_changed = true;
        Ok(())
    })
}

fn set_fpu(task: &Task, image: &[u8]) -> Result<()> {
    let new = FpuState::from_guest(image).map_err(|_| Errno::EINVAL)?;
    with_stop(task, |s| {
        s.fpu = new;
        s.fpu_changed = true;
        Ok(())
    })
}

fn regset(t: &Current<'_>, task: &Task, set: bool, kind: u64, iov: u64) -> SysResult {
    let mm = t.mm();
    let at = UserPtr::<[u64; 2]>::new(iov);
    let [base, len] = at.read(&mm)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let full: Vec<u8> = match kind {
        NT_PRSTATUS => words(&with_stop(task, |s| Ok(s.registers))?).as_bytes().to_vec(),
        NT_PRFPREG => with_stop(task, |s| Ok(s.fpu.as_bytes()[..FXSAVE].to_vec()))?,
        NT_X86_XSTATE => with_stop(task, |s| Ok(s.fpu.as_bytes().to_vec()))?,
        _ => return Err(Errno::EINVAL.into()),
    };
    if kind == NT_PRSTATUS && len % 8 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let n = len.min(full.len());
    if set {
        let mut image = full;
        mm.copy_in(base, &mut image[..n])?;
        if kind == NT_PRSTATUS {
            let w: [u64; 27] =
                std::array::from_fn(|i| u64::from_ne_bytes(std::array::from_fn(|k| image[i * 8 + k])));
            set_registers(task, &w)?;
        } else {
            set_fpu(task, &image)?;
        }
    } else {
        mm.copy_out(base, &full[..n])?;
    }
    at.write(&mm, &[base, n as u64])?;
    Ok(0)
}

fn peek_siginfo(t: &Current<'_>, task: &Task, args: u64, out: u64) -> SysResult {
    const SHARED: u32 = 1;
    let mm = t.mm();
    let off = UserPtr::<u64>::new(args).read(&mm)?;
    let [flags, count] = UserPtr::<[u32; 2]>::new(args.wrapping_add(8)).read(&mm)?;
    let count = count.cast_signed();
    if flags & !SHARED != 0 || count < 0 {
        return Err(Errno::EINVAL.into());
    }
    let all: Vec<SigInfo> = if flags & SHARED != 0 {
        task.group().state().lock().pending.entries().map(|q| q.info).collect()
    } else {
        task.signals().lock().pending.entries().map(|q| q.info).collect()
    };
    let skip = usize::try_from(off).unwrap_or(usize::MAX);
    let take = usize::try_from(count).unwrap_or(0);
    let part: Vec<SigInfo> = all.into_iter().skip(skip).take(take).collect();
    UserPtr::new(out).write_array(&mm, &part)?;
    Ok(part.len() as u64)
}

/// `struct ptrace_syscall_info`.
fn syscall_info(t: &Current<'_>, task: &Task, size: u64, out: u64) -> SysResult {
    const ARCH: u32 = kernel::seccomp::ARCH_X86_64;
    let (regs, op) = with_stop(task, |s| {
        let trap = i32::from(Signal::SIGTRAP.number());
        let is_call = s.code & !0x80 == trap && (s.info.code == trap | 0x80 || s.info.code == trap);
        let op: u8 = match (is_call, s.at_entry) {
            (true, true) => 1,
            (true, false) => 2,
            (false, _) if s.code >> 8 == 7 => 3,
            _ => 0,
        };
        Ok((s.registers, op))
    })?;
    let mut b = vec![0u8; 88];
    b[0] = op;
    b[4..8].copy_from_slice(&ARCH.to_ne_bytes());
    b[8..16].copy_from_slice(&regs.rip.to_ne_bytes());
    b[16..24].copy_from_slice(&regs.rsp.to_ne_bytes());
    let len = match op {
        1 | 3 => {
            b[24..32].copy_from_slice(&regs.orig_rax.to_ne_bytes());
            for (i, a) in regs.args().iter().enumerate() {
                b[32 + i * 8..40 + i * 8].copy_from_slice(&a.to_ne_bytes());
            }
            if op == 3 { 88 } else { 80 }
        }
        2 => {
            b[24..32].copy_from_slice(&regs.rax.to_ne_bytes());
            b[32] = u8::from((-4095..0).contains(&regs.rax.cast_signed()));
            33
        }
        _ => 24,
    };
    let n = usize::try_from(size).unwrap_or(usize::MAX).min(len);
    t.mm().copy_out(out, &b[..n])?;
    Ok(len as u64)
}
