//! The Backend seam: what a transport (sockets, io_uring, IOCP, the userspace stack) gives the
//! pipeline, and the rules that both sides keep. It knows no socket and no NIC.
//!
//! A turn is `poll` → `turn` (two halves: windows in, output out) → the halves are dropped → the
//! deferred operations (`close`, `abort`, `pause_rx`) → `flush`. Where a turn's receive memory is
//! used up before its events are ([`RxHalf::is_full`]), the next turn begins without a poll. Receive and transmit are split so
//! that a batch can hold windows of many connections while replies are sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

pub use hioload_core::clock::Now;
pub use hioload_core::wait::Wait;

pub use crate::window::{Out, Window};

/// Names a transport of one worker. It is never reused: a slot's next tenant has another
/// generation, so a stale id reaches nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// Index into the backend's table; dense, so that the pipeline can index by it.
    pub slot: u32,
    /// Counts the tenants of the slot.
    pub generation: u32,
}

impl ConnId {
    /// Names no transport.
    pub const NONE: ConnId = ConnId { slot: u32::MAX, generation: u32::MAX };
}

/// Why a transport is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Closed in order: everything accepted was sent and both sides finished, or the pipeline
    /// aborted it.
    Finished,
    /// The peer reset the connection.
    Reset,
    /// Any other transport error (timed out, unreachable, ...).
    Failed,
}

/// What happened to a connection since the last poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A connection was accepted or an outgoing one is established.
    Opened(ConnId),
    /// Bytes wait: `RxHalf::take` gives them in this turn.
    Readable(ConnId),
    /// Room again after `TxHalf::send` refused.
    Writable(ConnId),
    /// The peer finished sending (FIN) and all its bytes were taken. The other direction is open.
    Eof(ConnId),
    /// The transport is gone; its id is dead from now on. Given exactly once for each `Opened`,
    /// and for each `connect` that failed.
    Closed(ConnId, Gone),
}

/// A turn's events. A backend pushes at most [`Events::room`] of them and keeps the rest for the
/// next poll, so that a turn's work is bounded.
pub struct Events {
    list: Vec<Event>,
    limit: usize,
}

impl Events {
    /// A list that takes `limit` events a turn; allocated once.
    pub fn with_limit(limit: usize) -> Self {
        Events { list: Vec::with_capacity(limit), limit }
    }

    /// How many more events fit in this turn.
    pub fn room(&self) -> usize {
        self.limit - self.list.len()
    }

    /// Adds an event. A backend asks [`Events::room`] first; what is pushed beyond it still
    /// counts, at the price of an allocation.
    pub fn push(&mut self, event: Event) {
        self.list.push(event);
        self.limit = self.limit.max(self.list.len());
    }

    /// Forgets the last turn's events.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// This turn's events, in the order in which they happened.
    pub fn as_slice(&self) -> &[Event] {
        &self.list
    }
}

/// The most that a backend lends of one connection in a turn, in bytes. Replies to it may be all
/// that much beyond a session's limit of unsent output.
pub const TURN_BYTES: usize = 256 * 1024;

/// The receive half of a turn.
pub trait RxHalf<'t> {
    /// The bytes that wait on `conn`, lent until the turn ends. Each is lent exactly once, in
    /// order; `None` when there are no more in this turn. A backend lends at most
    /// [`TURN_BYTES`] a connection a turn (several windows where its memory wraps).
    fn take(&mut self, conn: ConnId) -> Option<Window<'t>>;

    /// The turn has lent as much as it should: the pipeline ends it at the next `Readable` and
    /// goes on from there in the next turn, without a poll between them, so that all that a poll
    /// reported have their turn before any has another. Never true before the first `take`.
    #[inline]
    fn is_full(&self) -> bool {
        false
    }
}

/// The transmit half of a turn. Dyn-compatible, so that a handler isn't generic over the backend.
pub trait TxHalf<'t> {
    /// Hands output to the transport: accepted whole, or given back whole when the transport
    /// has no room, and then `Event::Writable` follows. Output for a dead connection is accepted
    /// and dropped: its `Closed` event is on the way. What is accepted is sent in order.
    fn send(&mut self, conn: ConnId, out: Out<'t>) -> Result<(), Out<'t>>;

    /// Builds `len` bytes of output in the transport's own send memory: `fill` gets exactly `len`
    /// bytes (of unspecified content) and must write all of them. `false`, and `fill` isn't
    /// called, when there is no room now; no `Event::Writable` follows from that alone.
    fn build(&mut self, conn: ConnId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool;

    /// Bytes that were accepted on `conn` and are still in this process's memory.
    fn unsent(&self, conn: ConnId) -> usize;

    /// The peer's address; `None` for a dead connection, or where there is none.
    fn peer(&self, conn: ConnId) -> Option<SocketAddr>;

    /// Output for `conn` follows, and its state may be fetched into the caches by then. A hint, for
    /// output to many connections one after the other.
    #[inline]
    fn prefetch(&self, conn: ConnId, ahead: Ahead) {
        let _ = (conn, ahead);
    }
}

/// How far ahead of its use something is fetched: what names the place first, then the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ahead {
    /// A dozen connections ahead: what leads to the connection's memory.
    Far,
    /// A few connections ahead: that memory, found by what was fetched before.
    Near,
}

/// Wakes a worker that waits in `Backend::poll`, from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next blocking `poll` return. Cheap to call twice.
    fn wake(&self);
}

/// What a backend is and can do, for the start-up report and for the pipeline's choices.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Name as given to `--backend` (`epoll`, `io_uring`, ...).
    pub name: &'static str,
    /// The backend can open connections ([`Backend::connect`]).
    pub connect: bool,
}

/// A transport with many connections, driven by one worker on one thread.
pub trait Backend {
    /// The receive half of a turn.
    type Rx<'t>: RxHalf<'t>
    where
        Self: 't;
    /// The transmit half of a turn.
    type Tx<'t>: TxHalf<'t>
    where
        Self: 't;

    /// Collects what happened, blocking as `wait` says (never when events are already at hand).
    ///
    /// # Errors
    /// Only what makes the worker unable to go on; a fault of one connection is an event.
    fn poll(&mut self, now: Now, wait: Wait, events: &mut Events) -> io::Result<()>;

    /// The windows of this turn.
    fn turn(&mut self) -> (Self::Rx<'_>, Self::Tx<'_>);

    /// Ends the turn: all accepted output is on its way or owned by the backend; lent windows
    /// return to it.
    fn flush(&mut self, now: Now);

    /// The earliest time at which the backend wants to be polled though nothing happens (a
    /// retransmission, retrying accept after descriptors ran out). `None`: never.
    fn next_deadline(&self) -> Option<Now>;

    /// Opens a connection; `Opened` or `Closed` follows.
    ///
    /// # Errors
    /// What the operating system says at once, or `Unsupported`.
    fn connect(&mut self, to: SocketAddr) -> io::Result<ConnId>;

    /// Sends what was accepted, then FIN, and discards what still arrives until the peer's FIN;
    /// then `Closed` comes. The pipeline bounds the time by a later `abort`.
    fn close(&mut self, conn: ConnId);

    /// Drops the connection at once, with RST where the transport has one. `Closed` follows.
    fn abort(&mut self, conn: ConnId);

    /// Stops or resumes offering `Readable` for a connection (back-pressure). Windows of the
    /// current turn stay valid. While paused, a lost connection may be noticed late.
    fn pause_rx(&mut self, conn: ConnId, paused: bool);

    /// Stops or resumes accepting. Stopping for good (`closed`) also closes the listeners.
    fn set_accepting(&mut self, accepting: Accepting);

    /// The handle that wakes this worker.
    fn waker(&self) -> Arc<dyn Wake>;

    /// What this backend is.
    fn capabilities(&self) -> Capabilities;
}

/// Whether new connections are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepting {
    /// Take them as they come.
    Yes,
    /// Leave them in the queue for now.
    Paused,
    /// Close the listeners; never again.
    Closed,
}
