//! Memory that a backend lends for a turn, and the three forms that output takes.

use hioload_core::local::LocalFrame;
use hioload_core::pool::PoolBuf;

/// A stretch of a backend's receive memory, lent for one turn. Going in it holds received bytes;
/// coming back as [`Out::Window`] it holds output, from `start` to its end, and the bytes before
/// `start` (the longer header of the request) are dead: a backend may move the output down over
/// them to join it to the output before.
///
/// Only a backend mints windows of its own memory; one that is handed a foreign window must copy
/// it or refuse it, not trust its address.
#[derive(Debug)]
pub struct Window<'t> {
    room: &'t mut [u8],
    start: usize,
}

impl<'t> Window<'t> {
    /// Lends `room`. For backends.
    #[inline]
    pub fn mint(room: &'t mut [u8]) -> Self {
        Window { room, start: 0 }
    }

    /// Part of a lent window, `start` bytes into which the output begins.
    ///
    /// # Panics
    /// When `start` is past the end.
    pub(crate) fn output(room: &'t mut [u8], start: usize) -> Self {
        assert!(start <= room.len());
        Window { room, start }
    }

    /// All of its memory, dead bytes included.
    #[inline]
    pub fn into_room(self) -> &'t mut [u8] {
        self.room
    }

    /// How many bytes at the front of the room are dead.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// The live bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.start..]
    }
}

/// Output for one connection.
#[derive(Debug)]
pub enum Out<'t> {
    /// Bytes in a window of this turn: they leave from the memory in which they arrived.
    Window(Window<'t>),
    /// A pool buffer, given away.
    Owned(PoolBuf),
    /// Encoded once, shared by many receivers of this worker.
    Shared(LocalFrame),
}

impl Out<'_> {
    /// The bytes to send.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Out::Window(w) => w.bytes(),
            Out::Owned(b) => b.data(),
            Out::Shared(f) => f.as_bytes(),
        }
    }

    /// How many bytes there are to send.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
