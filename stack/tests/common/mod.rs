//! Two stacks on a seeded wire, and what drives both ends.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hioload_core::Now;
pub use hioload_stack::sim::{Faults, Rng, SimLink, Wire};
use hioload_stack::{Address, ConnId, Event, Offloads, Stack, StackConfig};

pub fn ip(v6: bool, side: usize) -> IpAddr {
    match v6 {
        true => format!("2001:db8::{}", side + 1).parse().unwrap(),
        false => format!("10.0.0.{}", side + 1).parse().unwrap(),
    }
}

/// With `HIOLOAD_FAST_PATH=off` in the environment, smoltcp does all.
pub fn config(side: usize) -> StackConfig {
    StackConfig {
        fast_path: std::env::var_os("HIOLOAD_FAST_PATH").is_none_or(|asked| asked != "off"),
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
    /// By how much a stack may be told a time too early, in nanoseconds: clocks go back, too.
    pub unsteady_ns: u64,
    rng: Rng,
}

impl Pair {
    pub fn new(seed: u64, faults: Faults, mtu: u16, configs: [StackConfig; 2]) -> Pair {
        let wire = Wire::new(seed, faults);
        // Each seed has one of the four.
        let offloads = Offloads { tx_ip_checksum: seed & 16 != 0, tx_tcp_checksum: seed & 32 != 0 };
        let stack = |side: usize| {
            let link = SimLink::new(&wire, side, mtu, offloads);
            Stack::new(link, &configs[side], Now::ZERO).unwrap()
        };
        let stacks = [stack(0), stack(1)];
        Pair { stacks, wire, unsteady_ns: 0, rng: Rng(seed) }
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
        let arrival = self.wire.borrow().next_arrival();
        let deadlines = self.stacks.iter().filter_map(|stack| stack.next_deadline());
        let next = deadlines.chain(arrival).min().unwrap_or(Now::MAX);
        let least = now.after(Duration::from_micros(1));
        self.wire.borrow_mut().now = next.max(least).min(now.after(limit)).max(least);
    }

    /// One turn of one side.
    pub fn turn(&mut self, side: usize, app: &mut dyn App) {
        let early = if self.unsteady_ns > 0 { self.rng.below(self.unsteady_ns) } else { 0 };
        let now = Now::from_nanos(self.now().as_nanos().saturating_sub(early));
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
    /// Send nothing for now.
    pub hold: bool,
    /// Read nothing for now.
    pub paused: bool,
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
            paused: false,
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
