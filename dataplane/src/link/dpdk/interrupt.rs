//! Receive interrupts: a descriptor for each queue that says when a frame came, for workers that
//! sleep. Asked for where workers may sleep at all, and done without where the device has none.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use hioload_dpdk_sys as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{self, Errno};

use super::explain;

/// What tells of a frame.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Sign {
    /// The device's own descriptor: readable as long as a frame waits, and read by the driver only.
    Level,
    /// A counter of interrupts, which is read here; they are switched on and off.
    Counter,
}

/// The receive interrupt of a queue, off unless a worker is about to sleep.
#[derive(Debug)]
pub(super) struct Interrupt {
    port: u16,
    queue: u16,
    sign: Sign,
    /// A duplicate, so that what the driver does with its own can't lead to another file.
    fd: OwnedFd,
    /// Drivers change registers of the whole port for one queue.
    switch: Arc<Mutex<()>>,
}

impl Interrupt {
    /// Those of all queues of a port that was started with them, or why there are none.
    pub(super) fn of(port: u16, queues: u16, driver: &str) -> Result<Vec<Interrupt>, String> {
        let switch = Arc::default();
        // That a driver has none is no complaint.
        explain::quietly(|| {
            (0..queues).map(|queue| Interrupt::new(port, queue, driver, &switch)).collect()
        })
    }

    fn new(
        port: u16,
        queue: u16,
        driver: &str,
        switch: &Arc<Mutex<()>>,
    ) -> Result<Interrupt, String> {
        // SAFETY: the port is started and has that queue.
        let raw = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(port, queue) };
        if raw < 0 {
            return Err(format!("{driver} has no receive interrupts"));
        }
        // SAFETY: the driver's, which it keeps open as long as the port is started.
        let theirs = unsafe { BorrowedFd::borrow_raw(raw) };
        let fd = io::fcntl_dupfd_cloexec(theirs, 3)
            .map_err(|error| format!("its descriptor of interrupts can't be had: {error}"))?;
        let is_counter = || {
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
                .is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
        };
        let sign = match driver {
            "net_tap" => Sign::Level,
            _ if is_counter() => Sign::Counter,
            _ => return Err(format!("{driver} has interrupts of a kind that isn't known here")),
        };
        let interrupt = Interrupt { port, queue, sign, fd, switch: Arc::clone(switch) };
        if !interrupt.enable() {
            return Err(format!("{driver} refuses to switch its receive interrupts on"));
        }
        interrupt.disable(true);
        Ok(interrupt)
    }

    /// From here on a frame that comes makes the descriptor readable. One that came before may not
    /// have, so the ring is looked at once more before a sleep.
    pub(super) fn enable(&self) -> bool {
        if self.sign == Sign::Level {
            return true;
        }
        let _switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the port is started and has that queue, whose only user calls this.
        unsafe { sys::rte_eth_dev_rx_intr_enable(self.port, self.queue) == 0 }
    }

    /// No more of them; `fired`: the descriptor is readable.
    pub(super) fn disable(&self, fired: bool) {
        if self.sign == Sign::Level {
            return;
        }
        {
            let _switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: as for `enable`.
            unsafe { sys::rte_eth_dev_rx_intr_disable(self.port, self.queue) };
        }
        if fired {
            self.drain();
        }
    }

    /// Some drivers leave their counter blocking, so it is only read when there is something.
    fn drain(&self) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        if poll(&mut fds, Some(&at_once)) == Ok(1) && fds[0].revents().contains(PollFlags::IN) {
            while let Err(Errno::INTR) = io::read(&self.fd, &mut [0u8; 8]) {}
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
