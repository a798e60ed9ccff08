//! A seeded wire between two stacks, and what drives both ends. One seed gives one run, always.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hioload_core::Now;
use hioload_stack::{
    Address, ConnId, Event, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, Stack,
    StackConfig, TxMeta,
};

/// SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What the wire does to frames, in percent and microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub corrupt: u64,
    pub reorder: u64,
    pub delay_us: u64,
    /// Larger frames vanish; 0: none do.
    pub largest: usize,
}

/// Both directions of a wire.
pub struct Wire {
    pub now: Now,
    pub rng: Rng,
    pub faults: Faults,
    /// Frames under way, by when they arrive; direction is where they go.
    under_way: [BTreeMap<(u64, u64), Vec<u8>>; 2],
    count: u64,
    /// Room of each end's transmit queue a flush.
    pub room: usize,
    /// Copies of all frames, where wanted.
    pub log: Option<Vec<(usize, Vec<u8>)>>,
}

impl Wire {
    pub fn new(seed: u64, faults: Faults) -> Rc<RefCell<Wire>> {
        Rc::new(RefCell::new(Wire {
            now: Now::ZERO,
            rng: Rng(seed),
            faults,
            under_way: Default::default(),
            count: 0,
            room: 1024,
            log: None,
        }))
    }

    pub fn carry(&mut self, to: usize, mut frame: Vec<u8>) {
        if let Some(log) = &mut self.log {
            log.push((to, frame.clone()));
        }
        if std::env::var_os("HIOLOAD_TRACE").is_some() {
            describe(self.now, to, &frame);
        }
        let faults = self.faults;
        if self.rng.percent(faults.loss) || (faults.largest > 0 && frame.len() > faults.largest) {
            return;
        }
        if self.rng.percent(faults.corrupt) {
            let bit = self.rng.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.rng.percent(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = self.now.as_nanos() + faults.delay_us * 1000;
            if self.rng.percent(faults.reorder) {
                at += self.rng.below(faults.delay_us * 3000 + 1_000_000);
            }
            self.count += 1;
            self.under_way[to].insert((at, self.count), frame.clone());
        }
    }

    pub fn next_arrival(&self) -> Option<u64> {
        self.under_way.iter().filter_map(|queue| queue.keys().next()).map(|key| key.0).min()
    }

    fn arrived(&mut self, to: usize) -> Option<Vec<u8>> {
        let entry = self.under_way[to].first_entry()?;
        (entry.key().0 <= self.now.as_nanos()).then(|| entry.remove())
    }
}

/// A line for each TCP segment, for looking at a seed that fails.
fn describe(now: Now, to: usize, frame: &[u8]) {
    let l2 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let (ip, v6) = (&frame[l2..], frame[l2] >> 4 == 6);
    let (at, protocol) = if v6 { (40, ip[6]) } else { (20, ip[9]) };
    if frame[l2 - 2..l2] == [8, 6] || protocol != 6 {
        return eprintln!("{:>14} to {to} {} bytes, not TCP", now.as_nanos() / 1000, frame.len());
    }
    let tcp = &ip[at..];
    let word = |n: usize| u32::from_be_bytes(tcp[n..n + 4].try_into().unwrap());
    let port = |n: usize| u16::from_be_bytes([tcp[n], tcp[n + 1]]);
    let len = tcp.len() - usize::from(tcp[12] >> 4) * 4;
    eprintln!(
        "{:>14} to {to} {}>{} flags {:02x} seq {} ack {} len {len} win {}",
        now.as_nanos() / 1000,
        port(0),
        port(2),
        tcp[13],
        word(4),
        word(8),
        port(14),
    );
}

pub struct SimLink {
    info: LinkInfo,
    rx: SimRx,
    tx: SimTx,
}

pub struct SimRx {
    wire: Rc<RefCell<Wire>>,
    side: usize,
    burst: Vec<Vec<u8>>,
}

pub struct SimTx {
    wire: Rc<RefCell<Wire>>,
    side: usize,
    next: Vec<u8>,
    sent: Vec<Vec<u8>>,
}

impl SimLink {
    pub fn new(wire: &Rc<RefCell<Wire>>, side: usize, mtu: u16) -> SimLink {
        SimLink {
            info: LinkInfo {
                mac: [2, 0, 0, 0, 0, side as u8 + 1],
                mtu,
                offloads: Offloads::default(),
            },
            rx: SimRx { wire: Rc::clone(wire), side, burst: Vec::new() },
            tx: SimTx { wire: Rc::clone(wire), side, next: Vec::new(), sent: Vec::new() },
        }
    }
}

fn fold(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 =
        words.map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Link for SimLink {
    type Rx = SimRx;
    type Tx = SimTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut SimRx, &mut SimTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for SimRx {
    fn receive(&mut self, max: usize) -> usize {
        self.burst.clear();
        while self.burst.len() < max
            && let Some(frame) = self.wire.borrow_mut().arrived(self.side)
        {
            self.burst.push(frame);
        }
        self.burst.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.burst[index], checksum: RxChecksum::Unknown }
    }
}

impl LinkTx for SimTx {
    fn room(&self) -> usize {
        self.wire.borrow().room - self.sent.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.room() == 0 {
            return None;
        }
        self.next.resize(len, 0xee);
        Some(&mut self.next)
    }

    fn commit(&mut self, meta: TxMeta) {
        // What a device does that was told to.
        let l3 = usize::from(meta.l2_len);
        let l4 = l3 + usize::from(meta.l3_len);
        if meta.ip_checksum {
            let sum = fold(&self.next[l3..l4]);
            self.next[l3 + 10..l3 + 12].copy_from_slice(&(!sum).to_be_bytes());
        }
        if meta.tcp_checksum {
            let sum = fold(&self.next[l4..]);
            self.next[l4 + 16..l4 + 18].copy_from_slice(&(!sum).to_be_bytes());
        }
        self.sent.push(self.next.clone());
    }

    fn flush(&mut self) {
        for frame in self.sent.drain(..) {
            self.wire.borrow_mut().carry(1 - self.side, frame);
        }
    }
}

pub fn ip(v6: bool, side: usize) -> IpAddr {
    match v6 {
        true => format!("2001:db8::{}", side + 1).parse().unwrap(),
        false => format!("10.0.0.{}", side + 1).parse().unwrap(),
    }
}

pub fn config(side: usize) -> StackConfig {
    StackConfig {
        addresses: vec![
            Address { ip: ip(false, side), prefix: 24 },
            Address { ip: ip(true, side), prefix: 64 },
        ],
        secret: Some([side as u8 + 7; 32]),
        hugepages: false,
        connections_max: 4096,
        ..StackConfig::default()
    }
}

/// Two stacks on one wire; 0 is the client by custom, 1 the server.
pub struct Pair {
    pub wire: Rc<RefCell<Wire>>,
    pub stacks: [Stack<SimLink>; 2],
}

impl Pair {
    pub fn new(seed: u64, faults: Faults, mtu: u16, configs: [StackConfig; 2]) -> Pair {
        let wire = Wire::new(seed, faults);
        // Each seed has one of the four.
        let offloads = Offloads { tx_ip_checksum: seed & 16 != 0, tx_tcp_checksum: seed & 32 != 0 };
        let stack = |side: usize| {
            let mut link = SimLink::new(&wire, side, mtu);
            link.info.offloads = offloads;
            Stack::new(link, &configs[side], Now::ZERO).unwrap()
        };
        let stacks = [stack(0), stack(1)];
        Pair { stacks, wire }
    }

    pub fn plain() -> Pair {
        Pair::new(1, Faults::default(), 1500, [config(0), config(1)])
    }

    pub fn now(&self) -> Now {
        self.wire.borrow().now
    }

    /// Moves time to the next thing that happens, at most by `limit`.
    pub fn advance(&mut self, limit: Duration) {
        let now = self.now();
        let arrival = self.wire.borrow().next_arrival().map(Now::from_nanos);
        let deadlines = self.stacks.iter().filter_map(|stack| stack.next_deadline());
        let next = deadlines.chain(arrival).min().unwrap_or(Now::MAX);
        let least = now.after(Duration::from_micros(1));
        self.wire.borrow_mut().now = next.max(least).min(now.after(limit)).max(least);
    }

    /// One turn of one side.
    pub fn turn(&mut self, side: usize, app: &mut dyn App) {
        let now = self.now();
        self.stacks[side].poll(now);
        let mut events = Vec::new();
        while events.len() < 64
            && let Some(event) = self.stacks[side].next_event()
        {
            events.push(event);
        }
        for event in events {
            if std::env::var_os("HIOLOAD_TRACE").is_some() {
                eprintln!("{:>14} side {side} {event:?}", now.as_nanos() / 1000);
            }
            app.event(&mut self.stacks[side], event);
        }
        self.stacks[side].flush(now);
    }

    /// Turns both sides until `done`, or panics after `limit` of virtual time.
    pub fn run(
        &mut self,
        apps: [&mut dyn App; 2],
        limit: Duration,
        mut done: impl FnMut(&Pair) -> bool,
    ) -> bool {
        let end = self.now().after(limit);
        let [client, server] = apps;
        for _ in 0..2_000_000 {
            self.turn(0, client);
            self.turn(1, server);
            if done(self) {
                return true;
            }
            if self.now() >= end {
                return false;
            }
            self.advance(Duration::from_secs(1));
        }
        false
    }

    /// Lets time pass.
    pub fn pass(&mut self, apps: [&mut dyn App; 2], time: Duration) {
        self.run(apps, time, |_| false);
    }
}

pub trait App {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event);
}

/// Does nothing.
pub struct Idle;

impl App for Idle {
    fn event(&mut self, _: &mut Stack<SimLink>, _: Event) {}
}

/// Sends back what comes, closes when the peer has finished.
#[derive(Default)]
pub struct Echo {
    pub conns: BTreeMap<(u32, u32), EchoConn>,
    pub opened: usize,
    pub closed: Vec<hioload_stack::Gone>,
    pub bytes: usize,
}

#[derive(Default, Debug)]
pub struct EchoConn {
    pending: Vec<u8>,
    eof: bool,
}

pub fn key(id: ConnId) -> (u32, u32) {
    (id.slot, id.generation)
}

impl App for Echo {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        let id = match event {
            Event::Opened(id) => {
                self.opened += 1;
                assert!(self.conns.insert(key(id), EchoConn::default()).is_none());
                return;
            }
            Event::Closed(id, gone) => {
                self.closed.push(gone);
                assert!(self.conns.remove(&key(id)).is_some(), "closed but never opened");
                return;
            }
            Event::Readable(id) | Event::Writable(id) | Event::Eof(id) => id,
        };
        let conn = self.conns.get_mut(&key(id)).expect("an event for an open connection");
        let (mut rx, mut tx) = stack.turn();
        if let Event::Readable(_) = event
            && let Some(window) = rx.take(id)
        {
            self.bytes += window.len();
            // As the pipeline does: the window is used while output is queued.
            let mut sent = 0;
            if conn.pending.is_empty() {
                sent = tx.send_some(id, window);
            }
            conn.pending.extend_from_slice(&window[sent..]);
            window.fill(0xdd);
        }
        if !conn.pending.is_empty() {
            let sent = tx.send_some(id, &conn.pending);
            conn.pending.drain(..sent);
        }
        conn.eof |= matches!(event, Event::Eof(_));
        let full = conn.pending.len() > 4096;
        let close = conn.eof && conn.pending.is_empty();
        stack.pause(id, full);
        if close {
            stack.close(id);
        }
    }
}

/// Sends a known stream on each connection and checks that it comes back.
pub struct Client {
    pub conns: BTreeMap<(u32, u32), ClientConn>,
    pub finished: usize,
    pub broken: usize,
    /// Reset before the first byte came back: what a SYN cookie may do whose ACK was lost.
    pub unserved: usize,
}

#[derive(Debug)]
pub struct ClientConn {
    pub salt: u64,
    pub total: usize,
    pub sent: usize,
    pub received: usize,
    pub opened: bool,
    /// Bytes of one write.
    pub piece: usize,
    /// Wait for the echo of each piece before the next one.
    pub lockstep: bool,
    pub hold: bool,
}

pub fn byte(salt: u64, at: usize) -> u8 {
    (salt.wrapping_add(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Client {
    pub fn new() -> Client {
        Client { conns: BTreeMap::new(), finished: 0, broken: 0, unserved: 0 }
    }

    pub fn open(
        &mut self,
        stack: &mut Stack<SimLink>,
        to: SocketAddr,
        salt: u64,
        total: usize,
    ) -> ConnId {
        let id = stack.connect(to).unwrap();
        let conn = ClientConn {
            salt,
            total,
            sent: 0,
            received: 0,
            opened: false,
            piece: 1500,
            lockstep: false,
            hold: false,
        };
        self.conns.insert(key(id), conn);
        id
    }

    pub fn push(&mut self, stack: &mut Stack<SimLink>, id: ConnId) {
        let conn = self.conns.get_mut(&key(id)).unwrap();
        let (_, mut tx) = stack.turn();
        while conn.opened && !conn.hold && conn.sent < conn.total {
            if conn.lockstep && conn.received < conn.sent {
                return;
            }
            let len = conn.piece.min(conn.total - conn.sent);
            let data: Vec<u8> =
                (conn.sent..conn.sent + len).map(|at| byte(conn.salt, at)).collect();
            let taken = tx.send_some(id, &data);
            conn.sent += taken;
            if taken < len {
                return;
            }
        }
    }
}

impl App for Client {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        let id = match event {
            Event::Closed(id, gone) => {
                let conn = self.conns.remove(&key(id)).expect("closed once");
                match gone == hioload_stack::Gone::Finished && conn.received == conn.total {
                    true => self.finished += 1,
                    false if gone == hioload_stack::Gone::Reset && conn.received == 0 => {
                        self.unserved += 1;
                    }
                    false => {
                        self.broken += 1;
                        eprintln!(
                            "{gone:?} after {} of {}, {} sent",
                            conn.received, conn.total, conn.sent
                        );
                    }
                }
                return;
            }
            Event::Opened(id) | Event::Readable(id) | Event::Writable(id) | Event::Eof(id) => id,
        };
        let conn = self.conns.get_mut(&key(id)).expect("an event for a connection of ours");
        conn.opened |= matches!(event, Event::Opened(_));
        if let Event::Readable(_) = event {
            let (mut rx, _) = stack.turn();
            if let Some(window) = rx.take(id) {
                for &got in window.iter() {
                    assert_eq!(got, byte(conn.salt, conn.received), "at {}", conn.received);
                    conn.received += 1;
                }
            }
        }
        let done = conn.opened && conn.received == conn.total && !conn.hold;
        self.push(stack, id);
        if done {
            stack.close(id);
        }
    }
}
