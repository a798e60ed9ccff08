//! A warm worker on a DPDK device allocates nothing for a message, in Rust or in C: the whole way
//! from the driver's ring through stack, pipeline and handler and back, on a link without a kernel
//! in it (vhost, with virtio_user at the client's end). malloc itself counts here, so libraries'
//! calls count as well; what DPDK has in hugepages of its own is not malloc's.
//!
//! Worker and client take turns on one thread, and only the worker's turns are counted.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::{Net, PORT};
use hioload_core::clock::{Clock, MonotonicClock};
use hioload_core::pool::{NodePool, PoolConfig};
use hioload_dataplane::dpdk::{Device, DeviceConfig, Queue};
use hioload_dataplane::{Address, Frames, IdlePolicy, Stack, StackConfig};
use hioload_pipeline::admission::Admission;
use hioload_pipeline::counters::WorkerCounters;
use hioload_pipeline::inbox::inboxes;
use hioload_pipeline::suite::PATIENCE;
use hioload_pipeline::suite::wire::{BINARY, pattern, put_frame, request};
use hioload_pipeline::{Handler, Kind, Parts, Settings, Worker, on_message};
use hioload_stack::{ConnId, Event};

thread_local! {
    /// Calls of this thread that took memory from the C library.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

fn taken() -> u64 {
    TAKEN.with(Cell::get)
}

fn took() {
    TAKEN.with(|taken| taken.set(taken.get() + 1));
}

// The C library's own, under their other names.
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
}

// A program's functions come before those of its libraries, for the libraries too. `free` stays the
// C library's, which these blocks are from.

/// # Safety
/// As C's: any size will do.
// SAFETY: it counts, and is the C library's otherwise, as are the following.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    took();
    // SAFETY: any size will do.
    unsafe { __libc_malloc(size) }
}

/// # Safety
/// As C's: any numbers will do.
// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    took();
    // SAFETY: any numbers will do.
    unsafe { __libc_calloc(count, size) }
}

/// # Safety
/// As C's: `block` is null or was taken from here.
// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    took();
    // SAFETY: as the caller says.
    unsafe { __libc_realloc(block, size) }
}

/// # Safety
/// As C's: any numbers will do.
// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    took();
    // SAFETY: any numbers will do.
    unsafe { __libc_memalign(align, size) }
}

/// # Safety
/// As C's: `block` may be written to.
// SAFETY: as `malloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    took();
    // SAFETY: as the caller says.
    unsafe { *block = __libc_memalign(align, size) };
    // SAFETY: it was written just now.
    if unsafe { (*block).is_null() } { libc::ENOMEM } else { 0 }
}

/// What comes over the link in a round: so many messages on each of so many connections.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    depth: usize,
    payload_bytes: usize,
}

/// The client's side of a connection.
struct Peer {
    id: ConnId,
    sent: usize,
    received: usize,
}

/// A server's worker, and a client at the other end of its link.
struct Rig<H: Handler> {
    worker: Worker<Frames<Queue>, H>,
    client: Stack<Queue>,
    clock: MonotonicClock,
    peers: Vec<Peer>,
    net: Net,
    /// What the worker's turns took from the C library.
    taken: u64,
    _devices: [Device; 2],
}

impl<H: Handler> Rig<H> {
    fn new(handler: H) -> Self {
        let net = Net::new();
        let [(at_server, server), (at_client, client)] = link(&net.interface());
        let clock = MonotonicClock::new();
        let mut stack =
            Stack::new(server, &config(&net, 2), clock.now()).expect("a good configuration");
        stack.listen(PORT).expect("the first listener");
        let pool = PoolConfig { node: None, budget_bytes: 256 << 20, huge: false };
        let pool = NodePool::new(pool).expect("256 MiB of address space").share();
        let settings = Settings::default();
        let parts = Parts {
            inbox: inboxes(1, settings.ring).1.remove(0),
            settings,
            pool,
            counters: Arc::new(WorkerCounters::default()),
            admission: Admission::new(0, 0),
        };
        let backend = Frames::new(stack).expect("descriptors");
        let worker = Worker::new(backend, handler, parts, clock.now());
        let client =
            Stack::new(client, &config(&net, 1), clock.now()).expect("a good configuration");
        // In this order they are closed: the client leaves first.
        let _devices = [at_client, at_server];
        Rig { worker, client, clock, peers: Vec::new(), net, taken: 0, _devices }
    }

    /// A turn of each: the client does what it is to do, and the worker's part is counted.
    fn turn(&mut self, act: impl FnOnce(&mut Stack<Queue>, &mut [Peer])) {
        self.client.poll(self.clock.now());
        act(&mut self.client, &mut self.peers);
        self.client.flush(self.clock.now());
        let before = taken();
        self.worker.turn(&self.clock).expect("the link lives");
        self.taken += taken() - before;
    }

    /// Opens a session, over IPv4 and IPv6 in turn.
    fn open(&mut self) {
        let server = SocketAddr::new(self.net.ip(self.peers.len() % 2 == 1, 2), PORT);
        let id = self.client.connect(server).expect("room for it");
        let (request, mut answer) = (request("/", ""), Vec::new());
        let began = Instant::now();
        while !answer.ends_with(b"\r\n\r\n") {
            self.turn(|client, _| {
                while let Some(event) = client.next_event() {
                    match event {
                        Event::Opened(_) => assert!(client.turn().1.send(id, &request)),
                        Event::Readable(_) => {
                            answer.extend_from_slice(client.turn().0.take(id).unwrap_or_default());
                        }
                        Event::Closed(_, gone) => panic!("refused: {gone:?}"),
                        Event::Writable(_) | Event::Eof(_) => {}
                    }
                }
            });
            assert!(began.elapsed() < PATIENCE, "no answer to the handshake");
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        self.peers.push(Peer { id, sent: 0, received: 0 });
    }

    /// The first connections send `frames`, and get `expected` to the byte.
    fn round(&mut self, connections: usize, frames: &[u8], expected: &[u8]) {
        while self.peers.len() < connections {
            self.open();
        }
        let began = Instant::now();
        self.peers.iter_mut().for_each(|peer| (peer.sent, peer.received) = (0, 0));
        while self.peers[..connections].iter().any(|peer| peer.received < expected.len()) {
            self.turn(|client, peers| {
                while let Some(event) = client.next_event() {
                    match event {
                        Event::Readable(id) => {
                            let peer = peers.iter_mut().find(|peer| peer.id == id);
                            let peer = peer.expect("one of them");
                            let bytes = client.turn().0.take(id).unwrap_or_default();
                            let rest = &expected[peer.received..];
                            assert!(rest.starts_with(bytes), "wrong after {}", peer.received);
                            peer.received += bytes.len();
                        }
                        Event::Closed(_, gone) => panic!("a connection is gone: {gone:?}"),
                        Event::Opened(_) | Event::Writable(_) | Event::Eof(_) => {}
                    }
                }
                for peer in &mut peers[..connections] {
                    peer.sent += client.turn().1.send_some(peer.id, &frames[peer.sent..]);
                }
            });
            assert!(began.elapsed() < PATIENCE, "no answer");
        }
    }
}

fn config(net: &Net, host: u8) -> StackConfig {
    StackConfig {
        addresses: vec![
            Address { ip: net.ip(false, host), prefix: 24 },
            Address { ip: net.ip(true, host), prefix: 64 },
        ],
        ..net.config()
    }
}

/// Both ends of a link without a kernel: vhost's, and virtio_user's.
fn link(name: &str) -> [(Device, Queue); 2] {
    let eal = common::dpdk::eal();
    let path = std::env::temp_dir().join(format!("hioload-malloc-{}", std::process::id()));
    let path = path.to_str().expect("a plain name");
    let config = DeviceConfig { idle: IdlePolicy::Busy, ..common::dpdk::Site::config() };
    [
        format!("net_vhost_{name},iface={path}-{name},queues=1"),
        format!("net_virtio_user_{name},path={path}-{name},queues=1"),
    ]
    .map(|device| {
        let info = eal.attach(&device).unwrap_or_else(|error| panic!("{error}"));
        let (device, mut queues) =
            Device::open(eal, &info.name, &config).unwrap_or_else(|error| panic!("{error}"));
        (device, queues.remove(0))
    })
}

/// The least that the worker took from the C library while each load went on for as long as its
/// messages need to fill a ring: so some of them were cut where it wraps. Tables grow until they
/// have seen the most that they must hold at once, which is up to the machine's moods; so it is
/// looked at again, until one such time took nothing.
fn allocations<H: Handler>(handler: H, loads: &[Load]) -> Vec<u64> {
    let _thread = common::dpdk::eal().register_thread().expect("a number");
    let mut rig = Rig::new(handler);
    let counted = loads.iter().map(|&load| {
        let payload = pattern(load.payload_bytes, load.depth);
        let (mut frames, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..load.depth {
            put_frame(&mut frames, BINARY, &payload);
            put_reply(&mut expected, &payload);
        }
        let mut least = u64::MAX;
        for _ in 0..TRIES {
            rig.taken = 0;
            for _ in 0..(RING_BYTES / frames.len() + 1).max(20) {
                rig.round(load.connections, &frames, &expected);
            }
            least = least.min(rig.taken);
            if least == 0 {
                break;
            }
        }
        least
    });
    counted.collect()
}

/// A frame as a server sends it (RFC 6455 §5.2): without a mask.
fn put_reply(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(BINARY);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len => {
            out.push(126);
            out.extend(u16::try_from(len).expect("messages of this test").to_be_bytes());
        }
    }
    out.extend(payload);
}

/// A connection's ring, each way: that of `Net::config`.
const RING_BYTES: usize = 16 * 1024;
/// Times that it is looked at.
const TRIES: usize = 10;

const LOADS: [Load; 5] = [
    Load { connections: 1, depth: 1, payload_bytes: 20 },
    Load { connections: 50, depth: 1, payload_bytes: 64 },
    Load { connections: 50, depth: 16, payload_bytes: 64 },
    Load { connections: 20, depth: 4, payload_bytes: 1024 },
    // Larger than a ring: gathered, and sent, in parts.
    Load { connections: 4, depth: 1, payload_bytes: 60_000 },
];

#[test]
fn libraries_written_in_c_are_counted_too() {
    let before = taken();
    // SAFETY: a string that ends in zero; what comes back is freed once.
    unsafe { libc::free(libc::strdup(c"counted".as_ptr()).cast()) };
    assert_eq!(taken() - before, 1);
    drop(std::hint::black_box(Box::new(1u8)));
    assert_eq!(taken() - before, 2);
}

#[test]
fn a_message_over_dpdk_allocates_nothing() {
    if !common::dpdk::eal().has_hugepages() {
        // Plain memory can't be shown to the other side.
        return;
    }
    let echo = on_message(|message, context| {
        let _ = context.echo(message);
    });
    let counted = allocations(echo, &LOADS);
    assert_eq!(counted, [0; LOADS.len()], "an echo, {LOADS:?}");
    let built = on_message(|message, context| {
        let (session, len) = (message.session(), message.len());
        let _ = context.build(session, Kind::Binary, len, |room| {
            room.copy_from_slice(message.payload());
        });
    });
    let counted = allocations(built, &LOADS[..4]);
    assert_eq!(counted, [0; 4], "a reply that was built, {LOADS:?}");
}
