//! What all TCP connections together may hold (as Linux's tcp_mem): three quarters are pressure, under
//! which buffers do not grow; beyond the limit nothing is kept that can be sent again.

/// Bytes of payload that are queued, and their limit.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    used: usize,
    pub most: usize,
}

/// The limit unless the embedder sets one.
const MOST: usize = 256 << 20;
/// What any connection may have queued, whatever the others hold (SOCK_MIN_SNDBUF).
pub const LEAST: usize = 4608;

impl Default for Memory {
    fn default() -> Memory {
        Memory { used: 0, most: MOST }
    }
}

impl Memory {
    /// A connection that held `before` now holds `after`.
    pub fn account(&mut self, before: usize, after: usize) {
        self.used = (self.used + after).saturating_sub(before);
    }

    pub fn used(&self) -> usize {
        self.used
    }

    /// Buffers shall not grow any more.
    pub fn pressure(&self) -> bool {
        self.used > self.most / 4 * 3
    }

    /// Nothing more is taken in.
    pub fn exhausted(&self) -> bool {
        self.used >= self.most
    }
}
