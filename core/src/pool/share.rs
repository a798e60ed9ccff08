//! A worker's share of the pool: it owns its pages and lends their slots.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::buf::PoolBuf;
use super::node::{Node, Pressure};
use super::{CLASSES, class_of};
use crate::page::{Cut, Home, HomeInbox, NOWHERE, Page};
use crate::pool::inbox::{Inbox, Link};

/// The largest buffer there is, in bytes.
const BUFFER_MAX: usize = 1 << 30;

/// A worker's share. Clones are handles to the same one; it never leaves its thread. It lives on
/// until its last handle and its last [`PoolBuf`] are gone; frames that are still out then find
/// their way to the node on their own.
#[derive(Clone)]
pub struct Pool {
    share: Rc<Share>,
}

/// What a share did since it began, and what it holds now.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct PoolStats {
    /// Buffers that came from pages the share had.
    pub hit: u64,
    /// Buffers for which a page had to come from the node.
    pub miss: u64,
    /// Buffers larger than the largest class, with memory of their own.
    pub fallback: u64,
    /// Buffers refused: the budget is spent or the system has no more.
    pub failed: u64,
    /// Buffers taken: `hit + miss + fallback`.
    pub taken: u64,
    /// Buffers that came back.
    pub returned: u64,
    /// Buffers that are out now, frames included.
    pub lent: u64,
    /// Bytes of those, whole slots.
    pub lent_bytes: u64,
    /// Pages that the share has now, dedicated ones included.
    pub pages: u64,
}

pub(super) struct Share {
    node: Arc<Node>,
    home: Arc<HomeInbox>,
    lists: RefCell<Lists>,
    hit: Cell<u64>,
    miss: Cell<u64>,
    fallback: Cell<u64>,
    failed: Cell<u64>,
    returned: Cell<u64>,
    lent_bytes: Cell<u64>,
}

/// The pages of a share. Every pointer in here is to a page assigned to it (invariant 1 of
/// `page.rs`), so dereferencing one is sound until the page is put to rest, and a page is taken
/// out of all lists before that.
struct Lists {
    all: Vec<NonNull<Page>>,
    /// A class: the pages with a free slot. The last is used first.
    open: [Vec<NonNull<Page>>; CLASSES.len()],
    /// A class: how many of the open pages have nothing lent.
    spare: [u32; CLASSES.len()],
}

fn bump(count: &Cell<u64>, by: u64) {
    count.set(count.get() + by);
}

impl Pool {
    pub(super) fn new(node: Arc<Node>) -> Pool {
        let lists = Lists {
            all: Vec::new(),
            open: [const { Vec::new() }; CLASSES.len()],
            spare: [0; CLASSES.len()],
        };
        Pool {
            share: Rc::new(Share {
                node,
                home: Arc::new(CachePadded::new(Inbox::new())),
                lists: RefCell::new(lists),
                hit: Cell::new(0),
                miss: Cell::new(0),
                fallback: Cell::new(0),
                failed: Cell::new(0),
                returned: Cell::new(0),
                lent_bytes: Cell::new(0),
            }),
        }
    }

    /// A buffer of at least `bytes`, of the smallest class that fits; above 1 MiB, memory of its
    /// own within the same budget. Its content is whatever the last user left.
    ///
    /// `None` where the budget is spent, or above 1 GiB.
    #[inline]
    #[must_use]
    pub fn alloc(&self, bytes: usize) -> Option<PoolBuf> {
        let share = &self.share;
        let (page, slot) = match class_of(bytes) {
            Some(class) => match share.pop(class) {
                Some(taken) => taken,
                None => share.take_slow(class)?,
            },
            None => share.take_dedicated(bytes)?,
        };
        // SAFETY: the page is the share's.
        let (base, capacity) =
            unsafe { (page.as_ref().slot_base(slot), page.as_ref().slot_bytes()) };
        bump(&share.lent_bytes, capacity as u64);
        // SAFETY: the slot was just lent, to this buffer.
        Some(unsafe { PoolBuf::new(Rc::clone(share), page, base) })
    }

    /// Takes in what frames on any thread have let go since the last time, and returns how many.
    /// One relaxed load where there is nothing. `alloc` does this itself before it asks the node;
    /// a worker calls it now and then, so that memory which it no longer uses gets free.
    pub fn collect(&self) -> usize {
        self.share.collect()
    }

    /// Gives all pages that have nothing lent back to the node, those kept in reserve included.
    pub fn trim(&self) {
        self.share.collect();
        self.share.lists.borrow_mut().trim();
    }

    /// How near the node's budget is. One relaxed load.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.share.node.pressure()
    }

    /// Counts, after a [`collect`](Self::collect).
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let share = &self.share;
        share.collect();
        let (hit, miss, fallback) = (share.hit.get(), share.miss.get(), share.fallback.get());
        let taken = hit + miss + fallback;
        PoolStats {
            hit,
            miss,
            fallback,
            failed: share.failed.get(),
            taken,
            returned: share.returned.get(),
            lent: taken - share.returned.get(),
            lent_bytes: share.lent_bytes.get(),
            pages: share.lists.borrow().all.len() as u64,
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish()
    }
}

impl Share {
    /// Lends a slot of the pages that we have.
    #[inline]
    fn pop(&self, class: usize) -> Option<(NonNull<Page>, u32)> {
        let taken = self.lists.borrow_mut().pop(class)?;
        bump(&self.hit, 1);
        Some(taken)
    }

    #[cold]
    fn take_slow(&self, class: usize) -> Option<(NonNull<Page>, u32)> {
        if self.collect() > 0
            && let taken @ Some(_) = self.pop(class)
        {
            return taken;
        }
        let taken = self.with_room(|| self.node.take_page(class, &self.home))?;
        let mut lists = self.lists.borrow_mut();
        lists.add(taken);
        lists.add_open(class, taken);
        lists.spare[class] += 1;
        bump(&self.miss, 1);
        lists.pop(class)
    }

    #[cold]
    fn take_dedicated(&self, bytes: usize) -> Option<(NonNull<Page>, u32)> {
        let take =
            || (bytes <= BUFFER_MAX).then(|| self.node.take_dedicated(bytes, &self.home)).flatten();
        self.collect();
        let page = self.with_room(take)?;
        self.lists.borrow_mut().add(page);
        bump(&self.fallback, 1);
        // SAFETY: the page was just assigned to us.
        let slot = unsafe { page.as_ref().pop_slot() }?;
        Some((page, slot))
    }

    /// Asks the node, and once more after giving our reserve back.
    fn with_room(&self, take: impl Fn() -> Option<NonNull<Page>>) -> Option<NonNull<Page>> {
        let taken = take().or_else(|| {
            self.lists.borrow_mut().trim();
            take()
        });
        if taken.is_none() {
            bump(&self.failed, 1);
        }
        taken
    }

    fn collect(&self) -> usize {
        if self.home.is_empty() {
            return 0;
        }
        let links = self.home.take_all();
        // SAFETY: just taken from our inbox.
        unsafe { self.take_home(links) }
    }

    /// # Safety
    /// `links` is a list taken from our inbox.
    unsafe fn take_home(&self, mut links: *mut Link<Home>) -> usize {
        let mut count = 0;
        while !links.is_null() {
            // SAFETY: the list is ours, and each link lies in a slot that is still lent, of a page
            // that is therefore still assigned to us.
            let Home { page, slot } = unsafe {
                let home = (*links).item;
                links = (*links).next;
                home
            };
            // SAFETY: as above; the link was read and is not used again.
            unsafe { self.give_back(page, slot) };
            count += 1;
        }
        count
    }

    /// Takes a lent slot back.
    ///
    /// # Safety
    /// The slot is lent, its page assigned to this share, and the caller uses it no more.
    #[inline]
    pub(super) unsafe fn give_back(&self, page: NonNull<Page>, slot: u32) {
        // SAFETY: the caller says that the page is ours.
        let (cut, bytes) = unsafe { (page.as_ref().cut(), page.as_ref().slot_bytes()) };
        bump(&self.returned, 1);
        self.lent_bytes.set(self.lent_bytes.get() - bytes as u64);
        let mut lists = self.lists.borrow_mut();
        match cut {
            Cut::Class(class) => lists.push(class, page, slot, &self.node),
            Cut::Dedicated => {
                // SAFETY: as above.
                unsafe { page.as_ref().push_slot(slot) };
                lists.rest(page);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let links = self.home.close();
        // SAFETY: just taken from our inbox.
        unsafe { self.take_home(links) };
        for page in std::mem::take(&mut self.lists.get_mut().all) {
            // SAFETY: the page is ours until this very step; what is lent of it are frames, and the
            // inbox is closed. The page is not touched after.
            unsafe {
                match page.as_ref().used() {
                    0 => Page::rest(page),
                    lent => Page::count_orphan(page, lent as isize),
                }
            }
        }
    }
}

impl Lists {
    /// Lends a slot of the class from a page that has one.
    #[inline]
    fn pop(&mut self, class: usize) -> Option<(NonNull<Page>, u32)> {
        let page = *self.open[class].last()?;
        // SAFETY: see `Lists`.
        let slot = unsafe {
            let page = page.as_ref();
            let slot = page.pop_slot()?;
            if page.used() == 1 {
                self.spare[class] -= 1;
            }
            if page.is_full() {
                page.open_index.set(NOWHERE);
                self.open[class].pop();
            }
            slot
        };
        Some((page, slot))
    }

    /// Takes a slot back; a page that has nothing lent any more goes back to the node, but for
    /// one a class while memory is not short.
    #[inline]
    fn push(&mut self, class: usize, page: NonNull<Page>, slot: u32, node: &Node) {
        // SAFETY: see `Lists`.
        let (was_full, used) = unsafe {
            let page = page.as_ref();
            let was_full = page.is_full();
            page.push_slot(slot);
            (was_full, page.used())
        };
        if was_full {
            self.add_open(class, page);
        }
        if used == 0 {
            self.spare[class] += 1;
            if self.spare[class] > 1 || node.pressure() != Pressure::None {
                self.retire(class, page);
            }
        }
    }

    fn add(&mut self, page: NonNull<Page>) {
        // SAFETY: see `Lists`.
        unsafe { page.as_ref().all_index.set(self.all.len() as u32) };
        self.all.push(page);
    }

    fn add_open(&mut self, class: usize, page: NonNull<Page>) {
        // SAFETY: see `Lists`.
        unsafe { page.as_ref().open_index.set(self.open[class].len() as u32) };
        self.open[class].push(page);
    }

    /// Gives an open page that has nothing lent to the node.
    fn retire(&mut self, class: usize, page: NonNull<Page>) {
        let open = &mut self.open[class];
        // SAFETY: see `Lists`; the page that takes its place is one of ours, too.
        unsafe {
            let index = page.as_ref().open_index.replace(NOWHERE);
            open.swap_remove(index as usize);
            if let Some(moved) = open.get(index as usize) {
                moved.as_ref().open_index.set(index);
            }
        }
        self.spare[class] -= 1;
        self.rest(page);
    }

    /// Puts a page to rest that is in no class's list and has nothing lent.
    fn rest(&mut self, page: NonNull<Page>) {
        // SAFETY: see `Lists`; nothing is lent and after this no list has the page, so we have it
        // alone and let go of it.
        unsafe {
            debug_assert_eq!(page.as_ref().used(), 0);
            let index = page.as_ref().all_index.replace(NOWHERE);
            self.all.swap_remove(index as usize);
            if let Some(moved) = self.all.get(index as usize) {
                moved.as_ref().all_index.set(index);
            }
            Page::rest(page);
        }
    }

    /// Gives all open pages with nothing lent to the node.
    fn trim(&mut self) {
        for class in 0..CLASSES.len() {
            let mut index = self.open[class].len();
            while self.spare[class] > 0 && index > 0 {
                index -= 1;
                let page = self.open[class][index];
                // SAFETY: see `Lists`.
                if unsafe { page.as_ref().used() } == 0 {
                    self.retire(class, page);
                }
            }
        }
    }
}
