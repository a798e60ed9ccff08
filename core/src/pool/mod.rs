//! The buffer pool: one per NUMA node, in shares a worker.
//!
//! A [`NodePool`] maps pages of 2 MiB up to its budget and hands whole pages to the shares. A
//! share ([`Pool`], one a worker, never leaves it) cuts a page into slots of one size class and
//! lends them as [`PoolBuf`]s: a pop and a push on a list of its own, without atomics. A page
//! whose buffers are all back returns to the node, where another worker may take it for another
//! class; one such page a class stays, so that a load at the brink does not move pages to and fro.
//!
//! Life cycle of a buffer: *taken* from the share, *lent* as a `PoolBuf` or, frozen, as
//! [`Frame`](crate::frame::Frame)s on any thread, *returned*. Counts of all of it: [`PoolStats`].
//! Buffers are not wiped between two users.
//!
//! Beside its pages the pool takes 16 bytes of heap for each slot (3 % at 512 bytes, nothing to
//! speak of at 64 KiB).

mod buf;
pub(crate) mod inbox;
pub(crate) mod node;
mod share;

pub use buf::PoolBuf;
pub use node::{NodePool, PoolConfig, Pressure};
pub use share::{Pool, PoolStats};

pub use crate::region::default_budget;

/// Bytes of the size classes.
pub const CLASSES: [usize; 12] = {
    let mut classes = [0; 12];
    let mut i = 0;
    while i < classes.len() {
        classes[i] = 512 << i;
        i += 1;
    }
    classes
};

/// Bytes of the largest class; what is larger gets memory of its own.
pub const CLASS_MAX: usize = CLASSES[CLASSES.len() - 1];

/// Bytes of the buffers that backends receive into.
pub const RECEIVE_UNIT: usize = 65_536;

/// Index of the smallest class that holds `bytes`; `None` where none does.
fn class_of(bytes: usize) -> Option<usize> {
    if bytes > CLASS_MAX {
        return None;
    }
    let rounded = bytes.max(CLASSES[0]).next_power_of_two();
    Some((rounded.trailing_zeros() - CLASSES[0].trailing_zeros()) as usize)
}

const _: () = assert!(CLASS_MAX == 1 << 20);

#[cfg(test)]
mod tests;
