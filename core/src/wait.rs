//! Adaptive waiting: poll while work keeps coming, block when it does not.
//!
//! Polling wins the wake-up time (some microseconds) and costs a core. So a worker spins only for
//! a bounded time after its last work, and only while the gaps of late were short enough that
//! spinning is likely to be rewarded. Knows only time; who blocks on what is the backend's affair.

use std::time::Duration;

use crate::clock::{Now, nanos};

/// How a backend may wait for its next events.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Wait {
    /// Never block.
    Poll,
    /// Block until something happens, but no longer than to this time; `None`: no time limit.
    Until(Option<Now>),
}

/// Gaps count in the average as at most this many spins, so that one long pause is soon forgotten.
const GAP_SPINS_MAX: u64 = 4;
/// Weight of one gap in the moving average: 1/8.
const EWMA_SHIFT: u32 = 3;

/// Decides before each turn whether the worker polls or blocks.
#[derive(Debug)]
pub struct Idle {
    spin_nanos: u64,
    last_work: Option<Now>,
    /// Moving average of the time between two turns that did work.
    gap_nanos: u64,
}

impl Idle {
    /// Spins for at most `spin` after the last work; zero never spins.
    #[must_use]
    pub fn new(spin: Duration) -> Self {
        Idle { spin_nanos: nanos(spin), last_work: None, gap_nanos: 0 }
    }

    /// How the next turn waits, after a turn that ended at `now` and `worked` or not, with the
    /// earliest timer at `deadline`.
    ///
    /// A deadline that is due gives [`Wait::Poll`].
    pub fn next(&mut self, now: Now, worked: bool, deadline: Option<Now>) -> Wait {
        if worked {
            self.record_work(now);
        }
        if deadline.is_some_and(|at| at <= now) {
            return Wait::Poll;
        }
        // With nothing to spin for, a blocking wait is right even after work: it returns at once
        // where something is ready.
        if self.spin_nanos == 0 {
            return Wait::Until(deadline);
        }
        if worked || self.worth_spinning(now) { Wait::Poll } else { Wait::Until(deadline) }
    }

    fn record_work(&mut self, now: Now) {
        if let Some(last) = self.last_work {
            let gap = now.as_nanos().saturating_sub(last.as_nanos());
            let gap = gap.min(self.spin_nanos.saturating_mul(GAP_SPINS_MAX));
            self.gap_nanos = self.gap_nanos - (self.gap_nanos >> EWMA_SHIFT) + (gap >> EWMA_SHIFT);
        }
        self.last_work = Some(now);
    }

    fn worth_spinning(&self, now: Now) -> bool {
        self.last_work.is_some_and(|last| {
            self.gap_nanos < self.spin_nanos
                && now.as_nanos().saturating_sub(last.as_nanos()) < self.spin_nanos
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: Duration = Duration::from_micros(50);

    fn at(micros: u64) -> Now {
        Now::from_nanos(micros * 1_000)
    }

    #[test]
    fn a_worker_that_never_worked_blocks() {
        assert_eq!(Idle::new(SPIN).next(at(0), false, None), Wait::Until(None));
    }

    #[test]
    fn spinning_lasts_as_long_as_set_after_the_last_work() {
        let mut idle = Idle::new(SPIN);
        assert_eq!(idle.next(at(100), true, Some(at(900))), Wait::Poll);
        assert_eq!(idle.next(at(149), false, Some(at(900))), Wait::Poll);
        assert_eq!(idle.next(at(150), false, Some(at(900))), Wait::Until(Some(at(900))));
    }

    #[test]
    fn without_spin_it_goes_straight_to_blocking() {
        let mut idle = Idle::new(Duration::ZERO);
        assert_eq!(idle.next(at(1), true, None), Wait::Until(None));
        assert_eq!(idle.next(at(2), false, Some(at(9))), Wait::Until(Some(at(9))));
    }

    #[test]
    fn a_deadline_that_is_due_polls() {
        for spin in [Duration::ZERO, SPIN] {
            let mut idle = Idle::new(spin);
            assert_eq!(idle.next(at(5), false, Some(at(5))), Wait::Poll);
            assert_eq!(idle.next(at(6), false, Some(at(5))), Wait::Poll);
        }
    }

    #[test]
    fn long_gaps_end_the_spinning_and_short_ones_bring_it_back() {
        let mut idle = Idle::new(SPIN);
        let mut now = 0;
        for _ in 0..20 {
            now += 1_000_000;
            assert_eq!(idle.next(at(now), true, None), Wait::Poll, "one look after work");
        }
        assert_eq!(idle.next(at(now + 1), false, None), Wait::Until(None));
        for _ in 0..20 {
            now += 5;
            idle.next(at(now), true, None);
        }
        assert_eq!(idle.next(at(now + 1), false, None), Wait::Poll);
    }
}
