//! Signals (signal(7)): pending queues, handlers, sending, delivery and the frames on the stack.

mod action;
mod deliver;
mod frame;
mod kill;
mod queue;
mod send;

pub use action::{Default as DefaultAction, STOP_SIGNALS, SigHand, default_action, is_ignored};
pub use deliver::{Delivery, HandlerCall};
pub use frame::{FaultRecord, FrameContext, restore_frame, write_frame};
pub use kill::Sender;
pub use queue::{Pending, Queued, SYNCHRONOUS};
pub(crate) use send::uncharge;
