//! Stub processes: one for each guest address space, holding guest mappings and a few pages of ours at the top.
//!
//! A *zygote*, forked from the sentry at start and emptied of everything, forks a stub process on command in about a hundred
//! microseconds, whatever the sentry has grown to. The first thread of a stub process is its *mapper*: it runs read-only text,
//! keeps its state in registers and executes batches of system calls that the sentry writes to a page which the
//! stub can only read. What it reports it writes through the descriptor of the control file, which no guest can do. So
//! guest code can neither forge a command nor an answer, though it shares the address space.
//!
//! All stubs share the sentry's descriptor table (CLONE_FILES), so files are mapped by the sentry's own numbers.
//!
//! Here: making and ending stub processes, and running batches. Not here: how guest threads run (`ptrace`, `systrap`).

mod control;
mod filter;
mod keeper;
pub mod layout;
mod mapper;
mod space;
mod text;
mod vdso;

pub use keeper::Stubs;
pub use space::{Selector, StubSpace, limits};
pub use text::{FastText, exit_address, fast_text, first_address, guest_mask, parked_address};
pub use vdso::{ClockCode, remember as remember_vdso};
