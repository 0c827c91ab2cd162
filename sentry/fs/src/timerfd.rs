//! timerfd_create(2): a timer to wait for.

use abi::poll::PollEvents;
use abi::time::{Itimerspec, Timespec};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::timer::{Alarm, Clock};
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, File, FileOps};
use kernel::{Kernel, SysResult, Task};
use ksync::WaitQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `TFD_TIMER_ABSTIME`
pub const ABSTIME: u32 = 1;
/// `TFD_TIMER_CANCEL_ON_SET`
pub const CANCEL_ON_SET: u32 = 2;

/// A timerfd.
pub struct TimerFd {
    alarm: Arc<Alarm>,
    clock_id: i32,
    flags: AtomicU32,
}

fn spec((left, interval): (i64, i64)) -> Itimerspec {
    Itimerspec { it_interval: Timespec::from_nanos(interval), it_value: Timespec::from_nanos(left) }
}

impl TimerFd {
    /// A disarmed timer.
    pub fn new(kernel: &Arc<Kernel>, clock: Clock, clock_id: i32) -> Arc<TimerFd> {
        Arc::new(TimerFd { alarm: Alarm::new(kernel, clock), clock_id, flags: AtomicU32::new(0) })
    }

    /// The clock it goes by.
    pub fn clock(&self) -> &Clock {
        self.alarm.clock()
    }

    /// timerfd_settime(2): the old setting. `shift`: by how much the caller's clock is ahead (time_namespaces(7)).
    pub fn set(&self, kernel: &Kernel, flags: u32, new: &Itimerspec, shift: i64) -> Result<Itimerspec> {
        let value = new.it_value.to_nanos_checked()?;
        let interval = new.it_interval.to_nanos_checked()?;
        let at = match value {
            0 => None,
            v if flags & ABSTIME != 0 => Some(v.saturating_sub(shift)),
            v => Some(self.alarm.clock().now(kernel)?.saturating_add(v)),
        };
        self.flags.store(flags, Ordering::Relaxed);
        Ok(spec(self.alarm.set(at, interval)?))
    }

    /// timerfd_gettime(2).
    pub fn get(&self) -> Itimerspec {
        spec(self.alarm.get())
    }
}

impl FileOps for TimerFd {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let ticks = self.alarm.take();
        if ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        if dst.put(&ticks.to_ne_bytes())? < 8 { Err(Errno::EFAULT) } else { Ok(8) }
    }

    fn seekable(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        if self.alarm.is_ready() { PollEvents::IN } else { PollEvents::empty() }
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.alarm.queue))
    }

    fn ioctl(&self, task: &Task, _f: &File, cmd: u32, arg: u64) -> SysResult {
        const TFD_IOC_SET_TICKS: u32 = 0x4008_5400;
        if cmd != TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY.into());
        }
        // Only for checkpoint tools, and only in kernels built for them.
        let _ = UserPtr::<u64>::new(arg).read(&task.mm())?;
        kernel::gap!(task.kernel(), "ioctl TFD_IOC_SET_TICKS");
        Err(Errno::ENOTTY.into())
    }

    fn fdinfo(&self, _f: &File) -> String {
        let s = self.get();
        let pair = |t: Timespec| format!("({}, {})", t.tv_sec, t.tv_nsec);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: {}\nit_interval: {}\n",
            self.clock_id,
            u8::from(self.alarm.is_ready()),
            self.flags.load(Ordering::Relaxed),
            pair(s.it_value),
            pair(s.it_interval)
        )
    }
}
