//! A server: what the operator or the program sets ([`Builder`]), checked and brought up on worker
//! threads, and the handle on what runs ([`Running`]).

mod backend;
mod dpdk;
#[cfg(feature = "dpdk")]
mod dpdk_device;
mod error;
pub(crate) mod host;
pub(crate) mod launch;
mod listen;
mod monitor;
pub(crate) mod network;
mod pools;
mod preview;
mod report;
mod running;
mod signals;
#[cfg(target_os = "linux")]
mod view;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use hioload_pipeline::MAX_BATCH;
use hioload_pipeline::{Handler, Overflow, Settings};
use hioload_ws_proto::Limits;

pub use backend::BackendChoice;
pub use dpdk::{Dpdk, Idle};
pub use error::Error;
pub use hioload_sockets::SocketSnapshot;
pub use monitor::{Monitor, PoolUse};
pub use network::Network;
pub use report::Report;
pub use running::Running;
pub use worker::WorkerContext;

use launch::{Launch, Pinning};

/// A WebSocket server; see [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A server with the defaults: port 9001 on all addresses, a worker a core.
    pub fn builder() -> Builder {
        Builder { listen: Vec::new(), launch: Launch::new(0, Pinning::First) }
    }
}

/// What a server is to be. Nothing is checked, opened or started before [`Builder::start`] and its
/// like.
#[derive(Clone, Debug)]
#[must_use = "a server starts with `serve` or `start`"]
pub struct Builder {
    listen: Vec<String>,
    launch: Launch,
}

impl Builder {
    /// Listens on an IP address and port, besides those already given. Port 0 lets the system
    /// choose one: [`Running::addresses`] says which. Without any: `0.0.0.0:9001`, and
    /// `[::]:9001` where the host has IPv6.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// Worker threads; 0: one for each core that this process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.launch.workers = workers;
        self
    }

    /// Which backend moves the bytes.
    pub fn backend(mut self, backend: BackendChoice) -> Self {
        self.launch.backend = backend;
        self
    }

    /// Takes an interface, and runs on this program's own TCP/IP there: backends `tap` and
    /// `af-packet`, and `auto` chooses between these. With one worker, the only one there can be
    /// on such a link. It listens on all addresses of the network.
    pub fn network(mut self, network: Network) -> Self {
        self.launch.network = Some(network);
        self
    }

    /// All limits, deadlines and policies of the workers at once.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.launch.settings = settings;
        self
    }

    /// The most messages that a batch hands to the handler, 1 to [`MAX_BATCH`].
    pub fn batch(mut self, messages: usize) -> Self {
        self.launch.settings.batch = messages;
        self
    }

    /// Slots of each worker's ring for what comes from other threads.
    pub fn ring(mut self, slots: usize) -> Self {
        self.launch.settings.ring = slots;
        self
    }

    /// Connections that all workers together take; 0: as many as memory allows. Beyond, 503; on a
    /// [`Builder::network`], the SYN isn't answered.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.launch.max_connections = connections;
        self
    }

    /// Connections from one IP address; 0: no such limit. Beyond, as for
    /// [`Builder::max_connections`].
    pub fn max_per_address(mut self, connections: usize) -> Self {
        self.launch.max_per_address = connections;
        self
    }

    /// The largest frame and message that a peer may send, in payload bytes; close 1009 beyond.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.launch.settings.limits = limits;
        self
    }

    /// Unsent bytes of a session before [`Builder::overflow`] applies.
    pub fn max_unsent_bytes(mut self, bytes: usize) -> Self {
        self.launch.settings.max_unsent_bytes = bytes;
        self
    }

    /// What happens to a message for a session whose unsent output is at its limit.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.launch.settings.overflow = overflow;
        self
    }

    /// Time for the opening handshake.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.launch.settings.handshake_timeout = timeout;
        self
    }

    /// Idle time before a ping is sent; zero: never.
    pub fn ping_after(mut self, idle: Duration) -> Self {
        self.launch.settings.ping_after = idle;
        self
    }

    /// Idle time before a session is closed with 1001; zero: never.
    pub fn dead_after(mut self, idle: Duration) -> Self {
        self.launch.settings.dead_after = idle;
        self
    }

    /// How long a drain spreads its 1001s, and when it stops waiting and drops what is left.
    pub fn drain(mut self, spread: Duration, limit: Duration) -> Self {
        self.launch.settings.drain_spread = spread;
        self.launch.settings.drain_limit = limit;
        self
    }

    /// The most memory for buffers, in bytes, at least 2 MiB; a quarter of the machine's unless
    /// set. On a [`Builder::network`], TCP's sockets and rings may have as much again, and so may
    /// what idle connections keep.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.launch.memory_budget = Some(bytes);
        self
    }

    /// How long a worker polls without blocking before it sleeps; zero: it sleeps at once.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.launch.settings.spin = spin;
        self
    }

    /// Takes SIGINT and SIGTERM for this server: the first one drains it, the second one stops it,
    /// the third one ends the process. Off unless set: a program's signals are its own.
    pub fn handle_signals(mut self, handle: bool) -> Self {
        self.launch.handle_signals = handle;
        self
    }

    /// Checks all that can be checked without opening anything.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Setting`], [`Error::Backend`].
    pub fn check(&self) -> Result<(), Error> {
        listen::parse(&self.listen)?;
        self.launch.check(Some(&self.listen))
    }

    /// Serves with a clone of `handler` on each worker, until the server was drained or stopped.
    /// Says through `tracing` how it started.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn serve<H: Handler + Clone + Send + 'static>(self, handler: H) -> Result<(), Error> {
        self.start(handler)?.log_and_join()
    }

    /// Like [`Builder::serve`], with the handler that `make` makes on the thread of each worker.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn serve_with<H, F>(self, make: F) -> Result<(), Error>
    where
        H: Handler + 'static,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        self.start_with(make)?.log_and_join()
    }

    /// Starts with a clone of `handler` on each worker, and returns once all of them accept.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn start<H: Handler + Clone + Send + 'static>(self, handler: H) -> Result<Running, Error> {
        self.launch(|| {
            let handler = handler.clone();
            Box::new(move |_: &WorkerContext| handler)
        })
    }

    /// Like [`Builder::start`], with the handler that `make` makes on the thread of each worker.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn start_with<H, F>(self, make: F) -> Result<Running, Error>
    where
        H: Handler + 'static,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        self.launch(|| {
            let make = Arc::clone(&make);
            Box::new(move |worker: &WorkerContext| make(worker))
        })
    }

    fn launch<H: Handler + 'static>(
        self,
        mut maker: impl FnMut() -> worker::Make<H>,
    ) -> Result<Running, Error> {
        self.check()?;
        let wanted = ("max-connections", self.launch.max_connections);
        self.launch.start(Some(&self.listen), wanted, &mut maker)
    }
}
