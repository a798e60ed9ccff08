//! The fake's receive memory in its three shapes, and the half of a turn that lends it. All of it
//! is one slab; what a turn lends lies in it in ascending order, so that it can be split off the
//! front without a list of slices.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use crate::backend::{ConnId, RxHalf, Window};

/// The most that a connection is lent in a turn, in bytes.
const TURN_BYTES: usize = 64 * 1024;
/// Readiness: all that is read in a turn goes here.
const ARENA_BYTES: usize = 1024 * 1024;
/// Completion: the sizes of the buffers, in turn.
const BUFFER_BYTES: [usize; 4] = [512, 4096, 1024, 2048];

/// What a connection is lent in a turn: a region, and in it one window or, where a ring wraps, two.
struct Unit {
    conn: ConnId,
    region: Range<usize>,
    first: Range<usize>,
    /// Length of the window that begins at the region's start and is lent second.
    wrapped: usize,
}

/// Buffers that the kernel fills, and that output holds until it has left.
pub(super) struct Buffers {
    /// Where each begins, and the end of the last.
    starts: Vec<usize>,
    lent: Vec<bool>,
    pins: Vec<u32>,
    next: usize,
    pub(super) pinned: usize,
    pub(super) pinned_max: usize,
}

impl Buffers {
    fn new(count: usize) -> Self {
        let mut starts = vec![0];
        for i in 0..count {
            starts.push(starts[i] + BUFFER_BYTES[i % BUFFER_BYTES.len()]);
        }
        let (lent, pins) = (vec![false; count], vec![0; count]);
        Buffers { starts, lent, pins, next: 0, pinned: 0, pinned_max: 0 }
    }

    /// The next one behind those that this turn lent, if any is free.
    fn lend(&mut self) -> Option<Range<usize>> {
        let free = |i: &usize| !self.lent[*i] && self.pins[*i] == 0;
        let at = (self.next..self.lent.len()).find(free)?;
        self.next = at + 1;
        self.lent[at] = true;
        Some(self.starts[at]..self.starts[at + 1])
    }

    fn holding(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) - 1
    }

    /// Holds the buffer around `at` for output; false when half of all are held already.
    pub(super) fn pin(&mut self, at: usize) -> bool {
        let buffer = self.holding(at);
        if self.pins[buffer] == 0 {
            if self.pinned >= self.lent.len() / 2 {
                return false;
            }
            self.pinned += 1;
            self.pinned_max = self.pinned_max.max(self.pinned);
        }
        self.pins[buffer] += 1;
        true
    }

    pub(super) fn unpin(&mut self, at: usize) {
        let buffer = self.holding(at);
        self.pins[buffer] -= 1;
        self.pinned -= usize::from(self.pins[buffer] == 0);
    }
}

pub(super) enum Shape {
    Arena { used: usize },
    Buffers(Buffers),
    Rings { bytes: usize, heads: Vec<usize> },
}

pub(super) struct Memory {
    slab: Vec<u8>,
    units: Vec<Unit>,
    windows: usize,
    taken: usize,
    pub(super) shape: Shape,
}

impl Memory {
    pub(super) fn arena() -> Self {
        Self::new(vec![0; ARENA_BYTES], Shape::Arena { used: 0 })
    }

    pub(super) fn buffers(count: usize) -> Self {
        assert!(count >= 2, "half of the buffers may be held");
        let buffers = Buffers::new(count);
        Self::new(vec![0; buffers.starts[count]], Shape::Buffers(buffers))
    }

    pub(super) fn rings(bytes: usize) -> Self {
        assert!(bytes > 0, "a ring holds something");
        Self::new(Vec::new(), Shape::Rings { bytes, heads: Vec::new() })
    }

    fn new(slab: Vec<u8>, shape: Shape) -> Self {
        Memory { slab, units: Vec::new(), windows: 0, taken: 0, shape }
    }

    /// Moves what waits into the memory, as far as a turn has room. Slots must ascend where there
    /// are rings. Says whether anything was moved.
    pub(super) fn receive(&mut self, conn: ConnId, from: &mut VecDeque<u8>) -> bool {
        let before = self.windows;
        match &mut self.shape {
            Shape::Arena { used } => {
                let count = from.len().min(TURN_BYTES).min(self.slab.len() - *used);
                if count > 0 {
                    let region = *used..*used + count;
                    *used = region.end;
                    move_bytes(from, &mut self.slab[region.clone()]);
                    self.lend(conn, region.clone(), region, 0);
                }
            }
            Shape::Buffers(_) => {
                let mut left = from.len().min(TURN_BYTES);
                while left > 0 {
                    let Shape::Buffers(buffers) = &mut self.shape else { break };
                    let Some(buffer) = buffers.lend() else { break };
                    let region = buffer.start..buffer.end.min(buffer.start + left);
                    left -= region.len();
                    move_bytes(from, &mut self.slab[region.clone()]);
                    self.lend(conn, region.clone(), region, 0);
                }
            }
            Shape::Rings { bytes, heads } => {
                let (bytes, slot) = (*bytes, conn.slot as usize);
                if heads.len() <= slot {
                    heads.resize(slot + 1, 0);
                    self.slab.resize((slot + 1) * bytes, 0);
                }
                let count = from.len().min(TURN_BYTES).min(bytes);
                let region = slot * bytes..(slot + 1) * bytes;
                let head = region.start + heads[slot];
                let first = head..region.end.min(head + count);
                let wrapped = count - first.len();
                heads[slot] = (heads[slot] + count) % bytes;
                move_bytes(from, &mut self.slab[first.clone()]);
                move_bytes(from, &mut self.slab[region.start..region.start + wrapped]);
                if count > 0 {
                    self.lend(conn, region, first, wrapped);
                }
            }
        }
        self.windows > before
    }

    fn lend(&mut self, conn: ConnId, region: Range<usize>, first: Range<usize>, wrapped: usize) {
        self.windows += 1 + usize::from(wrapped > 0);
        self.units.push(Unit { conn, region, first, wrapped });
    }

    /// The addresses of the slab; only to recognise windows that come back.
    pub(super) fn addresses(&self) -> Range<usize> {
        let base = self.slab.as_ptr().addr();
        base..base + self.slab.len()
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.slab[range]
    }

    /// The lending half, and the buffers that output may hold.
    pub(super) fn split(&mut self) -> (FakeRx<'_>, Option<&mut Buffers>) {
        let rx = FakeRx {
            memory: &mut self.slab,
            at: 0,
            units: &self.units,
            wrapped: None,
            taken: &mut self.taken,
        };
        let buffers = match &mut self.shape {
            Shape::Buffers(buffers) => Some(buffers),
            _ => None,
        };
        (rx, buffers)
    }

    /// What was lent comes back, but for what output holds.
    ///
    /// # Panics
    /// When the pipeline left windows untaken: their bytes would be lost.
    pub(super) fn end_turn(&mut self) {
        assert_eq!(self.taken, self.windows, "every window that was offered is taken in its turn");
        (self.taken, self.windows) = (0, 0);
        self.units.clear();
        match &mut self.shape {
            Shape::Arena { used } => *used = 0,
            Shape::Buffers(buffers) => {
                buffers.lent.fill(false);
                buffers.next = 0;
            }
            Shape::Rings { .. } => {}
        }
    }
}

fn move_bytes(from: &mut VecDeque<u8>, to: &mut [u8]) {
    let (front, back) = from.as_slices();
    let in_front = front.len().min(to.len());
    let (to_front, to_back) = to.split_at_mut(in_front);
    to_front.copy_from_slice(&front[..in_front]);
    to_back.copy_from_slice(&back[..to_back.len()]);
    from.drain(..to.len());
}

/// The receive half of a turn of [`super::Fake`]. It lends in the order of the `Readable` events.
pub struct FakeRx<'t> {
    memory: &'t mut [u8],
    /// Where `memory` begins in the slab.
    at: usize,
    units: &'t [Unit],
    wrapped: Option<(ConnId, &'t mut [u8])>,
    taken: &'t mut usize,
}

impl<'t> RxHalf<'t> for FakeRx<'t> {
    fn take(&mut self, conn: ConnId) -> Option<Window<'t>> {
        if let Some((_, room)) = self.wrapped.take_if(|(of, _)| *of == conn) {
            *self.taken += 1;
            return Some(Window::mint(room));
        }
        let (unit, others) = self.units.split_first()?;
        if unit.conn != conn {
            return None;
        }
        self.units = others;
        *self.taken += 1;
        let (_, memory) = mem::take(&mut self.memory).split_at_mut(unit.region.start - self.at);
        let (region, memory) = memory.split_at_mut(unit.region.len());
        (self.memory, self.at) = (memory, unit.region.end);
        let (before, room) = region.split_at_mut(unit.first.start - unit.region.start);
        if unit.wrapped > 0 {
            self.wrapped = Some((conn, &mut before[..unit.wrapped]));
        }
        Some(Window::mint(&mut room[..unit.first.len()]))
    }
}
