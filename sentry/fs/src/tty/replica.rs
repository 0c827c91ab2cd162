//! The terminal side of a pseudoterminal: what /dev/pts/N and /dev/tty open.

use super::jobs::Background;
use super::{News, OUTPUT_MAX, Tty};
use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::termios::{cc, lflag};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::io::{Sink, Source};
use kernel::vfs::{Caller, File, FileOps};
use kernel::{SysResult, Task};
use ksync::WaitQueue;
use std::sync::Arc;

/// An open replica.
pub struct Replica {
    tty: Arc<Tty>,
}

impl Replica {
    /// Opens the terminal; makes it the controlling one of a session leader without one.
    pub fn open(tty: &Arc<Tty>, cx: &Caller<'_>, flags: OpenFlags) -> Result<Arc<Replica>> {
        tty.open_replica(cx.creds.has_cap(CapSet::SYS_ADMIN))?;
        if !flags.contains(OpenFlags::NOCTTY)
            && flags.can_read()
            && let Some(task) = cx.task
        {
            tty.opened_by(task);
        }
        Ok(Arc::new(Replica { tty: Arc::clone(tty) }))
    }

    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

impl FileOps for Replica {
    fn read(&self, cx: &Caller<'_>, f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        if self.tty.state.lock().hung_up {
            return Ok(0);
        }
        if let Some(task) = cx.task {
            match self.tty.background(task, Signal::SIGTTIN) {
                Background::Allowed => {}
                Background::Orphaned => return Err(Errno::EIO),
                Background::Stopped => return Err(Errno::EAGAIN),
            }
        }
        let want = dst.remaining();
        if want == 0 {
            return Ok(0);
        }
        let mut news = News::default();
        let got = {
            let mut s = self.tty.state.lock();
            if s.hung_up {
                return Ok(0);
            }
            let t = &s.ldisc.termios;
            let (raw, min, time) = (t.lflag & lflag::ICANON == 0, t.cc[cc::VMIN], t.cc[cc::VTIME]);
            // Without blocking whatever there is is enough.
            let need = if time == 0 && !f.nonblocking() { usize::from(min).min(want).max(1) } else { 1 };
            let got = if s.ldisc.ready(need) { s.ldisc.read(want) } else { None };
            match got {
                None if raw && min == 0 && time == 0 => return Ok(0),
                None => return Err(Errno::EAGAIN),
                Some(data) => {
                    s.pump(&mut news);
                    data
                }
            }
        };
        news.master |= PollEvents::WRITABLE;
        self.tty.tell(news);
        if got.is_empty() {
            return Ok(0);
        }
        let n = dst.put(&got)?;
        if n < got.len() && n == 0 { Err(Errno::EFAULT) } else { Ok(n) }
    }

    fn write(&self, cx: &Caller<'_>, _f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        let stops = {
            let s = self.tty.state.lock();
            if s.hung_up {
                return Err(Errno::EIO);
            }
            s.ldisc.termios.lflag & lflag::TOSTOP != 0
        };
        if stops && let Some(task) = cx.task {
            match self.tty.background(task, Signal::SIGTTOU) {
                Background::Allowed => {}
                Background::Orphaned => return Err(Errno::EIO),
                Background::Stopped => return Err(Errno::EAGAIN),
            }
        }
        let mut done = 0;
        let mut error = None;
        let mut buf = [0; 2048];
        while src.remaining() > 0 {
            let room = {
                let s = self.tty.state.lock();
                if s.hung_up {
                    error = Some(Errno::EIO);
                    break;
                }
                if s.ldisc.stopped { 0 } else { OUTPUT_MAX.saturating_sub(s.ldisc.output_len()) }
            };
            if room == 0 {
                error = Some(Errno::EAGAIN);
                break;
            }
            let n = src.remaining().min(buf.len()).min(room);
            match src.take(&mut buf[..n]) {
                Ok(0) => break,
                Ok(k) => {
                    self.tty.state.lock().ldisc.write(&buf[..k]);
                    done += k;
                }
                Err(e) => {
                    error = Some(e);
                    break;
                }
            }
        }
        if done > 0 {
            self.tty.master_wait.wake(PollEvents::READABLE.bits());
            return Ok(done);
        }
        error.map_or(Ok(0), Err)
    }

    fn writes_all(&self) -> bool {
        true
    }
    fn seekable(&self) -> bool {
        false
    }

    fn read_timeout(&self, _f: &File) -> Option<i64> {
        let s = self.tty.state.lock();
        let t = &s.ldisc.termios;
        let (min, time) = (t.cc[cc::VMIN], t.cc[cc::VTIME]);
        // With MIN the clock starts at the first byte, and one byte is enough for us then.
        (t.lflag & lflag::ICANON == 0 && min == 0 && time > 0).then(|| i64::from(time) * 100_000_000)
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let s = self.tty.state.lock();
        if s.hung_up {
            return PollEvents::ALWAYS | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        if s.ldisc.ready(s.poll_minimum()) {
            events |= PollEvents::READABLE;
        }
        if !s.ldisc.stopped && s.ldisc.output_len() < OUTPUT_MAX {
            events |= PollEvents::WRITABLE;
        }
        events
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.tty.replica_wait))
    }

    fn ioctl(&self, task: &Task, f: &File, cmd: u32, arg: u64) -> SysResult {
        if self.tty.state.lock().hung_up {
            return Err(if cmd == abi::termios::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO }.into());
        }
        self.tty.replica_ioctl(task, f, cmd, arg)
    }

    fn release(&self, _f: &File) {
        self.tty.close_replica();
    }
}
