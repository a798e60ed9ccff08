//! What a 64-byte echo costs the server's TCP, by number of connections, in turn and at random;
//! what a freeze and a thaw cost; beside smoltcp alone.
//!
//! `echo_cost [SUBJECT ...] [CONNECTIONS ...]` measures time: subjects interleaved, the median of
//! many stretches. Without subjects it measures all, and freezing and thawing as well.
//!
//! `echo_cost count SUBJECT CONNECTIONS ORDER ROUNDS` runs without a clock, for callgrind with
//! `--toggle-collect='*::measured'` (`thaw_all` for thaws). Subjects:
//!
//! - `stack`: TCP alone: from the link's burst of frames to the link's burst of frames, checksums
//!   offloaded.
//! - `layers`: the same with all checksums in software.
//! - `smoltcp`: as `stack`, but without the fast path: each segment goes through smoltcp.
//! - `floor`: smoltcp with a set for each socket, checksums ignored, no look-up, no Ethernet, no
//!   timers: the least that this much smoltcp costs.
//! - `set`: smoltcp as its manual has it, all sockets in one set.
//! - `thaw`: a freeze and a thaw, each alone.

#[path = "../benches/load/mod.rs"]
mod load;

use std::time::Duration;

use hioload_stack::{CONN_BYTES, HEAD_BYTES, StackConfig};
use load::bare::{Bare, Sets};
use load::{BURST_USUAL, Load, Order, Subject, Turns};

/// Stretches that each subject is measured in, in turn with the others.
const STRETCHES: usize = 15;
const IDLE: Duration = Duration::from_secs(5);
const SUBJECTS: [&str; 6] = ["stack", "layers", "smoltcp", "floor", "set", "thaw"];
/// Where one set is still bearable.
const ONE_SET_MAX: u32 = 10_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "count") {
        return count(&args[1..]);
    }
    let (numbers, names): (Vec<&str>, Vec<&str>) =
        args.iter().map(String::as_str).partition(|arg| arg.starts_with(|c: char| c.is_numeric()));
    let counts: Vec<u32> = match numbers.iter().map(|arg| arg.parse()).collect() {
        Ok(counts) if !Vec::is_empty(&counts) => counts,
        Ok(_) => vec![1, 100, 10_000, 100_000, 1_000_000],
        Err(error) => return eprintln!("a number of connections each: {error}"),
    };
    if let Some(name) = names.iter().find(|name| !SUBJECTS.contains(name)) {
        return eprintln!("{name} is none of {SUBJECTS:?}");
    }
    println!("entry {CONN_BYTES} B, header {HEAD_BYTES} B a connection");
    println!(
        "bursts of {BURST_USUAL}; ns a round trip in the median burst: median of {STRETCHES} stretches \
         [quartiles], least, mean of all bursts"
    );
    for count in counts {
        time(count, &names);
        if names.is_empty() || names.contains(&"thaw") {
            freeze_and_thaw(count);
        }
    }
}

/// One subject's stretches.
struct Row {
    name: &'static str,
    subject: Box<dyn Subject>,
    turns: Turns,
    /// Of the median burst, and mean.
    nanos: Vec<f64>,
    means: Vec<f64>,
}

fn make(name: &str, count: u32) -> Option<Box<dyn Subject>> {
    Some(match name {
        "stack" => Box::new(Load::new(count, true, None)),
        "layers" => Box::new(Load::new(count, false, None)),
        "smoltcp" => {
            let config =
                StackConfig { fast_path: false, freeze_after: None, ..StackConfig::default() };
            Box::new(Load::with(count, true, config))
        }
        "floor" => Box::new(Bare::new(count, Sets::Each)),
        "set" => Box::new(Bare::new(count, Sets::One)),
        _ => return None,
    })
}

fn time(count: u32, only: &[&str]) {
    // Three subjects of a million connections don't fit in most machines at once.
    let together: &[&[&'static str]] = match count {
        0..=200_000 => &[&["floor", "stack", "layers", "smoltcp"]],
        _ => &[&["floor", "stack"], &["layers", "smoltcp"]],
    };
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    for names in together {
        let row = |name: &'static str| {
            let subject = make(name, count).expect("named above");
            let turns = Turns::new(count, Order::RoundRobin, BURST_USUAL);
            Row { name, subject, turns, nanos: Vec::new(), means: Vec::new() }
        };
        let mut rows: Vec<Row> =
            names.iter().copied().filter(|name| wanted(name)).map(row).collect();
        for order in [Order::RoundRobin, Order::Random] {
            for row in &mut rows {
                row.turns = Turns::new(count, order, BURST_USUAL);
                row.nanos.clear();
                row.means.clear();
                stretch(row, 20_000);
            }
            for _ in 0..STRETCHES {
                for row in &mut rows {
                    let (median, mean) = stretch(row, 200_000);
                    row.nanos.push(median);
                    row.means.push(mean);
                }
            }
            rows.iter().for_each(|row| report(count, order, row, &rows[0]));
        }
    }
    if count <= ONE_SET_MAX && wanted("set") {
        let mut subject = Bare::new(count, Sets::One);
        let mut turns = Turns::new(count, Order::Random, BURST_USUAL);
        let rounds = (4_000_000 / count).clamp(256, 200_000);
        let (median, mean) = run(&mut subject, &mut turns, rounds);
        println!("{count:>9} random     set     {median:8.0}, mean {mean:.0}");
    }
}

fn stretch(row: &mut Row, rounds: u32) -> (f64, f64) {
    run(row.subject.as_mut(), &mut row.turns, rounds)
}

/// Nanoseconds a round trip in the median burst, and in the mean, over at least so many. Where
/// other work shares the core, the mean is that work's, too; the median burst hardly is.
fn run(subject: &mut dyn Subject, turns: &mut Turns, rounds: u32) -> (f64, f64) {
    let (mut bursts, mut total, mut done) = (Vec::new(), Duration::ZERO, 0);
    while done < rounds {
        let burst = turns.next();
        let took = subject.round(burst);
        bursts.push(took.as_nanos() as f64 / burst.len() as f64);
        total += took;
        done += burst.len() as u32;
    }
    (quartiles(&bursts)[1], total.as_nanos() as f64 / f64::from(done))
}

fn report(count: u32, order: Order, row: &Row, floor: &Row) {
    let [q1, median, q3] = quartiles(&row.nanos);
    let least = row.nanos.iter().copied().fold(f64::MAX, f64::min);
    print!(
        "{count:>9} {:10} {:7} {median:8.0} [{q1:.0}-{q3:.0}], {least:.0}, mean {:.0}",
        order_name(order),
        row.name,
        quartiles(&row.means)[1],
    );
    if floor.name == "floor" && row.name != "floor" {
        let ratios: Vec<f64> = row.nanos.iter().zip(&floor.nanos).map(|(a, b)| a / b).collect();
        print!("; {:.2} x floor", quartiles(&ratios)[1]);
    }
    println!();
}

fn order_name(order: Order) -> &'static str {
    match order {
        Order::RoundRobin => "in turn",
        Order::Random => "random",
    }
}

fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}

/// Freezing with its timer, and thawing alone.
fn freeze_and_thaw(count: u32) {
    let mut load = Load::new(count, true, Some(IDLE));
    // The slab is returned when all of them freeze and mapped again page by page: at large numbers
    // the kernel's zeroing of pages is in the mean, but hardly in the median burst.
    let (mut frozen, mut thawed, mut froze) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..if count < 10_000 { 200 } else { 3 } {
        froze += load.freeze(IDLE);
        let counters = load.stack.counters().snapshot();
        frozen.push(counters.freezes_total);
        assert_eq!(counters.frozen, u64::from(count));
        let mut turns = Turns::new(count, Order::Random, BURST_USUAL);
        let mut done = 0;
        while done < count {
            // The last burst is shorter: nobody is thawed twice.
            let burst = turns.next();
            let burst = &burst[..burst.len().min((count - done) as usize)];
            let took = load.thaw(burst);
            thawed.push(took.as_nanos() as f64 / burst.len() as f64);
            done += burst.len() as u32;
            load.settle();
        }
    }
    let freezes = *frozen.last().expect("at least one round") as f64;
    let [q1, median, q3] = quartiles(&thawed);
    println!("{count:>9} freeze {:.0}", froze.as_nanos() as f64 / freezes);
    println!("{count:>9} thaw   {median:.0} [{q1:.0}-{q3:.0}] in the median burst");
}

fn count(args: &[String]) {
    let usage = || eprintln!("echo_cost count stack|layers|floor|set|thaw N turn|random ROUNDS");
    let [name, connections, order, rounds] = args else { return usage() };
    let (Ok(count), Ok(rounds)) = (connections.parse(), rounds.parse()) else { return usage() };
    let order = if order == "random" { Order::Random } else { Order::RoundRobin };
    let mut turns = Turns::new(count, order, BURST_USUAL);
    let mut done = 0;
    if name == "thaw" {
        let mut load = Load::new(count, true, Some(IDLE));
        while done < rounds {
            load.freeze(IDLE);
            for _ in 0..count.div_ceil(BURST_USUAL as u32) {
                let burst = turns.next();
                load.thaw(burst);
                done += burst.len() as u32;
                load.settle();
            }
        }
    } else {
        let Some(mut subject) = make(name, count) else { return usage() };
        while done < rounds {
            let burst = turns.next();
            subject.round(burst);
            done += burst.len() as u32;
        }
    }
    println!("{done}");
}
