//! Which of a lab's networks the next client comes by.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Whose turn it is.
#[derive(Default)]
pub struct Turns(AtomicUsize);

impl Turns {
    /// One network after the other, all by IPv4 and then all by IPv6: its index, and whether by
    /// IPv6.
    pub fn next(&self, networks: usize) -> (usize, bool) {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        (turn % networks, turn / networks % 2 == 1)
    }
}
