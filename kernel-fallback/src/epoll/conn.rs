//! The table of connections: a small record each, by slot and generation, shared by both halves of
//! a turn through cells. It owns the descriptors, what epoll watches on them, and the list of
//! connections whose events the pipeline is still owed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use hioload_core::slab::{Key, Slab};
use hioload_pipeline::backend::{ConnId, Gone};

use super::sys;
use crate::counters::SocketCounters;

/// No index.
pub(super) const NONE: u32 = u32::MAX;
/// No descriptor.
const NO_FD: RawFd = -1;

/// Receiving is paused.
pub(super) const PAUSED: u16 = 1 << 0;
/// The peer's FIN was received.
pub(super) const EOF: u16 = 1 << 1;
/// `close` was called: what arrives is discarded.
pub(super) const CLOSING: u16 = 1 << 2;
/// Our FIN was sent.
pub(super) const FIN_SENT: u16 = 1 << 3;
/// An outgoing connection that isn't established.
pub(super) const CONNECTING: u16 = 1 << 4;
/// `send` refused since the last `Writable`.
pub(super) const REFUSED: u16 = 1 << 5;
/// It is in the list of those that are owed an event.
const LISTED: u16 = 1 << 6;
/// `Eof` is owed.
pub(super) const OWED_EOF: u16 = 1 << 7;
/// `Writable` is owed.
pub(super) const OWED_WRITABLE: u16 = 1 << 8;
/// epoll reports when bytes wait.
const WATCHED_IN: u16 = 1 << 9;
/// epoll reports when there is room.
const WATCHED_OUT: u16 = 1 << 10;

/// One connection. An idle one has nothing but this.
pub(super) struct Conn {
    fd: Cell<RawFd>,
    flags: Cell<u16>,
    /// Set once it is gone; the record stays until `Closed` was given.
    gone: Cell<Option<Gone>>,
    /// First and last of this turn's outputs.
    pub(super) first: Cell<u32>,
    pub(super) last: Cell<u32>,
    /// Bytes in them.
    pub(super) pending_bytes: Cell<u32>,
    /// Index of the backlog.
    pub(super) backlog: Cell<u32>,
    /// The turn in which it was last received from.
    pub(super) taken: Cell<u32>,
}

const _: () = assert!(size_of::<Conn>() <= 28);

impl Conn {
    pub(super) fn fd(&self) -> RawFd {
        self.fd.get()
    }

    /// Any of these flags.
    #[inline]
    pub(super) fn is(&self, flags: u16) -> bool {
        self.flags.get() & flags != 0
    }

    pub(super) fn set(&self, flags: u16) {
        self.flags.set(self.flags.get() | flags);
    }

    pub(super) fn clear(&self, flags: u16) {
        self.flags.set(self.flags.get() & !flags);
    }

    /// Clears a flag and says whether it was set.
    pub(super) fn unset(&self, flag: u16) -> bool {
        let was = self.is(flag);
        self.clear(flag);
        was
    }

    pub(super) fn gone(&self) -> Option<Gone> {
        self.gone.get()
    }

    /// Nothing waits to be sent.
    pub(super) fn all_sent(&self) -> bool {
        self.first.get() == NONE && self.backlog.get() == NONE
    }

    /// What epoll should watch for, as flags.
    fn wanted(&self) -> u16 {
        let mut wanted = 0;
        if !self.is(PAUSED | EOF | CONNECTING) {
            wanted |= WATCHED_IN;
        }
        if self.is(CONNECTING) || self.backlog.get() != NONE {
            wanted |= WATCHED_OUT;
        }
        wanted
    }

    fn close_fd(&self) {
        let fd = self.fd.replace(NO_FD);
        if fd != NO_FD {
            sys::close(fd);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.close_fd();
    }
}

fn mask(flags: u16) -> u32 {
    let mut mask = 0;
    if flags & WATCHED_IN != 0 {
        mask |= sys::IN;
    }
    if flags & WATCHED_OUT != 0 {
        mask |= sys::OUT;
    }
    mask
}

/// What epoll carries for a connection, so that a late event of a batch can't reach the slot's
/// next tenant.
fn pack(id: ConnId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.slot)
}

/// The reverse of `pack`.
pub(super) fn unpack(data: u64) -> ConnId {
    ConnId { slot: data as u32, generation: (data >> 32) as u32 }
}

fn key(id: ConnId) -> Key {
    Key { slot: id.slot, generation: id.generation }
}

/// What an error on a socket says about its end.
pub(super) fn gone_by(error: &io::Error) -> Gone {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => Gone::Reset,
        _ => Gone::Failed,
    }
}

/// See the module.
pub(super) struct Table {
    ep: OwnedFd,
    conns: Slab<Conn>,
    owed: RefCell<VecDeque<ConnId>>,
    /// A descriptor was closed since this was last asked.
    fd_freed: Cell<bool>,
    counters: Arc<SocketCounters>,
}

impl Table {
    pub(super) fn new(ep: OwnedFd, expected: usize, counters: Arc<SocketCounters>) -> Self {
        Table {
            ep,
            conns: Slab::with_capacity(expected),
            owed: RefCell::new(VecDeque::new()),
            fd_freed: Cell::new(false),
            counters,
        }
    }

    pub(super) fn ep(&self) -> RawFd {
        self.ep.as_raw_fd()
    }

    /// The record, also of one that is gone and whose `Closed` is owed.
    pub(super) fn get(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(key(id))
    }

    /// The record of one that isn't gone.
    #[inline]
    pub(super) fn live(&self, id: ConnId) -> Option<&Conn> {
        self.get(id).filter(|conn| conn.gone().is_none())
    }

    /// Takes a descriptor in and watches it.
    pub(super) fn insert(&mut self, fd: OwnedFd, flags: u16) -> io::Result<ConnId> {
        let Key { slot, generation } = self.conns.insert(Conn {
            fd: Cell::new(fd.into_raw_fd()),
            flags: Cell::new(flags),
            gone: Cell::new(None),
            first: Cell::new(NONE),
            last: Cell::new(NONE),
            pending_bytes: Cell::new(0),
            backlog: Cell::new(NONE),
            taken: Cell::new(0),
        });
        let id = ConnId { slot, generation };
        let Some(conn) = self.get(id) else { return Err(io::ErrorKind::Other.into()) };
        let wanted = conn.wanted();
        conn.set(wanted);
        self.counters.watch_calls_total.inc();
        if let Err(error) = sys::watch(self.ep(), conn.fd(), mask(wanted), pack(id)) {
            self.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    /// How many slots there ever were.
    #[cfg(test)]
    pub(super) fn slots(&self) -> u32 {
        self.conns.slots()
    }

    /// Frees the slot; the id is dead from now on.
    pub(super) fn remove(&mut self, id: ConnId) {
        self.conns.remove(key(id));
    }

    /// Tells epoll what to watch for, where that changed.
    pub(super) fn rewatch(&self, id: ConnId, conn: &Conn) {
        let wanted = conn.wanted();
        if conn.flags.get() & (WATCHED_IN | WATCHED_OUT) == wanted {
            return;
        }
        conn.clear(WATCHED_IN | WATCHED_OUT);
        conn.set(wanted);
        self.counters.watch_calls_total.inc();
        if sys::rewatch(self.ep(), conn.fd(), mask(wanted), pack(id)).is_err() {
            // Unwatched it would hang for ever.
            self.end(id, conn, Gone::Failed);
        }
    }

    /// The connection is gone: its descriptor is closed at once and `Closed` owed. Only the first
    /// call counts.
    pub(super) fn end(&self, id: ConnId, conn: &Conn, gone: Gone) {
        if conn.gone().is_some() {
            return;
        }
        match gone {
            Gone::Finished => {}
            Gone::Reset => self.counters.resets_total.inc(),
            Gone::Failed => self.counters.failures_total.inc(),
        }
        conn.gone.set(Some(gone));
        conn.close_fd();
        self.fd_freed.set(true);
        self.owe(id, conn, 0);
    }

    /// Puts a connection in the list of those that are owed an event.
    pub(super) fn owe(&self, id: ConnId, conn: &Conn, flag: u16) {
        conn.set(flag);
        if !conn.is(LISTED) {
            conn.set(LISTED);
            self.owed.borrow_mut().push_back(id);
        }
    }

    /// The connection that is owed an event for the longest time.
    pub(super) fn next_owed(&self) -> Option<ConnId> {
        self.owed.borrow().front().copied()
    }

    /// Takes the first one off the list.
    pub(super) fn settled(&self) {
        if let Some(conn) = self.owed.borrow_mut().pop_front().and_then(|id| self.get(id)) {
            conn.clear(LISTED);
        }
    }

    /// Whether a descriptor was closed since the last call.
    pub(super) fn take_fd_freed(&self) -> bool {
        self.fd_freed.replace(false)
    }
}
