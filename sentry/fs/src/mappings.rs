//! Which address spaces map an object, for those that must take pages back.

use std::ops::Range;
use std::sync::{Arc, Weak};

use kernel::mm::{Mappable, Mm};
use ksync::{LockClass, Mutex};

/// The address spaces that map an object and how many bytes of it each maps. Mappings are split without notice, so bytes
/// are what can be counted.
pub(crate) struct Mappings(Mutex<Vec<(Weak<Mm>, u64)>>);

impl Default for Mappings {
    fn default() -> Mappings {
        Mappings(Mutex::new(LockClass::Mappings, Vec::new()))
    }
}

impl Mappings {
    /// For `Mappable::add_mapping`.
    pub(crate) fn add(&self, mm: &Weak<Mm>, range: &Range<u64>) {
        let mut all = self.0.lock();
        let bytes = range.end.saturating_sub(range.start);
        match all.iter_mut().find(|(known, _)| known.ptr_eq(mm)) {
            Some((_, mapped)) => *mapped = mapped.saturating_add(bytes),
            None => all.push((mm.clone(), bytes)),
        }
    }

    /// For `Mappable::remove_mapping`.
    pub(crate) fn remove(&self, mm: &Weak<Mm>, range: &Range<u64>) {
        let mut all = self.0.lock();
        if let Some(at) = all.iter().position(|(known, _)| known.ptr_eq(mm)) {
            let bytes = range.end.saturating_sub(range.start);
            match all.get_mut(at) {
                Some((_, mapped)) if *mapped > bytes => *mapped -= bytes,
                _ => drop(all.swap_remove(at)),
            }
        }
    }

    /// Nobody maps the object.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Makes mappings of the range ask again where the data is; `even_private`: pages that a write to a private mapping copied
    /// go as well, as when a file is truncated.
    pub(crate) fn invalidate(&self, object: &dyn Mappable, range: &Range<u64>, even_private: bool) {
        let all: Vec<Arc<Mm>> = self.0.lock().iter().filter_map(|(mm, _)| mm.upgrade()).collect();
        for mm in all {
            mm.invalidate(object, range.clone(), even_private);
        }
    }
}
