//! Links on the queues of a DPDK device: one queue pair, one mempool and one worker each, nothing
//! shared between them.
//!
//! [`Eal`] is the environment of the process, started once. [`Device`] is a port of it, opened with
//! as many queue pairs as there are workers; each [`Queue`] is a `Link`, moves to its worker's thread
//! and is used there alone. Rooms: `eal` and `explain` (start, and why it failed), `lcore` (threads),
//! `device`, `setup` and
//! `negotiate` (what a port can do, and is told), `events` (link state, removal), `interrupt` (sleep),
//! `spread` (which queue a flow meets) and `relay` (what all queues must hear), `capture` (by other
//! programs), `mempool`, `mbuf`, and `queue`, the hot path.
//!
//! What a frame costs here, beside the device's own work. In: the mbuf's first cache line, which the
//! driver has just written, and the frame's first line, asked for as the burst arrives and read by
//! the stack some ten frames later. The stack copies the payload once, into its connection's ring.
//! Out: an mbuf of the queue's own cache, taken 32 at a time (most recently freed, so its lines are
//! warm), the frame written where the device reads it, one store of lengths and flags to each of
//! the mbuf's two lines, and its share (1/32) of a call of the driver. No heap allocation, no atomic
//! instruction but what the driver needs, no system call unless the driver makes one. Giving an mbuf
//! back reads its first line only. `examples/queue_cost.rs` counts it: 144 instructions, 30 to 45
//! cycles, for a frame out and in again, net_ring's own part included.

mod capture;
mod device;
mod eal;
mod events;
mod explain;
mod interrupt;
mod lcore;
mod mbuf;
mod mempool;
mod negotiate;
mod queue;
mod relay;
mod setup;
mod spread;

pub use device::{Device, DeviceConfig, DeviceReport, DeviceStats, LinkState, Waiting};
pub use eal::{DeviceInfo, Eal};
pub use explain::DpdkError;
pub use lcore::{Lcore, LcoreTask, RegisteredThread};
pub use queue::{Queue, QueueCounters, QueueRx, QueueSnapshot, QueueTx};
pub use spread::Spread;
