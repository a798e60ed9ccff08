//! A 64-byte echo through the stack, server side only, by number of connections.

mod load;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hioload_stack::BURST;
use load::{Load, naive::Naive, scatter};

fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("stack/echo64");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for count in [1u32, 100, 10_000, 100_000] {
        let mut load = Load::new(count, None);
        let len = BURST.min(count as usize);
        let mut step = 0;
        group.bench_function(BenchmarkId::new("random", count), |b| {
            b.iter_custom(|rounds| {
                let mut total = std::time::Duration::ZERO;
                let mut left = rounds;
                while left > 0 {
                    let take = len.min(left as usize);
                    let mut burst = [0u32; BURST];
                    for slot in &mut burst[..take] {
                        *slot = scatter(step, count);
                        step = step.wrapping_add(1) % count;
                    }
                    total += load.round(&burst[..take]);
                    left -= take as u64;
                }
                total
            });
        });
    }
    for count in [1u32, 100, 1_000] {
        let mut naive = Naive::new(count);
        let mut step = 0;
        group.bench_function(BenchmarkId::new("one set", count), |b| {
            b.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        step = (step + 1) % count;
                        naive.round(scatter(step, count))
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, echo);
criterion_main!(benches);
