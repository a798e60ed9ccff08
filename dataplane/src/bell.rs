//! Waking a worker that waits for its link, by an eventfd that is waited for beside it. Who wakes a
//! worker that doesn't sleep makes no system call: one that polls a busy link never sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use hioload_core::SleepFlag;
use hioload_pipeline::backend::Wake;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

/// The ringing end, for any thread, and the sleeping end, for the worker.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    /// Somebody rang since the worker last looked.
    rung: AtomicBool,
    asleep: SleepFlag,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { fd, rung: AtomicBool::new(false), asleep: SleepFlag::default() })
    }

    /// Is readable once somebody rang, from [`Bell::sleep`] on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The worker is about to sleep; [`Bell::awake`] follows. False: somebody rang, and it may not.
    pub(crate) fn sleep(&self) -> bool {
        // The flag goes up before the look; in `wake`, the other way round. One of both sees.
        self.asleep.prepare_sleep();
        !self.rung.load(Ordering::Relaxed)
    }

    /// The worker doesn't sleep any more, and forgets who rang. `readable`: the descriptor is.
    pub(crate) fn awake(&self, readable: bool) {
        self.asleep.awake();
        // Whatever was published before a ring that is forgotten here is seen from here on.
        self.rung.swap(false, Ordering::AcqRel);
        if readable {
            // That there is nothing to read is fine.
            let _ = io::read(&self.fd, &mut [0u8; 8]);
        }
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.rung.store(true, Ordering::Release);
        if self.asleep.needs_wake() {
            // Only a full counter refuses, and then it is readable already.
            let _ = io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(bell: &Bell) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut fds, Some(&at_once)).expect("it can be polled") == 1
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd()
        }
    }

    #[test]
    fn who_rings_while_nobody_sleeps_keeps_the_next_from_sleeping_without_a_system_call() {
        let bell = Bell::new().expect("a descriptor");
        bell.wake();
        assert!(!is_readable(&bell));
        assert!(!bell.sleep());
        bell.awake(false);
        assert!(bell.sleep(), "it was heard once");
    }

    #[test]
    fn who_rings_a_sleeper_makes_the_descriptor_readable_until_it_is_awake() {
        let bell = Bell::new().expect("a descriptor");
        assert!(bell.sleep());
        bell.wake();
        bell.wake();
        assert!(is_readable(&bell));
        bell.awake(true);
        assert!(!is_readable(&bell));
        assert!(bell.sleep());
    }
}
