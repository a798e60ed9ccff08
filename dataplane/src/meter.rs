//! Where a worker's cycles go: busy turns and idle ones, by the processor's time stamp counter. A
//! poll-mode worker takes all of its core's time whatever it does, so only this says how much of it
//! is work.

use std::sync::Arc;

use crate::link::cycles;

hioload_core::counters! {
    /// What a worker counts of its loop over a link.
    pub struct LoopCounters => LoopSnapshot {
        /// Cycles of the time stamp counter in turns that received or sent a frame or had an event.
        counter cycles_busy_total,
        /// Cycles in turns that found nothing to do, waiting and sleeping included.
        counter cycles_idle_total,
        /// Turns with something to do.
        counter turns_busy_total,
        /// Turns with nothing to do.
        counter turns_idle_total,
        /// Times that the worker slept: for its link, a wake-up, or as its idle policy says.
        counter sleeps_total,
    }
}

/// Splits the time of one worker. A turn reaches from one [`Meter::turn`] to the next.
pub(crate) struct Meter {
    pub(crate) counters: Arc<LoopCounters>,
    began: u64,
    frames_out: u64,
    worked: bool,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        Meter { counters: Arc::default(), began: cycles::now(), frames_out: 0, worked: false }
    }

    /// The turn before ends here, having sent as many frames as `frames_out` says in all.
    #[inline]
    pub(crate) fn turn(&mut self, frames_out: u64) {
        let now = cycles::now();
        let cycles = now.saturating_sub(self.began);
        if self.worked || frames_out != self.frames_out {
            self.counters.cycles_busy_total.add(cycles);
            self.counters.turns_busy_total.inc();
        } else {
            self.counters.cycles_idle_total.add(cycles);
            self.counters.turns_idle_total.inc();
        }
        (self.began, self.frames_out, self.worked) = (now, frames_out, false);
    }

    /// What came before in this turn was waiting.
    pub(crate) fn waited(&mut self) {
        let now = cycles::now();
        self.counters.cycles_idle_total.add(now.saturating_sub(self.began));
        self.counters.sleeps_total.inc();
        self.began = now;
    }

    /// There is something to do in this turn.
    #[inline]
    pub(crate) fn work(&mut self) {
        self.worked = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_busy_by_what_it_received_or_sent_and_its_sleep_is_idle() {
        let mut meter = Meter::new();
        meter.turn(0);
        meter.work();
        meter.turn(0);
        meter.turn(3);
        meter.turn(3);
        let busy = meter.counters.cycles_busy_total.get();
        std::thread::sleep(std::time::Duration::from_millis(1));
        meter.waited();
        let counted = meter.counters.snapshot();
        assert_eq!((counted.turns_busy_total, counted.turns_idle_total), (2, 2));
        assert_eq!((counted.cycles_busy_total, counted.sleeps_total), (busy, 1));
        assert!(counted.cycles_idle_total > 0);
    }
}
