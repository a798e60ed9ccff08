//! Immutable bytes that any thread may hold: what a broadcast or a cross-core send carries.
//!
//! Made from a [`PoolBuf`](crate::pool::PoolBuf) a frame is that very buffer; the reference count
//! is in the page's slot table, so nothing is copied and nothing allocated. The last reference
//! sends the buffer home to the share that it came from, on whichever thread it is dropped.
//!
//! Invariants of a pool frame: its slot's count is the number of `Frame`s of it; while that is not
//! zero the slot is lent, its range is fixed and its bytes are only read, and its page stays where
//! it is (see `page.rs`).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::page::Page;

/// Shared, immutable bytes. See the module.
#[derive(Default)]
pub struct Frame {
    repr: Repr,
}

#[derive(Default)]
enum Repr {
    #[default]
    Empty,
    Heap(Arc<Box<[u8]>>),
    Pool(NonNull<Page>, u32),
}

const _: () = assert!(size_of::<Frame>() == 16);

// SAFETY: the bytes are only read, the count is atomic, and the page is made for being let go on
// any thread.
unsafe impl Send for Frame {}
// SAFETY: as above.
unsafe impl Sync for Frame {}

impl Frame {
    /// Copies bytes to the heap: for threads that are no worker and have no pool.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Frame {
        Frame { repr: Repr::Heap(Arc::new(bytes.into())) }
    }

    /// Takes over a lent slot whose count was set to one.
    ///
    /// # Safety
    /// The page's `slot` is lent, [`Page::freeze`] was called on it and its one reference is given
    /// to this call.
    pub(crate) unsafe fn from_slot(page: NonNull<Page>, slot: u32) -> Frame {
        Frame { repr: Repr::Pool(page, slot) }
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.repr {
            Repr::Empty => &[],
            Repr::Heap(bytes) => bytes,
            Repr::Pool(page, slot) => {
                // SAFETY: we hold a reference, so the page lives and the slot is frozen; the bytes
                // stay as they are for as long as `self` is borrowed.
                unsafe { page.as_ref().frozen_bytes(*slot) }
            }
        }
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// How many references there are now; another thread may be changing that.
    #[must_use]
    pub fn references(&self) -> usize {
        match &self.repr {
            Repr::Empty => 1,
            Repr::Heap(bytes) => Arc::strong_count(bytes),
            // SAFETY: as in `as_bytes`.
            Repr::Pool(page, slot) => unsafe { page.as_ref().references(*slot) as usize },
        }
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Self {
        let repr = match &self.repr {
            Repr::Empty => Repr::Empty,
            Repr::Heap(bytes) => Repr::Heap(Arc::clone(bytes)),
            Repr::Pool(page, slot) => {
                // SAFETY: we hold a reference, so the page lives and the slot is frozen.
                unsafe { page.as_ref().add_reference(*slot) };
                Repr::Pool(*page, *slot)
            }
        };
        Frame { repr }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if let Repr::Pool(page, slot) = self.repr {
            // SAFETY: the reference that this frame held is given up, and not used again.
            unsafe { Page::drop_reference(page, slot) };
        }
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Frame {}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
