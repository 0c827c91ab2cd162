//! The vdso that programs see (vdso(7)): an ELF image of one page whose functions jump to code of the platform that reads
//! the host's clocks, or make the system call where there is none.

use kernel::Kernel;
use kernel::mm::{Mappable, Mm, MmLimits, MmapArgs, MmapFile, Placement, SharedMemory, VmFile, VmFlags, Vma};
use platform::{Access, Backing, FileRange, Prot};
use std::sync::Arc;

/// Exported functions: name, call number, index of the platform's code if it has some.
const FUNCTIONS: [(&str, u32); 5] = [
    ("__vdso_clock_gettime", 228),
    ("__vdso_gettimeofday", 96),
    ("__vdso_time", 201),
    ("__vdso_clock_getres", 229),
    ("__vdso_getcpu", 309),
];
const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";

/// The System V hash of a symbol's name.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |h, b| {
        let h = (h << 4).wrapping_add(u32::from(b));
        let g = h & 0xf000_0000;
        (h ^ g >> 24) & !g
    })
}

/// Puts the image together. `code`: addresses of the platform's functions for the first ones of the list.
fn build(code: Option<[u64; 4]>) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut name = |s: &str| {
        let at = names.len();
        names.extend(s.bytes());
        names.push(0);
        u32::try_from(at).unwrap_or(0)
    };
    let soname = name(SONAME);
    let version = name(VERSION);
    let function_names: Vec<u32> = FUNCTIONS.iter().map(|(n, _)| name(n)).collect();

    let mut text = Vec::new();
    let mut starts = Vec::new();
    for (i, (_, nr)) in FUNCTIONS.iter().enumerate() {
        while text.len() % 16 != 0 {
            text.push(0x90u8);
        }
        starts.push(text.len() as u64);
        match code.and_then(|c| c.get(i).copied()) {
            Some(target) => {
                // movabs $target,%rax; jmp *%rax
                text.extend([0x48, 0xb8]);
                text.extend(target.to_le_bytes());
                text.extend([0xff, 0xe0]);
            }
            None => {
                // mov $nr,%eax; syscall; ret
                text.push(0xb8);
                text.extend(nr.to_le_bytes());
                text.extend([0x0f, 0x05, 0xc3]);
            }
        }
    }

    // Offsets: header, two program headers, then the tables.
    let count = FUNCTIONS.len() as u64 + 1;
    let hash_at = 64 + 2 * 56u64;
    let hash_len = 4 * (2 + 1 + count);
    let sym_at = (hash_at + hash_len).next_multiple_of(8);
    let str_at = sym_at + 24 * count;
    let versym_at = (str_at + names.len() as u64).next_multiple_of(2);
    let verdef_at = (versym_at + 2 * count).next_multiple_of(8);
    let dynamic_at = verdef_at + 2 * 28;
    let text_at = (dynamic_at + 16 * 10).next_multiple_of(16);
    let end = text_at + text.len() as u64;

    let mut f = Vec::new();
    let u16s = |f: &mut Vec<u8>, v: &[u16]| v.iter().for_each(|x| f.extend(x.to_le_bytes()));
    let u32s = |f: &mut Vec<u8>, v: &[u32]| v.iter().for_each(|x| f.extend(x.to_le_bytes()));
    let u64s = |f: &mut Vec<u8>, v: &[u64]| v.iter().for_each(|x| f.extend(x.to_le_bytes()));
    let pad = |f: &mut Vec<u8>, to: u64| f.resize(usize::try_from(to).unwrap_or(0), 0);
    f.extend(b"\x7fELF\x02\x01\x01\x00\0\0\0\0\0\0\0\0");
    u16s(&mut f, &[3, 62]);
    u32s(&mut f, &[1]);
    u64s(&mut f, &[0, 64, 0]);
    u32s(&mut f, &[0]);
    u16s(&mut f, &[64, 56, 2, 64, 0, 0]);
    // PT_LOAD (r-x) of all, PT_DYNAMIC.
    u32s(&mut f, &[1, 5]);
    u64s(&mut f, &[0, 0, 0, end, end, 4096]);
    u32s(&mut f, &[2, 4]);
    u64s(&mut f, &[dynamic_at, dynamic_at, dynamic_at, 160, 160, 8]);
    // One bucket whose chain holds all symbols.
    let symbols = u32::try_from(count).unwrap_or(0);
    u32s(&mut f, &[1, symbols, 1, 0]);
    (1..symbols).for_each(|i| u32s(&mut f, &[if i + 1 < symbols { i + 1 } else { 0 }]));
    pad(&mut f, sym_at);
    u64s(&mut f, &[0, 0, 0]);
    for (i, (name, start)) in function_names.iter().zip(&starts).enumerate() {
        let len = starts.get(i + 1).copied().unwrap_or(text.len() as u64) - start;
        u32s(&mut f, &[*name]);
        // GLOBAL FUNC, default visibility, in some section.
        f.extend([0x12, 0]);
        u16s(&mut f, &[1]);
        u64s(&mut f, &[text_at + start, len]);
    }
    f.extend(&names);
    pad(&mut f, versym_at);
    u16s(&mut f, &[0]);
    (1..count).for_each(|_| u16s(&mut f, &[2]));
    pad(&mut f, verdef_at);
    // The base version (the file's own name), then the one of the functions.
    for (flags, index, text, at, next) in [(1u16, 1u16, SONAME, soname, 28u32), (0, 2, VERSION, version, 0)] {
        u16s(&mut f, &[1, flags, index, 1]);
        u32s(&mut f, &[hash(text), 20, next, at, 0]);
    }
    pad(&mut f, dynamic_at);
    let strsz = names.len() as u64;
    let dynamic: [(u64, u64); 10] = [
        (14, soname.into()),
        (4, hash_at),
        (5, str_at),
        (6, sym_at),
        (10, strsz),
        (11, 24),
        (0x6fff_fffc, verdef_at),
        (0x6fff_fffd, 2),
        (0x6fff_fff0, versym_at),
        (0, 0),
    ];
    dynamic.iter().for_each(|(tag, value)| u64s(&mut f, &[*tag, *value]));
    pad(&mut f, text_at);
    f.extend(&text);
    f
}

/// The image, once for each sandbox.
struct Image {
    memory: Arc<SharedMemory>,
}

/// The image of those whose clocks are not the host's (time_namespaces(7)): every function makes the call.
struct CallingImage(Image);

impl Image {
    fn new(kernel: &Kernel, reads_clocks: bool) -> Image {
        let code = kernel.platform.features().clock_code.filter(|_| reads_clocks);
        let bytes = build(code.map(|c| [c.clock_gettime, c.gettimeofday, c.time, c.clock_getres]));
        let memory = SharedMemory::new(&kernel.memfile, 0, bytes.len() as u64);
        let all = 0..memory.size();
        let segments = memory.translate(all.clone(), all, Access::Write).unwrap_or_default();
        for s in segments {
            let range =
                FileRange { start: s.backing_offset, end: s.backing_offset + (s.range.end - s.range.start) };
            if let Backing::Memory(m) = &s.backing {
                let skip = usize::try_from(s.range.start).unwrap_or(0);
                let _ = m.block(range).write(0, &bytes[skip.min(bytes.len())..]);
                m.dec_ref(range);
            }
        }
        Image { memory }
    }
}

/// Maps the vdso and notes where it is. A program runs without one as well. `shifted`: the clocks are not the host's.
pub(super) fn map(mm: &Arc<Mm>, kernel: &Kernel, shifted: bool) {
    map_at(mm, kernel, shifted, Placement::Hint(0));
}

/// Puts the right image in place of the one that a copied address space has.
pub fn fit_vdso(mm: &Arc<Mm>, kernel: &Kernel, shifted: bool) {
    let at = mm.layout().vdso;
    if at != 0 {
        map_at(mm, kernel, shifted, Placement::Fixed(at));
    }
}

fn map_at(mm: &Arc<Mm>, kernel: &Kernel, shifted: bool, at: Placement) {
    let memory = if shifted {
        let image = kernel.extensions.get_or_init(|| CallingImage(Image::new(kernel, false)));
        Arc::clone(&image.0.memory)
    } else {
        Arc::clone(&kernel.extensions.get_or_init(|| Image::new(kernel, true)).memory)
    };
    let len = memory.size();
    let object: Arc<dyn Mappable> = memory;
    let args = MmapArgs {
        at,
        len,
        prot: Prot::READ | Prot::EXEC,
        flags: Vma::MAY_ALL | VmFlags::SPECIAL,
        file: Some(MmapFile { file: VmFile { object, file: None }, offset: 0 }),
        populate: false,
        name: Some(b"[vdso]".as_slice().into()),
    };
    if let Ok(at) = mm.mmap(args, &MmLimits::NONE) {
        mm.set_layout(|l| l.vdso = at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_fits_a_page_and_has_its_names() {
        let image = build(Some([0x7000_0000_1000; 4]));
        assert!(image.len() <= 4096, "{}", image.len());
        assert_eq!(hash("LINUX_2.6"), 0x3ae_75f6);
        for (name, _) in FUNCTIONS {
            assert!(image.windows(name.len()).any(|w| w == name.as_bytes()));
        }
        if let Some(path) = std::env::var_os("VDSO_OUT") {
            std::fs::write(path, build(None)).unwrap();
        }
    }
}
