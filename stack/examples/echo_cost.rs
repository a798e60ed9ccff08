//! What a 64-byte echo costs the server's TCP, by number of connections: round robin and random,
//! live and thawing, beside smoltcp with all sockets in one set.
//!
//! `cargo run --release -p hioload-stack --example echo_cost [connections ...]`

#[path = "../benches/load/mod.rs"]
mod load;

use std::time::{Duration, Instant};

use hioload_stack::{BURST, CONN_BYTES, HEAD_BYTES};
use load::{Load, naive::Naive, scatter};

/// Round trips that are measured each time.
const ROUNDS: u32 = 2_000_000;

fn nanos(total: Duration, rounds: u32) -> f64 {
    total.as_nanos() as f64 / f64::from(rounds)
}

fn main() {
    let counts: Vec<u32> = match std::env::args().skip(1).map(|arg| arg.parse()).collect() {
        Ok(counts) if !Vec::is_empty(&counts) => counts,
        Ok(_) => vec![1, 100, 10_000, 100_000, 1_000_000],
        Err(error) => return eprintln!("a number of connections each: {error}"),
    };
    println!("entry {CONN_BYTES} B, header {HEAD_BYTES} B a connection");
    for count in counts {
        echo(count);
        thaw(count);
        if count <= 10_000 {
            let mut naive = Naive::new(count);
            let rounds = (20_000_000 / count).clamp(100, 1_000_000);
            let total = (0..rounds).map(|step| naive.round(scatter(step, count))).sum();
            println!("{count:>9} one set, random   {:8.0} ns", nanos(total, rounds));
        }
    }
}

fn echo(count: u32) {
    let start = Instant::now();
    let mut load = Load::new(count, None);
    let bytes = load.stack.counters().snapshot();
    println!(
        "{count:>9} made in {:.2} s; {} MiB of slab, {} flow buckets",
        start.elapsed().as_secs_f64(),
        bytes.slab_bytes >> 20,
        bytes.flow_buckets
    );
    for (name, random) in [("round robin", false), ("random     ", true)] {
        let mut burst = [0u32; BURST];
        let len = BURST.min(count as usize);
        let rounds = ROUNDS.max(count);
        let mut total = Duration::ZERO;
        let mut step = 0;
        let mut best = f64::MAX;
        // Five stretches: the best says what it costs, the mean what the machine made of it.
        for _ in 0..5 {
            let mut stretch = Duration::ZERO;
            let end = step + rounds / 5;
            let begin = step;
            while step < end {
                for slot in &mut burst[..len] {
                    *slot = if random { scatter(step, count) } else { step % count };
                    step += 1;
                }
                stretch += load.round(&burst[..len]);
            }
            best = best.min(nanos(stretch, step - begin));
            total += stretch;
        }
        println!("{count:>9} echo, {name} {:8.0} ns, best fifth {best:.0}", nanos(total, step));
    }
}

fn thaw(count: u32) {
    let idle = Duration::from_secs(5);
    let mut load = Load::new(count, Some(idle));
    load.freeze(idle);
    let frozen = load.stack.counters().snapshot();
    let mut burst = [0u32; BURST];
    let len = BURST.min(count as usize);
    let mut total = Duration::ZERO;
    let mut step = 0;
    while step < count {
        let take = len.min((count - step) as usize);
        for slot in &mut burst[..take] {
            *slot = step;
            step += 1;
        }
        total += load.round(&burst[..take]);
    }
    println!(
        "{count:>9} thaw and echo         {:8.0} ns; frozen {} with {} MiB of slab, thaws {}",
        nanos(total, step),
        frozen.frozen,
        frozen.slab_bytes >> 20,
        load.stack.counters().snapshot().thaws_total
    );
}
