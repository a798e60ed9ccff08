//! What a connection of the fake still has to send, and how much of that it takes on: the rules of
//! the three modes by which `send` refuses.

use std::collections::VecDeque;

use hioload_core::local::LocalFrame;
use hioload_core::pool::PoolBuf;

use super::memory::{Memory, Shape};
use super::net::Link;
use crate::window::Out;

/// What one connection may hand over beyond its first output of a turn, in bytes.
const TURN_LIMIT_BYTES: usize = 256 * 1024;

/// Output that was accepted.
pub(super) enum Piece {
    /// Bytes in the receive memory: from, how many.
    Lent(usize, usize),
    /// Bytes that were built or copied.
    Built(Vec<u8>),
    Owned(PoolBuf),
    Shared(LocalFrame),
}

impl Piece {
    fn bytes<'a>(&'a self, memory: &'a Memory) -> &'a [u8] {
        match self {
            Piece::Lent(at, len) => memory.bytes(*at..*at + *len),
            Piece::Built(bytes) => bytes,
            Piece::Owned(buf) => buf.data(),
            Piece::Shared(frame) => frame.as_bytes(),
        }
    }
}

/// A transmit ring of fixed size.
#[derive(Default)]
pub(super) struct Ring {
    slab: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    fn room(&self) -> usize {
        self.slab.len() - self.len
    }

    /// The free bytes behind the used ones that lie in one stretch.
    pub(super) fn contiguous(&mut self) -> &mut [u8] {
        if self.slab.is_empty() {
            return &mut [];
        }
        let tail = (self.head + self.len) % self.slab.len();
        let end = self.slab.len().min(tail + self.room());
        &mut self.slab[tail..end]
    }

    pub(super) fn commit(&mut self, len: usize) {
        self.len += len;
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let to = self.contiguous();
            let count = to.len().min(bytes.len());
            assert!(count > 0, "who pushes has looked for room");
            to[..count].copy_from_slice(&bytes[..count]);
            self.commit(count);
            bytes = &bytes[count..];
        }
    }

    fn pop_into(&mut self, to: &mut VecDeque<u8>, limit: usize) {
        let count = limit.min(self.len);
        let first = count.min(self.slab.len() - self.head);
        to.extend(&self.slab[self.head..self.head + first]);
        to.extend(&self.slab[..count - first]);
        self.len -= count;
        if count > 0 {
            self.head = (self.head + count) % self.slab.len();
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Output {
    pub(super) pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have left.
    left: usize,
    pub(super) unsent: usize,
    pub(super) ring: Ring,
    /// Output of an earlier turn hasn't left.
    pub(super) blocked: bool,
    /// How long the output was that was refused; its `Writable` is owed.
    pub(super) refused: Option<usize>,
    /// The turn in which the kernel finishes.
    pub(super) due: Option<u64>,
}

impl Output {
    /// Makes the transmit ring, once a slot.
    pub(super) fn begin(&mut self, ring_bytes: usize) {
        if self.ring.slab.len() != ring_bytes {
            self.ring.slab = vec![0; ring_bytes].into();
        }
    }

    /// Whether `len` more bytes are taken now. `whole`: what is larger than the ring leaves in
    /// pieces from where it lies, so it is taken when nothing else waits.
    pub(super) fn has_room(&self, len: usize, whole: bool) -> bool {
        if !self.ring.slab.is_empty() {
            return len <= self.ring.room() && self.pieces.is_empty() || whole && self.unsent == 0;
        }
        !self.blocked && (self.unsent == 0 || self.unsent + len <= TURN_LIMIT_BYTES)
    }

    /// Takes output for which there is room.
    pub(super) fn accept(&mut self, out: Out<'_>, lent: impl FnOnce(&[u8]) -> Piece) {
        let len = out.len();
        self.unsent += len;
        if len <= self.ring.room() && !self.ring.slab.is_empty() {
            return self.ring.push(out.bytes());
        }
        self.pieces.push_back(match out {
            Out::Window(window) => lent(window.bytes()),
            Out::Owned(buf) => Piece::Owned(buf),
            Out::Shared(frame) => Piece::Shared(frame),
        });
    }

    /// Gives the wire what it takes. Says whether it took any.
    pub(super) fn pump(
        &mut self,
        link: &mut Link,
        memory: &mut Memory,
        spares: &mut Vec<Vec<u8>>,
    ) -> bool {
        let before = self.unsent;
        let room = link.window.saturating_sub(link.outbound.len());
        let in_ring = self.ring.len.min(room);
        self.ring.pop_into(&mut link.outbound, in_ring);
        self.unsent -= in_ring;
        while let Some(piece) = self.pieces.front() {
            let room = link.window.saturating_sub(link.outbound.len());
            let bytes = &piece.bytes(memory)[self.left..];
            let count = bytes.len().min(room);
            link.outbound.extend(&bytes[..count]);
            let done = count == bytes.len();
            self.left += count;
            self.unsent -= count;
            if !done {
                break;
            }
            self.left = 0;
            if let Some(piece) = self.pieces.pop_front() {
                retire(piece, memory, spares);
            }
        }
        self.unsent < before
    }

    /// Copies what lies in memory that comes back at the end of the turn.
    pub(super) fn rescue(&mut self, memory: &Memory, spares: &mut Vec<Vec<u8>>) {
        for (nth, piece) in self.pieces.iter_mut().enumerate() {
            if let Piece::Lent(at, len) = *piece {
                // Only the first has left in part.
                let left = if nth == 0 { std::mem::take(&mut self.left) } else { 0 };
                let mut copy = spares.pop().unwrap_or_default();
                copy.extend_from_slice(memory.bytes(at + left..at + len));
                *piece = Piece::Built(copy);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn drop_all(&mut self, memory: &mut Memory, spares: &mut Vec<Vec<u8>>) {
        for piece in self.pieces.drain(..) {
            retire(piece, memory, spares);
        }
        let ring = std::mem::take(&mut self.ring.slab);
        let pieces = std::mem::take(&mut self.pieces);
        *self = Output { pieces, ring: Ring { slab: ring, head: 0, len: 0 }, ..Output::default() };
    }

    /// Room again for what was refused.
    pub(super) fn is_writable(&self) -> bool {
        self.refused
            .is_some_and(|len| self.unsent == 0 && !self.blocked || self.has_room(len, false))
    }
}

fn retire(piece: Piece, memory: &mut Memory, spares: &mut Vec<Vec<u8>>) {
    match piece {
        Piece::Lent(at, _) => {
            if let Shape::Buffers(buffers) = &mut memory.shape {
                buffers.unpin(at);
            }
        }
        Piece::Built(mut bytes) => {
            bytes.clear();
            spares.push(bytes);
        }
        Piece::Owned(_) | Piece::Shared(_) => {}
    }
}
