//! Waking a worker that waits in `epoll_wait`, by an eventfd.
//!
//! It is watched edge-triggered and never read on the way: each write is an edge of its own, also
//! one made before the wait begins. That spares a system call a wake-up.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use hioload_pipeline::backend::Wake;

use super::sys;

/// The writing end, for any thread.
#[derive(Debug)]
pub(super) struct Bell {
    fd: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Bell { fd: sys::eventfd()? })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Wake for Bell {
    fn wake(&self) {
        if sys::eventfd_add(self.fd()).is_err() {
            // Only a full counter refuses, after 2^64 wake-ups. Emptied, it takes the next one.
            let _ = sys::eventfd_reset(self.fd());
            let _ = sys::eventfd_add(self.fd());
        }
    }
}
