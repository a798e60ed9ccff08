//! Two stacks and a hostile wire, from a seed: every byte arrives in order at both ends, every
//! connection ends as both sides meant it, and all memory is given back.
//!
//! `HIOLOAD_SEED=n` replays one seed; `HIOLOAD_SEEDS=n` runs as many, from that one or from 0;
//! `HIOLOAD_TRACE=1` shows the segments.

mod common;

use common::*;
use hioload_core::Now;
use hioload_stack::StackConfig;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

/// Seeds of a run that isn't told otherwise.
const SEEDS: u64 = 3000;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn faults(rng: &mut Rng) -> Faults {
    let mut rate = |most: u64| if rng.percent(50) { rng.below(most + 1) } else { 0 };
    Faults {
        loss: rate(200),
        duplicate: rate(200),
        corrupt: rate(100),
        reorder: rate(500),
        delay_us: rate(50_000),
    }
}

fn random_config(side: usize, rng: &mut Rng, vlan: Option<u16>) -> StackConfig {
    StackConfig {
        vlan,
        ring_class: rng.pick(&[0, 0, 1, 2]),
        freeze_after: rng.pick(&[
            None,
            Some(Duration::ZERO),
            Some(Duration::from_millis(1)),
            Some(Duration::from_millis(300)),
            Some(Duration::from_secs(5)),
        ]),
        fast_path: rng.pick(&[true, true, false]),
        half_open_max: rng.pick(&[0, 1, 4096]),
        time_wait: Duration::from_secs(rng.pick(&[1, 60])),
        user_timeout: Duration::from_secs(600),
        handshake_timeout: Duration::from_secs(600),
        fin_timeout: Duration::from_secs(600),
        neighbors_max: rng.pick(&[1, 512]),
        ..config(side)
    }
}

/// What a path may let through, in bytes; 0 is whatever the link does.
const PATHS: &[usize] = &[0, 0, 0, 576, 1280, 1399, 1492];

/// One run; returns how much was sent, and when it was over. Panics where something is wrong.
fn simulate(seed: u64) -> (Now, [u64; 4]) {
    let mut rng = Rng(seed);
    let faults = faults(&mut rng);
    let mtu = rng.pick(&[1280, 1500, 1500, 9000]);
    let vlan = rng.pick(&[None, None, Some(7)]);
    let configs = [random_config(0, &mut rng, vlan), random_config(1, &mut rng, vlan)];
    let mut pair = Pair::new(rng.next(), faults, mtu, configs);
    pair.unsteady_ns = rng.pick(&[0, 0, 1_000, 3_000_000_000]);
    // A window of some bytes a round trip carries little: less is sent then.
    let window_max = rng.pick(&[0, 0, 0, 0, 1000, 100, 1]);
    {
        let mut wire = pair.wire.borrow_mut();
        wire.room = rng.pick(&[2, 64, 1024]);
        wire.largest = rng.pick(PATHS);
        wire.window_max = window_max;
    }
    // Any origin of the clock will do.
    let bits = rng.pick(&[10, 40, 55]);
    pair.wire.borrow_mut().now = Now::from_nanos(rng.below(1 << bits));
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    let count = 1 + rng.below(5);
    let (mut ids, mut sent) = (Vec::new(), 0);
    // The stack reads the clock when it is polled.
    pair.turn(0, &mut Idle);
    for n in 0..count {
        let most = rng.pick(&[10, 1000, 20_000, 60_000]);
        let total = rng.below(most) as usize;
        let to = SocketAddr::new(ip(rng.percent(50), 1), 80);
        let id = client.open(&mut pair.stacks[0], to, seed ^ n, total);
        let conn = client.conns.get_mut(&key(id)).unwrap();
        conn.piece = 1 + rng.below(3000) as usize;
        conn.lockstep = rng.percent(50);
        conn.total = conn.total.min(conn.piece * 300);
        if window_max > 0 {
            conn.total = conn.total.min(usize::from(window_max) * 30);
        }
        sent += conn.total;
        ids.push(id);
    }
    let end = pair.now().after(Duration::from_secs(3000));
    let (mut steps, mut alone_since) = (0, None);
    while !client.conns.is_empty() || !echo.conns.is_empty() {
        steps += 1;
        assert!(
            steps < 200_000 && pair.now() < end,
            "stuck: {:?} {:?} {faults:?}",
            client.conns,
            echo.conns
        );
        // Where the clock stands still, so does that of initial sequence numbers, and duplicates of
        // a handshake may open a connection once more that was closed (seed 115700). Nobody speaks
        // on it: its user gives it up.
        if pair.unsteady_ns > 0 && client.conns.is_empty() {
            let since = *alone_since.get_or_insert(pair.now());
            if pair.now() > since.after(Duration::from_secs(700)) {
                for &(slot, generation) in echo.conns.keys() {
                    pair.stacks[1].abort(hioload_stack::ConnId { slot, generation });
                }
            }
        }
        let side = rng.below(2) as usize;
        match side {
            0 => pair.turn(0, &mut client),
            _ => pair.turn(1, &mut echo),
        }
        if rng.percent(2) {
            // The wire, or a user, changes its mind.
            match rng.below(6) {
                0 => pair.wire.borrow_mut().set_faults(self::faults(&mut rng)),
                1 => {
                    pair.wire.borrow_mut().now = pair.now().after(Duration::from_secs(rng.below(7)))
                }
                2 => {
                    let id = ids[rng.below(count) as usize];
                    if let Some(conn) = client.conns.get_mut(&key(id)) {
                        conn.hold = !conn.hold;
                    }
                }
                3 => pair.wire.borrow_mut().largest = rng.pick(PATHS),
                4 => {
                    let id = ids[rng.below(count) as usize];
                    if let Some(conn) = client.conns.get_mut(&key(id)) {
                        conn.paused = !conn.paused;
                        pair.stacks[0].pause(id, conn.paused);
                    }
                }
                _ => {}
            }
        }
        if steps % 16 == 0 {
            for id in &ids {
                let Some(conn) = client.conns.get_mut(&key(*id)) else { continue };
                if conn.hold && rng.percent(20) {
                    conn.hold = false;
                }
                if conn.paused && rng.percent(20) {
                    conn.paused = false;
                    pair.stacks[0].pause(*id, false);
                }
                if !conn.hold && conn.opened {
                    client.push(&mut pair.stacks[0], *id);
                    let conn = &client.conns[&key(*id)];
                    if conn.received == conn.total {
                        pair.stacks[0].close(*id);
                    }
                }
            }
        }
        if rng.percent(60) {
            pair.advance(Duration::from_secs(1));
        }
    }
    let cookies = pair.stacks[1].counters().snapshot().cookies_out_total;
    // A cookie runs out where its ACK is lost and the client then says nothing for minutes.
    let excused = if cookies > 0 { client.unserved } else { 0 };
    if (client.finished + excused, client.broken) != (count as usize, 0) {
        let [client, server] = pair.stacks.each_ref().map(|stack| stack.counters().snapshot());
        panic!("broken: {faults:?} echo {:?}\n{client:?}\n{server:?}", echo.closed);
    }
    if excused == 0 {
        assert_eq!(echo.bytes, sent, "each byte reached the other side's user once");
    }
    // Everything is given back once the last records have run out.
    pair.wire.borrow_mut().set_faults(Faults::default());
    pair.pass([&mut Idle, &mut Idle], Duration::from_secs(700));
    for stack in &pair.stacks {
        let counters = stack.counters().snapshot();
        let left = (counters.connections, counters.half_open, counters.frozen, counters.time_wait);
        assert_eq!(left, (0, 0, 0, 0));
        assert!(counters.slab_bytes <= 3 * (2 << 20), "a chunk a class is kept");
    }
    let [a, b] = pair.stacks.each_ref().map(|stack| stack.counters().snapshot());
    (pair.now(), [a.frames_in_total, a.frames_out_total, b.frames_in_total, b.segments_out_total])
}

#[test]
fn every_byte_arrives_in_order_whatever_the_wire_does() {
    let (seed, seeds) = (env("HIOLOAD_SEED"), env("HIOLOAD_SEEDS"));
    let first = seed.unwrap_or(0);
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { SEEDS });
    let workers = thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for seed in (first..first + count).skip(worker).step_by(workers) {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
                        eprintln!("seed {seed} failed; HIOLOAD_SEED={seed} replays it");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

#[test]
fn a_seed_replays_frame_by_frame() {
    for seed in [3, 14, 15, 92] {
        let [first, second] = [0, 1].map(|_| simulate(seed));
        assert_eq!(first, second, "seed {seed}");
    }
}
