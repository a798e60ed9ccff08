//! A slab whose keys carry a generation: a stale key never reaches the next tenant of its slot.
//!
//! Slots are reused last in, first out, so that the warm ones are used again. A slot whose
//! generation would wrap is retired for good.

/// Names one value of a [`Slab`], and no other value ever after.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Key {
    /// Which slot.
    pub slot: u32,
    /// Which tenant of the slot, from 0.
    pub generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Vacant { next: Option<u32> },
    Occupied(T),
    Retired,
}

/// See the module.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// One bit a slot, so that a walk skips 64 vacant slots at a time.
    occupied: Vec<u64>,
    free: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// An empty slab. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Slab { entries: Vec::new(), occupied: Vec::new(), free: None, len: 0 }
    }

    /// An empty slab with room for `slots` values before it allocates again.
    #[must_use]
    pub fn with_capacity(slots: usize) -> Self {
        Slab {
            entries: Vec::with_capacity(slots),
            occupied: Vec::with_capacity(slots.div_ceil(64)),
            free: None,
            len: 0,
        }
    }

    /// How many values are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many slots there is memory for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// How many slots were ever used: all keys have a `slot` below this.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Puts a value in. Allocates only where no slot is free.
    ///
    /// # Panics
    /// At 2^32 - 1 slots; memory ends long before.
    pub fn insert(&mut self, value: T) -> Key {
        let slot = match self.free {
            Some(slot) => slot,
            None => self.add_slot(),
        };
        let entry = &mut self.entries[slot as usize];
        if let State::Vacant { next } = entry.state {
            self.free = next;
        }
        entry.state = State::Occupied(value);
        self.occupied[slot as usize / 64] |= 1 << (slot % 64);
        self.len += 1;
        Key { slot, generation: entry.generation }
    }

    fn add_slot(&mut self) -> u32 {
        let slot = self.entries.len();
        assert!(slot < u32::MAX as usize, "a slab is limited to 2^32 - 1 slots");
        self.entries.push(Entry { generation: 0, state: State::Vacant { next: None } });
        if slot.is_multiple_of(64) {
            self.occupied.push(0);
        }
        slot as u32
    }

    /// The value of this key; `None` where it is gone.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.slot as usize) {
            Some(Entry { generation, state: State::Occupied(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The value of this key, to change; `None` where it is gone.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.slot as usize) {
            Some(Entry { generation, state: State::Occupied(value) })
                if *generation == key.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The value in this slot, whoever it is.
    #[inline]
    #[must_use]
    pub fn get_slot(&self, slot: u32) -> Option<&T> {
        match &self.entries.get(slot as usize)?.state {
            State::Occupied(value) => Some(value),
            _ => None,
        }
    }

    /// The value in this slot, whoever it is, to change.
    #[inline]
    pub fn get_slot_mut(&mut self, slot: u32) -> Option<&mut T> {
        match &mut self.entries.get_mut(slot as usize)?.state {
            State::Occupied(value) => Some(value),
            _ => None,
        }
    }

    /// Asks the processor for a slot that will be looked at soon.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.entries.get(slot as usize) {
            crate::prefetch(entry);
        }
    }

    /// The key of the value in this slot.
    #[inline]
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let entry = self.entries.get(slot as usize)?;
        matches!(entry.state, State::Occupied(_))
            .then_some(Key { slot, generation: entry.generation })
    }

    /// Takes the value of this key out; `None` where it is gone.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let entry = &mut self.entries[key.slot as usize];
        let next_state = match entry.generation.checked_add(1) {
            Some(generation) => {
                entry.generation = generation;
                let next = self.free.replace(key.slot);
                State::Vacant { next }
            }
            None => State::Retired,
        };
        self.occupied[key.slot as usize / 64] &= !(1 << (key.slot % 64));
        self.len -= 1;
        match std::mem::replace(&mut entry.state, next_state) {
            State::Occupied(value) => Some(value),
            State::Vacant { .. } | State::Retired => None,
        }
    }

    /// The first value in slot `from` or after it: a walk that survives changes in between and
    /// can be taken up again with `key.slot + 1`. Looks at one word for each 64 slots.
    #[must_use]
    pub fn next_occupied(&self, from: u32) -> Option<Key> {
        let first_word = from as usize / 64;
        let words = self.occupied.get(first_word..)?;
        words
            .iter()
            .enumerate()
            .find_map(|(i, &word)| {
                let word = if i == 0 { word & (u64::MAX << (from % 64)) } else { word };
                (word != 0).then(|| (first_word + i) as u32 * 64 + word.trailing_zeros())
            })
            .and_then(|slot| self.key_at(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stale_key_never_reaches_the_next_tenant() {
        let mut slab = Slab::new();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(new.slot, old.slot);
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
        assert_eq!(slab.key_at(new.slot), Some(new));
    }

    #[test]
    fn slots_are_reused_last_in_first_out() {
        let mut slab = Slab::with_capacity(4);
        let keys: Vec<_> = (0..3).map(|i| slab.insert(i)).collect();
        slab.remove(keys[0]);
        slab.remove(keys[2]);
        assert_eq!(slab.insert(9).slot, keys[2].slot);
        assert_eq!(slab.insert(9).slot, keys[0].slot);
        assert_eq!(slab.slots(), 3);
    }

    #[test]
    fn a_slot_whose_generation_would_wrap_is_retired() {
        let mut slab = Slab::new();
        let first = slab.insert(1);
        slab.entries[0].generation = u32::MAX;
        let last = slab.key_at(first.slot).unwrap();
        assert_eq!(slab.remove(last), Some(1));
        assert_eq!(slab.get(last), None);
        assert_eq!(slab.insert(2).slot, 1);
        assert_eq!(slab.next_occupied(0).unwrap().slot, 1);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_out_of_range_are_none() {
        let mut slab = Slab::<u8>::new();
        let wild = Key { slot: u32::MAX, generation: 0 };
        assert_eq!(slab.get(wild), None);
        assert_eq!(slab.remove(wild), None);
        assert_eq!(slab.get_slot(7), None);
        assert_eq!(slab.next_occupied(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_of_unique_keys(ops in prop::collection::vec((0u8..3, any::<u16>()), 1..400)) {
            let mut slab = Slab::new();
            let mut model = std::collections::BTreeMap::new();
            let mut dead = Vec::new();
            for (op, n) in ops {
                let pick = model.keys().nth(n as usize % model.len().max(1)).copied();
                match (op, pick) {
                    (0 | 1, _) if op == 0 || pick.is_none() => {
                        prop_assert_eq!(model.insert(slab.insert(n), n), None);
                    }
                    (1, Some(key)) => {
                        prop_assert_eq!(slab.remove(key), model.remove(&key));
                        dead.push(key);
                    }
                    (_, Some(key)) => *slab.get_mut(key).unwrap() = *model.entry(key).insert_entry(n).get(),
                    _ => {}
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            for key in dead {
                prop_assert_eq!(slab.get(key), None);
            }
            let mut walked = Vec::new();
            let mut cursor = 0;
            while let Some(key) = slab.next_occupied(cursor) {
                walked.push((key, *slab.get(key).unwrap()));
                cursor = key.slot + 1;
            }
            let mut expected: Vec<_> = model.into_iter().collect();
            expected.sort_by_key(|(key, _)| key.slot);
            prop_assert_eq!(walked, expected);
        }
    }
}
