//! A platform for tests of the kernel: no guest code runs, a script says what traps.
//!
//! Mappings are kept, so that a test can check them and read guest memory through them.

use crate::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What a scripted guest thread sees at each step.
pub struct MockCpu<'a> {
    /// Which context, counted from 0 in order of creation.
    pub thread: u64,
    /// How often this context was switched to before.
    pub step: u64,
    /// Its registers, to read results from and to change.
    pub regs: &'a mut Registers,
    /// Its memory.
    pub space: &'a MockSpace,
}

impl MockCpu<'_> {
    /// Sets the registers for a system call and returns its trap.
    pub fn syscall(&mut self, nr: u64, args: [u64; 6]) -> Step {
        self.regs.orig_rax = nr;
        let r = &mut *self.regs;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = args;
        Step::Trap(Trap::Syscall)
    }
}

/// What a scripted thread does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Traps.
    Trap(Trap),
    /// Runs until it is interrupted.
    Spin,
}

type Program = dyn Fn(&mut MockCpu<'_>) -> Step + Send + Sync;

/// The platform.
pub struct MockPlatform {
    program: Arc<Program>,
    threads: AtomicU64,
}

impl MockPlatform {
    /// All threads run `program`, which is called once for each switch.
    pub fn new(program: impl Fn(&mut MockCpu<'_>) -> Step + Send + Sync + 'static) -> Arc<MockPlatform> {
        Arc::new(MockPlatform { program: Arc::new(program), threads: AtomicU64::new(0) })
    }

    /// Thread `n` makes the system calls `scripts[n]` one after the other and is `Dead` at the end.
    pub fn syscalls(scripts: Vec<Vec<(u64, [u64; 6])>>) -> Arc<MockPlatform> {
        Self::new(move |cpu| {
            let call = scripts.get(cpu.thread as usize).and_then(|s| s.get(cpu.step as usize));
            match call {
                Some(&(nr, args)) => cpu.syscall(nr, args),
                None => Step::Trap(Trap::Dead),
            }
        })
    }
}

impl Platform for MockPlatform {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(MockSpace::default()))
    }

    fn new_context(&self) -> Result<Box<dyn Context>, PlatformError> {
        Ok(Box::new(MockContext {
            program: self.program.clone(),
            thread: self.threads.fetch_add(1, Ordering::Relaxed),
            step: 0,
            fpu: FpuState::initial(),
            interrupt: Arc::default(),
        }))
    }

    fn address_limits(&self) -> AddressLimits {
        AddressLimits { min: 0x1_0000, max: 0x7fff_ff00_0000 }
    }

    fn features(&self) -> Features {
        Features {
            fault_around: 64 << 10,
            fpu_len: FpuState::len(),
            fault_access_known: true,
            clock_code: None,
        }
    }
}

/// A mapping of a [`MockSpace`].
#[derive(Clone, Debug)]
pub struct MockMapping {
    /// First address after.
    pub end: u64,
    /// The file.
    pub file: Arc<HostFile>,
    /// The file's offset of the first address.
    pub offset: u64,
    /// Access rights.
    pub prot: Prot,
}

/// An address space that only keeps account.
#[derive(Debug, Default)]
pub struct MockSpace {
    map: Mutex<BTreeMap<u64, MockMapping>>,
}

impl MockSpace {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, MockMapping>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All mappings by start address.
    pub fn mappings(&self) -> BTreeMap<u64, MockMapping> {
        self.lock().clone()
    }

    /// Reads or writes guest memory through the mappings, checking rights; a missing page or right is a fault.
    pub fn access(&self, addr: u64, data: &mut [u8], write: bool) -> Result<(), FaultInfo> {
        let mut done = 0;
        while done < data.len() {
            let at = addr + done as u64;
            let access = Some(if write { Access::Write } else { Access::Read });
            let fault = |code| FaultInfo { signo: 11, code, addr: at, access };
            let map = self.lock();
            let (start, m) = map.range(..=at).next_back().filter(|(_, m)| m.end > at).ok_or(fault(1))?;
            let need = if write { Prot::WRITE } else { Prot::READ };
            if !m.prot.contains(need) {
                return Err(fault(2));
            }
            let n = (data.len() - done).min((m.end - at) as usize);
            let block = m.file.block(m.offset + (at - start), n as u64).map_err(|_| fault(1))?;
            let part = &mut data[done..done + block.len()];
            let ok = if write { block.write(0, part) } else { block.read(0, part) };
            ok.map_err(|_| FaultInfo { signo: 7, code: 2, addr: at, access })?;
            done += block.len();
        }
        Ok(())
    }

    fn split(map: &mut BTreeMap<u64, MockMapping>, at: u64) {
        if let Some((start, m)) = map.range_mut(..at).next_back()
            && m.end > at
        {
            let mut upper = m.clone();
            upper.offset += at - start;
            m.end = at;
            map.insert(at, upper);
        }
    }

    fn cut(map: &mut BTreeMap<u64, MockMapping>, range: GuestRange) {
        Self::split(map, range.start);
        Self::split(map, range.end);
        let inside: Vec<u64> = map.range(range.start..range.end).map(|(s, _)| *s).collect();
        for s in inside {
            map.remove(&s);
        }
    }
}

impl AddressSpace for MockSpace {
    fn map(
        &self,
        at: GuestRange,
        file: &Arc<HostFile>,
        offset: u64,
        prot: Prot,
        _precommit: bool,
    ) -> Result<(), PlatformError> {
        let mut map = self.lock();
        Self::cut(&mut map, at);
        map.insert(at.start, MockMapping { end: at.end, file: file.clone(), offset, prot });
        Ok(())
    }

    fn unmap(&self, range: GuestRange) -> Result<(), PlatformError> {
        Self::cut(&mut self.lock(), range);
        Ok(())
    }

    fn protect(&self, range: GuestRange, prot: Prot) -> Result<(), PlatformError> {
        let mut map = self.lock();
        Self::split(&mut map, range.start);
        Self::split(&mut map, range.end);
        for (_, m) in map.range_mut(range.start..range.end) {
            m.prot = prot;
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct MockContext {
    program: Arc<Program>,
    thread: u64,
    step: u64,
    fpu: FpuState,
    interrupt: Arc<MockInterrupt>,
}

impl Context for MockContext {
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Trap, PlatformError> {
        if self.interrupt.pending.swap(false, Ordering::SeqCst) {
            return Ok(Trap::Interrupted);
        }
        let space = space
            .as_any()
            .downcast_ref()
            .ok_or(PlatformError::Misuse("address space of another platform"))?;
        let mut cpu = MockCpu { thread: self.thread, step: self.step, regs, space };
        let step = (self.program)(&mut cpu);
        self.step += 1;
        match step {
            Step::Trap(trap) => Ok(trap),
            Step::Spin => {
                self.interrupt.wait();
                Ok(Trap::Interrupted)
            }
        }
    }

    fn interrupter(&self) -> Arc<dyn Interrupt> {
        self.interrupt.clone()
    }

    fn fpu(&mut self) -> Result<FpuState, PlatformError> {
        Ok(self.fpu.clone())
    }

    fn set_fpu(&mut self, state: &FpuState) -> Result<(), PlatformError> {
        self.fpu = state.clone();
        Ok(())
    }

    fn release(&mut self) {}
}

#[derive(Default)]
struct MockInterrupt {
    pending: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl MockInterrupt {
    fn wait(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _guard = self.wake.wait_while(guard, |()| !self.pending.swap(false, Ordering::SeqCst));
    }
}

impl Interrupt for MockInterrupt {
    fn interrupt(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.pending.store(true, Ordering::SeqCst);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_and_memory() {
        let p = MockPlatform::syscalls(vec![vec![(39, [0; 6]), (1, [1, 2, 3, 4, 5, 6])]]);
        let space = p.new_address_space().unwrap();
        let mut cx = p.new_context().unwrap();
        let mut regs = Registers::new(0x1000, 0x2000);
        assert_eq!(cx.switch(&space, &mut regs).unwrap(), Trap::Syscall);
        assert_eq!(regs.syscall_nr(), 39);
        cx.interrupter().interrupt();
        assert_eq!(cx.switch(&space, &mut regs).unwrap(), Trap::Interrupted);
        assert_eq!(cx.switch(&space, &mut regs).unwrap(), Trap::Syscall);
        assert_eq!(regs.args(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(cx.switch(&space, &mut regs).unwrap(), Trap::Dead);

        let mem = MemoryFile::new().unwrap();
        let r = mem.allocate(4 * PAGE, AllocOpts::default()).unwrap();
        let at = GuestRange { start: 0x10000, end: 0x14000 };
        space.map(at, mem.host_file(), r.start, Prot::READ | Prot::WRITE, false).unwrap();
        space.unmap(GuestRange { start: 0x11000, end: 0x12000 }).unwrap();
        let mock: &MockSpace = space.as_any().downcast_ref().unwrap();
        assert_eq!(mock.mappings().len(), 2);
        let mut data = *b"hello";
        mock.access(0x13ff0, &mut data, true).unwrap();
        let mut out = [0; 5];
        mem.block(r).read(0x3ff0, &mut out).unwrap();
        assert_eq!(&out, b"hello");
        assert_eq!(mock.access(0x11000, &mut data, false).unwrap_err().code, 1);
    }
}
