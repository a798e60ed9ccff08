//! The one backend suite: what every backend must do, in words of the wire alone. A [`Lab`] brings
//! the backend and a client's byte streams, the suite brings the workers, the handlers, the clients
//! and the judgement. The cases use no sockets; for labs whose clients are the kernel's, `tcp` has
//! such a stream.
//!
//! A backend's crate has in its `tests/`:
//!
//! ```ignore
//! struct Mine;
//! impl hioload_pipeline::suite::Lab for Mine { .. }
//! hioload_pipeline::backend_suite!(Mine);
//! ```

pub mod cases;
mod client;
#[cfg(all(feature = "fake", target_os = "linux"))]
pub mod tcp;
pub mod wire;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hioload_core::clock::{Clock, MonotonicClock};
use hioload_core::pool::{NodePool, Pool, PoolConfig};

pub use client::Client;

use crate::admission::Admission;
use crate::backend::Backend;
use crate::counters::{WorkerCounters, WorkerSnapshot};
use crate::handler::Handler;
use crate::inbox::{Remote, inboxes};
use crate::settings::Settings;
use crate::worker::{Parts, Worker};

/// How long a client waits before it calls the server dead.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client's end of a connection. Reads and writes block, for [`PATIENCE`] at most, and then fail
/// with `TimedOut` or `WouldBlock`.
pub trait Stream: Read + Write + Send {
    /// Sends no more (FIN); reading goes on.
    fn finish(&mut self);

    /// Tears the connection down (RST).
    fn reset(self: Box<Self>);

    /// Another handle on the same connection.
    fn another(&self) -> Box<dyn Stream>;
}

/// A backend that is to be tried.
pub trait Lab: 'static {
    /// The backend.
    type Backend: Backend;
    /// What the workers of a server and its clients share: addresses, listeners.
    type Site: Send + Sync + 'static;

    /// Buffers of the worker's pool that a backend without connections may keep for itself.
    const OWN_BUFFERS: u64 = 0;

    /// The place of a new server.
    fn site(workers: usize) -> Self::Site;

    /// The backend of one worker; called on its thread, for every worker once.
    fn backend(site: &Self::Site, worker: usize, pool: &Pool) -> Self::Backend;

    /// A client that connects. It is called when every worker's backend exists.
    ///
    /// # Errors
    /// Those of the transport; a server that has stopped listening refuses.
    fn connect(site: &Self::Site) -> io::Result<Box<dyn Stream>>;
}

/// A server on some backend: its workers run on threads of their own.
pub struct Server<L: Lab> {
    site: Arc<L::Site>,
    remote: Remote,
    counters: Vec<Arc<WorkerCounters>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl<L: Lab> Server<L> {
    /// Starts `workers` workers; `make` gives each its handler, on its thread.
    ///
    /// # Panics
    /// When there is no memory, or no thread, to be had.
    pub fn start<H: Handler>(
        workers: usize,
        settings: &Settings,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Self {
        let config = PoolConfig { node: None, budget_bytes: 512 << 20, huge: false };
        let node = NodePool::new(config).expect("memory for the pool");
        let site = Arc::new(L::site(workers));
        let make = Arc::new(make);
        let admission = Admission::new(0, 0);
        let clock = MonotonicClock::new();
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCounters::default())).collect();
        let (remote, inboxes) = inboxes(workers, settings.ring);
        let (ready, all_ready) = std::sync::mpsc::channel();
        let start = |inbox: crate::inbox::Inbox| {
            let worker = inbox.worker();
            let (site, make, node) = (site.clone(), make.clone(), node.clone());
            let (settings, admission, clock) = (settings.clone(), admission.clone(), clock.clone());
            let (counters, ready) = (counters[worker].clone(), ready.clone());
            std::thread::spawn(move || {
                let pool = node.share();
                let backend = L::backend(&site, worker, &pool);
                let parts = Parts { settings, pool, inbox, counters, admission };
                let mut worker = Worker::new(backend, make(worker), parts, clock.now());
                let _ = ready.send(());
                worker.run(&clock)
            })
        };
        let threads = inboxes.into_iter().map(start).collect();
        for _ in 0..workers {
            all_ready.recv_timeout(PATIENCE).expect("every worker starts");
        }
        Server { site, remote, counters, threads }
    }

    /// A client that has connected and said nothing.
    ///
    /// # Panics
    /// When the server doesn't take it.
    pub fn connect(&self) -> Client {
        self.try_connect().expect("the server accepts")
    }

    /// A client that has connected and said nothing.
    ///
    /// # Errors
    /// Those of the transport.
    pub fn try_connect(&self) -> io::Result<Client> {
        L::connect(&self.site).map(Client::new)
    }

    /// A client with an open WebSocket.
    pub fn open(&self) -> Client {
        self.connect().open()
    }

    /// Reaches the server's sessions.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// What one worker counts.
    pub fn worker(&self, worker: usize) -> &WorkerCounters {
        &self.counters[worker]
    }

    /// What all workers count.
    pub fn counters(&self) -> WorkerSnapshot {
        let mut sum = WorkerSnapshot::default();
        for counters in &self.counters {
            sum.merge(&counters.snapshot());
        }
        sum
    }

    /// Waits until the counters say so.
    ///
    /// # Panics
    /// When they don't in time.
    pub fn until(&self, what: &str, says: impl Fn(&WorkerSnapshot) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !says(&self.counters()) {
            assert!(Instant::now() < deadline, "never came: {what}; {:#?}", self.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until nothing is left of any connection.
    pub fn until_clean(&self) {
        let own = L::OWN_BUFFERS * self.counters.len() as u64;
        self.until("no trace of any connection", |c| {
            c.connections_open == 0
                && c.sessions_open == 0
                && c.queues_open == 0
                && c.queued_bytes == 0
                && c.assemblies_open == 0
                && c.pool_buffers_lent <= own
        });
    }

    /// Shows that a fresh client is served.
    pub fn serves(&self) {
        let mut client = self.open();
        client.frame(wire::TEXT, b"are you there");
        client.expect(wire::TEXT, b"are you there");
        client.leave();
    }

    /// The end of a test: a fresh client is served, nothing has leaked, the server stops.
    pub fn finish(self) {
        self.serves();
        self.until_clean();
        self.remote.stop();
        self.join();
    }

    /// Waits until the workers have ended, after [`Remote::drain`] or [`Remote::stop`].
    ///
    /// # Panics
    /// When they don't in time, or when one panicked.
    pub fn join(self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            assert!(Instant::now() < deadline, "the workers don't end");
            std::thread::sleep(Duration::from_millis(2));
        }
        for thread in self.threads {
            thread.join().expect("no worker panics").expect("the backend goes on");
        }
    }
}

/// Makes a test of each of the suite's [`cases`] on a [`Lab`]; with `without half_close` behind the
/// lab, of those in which no client calls [`Stream::finish`].
#[macro_export]
macro_rules! backend_suite {
    ($lab:ty) => {
        $crate::backend_suite!($lab, without half_close);
        $crate::backend_suite!(@each $lab: a_half_close_without_close_frame_ends_the_session,);
    };
    ($lab:ty, without half_close) => {
        $crate::backend_suite!(@each $lab:
            echoes_messages_of_every_size,
            echoes_what_comes_byte_by_byte,
            answers_a_handshake_with_frames_behind_it,
            echoes_many_messages_sent_at_once,
            echoes_fragments_with_pings_between,
            serves_many_connections_at_once,
            echoes_the_close_code,
            broadcasts_to_all_but_the_sender_on_two_workers,
            sends_from_other_threads_wake_a_sleeping_worker,
            a_slow_reader_gets_every_byte,
            a_reader_that_never_reads_costs_no_more_than_its_limit,
            silent_and_slow_clients_delay_nobody,
            half_made_handshakes_are_timed_out,
            refuses_a_length_of_two_to_the_63,
            refuses_what_is_not_http,
            survives_resets_at_every_point,
            survives_clients_that_vanish,
            drains_with_1001_and_ends,
        );
    };
    (@each $lab:ty: $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::suite::cases::$case::<$lab>();
            }
        )*
    };
}
