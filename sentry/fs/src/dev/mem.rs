//! /dev/null, /dev/zero, /dev/full, /dev/random, /dev/urandom (mem(4), null(4), random(4)).

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use kernel::io::{Sink, Source};
use kernel::mm::{Mappable, SharedMemory};
use kernel::uaccess::UserPtr;
use kernel::vfs::{Caller, DeviceDriver, File, FileOps, Opened, Path, SeekFrom};
use kernel::{SysError, SysResult, Task};
use platform::MemoryFile;
use platform::hostsys::rand;
use std::sync::Arc;

/// The driver of major number 1.
pub struct Driver {
    memfile: Arc<MemoryFile>,
}

impl Driver {
    /// `memfile`: where mappings of /dev/zero get their memory.
    pub fn new(memfile: &Arc<MemoryFile>) -> Driver {
        Driver { memfile: Arc::clone(memfile) }
    }
}

impl DeviceDriver for Driver {
    fn open(
        &self,
        _: &Caller<'_>,
        _: &Path,
        minor: u32,
        _: OpenFlags,
    ) -> std::result::Result<Opened, SysError> {
        let ops: Arc<dyn FileOps> = match minor {
            3 => Arc::new(Null),
            5 => Arc::new(Zero { memfile: Arc::clone(&self.memfile) }),
            7 => Arc::new(Full),
            8 | 9 => Arc::new(Random),
            _ => return Err(Errno::ENXIO.into()),
        };
        Ok(Opened::Ops(ops))
    }
}

/// Says that everything was taken without looking at it.
fn swallow(src: &mut dyn Source) -> usize {
    src.remaining()
}

fn zeros(dst: &mut dyn Sink) -> Result<usize> {
    let want = dst.remaining();
    dst.put_zeros(want)
}

struct Null;

impl FileOps for Null {
    fn read(&self, _: &Caller<'_>, _: &File, _: &mut dyn Sink, _: &mut u64) -> Result<usize> {
        Ok(0)
    }
    fn write(&self, _: &Caller<'_>, _: &File, src: &mut dyn Source, _: &mut u64) -> Result<usize> {
        Ok(swallow(src))
    }
    fn seek(&self, _: &Caller<'_>, _: &File, _: u64, _: SeekFrom) -> Result<u64> {
        Ok(0)
    }
}

struct Zero {
    memfile: Arc<MemoryFile>,
}

/// How much of /dev/zero can be mapped: whatever an address space can hold. Pages exist where they are used.
const ZERO_SIZE: u64 = 1 << 62;

impl FileOps for Zero {
    fn read(&self, _: &Caller<'_>, _: &File, dst: &mut dyn Sink, _: &mut u64) -> Result<usize> {
        zeros(dst)
    }
    fn write(&self, _: &Caller<'_>, _: &File, src: &mut dyn Source, _: &mut u64) -> Result<usize> {
        Ok(swallow(src))
    }
    fn seek(&self, _: &Caller<'_>, _: &File, _: u64, _: SeekFrom) -> Result<u64> {
        Ok(0)
    }
    fn mappable(&self, _: &File) -> Result<Arc<dyn Mappable>> {
        // New memory for each call, shared by what comes of that mapping.
        Ok(SharedMemory::new(&self.memfile, 0, ZERO_SIZE))
    }
}

struct Full;

impl FileOps for Full {
    fn read(&self, _: &Caller<'_>, _: &File, dst: &mut dyn Sink, _: &mut u64) -> Result<usize> {
        zeros(dst)
    }
    fn write(&self, _: &Caller<'_>, _: &File, _: &mut dyn Source, _: &mut u64) -> Result<usize> {
        Err(Errno::ENOSPC)
    }
    fn seek(&self, _: &Caller<'_>, _: &File, _: u64, _: SeekFrom) -> Result<u64> {
        Ok(0)
    }
}

/// random and urandom are the same thing since Linux 5.6, once the pool is ready.
struct Random;

impl FileOps for Random {
    fn read(&self, _: &Caller<'_>, _: &File, dst: &mut dyn Sink, _: &mut u64) -> Result<usize> {
        let mut done = 0;
        let mut buf = [0; 4096];
        while dst.remaining() > 0 {
            let n = dst.remaining().min(buf.len());
            rand::fill(&mut buf[..n]);
            match dst.put(&buf[..n]) {
                Ok(k) => {
                    done += k;
                    if k < n {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn write(&self, _: &Caller<'_>, _: &File, src: &mut dyn Source, _: &mut u64) -> Result<usize> {
        // What guests would stir into the host's pool goes nowhere; it must be readable all the same.
        let mut done = 0;
        let mut buf = [0; 4096];
        while src.remaining() > 0 {
            match src.take(&mut buf) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn seek(&self, _: &Caller<'_>, _: &File, pos: u64, _: SeekFrom) -> Result<u64> {
        // noop_llseek
        Ok(pos)
    }
    fn poll(&self, _: &Caller<'_>, _: &File) -> PollEvents {
        PollEvents::ALWAYS
    }
    fn wait_queue(&self, _: &File) -> Option<Arc<ksync::WaitQueue>> {
        // It has a poll operation on Linux, so epoll takes it; nothing ever changes.
        Some(Arc::new(ksync::WaitQueue::new()))
    }
    fn ioctl(&self, task: &Task, _: &File, cmd: u32, arg: u64) -> SysResult {
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match cmd {
            RNDGETENTCNT => {
                UserPtr::new(arg).write(&task.mm(), &256i32)?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
