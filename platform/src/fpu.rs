//! The floating-point and vector state of a guest thread as an XSAVE image (non-compacted), as in signal frames and ptrace.

use crate::error::PlatformError;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

const LEGACY: usize = 512;
const HEADER: usize = 64;

/// What the processor says about XSAVE images. Asked once: under a hypervisor each CPUID instruction is an exit of ten microseconds
/// or more, and signal delivery needs these numbers several times.
struct Layout {
    len: usize,
    /// The length with everything that the host's kernel has switched on.
    host_len: usize,
    components: u64,
    /// Place of each component from 2 on: number, offset, length.
    places: Vec<(u32, usize, usize)>,
}

fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        let max = __cpuid_count(0xd, 0);
        // Component 18 (AMX tile data) lies at the end and is only there on request.
        let tile = __cpuid_count(0xd, 18);
        let all = if tile.eax != 0 && max.eax & (1 << 18) != 0 { tile.ebx } else { max.ebx };
        let components = (u64::from(max.eax) | u64::from(max.edx) << 32) & !(1 << 18) & !(1 << 17);
        let place = |c: u32| {
            let p = __cpuid_count(0xd, c);
            (c, p.ebx as usize, p.eax as usize)
        };
        let places = (2..63).filter(|c| components >> c & 1 == 1).map(place).collect();
        let host_len = (max.ebx as usize).max(LEGACY + HEADER);
        Layout { len: (all as usize).max(LEGACY + HEADER), host_len, components, places }
    })
}

/// An XSAVE image of [`FpuState::len`] bytes. Values from a guest go through [`FpuState::from_guest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FpuState(Vec<u8>);

impl FpuState {
    /// Length of an image on this machine for programs that did not ask for dynamic features (AMX tiles).
    pub fn len() -> usize {
        layout().len
    }

    /// The state after execve: everything in its initial configuration.
    pub fn initial() -> FpuState {
        let mut image = vec![0; Self::len()];
        image[0..2].copy_from_slice(&0x37fu16.to_le_bytes()); // x87 control word
        image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes()); // MXCSR
        FpuState(image)
    }

    /// Takes an image from the host. What lies behind [`FpuState::len`] is in its initial state for all guests.
    pub(crate) fn from_host(mut image: Vec<u8>) -> FpuState {
        image.resize(Self::len(), 0);
        FpuState(image)
    }

    /// The image as PTRACE_SETREGSET wants it: as long as all that the host's kernel has switched on.
    pub(crate) fn for_host(&self) -> Vec<u8> {
        let mut image = self.0.clone();
        image.resize(layout().host_len, 0);
        image
    }

    /// Takes an image that a guest wrote (sigreturn, PTRACE_SETREGSET). Reserved bits that the processor refuses are
    /// cleared as Linux does on sigreturn; unknown components are an error. A short image (FXSAVE, at least 512 bytes) is one
    /// without extended state.
    pub fn from_guest(bytes: &[u8]) -> Result<FpuState, PlatformError> {
        let mut state = Self::initial();
        let len = Self::len();
        if bytes.len() < LEGACY {
            return Err(PlatformError::BadFpu("shorter than the legacy area"));
        }
        let n = if bytes.len() >= LEGACY + HEADER { bytes.len().min(len) } else { LEGACY };
        state.0[..n].copy_from_slice(&bytes[..n]);
        if n == LEGACY {
            state.0[LEGACY] = 3;
        }
        let field = |o: usize| u64::from_le_bytes(std::array::from_fn(|i| state.0[LEGACY + o + i]));
        let (xstate_bv, xcomp_bv) = (field(0), field(8));
        if xstate_bv & !Self::components() != 0 {
            return Err(PlatformError::BadFpu("unknown state components"));
        }
        if xcomp_bv != 0 {
            return Err(PlatformError::BadFpu("compacted form"));
        }
        state.0[LEGACY + 16..LEGACY + HEADER].fill(0);
        let mut mxcsr = u32::from_le_bytes(std::array::from_fn(|i| state.0[24 + i]));
        mxcsr &= 0xffff;
        state.0[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        Ok(state)
    }

    /// Takes an image from a signal frame, which the guest could change. Components that XSAVE left out, because they were in
    /// their initial state, hold old bytes there and are cleared; what makes no sense becomes the initial state.
    pub(crate) fn from_signal_frame(mut image: Vec<u8>) -> FpuState {
        let initial = Self::initial();
        image.resize(initial.0.len(), 0);
        let bv = u64::from_le_bytes(std::array::from_fn(|i| image[LEGACY + i]));
        image[464..LEGACY].fill(0); // the kernel's description of the frame
        if bv & 1 == 0 {
            image[..24].copy_from_slice(&initial.0[..24]);
            image[32..160].fill(0);
        }
        if bv & 2 == 0 {
            image[160..416].fill(0);
        }
        for &(_, start, len) in layout().places.iter().filter(|(c, ..)| bv >> c & 1 == 0) {
            if let Some(part) = image.get_mut(start..start + len) {
                part.fill(0);
            }
        }
        Self::from_guest(&image).unwrap_or(initial)
    }

    /// The mask of state components a guest may use (XCR0 without dynamic features).
    pub fn components() -> u64 {
        layout().components
    }

    /// The image.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
