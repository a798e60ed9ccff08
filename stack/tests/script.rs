//! Segment by segment, in the manner of packetdrill: what the stack says to exactly this. The table
//! in `docs/tcp.md` names these tests.

mod common;

use common::*;
use hioload_core::Now;
use hioload_stack::{Event, Gone, Stack, StackConfig};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const MSS_1460: &[u8] = &[2, 4, 5, 180];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A segment that the stack sent.
#[derive(Clone, Debug, PartialEq)]
struct Seg {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    data: Vec<u8>,
}

/// What the user of the stack sees.
#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    data: Vec<u8>,
    /// Leave what arrives in the ring.
    deaf: bool,
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
struct Script {
    wire: Rc<RefCell<Wire>>,
    stack: Stack<SimLink>,
    seen: Seen,
    v6: bool,
    port: u16,
    /// Our next sequence number, and what we acknowledge.
    seq: u32,
    ack: u32,
    window: u16,
}

impl Script {
    fn with(v6: bool, config: StackConfig) -> Script {
        let wire = Wire::new(1, Faults::default());
        let stack = Stack::new(SimLink::new(&wire, 1, 1500), &config, Now::ZERO).unwrap();
        wire.borrow_mut().log = Some(Vec::new());
        let mut script = Script {
            wire,
            stack,
            seen: Seen::default(),
            v6,
            port: 5000,
            seq: 1000,
            ack: 0,
            window: 20_000,
        };
        script.stack.listen(80).unwrap();
        script.introduce();
        script
    }

    fn new() -> Script {
        Script::with(false, StackConfig { freeze_after: None, ..config(1) })
    }

    /// Lets the stack learn our station address, by asking for its own.
    fn introduce(&mut self) {
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

    fn frame(&mut self, ethertype: u16, payload: &[u8]) {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        self.wire.borrow_mut().carry(1, frame);
    }

    fn ip(&mut self, packet: &[u8]) {
        self.frame(if self.v6 { 0x86dd } else { 0x0800 }, packet);
    }

    /// Sends a segment and lets the stack have its turn.
    fn raw(&mut self, seq: u32, ack: u32, flags: u8, options: &[u8], data: &[u8]) {
        let mut tcp = Vec::new();
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(80u16.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([(20 + options.len() as u8) / 4 << 4, flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let packet = packet(ip(self.v6, 0), ip(self.v6, 1), 6, 64, &tcp, 16);
        self.ip(&packet);
        self.turn();
    }

    /// Sends the next segment in order.
    fn send(&mut self, flags: u8, data: &[u8]) {
        let (seq, ack) = (self.seq, self.ack);
        self.raw(seq, ack, flags, &[], data);
        self.seq = seq.wrapping_add(data.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    fn turn(&mut self) {
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
    fn wait(&mut self, time: Duration) {
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

    fn take_frames(&mut self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(self.wire.borrow_mut().log.as_mut().unwrap());
        frames.into_iter().filter(|(to, _)| *to == 0).map(|(_, frame)| frame).collect()
    }

    /// The segments that the stack sent since the last call; their checksums are right.
    fn take(&mut self) -> Vec<Seg> {
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

    fn one(&mut self) -> Seg {
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A handshake, up to `Opened`.
    fn open(&mut self) -> Seg {
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

    fn id(&self) -> hioload_stack::ConnId {
        let opened = self.seen.events.iter().rev().find_map(|event| match event {
            Event::Opened(id) => Some(*id),
            _ => None,
        });
        opened.unwrap()
    }

    fn say(&mut self, data: &[u8]) {
        let id = self.id();
        assert!(self.stack.turn().1.send(id, data));
        self.turn();
    }

    fn closed(&self) -> Option<Gone> {
        self.seen.events.iter().find_map(|event| match event {
            Event::Closed(_, gone) => Some(*gone),
            _ => None,
        })
    }
}

fn octets(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn fold(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum()
}

fn upper_sum(src: std::net::IpAddr, dst: std::net::IpAddr, protocol: u8, data: &[u8]) -> u16 {
    let mut sum = fold(&octets(src)) + fold(&octets(dst)) + u32::from(protocol);
    sum += data.len() as u32 + fold(data);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IP packet whose upper layer's checksum at `at` is filled in.
fn packet(
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

fn upper_sum_plain(data: &[u8]) -> u16 {
    let mut sum = fold(data);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

mod rfc9293 {
    use super::*;

    #[test]
    fn a_handshake_offers_mss_and_an_unscaled_window() {
        for v6 in [false, true] {
            let mut script = Script::with(v6, config(1));
            let syn_ack = script.open();
            assert_eq!((syn_ack.flags, syn_ack.ack, syn_ack.window), (SYN | ACK, 1001, 2048));
            let mss: u16 = if v6 { 1440 } else { 1460 };
            assert_eq!(syn_ack.options[..4], [&[2, 4][..], &mss.to_be_bytes()].concat());
        }
    }

    #[test]
    fn a_closed_port_resets_and_a_reset_is_never_answered() {
        let mut script = Script::new();
        script.stack.set_accepting(hioload_stack::Accepting::Closed);
        script.raw(50, 0, SYN, &[], &[]);
        let reset = script.one();
        assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, 51));
        script.raw(50, 77, ACK, &[], b"data");
        let reset = script.one();
        assert_eq!((reset.flags, reset.seq), (RST, 77));
        script.raw(50, 77, RST | ACK, &[], &[]);
        assert_eq!(script.take(), []);
    }

    #[test]
    fn the_acknowledgement_of_a_syn_must_be_exact() {
        let mut script = Script::new();
        script.raw(1000, 0, SYN, MSS_1460, &[]);
        let isn = script.one().seq;
        script.raw(1001, isn.wrapping_add(2), ACK, &[], &[]);
        let reset = script.one();
        assert_eq!((reset.flags, reset.seq), (RST, isn.wrapping_add(2)));
        assert!(script.seen.events.is_empty());
    }

    #[test]
    fn data_in_order_is_delivered_and_acknowledged_within_a_delay() {
        let mut script = Script::new();
        script.open();
        script.send(ACK | PSH, b"hello");
        assert_eq!(script.seen.data, b"hello");
        assert_eq!(script.take(), [], "the acknowledgement may wait for a reply");
        script.wait(ms(20));
        let ack = script.one();
        assert_eq!((ack.flags, ack.ack), (ACK, 1006));
    }

    #[test]
    fn data_out_of_order_waits_and_is_asked_for_at_once() {
        let mut script = Script::new();
        script.open();
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq + 3, ack, ACK, &[], b"def");
        assert_eq!((script.one().ack, &script.seen.data[..]), (seq, &b""[..]));
        script.raw(seq, ack, ACK, &[], b"abc");
        assert_eq!(script.seen.data, b"abcdef");
        assert_eq!(script.take().last().unwrap().ack, seq + 6);
    }

    #[test]
    fn holes_beyond_the_bound_take_no_memory() {
        let mut script = Script::new();
        script.open();
        let (seq, ack) = (script.seq, script.ack);
        for n in 1..200 {
            script.raw(seq + n * 4, ack, ACK, &[], b"x");
        }
        let data: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        script.raw(seq, ack, ACK, &[], &data);
        // What was kept of the holes fills its place; nothing is lost or doubled.
        assert!(script.seen.data.len() >= 1000 && script.seen.data.len() < 1100);
    }

    #[test]
    fn what_is_old_is_acknowledged_again_and_not_delivered_twice() {
        let mut script = Script::new();
        script.open();
        let (seq, ack) = (script.seq, script.ack);
        script.send(ACK, b"abc");
        script.wait(ms(20));
        script.take();
        script.raw(seq, ack, ACK, &[], b"abc");
        assert_eq!(script.one().ack, seq + 3);
        // Part old, part new: the new part counts.
        script.raw(seq, ack, ACK, &[], b"abcde");
        assert_eq!(script.seen.data, b"abcde");
    }

    #[test]
    fn data_with_an_old_acknowledgement_counts() {
        let mut script = Script::new();
        script.open();
        let old = script.ack;
        script.say(b"some output");
        script.take();
        script.ack += 11;
        script.send(ACK, b"first");
        let seq = script.seq;
        script.raw(seq, old, ACK, &[], b"second");
        assert_eq!(script.seen.data, b"firstsecond");
    }

    #[test]
    fn data_beyond_the_window_is_cut() {
        let mut script = Script::new();
        script.seen.deaf = true;
        script.open();
        let data = vec![7; 1400];
        script.send(ACK, &data);
        script.send(ACK, &data);
        script.wait(ms(20));
        let last = script.take().pop().unwrap();
        assert_eq!((last.ack, last.window), (1001 + 2048, 0));
        script.seen.deaf = false;
        script.stack.pause(script.id(), false);
        script.turn();
        script.turn();
        let last = script.take().pop().unwrap();
        assert_eq!((script.seen.data.len(), last.window), (2048, 2048), "the window opens again");
    }

    #[test]
    fn the_peers_mss_is_kept_and_536_where_it_tells_none() {
        for (options, most) in [(&[2u8, 4, 2, 88][..], 600), (&[], 536), (&[2, 4, 0, 1], 48)] {
            let mut script = Script::new();
            script.raw(1000, 0, SYN, options, &[]);
            script.seq = 1001;
            script.ack = script.one().seq.wrapping_add(1);
            script.send(ACK, &[]);
            script.say(&[1; 1800]);
            let sent = script.take();
            assert!(!sent.is_empty() && sent.iter().all(|seg| seg.data.len() <= most));
            assert_eq!(sent[0].data.len(), most);
        }
    }

    #[test]
    fn the_peers_window_is_kept_and_a_closed_one_is_probed() {
        let mut script = Script::new();
        script.window = 10;
        script.open();
        script.say(b"0123456789abc");
        assert_eq!(script.one().data, b"0123456789");
        script.window = 0;
        script.ack += 10;
        script.send(ACK, &[]);
        assert_eq!(script.take(), []);
        script.wait(ms(1500));
        assert_eq!(script.one().data, b"a", "a probe");
        script.wait(ms(2500));
        assert_eq!(script.one().data, b"a", "twice as late");
        script.window = 100;
        script.send(ACK, &[]);
        assert_eq!(script.take().last().unwrap().data, b"abc");
    }

    #[test]
    fn the_peer_finishes_first() {
        let mut script = Script::new();
        script.open();
        script.send(ACK | FIN, b"bye");
        assert!(script.seen.events.iter().any(|e| matches!(e, Event::Eof(_))));
        assert_eq!(script.seen.data, b"bye");
        script.say(b"still here");
        let sent = script.take().pop().unwrap();
        assert_eq!((sent.ack, &sent.data[..]), (1005, &b"still here"[..]));
        script.ack += 10;
        script.stack.close(script.id());
        script.turn();
        assert_eq!(script.take().pop().unwrap().flags & FIN, FIN);
        script.ack += 1;
        script.send(ACK, &[]);
        assert_eq!(script.closed(), Some(Gone::Finished));
        assert_eq!(script.stack.counters().snapshot().connections, 0);
    }

    /// We finish first; ends in TIME-WAIT.
    fn into_time_wait(time_wait: Duration) -> Script {
        let mut script =
            Script::with(false, StackConfig { time_wait, freeze_after: None, ..config(1) });
        script.open();
        script.stack.close(script.id());
        script.turn();
        assert_eq!(script.one().flags & FIN, FIN);
        script.ack += 1;
        script.send(ACK, &[]);
        script.send(ACK | FIN, &[]);
        assert_eq!(script.one().ack, script.seq);
        assert_eq!(script.closed(), Some(Gone::Finished));
        assert_eq!(script.stack.counters().snapshot().time_wait, 1);
        script
    }

    #[test]
    fn time_wait_answers_a_fin_again_and_ends() {
        let mut script = into_time_wait(Duration::from_secs(30));
        script.wait(ms(20_000));
        let (seq, ack) = (script.seq - 1, script.ack);
        script.raw(seq, ack, ACK | FIN, &[], &[]);
        let again = script.one();
        assert_eq!((again.flags, again.ack), (ACK, script.seq));
        script.wait(ms(29_000));
        assert_eq!(script.stack.counters().snapshot().time_wait, 1, "it began again");
        script.wait(ms(2_000));
        assert_eq!(script.stack.counters().snapshot().connections, 0);
    }

    #[test]
    fn time_wait_survives_a_reset() {
        let mut script = into_time_wait(Duration::from_secs(30));
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq, ack, RST, &[], &[]);
        assert_eq!(script.stack.counters().snapshot().time_wait, 1);
    }

    #[test]
    fn time_wait_gives_way_to_a_later_syn_only() {
        let mut script = into_time_wait(Duration::from_secs(30));
        let (seq, old) = (script.seq, script.ack);
        script.raw(seq - 1, 0, SYN, MSS_1460, &[]);
        assert_eq!(script.one().flags, ACK);
        script.raw(seq + 1, 0, SYN, MSS_1460, &[]);
        let syn_ack = script.one();
        assert_eq!(syn_ack.flags, SYN | ACK);
        assert!(syn_ack.seq.wrapping_sub(old) < 1 << 31, "beyond the old connection");
        assert_eq!(script.stack.counters().snapshot().time_wait_reused_total, 1);
    }

    #[test]
    fn aborting_resets_and_the_slot_is_free() {
        let mut script = Script::new();
        script.open();
        script.stack.abort(script.id());
        script.turn();
        assert_eq!(script.one().flags & RST, RST);
        assert_eq!(script.closed(), Some(Gone::Finished));
        assert_eq!(script.stack.counters().snapshot().connections, 0);
    }

    #[test]
    fn a_bad_checksum_is_dropped() {
        let mut script = Script::new();
        script.open();
        let mut tcp = vec![0x13, 0x88, 0, 80];
        tcp.extend(script.seq.to_be_bytes());
        tcp.extend(script.ack.to_be_bytes());
        tcp.extend([0x50, ACK, 1, 0, 0, 0, 0, 0, b'x']);
        let mut packet = packet(ip(false, 0), ip(false, 1), 6, 64, &tcp, 16);
        *packet.last_mut().unwrap() = b'y';
        script.ip(&packet);
        script.turn();
        assert_eq!(script.seen.data, b"");
        assert_eq!(script.stack.counters().snapshot().drop_checksum_total, 1);
    }

    #[test]
    fn a_connection_of_ours_is_refused_by_a_reset() {
        let mut script = Script::new();
        let id = script.stack.connect(SocketAddr::new(ip(false, 0), 80)).unwrap();
        script.turn();
        let frames = script.take_frames();
        let syn = frames.last().unwrap();
        let (port, seq) = (u16::from_be_bytes([syn[34], syn[35]]), &syn[38..42]);
        assert!(port >= 49_152, "an ephemeral port");
        let acked = u32::from_be_bytes(seq.try_into().unwrap()).wrapping_add(1);
        let mut tcp = vec![0, 80];
        tcp.extend(port.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(acked.to_be_bytes());
        tcp.extend([0x50, RST | ACK, 0, 0, 0, 0, 0, 0]);
        let packet = packet(ip(false, 0), ip(false, 1), 6, 64, &tcp, 16);
        script.ip(&packet);
        script.turn();
        assert_eq!(script.seen.events, [Event::Closed(id, Gone::Reset)]);
    }
}

mod rfc5961 {
    use super::*;

    #[test]
    fn only_an_exact_reset_resets() {
        let mut script = Script::new();
        script.open();
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq + 1, ack, RST, &[], &[]);
        let challenge = script.one();
        assert_eq!((challenge.flags, challenge.seq, challenge.ack), (ACK, ack, seq));
        script.raw(seq + 5000, ack, RST, &[], &[]);
        script.raw(seq - 1, ack, RST, &[], &[]);
        assert_eq!((script.take(), script.closed()), (vec![], None));
        script.raw(seq, ack, RST, &[], &[]);
        assert_eq!((script.take(), script.closed()), (vec![], Some(Gone::Reset)));
    }

    #[test]
    fn a_syn_is_challenged_and_a_peer_that_restarted_can_reset() {
        for freeze_after in [None, Some(ms(0))] {
            let mut script = Script::with(false, StackConfig { freeze_after, ..config(1) });
            script.open();
            script.wait(ms(10));
            let frozen = script.stack.counters().snapshot().frozen;
            assert_eq!(frozen, u64::from(freeze_after.is_some()));
            script.raw(99_999, 0, SYN, MSS_1460, &[]);
            let challenge = script.one();
            assert_eq!((challenge.flags, challenge.ack), (ACK, script.seq));
            assert_eq!(script.closed(), None);
            script.raw(challenge.ack, 0, RST, &[], &[]);
            assert_eq!(script.closed(), Some(Gone::Reset));
            let after = script.stack.counters().snapshot();
            assert_eq!((after.connections, after.frozen), (0, 0));
        }
    }

    #[test]
    fn challenges_are_rate_limited() {
        let mut script = Script::new();
        script.open();
        for n in 0..100 {
            script.raw(n * 1000, 0, SYN, &[], &[]);
        }
        assert_eq!(script.take().len(), 1);
        script.wait(ms(600));
        script.raw(5, 0, SYN, &[], &[]);
        assert_eq!(script.take().len(), 1);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_challenged_and_its_data_dropped() {
        let mut script = Script::new();
        script.open();
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq, ack + 1, ACK, &[], b"evil");
        assert_eq!(script.one().ack, seq);
        script.wait(ms(600));
        script.raw(seq, ack.wrapping_sub(100_000), ACK, &[], b"evil");
        assert_eq!(script.one().ack, seq);
        assert_eq!(script.seen.data, b"");
    }
}

mod rfc6528 {
    use super::*;

    fn isn(port: u16, at: Duration, secret: u8) -> u32 {
        let config = StackConfig { secret: Some([secret; 32]), ..config(1) };
        let mut script = Script::with(false, config);
        script.wait(at);
        script.port = port;
        script.raw(1, 0, SYN, &[], &[]);
        script.one().seq
    }

    #[test]
    fn isns_move_by_the_clock_and_differ_by_tuple_and_secret() {
        let first = isn(5000, ms(100), 1);
        let later = isn(5000, ms(1100), 1);
        assert_eq!(later.wrapping_sub(first), 250_000, "4 µs each");
        assert!(isn(5001, ms(100), 1).abs_diff(first) > 1000);
        assert!(isn(5000, ms(100), 2).abs_diff(first) > 1000);
    }
}

mod rfc6298 {
    use super::*;

    #[test]
    fn the_timer_starts_at_a_second_and_doubles_until_the_user_timeout() {
        let config =
            StackConfig { user_timeout: Duration::from_secs(20), freeze_after: None, ..config(1) };
        let mut script = Script::with(false, config);
        script.open();
        script.say(b"lost");
        assert_eq!(script.one().data, b"lost");
        let mut waits = Vec::new();
        let mut waited = 0;
        while script.closed().is_none() && waited < 30_000 {
            script.wait(ms(10));
            waited += 10;
            for seg in script.take() {
                waits.push((waited + 500) / 1000);
                assert!(seg.data == b"lost" || seg.flags & RST != 0);
            }
        }
        assert_eq!(waits, [1, 3, 7, 15, 20], "1, 2, 4 and 8 s apart; then a reset");
        assert_eq!(script.closed(), Some(Gone::Failed));
        assert_eq!(script.stack.counters().snapshot().user_timeouts_total, 1);
    }

    #[test]
    fn an_acknowledgement_stops_the_timer() {
        let mut script = Script::new();
        script.open();
        script.say(b"data");
        script.take();
        script.ack += 4;
        script.send(ACK, &[]);
        script.wait(ms(5000));
        assert_eq!(script.take(), []);
    }

    #[test]
    fn a_syn_ack_is_sent_again() {
        let mut script = Script::new();
        script.raw(1000, 0, SYN, MSS_1460, &[]);
        let first = script.one();
        script.wait(ms(1100));
        assert_eq!(script.one(), first);
    }
}

mod rfc5681 {
    use super::*;

    #[test]
    fn three_duplicate_acknowledgements_bring_the_lost_segment() {
        let mut script = Script::new();
        script.open();
        script.say(&[3; 2000]);
        let first = script.take().remove(0);
        for _ in 0..4 {
            script.send(ACK, &[]);
        }
        let again = script.take();
        assert_eq!(again[0].seq, first.seq);
        assert_eq!(script.stack.stats(script.id()).unwrap().retransmits, 1);
    }

    #[test]
    fn the_first_flight_is_bounded() {
        let mut script =
            Script::with(false, StackConfig { ring_class: 2, freeze_after: None, ..config(1) });
        script.open();
        script.say(&[3; 20_000]);
        let sent: usize = script.take().iter().map(|seg| seg.data.len()).sum();
        assert_eq!(sent, 2048);
    }
}

mod rfc4987 {
    use super::*;

    fn cookies() -> Script {
        let config = StackConfig { half_open_max: 0, freeze_after: None, ..config(1) };
        Script::with(false, config)
    }

    #[test]
    fn a_cookie_makes_a_connection_from_nothing() {
        let mut script = cookies();
        script.raw(1000, 0, SYN, &[2, 4, 5, 120, 1, 1, 4, 2], &[]);
        let syn_ack = script.one();
        assert_eq!(script.stack.counters().snapshot().connections, 0, "nothing is kept");
        assert_eq!(syn_ack.options, [2, 4, 5, 180, 1, 1, 4, 2], "no window scale");
        script.seq = 1001;
        script.ack = syn_ack.seq.wrapping_add(1);
        script.send(ACK, b"request");
        assert_eq!(script.seen.data, b"request");
        script.say(&[9; 1800]);
        let sent = script.take();
        assert_eq!(sent[0].data.len(), 1400, "1400 is the MSS in eight that 1400 allows");
    }

    #[test]
    fn a_cookie_is_good_for_its_tuple_and_its_time_only() {
        let mut script = cookies();
        script.raw(1000, 0, SYN, MSS_1460, &[]);
        let good = script.one().seq.wrapping_add(1);
        for (seq, ack, port) in [(1002, good, 5000), (1001, good + 1, 5000), (1001, good, 5001)] {
            script.port = port;
            script.raw(seq, ack, ACK, &[], &[]);
            assert!(script.seen.events.is_empty());
        }
        script.port = 5000;
        script.wait(Duration::from_secs(200));
        script.take();
        script.raw(1001, good, ACK, &[], &[]);
        assert_eq!(script.one().flags, RST);
        assert!(script.seen.events.is_empty());
    }

    #[test]
    fn without_a_cookie_under_way_none_is_taken() {
        let mut script = Script::new();
        script.raw(1001, 12345, ACK, &[], &[]);
        assert_eq!(script.one().flags, RST);
        assert_eq!(script.stack.counters().snapshot().cookies_bad_total, 0);
    }

    #[test]
    fn a_cookie_that_comes_again_makes_no_second_connection() {
        let mut script = cookies();
        script.raw(1000, 0, SYN, MSS_1460, &[]);
        script.seq = 1001;
        script.ack = script.one().seq.wrapping_add(1);
        script.send(ACK, b"once");
        script.stack.abort(script.id());
        script.turn();
        script.take();
        let ack = script.ack;
        script.raw(1001, ack, ACK, &[], b"once");
        assert_eq!(script.seen.data, b"once");
        assert_eq!(script.stack.counters().snapshot().accepted_total, 1);
    }
}

mod below_tcp {
    use super::*;

    #[test]
    fn pings_are_answered_and_rate_limited() {
        for v6 in [false, true] {
            let mut script = Script::with(v6, StackConfig { icmp_per_second: 5, ..config(1) });
            let (kind, reply, protocol) = if v6 { (128, 129, 58) } else { (8, 0, 1) };
            let ping = [kind, 0, 0, 0, 1, 2, 3, 4, b'p', b'i', b'n', b'g'];
            let (us, it) = (ip(v6, 0), ip(v6, 1));
            for _ in 0..20 {
                script.ip(&packet(us, it, protocol, 64, &ping, 2));
            }
            script.turn();
            let frames = script.take_frames();
            assert!((4..=5).contains(&frames.len()), "{}", frames.len());
            let body = &frames[0][14 + if v6 { 40 } else { 20 }..];
            assert_eq!((body[0], &body[4..]), (reply, &ping[4..]));
        }
    }

    #[test]
    fn fragments_are_refused() {
        let mut script = Script::new();
        let mut fragment = packet(ip(false, 0), ip(false, 1), 6, 64, &[0; 20], 16);
        fragment[6] = 0x20;
        fragment[10..12].fill(0);
        let sum = !upper_sum_plain(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        script.ip(&fragment);
        script.turn();
        assert_eq!(script.stack.counters().snapshot().drop_fragment_total, 1);
    }

    /// A router says that packets of ours are too big.
    fn too_big(script: &mut Script, seq: u32, mtu: u16) {
        let mut quoted = vec![0, 80];
        quoted.extend(script.port.to_be_bytes());
        quoted.extend(seq.to_be_bytes());
        quoted.extend([0; 12]);
        let inner = packet(ip(script.v6, 1), ip(script.v6, 0), 6, 64, &quoted, 16);
        let mut message = match script.v6 {
            true => [&[2, 0, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat(),
            false => [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat(),
        };
        message.extend(inner);
        let protocol = if script.v6 { 58 } else { 1 };
        let packet = packet(ip(script.v6, 0), ip(script.v6, 1), protocol, 64, &message, 2);
        script.ip(&packet);
        script.turn();
    }

    #[test]
    fn a_lower_path_mtu_is_believed_where_it_quotes_what_is_in_flight() {
        for v6 in [false, true] {
            let mut script = Script::with(v6, StackConfig { freeze_after: None, ..config(1) });
            script.open();
            script.say(&[5; 1800]);
            let first = script.take().remove(0);
            too_big(&mut script, first.seq.wrapping_sub(5000), 1300);
            assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, 1500);
            too_big(&mut script, first.seq, 1300);
            assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, 1280);
            script.wait(ms(1100));
            let again = script.take();
            let most = 1280 - if v6 { 60 } else { 40 };
            assert!(!again.is_empty() && again.iter().all(|seg| seg.data.len() <= most));
            // One from a liar that would stop all traffic.
            too_big(&mut script, first.seq, 68);
            let floor = if v6 { 1280 } else { 576 };
            assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, floor);
        }
    }

    #[test]
    fn frames_of_another_vlan_are_not_ours() {
        let mut script = Script::with(false, StackConfig { vlan: Some(7), ..config(1) });
        script.raw(1000, 0, SYN, MSS_1460, &[]);
        assert_eq!(script.take_frames(), Vec::<Vec<u8>>::new());
        let counters = script.stack.counters().snapshot();
        assert_eq!((counters.connections, counters.drop_not_ours_total), (0, 2));
    }

    #[test]
    fn a_packet_from_our_own_address_goes_nowhere() {
        let mut script = Script::new();
        let mut tcp = vec![0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 1, 0, 0, 0, 0, 0];
        tcp[3] = 80;
        let land = packet(ip(false, 1), ip(false, 1), 6, 64, &tcp, 16);
        script.ip(&land);
        script.turn();
        assert_eq!(script.take(), []);
        assert_eq!(script.stack.counters().snapshot().connections, 0);
    }
}

mod freezing {
    use super::*;

    fn frozen() -> Script {
        let freeze_after = Some(Duration::from_secs(1));
        let mut script = Script::with(false, StackConfig { freeze_after, ..config(1) });
        script.open();
        script.send(ACK, b"before");
        script.say(b"answer");
        script.ack += 6;
        script.send(ACK, &[]);
        script.wait(ms(1500));
        let counters = script.stack.counters().snapshot();
        assert_eq!((counters.frozen, counters.connections), (1, 1));
        script.take();
        script
    }

    #[test]
    fn data_thaws_and_goes_on_where_it_was() {
        let mut script = frozen();
        script.send(ACK, b" after");
        assert_eq!(script.seen.data, b"before after");
        script.say(b"more");
        let sent = script.take().pop().unwrap();
        assert_eq!((sent.seq, sent.ack, &sent.data[..]), (script.ack, script.seq, &b"more"[..]));
        assert_eq!(script.stack.counters().snapshot().frozen, 0);
    }

    #[test]
    fn output_thaws() {
        let mut script = frozen();
        script.say(b"push");
        let sent = script.one();
        assert_eq!((sent.seq, &sent.data[..]), (script.ack, &b"push"[..]));
    }

    #[test]
    fn a_keep_alive_is_answered_without_thawing() {
        let mut script = frozen();
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq - 1, ack, ACK, &[], b"\0");
        let answer = script.one();
        assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, ack, seq));
        assert_eq!(script.stack.counters().snapshot().frozen, 1);
    }

    #[test]
    fn it_finishes_like_any_other() {
        let mut script = frozen();
        script.send(ACK | FIN, &[]);
        assert!(matches!(script.seen.events.last(), Some(Event::Eof(_))));
        let mut script = frozen();
        script.stack.close(script.id());
        script.turn();
        assert_eq!(script.one().flags & FIN, FIN);
        let mut script = frozen();
        script.stack.abort(script.id());
        script.turn();
        assert_eq!(script.one().flags & RST, RST);
        assert_eq!(script.closed(), Some(Gone::Finished));
    }
}
