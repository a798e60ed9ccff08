//! Frames of any content, at any time, to a stack that listens and echoes: it never panics, never
//! says more than its bounds allow, and gives everything back. Plausible segments of a few
//! connections (IPv4, IPv6, behind a VLAN tag, as fragments, behind extension headers), ICMP errors
//! that quote what the stack sent, and bent copies of what passed before.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hioload_core::Now;
use hioload_fuzz::segments::{Run, Step, Wrap};
use hioload_stack::{
    Address, ConnId, Event, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, Stack,
    StackConfig, TxMeta,
};
use libfuzzer_sys::fuzz_target;

struct Memory {
    rx: Rx,
    tx: Tx,
}

struct Rx(Vec<Vec<u8>>);

struct Tx {
    next: Vec<u8>,
    sent: Vec<Vec<u8>>,
}

impl Link for Memory {
    type Rx = Rx;
    type Tx = Tx;

    fn info(&self) -> LinkInfo {
        LinkInfo { mac: US, mtu: 1500, offloads: Offloads::default() }
    }

    fn split(&mut self) -> (&mut Rx, &mut Tx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for Rx {
    fn receive(&mut self, _: usize) -> usize {
        self.0.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        // Checksums are what a fuzzer never finds.
        RxFrame { bytes: &self.0[index], checksum: RxChecksum::Good }
    }
}

impl LinkTx for Tx {
    fn room(&self) -> usize {
        256 - self.sent.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next.resize(len, 0);
        (self.sent.len() < 256).then_some(&mut self.next)
    }

    fn commit(&mut self, _: TxMeta) {
        self.sent.push(self.next.clone());
    }

    fn flush(&mut self) {}
}

const US: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VLAN: u16 = 7;

fn ip(v6: bool, host: u8) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
        false => Ipv4Addr::new(10, 0, 0, host).into(),
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Our side of the wire.
struct World {
    vlan: bool,
    /// What the stack last sent on each port: its sequence number and its acknowledgement.
    last: [(u32, u32); 8],
    /// The local port of connections that the stack opened.
    local: [u16; 8],
    passed: Vec<Vec<u8>>,
}

impl World {
    fn frame(&self, ethertype: u16, tag: Option<u16>, packet: &[u8]) -> Vec<u8> {
        let mut frame = [US, PEER].concat();
        if let Some(tag) = tag.or(self.vlan.then_some(VLAN)) {
            frame.extend([0x81, 0]);
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn packet(&self, v6: bool, protocol: u8, payload: &[u8], wrap: Wrap) -> Vec<u8> {
        let (src, dst) = (octets(ip(v6, 1)), octets(ip(v6, 2)));
        let mut packet = Vec::new();
        if v6 {
            let header = match wrap {
                Wrap::Header(kind) => vec![protocol, 0, 5, 2, 0, kind & 1, 1, 0],
                _ => Vec::new(),
            };
            let next = match wrap {
                Wrap::Header(kind) => [0, 43, 44, 60, 51][usize::from(kind) % 5],
                _ => protocol,
            };
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(((header.len() + payload.len()) as u16).to_be_bytes());
            packet.extend([next, 255]);
            packet.extend([src, dst, header].concat());
        } else {
            let fragment = if let Wrap::Header(kind) = wrap { kind } else { 0x40 };
            packet.extend([0x45, 0]);
            packet.extend(((20 + payload.len()) as u16).to_be_bytes());
            packet.extend([0, 0, fragment, 0, 64, protocol, 0, 0]);
            packet.extend([src, dst].concat());
        }
        packet.extend(payload);
        if let Wrap::Padding(bytes) = wrap {
            packet.resize(packet.len() + usize::from(bytes), 0xaa);
        }
        let tag = if let Wrap::Tag(id) = wrap { Some(u16::from(id)) } else { None };
        self.frame(if v6 { 0x86dd } else { 0x0800 }, tag, &packet)
    }

    /// What waits for the stack by a step; `None` where it is no frame.
    fn frame_of(&self, step: &Step) -> Option<Vec<u8>> {
        match step {
            Step::Frame(bytes) => Some(bytes.clone()),
            Step::Segment { port, flags, seq, ack, window, options, data, wrap } => {
                let port = usize::from(port & 7);
                let (last_seq, last_ack) = self.last[port];
                let options = &options[..options.len().min(40) & !3];
                let mut tcp = (4096 + port as u16).to_be_bytes().to_vec();
                tcp.extend(self.local[port].to_be_bytes());
                tcp.extend(last_ack.wrapping_add(*seq as u32).to_be_bytes());
                tcp.extend(last_seq.wrapping_add(*ack as u32).to_be_bytes());
                tcp.extend([(20 + options.len() as u8) << 2, *flags]);
                tcp.extend(window.to_be_bytes());
                tcp.extend([0; 4]);
                tcp.extend(options);
                tcp.extend(&data[..data.len().min(1400)]);
                Some(self.packet(port > 3, 6, &tcp, *wrap))
            }
            Step::Error { port, kind, code, mtu, seq } => {
                let port = usize::from(port & 7);
                let v6 = port > 3;
                let mut tcp = self.local[port].to_be_bytes().to_vec();
                tcp.extend((4096 + port as u16).to_be_bytes());
                tcp.extend(self.last[port].0.wrapping_add(*seq as u32).to_be_bytes());
                tcp.extend([0; 12]);
                // The quote is of a packet that went the other way.
                let mut quote = self.packet(v6, 6, &tcp, Wrap::Nothing);
                let l2 = if self.vlan { 18 } else { 14 };
                quote.drain(..l2);
                let (at, len) = if v6 { (8, 16) } else { (12, 4) };
                quote[at..at + 2 * len].rotate_left(len);
                let mut message = vec![*kind, *code, 0, 0, 0, 0];
                message.extend(mtu.to_be_bytes());
                message.extend(quote);
                let protocol = if v6 { 58 } else { 1 };
                Some(self.packet(v6, protocol, &mend(v6, message), Wrap::Nothing))
            }
            Step::Bent { which, changes, cut, turned } => {
                let count = self.passed.len();
                let mut frame = self.passed.get(usize::from(*which) % count.max(1))?.clone();
                if *turned && frame.len() >= 12 {
                    frame[..12].rotate_left(6);
                }
                for &(at, value) in changes.iter().take(8) {
                    if let Some(byte) = frame.get_mut(usize::from(at)) {
                        *byte = value;
                    }
                }
                if *cut > 0 {
                    frame.truncate(usize::from(*cut));
                }
                Some(frame)
            }
            Step::Wait(_) | Step::User { .. } | Step::Connect(_) => None,
        }
    }

    /// Takes note of what the stack sent.
    fn saw(&mut self, frame: Vec<u8>) {
        let l2 = if self.vlan { 18 } else { 14 };
        assert!(frame.len() <= l2 + 1500, "larger than the link takes");
        let v6 = frame[l2] >> 4 == 6;
        let (at, protocol_at) = if v6 { (l2 + 40, l2 + 6) } else { (l2 + 20, l2 + 9) };
        if frame.len() >= at + 20 && frame[l2 - 2] != 8 + 6 && frame[protocol_at] == 6 {
            let tcp = &frame[at..];
            let port = u16::from_be_bytes([tcp[2], tcp[3]]).wrapping_sub(4096);
            if let Some(last) = self.last.get_mut(usize::from(port)) {
                let word =
                    |n: usize| u32::from_be_bytes([tcp[n], tcp[n + 1], tcp[n + 2], tcp[n + 3]]);
                *last = (word(4), word(8));
                if tcp[13] & 0x12 == 2 {
                    self.local[usize::from(port)] = u16::from_be_bytes([tcp[0], tcp[1]]);
                }
            }
        }
        self.keep(frame);
    }

    fn keep(&mut self, frame: Vec<u8>) {
        if self.passed.len() < 64 {
            self.passed.push(frame);
        }
    }
}

/// Fills in the checksum of an ICMP message: the device doesn't look at those.
fn mend(v6: bool, mut message: Vec<u8>) -> Vec<u8> {
    let pseudo = match v6 {
        true => [octets(ip(true, 1)), octets(ip(true, 2)), vec![0, 58, 0, 0]].concat(),
        false => Vec::new(),
    };
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum()
    };
    let len = if v6 { message.len() as u32 } else { 0 };
    let mut sum = words(&pseudo) + words(&message) + len;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// What the careless user does.
fn user(stack: &mut Stack<Memory>, ids: &[ConnId], pick: u8, what: u8) {
    let Some(&id) = ids.get(usize::from(pick) % ids.len().max(1)) else { return };
    match what % 5 {
        0 => stack.close(id),
        1 => stack.abort(id),
        2 => stack.pause(id, what & 8 != 0),
        3 => drop(stack.turn().1.send(id, &[what; 3000][..usize::from(what) * 11])),
        _ => drop(stack.stats(id)),
    }
}

fn turn(stack: &mut Stack<Memory>, ids: &mut Vec<ConnId>, now: Now) {
    stack.poll(now);
    while let Some(event) = stack.next_event() {
        match event {
            Event::Opened(id) if !ids.contains(&id) => ids.push(id),
            Event::Readable(id) => {
                let (mut rx, mut tx) = stack.turn();
                if let Some(window) = rx.take(id) {
                    tx.send(id, window);
                }
            }
            Event::Closed(id, _) => {
                let known = ids.len();
                ids.retain(|known| *known != id);
                assert!(ids.len() < known, "closed what wasn't open");
            }
            Event::Opened(_) | Event::Writable(_) | Event::Eof(_) => {}
        }
    }
    stack.flush(now);
}

fuzz_target!(|run: Run| {
    let link = Memory { rx: Rx(Vec::new()), tx: Tx { next: Vec::new(), sent: Vec::new() } };
    let config = StackConfig {
        addresses: vec![
            Address { ip: ip(false, 2), prefix: 24 },
            Address { ip: ip(true, 2), prefix: 64 },
        ],
        vlan: run.vlan.then_some(VLAN),
        secret: Some([1; 32]),
        half_open_max: if run.cookies { 1 } else { 3 },
        connections_max: 8,
        ring_class: run.ring_class % 3,
        freeze_after: Some(Duration::from_millis(run.freeze_ms.into())),
        hugepages: false,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(link, &config, Now::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut now = Now::ZERO;
    let mut ids = Vec::new();
    let mut world = World { vlan: run.vlan, last: [(0, 0); 8], local: [80; 8], passed: Vec::new() };
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([&PEER[..], &[10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]].concat());
    let mut solicit = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicit.extend(octets(ip(true, 2)));
    solicit.extend([&[1, 1][..], &PEER].concat());
    let mut frames = vec![
        world.frame(0x0806, None, &arp),
        world.packet(true, 58, &mend(true, solicit), Wrap::Nothing),
    ];
    for step in run.steps.iter().take(200) {
        match step {
            Step::Wait(ms) => now = now.after(Duration::from_millis((*ms).into())),
            Step::User { pick, what } => user(&mut stack, &ids, *pick, *what),
            Step::Connect(port) => {
                let port = port & 7;
                let to = (ip(port > 3, 1), 4096 + u16::from(port));
                if let Ok(id) = stack.connect(to.into()) {
                    ids.push(id);
                }
            }
            step => {
                if let Some(frame) = world.frame_of(step) {
                    world.keep(frame.clone());
                    frames.push(frame);
                }
            }
        }
        stack.link_mut().rx.0 = std::mem::take(&mut frames);
        turn(&mut stack, &mut ids, now);
        for frame in std::mem::take(&mut stack.link_mut().tx.sent) {
            world.saw(frame);
        }
        let counters = stack.counters().snapshot();
        assert!(counters.connections <= 8);
    }
    stack.link_mut().rx.0.clear();
    for id in ids.clone() {
        stack.abort(id);
    }
    // Beyond every timeout, TIME_WAIT, and the life of a cookie.
    for _ in 0..60 {
        now = now.after(Duration::from_secs(10));
        turn(&mut stack, &mut ids, now);
        stack.link_mut().tx.sent.clear();
    }
    let counters = stack.counters().snapshot();
    assert_eq!((counters.connections, counters.half_open, ids.len()), (0, 0, 0));
});
