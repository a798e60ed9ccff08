//! The transmit half of a turn of the fake, and what it asserts of the pipeline.

use std::net::SocketAddr;
use std::ops::Range;

use super::Conn;
use super::memory::Buffers;
use super::output::Piece;
use crate::backend::{ConnId, TxHalf};
use crate::window::{Out, Window};

/// The transmit half of a turn of [`Fake`](super::Fake).
pub struct FakeTx<'t> {
    pub(super) conns: &'t mut [Conn],
    pub(super) dirty: &'t mut Vec<u32>,
    pub(super) spares: &'t mut Vec<Vec<u8>>,
    pub(super) sent_after_close: &'t mut u64,
    pub(super) buffers: Option<&'t mut Buffers>,
    /// Of the memory that is lent.
    pub(super) addresses: Range<usize>,
    pub(super) ring: bool,
}

impl FakeTx<'_> {
    fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let found = self.conns.get_mut(conn.slot as usize)?;
        if !found.live || found.generation != conn.generation {
            return None;
        }
        if found.closing || found.aborted {
            *self.sent_after_close += 1;
            return None;
        }
        if !std::mem::replace(&mut found.dirty, true) {
            self.dirty.push(conn.slot);
        }
        Some(found)
    }
}

/// What `build` leaves behind the bytes that weren't written.
const UNWRITTEN: u8 = 0xA7;

impl<'t> TxHalf<'t> for FakeTx<'t> {
    fn send(&mut self, conn: ConnId, mut out: Out<'t>) -> Result<(), Out<'t>> {
        let mut lent_at = 0;
        if let Out::Window(window) = out {
            let start = window.start();
            let room = window.into_room();
            let at = room.as_ptr().addr();
            let ours = self.addresses.start <= at && at + room.len() <= self.addresses.end;
            assert!(ours, "a window that comes back lies in the memory that was lent");
            lent_at = at - self.addresses.start + start;
            // Dead bytes: nobody may count on them.
            room[..start].fill(0xDD);
            out = Out::Window(Window::output(room, start));
        }
        let ring = self.ring;
        let Some(_) = self.live(conn) else { return Ok(()) };
        let FakeTx { conns, spares, buffers, .. } = self;
        let output = &mut conns[conn.slot as usize].output;
        let len = out.len();
        let whole = !(ring && matches!(out, Out::Window(_)));
        if !output.has_room(len, whole) {
            output.refused = Some(len);
            return Err(out);
        }
        if len > 0 {
            output.accept(out, |bytes| {
                if buffers.as_mut().is_none_or(|buffers| buffers.pin(lent_at)) {
                    return Piece::Lent(lent_at, len);
                }
                let mut copy = spares.pop().unwrap_or_default();
                copy.extend_from_slice(bytes);
                Piece::Built(copy)
            });
        }
        Ok(())
    }

    fn build(&mut self, conn: ConnId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        let ring = self.ring;
        let Some(found) = self.live(conn) else {
            // Accepted and dropped, as `send` does.
            return true;
        };
        if !found.output.has_room(len, false) {
            return false;
        }
        if ring {
            let Some(room) = found.output.ring.contiguous().get_mut(..len) else { return false };
            fill_whole(room, fill);
            found.output.ring.commit(len);
            found.output.unsent += len;
            return true;
        }
        let FakeTx { conns, spares, .. } = self;
        let mut built = spares.pop().unwrap_or_default();
        built.resize(len, 0);
        fill_whole(&mut built, fill);
        let output = &mut conns[conn.slot as usize].output;
        output.pieces.push_back(Piece::Built(built));
        output.unsent += len;
        true
    }

    fn unsent(&self, conn: ConnId) -> usize {
        self.conns
            .get(conn.slot as usize)
            .filter(|found| found.live && found.generation == conn.generation)
            .map_or(0, |found| found.output.unsent)
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns
            .get(conn.slot as usize)
            .filter(|found| found.live && found.generation == conn.generation)
            .and_then(|found| found.address)
    }
}

/// Has `room` filled.
///
/// # Panics
/// When the end of it was left unwritten (as far as that can be told).
fn fill_whole(room: &mut [u8], fill: &mut dyn FnMut(&mut [u8])) {
    if cfg!(debug_assertions) {
        room.fill(UNWRITTEN);
    }
    fill(room);
    if cfg!(debug_assertions) && room.len() >= 16 {
        let tail = &room[room.len() - 8..];
        assert!(tail.iter().any(|b| *b != UNWRITTEN), "`fill` writes every byte it is given");
    }
}
