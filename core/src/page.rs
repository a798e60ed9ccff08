//! A page of the pool: 2 MiB cut into slots of one size class, or one dedicated big slot.
//!
//! Invariants, on which every `unsafe` of `page.rs`, `pool/` and `frame.rs` rests:
//!
//! 1. A page is either *resting* (in a `Box`: whoever has the box has it alone) or *assigned* to
//!    one share, its owner (a raw pointer made from that box). Fields in cells marked "owner" are
//!    touched by the owner's thread alone while the page is assigned.
//! 2. A slot is free (in the free list or never used), or lent. A lent slot is either a `PoolBuf`,
//!    which is unique and stays on the owner's thread, or frozen: then `refs` frames exist, on any
//!    thread, its range is fixed and its bytes are only read. `used` counts the lent slots,
//!    those on their way home included.
//! 3. `class`, `slots`, `node` and `home` are written only while the page rests; a page rests only
//!    while no slot is lent. So whoever holds a lent slot may read them.
//! 4. An assigned page holds a reference to its node and to its owner's inbox, so both live as
//!    long as any slot is lent.
//! 5. The last frame of a slot pushes the slot to the inbox, or, where that is closed, counts
//!    `orphan_left` down. After either, it touches neither page nor slot nor inbox. The owner
//!    closes the inbox when it goes and then adds what is still lent to each page's `orphan_left`;
//!    whoever brings that to zero by its own step has the page alone and puts it to rest.
//! 6. All bytes of a region are initialised: the system gives zeros, and nobody uninitialises.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU32, Ordering, fence};

use crossbeam_utils::CachePadded;

use crate::pool::inbox::{Inbox, Link};
use crate::pool::{CLASSES, node::Node};
use crate::region::{HUGE_PAGE_BYTES, Region};

/// Bytes of a page that is cut into slots.
pub(crate) const PAGE_BYTES: usize = HUGE_PAGE_BYTES;
/// Ends the free list.
const NIL: u32 = u32::MAX;
/// Where a page is not in a list.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A slot on its way home. Written into the slot's own first bytes: its content is dead by then.
#[derive(Copy, Clone)]
pub(crate) struct Home {
    pub(crate) page: NonNull<Page>,
    pub(crate) slot: u32,
}

pub(crate) type HomeInbox = CachePadded<Inbox<Home>>;

const _: () = assert!(size_of::<Link<Home>>() <= CLASSES[0] && align_of::<Link<Home>>() <= 16);

/// What a page is cut into.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// Slots of the class with this index.
    Class(usize),
    /// One slot, the whole region; the page is unmapped when it comes back.
    Dedicated,
}

/// What is known of a slot, beside the page so that the slot itself is all payload.
struct Slot {
    /// Frames of the slot, while it is frozen.
    refs: AtomicU32,
    /// The frozen range; fixed before the first frame exists.
    start: Cell<u32>,
    len: Cell<u32>,
    /// Owner: the next free slot.
    next: Cell<u32>,
}

const _: () = assert!(size_of::<Slot>() == 16);

/// More references than this to one frame is a leak, and would overflow in the end.
const REFS_MAX: u32 = u32::MAX / 2;

pub(crate) struct Page {
    region: Region,
    cut: Cut,
    slot_shift: u32,
    slots: Box<[Slot]>,
    node: Option<Arc<Node>>,
    home: Option<Arc<HomeInbox>>,
    orphan_left: AtomicIsize,
    /// Owner: first of the free list, and the first slot never used since the page was cut.
    free: Cell<u32>,
    fresh: Cell<u32>,
    /// Owner: lent slots.
    used: Cell<u32>,
    /// Owner: where it stands in the share's lists.
    pub(crate) all_index: Cell<u32>,
    pub(crate) open_index: Cell<u32>,
    /// Keeps the type `!Sync`, whatever the other fields are: see invariant 1.
    _not_sync: UnsafeCell<()>,
}

// SAFETY: sent only as a resting page, which the sender has alone (invariant 1).
unsafe impl Send for Page {}

impl Page {
    /// A resting page on a region.
    pub(crate) fn new(region: Region) -> Box<Page> {
        Box::new(Page {
            region,
            cut: Cut::Dedicated,
            slot_shift: 0,
            slots: Box::default(),
            node: None,
            home: None,
            orphan_left: AtomicIsize::new(0),
            free: Cell::new(NIL),
            fresh: Cell::new(0),
            used: Cell::new(0),
            all_index: Cell::new(NOWHERE),
            open_index: Cell::new(NOWHERE),
            _not_sync: UnsafeCell::new(()),
        })
    }

    /// Cuts a resting page and assigns it to the share with that inbox.
    pub(crate) fn assign(
        mut self: Box<Self>,
        cut: Cut,
        node: Arc<Node>,
        home: Arc<HomeInbox>,
    ) -> NonNull<Page> {
        let count = match cut {
            Cut::Class(class) => {
                self.slot_shift = CLASSES[class].trailing_zeros();
                PAGE_BYTES >> self.slot_shift
            }
            // One slot, at offset zero whatever the shift.
            Cut::Dedicated => 1,
        };
        if self.cut != cut || self.slots.len() != count {
            let slot = || Slot {
                refs: AtomicU32::new(0),
                start: Cell::new(0),
                len: Cell::new(0),
                next: Cell::new(NIL),
            };
            self.slots = std::iter::repeat_with(slot).take(count).collect();
        }
        debug_assert!(self.used.get() == 0 && *self.orphan_left.get_mut() == 0);
        self.cut = cut;
        self.free.set(NIL);
        self.fresh.set(0);
        self.node = Some(node);
        self.home = Some(home);
        NonNull::from(Box::leak(self))
    }

    /// Puts an assigned page to rest at its node.
    ///
    /// # Safety
    /// The caller has the page alone: no slot is lent, no pointer to it is used afterwards.
    pub(crate) unsafe fn rest(page: NonNull<Page>) {
        // SAFETY: made by `Box::leak` in `assign`, and the caller's alone.
        let mut page = unsafe { Box::from_raw(page.as_ptr()) };
        page.used.set(0);
        page.home = None;
        if let Some(node) = page.node.take() {
            node.take_back(page);
        }
    }

    pub(crate) fn cut(&self) -> Cut {
        self.cut
    }

    pub(crate) fn region_bytes(&self) -> usize {
        self.region.len()
    }

    /// Bytes of each slot.
    pub(crate) fn slot_bytes(&self) -> usize {
        match self.cut {
            Cut::Class(class) => CLASSES[class],
            Cut::Dedicated => self.region.len(),
        }
    }

    /// First byte of a slot.
    #[inline]
    pub(crate) fn slot_base(&self, slot: u32) -> NonNull<u8> {
        debug_assert!((slot as usize) < self.slots.len());
        // SAFETY: slots tile the region, and `slot` is one of them: still inside of it.
        unsafe { self.region.base().add((slot as usize) << self.slot_shift) }
    }

    /// Which slot starts at `base`.
    #[inline]
    pub(crate) fn slot_at(&self, base: NonNull<u8>) -> u32 {
        let offset = base.addr().get() - self.region.base().addr().get();
        match self.cut {
            Cut::Class(_) => (offset >> self.slot_shift) as u32,
            Cut::Dedicated => 0,
        }
    }

    /// Owner: lent slots.
    #[inline]
    pub(crate) fn used(&self) -> u32 {
        self.used.get()
    }

    /// Owner: whether every slot is lent.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.used.get() as usize == self.slots.len()
    }

    /// Owner: lends a slot.
    #[inline]
    pub(crate) fn pop_slot(&self) -> Option<u32> {
        let slot = match self.free.get() {
            NIL => {
                let fresh = self.fresh.get();
                if fresh as usize == self.slots.len() {
                    return None;
                }
                self.fresh.set(fresh + 1);
                fresh
            }
            slot => {
                self.free.set(self.slots[slot as usize].next.get());
                slot
            }
        };
        self.used.set(self.used.get() + 1);
        Some(slot)
    }

    /// Owner: takes a lent slot back.
    #[inline]
    pub(crate) fn push_slot(&self, slot: u32) {
        debug_assert!(self.used.get() > 0, "a slot came back twice");
        self.slots[slot as usize].next.set(self.free.replace(slot));
        self.used.set(self.used.get() - 1);
    }

    /// Owner: fixes the range of a lent slot and counts one frame of it.
    pub(crate) fn freeze(&self, slot: u32, start: u32, len: u32) {
        debug_assert!(start as usize + len as usize <= self.slot_bytes());
        let slot = &self.slots[slot as usize];
        slot.start.set(start);
        slot.len.set(len);
        slot.refs.store(1, Ordering::Relaxed);
    }

    /// The bytes of a frozen slot.
    ///
    /// # Safety
    /// The caller holds a reference to the slot for as long as the result is used.
    #[inline]
    pub(crate) unsafe fn frozen_bytes(&self, slot: u32) -> &[u8] {
        let base = self.slot_base(slot);
        let slot = &self.slots[slot as usize];
        let (start, len) = (slot.start.get() as usize, slot.len.get() as usize);
        // SAFETY: the range lies in the slot (`freeze`), is initialised (6) and is only read while
        // the caller's reference is there (2).
        unsafe { std::slice::from_raw_parts(base.as_ptr().add(start), len) }
    }

    /// References to a frozen slot, by one who holds one.
    pub(crate) fn references(&self, slot: u32) -> u32 {
        self.slots[slot as usize].refs.load(Ordering::Relaxed)
    }

    /// One more reference to a frozen slot, by one who holds one.
    #[inline]
    pub(crate) fn add_reference(&self, slot: u32) {
        // Relaxed: the new reference comes from one that is there.
        let before = self.slots[slot as usize].refs.fetch_add(1, Ordering::Relaxed);
        if before > REFS_MAX {
            // A count that wraps would free memory in use; going on is not safe.
            std::process::abort();
        }
    }

    /// Gives one reference up; the last one sends the slot home.
    ///
    /// # Safety
    /// The caller holds a reference to the slot and does not use it again. Takes a pointer, not a
    /// `&self`: the page may be gone before this returns.
    #[inline]
    pub(crate) unsafe fn drop_reference(page: NonNull<Page>, slot: u32) {
        // SAFETY: the caller's reference keeps the page assigned until the slot is sent home.
        let refs = unsafe { &page.as_ref().slots[slot as usize].refs };
        // Ours is the only one: nobody else can add or drop any, so no locked instruction.
        let last = refs.load(Ordering::Acquire) == 1
            || (refs.fetch_sub(1, Ordering::Release) == 1 && {
                // The reads of all other holders are over.
                fence(Ordering::Acquire);
                true
            });
        if last {
            // SAFETY: the slot is ours alone now.
            unsafe { Self::send_home(page, slot) };
        }
    }

    /// # Safety
    /// The slot is frozen and has no frame any more; its page is assigned.
    #[cold]
    unsafe fn send_home(page: NonNull<Page>, slot: u32) {
        // SAFETY: the slot is still lent, so the page is assigned and has its inbox (4).
        let (base, inbox): (_, *const HomeInbox) = unsafe {
            let page = page.as_ref();
            let Some(home) = &page.home else { return };
            (page.slot_base(slot), Arc::as_ptr(home))
        };
        let link = base.cast::<Link<Home>>().as_ptr();
        // SAFETY: the slot is ours, large enough (const assert above) and aligned to 512 at least.
        // `inbox` lives until the push is through (4, 5); its `&self` covers nothing but an atomic.
        let accepted = unsafe {
            link.write(Link { next: std::ptr::null_mut(), item: Home { page, slot } });
            (**inbox).push(link)
        };
        if !accepted {
            // SAFETY: the inbox is closed and the slot still lent: it is our turn to count.
            unsafe { Self::count_orphan(page, -1) };
        }
    }

    /// Adds to the count of slots that an orphaned page still misses, and puts the page to rest
    /// where that makes it zero.
    ///
    /// # Safety
    /// Called by the owner that closed the inbox with what is lent (once, not zero), or with -1 by
    /// the last frame of a slot that the inbox refused; the caller touches the page no more.
    pub(crate) unsafe fn count_orphan(page: NonNull<Page>, change: isize) {
        // SAFETY: the caller's own slot, or ownership, keeps the page up to this step. AcqRel: who
        // comes last sees all that the others did.
        let before = unsafe { page.as_ref().orphan_left.fetch_add(change, Ordering::AcqRel) };
        if before + change == 0 {
            // SAFETY: by (5) exactly one step reaches zero, and all others are through.
            unsafe { Self::rest(page) };
        }
    }
}
