//! The end of a long wait, as a timerfd: it stays armed from turn to turn, while a timeout given to
//! `epoll_wait` is set up and taken down by the kernel in each wait that blocks. Where one message
//! after the other wakes the worker, that was 2 % of what a message costs.
//!
//! Like the bell it is watched edge-triggered and never read.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use hioload_core::clock::Now;
use hioload_core::wait::Wait;

use super::sys;

/// A nearer deadline is left to `epoll_wait`: setting the alarm would cost more, and such deadlines
/// change often.
const NEAR: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Alarm {
    fd: OwnedFd,
    /// When it will go off.
    armed: Option<Now>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Alarm { fd: sys::timerfd()?, armed: None })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// epoll reported it.
    pub(super) fn went_off(&mut self) {
        self.armed = None;
    }

    /// epoll's timeout in milliseconds, for a wait that begins at `now`; -1 where none is needed,
    /// because nothing is waited for or the alarm comes first. It may come early: then the wait
    /// ends without an event, and the next one sets it anew.
    pub(super) fn timeout_ms(&mut self, now: Now, wait: Wait) -> i32 {
        let at = match wait {
            Wait::Poll => return 0,
            Wait::Until(None) => return -1,
            Wait::Until(Some(at)) => at,
        };
        if self.armed.is_some_and(|armed| armed <= at) {
            return -1;
        }
        let left = at.since(now);
        if left >= NEAR && sys::timerfd_set(self.fd(), left).is_ok() {
            self.armed = Some(at);
            return -1;
        }
        rounded_up_ms(left)
    }
}

/// Rounded up, so that the deadline has passed when the wait ends.
fn rounded_up_ms(left: Duration) -> i32 {
    let millis = left.as_nanos().div_ceil(Duration::from_millis(1).as_nanos());
    i32::try_from(millis).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(nanos: u64) -> Wait {
        Wait::Until(Some(Now::from_nanos(nanos)))
    }

    #[test]
    fn timeouts_are_rounded_up_and_bounded() {
        let now = Now::from_nanos(5_000_000);
        let mut alarm = Alarm::new().unwrap();
        for (at, millis) in [(0, 0), (5_000_000, 0), (5_000_001, 1), (7_000_000, 2)] {
            assert_eq!(alarm.timeout_ms(now, until(at)), millis);
        }
        assert_eq!(alarm.timeout_ms(now, Wait::Until(None)), -1);
        assert_eq!(alarm.timeout_ms(now, Wait::Poll), 0);
        assert_eq!(rounded_up_ms(Duration::MAX), i32::MAX);
    }

    #[test]
    fn a_far_deadline_is_set_once_and_a_nearer_one_replaces_it() {
        let (now, second) = (Now::from_nanos(7), 1_000_000_000);
        let mut alarm = Alarm::new().unwrap();
        assert_eq!(alarm.timeout_ms(now, until(30 * second)), -1);
        assert_eq!(alarm.timeout_ms(now, until(40 * second)), -1);
        assert_eq!(alarm.armed, Some(Now::from_nanos(30 * second)), "the earlier one stays");
        assert_eq!(alarm.timeout_ms(now, until(20 * second)), -1);
        assert_eq!(alarm.armed, Some(Now::from_nanos(20 * second)));
        // Too near to be worth it; the alarm stays for later.
        assert_eq!(alarm.timeout_ms(now, until(7 + 2_000_000)), 2);
        alarm.went_off();
        assert_eq!(alarm.timeout_ms(now, until(u64::MAX)), -1);
        assert_eq!(alarm.armed, Some(Now::from_nanos(u64::MAX)));
    }
}
