//! The flow table: hash of a 4-tuple to connection, 8 bytes an entry.
//!
//! Open addressing with linear probing, on hugepages where there are any. It grows at a load of 0.75 by a second table of twice the
//! size, into which each change moves a few entries: no operation ever walks the table. The hash
//! is keyed (see [`crate::secret`]), so that no stranger can aim at one bucket.

use hioload_core::{RegionVec, prefetch_at};

/// Hash in the upper half; connection plus one in the lower. 0 is an empty bucket.
type Entry = u64;

/// In the table that is being left: an entry that moved or was removed; probing goes on.
const MOVED: Entry = u32::MAX as Entry;
/// Buckets of the old table that each insertion and removal moves. With a load of 0.75 the old
/// table is empty long before the new one is full.
const MOVES: usize = 16;
const SMALLEST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct FlowTable {
    buckets: RegionVec<Entry>,
    /// What is left behind while growing.
    old: Option<RegionVec<Entry>>,
    /// Buckets of `old` below this are empty or moved.
    cursor: usize,
    len: usize,
    huge: bool,
    node: Option<u32>,
}

fn entry(hash: u32, value: u32) -> Entry {
    u64::from(hash) << 32 | u64::from(value + 1)
}

fn hash_of(entry: Entry) -> u32 {
    (entry >> 32) as u32
}

fn value_of(entry: Entry) -> u32 {
    (entry as u32).wrapping_sub(1)
}

/// The bucket where probing ends: at the wanted entry, or at an empty one.
fn probe(table: &[Entry], hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
    let mask = table.len().checked_sub(1)?;
    let mut at = hash as usize & mask;
    // At most the whole table: one bucket in four is empty.
    for _ in 0..table.len() {
        let found = table[at];
        if found == 0 {
            return None;
        }
        if found != MOVED && hash_of(found) == hash && is(value_of(found)) {
            return Some(at);
        }
        at = (at + 1) & mask;
    }
    None
}

fn put(table: &mut [Entry], entry: Entry) {
    let mask = table.len() - 1;
    let mut at = hash_of(entry) as usize & mask;
    while table[at] != 0 {
        at = (at + 1) & mask;
    }
    table[at] = entry;
}

impl FlowTable {
    /// An empty table, on hugepages with `huge`, near `node`; `None` where the system has no memory.
    pub(crate) fn new(huge: bool, node: Option<u32>) -> Option<FlowTable> {
        let buckets = RegionVec::zeroed(SMALLEST, huge, node).ok()?;
        Some(FlowTable { buckets, old: None, cursor: 0, len: 0, huge, node })
    }

    /// Buckets that there is memory for.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len() + self.old.as_ref().map_or(0, |old| old.len())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Asks for the cache line where probing begins.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch_at(&self.buckets[hash as usize & (self.buckets.len() - 1)]);
    }

    /// The value with this hash for which `is` says yes.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if let Some(at) = probe(&self.buckets, hash, &mut is) {
            return Some(value_of(self.buckets[at]));
        }
        let old = self.old.as_ref()?;
        probe(old, hash, is).map(|at| value_of(old[at]))
    }

    /// The first value with this hash: for prefetching what it names.
    #[inline]
    pub(crate) fn guess(&self, hash: u32) -> Option<u32> {
        let found = self.buckets[hash as usize & (self.buckets.len() - 1)];
        (hash_of(found) == hash && found != 0).then(|| value_of(found))
    }

    /// Adds a value that isn't there yet, below 2^32 - 2. The caller bounds their number. False
    /// where the table is full and the system has no memory for a larger one.
    pub(crate) fn insert(&mut self, hash: u32, value: u32) -> bool {
        self.migrate();
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            // What is left of an earlier growth first; in practice nothing is.
            while self.old.is_some() {
                self.migrate();
            }
            let Ok(bigger) = RegionVec::zeroed(self.buckets.len() * 2, self.huge, self.node) else {
                return false;
            };
            self.old = Some(std::mem::replace(&mut self.buckets, bigger));
            self.cursor = 0;
        }
        put(&mut self.buckets, entry(hash, value));
        self.len += 1;
        true
    }

    /// Takes a value out; false where it isn't there.
    pub(crate) fn remove(&mut self, hash: u32, value: u32) -> bool {
        self.migrate();
        if let Some(at) = probe(&self.buckets, hash, |found| found == value) {
            self.close_gap(at);
        } else if let Some(old) = &mut self.old
            && let Some(at) = probe(old, hash, |found| found == value)
        {
            old[at] = MOVED;
        } else {
            return false;
        }
        self.len -= 1;
        true
    }

    /// Empties a bucket and moves what was pushed past it back, so that no probe breaks.
    fn close_gap(&mut self, mut gap: usize) {
        let table = &mut self.buckets;
        let mask = table.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let found = table[at];
            if found == 0 {
                break;
            }
            let home = hash_of(found) as usize & mask;
            // It may move where the gap lies between its home and its place.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                table[gap] = found;
                gap = at;
            }
        }
        table[gap] = 0;
    }

    pub(crate) fn migrate(&mut self) {
        let Some(old) = &mut self.old else { return };
        let end = (self.cursor + MOVES).min(old.len());
        for at in self.cursor..end {
            let found = old[at];
            if found != 0 && found != MOVED {
                put(&mut self.buckets, found);
                old[at] = MOVED;
            }
        }
        self.cursor = end;
        if end == old.len() {
            self.old = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few distinct hashes, so that runs collide, wrap and are cut in the middle.
        #[test]
        fn behaves_as_a_map_while_it_grows(ops in prop::collection::vec((any::<u32>(), 0u8..5), 1..2000)) {
            let mut table = FlowTable::new(false, None).unwrap();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (step, (n, op)) in ops.into_iter().enumerate() {
                if op < 3 {
                    let hash = if n % 3 == 0 { n } else { (n % 97) | (n << 31) };
                    let value = step as u32;
                    prop_assert!(table.insert(hash, value));
                    model.insert(value, hash);
                } else if let Some((&value, &hash)) = model.range(n % (step as u32 + 1)..).next() {
                    prop_assert!(table.remove(hash, value));
                    prop_assert!(!table.remove(hash, value));
                    model.remove(&value);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (&value, &hash) in &model {
                prop_assert_eq!(table.find(hash, |found| found == value), Some(value));
            }
        }
    }

    #[test]
    fn a_million_flows_take_no_more_than_their_budget_and_none_is_lost() {
        let mut table = FlowTable::new(false, None).unwrap();
        let hash = |n: u32| n.wrapping_mul(2_654_435_761).rotate_left(7);
        let mut most_at_once = 0;
        for n in 0..1_000_000 {
            assert!(table.insert(hash(n), n));
            most_at_once = most_at_once.max(table.buckets());
        }
        for n in 0..1_000_000 {
            assert_eq!(table.find(hash(n), |found| found == n), Some(n));
        }
        assert_eq!(most_at_once, (1 << 20) * 3, "while growing, the old table and the new one");
        for n in 0..1_000_000 {
            assert!(table.remove(hash(n), n));
        }
        assert_eq!(table.len(), 0);
    }
}
