//! Who sees the frames of links (packet(7)): a tap of the packet engine for as long as its holder wants it.

use crate::engine::tap::{FrameSink, TapFilter};
use crate::stack::{Stack, Wire};
use std::sync::Arc;

/// A tap, gone with the value.
pub struct Tapped {
    wire: Arc<dyn Wire>,
    id: u64,
}

impl Tapped {
    /// Changes what is seen.
    pub fn change(&self, filter: TapFilter) {
        self.wire.engine(&mut |engine| engine.net.taps.change(self.id, filter));
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.wire.engine(&mut |engine| engine.net.taps.remove(self.id));
    }
}

impl Stack {
    /// Shows the frames of links; `None` when nothing leads out of this stack.
    pub fn tap(&self, filter: TapFilter, sink: &Arc<dyn FrameSink>) -> Option<Tapped> {
        let wire = self.wire()?;
        let mut id = 0;
        wire.engine(&mut |engine| id = engine.net.taps.add(filter, Arc::clone(sink)));
        Some(Tapped { wire, id })
    }
}
