//! The end of a turn: one send a connection that has output, and what becomes of the rest when the
//! kernel has no room.

use std::io::IoSlice;

use arrayvec::ArrayVec;
use hioload_core::slab::Key;
use hioload_pipeline::backend::{ConnId, Gone};

use super::Epoll;
use super::backlog::NoMemory;
use super::conn::{
    CLOSING, CONNECTING, Conn, EOF, FIN_SENT, NONE, OWED_WRITABLE, REFUSED, gone_by,
};
use super::halves::is_temporary;
use super::pending::Held;
use super::sys;

/// Pieces a call.
const PIECES: usize = 128;
/// Calls a connection a turn; what is left then goes the way of what the kernel has no room for.
const CALLS_MAX: usize = 32;

/// How far sending got.
struct Rest {
    /// The first piece that isn't sent whole.
    index: u32,
    /// How much of it is.
    sent: usize,
}

impl Epoll {
    /// Sends the turn's output.
    pub(super) fn flush_pending(&mut self) {
        let dirty = self.pending.take_dirty();
        for &id in &dirty {
            self.flush_conn(id);
        }
        self.pending.reset(dirty);
        self.arena.reset();
    }

    fn flush_conn(&mut self, id: ConnId) {
        let Some(conn) = self.table.get(id) else { return };
        let first = conn.first.replace(NONE);
        conn.last.set(NONE);
        let bytes = conn.pending_bytes.replace(0) as usize;
        if conn.gone().is_some() {
            return;
        }
        if first != NONE {
            let joined = self.pending.join(first, self.arena.memory_mut());
            self.counters.joined_outputs_total.add(joined as u64);
            match self.send_pieces(conn, first) {
                Ok((_, None)) => {}
                Ok((sent, Some(rest))) => {
                    self.counters.partial_sends_total.inc();
                    if self.keep(id, rest, bytes.saturating_sub(sent)).is_err() {
                        self.counters.memory_failures_total.inc();
                        return self.reset(id, Gone::Failed);
                    }
                }
                Err(gone) => return self.table.end(id, conn, gone),
            }
        }
        self.sent_what_it_could(id);
    }

    /// What follows once output has left, or became backlog.
    fn sent_what_it_could(&self, id: ConnId) {
        let Some(conn) = self.table.live(id) else { return };
        if conn.all_sent() {
            if conn.unset(REFUSED) && !conn.is(CLOSING) {
                self.table.owe(id, conn, OWED_WRITABLE);
            }
            if conn.is(CLOSING) {
                self.send_fin(id, conn);
            }
        }
        if conn.gone().is_none() {
            self.table.rewatch(id, conn);
        }
    }

    /// All is sent and `close` was called: FIN, or the end if the peer's FIN came before.
    pub(super) fn send_fin(&self, id: ConnId, conn: &Conn) {
        if conn.is(EOF) {
            return self.table.end(id, conn, Gone::Finished);
        }
        if !conn.is(FIN_SENT) {
            conn.set(FIN_SENT);
            if let Err(error) = sys::shutdown_send(conn.fd()) {
                // ENOTCONN: reset meanwhile.
                let gone = match error.raw_os_error() {
                    Some(libc::ENOTCONN) => Gone::Reset,
                    _ => gone_by(&error),
                };
                self.table.end(id, conn, gone);
            }
        }
    }

    /// Sends a connection's pieces from `index` on. Says how many bytes went, and where it had to
    /// stop.
    fn send_pieces(&self, conn: &Conn, index: u32) -> Result<(usize, Option<Rest>), Gone> {
        let mut rest = Rest { index, sent: 0 };
        let mut total = 0;
        if conn.is(CONNECTING) {
            return Ok((0, Some(rest)));
        }
        for _ in 0..CALLS_MAX {
            let mut pieces = ArrayVec::<IoSlice<'_>, PIECES>::new();
            let (mut at, mut skip, mut offered) = (rest.index, rest.sent, 0);
            while let Some((bytes, next)) = self.pending.bytes(at, &self.arena) {
                let bytes = &bytes[skip..];
                offered += bytes.len();
                if pieces.try_push(IoSlice::new(bytes)).is_err() || pieces.is_full() {
                    break;
                }
                (at, skip) = (next, 0);
            }
            self.counters.send_calls_total.inc();
            let sent = match sys::send(conn.fd(), &pieces) {
                Ok(sent) => sent,
                Err(error) if is_temporary(&error) => 0,
                Err(error) => return Err(gone_by(&error)),
            };
            total += sent;
            self.counters.sent_bytes_total.add(sent as u64);
            self.advance(&mut rest, sent);
            if rest.index == NONE {
                return Ok((total, None));
            }
            if sent < offered {
                break;
            }
        }
        Ok((total, Some(rest)))
    }

    fn advance(&self, rest: &mut Rest, mut sent: usize) {
        while let Some((bytes, next)) = self.pending.bytes(rest.index, &self.arena) {
            let left = bytes.len() - rest.sent;
            if sent < left {
                rest.sent += sent;
                return;
            }
            sent -= left;
            *rest = Rest { index: next, sent: 0 };
        }
    }

    /// Makes what is left of a connection's pieces, `left` bytes, its backlog.
    fn keep(&mut self, id: ConnId, rest: Rest, left: usize) -> Result<(), NoMemory> {
        let mut backlog = self.spare_backlogs.pop().unwrap_or_default();
        let Rest { mut index, mut sent } = rest;
        while let Some(next) = self.pending.next(index) {
            match self.pending.take(index) {
                Some(Held::Owned(buf)) => backlog.keep_buffer(buf, sent),
                Some(Held::Shared(frame)) => backlog.keep_frame(frame, sent),
                None => {
                    let bytes = self.pending.bytes(index, &self.arena).map_or(&[][..], |b| b.0);
                    let bytes = bytes.get(sent..).unwrap_or_default();
                    self.counters.backlog_copied_bytes_total.add(bytes.len() as u64);
                    let to_come = left.saturating_sub(backlog.bytes() + bytes.len());
                    backlog.copy(bytes, to_come, &self.pool)?;
                }
            }
            (index, sent) = (next, 0);
        }
        self.counters.backlog_bytes.add(backlog.bytes() as u64);
        let slot = self.backlogs.insert(backlog).slot;
        if let Some(conn) = self.table.get(id) {
            conn.backlog.set(slot);
        }
        Ok(())
    }

    /// The kernel has room for a connection that has a backlog.
    pub(super) fn send_backlog(&mut self, id: ConnId) {
        let Some(conn) = self.table.live(id) else { return };
        let Some(backlog) = self.backlogs.get_slot_mut(conn.backlog.get()) else { return };
        for _ in 0..CALLS_MAX {
            let pieces = backlog.pieces::<PIECES>();
            let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
            self.counters.send_calls_total.inc();
            let sent = match sys::send(conn.fd(), &pieces) {
                Ok(sent) => sent,
                Err(error) if is_temporary(&error) => 0,
                Err(error) => return self.table.end(id, conn, gone_by(&error)),
            };
            drop(pieces);
            backlog.sent(sent);
            self.counters.sent_bytes_total.add(sent as u64);
            self.counters.backlog_bytes.sub(sent as u64);
            if backlog.bytes() == 0 {
                let slot = conn.backlog.replace(NONE);
                self.drop_backlog(slot);
                break;
            }
            if sent < offered {
                self.counters.partial_sends_total.inc();
                break;
            }
        }
        self.sent_what_it_could(id);
    }

    /// Frees a backlog and what is in it.
    pub(super) fn drop_backlog(&mut self, slot: u32) {
        /// Empty lists kept for the next slow peers.
        const SPARE_MAX: usize = 64;
        let key: Option<Key> = self.backlogs.key_at(slot);
        let Some(backlog) = key.and_then(|key| self.backlogs.remove(key)) else { return };
        self.counters.backlog_bytes.sub(backlog.bytes() as u64);
        if backlog.bytes() == 0 && self.spare_backlogs.len() < SPARE_MAX {
            self.spare_backlogs.push(backlog);
        }
    }
}
