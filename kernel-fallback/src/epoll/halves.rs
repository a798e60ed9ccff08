//! The two halves of a turn: windows in, output out. Receiving is a system call a connection;
//! sending is none, the flush does it.

use std::io;
use std::net::SocketAddr;

use hioload_core::pool::{Pool, RECEIVE_UNIT};
use hioload_core::slab::Slab;
use hioload_pipeline::backend::{ConnId, Out, RxHalf, TURN_BYTES, TxHalf, Window};

use super::arena::{Lender, Taker};
use super::backlog::Backlog;
use super::conn::{
    CLOSING, CONNECTING, Conn, EOF, NONE, OWED_EOF, PAUSED, REFUSED, Table, gone_by,
};
use super::pending::{Held, Pending};
use super::sys;
use crate::counters::SocketCounters;

/// What all that are ready may receive before the first of them has its turn again, where that
/// leaves each [`UNIT_MIN_BYTES`]: some milliseconds of work.
const ROUND_BYTES: usize = 16 * 1024 * 1024;
/// How much a connection receives at least, if it has so much. Linux opens a connection with a
/// window of 64 KiB, and what a peer sends into that often ends a little behind it: a unit of
/// just that size cuts the last message each time, and it takes a copy to put it together.
const UNIT_MIN_BYTES: usize = 2 * RECEIVE_UNIT;

/// How much one of `ready` connections receives at once. Much is cheaper: fewer calls, and fewer
/// messages that the end of a window cuts, which cost a copy (16 KiB messages, 16 in flight: a
/// third less time with 256 KiB than with 64 KiB). Little lets others wait less.
fn receive_bytes(ready: usize) -> usize {
    (ROUND_BYTES / ready.max(1)).clamp(UNIT_MIN_BYTES, TURN_BYTES)
}

/// The receive half.
pub struct EpollRx<'t> {
    table: &'t Table,
    lender: Lender<'t>,
    turn: u32,
    /// The most that a connection receives in this turn.
    unit: usize,
    counters: &'t SocketCounters,
}

impl<'t> EpollRx<'t> {
    /// For the turn that was begun for `ready` connections.
    pub(super) fn new(
        table: &'t Table,
        lender: Lender<'t>,
        turn: u32,
        ready: usize,
        counters: &'t SocketCounters,
    ) -> Self {
        EpollRx { table, lender, turn, unit: receive_bytes(ready), counters }
    }
}

impl<'t> RxHalf<'t> for EpollRx<'t> {
    /// Asked where a connection waits.
    fn is_full(&self) -> bool {
        let full = self.lender.is_full();
        if full {
            self.counters.arena_full_total.inc();
        }
        full
    }

    fn take(&mut self, id: ConnId) -> Option<Window<'t>> {
        let conn = self.table.live(id)?;
        // One call a connection a turn: what is left makes it readable again.
        let silent = conn.is(PAUSED | EOF | CLOSING | CONNECTING);
        if conn.taken.get() == self.turn || silent || self.lender.is_full() {
            return None;
        }
        conn.taken.set(self.turn);
        self.counters.recv_calls_total.inc();
        match sys::recv(conn.fd(), self.lender.rest(self.unit)) {
            Ok(0) => {
                conn.set(EOF);
                self.table.owe(id, conn, OWED_EOF);
                self.table.rewatch(id, conn);
                None
            }
            Ok(count) => {
                self.counters.recv_bytes_total.add(count as u64);
                Some(self.lender.lend(count))
            }
            Err(error) => {
                if !is_temporary(&error) {
                    self.table.end(id, conn, gone_by(&error));
                }
                None
            }
        }
    }
}

/// Trying again later is all that the error asks for.
pub(super) fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The transmit half.
pub struct EpollTx<'t> {
    pub(super) table: &'t Table,
    pub(super) taker: Taker,
    pub(super) pending: &'t mut Pending,
    pub(super) backlogs: &'t Slab<Backlog>,
    pub(super) pool: &'t Pool,
    pub(super) counters: &'t SocketCounters,
    /// See [`EpollConfig::pending_max_bytes`](super::EpollConfig::pending_max_bytes).
    pub(super) pending_max_bytes: usize,
}

impl EpollTx<'_> {
    /// Whether `len` more bytes are taken now.
    fn has_room(&self, conn: &Conn, len: usize) -> bool {
        let pending = conn.pending_bytes.get() as usize;
        conn.backlog.get() == NONE
            && (pending == 0 || pending.saturating_add(len) <= self.pending_max_bytes)
    }

    /// Remembers that `Writable` must follow.
    #[cold]
    fn refuse<'t>(&mut self, id: ConnId, conn: &Conn, out: Out<'t>) -> Result<(), Out<'t>> {
        self.counters.refused_outputs_total.inc();
        if conn.all_sent() && !conn.is(REFUSED) {
            self.pending.mark(id);
        }
        conn.set(REFUSED);
        Err(out)
    }

    /// Takes the bytes of a window that isn't of the arena.
    #[cold]
    fn copy<'t>(&mut self, id: ConnId, conn: &Conn, foreign: Window<'t>) -> Result<(), Out<'t>> {
        let len = foreign.bytes().len();
        let Some(mut buf) = self.pool.alloc(len) else {
            return self.refuse(id, conn, Out::Window(foreign));
        };
        buf.append(foreign.bytes());
        self.pending.push_held(id, conn, Held::Owned(buf));
        Ok(())
    }
}

impl<'t> TxHalf<'t> for EpollTx<'t> {
    fn send(&mut self, id: ConnId, out: Out<'t>) -> Result<(), Out<'t>> {
        let len = out.len();
        let Some(conn) = self.table.live(id).filter(|conn| len > 0 && !conn.is(CLOSING)) else {
            return Ok(());
        };
        if !self.has_room(conn, len) {
            return self.refuse(id, conn, out);
        }
        match out {
            Out::Window(window) => match self.taker.take(window) {
                Ok(given) => self.pending.push_given(id, conn, given),
                Err(foreign) => return self.copy(id, conn, foreign),
            },
            Out::Owned(buf) => self.pending.push_held(id, conn, Held::Owned(buf)),
            Out::Shared(frame) => self.pending.push_held(id, conn, Held::Shared(frame)),
        }
        Ok(())
    }

    fn build(&mut self, id: ConnId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        let Some(conn) = self.table.live(id).filter(|conn| !conn.is(CLOSING)) else {
            return false;
        };
        if len == 0 || !self.has_room(conn, len) {
            return false;
        }
        match self.pending.build(id, conn, len, fill) {
            None => return false,
            Some(true) => self.counters.joined_outputs_total.inc(),
            Some(false) => {}
        }
        true
    }

    fn unsent(&self, id: ConnId) -> usize {
        let Some(conn) = self.table.live(id) else { return 0 };
        let backlog = self.backlogs.get_slot(conn.backlog.get()).map_or(0, Backlog::bytes);
        backlog + conn.pending_bytes.get() as usize
    }

    fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        sys::peer_addr(self.table.live(id)?.fd()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_receive_much_at_once_and_many_keep_nobody_waiting_long() {
        assert_eq!(receive_bytes(0), TURN_BYTES);
        assert_eq!(receive_bytes(64), TURN_BYTES);
        for ready in 65..=128 {
            let bytes = receive_bytes(ready);
            assert!(bytes < TURN_BYTES && bytes * ready <= ROUND_BYTES, "{ready}: {bytes}");
        }
        assert_eq!(receive_bytes(129), UNIT_MIN_BYTES);
        assert_eq!(receive_bytes(usize::MAX), UNIT_MIN_BYTES);
    }
}
