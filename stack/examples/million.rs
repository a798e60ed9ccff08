//! A million established connections at once in one process, each answering once, live; then all
//! of them frozen; then each answering again, which thaws it. Says what memory the process really
//! has (VmRSS) at each step, and fails where it is more than it should be.
//!
//! `cargo run --release -p hioload-stack --example million [connections]`; needs 6 GiB.

#[path = "../benches/load/mod.rs"]
mod load;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hioload_stack::{FROZEN_BYTES, LIVE_BYTES};
use load::{BURST_MAX, Load, Order, Subject, Turns};

const IDLE: Duration = Duration::from_secs(5);
/// What a million may take.
const LIVE_MAX: u64 = 8 << 30;
const FROZEN_MAX: u64 = 200_000_000;

/// A figure of a file in /proc/self, in bytes.
fn proc(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or(": 0 kB");
    let kib = line.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Prints the process's memory, and returns it.
fn report(what: &str, load: &Load) -> u64 {
    let (rss, huge) = (proc("status", "VmRSS:"), proc("smaps_rollup", "AnonHugePages:"));
    let counters = load.stack.counters().snapshot();
    println!(
        "{what}: {} connections, {} of them frozen; VmRSS {:.1} MB, {:.1} MB of it transparent \
         hugepages; sockets and rings {:.1} MB",
        counters.connections,
        counters.frozen,
        rss as f64 / 1e6,
        huge as f64 / 1e6,
        counters.slab_bytes as f64 / 1e6,
    );
    rss
}

/// Each connection answers once.
fn echo(load: &mut Load, count: u32, what: &str) {
    let mut turns = Turns::new(count, Order::Random, BURST_MAX);
    let (mut done, mut took) = (0, Duration::ZERO);
    while done < count {
        let burst = turns.next();
        // The last burst is shorter: nobody speaks twice.
        let burst = &burst[..burst.len().min((count - done) as usize)];
        took += load.round(burst);
        done += burst.len() as u32;
    }
    let each = took.as_nanos() as f64 / f64::from(count);
    println!("{done} answers, each connection one, {what}: {each:.0} ns each");
}

fn main() -> ExitCode {
    let count = match std::env::args().nth(1).map(|arg| arg.parse::<u32>()) {
        None => 1_000_000,
        Some(Ok(count)) if count > 0 => count,
        Some(_) => {
            eprintln!("usage: million [connections]");
            return ExitCode::from(2);
        }
    };
    println!("by count, a connection: {LIVE_BYTES} B live, {FROZEN_BYTES} B frozen");
    println!("before: VmRSS {:.1} MB", proc("status", "VmRSS:") as f64 / 1e6);
    let start = Instant::now();
    let mut load = Load::new(count, true, Some(IDLE));
    println!("opened in {:.1} s", start.elapsed().as_secs_f64());
    echo(&mut load, count, "live");
    let live = report("live", &load);
    load.freeze(IDLE);
    let frozen = report("frozen", &load);
    let all_frozen = load.stack.counters().snapshot().frozen == u64::from(count);
    echo(&mut load, count, "thawed for it");
    report("thawed", &load);
    let allowed = |million: u64| million / 1_000_000 * u64::from(count).max(1_000_000);
    if !all_frozen || live > allowed(LIVE_MAX) || frozen > allowed(FROZEN_MAX) {
        eprintln!(
            "more than {LIVE_MAX} B live or {FROZEN_MAX} B frozen a million, or not all frozen"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
