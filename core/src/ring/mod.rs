//! Bounded lock-free rings: all that crosses cores goes through one of these.
//!
//! A full ring hands the value back; it never blocks and never drops. Capacities are rounded up
//! to a power of two.

pub mod mpsc;
pub mod spsc;
