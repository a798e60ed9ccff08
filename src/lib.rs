//! A WebSocket server that gives each core a worker with everything of its own, and hands your
//! code messages in batches, where they lie.
//!
//! ```no_run
//! use hioload_ws::{Server, on_message};
//!
//! fn main() -> Result<(), hioload_ws::Error> {
//!     Server::builder().listen("127.0.0.1:9001").serve(on_message(|message, context| {
//!         // A session that can't be sent to is ending: there is nobody left to tell.
//!         let _ = context.echo(message);
//!     }))
//! }
//! ```
//!
//! This crate is the facade: it opens the listeners, starts a worker a core over the best backend
//! of this machine, and gives out the handles. What a worker does is the pipeline's
//! (`hioload-pipeline`); how bytes come and go is a backend's (`hioload-sockets`).

#![forbid(unsafe_code)]

mod client;
mod server;
pub mod topology;

pub use client::{Client, ClientBuilder, Target};
pub use hioload_core::pool::Pressure;
pub use hioload_core::region::{MemoryError, MemoryKind};
pub use hioload_pipeline::counters::{WorkerCounters, WorkerSnapshot};
pub use hioload_pipeline::{
    Batch, Closed, ClosedBy, ConnectError, Context, Encoded, Handler, Kind, MAX_BATCH, Message,
    OnMessage, Opening, Overflow, Reached, Remote, RemoteError, SendError, SessionId, Settings,
    TimerId, Verdict, middleware, on_message,
};
pub use hioload_ws_proto::handshake::{
    ClientRequest, HeaderError, Refusal, Request, RequestError, Response, Status, UrlError,
};
pub use hioload_ws_proto::{CloseCode, Limits};
pub use server::{
    BackendChoice, Builder, Dpdk, Error, Idle, Monitor, Network, PoolUse, Report, Running, Server,
    SocketSnapshot, WorkerContext,
};

#[cfg(feature = "dpdk")]
pub use hioload_dataplane::dpdk::{DeviceStats, DpdkError, QueueSnapshot};
#[cfg(target_os = "linux")]
pub use hioload_dataplane::{ConnStats, LinkSnapshot, LoopSnapshot, StackSnapshot};

/// The examples of README.md, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
