//! The output of a turn, before any system call: a list of pieces, each linked to the next one of
//! its connection, so that everything a connection is owed leaves in one call, however the
//! handler's replies were interleaved. All of it is recycled from turn to turn.

use hioload_core::local::LocalFrame;
use hioload_core::pool::PoolBuf;
use hioload_pipeline::backend::ConnId;

use super::arena::{Arena, Given, Joiner};
use super::conn::{Conn, NONE};

/// An output of at most this many bytes is moved to join the one before it; a larger one is cheaper
/// as a piece of its own.
const MOVE_MAX_BYTES: usize = 1024;
/// A list that grew beyond this is not kept.
const KEEP_ENTRIES: usize = 64 * 1024;

/// Where a piece of output lies.
pub(super) enum Piece {
    /// In the arena, where the request lay.
    Arena(Given),
    /// In the scratch memory, where it was built.
    Scratch { at: u32, len: u32 },
    /// In a pool buffer.
    Owned(PoolBuf),
    /// In a frame that others send too.
    Shared(LocalFrame),
}

struct Entry {
    piece: Piece,
    next: u32,
}

/// See the module.
pub(super) struct Pending {
    entries: Vec<Entry>,
    /// Connections with output, or with a refusal to settle.
    dirty: Vec<ConnId>,
    scratch: Box<[u8]>,
    scratch_used: usize,
}

impl Pending {
    pub(super) fn new(scratch_bytes: usize) -> Self {
        Pending {
            entries: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; scratch_bytes.min(u32::MAX as usize)].into_boxed_slice(),
            scratch_used: 0,
        }
    }

    /// There is nothing to flush.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dirty.is_empty()
    }

    /// Looks at a connection in the next flush though it has no output.
    pub(super) fn mark(&mut self, id: ConnId) {
        self.dirty.push(id);
    }

    /// Appends a piece of `len` bytes to a connection's output.
    pub(super) fn push(&mut self, id: ConnId, conn: &Conn, piece: Piece, len: usize) {
        let index = self.entries.len() as u32;
        self.entries.push(Entry { piece, next: NONE });
        match self.entries.get_mut(conn.last.replace(index) as usize) {
            Some(last) => last.next = index,
            None => {
                conn.first.set(index);
                self.dirty.push(id);
            }
        }
        count(conn, len);
    }

    /// Appends a room of the arena, joined to the one before it where they touch. True: joined.
    pub(super) fn push_given(
        &mut self,
        id: ConnId,
        conn: &Conn,
        given: Given,
        joiner: &mut Joiner<'_>,
    ) -> bool {
        let len = given.len();
        let last = self.entries.get_mut(conn.last.get() as usize);
        let apart = match last {
            Some(Entry { piece: Piece::Arena(last), .. }) => {
                match joiner.join(last, given, MOVE_MAX_BYTES) {
                    Ok(()) => {
                        count(conn, len);
                        return true;
                    }
                    Err(given) => given,
                }
            }
            _ => given,
        };
        self.push(id, conn, Piece::Arena(apart), len);
        false
    }

    /// Appends `len` bytes that `fill` writes; `None` when there is no scratch memory left in this
    /// turn, `Some(true)` when they joined the piece before them.
    pub(super) fn build(
        &mut self,
        id: ConnId,
        conn: &Conn,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Option<bool> {
        let at = self.scratch_used;
        let end = at.checked_add(len)?;
        fill(self.scratch.get_mut(at..end)?);
        self.scratch_used = end;
        if let Some(Entry { piece: Piece::Scratch { at: last_at, len: last_len }, .. }) =
            self.entries.get_mut(conn.last.get() as usize)
            && *last_at as usize + *last_len as usize == at
        {
            *last_len += len as u32;
            count(conn, len);
            return Some(true);
        }
        self.push(id, conn, Piece::Scratch { at: at as u32, len: len as u32 }, len);
        Some(false)
    }

    /// The bytes of a piece, and the index of the connection's next one.
    pub(super) fn bytes<'a>(&'a self, index: u32, arena: &'a Arena) -> Option<(&'a [u8], u32)> {
        let entry = self.entries.get(index as usize)?;
        let bytes = match &entry.piece {
            Piece::Arena(given) => arena.bytes(given),
            Piece::Scratch { at, len } => &self.scratch[*at as usize..][..*len as usize],
            Piece::Owned(buf) => buf.data(),
            Piece::Shared(frame) => frame.as_bytes(),
        };
        Some((bytes, entry.next))
    }

    /// The index of the connection's next piece; `None` behind the last.
    pub(super) fn next(&self, index: u32) -> Option<u32> {
        Some(self.entries.get(index as usize)?.next)
    }

    /// Takes a buffer or a frame out, to be kept beyond the turn; `None` for bytes that must be
    /// copied to be kept.
    pub(super) fn take(&mut self, index: u32) -> Option<Piece> {
        let piece = &mut self.entries.get_mut(index as usize)?.piece;
        match piece {
            Piece::Arena(_) | Piece::Scratch { .. } => None,
            Piece::Owned(_) | Piece::Shared(_) => {
                Some(std::mem::replace(piece, Piece::Scratch { at: 0, len: 0 }))
            }
        }
    }

    /// The connections to flush. To be given back to [`Pending::reset`].
    pub(super) fn take_dirty(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.dirty)
    }

    /// Forgets the turn. No [`Given`] is left after this.
    pub(super) fn reset(&mut self, mut dirty: Vec<ConnId>) {
        dirty.clear();
        dirty.shrink_to(KEEP_ENTRIES);
        self.dirty = dirty;
        self.entries.clear();
        self.entries.shrink_to(KEEP_ENTRIES);
        self.scratch_used = 0;
    }
}

fn count(conn: &Conn, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    conn.pending_bytes.set(conn.pending_bytes.get().saturating_add(len));
}
