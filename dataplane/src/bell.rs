//! Waking a worker that waits for its link, by an eventfd that is waited for beside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hioload_pipeline::backend::Wake;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

/// The writing end, for any thread, and the reading end, for the worker.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets the wake-ups so far.
    pub(crate) fn clear(&self) {
        // That there were none is fine.
        let _ = io::read(&self.0, &mut [0u8; 8]);
    }
}

impl Wake for Bell {
    fn wake(&self) {
        // Only a full counter refuses, and then the bell rings already.
        let _ = io::write(&self.0, &1u64.to_ne_bytes());
    }
}
