//! The output of a turn, before any system call: a list of pieces, each linked to the next one of
//! its connection, so that everything a connection is owed leaves in one call, however the
//! handler's replies were interleaved. All of it is recycled from turn to turn.

use hioload_core::local::LocalFrame;
use hioload_core::pool::PoolBuf;
use hioload_pipeline::backend::ConnId;

use super::arena::{Arena, Given};
use super::conn::{Conn, NONE};

/// An output of at most this many bytes is moved to join the one before it. Measured: at 1 KiB
/// moving is a tenth cheaper than a piece of its own, from 2 KiB on it makes no difference.
const MOVE_MAX_BYTES: usize = 2048;
/// A list that grew beyond this is not kept.
const KEEP_ENTRIES: usize = 64 * 1024;

/// Output with memory of its own, which may be kept beyond the turn.
pub(super) enum Held {
    /// A pool buffer.
    Owned(PoolBuf),
    /// A frame that others send too.
    Shared(LocalFrame),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Held::Owned(buf) => buf.data(),
            Held::Shared(frame) => frame.as_bytes(),
        }
    }
}

/// Where a piece of output lies. Small and plain: there is one for each message that is echoed.
#[derive(Clone, Copy)]
enum Piece {
    /// In the arena, where the request lay.
    Arena(Given),
    /// In the scratch memory, where it was built.
    Scratch { at: u32, len: u32 },
    /// In memory of its own: an index of the list of these.
    Held(u32),
}

#[derive(Clone, Copy)]
struct Entry {
    piece: Piece,
    next: u32,
}

/// See the module.
pub(super) struct Pending {
    entries: Vec<Entry>,
    /// Emptied as they are taken.
    held: Vec<Option<Held>>,
    /// Connections with output, or with a refusal to settle.
    dirty: Vec<ConnId>,
    scratch: Box<[u8]>,
    scratch_used: usize,
}

impl Pending {
    pub(super) fn new(scratch_bytes: usize) -> Self {
        Pending {
            entries: Vec::new(),
            held: Vec::new(),
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

    /// Appends a room of the arena to a connection's output.
    #[inline]
    pub(super) fn push_given(&mut self, id: ConnId, conn: &Conn, given: Given) {
        self.push(id, conn, Piece::Arena(given), given.len());
    }

    /// Appends what has memory of its own to a connection's output.
    pub(super) fn push_held(&mut self, id: ConnId, conn: &Conn, held: Held) {
        let (index, len) = (self.held.len() as u32, held.bytes().len());
        self.held.push(Some(held));
        self.push(id, conn, Piece::Held(index), len);
    }

    // Always inline, or the piece goes through memory in parts that are read back as one.
    #[inline(always)]
    fn push(&mut self, id: ConnId, conn: &Conn, piece: Piece, len: usize) {
        let index = self.entries.len() as u32;
        match self.entries.get_mut(conn.last.replace(index) as usize) {
            Some(last) => last.next = index,
            None => {
                conn.first.set(index);
                self.dirty.push(id);
            }
        }
        self.entries.push(Entry { piece, next: NONE });
        count(conn, len);
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

    /// Joins the pieces of a connection that lie in the arena, from `first` on, where nothing but
    /// dead bytes is between them. Says how many were joined to the one before them.
    ///
    /// Outputs are moved down over the dead bytes in front of them, in `memory`, which is all of the
    /// arena: it can be had only while no window is lent. What wasn't given back this turn has no
    /// piece, so it stands between two rooms that then don't touch.
    pub(super) fn join(&mut self, first: u32, memory: &mut [u8]) -> usize {
        let (mut index, mut joined) = (first, 0);
        while let Some(entry) = self.entries.get(index as usize) {
            let mut next = entry.next;
            if let Piece::Arena(mut whole) = entry.piece {
                let mut room_end = whole.end;
                while let Some(Entry { piece: Piece::Arena(part), next: behind }) =
                    self.entries.get(next as usize)
                    && part.room == room_end
                    && (part.start == whole.end || part.len() <= MOVE_MAX_BYTES)
                {
                    if part.start != whole.end {
                        let from = part.start as usize..part.end as usize;
                        memory.copy_within(from, whole.end as usize);
                    }
                    whole.end += part.end - part.start;
                    room_end = part.end;
                    next = *behind;
                    joined += 1;
                }
                self.entries[index as usize] = Entry { piece: Piece::Arena(whole), next };
            }
            index = next;
        }
        joined
    }

    /// The bytes of a piece, and the index of the connection's next one.
    pub(super) fn bytes<'a>(&'a self, index: u32, arena: &'a Arena) -> Option<(&'a [u8], u32)> {
        let entry = self.entries.get(index as usize)?;
        let bytes = match &entry.piece {
            Piece::Arena(given) => arena.bytes(given),
            Piece::Scratch { at, len } => &self.scratch[*at as usize..][..*len as usize],
            Piece::Held(index) => self.held[*index as usize].as_ref().map_or(&[][..], Held::bytes),
        };
        Some((bytes, entry.next))
    }

    /// The index of the connection's next piece; `None` behind the last.
    pub(super) fn next(&self, index: u32) -> Option<u32> {
        Some(self.entries.get(index as usize)?.next)
    }

    /// Takes a buffer or a frame out, to be kept beyond the turn; `None` for bytes that must be
    /// copied to be kept.
    pub(super) fn take(&mut self, index: u32) -> Option<Held> {
        match self.entries.get(index as usize)?.piece {
            Piece::Arena(_) | Piece::Scratch { .. } => None,
            Piece::Held(index) => self.held.get_mut(index as usize)?.take(),
        }
    }

    /// The connections to flush. To be given back to [`Pending::reset`].
    pub(super) fn take_dirty(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.dirty)
    }

    /// Forgets the turn.
    pub(super) fn reset(&mut self, mut dirty: Vec<ConnId>) {
        dirty.clear();
        dirty.shrink_to(KEEP_ENTRIES);
        self.dirty = dirty;
        self.entries.clear();
        self.entries.shrink_to(KEEP_ENTRIES);
        self.held.clear();
        self.held.shrink_to(KEEP_ENTRIES);
        self.scratch_used = 0;
    }
}

fn count(conn: &Conn, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    conn.pending_bytes.set(conn.pending_bytes.get().saturating_add(len));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins outputs that lie in rooms side by side; `-` is a dead byte, and a room of `None` is
    /// one that didn't come back. Says how many were joined, and what is left as pieces.
    fn joined(rooms: &[Option<&str>]) -> (usize, Vec<String>) {
        let mut arena = Arena::new(8192).unwrap();
        let mut pending = Pending::new(0);
        let mut at = 0;
        for room in rooms {
            let bytes = room.unwrap_or("lent").as_bytes();
            arena.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
            let dead = bytes.iter().take_while(|byte| **byte == b'-').count();
            let (room_at, end) = (at as u32, (at + bytes.len()) as u32);
            at += bytes.len();
            if room.is_some() {
                let piece =
                    Piece::Arena(Given { room: room_at, start: room_at + dead as u32, end });
                let next = pending.entries.len() as u32 + 1;
                pending.entries.push(Entry { piece, next });
            }
        }
        let count = pending.join(0, arena.memory_mut());
        let lent = rooms.iter().position(Option::is_none);
        if let Some(before) = lent {
            let at = rooms[..before].iter().flatten().map(|room| room.len()).sum();
            assert_eq!(&arena.memory_mut()[at..at + 4], b"lent", "what is lent isn't touched");
        }
        let (mut pieces, mut index) = (Vec::new(), 0);
        while let Some((bytes, next)) = pending.bytes(index, &arena) {
            pieces.push(String::from_utf8(bytes.to_vec()).unwrap());
            index = next;
        }
        (count, pieces)
    }

    #[test]
    fn neighbours_are_joined_over_the_dead_bytes_between_them() {
        let (count, pieces) = joined(&[Some("--aaa"), Some("--bb"), None, Some("---cccc")]);
        assert_eq!((count, pieces), (1, vec!["aaabb".into(), "cccc".into()]));
    }

    #[test]
    fn many_small_outputs_become_one() {
        let rooms: Vec<String> = (0..16).map(|n| format!("----{n:0n$}.")).collect();
        let (count, pieces) = joined(&rooms.iter().map(|r| Some(&r[..])).collect::<Vec<_>>());
        assert_eq!((count, pieces), (15, vec![rooms.concat().replace('-', "")]));
    }

    #[test]
    fn a_large_output_isnt_moved_but_joined_where_it_touches() {
        let large = "x".repeat(MOVE_MAX_BYTES + 1);
        let apart = format!("-{large}");
        let (count, pieces) = joined(&[Some("-a"), Some(&apart), Some(&large), Some("--b")]);
        assert_eq!((count, pieces), (2, vec!["a".into(), format!("{large}{large}b")]));
    }
}
