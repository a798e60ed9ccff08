//! What an operator may set, for one worker; the defaults are those of `docs/architecture.md`.

use std::time::Duration;

use hioload_ws_proto::Limits;

/// What happens to a message for a session whose unsent output is at its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// The new message is dropped and the sender is told.
    DropNewest,
    /// The oldest waiting messages are dropped until the new one fits.
    DropOldest,
    /// The session is closed with 1013 (try again later).
    #[default]
    Close,
}

/// Limits, deadlines and policies of a worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Messages a batch hands to the handler, 1 to [`crate::MAX_BATCH`].
    pub batch: usize,
    /// Slots of a worker's inbox, for messages from other threads and workers.
    pub ring: usize,
    /// Bytes of a request's head before 431.
    pub max_head_bytes: usize,
    /// Time for the opening handshake, a deferred verdict included, before 408 (or 503).
    pub handshake_timeout: Duration,
    /// Frame and message limits, in payload bytes, before close 1009.
    pub limits: Limits,
    /// Unsent bytes of a session before `overflow` applies. Reading from a session stops at half
    /// of it. A session's replies to its own messages may exceed it by one message and 256 KiB,
    /// not counting what the transport has taken.
    pub max_unsent_bytes: usize,
    /// See [`Overflow`].
    pub overflow: Overflow,
    /// Idle time before a ping is sent; zero: never.
    pub ping_after: Duration,
    /// Idle time before a session is closed with 1001; zero: never.
    pub dead_after: Duration,
    /// Time for the closing handshake and for the last bytes to leave, before the transport is
    /// dropped.
    pub close_timeout: Duration,
    /// How long a drain spreads its 1001s.
    pub drain_spread: Duration,
    /// When a drain stops waiting and drops what is left.
    pub drain_limit: Duration,
    /// How long a worker polls without blocking before it sleeps; zero: it sleeps at once.
    pub spin: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            batch: 32,
            ring: 1024,
            max_head_bytes: 8 * 1024,
            handshake_timeout: Duration::from_secs(5),
            limits: Limits::default(),
            max_unsent_bytes: 1024 * 1024,
            overflow: Overflow::default(),
            ping_after: Duration::from_secs(30),
            dead_after: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            drain_spread: Duration::from_secs(5),
            drain_limit: Duration::from_secs(30),
            spin: Duration::ZERO,
        }
    }
}
