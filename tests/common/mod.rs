//! What the tests of the whole server share: servers on loopback that show that they leak nothing,
//! and a WebSocket client that writes any bytes at any pace.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod process;
pub mod raw;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hioload_ws::{Builder, Handler, Kind, Monitor, Running, Server, on_message};

use raw::Raw;

/// How long anything may take before a test says that it never happens. Generous: other suites
/// may have all cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`, and fails after [`PATIENCE`].
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    descriptors_of("self")
}

/// Descriptors that a process has open.
pub fn descriptors_of(process: &str) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Tests that count descriptors can't share a process with others at the same time.
static SERIAL: Mutex<()> = Mutex::new(());

/// What a server holds when nobody is connected.
#[derive(PartialEq, Eq, Debug)]
struct Held {
    connections: u64,
    socket_connections: u64,
    counted_connections: usize,
    sessions: u64,
    queues: u64,
    queued_bytes: u64,
    backlog_bytes: u64,
    assemblies: u64,
    pool_buffers: u64,
    pool_bytes: u64,
    descriptors: usize,
}

impl Held {
    fn by(monitor: &Monitor) -> Self {
        let (total, sockets) = (monitor.total(), monitor.sockets());
        Held {
            connections: total.connections_open,
            socket_connections: sockets.connections_open,
            counted_connections: monitor.connections(),
            sessions: total.sessions_open,
            queues: total.queues_open,
            queued_bytes: total.queued_bytes,
            backlog_bytes: sockets.backlog_bytes,
            assemblies: total.assemblies_open,
            pool_buffers: total.pool_buffers_lent,
            pool_bytes: total.pool_bytes_lent,
            descriptors: descriptors(),
        }
    }
}

/// A server of this process, on a port of its own.
pub struct TestServer {
    pub running: Running,
    idle: Held,
    _alone: MutexGuard<'static, ()>,
}

/// Two workers on loopback, with deadlines short enough for tests.
pub fn builder() -> Builder {
    Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .memory_budget(256 << 20)
        .drain(Duration::from_millis(100), Duration::from_secs(5))
}

/// Sends each message back.
pub fn echo() -> impl Handler + Clone + Send + 'static {
    on_message(|message, context| {
        let _ = context.echo(message);
    })
}

impl TestServer {
    pub fn start<H: Handler + Clone + Send + 'static>(builder: Builder, handler: H) -> Self {
        let alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let running = builder.start(handler).expect("the server starts");
        // Once warm, what an idle server holds must never grow.
        let address = running.addresses()[0];
        for _ in 0..4 {
            drop(Raw::open(address));
        }
        let monitor = running.monitor();
        eventually("the first clients are gone", || {
            let total = monitor.total();
            total.sessions_total >= 4 && total.connections_open == 0
        });
        let idle = Held::by(monitor);
        TestServer { running, idle, _alone: alone }
    }

    pub fn echo() -> Self {
        TestServer::start(builder(), echo())
    }

    pub fn address(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub fn monitor(&self) -> &Monitor {
        self.running.monitor()
    }

    /// A fresh client is served, and once it is gone no session, buffer or descriptor has leaked.
    /// The echo, or the broadcast to the other of two, has to be what `serves` expects.
    pub fn serves_and_leaks_nothing_by(&self, serves: impl Fn(SocketAddr)) {
        serves(self.address());
        let begin = Instant::now();
        loop {
            let now = Held::by(self.monitor());
            if now == self.idle {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "leaked; idle it held {:#?}\nnow it holds {now:#?}",
                self.idle
            );
            // A worker takes back at its next turn what others returned to it; nothing else may
            // bring one.
            self.running.remote().broadcast(Kind::Binary, b"", None);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As [`TestServer::serves_and_leaks_nothing_by`], for a server that echoes.
    pub fn serves_and_leaks_nothing(&self) {
        self.serves_and_leaks_nothing_by(echoes);
    }
}

/// Two fresh clients (most likely on two workers) get what they send, and close in order.
pub fn echoes(address: SocketAddr) {
    for round in 0..2 {
        let mut client = Raw::open(address);
        for text in ["fresh", "and served"] {
            client.send_text(text);
            assert_eq!(client.text(), text, "round {round}");
        }
        client.close(1000);
        assert_eq!(client.close_code(), Some(1000));
    }
}
