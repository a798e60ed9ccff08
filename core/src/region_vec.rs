//! A vector of fixed capacity in a [`Region`] of its own. Tables that are read in random order
//! belong on hugepages: with small pages each look-up of a large one walks the page table, too.
//!
//! Invariants: the first `len` elements are initialised, nothing beyond them is, and `capacity`
//! elements fit in the region. Elements never move.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::region::{MemoryError, Region};

/// See the module.
pub struct RegionVec<T> {
    region: Region,
    len: usize,
    capacity: usize,
    _elements: PhantomData<T>,
}

impl<T> RegionVec<T> {
    /// Room for `capacity` elements; what is never filled takes no memory but address space.
    ///
    /// # Errors
    /// Those of [`Region::map`].
    pub fn with_capacity(
        capacity: usize,
        huge: bool,
        node: Option<u32>,
    ) -> Result<RegionVec<T>, MemoryError> {
        const { assert!(align_of::<T>() <= 4096, "a region begins at a page") };
        let bytes = capacity.saturating_mul(size_of::<T>());
        let region = Region::map(bytes, huge, node)?;
        Ok(RegionVec { region, len: 0, capacity, _elements: PhantomData })
    }

    /// Appends an element; it comes back where there is no room.
    ///
    /// # Errors
    /// The vector is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity {
            return Err(value);
        }
        // SAFETY: `len < capacity`, so the place is inside the region, aligned, and holds nothing.
        unsafe { self.region.base().cast::<T>().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }
}

impl RegionVec<u64> {
    /// `len` zeros.
    ///
    /// # Errors
    /// Those of [`Region::map`].
    pub fn zeroed(
        len: usize,
        huge: bool,
        node: Option<u32>,
    ) -> Result<RegionVec<u64>, MemoryError> {
        let mut zeros = RegionVec::with_capacity(len, huge, node)?;
        // A fresh region is zeros, which are valid numbers.
        zeros.len = len;
        Ok(zeros)
    }
}

impl<T> Deref for RegionVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` elements are initialised, and borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.region.base().cast().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for RegionVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; `&mut self` makes it the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.region.base().cast().as_ptr(), self.len) }
    }
}

impl<T> Drop for RegionVec<T> {
    fn drop(&mut self) {
        let elements: *mut [T] = &mut **self;
        // SAFETY: initialised, dropped once, and out of reach afterwards.
        unsafe { elements.drop_in_place() };
    }
}

impl<T: fmt::Debug> fmt::Debug for RegionVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionVec").field("len", &self.len).field("region", &self.region).finish()
    }
}

// SAFETY: it owns its elements and its region, as a `Vec` does; nothing is shared.
unsafe impl<T: Send> Send for RegionVec<T> {}
// SAFETY: `&RegionVec<T>` gives away `&[T]` only.
unsafe impl<T: Sync> Sync for RegionVec<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn it_fills_up_gives_back_what_finds_no_room_and_drops_each_once() {
        let one = Rc::new(());
        let mut all = RegionVec::with_capacity(100, false, None).unwrap();
        for _ in 0..100 {
            assert!(all.push(Rc::clone(&one)).is_ok());
        }
        assert!(all.push(Rc::clone(&one)).is_err());
        assert_eq!((all.len(), Rc::strong_count(&one)), (100, 101));
        drop(all);
        assert_eq!(Rc::strong_count(&one), 1);
    }

    #[test]
    fn zeros_are_zeros_and_can_be_changed() {
        for len in [0, 1, 1000, 300_000] {
            let mut zeros = RegionVec::zeroed(len, true, None).unwrap();
            assert_eq!(zeros.len(), len);
            assert!(zeros.iter().all(|&n| n == 0));
            if let Some(last) = zeros.last_mut() {
                *last = 7;
            }
            assert_eq!(zeros.last().copied(), (len > 0).then_some(7));
        }
    }

    #[test]
    fn more_than_an_address_space_is_an_error() {
        assert!(RegionVec::<u64>::with_capacity(usize::MAX / 4, false, None).is_err());
    }
}
