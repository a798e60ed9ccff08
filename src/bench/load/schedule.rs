//! When each message of an open loop is due: at equal distances, the workers taking turns.

/// What a send may be late by and still count from when it was made, in ns. The workers' timer has
/// ticks of about 1 ms and the system rounds up to the next; a schedule can't be kept more exactly
/// than that, and what that adds is not the server's. What is later counts from the schedule.
pub const RESOLUTION_NS: u64 = 3_000_000;

/// The due times of one worker, in ns since the run's epoch.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    begin: u64,
    /// Nanoseconds between two messages of all workers together.
    gap: f64,
    first: u64,
    step: u64,
    taken: u64,
}

impl Schedule {
    /// `rate` messages a second of `workers` workers from `begin` on.
    pub fn new(rate: f64, worker: usize, workers: usize, begin: u64) -> Self {
        Schedule { begin, gap: 1e9 / rate, first: worker as u64, step: workers as u64, taken: 0 }
    }

    /// When the next message is due.
    pub fn next(&self) -> u64 {
        let number = self.first + self.taken * self.step;
        self.begin + (number as f64 * self.gap) as u64
    }

    /// The next message has been dealt with.
    pub fn advance(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_together_keep_the_rate() {
        let (begin, rate) = (1_000, 3_000.0);
        let mut due = Vec::new();
        for worker in 0..3 {
            let mut schedule = Schedule::new(rate, worker, 3, begin);
            while schedule.next() < begin + 2_000_000_000 {
                due.push(schedule.next());
                schedule.advance();
            }
        }
        due.sort_unstable();
        assert_eq!(due.len(), 6_000);
        assert!(due.windows(2).all(|pair| (333_332..=333_334).contains(&(pair[1] - pair[0]))));
    }
}
