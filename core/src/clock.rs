//! Time as a value. A turn of a worker reads the clock once and hands the [`Now`] on, so that
//! everything below it can be run by a test at any speed.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A point in time: nanoseconds since the origin of the clock that gave it.
///
/// 64 bits of nanoseconds last for 584 years.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug, Default, Hash)]
pub struct Now(u64);

impl Now {
    /// The clock's origin.
    pub const ZERO: Now = Now(0);
    /// Later than anything a clock will ever say: "never".
    pub const MAX: Now = Now(u64::MAX);

    /// The point `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Now {
        Now(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `wait` later; [`Now::MAX`] where that does not fit.
    #[must_use]
    pub fn after(self, wait: Duration) -> Now {
        Now(self.0.saturating_add(nanos(wait)))
    }

    /// How long ago `earlier` was; zero where it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds of a duration, saturating.
pub(crate) fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a worker gets its time from.
pub trait Clock {
    /// The time now. Never goes back.
    fn now(&self) -> Now;
}

/// The machine's monotonic clock. Clones share the origin, so that workers can compare times.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock whose origin is this moment.
    #[must_use]
    pub fn new() -> Self {
        MonotonicClock { origin: Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Now {
        Now::ZERO.after(self.origin.elapsed())
    }
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Cell<Now>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: Now) -> Self {
        ManualClock { now: Cell::new(now) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.now.set(self.now.get().after(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        self.now.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Now::MAX.after(Duration::from_secs(1)), Now::MAX);
        assert_eq!(Now::ZERO.after(Duration::MAX), Now::MAX);
        assert_eq!(Now::ZERO.since(Now::from_nanos(5)), Duration::ZERO);
        assert_eq!(Now::from_nanos(9).since(Now::from_nanos(5)), Duration::from_nanos(4));
    }

    #[test]
    fn clones_of_the_monotonic_clock_share_their_origin() {
        let a = MonotonicClock::new();
        std::thread::sleep(Duration::from_millis(2));
        let b = a.clone();
        assert!(b.now() >= Now::ZERO.after(Duration::from_millis(2)));
        assert!(a.now() >= Now::ZERO.after(Duration::from_millis(2)));
    }

    #[test]
    fn the_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(Now::from_nanos(7));
        assert_eq!(clock.now(), Now::from_nanos(7));
        clock.advance(Duration::from_nanos(3));
        assert_eq!(clock.now(), Now::from_nanos(10));
    }
}
