//! A buffer lent by a share: unique, with a range of used bytes in it.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::rc::Rc;

use super::share::Share;
use crate::frame::Frame;
use crate::page::Page;

/// A buffer of the pool. Goes back when it is dropped.
///
/// The used bytes are `start()..start() + len()`; there may be room before and behind. A fresh
/// buffer has none used, at the front.
///
/// Invariants: `base` is the first byte of a slot of `page` which is lent to this value alone;
/// `page` is assigned to `share`; `start + len <= capacity`.
pub struct PoolBuf {
    base: NonNull<u8>,
    page: NonNull<Page>,
    share: Rc<Share>,
    start: u32,
    len: u32,
}

const _: () = assert!(size_of::<PoolBuf>() <= 32 && size_of::<Option<PoolBuf>>() <= 32);

impl PoolBuf {
    /// # Safety
    /// `base` is the first byte of a slot of `page` that was just lent, for this value, by `share`.
    pub(super) unsafe fn new(share: Rc<Share>, page: NonNull<Page>, base: NonNull<u8>) -> Self {
        PoolBuf { base, page, share, start: 0, len: 0 }
    }

    fn page(&self) -> &Page {
        // SAFETY: the page is assigned for as long as a slot of it is lent: ours.
        unsafe { self.page.as_ref() }
    }

    /// Bytes in all.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.page().slot_bytes()
    }

    /// Offset of the first used byte.
    #[inline]
    #[must_use]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Used bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no byte is used.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The used bytes.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the range lies in our slot, which is initialised and which we have alone; while
        // `self` is borrowed nobody writes.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.start()), self.len()) }
    }

    /// The used bytes, to change.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start(), self.len());
        // SAFETY: as in `data`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(start), len) }
    }

    /// All bytes, used or not.
    #[inline]
    pub fn full_mut(&mut self) -> &mut [u8] {
        let capacity = self.capacity();
        // SAFETY: the whole slot; as in `data_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), capacity) }
    }

    /// Says which bytes are used.
    ///
    /// # Panics
    /// Where the range does not lie in the buffer.
    #[inline]
    pub fn set_range(&mut self, start: usize, len: usize) {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.capacity());
        assert!(fits, "{start}+{len} does not lie in a buffer of {}", self.capacity());
        // Fits: no buffer has more than 2^30 bytes.
        (self.start, self.len) = (start as u32, len as u32);
    }

    /// Makes no byte used, at the front.
    #[inline]
    pub fn clear(&mut self) {
        (self.start, self.len) = (0, 0);
    }

    /// Bytes behind the used ones.
    #[inline]
    #[must_use]
    pub fn tail_room(&self) -> usize {
        self.capacity() - self.start() - self.len()
    }

    /// Copies as much as fits behind the used bytes, and returns how much that was.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare_mut();
        let count = bytes.len().min(spare.len());
        spare[..count].copy_from_slice(&bytes[..count]);
        self.commit(count);
        count
    }

    /// Takes up to `count` bytes off the front of the used ones.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        let count = count.min(self.len()) as u32;
        self.start += count;
        self.len -= count;
    }

    /// The bytes behind the used ones, to fill; [`commit`](Self::commit) then makes them used.
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let end = self.start() + self.len();
        &mut self.full_mut()[end..]
    }

    /// Makes the first `count` of the spare bytes used.
    ///
    /// # Panics
    /// Where there are fewer.
    #[inline]
    pub fn commit(&mut self, count: usize) {
        assert!(count <= self.tail_room(), "{count} bytes behind {} used ones", self.len());
        self.len += count as u32;
    }

    /// Freezes the used bytes: any number of threads may hold them from now on. Neither copies nor
    /// allocates, and needs no room in the buffer.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        let mut this = ManuallyDrop::new(self);
        let (page, slot) = (this.page, this.page().slot_at(this.base));
        this.page().freeze(slot, this.start, this.len);
        // SAFETY: dropped once: `this` itself is not. The share may go with it; the page is kept by
        // the slot, which stays lent.
        unsafe { std::ptr::drop_in_place(&raw mut this.share) };
        // SAFETY: the slot stays lent, was just frozen, and its one reference is passed on.
        unsafe { Frame::from_slot(page, slot) }
    }
}

impl Drop for PoolBuf {
    #[inline]
    fn drop(&mut self) {
        let slot = self.page().slot_at(self.base);
        // SAFETY: the slot was lent to us by this share, and we are gone after this.
        unsafe { self.share.give_back(self.page, slot) };
    }
}

impl AsRef<[u8]> for PoolBuf {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl fmt::Debug for PoolBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuf({}+{} of {})", self.start, self.len, self.capacity())
    }
}
