//! The receive memory of a worker: one stretch, lent piece by piece from the front for a turn, so
//! that an idle connection holds nothing and the same few pages stay warm.
//!
//! A piece that comes back as output is described by a [`Given`]: the token that its memory is
//! nobody else's for the rest of the turn. Two neighbouring tokens can be joined, which moves the
//! second output down over the dead bytes between them.
//!
//! Invariants. `used` only grows until [`Arena::reset`], so no byte is lent twice in a turn. A
//! `Given` is made only from a window of this arena that was handed in by value, so no reference
//! to its bytes is left; it can't be copied.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use hioload_core::region::{MemoryError, Region};
use hioload_pipeline::backend::Window;

/// Offsets are 32 bits.
const ARENA_MAX_BYTES: usize = 1 << 30;

/// See the module.
pub(super) struct Arena {
    region: Region,
    used: Cell<usize>,
}

/// A room of the arena that was given back with output in it, by offsets. Its bytes up to
/// `room_end` belong to the token.
#[derive(Debug)]
pub(super) struct Given {
    room: u32,
    start: u32,
    end: u32,
    room_end: u32,
}

impl Given {
    /// Bytes of output.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Arena {
    /// Maps at least `bytes`.
    pub(super) fn new(bytes: usize) -> Result<Self, MemoryError> {
        Ok(Arena {
            region: Region::map(bytes.min(ARENA_MAX_BYTES), true, None)?,
            used: Cell::new(0),
        })
    }

    /// The two sides of a turn: who lends, and who takes back.
    pub(super) fn turn(&mut self) -> (Lender<'_>, Joiner<'_>) {
        let (base, len) = (self.region.base(), self.region.len());
        (
            Lender { base, len, used: &self.used, memory: PhantomData },
            Joiner { base, len, memory: PhantomData },
        )
    }

    /// The output of a token.
    pub(super) fn bytes(&self, given: &Given) -> &[u8] {
        // SAFETY: the range lies in the region (checked when the token was made), is initialised
        // (mapped as zeros), and is the token's alone: while that is borrowed nobody writes.
        unsafe {
            std::slice::from_raw_parts(
                self.region.base().as_ptr().add(given.start as usize),
                given.len(),
            )
        }
    }

    /// Memory to receive into what nobody will read. For use between two turns.
    ///
    /// # Safety
    /// No [`Given`] of this arena exists.
    pub(super) unsafe fn scrap(&mut self) -> &mut [u8] {
        // SAFETY: all of the region, initialised; `self` is borrowed mutably, so nothing is lent,
        // and the caller has no token.
        unsafe { std::slice::from_raw_parts_mut(self.region.base().as_ptr(), self.region.len()) }
    }

    /// The turn is over: all of it can be lent again.
    ///
    /// # Safety
    /// No [`Given`] of this arena exists any more.
    pub(super) unsafe fn reset(&mut self) {
        self.used.set(0);
    }
}

/// The lending side of a turn.
pub(super) struct Lender<'t> {
    base: NonNull<u8>,
    len: usize,
    used: &'t Cell<usize>,
    memory: PhantomData<&'t mut [u8]>,
}

impl<'t> Lender<'t> {
    /// How much can still be lent in this turn.
    pub(super) fn left(&self) -> usize {
        self.len - self.used.get()
    }

    /// What isn't lent, at most `max` bytes of it, to be filled before [`Lender::lend`].
    pub(super) fn rest(&mut self, max: usize) -> &mut [u8] {
        let len = self.left().min(max);
        // SAFETY: from `used` on nothing is lent in this turn, and `self`, the only lender, is
        // borrowed mutably. In bounds: `used <= len` of the region.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(self.used.get()), len) }
    }

    /// Lends the next `count` bytes.
    ///
    /// # Panics
    /// When fewer are left.
    pub(super) fn lend(&mut self, count: usize) -> Window<'t> {
        assert!(count <= self.left());
        let at = self.used.get();
        self.used.set(at + count);
        // SAFETY: in bounds; not lent before in this turn, because `used` only grew past it now;
        // the arena is borrowed mutably for `'t`, so it isn't reset and no other lender begins.
        Window::mint(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), count) })
    }
}

/// The side of a turn that takes windows back.
pub(super) struct Joiner<'t> {
    base: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'t mut [u8]>,
}

impl<'t> Joiner<'t> {
    /// Takes a window of this arena in; another backend's is handed back.
    pub(super) fn take(&self, window: Window<'t>) -> Result<Given, Window<'t>> {
        let (start, room_len) = (window.start(), window.start() + window.bytes().len());
        let address = window.bytes().as_ptr().addr().wrapping_sub(start);
        let offset = address.wrapping_sub(self.base.addr().get());
        // An empty room may have the address of anything.
        if room_len == 0 || offset >= self.len {
            return Err(window);
        }
        // A slice of one allocation that begins in the arena can't be another one's, so it lies
        // in the arena whole. The window is dropped here: nothing refers to its bytes any more.
        debug_assert!(offset + room_len <= self.len);
        let end = (offset + room_len) as u32;
        Ok(Given { room: offset as u32, start: (offset + start) as u32, end, room_end: end })
    }

    /// Makes one token of two whose rooms touch, moving the output of `next` down if it has at
    /// most `move_max` bytes. Hands `next` back where they can't be joined.
    pub(super) fn join(
        &mut self,
        last: &mut Given,
        next: Given,
        move_max: usize,
    ) -> Result<(), Given> {
        if last.room_end != next.room {
            return Err(next);
        }
        if last.end != next.start {
            if next.len() > move_max {
                return Err(next);
            }
            let base = self.base.as_ptr();
            // SAFETY: the bytes from `last.end` to `next.end` are dead or are `next`'s output: the
            // rooms touch, and both tokens are ours, so no reference to any of them is left (see
            // the module). Both ranges are in bounds; `copy` allows them to overlap.
            unsafe {
                std::ptr::copy(
                    base.add(next.start as usize),
                    base.add(last.end as usize),
                    next.len(),
                );
            }
        }
        last.end += next.end - next.start;
        last.room_end = next.room_end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pipeline does with a message: its output begins `start` bytes into its room.
    fn given(joiner: &Joiner<'_>, room: Window<'_>, start: u32) -> Given {
        // Tests outlive no turn: the window is dropped in here.
        let room = room.into_room();
        let offset = room.as_ptr().addr() - joiner.base.addr().get();
        Given {
            room: offset as u32,
            start: offset as u32 + start,
            end: (offset + room.len()) as u32,
            room_end: (offset + room.len()) as u32,
        }
    }

    fn filled<'t>(lender: &mut Lender<'t>, bytes: &[u8]) -> Window<'t> {
        lender.rest(bytes.len()).copy_from_slice(bytes);
        lender.lend(bytes.len())
    }

    #[test]
    fn neighbours_join_over_the_dead_bytes_between_them() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, mut joiner) = arena.turn();
        let windows = ["__aaa", "__bb", "_", "___cccc"].map(|s| filled(&mut lender, s.as_bytes()));
        let [a, b, lent, c] = windows;
        let mut last = given(&joiner, a, 2);
        let b = given(&joiner, b, 2);
        joiner.join(&mut last, b, 100).unwrap();
        // The third message is still lent: what comes behind it is not a neighbour.
        let c = given(&joiner, c, 3);
        let c = joiner.join(&mut last, c, 100).unwrap_err();
        assert_eq!(lent.bytes(), b"_");
        assert_eq!(arena.bytes(&last), b"aaabb");
        assert_eq!(arena.bytes(&c), b"cccc");
    }

    #[test]
    fn many_small_outputs_become_one() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, mut joiner) = arena.turn();
        let mut last: Option<Given> = None;
        let mut expected = Vec::new();
        for n in 0u8..16 {
            let mut request = vec![0xEE; 6];
            request.extend(std::iter::repeat_n(n, n.into()));
            expected.extend_from_slice(&request[4..]);
            let window = filled(&mut lender, &request);
            let next = given(&joiner, window, 4);
            match &mut last {
                None => last = Some(next),
                Some(last) => joiner.join(last, next, 100).unwrap(),
            }
        }
        assert_eq!(arena.bytes(&last.unwrap()), expected);
    }

    #[test]
    fn a_large_output_isnt_moved_but_joins_where_it_touches() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, mut joiner) = arena.turn();
        let [a, b, c] = [b"_a", b"_b", b"cc"].map(|s| filled(&mut lender, s));
        let mut a = given(&joiner, a, 1);
        let b = given(&joiner, b, 1);
        let mut b = joiner.join(&mut a, b, 0).unwrap_err();
        let c = given(&joiner, c, 0);
        joiner.join(&mut b, c, 0).unwrap();
        assert_eq!((arena.bytes(&a), arena.bytes(&b)), (&b"a"[..], &b"bcc"[..]));
    }

    #[test]
    fn foreign_and_empty_windows_are_handed_back() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, joiner) = arena.turn();
        let mut foreign = [1u8; 9];
        assert!(joiner.take(Window::mint(&mut foreign)).is_err());
        assert!(joiner.take(Window::mint(&mut [])).is_err());
        let empty = lender.lend(0);
        assert!(joiner.take(empty).is_err());
        let own = lender.lend(7);
        assert_eq!(joiner.take(own).unwrap().len(), 7);
    }

    #[test]
    fn no_byte_is_lent_twice_before_the_reset() {
        let mut arena = Arena::new(4096).unwrap();
        let first = arena.turn().0.lend(10).bytes().as_ptr().addr();
        let second = arena.turn().0.lend(10).bytes().as_ptr().addr();
        assert_eq!(second, first + 10);
        // SAFETY: there was never a token.
        unsafe { arena.reset() };
        assert_eq!(arena.turn().0.left(), 4096);
    }
}
