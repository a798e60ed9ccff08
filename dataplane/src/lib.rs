//! The userspace stack under the pipeline: links that carry frames, and the backend that makes
//! connections of them. Linux only.
//!
//! Frames come from a [`link`], `hioload-stack` makes TCP of them, and [`Frames`] shows that to the
//! pipeline as its `Backend`. A received byte is copied once, from the frame into its connection's
//! receive ring, and is decoded there; an echo is copied from that ring into the send ring, and
//! from there into a frame.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod backend;
mod bell;
#[allow(unsafe_code)]
pub mod link;
mod meter;
mod owed;
mod probe;

pub use backend::{Frames, FramesRx, FramesTx};
pub use hioload_stack::{
    Address, ConnStats, Link, RING_BYTES, Stack, StackConfig, StackCounters, StackError,
    StackSnapshot,
};
#[cfg(feature = "dpdk")]
pub use link::dpdk;
pub use link::{
    AfPacket, Attention, IdlePolicy, LinkCounters, LinkError, LinkSnapshot, Port, Tap, cycles,
};
pub use meter::{LoopCounters, LoopSnapshot};
pub use probe::Probe;
