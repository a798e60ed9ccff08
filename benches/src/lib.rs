//! What the benchmarks share: a worker over the in-memory backend, driven by hand, so that what is
//! measured is the pipeline and not a kernel; and one over epoll, driven the same way, so that the
//! backend's own work can be counted.

#![forbid(unsafe_code)]

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use hioload_core::clock::{ManualClock, Now};
use hioload_core::{NodePool, Pool, PoolConfig};
use hioload_pipeline::admission::Admission;
use hioload_pipeline::counters::WorkerCounters;
use hioload_pipeline::fake::{Fake, Mode, Peer};
use hioload_pipeline::inbox::inboxes;
use hioload_pipeline::middleware::Recover;
use hioload_pipeline::{Handler, Parts, Settings, Worker};
#[cfg(target_os = "linux")]
use hioload_sockets::epoll::{Epoll, EpollConfig, Listeners};
use hioload_ws_proto::Opcode;
use hioload_ws_proto::encode::encode_into;

/// A legal opening handshake, as RFC 6455 §1.2 shows it.
const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Bytes of pool memory: enough for every class.
const BUDGET_BYTES: u64 = 256 << 20;

/// Masked binary frames, one behind the other, as a client sends them.
pub fn client_frames(payload_bytes: usize, count: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_bytes).map(|i| (i * 7) as u8).collect();
    let mut frame = vec![0; payload_bytes + 14];
    let mut all = Vec::new();
    for index in 0..count {
        let key = (0x9E37_79B9u32.wrapping_mul(index as u32 + 1)).to_be_bytes();
        if let Some(len) = encode_into(&mut frame, Opcode::Binary, &payload, Some(key)) {
            all.extend_from_slice(&frame[..len]);
        }
    }
    all
}

/// What a worker is made of, and its pool once more for its backend.
fn parts() -> (Parts, Pool) {
    let config = PoolConfig { node: None, budget_bytes: BUDGET_BYTES, huge: false };
    let node = NodePool::new(config).expect("256 MiB of address space");
    let settings = Settings::default();
    let (_, mut inboxes) = inboxes(1, settings.ring);
    let pool = node.share();
    let parts = Parts {
        settings,
        pool: pool.clone(),
        inbox: inboxes.remove(0),
        counters: Arc::new(WorkerCounters::default()),
        admission: Admission::new(0, 0),
    };
    (parts, pool)
}

/// A worker with open sessions.
pub struct Rig<H: Handler> {
    worker: Worker<Fake, Recover<H>>,
    clock: ManualClock,
    peers: Vec<Peer>,
    out: Vec<u8>,
}

impl<H: Handler> Rig<H> {
    /// Opens `sessions` sessions.
    ///
    /// # Panics
    /// When the machine has no memory for the pool, or a handshake fails.
    pub fn new(handler: H, sessions: usize) -> Self {
        let (parts, _) = parts();
        let fake = Fake::new(Mode::Readiness);
        let net = fake.net();
        let clock = ManualClock::default();
        let worker = Worker::new(fake, Recover::new(handler), parts, Now::ZERO);
        let mut rig = Rig { worker, clock, peers: Vec::new(), out: Vec::with_capacity(1 << 21) };
        for _ in 0..sessions {
            rig.peers.push(net.connect());
        }
        rig.round(REQUEST, |reply| assert!(reply.starts_with(b"HTTP/1.1 101")));
        rig
    }

    /// Each peer sends `bytes`, the worker runs until nothing waits, and `check` sees what each
    /// peer got.
    ///
    /// # Panics
    /// When the worker fails.
    pub fn round(&mut self, bytes: &[u8], mut check: impl FnMut(&[u8])) {
        for peer in &self.peers {
            peer.send(bytes);
        }
        // A turn takes at most 64 KiB of a connection, and some end without a reply.
        let turns = bytes.len() / (64 * 1024) + 2;
        for _ in 0..turns {
            self.worker.turn(&self.clock).expect("the fake doesn't fail");
        }
        for peer in &self.peers {
            self.out.clear();
            peer.take_into(&mut self.out);
            check(&self.out);
        }
    }

    /// What the worker counted.
    pub fn counters(&self) -> &WorkerCounters {
        self.worker.counters()
    }
}

/// A handler that sends every message back as it is.
pub fn echo() -> impl Handler<Session = ()> {
    hioload_pipeline::on_message(|message, context| {
        // A session that can't be sent to is the peer's doing.
        let _ = context.echo(message);
    })
}

/// A worker over epoll and its clients, on one thread and the loopback: each step is the same
/// system calls in the same order, so that instructions can be counted.
#[cfg(target_os = "linux")]
pub struct EpollRig<H: Handler> {
    worker: Worker<Epoll, Recover<H>>,
    clock: ManualClock,
    clients: Vec<TcpStream>,
    out: Vec<u8>,
}

#[cfg(target_os = "linux")]
impl<H: Handler> EpollRig<H> {
    /// Opens `sessions` sessions.
    ///
    /// # Panics
    /// When the machine has no loopback, or a handshake fails.
    pub fn new(handler: H, sessions: usize) -> Self {
        let (parts, pool) = parts();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(&[any], 1, 1024).expect("a port on the loopback");
        let address = listeners.local_addrs()[0];
        let mine = listeners.into_workers().remove(0);
        let config = EpollConfig::new(mine, pool, Arc::default());
        let epoll = Epoll::new(config).expect("an epoll descriptor");
        let worker = Worker::new(epoll, Recover::new(handler), parts, Now::ZERO);
        let out = vec![0; 1 << 20];
        let mut rig = EpollRig { worker, clock: ManualClock::default(), clients: Vec::new(), out };
        for _ in 0..sessions {
            let client = TcpStream::connect(address).expect("the listener is there");
            client.set_nodelay(true).expect("TCP");
            client.set_nonblocking(true).expect("a socket");
            rig.clients.push(client);
        }
        rig.send_all(REQUEST);
        for client in 0..sessions {
            let mut got = rig.read(client);
            while got == 0 {
                rig.turn();
                got = rig.read(client);
            }
            assert!(rig.out[..got].starts_with(b"HTTP/1.1 101"));
        }
        rig
    }

    /// What the worker counted.
    pub fn counters(&self) -> &WorkerCounters {
        self.worker.counters()
    }

    fn turn(&mut self) {
        self.worker.turn(&self.clock).expect("epoll goes on");
    }

    fn send_all(&mut self, bytes: &[u8]) {
        for client in &mut self.clients {
            client.write_all(bytes).expect("a socket's buffer has room for it");
        }
    }

    /// Bytes that wait at a client now; the last ones are in `out`.
    fn read(&mut self, client: usize) -> usize {
        match self.clients[client].read(&mut self.out) {
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => panic!("the loopback fails: {e}"),
        }
    }

    /// Each client sends `bytes` and gets `expected` bytes back.
    ///
    /// # Panics
    /// When it gets more, or the worker fails.
    pub fn round(&mut self, bytes: &[u8], expected: usize) {
        self.send_all(bytes);
        self.turn();
        for client in 0..self.clients.len() {
            let mut got = self.read(client);
            while got < expected {
                self.turn();
                got += self.read(client);
            }
            assert_eq!(got, expected, "an echo and nothing else");
        }
    }
}
