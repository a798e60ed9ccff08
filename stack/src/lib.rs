//! TCP/IP in user space for millions of connections: frames in, frames out.
//!
//! smoltcp, unmodified, is the TCP of one connection, but for small exchanges without trouble, which
//! a fast path in front of it serves. This crate makes it the TCP of a host: it
//! finds the connection of a segment in constant time, keeps hostile segments from it, gives it
//! memory only while it needs any, and wakes it only when something is to be done. It knows no
//! WebSocket and no NIC.
//!
//! A turn is [`Stack::poll`], [`Stack::next_event`] until `None` (or enough), [`Stack::turn`],
//! [`Stack::flush`]. Time is a parameter. One thread owns a stack; many cores mean many stacks.
#![deny(unsafe_code)]

mod checksum;
mod config;
mod conn;
mod counters;
mod device;
mod flow;
mod frame;
mod icmp;
pub mod link;
mod live;
mod neighbor;
mod net;
mod rate;
mod secret;
mod seed;
#[cfg(feature = "sim")]
pub mod sim;
#[allow(unsafe_code)]
mod slots;
mod stack;
mod tcp;
mod trace;
mod turn;

pub use config::{ADDRESSES_MAX, Address, RING_BYTES, StackConfig, StackError};
pub use conn::{CONN_BYTES, ConnId, FROZEN_BYTES, LIVE_BYTES};
pub use counters::{StackCounters, StackSnapshot};
pub use link::{Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, TxMeta};
pub use slots::HEAD_BYTES;
pub use stack::{BURST, ConnStats, Stack};
pub use tcp::{FROZEN_RECORD_BYTES, FrozenRecord};
pub use turn::{RxTurn, TxTurn};

/// Why a connection is gone.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Both sides finished, or the user aborted it.
    Finished,
    /// The peer reset it.
    Reset,
    /// It timed out or could not be opened.
    Failed,
}

/// What happened to a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It was accepted, or one that we opened is established.
    Opened(ConnId),
    /// Bytes wait.
    Readable(ConnId),
    /// Room again for what was refused.
    Writable(ConnId),
    /// The peer finished, and all its bytes were taken. Our direction is open.
    Eof(ConnId),
    /// It is gone, and its name is dead. Comes once for each `Opened`, and for each `connect`
    /// that failed.
    Closed(ConnId, Gone),
}

/// Whether new connections are taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Accepting {
    /// As they come.
    Yes,
    /// SYNs aren't answered for now.
    Paused,
    /// Never again.
    Closed,
}
