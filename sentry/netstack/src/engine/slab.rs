//! A table of objects under small numbers with a generation, so that a stale handle finds nothing.

/// The handle of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle {
    pub index: u32,
    pub generation: u32,
}

#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> Handle {
        let value = Some(Box::new(value));
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.1 = value;
            return Handle { index, generation: slot.0 };
        }
        self.slots.push((1, value));
        Handle { index: (self.slots.len() - 1) as u32, generation: 1 }
    }

    pub fn get(&self, handle: Handle) -> Option<&T> {
        let (generation, value) = self.slots.get(handle.index as usize)?;
        value.as_deref().filter(|_| *generation == handle.generation)
    }

    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(handle.index as usize)?;
        value.as_deref_mut().filter(|_| *generation == handle.generation)
    }

    pub fn remove(&mut self, handle: Handle) -> Option<Box<T>> {
        let (generation, value) = self.slots.get_mut(handle.index as usize)?;
        if *generation != handle.generation {
            return None;
        }
        let value = value.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(handle.index);
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, value))| {
            Some((Handle { index: index as u32, generation: *generation }, value.as_deref()?))
        })
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
