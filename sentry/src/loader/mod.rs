//! Programs become address spaces: ELF files, `#!` scripts, the initial stack.
//!
//! Nothing of the calling task is touched: the result is a new address space and the registers to start with, which
//! execve takes over when everything has succeeded. Every number of a file is hostile until checked.

mod arguments;
mod elf;
mod script;
mod stack;
#[cfg(test)]
mod tests;
mod vdso;

pub use vdso::fit_vdso;

pub use arguments::{Strings, read_strings};

use abi::{Errno, Result};
use kernel::Kernel;
use kernel::creds::Creds;
use kernel::io::SliceSink;
use kernel::mm::{Mm, MmLimits};
use kernel::vfs::{Caller, File};
use platform::Registers;
use std::sync::Arc;

/// Most `#!` files in a row.
const MAX_SCRIPTS: usize = 5;
/// What is looked at to tell what a file is (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;

/// Who a program runs as, once it is known which file it is.
pub struct Identity {
    pub creds: Arc<Creds>,
    /// `AT_SECURE`: rights were gained.
    pub secure: bool,
}

/// What execve asks for.
pub struct ExecArgs<'a> {
    pub kernel: &'a Arc<Kernel>,
    /// On whose behalf files are read.
    pub caller: Caller<'a>,
    /// The file, opened for execution: a regular file with the right to execute it.
    pub file: Arc<File>,
    /// Its path as the caller gave it (`/dev/fd/N/…` for execveat with a descriptor): `AT_EXECFN`, and the argument of an
    /// interpreter.
    pub path: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    pub limits: MmLimits,
    /// The account of the memory file that is charged; 0 for none.
    pub account: u32,
    /// Whether `ADDR_NO_RANDOMIZE` is in the personality.
    pub no_randomize: bool,
    /// Opens an interpreter by path with execve's checks.
    pub open: &'a dyn Fn(&[u8]) -> Result<Arc<File>>,
    /// Works out the credentials from the file that is really run (set-id bits, file capabilities).
    pub identity: &'a dyn Fn(&Arc<File>) -> Result<Identity>,
}

/// A program ready to start.
pub struct Loaded {
    pub mm: Arc<Mm>,
    pub regs: Registers,
    /// The ELF file: /proc/pid/exe.
    pub exe: Arc<File>,
    pub identity: Identity,
}

/// Makes a program ready to run. Errors are execve's; nothing has changed then.
pub fn load(mut args: ExecArgs<'_>) -> Result<Loaded> {
    if args.argv.is_empty() {
        // As Linux since 5.18: programs may rely on argv[0].
        args.argv.push(Vec::new());
    }
    let execfn = args.path.clone();
    arguments::check_size(&args, &execfn)?;
    let mut scripts = 0;
    let head = loop {
        let head = read_head(&args.file, &args.caller)?;
        let Some(line) = script::parse(&head)? else { break head };
        if scripts == MAX_SCRIPTS {
            return Err(Errno::ELOOP);
        }
        scripts += 1;
        let interpreter = (args.open)(&line.interpreter)?;
        // argv[0] is replaced by: interpreter, its argument, the script's path.
        let mut argv = vec![line.interpreter.clone()];
        argv.extend(line.argument);
        argv.push(std::mem::replace(&mut args.path, line.interpreter));
        argv.extend(args.argv.drain(1..));
        args.argv = argv;
        args.file = interpreter;
        arguments::check_size(&args, &execfn)?;
    };
    let program = elf::Program::read(&args.file, &args.caller, &head, args.open)?;
    let identity = (args.identity)(&args.file)?;
    let mm = Mm::new(args.kernel)?;
    mm.set_account(args.account);
    mm.set_stack_limit(args.limits.stack);
    mm.set_exe(Some(Arc::clone(&args.file)));
    let image = elf::map(&mm, &program, &args)?;
    let shifted = args.caller.task.is_some_and(|t| t.namespaces().time.is_shifted());
    vdso::map(&mm, args.kernel, shifted);
    let rsp = stack::build(&mm, &args, &execfn, &image, &identity)?;
    let regs = Registers::new(image.start, rsp);
    Ok(Loaded { mm, regs, exe: args.file, identity })
}

fn read_head(file: &Arc<File>, caller: &Caller<'_>) -> Result<[u8; HEAD]> {
    let mut head = [0; HEAD];
    read_at(file, caller, 0, &mut head)?;
    Ok(head)
}

/// Reads from a file until the buffer is full or the file ends; the count.
fn read_at(file: &Arc<File>, caller: &Caller<'_>, mut pos: u64, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let mut sink = SliceSink::new(&mut buf[done..]);
        match file.ops().read(caller, file, &mut sink, &mut pos)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// A random number below `n`, a multiple of the page size.
fn random_pages(n: u64) -> u64 {
    (platform::hostsys::rand::u64() % n.max(1)) & !(abi::PAGE_SIZE - 1)
}
