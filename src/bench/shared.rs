//! What the main thread and the workers tell each other: when the window is, how the ramp goes,
//! and what each second and the end brought. Nothing here is touched for a message but the
//! numbers that a sender of fan-out has sent.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::args::Plan;
use super::tally::{Interval, Tally};

/// A worker tells the main thread.
pub enum News {
    /// A second of the window, counted from 0, is over; the last one brings what remained.
    Interval(u64, Box<Interval>),
    /// The worker is through.
    Done(Box<Tally>),
}

/// The times of a run, in ns since its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The load begins.
    pub go: u64,
    /// The measuring begins.
    pub from: u64,
    /// Measuring and load end.
    pub until: u64,
}

/// See the module.
pub struct Shared {
    epoch: Instant,
    go: AtomicU64,
    from: AtomicU64,
    until: AtomicU64,
    /// Connections that are open and were open.
    pub connected: AtomicUsize,
    /// Connections that could not be opened.
    pub failed: AtomicUsize,
    /// Why the first of them couldn't.
    pub first_failure: OnceLock<String>,
    /// Workers that stopped sending.
    pub stopped: AtomicUsize,
    /// Messages that each sender of fan-out has sent.
    pub sent_by: Box<[AtomicU32]>,
}

impl Shared {
    pub fn new(plan: &Plan) -> Self {
        Shared {
            epoch: Instant::now(),
            go: AtomicU64::new(u64::MAX),
            from: AtomicU64::new(u64::MAX),
            until: AtomicU64::new(u64::MAX),
            connected: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            first_failure: OnceLock::new(),
            stopped: AtomicUsize::new(0),
            sent_by: (0..plan.senders).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// When the window is, once that is known.
    pub fn window(&self) -> Option<Window> {
        let go = self.go.load(Ordering::Acquire);
        let (from, until) = (self.from.load(Ordering::Relaxed), self.until.load(Ordering::Relaxed));
        (go != u64::MAX).then_some(Window { go, from, until })
    }

    /// Begins `lead` from now.
    pub fn schedule(&self, lead: Duration, plan: &Plan) -> Window {
        let go = self.now() + nanos(lead);
        let from = go + nanos(plan.warmup);
        let until = from + nanos(plan.duration);
        self.from.store(from, Ordering::Relaxed);
        self.until.store(until, Ordering::Relaxed);
        self.go.store(go, Ordering::Release);
        Window { go, from, until }
    }

    /// Ends the window now, at least as long as it has begun.
    pub fn cut_short(&self) {
        let from = self.from.load(Ordering::Relaxed);
        self.until.fetch_min(self.now().max(from.saturating_add(1)), Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
