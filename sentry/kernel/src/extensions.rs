//! Sandbox-wide state of subsystems that the kernel crate does not know: one value per type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Values by their type, made on first use. A subsystem of another crate (anonymous inodes,
/// terminals, sockets) keeps here what it needs once for each sandbox.
#[derive(Default)]
pub struct Extensions {
    values: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Extensions {
    /// The value of a type, made by `make` the first time. `make` must not use the extensions.
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let id = TypeId::of::<T>();
        let found = {
            let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
            values.get(&id).cloned()
        };
        if let Some(Ok(value)) = found.map(Arc::downcast::<T>) {
            return value;
        }
        let new = Arc::new(make());
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let kept = values.entry(id).or_insert_with(|| new.clone());
        Arc::clone(kept).downcast::<T>().unwrap_or(new)
    }
}

impl std::fmt::Debug for Extensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Extensions")
    }
}
