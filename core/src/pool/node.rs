//! The node's side of the pool: the budget, and the pages that no share has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crossbeam_queue::SegQueue;
use crossbeam_utils::CachePadded;

use super::share::Pool;
use crate::page::{Cut, HomeInbox, PAGE_BYTES, Page};
use crate::region::{MemoryError, MemoryKind, Region};

const PAGE: u64 = PAGE_BYTES as u64;

/// How a [`NodePool`] is made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The NUMA node to take memory from, where it is known.
    pub node: Option<u32>,
    /// The most memory it may ever map, in bytes; [`default_budget`](super::default_budget) gives
    /// a quarter of the node. At least one page of 2 MiB; sensible from 24 MiB a worker on, as each
    /// share holds whole pages, one or more for each class that it uses.
    pub budget_bytes: u64,
    /// Whether to use hugepages where there are any.
    pub huge: bool,
}

/// How near the budget is, and what to do about it. Ordered: each includes those before.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// Below 80 %.
    None,
    /// From 80 %: refuse handshakes.
    Refuse,
    /// From 90 %: close slow readers, too.
    CloseSlow,
    /// From 95 %: close the newest sessions, too.
    CloseNewest,
}

/// The pool of one NUMA node. Clones are handles to the same one.
#[derive(Clone)]
pub struct NodePool {
    inner: Arc<Node>,
}

pub(crate) struct Node {
    config: PoolConfig,
    /// Pages at rest.
    free: SegQueue<Box<Page>>,
    /// Bytes of all regions; never above the budget.
    mapped: CachePadded<AtomicU64>,
    /// Bytes of the regions that shares have; never above what is mapped, for long.
    used: CachePadded<AtomicU64>,
    /// `used` from which on pressure is `Refuse`, `CloseSlow`, `CloseNewest`.
    pressure_from: [u64; 3],
    /// The weakest memory that had to be taken so far.
    kind: AtomicU8,
}

impl NodePool {
    /// A pool that may map up to the budget. Maps one page at once, to say what
    /// [`kind`](Self::kind) of memory there is and to fail early.
    ///
    /// # Errors
    /// Any [`MemoryError`].
    pub fn new(config: PoolConfig) -> Result<NodePool, MemoryError> {
        let budget_bytes = config.budget_bytes;
        if budget_bytes < PAGE {
            return Err(MemoryError::BudgetTooSmall { budget_bytes, least_bytes: PAGE });
        }
        let percent = |p: u64| budget_bytes / 100 * p + budget_bytes % 100 * p / 100;
        let node = Node {
            config,
            free: SegQueue::new(),
            mapped: CachePadded::new(AtomicU64::new(PAGE)),
            used: CachePadded::new(AtomicU64::new(0)),
            pressure_from: [percent(80), percent(90), percent(95)],
            kind: AtomicU8::new(MemoryKind::Huge2M as u8),
        };
        node.free.push(Page::new(node.map(PAGE_BYTES, config.huge)?));
        Ok(NodePool { inner: Arc::new(node) })
    }

    /// A share for the calling worker.
    #[must_use]
    pub fn share(&self) -> Pool {
        Pool::new(Arc::clone(&self.inner))
    }

    /// The weakest kind of memory in it so far.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        match self.inner.kind.load(Relaxed) {
            k if k == MemoryKind::Plain as u8 => MemoryKind::Plain,
            k if k == MemoryKind::Transparent as u8 => MemoryKind::Transparent,
            _ => MemoryKind::Huge2M,
        }
    }

    /// The most it may map, in bytes.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.inner.config.budget_bytes
    }

    /// What it has mapped, in bytes.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.inner.mapped.load(Relaxed)
    }

    /// What of it shares have, in bytes: whole pages.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.inner.used.load(Relaxed)
    }

    /// How near the budget is. One relaxed load.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.inner.pressure()
    }
}

impl fmt::Debug for NodePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePool")
            .field("config", &self.inner.config)
            .field("mapped_bytes", &self.mapped_bytes())
            .field("used_bytes", &self.used_bytes())
            .finish()
    }
}

/// Adds to a count that must stay within `limit`.
fn reserve(count: &AtomicU64, bytes: u64, limit: u64) -> bool {
    count
        .try_update(Relaxed, Relaxed, |now| now.checked_add(bytes).filter(|&sum| sum <= limit))
        .is_ok()
}

impl Node {
    pub(crate) fn pressure(&self) -> Pressure {
        let used = self.used.load(Relaxed);
        let [refuse, close_slow, close_newest] = self.pressure_from;
        match used {
            _ if used < refuse => Pressure::None,
            _ if used < close_slow => Pressure::Refuse,
            _ if used < close_newest => Pressure::CloseSlow,
            _ => Pressure::CloseNewest,
        }
    }

    /// A page for a share; `None` where the budget is spent or the system refuses.
    pub(crate) fn take_page(
        self: &Arc<Self>,
        class: usize,
        home: &Arc<HomeInbox>,
    ) -> Option<std::ptr::NonNull<Page>> {
        if !reserve(&self.used, PAGE, self.config.budget_bytes) {
            return None;
        }
        match self.free.pop().or_else(|| self.map_page()) {
            Some(page) => Some(page.assign(Cut::Class(class), Arc::clone(self), Arc::clone(home))),
            None => {
                self.used.fetch_sub(PAGE, Relaxed);
                None
            }
        }
    }

    fn map_page(&self) -> Option<Box<Page>> {
        if !reserve(&self.mapped, PAGE, self.config.budget_bytes) {
            // Another worker may have put one to rest since we looked.
            return self.free.pop();
        }
        match self.map(PAGE_BYTES, self.config.huge) {
            Ok(region) => Some(Page::new(region)),
            Err(_) => {
                self.mapped.fetch_sub(PAGE, Relaxed);
                None
            }
        }
    }

    /// Memory for one buffer that no class holds.
    pub(crate) fn take_dedicated(
        self: &Arc<Self>,
        bytes: usize,
        home: &Arc<HomeInbox>,
    ) -> Option<std::ptr::NonNull<Page>> {
        let len = Region::rounded(bytes)?;
        let len_bytes = len as u64;
        if !reserve(&self.used, len_bytes, self.config.budget_bytes) {
            return None;
        }
        // Pages at rest make room: each turn unmaps one, so this ends with the last of them.
        while !reserve(&self.mapped, len_bytes, self.config.budget_bytes) {
            let Some(page) = self.free.pop() else {
                self.used.fetch_sub(len_bytes, Relaxed);
                return None;
            };
            drop(page);
            self.mapped.fetch_sub(PAGE, Relaxed);
        }
        let Ok(region) = self.map(len, self.config.huge) else {
            self.mapped.fetch_sub(len_bytes, Relaxed);
            self.used.fetch_sub(len_bytes, Relaxed);
            return None;
        };
        Some(Page::new(region).assign(Cut::Dedicated, Arc::clone(self), Arc::clone(home)))
    }

    /// A page comes to rest.
    pub(crate) fn take_back(&self, page: Box<Page>) {
        let len_bytes = page.region_bytes() as u64;
        match page.cut() {
            Cut::Class(_) => self.free.push(page),
            Cut::Dedicated => {
                drop(page);
                self.mapped.fetch_sub(len_bytes, Relaxed);
            }
        }
        // Last, so that whoever gets the room finds the page.
        self.used.fetch_sub(len_bytes, Relaxed);
    }

    fn map(&self, bytes: usize, huge: bool) -> Result<Region, MemoryError> {
        let region = Region::map(bytes, huge, self.config.node)?;
        if bytes == PAGE_BYTES {
            self.kind.fetch_min(region.kind() as u8, Relaxed);
        }
        Ok(region)
    }
}
