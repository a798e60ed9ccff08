//! A 64-byte echo through the stack, server side only, by number of connections, beside smoltcp
//! alone. `examples/echo_cost.rs` measures the same interleaved, and up to a million.

mod load;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use load::bare::{Bare, Sets};
use load::{BURST_USUAL, Load, Order, Subject, Turns};

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("stack/echo64");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    let mut bench = |name: &str, count: u32, mut subject: Box<dyn Subject>| {
        let mut turns = Turns::new(count, Order::Random, BURST_USUAL);
        group.bench_function(BenchmarkId::new(name, count), |b| {
            b.iter_custom(|rounds| {
                let (mut total, mut done) = (Duration::ZERO, 0);
                while done < rounds {
                    let burst = turns.next();
                    total += subject.round(burst);
                    done += burst.len() as u64;
                }
                total.mul_f64(rounds as f64 / done as f64)
            });
        });
    };
    for count in [1u32, 100, 10_000, 100_000] {
        bench("tcp alone", count, Box::new(Load::new(count, true, None)));
        bench("all layers", count, Box::new(Load::new(count, false, None)));
        bench("smoltcp, a set each", count, Box::new(Bare::new(count, Sets::Each)));
    }
    for count in [1u32, 100, 1_000] {
        bench("smoltcp, one set", count, Box::new(Bare::new(count, Sets::One)));
    }
    group.finish();
}

criterion_group!(benches, echo);
criterion_main!(benches);
