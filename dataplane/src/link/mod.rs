//! Links on what Linux has: a TAP device, and a packet socket on an interface. Each is one queue
//! for one worker. The only room of this crate with `unsafe`: what system calls need, in `sys.rs`.

mod af_packet;
pub mod cycles;
#[cfg(feature = "dpdk")]
pub mod dpdk;
mod sys;
mod tap;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use hioload_pipeline::backend::Wake;
use hioload_stack::Link;

pub use af_packet::AfPacket;
pub use tap::Tap;

/// Bytes of an Ethernet header with a VLAN tag.
const HEADER_BYTES: usize = 18;

hioload_core::counters! {
    /// What a link counts besides the stack's own counters.
    pub struct LinkCounters => LinkSnapshot {
        /// Frames received that were longer than the MTU allows, and dropped.
        counter rx_oversized_total,
        /// Frames that the kernel refused to send, and dropped.
        counter tx_refused_total,
        /// Flushes that found the kernel's queue full; what was left went later.
        counter tx_full_total,
    }
}

/// How a worker learns that its link has something for it.
#[derive(Clone, Copy, Debug)]
pub enum Attention<'a> {
    /// The descriptor is readable when a frame waits, and writable when there is room for some.
    Descriptor(BorrowedFd<'a>),
    /// Only by looking: a poll-mode device.
    Polling(IdlePolicy),
}

/// What a worker does while it has nothing to do, on a link that must be polled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdlePolicy {
    /// Looks again at once: the least latency, and a core that is always at full load.
    Busy,
    /// Looks `spins` times in a row, with a pause of the processor between; then sleeps. Where the
    /// device has receive interrupts, they end the sleep; elsewhere it lasts for `sleep` at most. A
    /// frame may wait that long, and what the system's timers add (50 us where nothing else is
    /// set). A wake-up by another thread ends a sleep at once.
    Adaptive {
        /// Looks in vain before the first sleep.
        spins: u32,
        /// The longest sleep where no interrupt ends it.
        sleep: Duration,
    },
}

impl IdlePolicy {
    /// Sleeps after some 100 us without a frame, without interrupts for 200 us at most: some 6 % of
    /// a core when idle, where a sleep and a look take 20 us.
    pub const ADAPTIVE: IdlePolicy =
        IdlePolicy::Adaptive { spins: 1000, sleep: Duration::from_micros(200) };
}

/// A link that a worker can wait for.
pub trait Port: Link {
    /// The name of a backend on it, as given to `--backend`.
    fn name(&self) -> &'static str;

    /// How to wait for it.
    fn attention(&self) -> Attention<'_>;

    /// Makes [`Port::interrupt`] readable when a frame comes, until [`Port::disarm`]; what came
    /// before may give no sign, so look once more before waiting for it. False: it can't.
    fn arm(&mut self) -> bool {
        false
    }

    /// What [`Port::arm`] makes readable.
    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Undoes [`Port::arm`]. `fired`: the descriptor is readable.
    fn disarm(&mut self, fired: bool) {
        let _ = fired;
    }

    /// Wakes its worker, for what another thread has for it.
    fn wake_by(&mut self, waker: Arc<dyn Wake>) {
        let _ = waker;
    }

    /// Whether committed frames wait for room.
    fn has_unsent(&self) -> bool;

    /// Whether it may be gone without a sign that can be waited for: ask [`Port::take_fault`] again
    /// within a second.
    fn is_in_doubt(&self) -> bool;

    /// What makes it useless for good, once: the interface is gone.
    fn take_fault(&mut self) -> Option<io::Error>;
}

/// Why a link can't be had; says what to do.
#[derive(Debug)]
pub struct LinkError {
    interface: String,
    what: &'static str,
    help: &'static str,
    source: io::Error,
}

impl LinkError {
    fn new(
        interface: &str,
        what: &'static str,
        help: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        LinkError { interface: interface.into(), what, help, source: source.into() }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkError { interface, what, help, source } = self;
        write!(f, "interface `{interface}`: {what}: {source}; {help}")
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
