//! ELF files: checks and mappings (elf(5), and Linux' binfmt_elf for the order of errors).

use super::{ExecArgs, HEAD, random_pages, read_at};
use abi::{Errno, PAGE_SIZE, Result, page_down, page_up};
use kernel::mm::{Layout, Mm, MmapArgs, MmapFile, Placement, STACK_GUARD_GAP, VmFile, VmFlags, Vma};
use kernel::vfs::{Caller, File};
use platform::Prot;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
/// Most bytes of program headers.
const MAX_PHDRS: usize = 65536;
/// Random bits of addresses of mappings and position-independent programs, in pages (`mmap_rnd_bits`).
const MMAP_RANDOM: u64 = 1 << (28 + 12);
/// How far the top of the stack moves, at most.
const STACK_RANDOM: u64 = 0x3f_ffff << 12;
/// How far the break moves behind the program, at most.
const BRK_RANDOM: u64 = 0x4000_0000;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// One ELF file, checked as far as that goes without mapping it.
pub(super) struct Object {
    file: Arc<File>,
    vm: VmFile,
    header: Header,
    segments: Vec<Segment>,
}

/// A program and the dynamic linker it asks for.
pub(super) struct Program {
    main: Object,
    interpreter: Option<Object>,
    exec_stack: bool,
}

/// Where a program was mapped.
pub(super) struct Image {
    /// The first instruction.
    pub start: u64,
    /// The program's own entry (`AT_ENTRY`).
    pub entry: u64,
    /// Where the dynamic linker is, 0 without one (`AT_BASE`).
    pub base: u64,
    pub phdr: u64,
    pub phnum: u64,
    /// First address behind the stack.
    pub stack_top: u64,
    pub exec_stack: bool,
}

impl Object {
    fn read(file: &Arc<File>, cx: &Caller<'_>, head: &[u8; HEAD], bad: Errno) -> Result<Object> {
        let (header, _) = Header::read_from_prefix(head.as_slice()).map_err(|_| bad)?;
        let class_and_order = header.ident[4..6] == [2, 1];
        if &header.ident[..4] != b"\x7fELF"
            || !matches!(header.kind, ET_EXEC | ET_DYN)
            || header.machine != EM_X86_64
            || !class_and_order
        {
            return Err(bad);
        }
        let object = file.ops().mappable(file).map_err(|_| bad)?;
        let size = usize::from(header.phnum) * size_of::<Segment>();
        if usize::from(header.phentsize) != size_of::<Segment>() || size == 0 || size > MAX_PHDRS {
            return Err(bad);
        }
        let mut raw = vec![0; size];
        if i64::try_from(header.phoff).is_err() || read_at(file, cx, header.phoff, &mut raw)? < size {
            return Err(bad);
        }
        let segments =
            raw.chunks_exact(size_of::<Segment>()).filter_map(|c| Segment::read_from_bytes(c).ok()).collect();
        let vm = VmFile { object, file: Some(Arc::clone(file)) };
        Ok(Object { file: Arc::clone(file), vm, header, segments })
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.kind == PT_LOAD)
    }

    /// Lowest address, page-aligned, and length of all that is loaded.
    fn extent(&self) -> Result<(u64, u64)> {
        let mut lo = u64::MAX;
        let mut hi = 0;
        for s in self.loads() {
            let end = s.vaddr.checked_add(s.memsz).ok_or(Errno::EINVAL)?;
            if s.filesz > s.memsz || end > kernel::mm::TASK_SIZE {
                return Err(Errno::EINVAL);
            }
            if s.memsz > 0 {
                lo = lo.min(page_down(s.vaddr));
                hi = hi.max(end);
            }
        }
        if lo >= hi {
            return Err(Errno::EINVAL);
        }
        Ok((lo, page_up(hi).ok_or(Errno::EINVAL)? - lo))
    }

    /// Largest alignment that a segment asks for and that makes sense.
    fn alignment(&self) -> u64 {
        let ok = |a: &u64| a.is_power_of_two() && *a < 1 << 40;
        self.loads().map(|s| s.align).filter(ok).max().unwrap_or(0).max(PAGE_SIZE)
    }
}

impl Program {
    pub(super) fn read(
        file: &Arc<File>,
        cx: &Caller<'_>,
        head: &[u8; HEAD],
        open: &dyn Fn(&[u8]) -> Result<Arc<File>>,
    ) -> Result<Program> {
        let main = Object::read(file, cx, head, Errno::ENOEXEC)?;
        let mut interpreter = None;
        if let Some(s) = main.segments.iter().find(|s| s.kind == PT_INTERP) {
            let len = usize::try_from(s.filesz).map_err(|_| Errno::ENOEXEC)?;
            if !(2..=4096).contains(&len) || i64::try_from(s.offset).is_err() {
                return Err(Errno::ENOEXEC);
            }
            let mut path = vec![0; len];
            if read_at(file, cx, s.offset, &mut path)? < len {
                return Err(Errno::EIO);
            }
            if path.pop() != Some(0) {
                return Err(Errno::ENOEXEC);
            }
            let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
            let linker = open(&path[..end])?;
            linker.allow_write();
            let mut head = [0; HEAD];
            if read_at(&linker, cx, 0, &mut head)? < size_of::<Header>() {
                return Err(Errno::EIO);
            }
            interpreter = Some(Object::read(&linker, cx, &head, Errno::ELIBBAD)?);
        }
        let exec_stack =
            main.segments.iter().rev().find(|s| s.kind == PT_GNU_STACK).is_some_and(|s| s.flags & PF_X != 0);
        Ok(Program { main, interpreter, exec_stack })
    }
}

fn prot_of(flags: u32) -> Prot {
    let mut p = Prot::empty();
    p.set(Prot::READ, flags & PF_R != 0);
    p.set(Prot::WRITE, flags & PF_W != 0);
    p.set(Prot::EXEC, flags & PF_X != 0);
    p
}

/// Maps a program into an empty address space and sets its layout.
pub(super) fn map(mm: &Arc<Mm>, program: &Program, args: &ExecArgs<'_>) -> Result<Image> {
    let random = |n: u64| if args.no_randomize { 0 } else { random_pages(n) };
    let max = page_down(mm.limits().max);
    let stack_top = max - random(STACK_RANDOM);
    // mmap's base: below the largest stack.
    let gap = args.limits.stack.clamp(128 << 20, max / 6 * 5);
    let pad = STACK_GUARD_GAP + if args.no_randomize { 0 } else { STACK_RANDOM };
    let gap = page_up(gap.saturating_add(pad).min(max / 6 * 5)).unwrap_or(max / 2);
    let mmap_base = page_down(max - gap - random(MMAP_RANDOM));
    mm.set_layout(|l| l.mmap_base = mmap_base);

    let main = &program.main;
    let (lo, len) = main.extent()?;
    let dynamic_base = page_down(max / 3 * 2);
    let bias = if main.header.kind == ET_EXEC {
        0
    } else {
        let align = main.alignment();
        let at = if program.interpreter.is_some() {
            (dynamic_base + random(MMAP_RANDOM)) & !(align - 1)
        } else {
            mm.free_range(len, align)?
        };
        at.wrapping_sub(lo)
    };
    let layout = map_segments(mm, main, bias, args)?;
    let entry = main.header.entry.wrapping_add(bias);

    // Where the program headers are in memory: as PT_PHDR says, else inside the segment that holds them.
    let phdr = main.segments.iter().find(|s| s.kind == PT_PHDR).map(|s| s.vaddr).or_else(|| {
        let holds = |s: &&Segment| main.header.phoff >= s.offset && main.header.phoff - s.offset < s.filesz;
        main.loads().find(holds).map(|s| main.header.phoff - s.offset + s.vaddr)
    });
    let phdr = phdr.map_or(0, |p| p.wrapping_add(bias));

    let mut brk = page_up(layout.brk).ok_or(Errno::ENOMEM)?;
    if main.header.kind == ET_DYN && program.interpreter.is_none() {
        // A position-independent program among the mappings has no room behind it.
        brk = dynamic_base;
    }
    brk = brk.checked_add(random(BRK_RANDOM)).filter(|b| *b < max).ok_or(Errno::ENOMEM)?;
    let (mut start, mut base) = (entry, 0);
    if let Some(linker) = &program.interpreter {
        let (lo, len) = linker.extent()?;
        let bias = if linker.header.kind == ET_EXEC {
            0
        } else {
            mm.free_range(len, linker.alignment())?.wrapping_sub(lo)
        };
        map_segments(mm, linker, bias, args)?;
        start = linker.header.entry.wrapping_add(bias);
        base = bias;
    }
    if start >= max || entry >= max {
        return Err(Errno::EINVAL);
    }
    mm.set_layout(|l| {
        *l = Layout { start_brk: brk, brk, mmap_base, ..layout };
    });
    let _ = &main.file;
    let phnum = u64::from(main.header.phnum);
    Ok(Image { start, entry, base, phdr, phnum, stack_top, exec_stack: program.exec_stack })
}

/// Maps the loadable segments of a file, moved by `bias`; where code, data and the end of it all are.
fn map_segments(mm: &Arc<Mm>, object: &Object, bias: u64, args: &ExecArgs<'_>) -> Result<Layout> {
    let mut layout = Layout { start_code: u64::MAX, ..Layout::default() };
    let mut first = true;
    for s in object.loads() {
        if s.memsz == 0 {
            continue;
        }
        let vaddr = s.vaddr.wrapping_add(bias);
        let end = vaddr.checked_add(s.memsz).filter(|e| *e <= mm.limits().max).ok_or(Errno::ENOMEM)?;
        let prot = prot_of(s.flags);
        let start = page_down(vaddr);
        let lead = vaddr - start;
        let file_end = vaddr + s.filesz;
        let mapped_end = if s.filesz > 0 { page_up(file_end).ok_or(Errno::ENOMEM)? } else { start };
        if s.filesz > 0 {
            let offset = s.offset.checked_sub(lead).filter(|o| o % PAGE_SIZE == 0).ok_or(Errno::EINVAL)?;
            let at = if first { Placement::FixedNoReplace(start) } else { Placement::Fixed(start) };
            let file = Some(MmapFile { file: object.vm.clone(), offset });
            let len = mapped_end - start;
            mm.mmap(
                MmapArgs { at, len, prot, flags: Vma::MAY_ALL, file, populate: false, name: None },
                &args.limits,
            )?;
            first = false;
        }
        let all_end = page_up(end).ok_or(Errno::ENOMEM)?;
        if all_end > mapped_end {
            let len = all_end - mapped_end;
            let at = Placement::Fixed(mapped_end);
            mm.mmap(
                MmapArgs { at, len, prot, flags: Vma::MAY_ALL, file: None, populate: false, name: None },
                &args.limits,
            )?;
            first = false;
        }
        if s.memsz > s.filesz && s.filesz > 0 && mapped_end > file_end && prot.contains(Prot::WRITE) {
            // The rest of the last page of the file's part.
            let len = usize::try_from(mapped_end - file_end).map_err(|_| Errno::EINVAL)?;
            mm.zero_out(file_end, len)?;
        }
        if prot.contains(Prot::EXEC) {
            layout.start_code = layout.start_code.min(vaddr);
            layout.end_code = layout.end_code.max(file_end);
        } else if prot.contains(Prot::WRITE) {
            layout.start_data = layout.start_data.max(vaddr);
            layout.end_data = layout.end_data.max(file_end);
        }
        layout.brk = layout.brk.max(end);
    }
    if layout.start_code == u64::MAX {
        layout.start_code = 0;
    }
    Ok(layout)
}

/// The flags of the main stack's mapping.
pub(super) const STACK_FLAGS: VmFlags = VmFlags::GROWSDOWN.union(VmFlags::STACK).union(Vma::MAY_ALL);
