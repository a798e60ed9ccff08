//! The receive memory of a worker: one stretch, lent piece by piece from the front for a turn, so
//! that an idle connection holds nothing and the same few pages stay warm.
//!
//! A piece that comes back as output is noted as a [`Given`]: offsets, no reference. While the
//! halves of a turn live, the memory is borrowed by the [`Lender`] and the windows it lent, so
//! nothing else can touch it; between two turns nothing is lent, and the arena has all of it back.
//! The borrow checker holds both.

use hioload_core::region::{MemoryError, Region};
use hioload_pipeline::backend::{TURN_BYTES, Window};

/// Offsets are 32 bits.
const ARENA_MAX_BYTES: usize = 1 << 30;

/// See the module.
pub(super) struct Arena {
    region: Region,
    used: usize,
    /// With this much used the turn has all it gets.
    turn_bytes: usize,
}

/// A room of the arena that was given back with output in it, by offsets: dead bytes from `room`
/// to `start`, output from there to `end`, where the room ends too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) room: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Given {
    /// Bytes of output.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Arena {
    /// Maps memory for turns that receive `turn_bytes`, and room for the last connection of one,
    /// so that it doesn't receive what the others happen to leave: that would cut its messages.
    pub(super) fn new(turn_bytes: usize) -> Result<Self, MemoryError> {
        let turn_bytes = turn_bytes.clamp(1, ARENA_MAX_BYTES);
        Ok(Arena { region: Region::map(turn_bytes + TURN_BYTES, true, None)?, used: 0, turn_bytes })
    }

    /// The two sides of a turn: who lends, and who knows what comes back.
    pub(super) fn turn(&mut self) -> (Lender<'_>, Taker) {
        let Arena { region, used, turn_bytes } = self;
        let taker = Taker { base: region.base().addr().get(), len: region.len() };
        (Lender { rest: &mut all(region)[*used..], used, turn_bytes: *turn_bytes }, taker)
    }

    /// All of the memory, to change. What it holds of outputs, the caller knows.
    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        all(&mut self.region)
    }

    /// An output.
    pub(super) fn bytes(&self, given: &Given) -> &[u8] {
        // SAFETY: as in `all`; where it is borrowed mutably, so is `self`.
        let memory =
            unsafe { std::slice::from_raw_parts(self.region.base().as_ptr(), self.region.len()) };
        &memory[given.start as usize..given.end as usize]
    }

    /// The turn is over: all of it can be lent again.
    pub(super) fn reset(&mut self) {
        self.used = 0;
    }
}

/// The arena's memory.
fn all(region: &mut Region) -> &mut [u8] {
    // SAFETY: the region is mapped and initialised (with zeros), and its owner has lent it to us
    // alone for as long as the result lives: nobody else makes references to it.
    unsafe { std::slice::from_raw_parts_mut(region.base().as_ptr(), region.len()) }
}

/// The lending side of a turn.
pub(super) struct Lender<'t> {
    /// What wasn't lent since the last reset.
    rest: &'t mut [u8],
    used: &'t mut usize,
    turn_bytes: usize,
}

impl<'t> Lender<'t> {
    /// The turn has received what it may. Until then there are [`TURN_BYTES`] to be lent.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        *self.used >= self.turn_bytes
    }

    /// What isn't lent, at most `max` bytes of it, to be filled before [`Lender::lend`].
    pub(super) fn rest(&mut self, max: usize) -> &mut [u8] {
        let len = self.rest.len().min(max);
        &mut self.rest[..len]
    }

    /// Lends the next `count` bytes.
    ///
    /// # Panics
    /// When fewer are left.
    pub(super) fn lend(&mut self, count: usize) -> Window<'t> {
        let (lent, rest) = std::mem::take(&mut self.rest).split_at_mut(count);
        self.rest = rest;
        *self.used += count;
        Window::mint(lent)
    }
}

/// The side of a turn that windows come back to.
pub(super) struct Taker {
    base: usize,
    len: usize,
}

impl Taker {
    /// Takes a window of this arena in; another backend's is handed back.
    pub(super) fn take<'t>(&self, window: Window<'t>) -> Result<Given, Window<'t>> {
        let output = window.bytes();
        let room = (output.as_ptr().addr() - window.start()).wrapping_sub(self.base);
        let len = window.start() + output.len();
        // An empty room may have the address of anything.
        if len == 0 || room >= self.len || len > self.len - room {
            return Err(window);
        }
        let start = room + window.start();
        Ok(Given { room: room as u32, start: start as u32, end: (room + len) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_empty_windows_are_handed_back() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, taker) = arena.turn();
        let mut foreign = [1u8; 9];
        assert!(taker.take(Window::mint(&mut foreign)).is_err());
        assert!(taker.take(Window::mint(&mut [])).is_err());
        let empty = lender.lend(0);
        assert!(taker.take(empty).is_err());
        lender.rest(7).copy_from_slice(b"abcdefg");
        let own = taker.take(lender.lend(7)).unwrap();
        assert_eq!(arena.bytes(&own), b"abcdefg");
    }

    #[test]
    fn no_byte_is_lent_twice_before_the_reset() {
        let mut arena = Arena::new(4096).unwrap();
        let first = arena.turn().0.lend(10).bytes().as_ptr().addr();
        let second = arena.turn().0.lend(10).bytes().as_ptr().addr();
        assert_eq!(second, first + 10);
        arena.reset();
        assert_eq!(arena.turn().0.lend(10).bytes().as_ptr().addr(), first);
    }

    #[test]
    fn the_last_receive_of_a_turn_has_as_much_room_as_the_first() {
        let mut arena = Arena::new(4096).unwrap();
        let (mut lender, _) = arena.turn();
        lender.lend(4095);
        assert!(!lender.is_full());
        assert_eq!(lender.rest(usize::MAX).len().min(TURN_BYTES), TURN_BYTES);
        lender.lend(TURN_BYTES);
        assert!(lender.is_full());
    }
}
