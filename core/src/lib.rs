//! Memory, rings, timers, clock and counters: what every worker of hioload-ws is made of.
//!
//! Nothing in here knows of a network. A worker owns one [`pool::Pool`] share, one
//! [`wheel::TimerWheel`], its [`slab::Slab`]s and its [`mod@counters`]; what crosses cores goes through
//! [`ring`]s and [`frame::Frame`]s. Time is a parameter ([`clock::Now`]) everywhere.
//!
//! `unsafe` lives only in the rooms that are named below with an `allow`.
#![deny(unsafe_code)]

pub mod clock;
pub mod counters;
#[allow(unsafe_code)]
pub mod frame;
pub mod local;
#[allow(unsafe_code)]
mod page;
#[allow(unsafe_code)]
pub mod pool;
#[allow(unsafe_code)]
mod prefetch;
#[allow(unsafe_code)]
pub mod region;
#[allow(unsafe_code)]
mod region_vec;
#[allow(unsafe_code)]
pub mod ring;
pub mod slab;
#[allow(unsafe_code)]
mod sync;
pub mod wait;
pub mod wake;
pub mod wheel;

pub use clock::{Clock, ManualClock, MonotonicClock, Now};
pub use frame::Frame;
pub use local::{LocalFrame, LocalFrames};
pub use pool::{NodePool, Pool, PoolBuf, PoolConfig, PoolStats, Pressure};
pub use prefetch::{prefetch, prefetch_at, prefetch_to_write};
pub use region::{MemoryError, MemoryKind};
pub use region_vec::RegionVec;
pub use ring::{mpsc, spsc};
pub use slab::{Key, Slab};
pub use wait::{Idle, Wait};
pub use wake::SleepFlag;
pub use wheel::{TimerKey, TimerWheel};
