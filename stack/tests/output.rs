//! When the user hears that there is room again for output.

mod common;

use common::*;
use hioload_stack::{ConnId, Event, RING_BYTES, Stack, StackConfig};
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn server() -> SocketAddr {
    SocketAddr::new(ip(false, 1), 80)
}

/// Reads nothing, and notes what it hears.
#[derive(Default)]
struct Hoard {
    opened: Vec<ConnId>,
    writable: Vec<ConnId>,
}

impl App for Hoard {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        match event {
            Event::Opened(id) => self.opened.push(id),
            Event::Readable(id) => stack.pause(id, true),
            Event::Writable(id) => self.writable.push(id),
            Event::Eof(_) | Event::Closed(..) => {}
        }
    }
}

#[test]
fn output_for_a_frozen_connection_waits_for_memory_and_the_user_hears_of_it() {
    let server_config = StackConfig { memory_max_bytes: 2 << 20, ..config(1) };
    let mut pair = Pair::new(1, Faults::default(), 1500, [config(0), server_config]);
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut hoard) = (Client::new(), Hoard::default());
    let idle = client.open(&mut pair.stacks[0], server(), 1, 100);
    client.conns.get_mut(&key(idle)).unwrap().hold = true;
    let counters = pair.stacks[1].counters();
    assert!(pair.run([&mut client, &mut hoard], MINUTE, |_| counters.snapshot().frozen == 1));
    // All the memory goes to others, who keep it: what came in on them isn't read.
    for salt in 0..600 {
        client.open(&mut pair.stacks[0], server(), salt, 100);
    }
    pair.pass([&mut client, &mut hoard], Duration::from_secs(2));
    assert_eq!(counters.snapshot().frozen, 1);
    assert!(counters.snapshot().drop_no_memory_total > 0);
    let frozen = hoard.opened[0];
    assert!(!pair.stacks[1].turn().1.send(frozen, b"late"), "there is no memory");
    pair.pass([&mut client, &mut hoard], Duration::from_secs(1));
    assert_eq!(hoard.writable, []);
    for &id in &hoard.opened[1..50] {
        pair.stacks[1].abort(id);
    }
    pair.pass([&mut client, &mut hoard], Duration::from_secs(1));
    assert_eq!(hoard.writable, [frozen]);
    assert!(pair.stacks[1].turn().1.send(frozen, b"late"));
}

/// Sends without end, and notes how full the ring was when it was asked for more.
#[derive(Default)]
struct Source {
    queued: Vec<usize>,
}

impl App for Source {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        let (Event::Opened(id) | Event::Writable(id)) = event else { return };
        if let Event::Writable(_) = event {
            self.queued.push(stack.stats(id).unwrap().send_queue);
        }
        stack.turn().1.send_some(id, &[7; 200_000]);
    }
}

/// Takes what comes.
#[derive(Default)]
struct Sink(usize);

impl App for Sink {
    fn event(&mut self, stack: &mut Stack<SimLink>, event: Event) {
        if let Event::Readable(id) = event {
            self.0 += stack.turn().0.take(id).map_or(0, |window| window.len());
        }
    }
}

#[test]
fn output_in_pieces_is_asked_for_before_the_ring_is_empty() {
    let faults = Faults { delay_us: 5_000, ..Faults::default() };
    let largest = RING_BYTES.len() as u8 - 1;
    let large = |side| StackConfig { ring_class: largest, ..config(side) };
    let mut pair = Pair::new(1, faults, 1500, [large(0), large(1)]);
    pair.stacks[1].listen(80).unwrap();
    pair.stacks[0].connect(server()).unwrap();
    let (mut sink, mut source) = (Sink::default(), Source::default());
    pair.pass([&mut sink, &mut source], Duration::from_secs(1));
    let full = source.queued.iter().filter(|&&queued| queued > 32_768).count();
    assert!(full * 2 > source.queued.len(), "{:?}", source.queued);
    // A ring a round trip of 10 ms, and no pauses between.
    assert!(sink.0 > 60 * RING_BYTES[2], "{} bytes in a second", sink.0);
}

#[test]
fn who_sends_without_rest_gets_the_largest_ring() {
    let faults = Faults { delay_us: 5_000, ..Faults::default() };
    let mut pair = Pair::new(1, faults, 1500, [config(0), config(1)]);
    pair.stacks[1].listen(80).unwrap();
    let id = pair.stacks[0].connect(server()).unwrap();
    let (mut source, mut sink) = (Source::default(), Sink::default());
    pair.pass([&mut source, &mut sink], Duration::from_secs(3));
    let stats = pair.stacks[0].stats(id).unwrap();
    assert_eq!(stats.ring_bytes, RING_BYTES[2], "{stats:?}");
}

#[test]
fn a_full_link_makes_each_connection_wait_and_is_no_reason_to_look_at_all_of_them_each_turn() {
    const CONNECTIONS: u64 = 400;
    let mut pair = Pair::plain();
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    for salt in 0..CONNECTIONS {
        client.open(&mut pair.stacks[0], server(), salt, 1_000);
    }
    // Turns that all of them have something to send in, and two frames leave.
    pair.wire.borrow_mut().room = 2;
    pair.run([&mut client, &mut echo], MINUTE, |_| false);
    assert_eq!((client.finished, client.broken), (CONNECTIONS as usize, 0));
    let counters = pair.stacks[0].counters().snapshot();
    assert!(counters.link_full_total >= CONNECTIONS / 2, "they did wait: {counters:?}");
    // A handful of segments each; two hundred turns of all of them would be 80,000.
    assert!(counters.link_full_total < CONNECTIONS * 20, "{counters:?}");
}
