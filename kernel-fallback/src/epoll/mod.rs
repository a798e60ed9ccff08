//! The epoll backend: level-triggered, one instance a worker, nothing shared between workers but
//! the address that they listen on.
//!
//! A turn: `poll` waits and collects events (`poll.rs`, `alarm.rs`, `accept.rs`), the halves lend and
//! take windows of the receive arena (`halves.rs`, `arena.rs`, `pending.rs`), `flush` sends what a
//! connection is owed in one call (`flush.rs`) and keeps what the kernel has no room for
//! (`backlog.rs`). System calls are in `sys.rs`, connection records in `conn.rs`. An idle connection
//! costs its record (36 bytes at most) and no buffer.

mod accept;
mod alarm;
mod arena;
mod backlog;
mod conn;
mod flush;
mod halves;
mod listener;
mod pending;
mod poll;
mod sys;
mod wake;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use hioload_core::clock::Now;
use hioload_core::pool::Pool;
use hioload_core::slab::Slab;
use hioload_core::wait::Wait;
use hioload_pipeline::backend::{
    Accepting, Backend, Capabilities, ConnId, Events, Gone, TURN_BYTES, Wake,
};

use crate::counters::SocketCounters;
use accept::Acceptor;
use alarm::Alarm;
use arena::Arena;
use backlog::Backlog;
use conn::{CLOSING, CONNECTING, OWED_EOF, OWED_WRITABLE, PAUSED, REFUSED, Table};
use pending::Pending;
use wake::Bell;

pub use halves::{EpollRx, EpollTx};
pub use listener::{ListenError, Listener, Listeners};

/// What epoll carries for the bell; never a connection or a listener.
const BELL_SLOT: u32 = u32::MAX;
/// The same for the alarm.
const ALARM_SLOT: u32 = u32::MAX - 1;
/// Reports taken from the kernel a turn.
const REPORTS: usize = 512;

/// Default of [`EpollConfig::arena_bytes`].
pub const ARENA_BYTES: usize = 512 * 1024;
/// Default of [`EpollConfig::scratch_bytes`].
pub const SCRATCH_BYTES: usize = 256 * 1024;
/// Default of [`EpollConfig::accept_burst`].
pub const ACCEPT_BURST: usize = 64;

/// What a worker's backend is made of.
pub struct EpollConfig {
    /// Its listening sockets, of [`Listeners::into_workers`]. None for a client.
    pub listeners: Vec<Listener>,
    /// The worker's share of its node's buffers, for output that the kernel has no room for.
    pub pool: Pool,
    /// Where it counts.
    pub counters: Arc<SocketCounters>,
    /// Once so much was received in a turn, the turn ends, and what else is readable waits for the
    /// next. One connection receives at most 256 KiB in a turn.
    pub arena_bytes: usize,
    /// Memory of a turn for output that the handler builds.
    pub scratch_bytes: usize,
    /// The most output that a connection may gather in a turn before it is refused; one output is
    /// always taken. By default room for the replies to what it receives in a turn, and to a
    /// message of as much that began before. What the kernel doesn't take of it waits here, so it
    /// should not exceed what a session may have unsent.
    pub pending_max_bytes: usize,
    /// The most connections accepted a turn and listener.
    pub accept_burst: usize,
    /// How many connections to make room for at once; more are taken as they come.
    pub expected_connections: usize,
}

impl EpollConfig {
    /// The defaults.
    pub fn new(listeners: Vec<Listener>, pool: Pool, counters: Arc<SocketCounters>) -> Self {
        EpollConfig {
            listeners,
            pool,
            counters,
            arena_bytes: ARENA_BYTES,
            scratch_bytes: SCRATCH_BYTES,
            pending_max_bytes: 2 * TURN_BYTES,
            accept_burst: ACCEPT_BURST,
            expected_connections: 0,
        }
    }
}

/// A worker's connections over epoll. Made in the worker's own thread, which it never leaves.
///
/// Dropping it closes all its connections.
pub struct Epoll {
    table: Table,
    acceptor: Acceptor,
    arena: Arena,
    pending: Pending,
    backlogs: Slab<Backlog>,
    spare_backlogs: Vec<Backlog>,
    reports: Box<[sys::RawEvent]>,
    bell: Arc<Bell>,
    alarm: Alarm,
    pool: Pool,
    pending_max_bytes: usize,
    counters: Arc<SocketCounters>,
    /// Counts the turns.
    turn: u32,
    /// Connections for which the last poll gave `Readable`.
    ready: usize,
}

impl Epoll {
    /// A backend that listens from its first poll on.
    ///
    /// # Errors
    /// What the system says when it refuses descriptors or memory.
    pub fn new(config: EpollConfig) -> io::Result<Epoll> {
        let EpollConfig { listeners, pool, counters, .. } = config;
        let ep = sys::epoll_create()?;
        let bell = Bell::new()?;
        let alarm = Alarm::new()?;
        for (fd, slot) in [(bell.fd(), BELL_SLOT), (alarm.fd(), ALARM_SLOT)] {
            sys::watch(ep.as_raw_fd(), fd, sys::IN | sys::EDGE, u64::from(slot))?;
        }
        Ok(Epoll {
            acceptor: Acceptor::new(ep.as_raw_fd(), listeners, config.accept_burst)?,
            table: Table::new(ep, config.expected_connections, Arc::clone(&counters)),
            arena: Arena::new(config.arena_bytes).map_err(io::Error::other)?,
            pending: Pending::new(config.scratch_bytes),
            backlogs: Slab::new(),
            spare_backlogs: Vec::new(),
            reports: vec![sys::RawEvent { events: 0, u64: 0 }; REPORTS].into_boxed_slice(),
            bell: Arc::new(bell),
            alarm,
            pool,
            pending_max_bytes: config.pending_max_bytes,
            counters,
            turn: 0,
            ready: 0,
        })
    }

    /// Ends a connection with RST.
    fn reset(&self, id: ConnId, gone: Gone) {
        let Some(conn) = self.table.live(id) else { return };
        // Where it fails, the peer sees FIN instead.
        let _ = sys::set_reset_on_close(conn.fd());
        self.table.end(id, conn, gone);
    }
}

impl Backend for Epoll {
    type Rx<'t> = EpollRx<'t>;
    type Tx<'t> = EpollTx<'t>;

    fn poll(&mut self, now: Now, wait: Wait, events: &mut Events) -> io::Result<()> {
        self.collect(now, wait, events)
    }

    fn turn(&mut self) -> (EpollRx<'_>, EpollTx<'_>) {
        self.turn = self.turn.wrapping_add(1);
        let (lender, taker) = self.arena.turn();
        let rx = EpollRx::new(&self.table, lender, self.turn, self.ready, &self.counters);
        let tx = EpollTx {
            table: &self.table,
            taker,
            pending: &mut self.pending,
            backlogs: &self.backlogs,
            pool: &self.pool,
            counters: &self.counters,
            pending_max_bytes: self.pending_max_bytes,
        };
        (rx, tx)
    }

    fn flush(&mut self, _now: Now) {
        self.flush_pending();
    }

    fn next_deadline(&self) -> Option<Now> {
        self.acceptor.deadline()
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<ConnId> {
        let fd = sys::tcp_socket(&to)?;
        sys::set_no_delay(fd.as_raw_fd())?;
        sys::connect(fd.as_raw_fd(), &to)?;
        self.table.insert(fd, CONNECTING)
    }

    fn close(&mut self, id: ConnId) {
        let Some(conn) = self.table.live(id) else { return };
        if conn.is(CLOSING) {
            return;
        }
        if conn.is(CONNECTING) {
            return self.table.end(id, conn, Gone::Finished);
        }
        conn.set(CLOSING);
        conn.clear(PAUSED | REFUSED | OWED_EOF | OWED_WRITABLE);
        if conn.all_sent() {
            self.send_fin(id, conn);
        }
        if conn.gone().is_none() {
            self.table.rewatch(id, conn);
        }
    }

    fn abort(&mut self, id: ConnId) {
        self.reset(id, Gone::Finished);
    }

    fn pause_rx(&mut self, id: ConnId, paused: bool) {
        let Some(conn) = self.table.live(id).filter(|conn| !conn.is(CLOSING)) else { return };
        if paused {
            conn.set(PAUSED);
        } else {
            conn.clear(PAUSED);
        }
        self.table.rewatch(id, conn);
    }

    fn set_accepting(&mut self, accepting: Accepting) {
        self.acceptor.set_mode(self.table.ep(), accepting);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "epoll", connect: true }
    }
}
