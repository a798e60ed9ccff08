//! A peer that is played by hand: it sends exactly what a test says, and hands over what came back.

pub use crate::common::*;
use hioload_core::Now;
use hioload_stack::Offloads;
pub use hioload_stack::{Event, Gone, Stack, StackConfig};
use std::cell::RefCell;
pub use std::net::SocketAddr;
use std::rc::Rc;
pub use std::time::Duration;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const MSS_1460: &[u8] = &[2, 4, 5, 180];

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A segment that the stack sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Seg {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

/// What the user of the stack sees.
#[derive(Default)]
pub struct Seen {
    pub events: Vec<Event>,
    pub data: Vec<u8>,
    /// Leave what arrives in the ring.
    pub deaf: bool,
}

impl App for Seen {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        if let Event::Readable(id) = event
            && !self.deaf
        {
            let (mut rx, _) = stack.turn();
            if let Some(window) = rx.take(id) {
                self.data.extend_from_slice(window);
            }
        }
        self.events.push(event);
    }
}

/// A peer that is played by the test: 10.0.0.1, or the like in IPv6.
pub struct Script {
    pub wire: Rc<RefCell<Wire>>,
    pub stack: Stack<SimLink>,
    pub seen: Seen,
    pub v6: bool,
    /// The peer's port, and the stack's.
    pub port: u16,
    pub local: u16,
    /// Our next sequence number, and what we acknowledge.
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
}

impl Script {
    /// A stack that hasn't said anything yet.
    pub fn on(wire: Rc<RefCell<Wire>>, v6: bool, config: StackConfig) -> Script {
        let stack =
            Stack::new(SimLink::new(&wire, 1, 1500, Offloads::default()), &config, Now::ZERO)
                .unwrap();
        Script {
            wire,
            stack,
            seen: Seen::default(),
            v6,
            port: 5000,
            local: 80,
            seq: 1000,
            ack: 0,
            window: 20_000,
        }
    }

    /// A stack that listens on port 80 and knows us.
    pub fn with(v6: bool, config: StackConfig) -> Script {
        let wire = Wire::new(1, Faults::default());
        wire.borrow_mut().log = Some(Vec::new());
        let mut script = Script::on(wire, v6, config);
        script.stack.listen(80).unwrap();
        script.introduce();
        script
    }

    pub fn new() -> Script {
        Script::with(false, StackConfig { freeze_after: None, ..config(1) })
    }

    /// Lets the stack learn our station address, by asking for its own.
    pub fn introduce(&mut self) {
        if self.v6 {
            let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
            message.extend(octets(ip(true, 1)));
            message.extend([1, 1, 2, 0, 0, 0, 0, 1]);
            let packet = packet(ip(true, 0), ip(true, 1), 58, 255, &message, 2);
            self.frame(0x86dd, &packet);
        } else {
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
            arp.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
            self.frame(0x0806, &arp);
        }
        self.turn();
        self.take_frames();
    }

    pub fn frame(&mut self, ethertype: u16, payload: &[u8]) {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        self.wire.borrow_mut().carry(1, frame);
    }

    pub fn ip(&mut self, packet: &[u8]) {
        self.frame(if self.v6 { 0x86dd } else { 0x0800 }, packet);
    }

    /// Sends a segment and lets the stack have its turn.
    pub fn raw(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) {
        self.put(seq, ack, flags, options, data);
        self.turn();
    }

    /// Sends a segment, which the stack will find in its next turn.
    pub fn put(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) {
        let mut tcp = Vec::new();
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(self.local.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([(20 + options.len() as u8) << 2, flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let packet = packet(ip(self.v6, 0), ip(self.v6, 1), 6, 64, &tcp, 16);
        self.ip(&packet);
    }

    /// Sends the next segment in order.
    pub fn send(&mut self, flags: u8, data: &[u8]) {
        let (seq, ack) = (self.seq, self.ack);
        self.raw(seq, ack, flags, &[], data);
        self.seq = seq.wrapping_add(data.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    pub fn turn(&mut self) {
        let now = self.wire.borrow().now;
        self.stack.poll(now);
        while let Some(event) = self.stack.next_event() {
            self.seen.event(&mut self.stack, event);
        }
        self.stack.flush(now);
        // What became news by settling.
        self.stack.poll(now);
        while let Some(event) = self.stack.next_event() {
            self.seen.event(&mut self.stack, event);
        }
        self.stack.flush(now);
    }

    /// Lets time pass, with the stack polled when it wants to be.
    pub fn wait(&mut self, time: Duration) {
        let end = self.wire.borrow().now.after(time);
        for _ in 0..10_000 {
            let now = self.wire.borrow().now;
            if now >= end {
                break;
            }
            let next = self.stack.next_deadline().unwrap_or(end).max(now.after(ms(1))).min(end);
            self.wire.borrow_mut().now = next;
            self.turn();
        }
    }

    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(self.wire.borrow_mut().log.as_mut().unwrap());
        frames.into_iter().filter(|(to, _)| *to == 0).map(|(_, frame)| frame).collect()
    }

    /// The segments that the stack sent since the last call; their checksums are right.
    pub fn take(&mut self) -> Vec<Seg> {
        let at = 14 + if self.v6 { 40 } else { 20 };
        let protocol_at = if self.v6 { 20 } else { 23 };
        let tcp = |frame: &Vec<u8>| frame.get(protocol_at) == Some(&6);
        let frames: Vec<_> = self.take_frames().into_iter().filter(tcp).collect();
        let (us, it) = (ip(self.v6, 0), ip(self.v6, 1));
        frames
            .iter()
            .map(|frame| {
                let tcp = &frame[at..];
                assert_eq!(upper_sum(it, us, 6, tcp), 0xffff, "a bad checksum was sent");
                let header = usize::from(tcp[12] >> 4) * 4;
                let word = |n: usize| u32::from_be_bytes(tcp[n..n + 4].try_into().unwrap());
                Seg {
                    seq: word(4),
                    ack: word(8),
                    flags: tcp[13],
                    window: u16::from_be_bytes([tcp[14], tcp[15]]),
                    options: tcp[20..header].to_vec(),
                    data: tcp[header..].to_vec(),
                }
            })
            .collect()
    }

    pub fn one(&mut self) -> Seg {
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A handshake, up to `Opened`.
    pub fn open(&mut self) -> Seg {
        let seq = self.seq;
        self.raw(seq, 0, SYN, MSS_1460, &[]);
        self.seq = seq.wrapping_add(1);
        let syn_ack = self.one();
        self.ack = syn_ack.seq.wrapping_add(1);
        self.send(ACK, &[]);
        assert!(matches!(self.seen.events.last(), Some(Event::Opened(_))));
        self.take();
        syn_ack
    }

    pub fn id(&self) -> hioload_stack::ConnId {
        let opened = self.seen.events.iter().rev().find_map(|event| match event {
            Event::Opened(id) => Some(*id),
            _ => None,
        });
        opened.unwrap()
    }

    /// The stack connects to the peer's port. Returns its SYN; its port is ours to answer to.
    pub fn connect(&mut self) -> Seg {
        let to = SocketAddr::new(ip(self.v6, 0), self.port);
        self.stack.connect(to).unwrap();
        self.turn();
        let at = 14 + if self.v6 { 40 } else { 20 };
        let log = self.wire.borrow().log.clone().unwrap();
        let syn = &log.last().unwrap().1[at..];
        self.local = u16::from_be_bytes([syn[0], syn[1]]);
        let syn = self.one();
        self.ack = syn.seq.wrapping_add(1);
        syn
    }

    pub fn say(&mut self, data: &[u8]) {
        let id = self.id();
        assert!(self.stack.turn().1.send(id, data));
        self.turn();
    }

    pub fn closed(&self) -> Option<Gone> {
        self.seen.events.iter().find_map(|event| match event {
            Event::Closed(_, gone) => Some(*gone),
            _ => None,
        })
    }
}

pub fn octets(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub fn fold(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum()
}

pub fn upper_sum(src: std::net::IpAddr, dst: std::net::IpAddr, protocol: u8, data: &[u8]) -> u16 {
    let mut sum = fold(&octets(src)) + fold(&octets(dst)) + u32::from(protocol);
    sum += data.len() as u32 + fold(data);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IP packet whose upper layer's checksum at `at` is filled in.
pub fn packet(
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
    protocol: u8,
    hops: u8,
    data: &[u8],
    at: usize,
) -> Vec<u8> {
    let mut data = data.to_vec();
    let sum = match protocol {
        1 => !upper_sum_plain(&data),
        _ => !upper_sum(src, dst, protocol, &data),
    };
    data[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut packet = Vec::new();
    if src.is_ipv6() {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend((data.len() as u16).to_be_bytes());
        packet.extend([protocol, hops]);
        packet.extend(octets(src));
        packet.extend(octets(dst));
    } else {
        packet.extend([0x45, 0]);
        packet.extend((data.len() as u16 + 20).to_be_bytes());
        packet.extend([0, 0, 0, 0, hops, protocol, 0, 0]);
        packet.extend(octets(src));
        packet.extend(octets(dst));
        let sum = !upper_sum_plain(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(data);
    packet
}

pub fn upper_sum_plain(data: &[u8]) -> u16 {
    let mut sum = fold(data);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
