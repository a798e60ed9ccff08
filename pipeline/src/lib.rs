//! The pipeline that every backend runs: sessions, batches for the user's [`Handler`], output with
//! back-pressure, timers, broadcasts, drain. It knows no socket and no NIC; a [`backend::Backend`]
//! brings bytes in windows that are lent for a turn, and takes output.

#![forbid(unsafe_code)]

pub mod admission;
pub mod backend;
mod batch;
mod client;
mod context;
pub mod counters;
mod drain;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod handler;
mod handshake;
mod hub;
mod id;
pub mod inbox;
mod message;
pub mod middleware;
mod output;
mod queue;
mod session;
mod settings;
#[cfg(any(test, feature = "fake"))]
pub mod suite;
mod turn;
mod window;
mod worker;

pub use batch::Batch;
pub use client::ConnectError;
pub use context::{Context, Encoded, TimerId};
pub use handler::{Closed, ClosedBy, Handler, OnMessage, Opening, Verdict, on_message};
pub use id::SessionId;
pub use inbox::{Reached, Remote, RemoteError};
pub use message::{Kind, Message};
pub use output::SendError;
pub use settings::{Overflow, Settings};
pub use worker::{Parts, Worker};

/// The most messages that a batch holds; [`Settings::batch`] is at most this.
pub const MAX_BATCH: usize = 64;
