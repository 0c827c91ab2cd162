//! What processor this is and how much memory there is: read once, before the process is locked down.

use rustix::thread::{CpuSet, sched_getaffinity};
use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Facts of the host's hardware that a guest may know.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Host CPUs this process may use.
    pub cpus: Vec<usize>,
    /// `vendor_id` of /proc/cpuinfo.
    pub vendor: String,
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    /// `model name` of /proc/cpuinfo.
    pub name: String,
    /// Time stamp counter frequency as far as CPUID tells, in kHz; 0 if it does not.
    pub khz: u64,
    /// Flags of /proc/cpuinfo that user space can use.
    pub flags: Vec<&'static str>,
    /// Physical memory of the host in bytes.
    pub memory: u64,
    /// `AT_HWCAP`: CPUID leaf 1, edx.
    pub hwcap: u64,
    /// Size of a cache line in bytes.
    pub cache_line: u32,
    /// Physical address bits and virtual address bits.
    pub address_bits: (u32, u32),
}

/// (leaf, subleaf, register 0..3 = a..d, bit, name)
const FLAGS: &[(u32, u32, usize, u32, &str)] = &[
    (1, 0, 3, 0, "fpu"),
    (1, 0, 3, 4, "tsc"),
    (1, 0, 3, 8, "cx8"),
    (1, 0, 3, 15, "cmov"),
    (1, 0, 3, 19, "clflush"),
    (1, 0, 3, 23, "mmx"),
    (1, 0, 3, 24, "fxsr"),
    (1, 0, 3, 25, "sse"),
    (1, 0, 3, 26, "sse2"),
    (1, 0, 3, 28, "ht"),
    (0x8000_0001, 0, 3, 11, "syscall"),
    (0x8000_0001, 0, 3, 20, "nx"),
    (0x8000_0001, 0, 3, 27, "rdtscp"),
    (0x8000_0001, 0, 3, 29, "lm"),
    (1, 0, 2, 0, "pni"),
    (1, 0, 2, 1, "pclmulqdq"),
    (1, 0, 2, 9, "ssse3"),
    (1, 0, 2, 12, "fma"),
    (1, 0, 2, 13, "cx16"),
    (1, 0, 2, 19, "sse4_1"),
    (1, 0, 2, 20, "sse4_2"),
    (1, 0, 2, 22, "movbe"),
    (1, 0, 2, 23, "popcnt"),
    (1, 0, 2, 25, "aes"),
    (1, 0, 2, 26, "xsave"),
    (1, 0, 2, 28, "avx"),
    (1, 0, 2, 29, "f16c"),
    (1, 0, 2, 30, "rdrand"),
    (0x8000_0001, 0, 2, 0, "lahf_lm"),
    (0x8000_0001, 0, 2, 5, "abm"),
    (0x8000_0001, 0, 2, 6, "sse4a"),
    (0x8000_0001, 0, 2, 8, "3dnowprefetch"),
    (7, 0, 1, 0, "fsgsbase"),
    (7, 0, 1, 3, "bmi1"),
    (7, 0, 1, 5, "avx2"),
    (7, 0, 1, 8, "bmi2"),
    (7, 0, 1, 9, "erms"),
    (7, 0, 1, 16, "avx512f"),
    (7, 0, 1, 17, "avx512dq"),
    (7, 0, 1, 19, "adx"),
    (7, 0, 1, 21, "avx512ifma"),
    (7, 0, 1, 23, "clflushopt"),
    (7, 0, 1, 24, "clwb"),
    (7, 0, 1, 28, "avx512cd"),
    (7, 0, 1, 29, "sha_ni"),
    (7, 0, 1, 30, "avx512bw"),
    (7, 0, 1, 31, "avx512vl"),
    (13, 1, 0, 0, "xsaveopt"),
    (13, 1, 0, 1, "xsavec"),
    (13, 1, 0, 2, "xgetbv1"),
    (7, 0, 2, 1, "avx512vbmi"),
    (7, 0, 2, 6, "avx512_vbmi2"),
    (7, 0, 2, 8, "gfni"),
    (7, 0, 2, 9, "vaes"),
    (7, 0, 2, 10, "vpclmulqdq"),
    (7, 0, 2, 11, "avx512_vnni"),
    (7, 0, 2, 12, "avx512_bitalg"),
    (7, 0, 2, 14, "avx512_vpopcntdq"),
    (7, 0, 2, 22, "rdpid"),
    (7, 0, 3, 4, "fsrm"),
];

impl Machine {
    /// Asks the processor and the kernel.
    pub fn read() -> Machine {
        let basic = __cpuid(0);
        let extended = __cpuid(0x8000_0000).eax;
        let ask = |leaf: u32, sub: u32| -> [u32; 4] {
            let max = if leaf >= 0x8000_0000 { extended } else { basic.eax };
            if leaf > max {
                return [0; 4];
            }
            let r = __cpuid_count(leaf, sub);
            [r.eax, r.ebx, r.ecx, r.edx]
        };
        let text = |words: &[u32]| -> String {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_owned()
        };
        let sig = ask(1, 0);
        let (mut family, mut model) = ((sig[0] >> 8) & 0xf, (sig[0] >> 4) & 0xf);
        if family == 6 || family == 15 {
            model |= (sig[0] >> 12) & 0xf0;
        }
        if family == 15 {
            family += (sig[0] >> 20) & 0xff;
        }
        let name: Vec<u32> = (0x8000_0002u32..=0x8000_0004).flat_map(|l| ask(l, 0)).collect();
        let freq = ask(0x16, 0);
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let mut cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|c| set.is_set(*c)).collect();
        if cpus.is_empty() {
            cpus.push(0);
        }
        let info = rustix::system::sysinfo();
        let bits = ask(0x8000_0008, 0)[0];
        Machine {
            cpus,
            vendor: text(&[basic.ebx, basic.edx, basic.ecx]),
            family,
            model,
            stepping: sig[0] & 0xf,
            name: text(&name),
            khz: u64::from(freq[0] & 0xffff) * 1000,
            flags: FLAGS.iter().filter(|f| ask(f.0, f.1)[f.2] & (1 << f.3) != 0).map(|f| f.4).collect(),
            memory: info.totalram.saturating_mul(u64::from(info.mem_unit)),
            hwcap: u64::from(sig[3]),
            cache_line: (sig[1] >> 8 & 0xff) * 8,
            address_bits: (bits & 0xff, bits >> 8 & 0xff),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_says_who_it_is() {
        let m = super::Machine::read();
        assert!(!m.vendor.is_empty() && !m.cpus.is_empty() && m.memory > 1 << 20);
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        assert!(info.contains(&m.vendor));
        for flag in &m.flags {
            assert!(info.split_whitespace().any(|w| w == *flag), "{flag} is not in /proc/cpuinfo");
        }
    }
}
