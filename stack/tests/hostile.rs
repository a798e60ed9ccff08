//! What strangers can do: floods, blind guesses, garbage. After each, those who were there are
//! still there and somebody new is served.

mod common;

use common::*;
use hioload_stack::sim::Forged;
use hioload_stack::{Gone, StackConfig};
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn server() -> SocketAddr {
    SocketAddr::new(ip(false, 1), 80)
}

/// A frame from `from` to the server with this TCP header and data.
fn forge(from: [u8; 4], ports: (u16, u16), seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (from, to) = ((from, ports.0).into(), (server().ip(), ports.1).into());
    Forged { to_mac: [2, 0, 0, 0, 0, 2], from, to, seq, ack, flags, data }.frame()
}

fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A pair with `count` open connections that have echoed something.
fn with_connections(count: u64, config_1: StackConfig) -> (Pair, Client, Echo) {
    let mut pair = Pair::new(3, Faults::default(), 1500, [config(0), config_1]);
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    for n in 0..count {
        let id = client.open(&mut pair.stacks[0], server(), n, 1000);
        client.conns.get_mut(&key(id)).unwrap().hold = true;
    }
    pair.run([&mut client, &mut echo], MINUTE, |_| false);
    assert_eq!(echo.opened as u64, count);
    (pair, client, echo)
}

/// Lets the held connections finish: none of them was hurt.
fn finish(mut pair: Pair, mut client: Client, mut echo: Echo) {
    let count = client.conns.len();
    let ids: Vec<_> = client.conns.keys().copied().collect();
    for (slot, generation) in ids {
        let id = hioload_stack::ConnId { slot, generation };
        client.conns.get_mut(&key(id)).unwrap().hold = false;
        client.push(&mut pair.stacks[0], id);
    }
    // A new one is served as well.
    client.open(&mut pair.stacks[0], server(), 77, 3000);
    pair.run([&mut client, &mut echo], MINUTE, |_| false);
    assert_eq!((client.finished, client.broken), (count + 1, 0));
}

#[test]
fn a_syn_flood_takes_no_memory_and_real_clients_still_connect() {
    let server_config = StackConfig { half_open_max: 64, ..config(1) };
    let (mut pair, client, mut echo) = with_connections(3, server_config);
    let counters = pair.stacks[1].counters();
    let before = counters.snapshot().slab_bytes;
    let mut rng = Rng(5);
    let mut frames = 0;
    while frames < 300_000 {
        for _ in 0..60 {
            let from = [10, 9, rng.below(256) as u8, rng.below(256) as u8];
            let port = 1024 + rng.below(60_000) as u16;
            let frame = forge(from, (port, 80), rng.next() as u32, 0, SYN, &[]);
            pair.wire.borrow_mut().carry(1, frame);
            frames += 1;
        }
        pair.turn(1, &mut echo);
        pair.advance(Duration::from_micros(100));
    }
    let after = counters.snapshot();
    assert!(after.half_open <= 64 && after.connections <= 64 + 3);
    assert!(after.cookies_out_total > 290_000, "{after:?}");
    assert!(after.slab_bytes <= before + (2 << 20), "{after:?}");
    // The flood's half-open connections are still there: the new client comes by a cookie.
    finish(pair, client, echo);
    let after = counters.snapshot();
    assert!(after.cookies_good_total >= 1, "{after:?}");
}

#[test]
fn spoofed_neighbours_are_asked_for_at_a_bounded_rate_and_a_real_one_is_found_meanwhile() {
    let server_config = StackConfig { asks_per_second: 50, half_open_max: 64, ..config(1) };
    let (mut pair, mut client, echo) = with_connections(3, server_config);
    let counters = pair.stacks[1].counters();
    let before = counters.snapshot();
    let mut rng = Rng(6);
    let mut asked = 0;
    for round in 0..2000 {
        for _ in 0..30 {
            let from = format!("2001:db8::{:x}:{:x}", rng.below(0xffff) + 1, rng.below(0xffff));
            let (from, port) = (from.parse().unwrap(), 1024 + rng.below(60_000) as u16);
            let (from, to) = (SocketAddr::new(from, port), SocketAddr::new(ip(true, 1), 80));
            let to_mac = [2, 0, 0, 0, 0, 2];
            let syn =
                Forged { to_mac, from, to, seq: rng.next() as u32, ack: 0, flags: SYN, data: &[] };
            pair.wire.borrow_mut().carry(1, syn.frame());
        }
        if round == 1000 {
            // It doesn't know this address of its neighbour yet, who will refuse.
            pair.stacks[1].connect(SocketAddr::new(ip(true, 0), 81)).unwrap();
        }
        pair.wire.borrow_mut().log = Some(Vec::new());
        pair.turn(1, &mut Idle);
        let log = pair.wire.borrow_mut().log.take().unwrap();
        let solicits = |frame: &[u8]| frame.len() == 86 && (frame[20], frame[54]) == (58, 135);
        asked += log.iter().filter(|(to, frame)| *to == 0 && solicits(frame)).count();
        pair.turn(0, &mut client);
        pair.advance(Duration::from_millis(1));
    }
    let after = counters.snapshot();
    let refused = pair.stacks[0].counters().snapshot().resets_out_total;
    assert_eq!((refused, after.resets_in_total), (1, 1), "{after:?}");
    let seconds = pair.now().as_nanos() as usize / 1_000_000_000 + 1;
    // 50 a second and at first as many at once, and 32 a second again.
    assert!((50..=50 + seconds * (50 + 32) + 1).contains(&asked), "{asked} in {seconds} s");
    assert!(after.asks_withheld_total > before.asks_withheld_total + 50_000, "{after:?}");
    finish(pair, client, echo);
}

#[test]
fn half_open_connections_are_reaped() {
    let (mut pair, client, mut echo) = with_connections(1, config(1));
    for port in 0..100 {
        let frame = forge([10, 9, 0, 1], (1024 + port, 80), 7, 0, SYN, &[]);
        pair.wire.borrow_mut().carry(1, frame);
    }
    pair.turn(1, &mut echo);
    pair.advance(Duration::from_micros(10));
    for _ in 0..3 {
        pair.turn(1, &mut echo);
    }
    let counters = pair.stacks[1].counters();
    assert_eq!(counters.snapshot().half_open, 100);
    pair.pass([&mut Idle, &mut echo], Duration::from_secs(11));
    let after = counters.snapshot();
    assert_eq!((after.half_open, after.half_open_reaped_total), (0, 100));
    assert_eq!(echo.opened, 1);
    finish(pair, client, echo);
}

/// Sprays segments with every source port at all connections, with random sequence numbers.
fn spray(flags: u8, data: &[u8], freeze: Option<Duration>) {
    let server_config = StackConfig { freeze_after: freeze, ..config(1) };
    let (mut pair, client, mut echo) = with_connections(8, server_config);
    let mut rng = Rng(11);
    let ports: Vec<u16> = {
        let stack = &pair.stacks[1];
        let slots = echo.conns.keys();
        slots
            .map(|&(slot, generation)| {
                stack.peer(hioload_stack::ConnId { slot, generation }).unwrap().port()
            })
            .collect()
    };
    for _ in 0..12_500 {
        for &port in &ports {
            let (seq, ack) = (rng.next() as u32, rng.next() as u32);
            let frame = forge([10, 0, 0, 1], (port, 80), seq, ack, flags, data);
            pair.wire.borrow_mut().carry(1, frame);
        }
        pair.turn(1, &mut echo);
        pair.advance(Duration::from_micros(100));
    }
    let after = pair.stacks[1].counters().snapshot();
    assert_eq!(after.resets_in_total, 0);
    assert_eq!(echo.bytes, 0, "nothing forged was delivered");
    // One a connection each half second, no more.
    assert!(after.challenge_acks_total < 200, "{after:?}");
    finish(pair, client, echo);
}

#[test]
fn blind_resets_kill_nothing() {
    spray(RST, &[], None);
    spray(RST | ACK, &[], Some(Duration::from_secs(1)));
}

#[test]
fn blind_syns_kill_nothing() {
    spray(SYN, &[], None);
    spray(SYN, &[], Some(Duration::from_secs(1)));
}

#[test]
fn blind_data_is_not_delivered() {
    spray(ACK, b"evil", None);
    spray(ACK, b"evil", Some(Duration::from_secs(1)));
}

#[test]
fn garbage_never_panics_and_never_crosses_connections() {
    let mut rng = Rng(21);
    for freeze in [None, Some(Duration::from_millis(1))] {
        let server_config = StackConfig { freeze_after: freeze, ..config(1) };
        let (mut pair, client, mut echo) = with_connections(4, server_config);
        // Real frames, to be bent.
        pair.wire.borrow_mut().log = Some(Vec::new());
        let mut other = Client::new();
        other.open(&mut pair.stacks[0], server(), 5, 6000);
        other.open(&mut pair.stacks[0], SocketAddr::new(ip(true, 1), 80), 6, 6000);
        // Its own connections are the client's: both see the events of theirs only.
        let mut both = Both(client, other);
        pair.run([&mut both, &mut echo], MINUTE, |_| false);
        let Both(client, other) = both;
        assert_eq!((other.finished, other.broken), (2, 0));
        let log = pair.wire.borrow_mut().log.take().unwrap();
        let models: Vec<Vec<u8>> =
            log.into_iter().filter(|(to, _)| *to == 1).map(|(_, frame)| frame).collect();
        let bytes = echo.bytes;
        for round in 0..20_000 {
            let mut frame = models[rng.below(models.len() as u64) as usize].clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(frame.len() as u64) as usize;
                match rng.below(4) {
                    0 => frame[at] = rng.next() as u8,
                    1 => frame[at] ^= 1 << rng.below(8),
                    2 => frame.truncate(at.max(1)),
                    _ => frame.insert(at, rng.next() as u8),
                }
            }
            if round % 3 == 0 {
                mend(&mut frame);
            }
            pair.wire.borrow_mut().carry(1, frame);
            if round % 32 == 0 {
                pair.turn(1, &mut echo);
                pair.turn(0, &mut Idle);
                pair.advance(Duration::from_micros(500));
            }
        }
        let _replayed = echo.bytes - bytes;
        assert!(echo.closed.iter().all(|gone| *gone != Gone::Failed));
        drop(client);
    }
}

/// Two clients on one stack.
struct Both(Client, Client);

impl App for Both {
    fn event(&mut self, stack: &mut hioload_stack::Stack<SimLink>, event: hioload_stack::Event) {
        use hioload_stack::Event::{Closed, Eof, Opened, Readable, Writable};
        let (Opened(id) | Readable(id) | Writable(id) | Eof(id) | Closed(id, _)) = event;
        match self.0.conns.contains_key(&key(id)) {
            true => self.0.event(stack, event),
            false => self.1.event(stack, event),
        }
    }
}

/// Makes the checksums of an IPv4 TCP frame right again, so that it gets further.
fn mend(frame: &mut [u8]) {
    if frame.len() < 54 || frame[12..14] != [8, 0] || frame[14] != 0x45 {
        return;
    }
    let total = (frame.len() - 14) as u16;
    let ip = &mut frame[14..];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum(&ip[..20], 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo: u32 = ip[12..20].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let protocol = u32::from(ip[9]);
    let tcp = &mut ip[20..];
    tcp[16..18].fill(0);
    let len = tcp.len() as u32;
    let sum = checksum(tcp, pseudo + protocol + len);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}
