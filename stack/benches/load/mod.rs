//! A link that is memory, and clients that are a few numbers each: so that what is measured is the
//! server's side of an echo and nothing else.
#![allow(dead_code)]

pub mod bare;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hioload_core::Now;
use hioload_stack::{
    Address, BURST, ConnId, Event, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame,
    Stack, StackConfig, TxMeta,
};

/// Bytes of a message.
pub const MESSAGE: usize = 64;
/// Frames that arrive at once, as from a NIC that is polled.
pub const BURST_USUAL: usize = 32;
/// Frames that arrive at once at most.
pub const BURST_MAX: usize = BURST;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Ports that each client address uses.
const PORTS: u32 = 32_768;
/// The first client address, 11.0.0.0.
const CLIENTS: u32 = 0x0b00_0000;

/// Something that answers messages.
pub trait Subject {
    /// Each of these clients, up to [`BURST_MAX`] different ones, sends a message and takes the
    /// answer. Returns the time of the server's part.
    fn round(&mut self, burst: &[u32]) -> Duration;
}

/// Both directions are arrays.
pub struct Memory {
    rx: MemoryRx,
    tx: MemoryTx,
    /// As a NIC: checksums are its own, both ways.
    offloads: bool,
}

pub struct MemoryRx {
    frames: Vec<Vec<u8>>,
    taken: bool,
    checksum: RxChecksum,
}

pub struct MemoryTx {
    frames: Vec<[u8; 2048]>,
    lens: Vec<usize>,
    next: usize,
}

impl Link for Memory {
    type Rx = MemoryRx;
    type Tx = MemoryTx;

    fn info(&self) -> LinkInfo {
        let offloads = Offloads { tx_ip_checksum: self.offloads, tx_tcp_checksum: self.offloads };
        LinkInfo { mac: MAC, mtu: 1500, offloads }
    }

    fn split(&mut self) -> (&mut MemoryRx, &mut MemoryTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for MemoryRx {
    fn receive(&mut self, max: usize) -> usize {
        assert!(self.frames.len() <= max);
        if std::mem::replace(&mut self.taken, true) { 0 } else { self.frames.len() }
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.frames[index], checksum: self.checksum }
    }
}

impl LinkTx for MemoryTx {
    fn room(&self) -> usize {
        self.frames.len() - self.lens.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next = len;
        self.frames.get_mut(self.lens.len()).map(|frame| &mut frame[..len])
    }

    fn commit(&mut self, _: TxMeta) {
        self.lens.push(self.next);
    }

    fn flush(&mut self) {}
}

/// What a client sends.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Kind {
    Syn,
    /// It acknowledges all that it got.
    Ack,
    Message,
}

/// The clients' side: next sequence number and what is acknowledged.
pub struct Clients(Vec<(u32, u32)>);

impl Clients {
    pub fn new(count: u32) -> Clients {
        Clients(vec![(0, 0); count as usize])
    }

    /// What these clients send, a frame each, with good checksums.
    pub fn frames(&mut self, frames: &mut Vec<Vec<u8>>, burst: &[u32], kind: Kind) {
        frames.resize(burst.len(), Vec::new());
        for (frame, &n) in frames.iter_mut().zip(burst) {
            let client = &mut self.0[n as usize];
            match kind {
                Kind::Syn => {
                    write(frame, n, *client, 2, &[]);
                    client.0 = 1;
                }
                Kind::Ack => write(frame, n, *client, 16, &[]),
                Kind::Message => {
                    write(frame, n, *client, 24, &[b'x'; MESSAGE]);
                    // The answer comes with certainty, so it is acknowledged next time.
                    client.0 = client.0.wrapping_add(MESSAGE as u32);
                    client.1 = client.1.wrapping_add(MESSAGE as u32);
                }
            }
        }
    }

    /// Takes the sequence number of a SYN-ACK whose IP header begins at `l2`.
    pub fn learn(&mut self, frame: &[u8], l2: usize) {
        let word = |at: usize| u32::from_be_bytes(frame[l2 + at..l2 + at + 4].try_into().unwrap());
        let n = (word(16) - CLIENTS) * PORTS + (word(20) & 0xffff) - 1024;
        self.0[n as usize].1 = word(24).wrapping_add(1);
    }
}

fn write(frame: &mut Vec<u8>, n: u32, (seq, ack): (u32, u32), flags: u8, data: &[u8]) {
    let (ip, port) = (Ipv4Addr::from(CLIENTS + n / PORTS), (1024 + n % PORTS) as u16);
    frame.clear();
    frame.extend(MAC);
    frame.extend(ROUTER_MAC);
    frame.extend([8, 0, 0x45, 0]);
    let tcp_len = 20 + data.len() as u16;
    frame.extend((20 + tcp_len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(ip.octets());
    frame.extend(SERVER.octets());
    frame.extend(port.to_be_bytes());
    frame.extend(80u16.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    frame.extend(data);
    let ip_sum = !sum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&ip_sum.to_be_bytes());
    // The pseudo-header is addresses, protocol and length.
    let tcp_sum = !sum(6 + u32::from(tcp_len), &frame[26..]);
    frame[50..52].copy_from_slice(&tcp_sum.to_be_bytes());
}

/// RFC 1071, over an even number of bytes.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum = start + words.map(|&word| u32::from(u16::from_be_bytes(word))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A server with clients.
pub struct Load {
    pub stack: Stack<Memory>,
    clients: Clients,
    /// Their names at the server.
    ids: Vec<ConnId>,
    now: Now,
}

impl Load {
    /// `count` established connections. With `offloads`, checksums are the link's: what is left is
    /// TCP and what finds its connections.
    pub fn new(count: u32, offloads: bool, freeze_after: Option<Duration>) -> Load {
        Load::with(count, offloads, StackConfig { freeze_after, ..StackConfig::default() })
    }

    /// The same, configured otherwise than by default.
    pub fn with(count: u32, offloads: bool, config: StackConfig) -> Load {
        let checksum = if offloads { RxChecksum::Good } else { RxChecksum::Unknown };
        let tx = MemoryTx { frames: vec![[0; 2048]; 1024], lens: Vec::new(), next: 0 };
        let rx = MemoryRx { frames: Vec::new(), taken: false, checksum };
        let config = StackConfig {
            addresses: vec![Address { ip: IpAddr::V4(SERVER), prefix: 24 }],
            gateway_v4: Some(ROUTER),
            secret: Some([7; 32]),
            connections_max: count + 16,
            half_open_max: u32::MAX,
            ..config
        };
        let mut stack = Stack::new(Memory { rx, tx, offloads }, &config, Now::ZERO).unwrap();
        stack.listen(80).unwrap();
        let ids = Vec::with_capacity(count as usize);
        let mut load = Load { stack, clients: Clients::new(count), ids, now: Now::ZERO };
        // The router's station address.
        let mut arp = vec![255; 6];
        arp.extend(ROUTER_MAC);
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend(ROUTER_MAC);
        arp.extend(ROUTER.octets());
        arp.extend([0; 6]);
        arp.extend(SERVER.octets());
        load.arrive(|_, frames| frames.push(arp));
        load.turn();
        let all: Vec<u32> = (0..count).collect();
        for burst in all.chunks(BURST_MAX) {
            load.send(burst, Kind::Syn);
            load.turn();
            let (_, tx) = load.stack.link_mut().split();
            tx.frames[..tx.lens.len()].iter().for_each(|frame| load.clients.learn(frame, 14));
            load.send(burst, Kind::Ack);
            load.turn();
        }
        assert_eq!(load.ids.len(), count as usize);
        load
    }

    fn arrive(&mut self, fill: impl FnOnce(&mut Clients, &mut Vec<Vec<u8>>)) {
        let (rx, tx) = self.stack.link_mut().split();
        rx.taken = false;
        tx.lens.clear();
        rx.frames.truncate(BURST_MAX);
        fill(&mut self.clients, &mut rx.frames);
    }

    fn send(&mut self, burst: &[u32], kind: Kind) {
        self.arrive(|clients, frames| clients.frames(frames, burst, kind));
    }

    fn quiet(&mut self) {
        self.arrive(|_, frames| frames.clear());
    }

    /// One turn of an echo server.
    #[inline(always)]
    fn turn(&mut self) -> usize {
        self.stack.poll(self.now);
        // As a server does it: all news first, then one turn for all of it.
        let mut readable: ArrayVec<ConnId, BURST_MAX> = ArrayVec::new();
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Readable(id) => readable.push(id),
                Event::Opened(id) => self.ids.push(id),
                _ => panic!("nothing else happens here: {event:?}"),
            }
        }
        let mut answered = 0;
        let (mut rx, mut tx) = self.stack.turn();
        for id in readable {
            if let Some(window) = rx.take(id) {
                assert!(tx.send(id, window));
                answered += 1;
            }
        }
        self.stack.flush(self.now);
        answered
    }

    /// A turn that callgrind counts, and the clock.
    #[inline(never)]
    fn measured(&mut self) -> usize {
        self.turn()
    }

    /// Lets all connections freeze. Returns the time of the server's turns.
    pub fn freeze(&mut self, after: Duration) -> Duration {
        let all: Vec<u32> = (0..self.ids.len() as u32).collect();
        for burst in all.chunks(BURST_MAX) {
            // The last answers are acknowledged: nothing is in flight.
            self.send(burst, Kind::Ack);
            self.turn();
        }
        self.now = self.now.after(after * 2);
        let mut took = Duration::ZERO;
        // A turn lets a thousand timers fire, and each may have to be set anew a few times.
        for _ in 0..self.ids.len() / 128 + 64 {
            self.quiet();
            let start = Instant::now();
            self.measured();
            took += start.elapsed();
            self.now = self.now.after(Duration::from_millis(2));
        }
        took
    }

    /// Thaws connections and does nothing else with them. Returns the time.
    pub fn thaw(&mut self, burst: &[u32]) -> Duration {
        let mut ids = [ConnId { slot: 0, generation: 0 }; BURST_MAX];
        ids.iter_mut().zip(burst).for_each(|(id, &n)| *id = self.ids[n as usize]);
        let start = Instant::now();
        self.thaw_all(&ids[..burst.len()]);
        start.elapsed()
    }

    #[inline(never)]
    fn thaw_all(&mut self, ids: &[ConnId]) {
        let (_, mut tx) = self.stack.turn();
        for (at, &id) in ids.iter().enumerate() {
            // As the pipeline does where it sends to many.
            if let Some(&later) = ids.get(at + 12) {
                tx.prefetch_entry(later);
            }
            if let Some(&soon) = ids.get(at + 4) {
                tx.prefetch_socket(soon);
            }
            assert!(tx.build(id, 0, &mut |_| {}));
        }
    }

    /// Ends the turn of a [`Load::thaw`], uncounted.
    pub fn settle(&mut self) {
        self.quiet();
        self.turn();
    }
}

impl Subject for Load {
    fn round(&mut self, burst: &[u32]) -> Duration {
        self.now = self.now.after(Duration::from_micros(20));
        self.send(burst, Kind::Message);
        let start = Instant::now();
        let answered = self.measured();
        let took = start.elapsed();
        assert_eq!(answered, burst.len());
        took
    }
}

/// The order in which clients speak.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Order {
    RoundRobin,
    Random,
}

/// Gives bursts of different clients without end.
pub struct Turns {
    count: u32,
    order: Order,
    step: u32,
    len: usize,
    burst: [u32; BURST_MAX],
}

impl Turns {
    pub fn new(count: u32, order: Order, len: usize) -> Turns {
        let len = len.min(count as usize);
        Turns { count, order, step: 0, len, burst: [0; BURST_MAX] }
    }

    pub fn next(&mut self) -> &[u32] {
        for slot in &mut self.burst[..self.len] {
            *slot = match self.order {
                Order::RoundRobin => self.step,
                Order::Random => scatter(self.step, self.count),
            };
            self.step = (self.step + 1) % self.count;
        }
        &self.burst[..self.len]
    }
}

/// A permutation of the numbers below `count`, without a stride that a prefetcher could learn.
fn scatter(step: u32, count: u32) -> u32 {
    let bits = count.next_power_of_two().trailing_zeros().max(2);
    let mask = (1u32 << bits) - 1;
    let mut n = step;
    // The mixing permutes the next power of two, so walking on from a number beyond comes back.
    loop {
        for odd in [0x9e37_79b1, 0x85eb_ca6b, 0xc2b2_ae35u32] {
            n = n.wrapping_mul(odd) & mask;
            n ^= n >> (bits / 2);
        }
        if n < count {
            return n;
        }
    }
}
