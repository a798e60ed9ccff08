//! Who has to wake a sleeper: one flag, one sleeper, many wakers.
//!
//! The sleeper: [`prepare_sleep`](SleepFlag::prepare_sleep), then look once more whether there is
//! work; where there is, [`awake`](SleepFlag::awake), else block. A waker: publish the work, then
//! [`needs_wake`](SleepFlag::needs_wake), and ring the bell where it says so. Both sides have a
//! sequentially consistent fence between their write and their read, so at least one of them sees
//! the other: work is never left behind with the sleeper asleep.

use crate::sync::{AtomicBool, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub struct SleepFlag {
    asleep: AtomicBool,
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}

impl SleepFlag {
    /// A flag of a sleeper that is awake.
    #[must_use]
    pub fn new() -> Self {
        SleepFlag { asleep: AtomicBool::new(false) }
    }

    /// Called by the sleeper before its last look for work.
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the sleeper after it woke up.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Called by the sleeper where its last look found work: it will not sleep.
    pub fn cancel_sleep(&self) {
        self.awake();
    }

    /// Called by a waker after it published work: whether it has to wake the sleeper. True for
    /// exactly one waker a sleep. While the sleeper is awake this writes nothing.
    #[must_use]
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_waker_wakes_a_sleeper() {
        let flag = SleepFlag::new();
        assert!(!flag.needs_wake());
        flag.prepare_sleep();
        assert!(flag.needs_wake());
        assert!(!flag.needs_wake());
        flag.prepare_sleep();
        flag.cancel_sleep();
        assert!(!flag.needs_wake());
    }
}
