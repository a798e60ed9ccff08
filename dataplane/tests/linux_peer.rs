//! Linux's TCP against the stack over TAP, on a good wire and on a bad one, byte for byte.
#![cfg(target_os = "linux")]

mod common;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::attacker::{ACK, Attacker, RST, SYN};
use common::wire::Wire;
use common::{Net, PORT, run, succeeds};
use hioload_core::{Clock, MonotonicClock, Now};
use hioload_dataplane::{StackConfig, Tap};
use hioload_stack::sim::{Faults, Forged, Rng};
use hioload_stack::{ConnId, Event, Gone, Link, Stack, StackCounters};
use rustix::net::sockopt;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    opened: AtomicU64,
    finished: AtomicU64,
    reset: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    freezes: AtomicU64,
}

/// An echo server over a stack, on a thread of its own. A message that begins with `!` is answered
/// with a reset.
struct Echo {
    net: Net,
    /// Its station address.
    mac: [u8; 6],
    seen: Arc<Seen>,
    counters: Arc<StackCounters>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(faults: Faults, vlan: Option<u16>, change: impl FnOnce(&mut StackConfig)) -> Echo {
        let net = Net::new();
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let mut config = StackConfig { vlan, ..net.config() };
        change(&mut config);
        let wire = Wire::new(net.tap(), 7, faults, vlan);
        let mac = wire.info().mac;
        let (told, counters) = mpsc::channel();
        let mut server = Server { seen: seen.clone(), owed: HashMap::new(), ended: HashSet::new() };
        let flag = stop.clone();
        let thread = thread::spawn(move || {
            let clock = MonotonicClock::new();
            let mut stack = Stack::new(wire, &config, Now::ZERO).expect("a good config");
            told.send(stack.counters()).expect("the test waits for it");
            stack.listen(PORT).expect("the first listener");
            while !flag.load(Ordering::Relaxed) {
                stack.link_mut().pump();
                let frames = stack.poll(clock.now());
                let events = server.turn(&mut stack);
                stack.flush(clock.now());
                stack.link_mut().pump();
                let freezes = stack.counters().snapshot().freezes_total;
                server.seen.freezes.store(freezes, Ordering::Relaxed);
                if frames == 0 && events == 0 {
                    thread::sleep(Duration::from_micros(100));
                }
            }
        });
        let counters = counters.recv().expect("the server starts");
        Echo { net, mac, seen, counters, stop, thread: Some(thread) }
    }

    fn plain() -> Echo {
        Echo::start(Faults::default(), None, |_| ())
    }

    fn connect(&self, v6: bool) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.net.server(v6), PATIENCE).expect("accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn until(&self, what: &str, says: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !says(&self.seen) {
            assert!(Instant::now() < deadline, "never came: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the server panicked");
    }
}

struct Server {
    seen: Arc<Seen>,
    owed: HashMap<ConnId, VecDeque<u8>>,
    ended: HashSet<ConnId>,
}

impl Server {
    fn turn(&mut self, stack: &mut Stack<Wire<Tap>>) -> usize {
        let mut count = 0;
        while let Some(event) = stack.next_event() {
            count += 1;
            match event {
                Event::Opened(_) => _ = self.seen.opened.fetch_add(1, Ordering::Relaxed),
                Event::Readable(id) => self.readable(stack, id),
                Event::Writable(id) => self.pay(stack, id),
                Event::Eof(id) => {
                    self.ended.insert(id);
                    self.end(stack, id);
                }
                Event::Closed(id, gone) => {
                    self.owed.remove(&id);
                    self.ended.remove(&id);
                    let counter = match gone {
                        Gone::Finished => &self.seen.finished,
                        Gone::Reset => &self.seen.reset,
                        Gone::Failed => &self.seen.failed,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        count
    }

    fn readable(&mut self, stack: &mut Stack<Wire<Tap>>, id: ConnId) {
        let (mut rx, mut tx) = stack.turn();
        let Some(window) = rx.take(id) else { return };
        self.seen.bytes.fetch_add(window.len() as u64, Ordering::Relaxed);
        if window.first() == Some(&b'!') {
            return stack.abort(id);
        }
        let sent = tx.send_some(id, window);
        if sent < window.len() {
            self.owed.entry(id).or_default().extend(&window[sent..]);
            stack.pause(id, true);
        }
    }

    fn pay(&mut self, stack: &mut Stack<Wire<Tap>>, id: ConnId) {
        let Some(owed) = self.owed.get_mut(&id) else { return };
        let sent = stack.turn().1.send_some(id, owed.make_contiguous());
        owed.drain(..sent);
        if owed.is_empty() {
            self.owed.remove(&id);
            stack.pause(id, false);
            self.end(stack, id);
        }
    }

    /// Finishes as the peer did, once it has got everything.
    fn end(&self, stack: &mut Stack<Wire<Tap>>, id: ConnId) {
        if self.ended.contains(&id) && !self.owed.contains_key(&id) {
            stack.close(id);
        }
    }
}

/// Bytes that repeat late; none of them is `!`.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 0x80
    })
    .take(len)
    .collect()
}

/// Sends `len` bytes and FIN, and reads at the same time what comes back.
fn both_ways(stream: &TcpStream, len: usize, seed: u32) {
    let sent = pattern(len, seed);
    let mut got = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&*stream).write_all(&sent).expect("the server takes it");
            stream.shutdown(Shutdown::Write).expect("connected");
        });
        let mut reader: &TcpStream = stream;
        reader.read_to_end(&mut got).expect("the server sends");
    });
    assert_eq!(got.len(), sent.len());
    assert!(got == sent, "the bytes differ");
}

fn exchange(mut stream: &TcpStream, len: usize) {
    let sent = pattern(len, 5);
    let mut got = vec![0; len];
    stream.write_all(&sent).expect("the server takes it");
    stream.read_exact(&mut got).expect("the server answers");
    assert_eq!(got, sent);
}

fn bulk(name: &str, faults: Faults, vlan: Option<u16>, len: usize) {
    let echo = Echo::start(faults, vlan, |_| ());
    for v6 in [false, true] {
        let began = Instant::now();
        both_ways(&echo.connect(v6), len, 3);
        eprintln!(
            "{name}, IPv{}: {len} bytes both ways in {:?}",
            if v6 { 6 } else { 4 },
            began.elapsed()
        );
    }
    echo.until("both connections ended in order", |s| s.finished.load(Ordering::Relaxed) == 2);
}

#[test]
fn bulk_arrives_whole_on_a_good_wire() {
    bulk("good wire", Faults::default(), None, 8 << 20);
}

#[test]
fn bulk_arrives_whole_through_the_smallest_rings() {
    let echo = Echo::start(Faults::default(), None, |config| config.ring_class = 0);
    let began = Instant::now();
    both_ways(&echo.connect(false), 256 << 10, 3);
    eprintln!("2 KiB rings: 256 KiB both ways in {:?}", began.elapsed());
}

#[test]
fn bulk_arrives_whole_with_a_vlan_tag() {
    bulk("VLAN 7", Faults::default(), Some(7), 2 << 20);
}

#[test]
fn bulk_arrives_whole_with_1_percent_loss() {
    bulk("1 % loss", Faults { loss: 10, ..Faults::default() }, None, 400_000);
}

#[test]
fn bulk_arrives_whole_with_5_percent_loss() {
    bulk("5 % loss", Faults { loss: 50, ..Faults::default() }, None, 100_000);
}

#[test]
fn bulk_arrives_whole_when_reordered() {
    bulk("10 % reordered", Faults { reorder: 100, ..Faults::default() }, None, 1 << 20);
}

#[test]
fn bulk_arrives_whole_when_duplicated() {
    bulk("10 % duplicated", Faults { duplicate: 100, ..Faults::default() }, None, 2 << 20);
}

#[test]
fn bulk_arrives_whole_when_corrupted() {
    bulk("1 % corrupted", Faults { corrupt: 10, ..Faults::default() }, None, 400_000);
}

#[test]
fn bulk_arrives_whole_when_late() {
    bulk("20 ms late", Faults { delay_us: 20_000, ..Faults::default() }, None, 1 << 20);
}

#[test]
fn bulk_arrives_whole_through_netem_where_the_kernel_has_it() {
    let echo = Echo::plain();
    let device = echo.net.interface();
    let what =
        ["tc", "qdisc", "add", "dev", &device, "root", "netem", "delay", "20ms", "loss", "1%"];
    if !succeeds(&what) {
        eprintln!("netem: not in this kernel; only the test's own wire harmed frames");
        return;
    }
    eprintln!("netem: in use");
    both_ways(&echo.connect(false), 200_000, 9);
}

#[test]
fn thousands_of_short_connections_are_served_and_end() {
    const EACH: usize = 500;
    let echo = Echo::plain();
    thread::scope(|scope| {
        for worker in 0..6 {
            let echo = &echo;
            scope.spawn(move || {
                for n in 0..EACH {
                    let stream = echo.connect((n + worker) % 2 == 1);
                    exchange(&stream, 64);
                }
            });
        }
    });
    let all = 6 * EACH as u64;
    echo.until("all have ended", |s| s.finished.load(Ordering::Relaxed) == all);
    assert_eq!(echo.seen.opened.load(Ordering::Relaxed), all);
    assert_eq!(echo.seen.bytes.load(Ordering::Relaxed), all * 64);
}

#[test]
fn a_half_closed_connection_still_answers() {
    let echo = Echo::plain();
    for v6 in [false, true] {
        let mut stream = echo.connect(v6);
        stream.write_all(b"last words").expect("connected");
        stream.shutdown(Shutdown::Write).expect("connected");
        let mut got = String::new();
        stream.read_to_string(&mut got).expect("the server answers");
        assert_eq!(got, "last words");
    }
}

#[test]
fn a_reset_is_seen_by_either_side() {
    let echo = Echo::plain();
    for (n, v6) in [false, true].into_iter().enumerate() {
        let stream = echo.connect(v6);
        exchange(&stream, 100);
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an open socket");
        drop(stream);
        let seen = n as u64 + 1;
        echo.until("the server saw it", |s| s.reset.load(Ordering::Relaxed) == seen);
        let mut stream = echo.connect(v6);
        stream.write_all(b"!").expect("connected");
        let error = stream.read(&mut [0; 16]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn keep_alive_probes_are_answered_also_by_a_frozen_connection() {
    let echo = Echo::start(Faults::default(), None, |config| {
        config.freeze_after = Some(Duration::from_millis(500));
    });
    let streams = [echo.connect(false), echo.connect(true)];
    for stream in &streams {
        sockopt::set_socket_keepalive(stream, true).expect("an open socket");
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(1)).expect("an open socket");
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1)).expect("an open socket");
        sockopt::set_tcp_keepcnt(stream, 2).expect("an open socket");
        exchange(stream, 100);
    }
    // Unanswered, they would have ended the connections after 3 s.
    thread::sleep(Duration::from_secs(6));
    for stream in &streams {
        exchange(stream, 3000);
    }
    assert!(echo.seen.freezes.load(Ordering::Relaxed) >= 2, "none was frozen");
}

#[test]
fn a_reader_that_stops_and_goes_on_gets_every_byte() {
    const LEN: usize = 1 << 20;
    let echo = Echo::plain();
    for v6 in [false, true] {
        let stream = echo.connect(v6);
        sockopt::set_socket_recv_buffer_size(&stream, 4096).expect("an open socket");
        let sent = pattern(LEN, 77);
        let mut got = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&sent).expect("the server takes it");
                stream.shutdown(Shutdown::Write).expect("connected");
            });
            // Both sides' windows close, and zero window probes go out.
            thread::sleep(Duration::from_secs(3));
            let mut reader: &TcpStream = &stream;
            reader.read_to_end(&mut got).expect("the server sends");
        });
        assert!(got == sent, "{} of {LEN} bytes came, or others", got.len());
    }
}

#[test]
fn ping_is_answered_by_both_families() {
    let echo = Echo::plain();
    for v6 in [false, true] {
        let ip = echo.net.ip(v6, 2).to_string();
        for bytes in ["0", "56", "1400"] {
            run(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", bytes, &ip]);
        }
    }
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let echo = Echo::plain();
    for v6 in [false, true] {
        let error = TcpStream::connect_timeout(&(echo.net.ip(v6, 2), 4).into(), PATIENCE)
            .expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}

/// Waits for the server between two bursts of an attack: on this device what it is too slow for
/// would be lost, and attack nobody.
fn breathe(echo: &Echo, sent: u64) {
    let deadline = Instant::now() + Duration::from_millis(50);
    while echo.counters.snapshot().segments_in_total + 500 < sent && Instant::now() < deadline {
        thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_syn_flood_takes_no_memory_and_the_kernels_clients_still_connect() {
    const SYNS: u64 = 200_000;
    let echo = Echo::start(Faults::default(), None, |config| config.half_open_max = 64);
    let before = [echo.connect(false), echo.connect(true)];
    for stream in &before {
        exchange(stream, 1000);
    }
    let slab = echo.counters.snapshot().slab_bytes;
    let flooding = AtomicBool::new(true);
    let served = thread::scope(|scope| {
        scope.spawn(|| {
            let mut attacker = Attacker::on(&echo.net.interface());
            let mut rng = Rng(5);
            // Sources on the link and far away; the bound on rounds is that on lost frames.
            for _ in 0..100_000 {
                let seen = echo.counters.snapshot();
                if seen.cookies_out_total >= SYNS {
                    break;
                }
                for n in 0..64 {
                    let (v6, near) = (n % 2 == 0, n % 4 < 2);
                    let mut from = echo.net.ip(v6, 1);
                    match &mut from {
                        IpAddr::V4(ip) if near => {
                            let [a, b, c, _] = ip.octets();
                            *ip = [a, b, c, 3 + rng.below(250) as u8].into();
                        }
                        IpAddr::V4(ip) => *ip = (0xc612_0000 + rng.below(1 << 17) as u32).into(),
                        IpAddr::V6(ip) => {
                            let low = u128::from(rng.next());
                            let net = if near { ip.to_bits() >> 64 } else { 0x2001_0db8_0000_0000 };
                            *ip = (net << 64 | low).into();
                        }
                    }
                    let from = (from, 1024 + rng.below(60_000) as u16).into();
                    let (to, seq) = (echo.net.server(v6), rng.next() as u32);
                    let to_mac = echo.mac;
                    attacker.send(&Forged { to_mac, from, to, seq, ack: 0, flags: SYN, data: &[] });
                }
                attacker.flush();
                breathe(&echo, seen.segments_in_total + 64);
            }
            flooding.store(false, Ordering::Relaxed);
        });
        let mut served = 0;
        while flooding.load(Ordering::Relaxed) || served < 10 {
            exchange(&echo.connect(served % 2 == 1), 300);
            served += 1;
        }
        served
    });
    for stream in &before {
        exchange(stream, 1000);
    }
    let after = echo.counters.snapshot();
    eprintln!("SYN flood: {} SYNs, {served} clients served meanwhile", after.cookies_out_total);
    assert!(after.cookies_out_total >= SYNS, "{after:?}");
    assert!(after.cookies_good_total >= 1 && after.half_open <= 64, "{after:?}");
    assert!(after.slab_bytes <= slab + (4 << 20), "{slab}, then {after:?}");
    assert!(after.connections < 64 + 2 + served + 100, "{after:?}");
}

#[test]
fn blind_resets_syns_and_data_end_no_connection_of_the_kernels() {
    const ROUNDS: u64 = 12_000;
    let echo = Echo::start(Faults::default(), None, |config| {
        config.freeze_after = Some(Duration::from_millis(200));
    });
    let streams: Vec<_> = (0..8).map(|n| echo.connect(n % 2 == 1)).collect();
    for stream in &streams {
        exchange(stream, 1000);
    }
    let bytes = echo.seen.bytes.load(Ordering::Relaxed);
    let mut attacker = Attacker::on(&echo.net.interface());
    let mut rng = Rng(11);
    let mut sent = echo.counters.snapshot().segments_in_total;
    for round in 0..ROUNDS {
        let flags = [RST, RST | ACK, SYN, ACK][round as usize % 4];
        for stream in &streams {
            // He knows everything but the sequence numbers.
            let from = stream.local_addr().expect("connected");
            let to = stream.peer_addr().expect("connected");
            let (seq, ack) = (rng.next() as u32, rng.next() as u32);
            let data: &[u8] = if flags == ACK { b"evil" } else { &[] };
            attacker.send(&Forged { to_mac: echo.mac, from, to, seq, ack, flags, data });
            sent += 1;
        }
        attacker.flush();
        breathe(&echo, sent);
        if round % 1000 == 0 {
            // In the middle of it, too.
            exchange(&streams[round as usize / 1000 % 8], 100);
        }
    }
    let during = echo.counters.snapshot();
    assert_eq!(echo.seen.bytes.load(Ordering::Relaxed), bytes + 1200, "nothing forged arrived");
    for stream in &streams {
        exchange(stream, 1000);
    }
    eprintln!("spray: {} of {sent} segments arrived", during.segments_in_total);
    assert!(during.segments_in_total >= 80_000, "{during:?}");
    assert_eq!((during.resets_in_total, echo.seen.reset.load(Ordering::Relaxed)), (0, 0));
    assert!(during.drop_blind_rst_total > 10_000 && during.challenge_acks_total > 0, "{during:?}");
}
