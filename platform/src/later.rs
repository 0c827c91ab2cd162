//! Work on which the answer to a call does not depend (writing frames to the wire): the thread of a task does it as soon as its guest
//! goes on, instead of waiting idly for the next trap, or before it sleeps. Its time counts as the guest's.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Something that can be put off.
pub trait Work: Send + Sync {
    fn work(&self);
}

thread_local! {
    static COMES_BY: Cell<bool> = const { Cell::new(false) };
    static WORKS: RefCell<Vec<Arc<dyn Work>>> = const { RefCell::new(Vec::new()) };
}

/// From now on the calling thread will [`catch_up`] soon after each call that it answers, or not any more.
pub fn comes_by(comes: bool) {
    COMES_BY.set(comes);
    if !comes {
        catch_up();
    }
}

/// Leaves work to the next [`catch_up`] of the calling thread. False: it will not come by, do it now.
pub fn put_off<W: Work + 'static>(work: &Arc<W>) -> bool {
    let comes = COMES_BY.get();
    if comes {
        WORKS.with_borrow_mut(|works| {
            // Once, however often a call asks for it.
            if !works.iter().any(|other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(work))) {
                works.push(Arc::clone(work) as Arc<dyn Work>);
            }
        });
    }
    comes
}

/// Does what the calling thread has put off.
pub fn catch_up() {
    while let Some(work) = WORKS.with_borrow_mut(Vec::pop) {
        work.work();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Work for Count {
        fn work(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn work_waits_for_whoever_comes_by() {
        let count = Arc::new(Count::default());
        let done = || count.0.load(Ordering::Relaxed);
        assert!(!put_off(&count), "this thread promised nothing");
        comes_by(true);
        assert!(put_off(&count) && put_off(&count));
        assert_eq!(done(), 0);
        catch_up();
        catch_up();
        assert_eq!(done(), 1);
        assert!(put_off(&count));
        comes_by(false);
        assert_eq!(done(), 2, "the last chance");
        assert!(!put_off(&count));
    }
}
