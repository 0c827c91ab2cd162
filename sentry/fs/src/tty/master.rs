//! The other side of a pseudoterminal: what /dev/ptmx opens (pts(4)).

use super::{PENDING_MAX, Tty};
use crate::devpts::DevptsFs;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::vfs::{Caller, File, FileOps};
use kernel::{SysResult, Task};
use ksync::WaitQueue;
use std::sync::Arc;

/// An open master. The terminal lives as long as it does.
pub struct Master {
    tty: Arc<Tty>,
    instance: Arc<DevptsFs>,
}

impl Master {
    /// The master of a terminal that was just made in an instance of devpts.
    pub fn new(tty: Arc<Tty>, instance: Arc<DevptsFs>) -> Arc<Master> {
        Arc::new(Master { tty, instance })
    }
    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
    /// The file system that its name is in.
    pub fn instance(&self) -> &Arc<DevptsFs> {
        &self.instance
    }
}

impl FileOps for Master {
    fn read(&self, _cx: &Caller<'_>, _f: &File, dst: &mut dyn Sink, _pos: &mut u64) -> Result<usize> {
        let want = dst.remaining();
        if want == 0 {
            return Ok(0);
        }
        let mut out = Vec::new();
        {
            let mut s = self.tty.state.lock();
            if s.packet {
                let status = std::mem::take(&mut s.status);
                if status != 0 {
                    out.push(status);
                } else if s.ldisc.output_len() > 0 {
                    out.push(0);
                    let n = s.ldisc.output_len().min(want - 1);
                    out.extend(s.ldisc.output().drain(..n));
                }
            } else {
                let n = s.ldisc.output_len().min(want);
                out.extend(s.ldisc.output().drain(..n));
            }
            if out.is_empty() {
                return Err(if s.replica_seen && s.replicas == 0 { Errno::EIO } else { Errno::EAGAIN });
            }
        }
        self.tty.replica_wait.wake(PollEvents::WRITABLE.bits());
        let n = dst.put(&out)?;
        if n == 0 { Err(Errno::EFAULT) } else { Ok(n) }
    }

    fn write(&self, _cx: &Caller<'_>, _f: &File, src: &mut dyn Source, _pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        let mut buf = [0; 2048];
        while src.remaining() > 0 {
            let room = self.tty.input_room();
            if room == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let n = src.remaining().min(buf.len()).min(room);
            match src.take(&mut buf[..n]) {
                Ok(0) => break,
                Ok(k) => done += self.tty.input(&buf[..k]),
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn writes_all(&self) -> bool {
        true
    }
    fn seekable(&self) -> bool {
        false
    }

    fn poll(&self, _cx: &Caller<'_>, _f: &File) -> PollEvents {
        let s = self.tty.state.lock();
        let mut events = PollEvents::empty();
        if s.ldisc.output_len() > 0 {
            events |= PollEvents::READABLE;
        }
        if s.packet && s.status != 0 {
            events |= PollEvents::PRI | PollEvents::READABLE;
        }
        if s.pending.len() < PENDING_MAX {
            events |= PollEvents::WRITABLE;
        }
        if s.replica_seen && s.replicas == 0 {
            events |= PollEvents::HUP;
        }
        events
    }

    fn wait_queue(&self, _f: &File) -> Option<Arc<WaitQueue>> {
        Some(Arc::clone(&self.tty.master_wait))
    }

    fn ioctl(&self, task: &Task, f: &File, cmd: u32, arg: u64) -> SysResult {
        self.tty.master_ioctl(self, task, f, cmd, arg)
    }

    fn release(&self, _f: &File) {
        self.instance.remove(self.tty.index);
        self.tty.hang_up();
    }
}
