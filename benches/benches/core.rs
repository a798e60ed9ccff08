//! What a worker's own tools cost: buffers, frames, rings, timers. All on one thread, so these are
//! floors: what crosses cores pays for the cache lines on top.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hioload_core::pool::{NodePool, PoolConfig, RECEIVE_UNIT};
use hioload_core::{LocalFrames, Now, TimerWheel, mpsc, spsc};

const BURST: u64 = 32;
const TIMERS: u32 = 100_000;
const MILLIS: u64 = 1_000_000;

fn pool(c: &mut Criterion) {
    let config = PoolConfig { node: None, budget_bytes: 64 << 20, huge: true };
    let pool = NodePool::new(config).expect("64 MiB for a benchmark").share();
    let mut group = c.benchmark_group("pool");
    for bytes in [512, RECEIVE_UNIT] {
        // Keeps the class's page from being the last one's.
        let _kept = pool.alloc(bytes);
        group.bench_function(BenchmarkId::new("alloc_free", bytes), |b| {
            b.iter(|| black_box(pool.alloc(black_box(bytes))));
        });
    }
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("alloc_free_32_of_512", |b| {
        let mut bufs = Vec::with_capacity(BURST as usize);
        b.iter(|| {
            bufs.extend((0..BURST).map(|_| pool.alloc(black_box(512))));
            bufs.clear();
        });
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let config = PoolConfig { node: None, budget_bytes: 64 << 20, huge: true };
    let pool = NodePool::new(config).expect("64 MiB for a benchmark").share();
    let mut group = c.benchmark_group("frame");
    group.bench_function("freeze_drop", |b| {
        b.iter(|| {
            drop(black_box(pool.alloc(512).map(|buf| buf.into_frame())));
            pool.collect()
        });
    });
    let frame = pool.alloc(512).map(|buf| buf.into_frame()).unwrap_or_default();
    group.bench_function("clone_drop", |b| b.iter(|| black_box(frame.clone())));
    let local = LocalFrames::new().adopt(frame.clone());
    group.bench_function("local_clone_drop", |b| b.iter(|| black_box(local.clone())));
    let locals = LocalFrames::new();
    group.bench_function("adopt_drop", |b| b.iter(|| black_box(locals.adopt(frame.clone()))));
    group.finish();
}

fn rings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(BURST));
    group.bench_function("spsc_push_pop_32", |b| {
        let (mut tx, mut rx) = spsc::channel(1024);
        b.iter(|| {
            for n in 0..BURST {
                let _ = tx.push(black_box(n));
            }
            while let Some(n) = rx.pop() {
                black_box(n);
            }
        });
    });
    group.bench_function("spsc_burst_32", |b| {
        let (mut tx, mut rx) = spsc::channel(1024);
        b.iter(|| {
            tx.push_burst(&mut (0..BURST));
            rx.pop_burst(BURST as usize, |n| {
                black_box(n);
            })
        });
    });
    group.bench_function("mpsc_send_pop_32", |b| {
        let (tx, mut rx) = mpsc::channel(1024);
        b.iter(|| {
            for n in 0..BURST {
                let _ = tx.try_send(black_box(n));
            }
            while let Some(n) = rx.pop() {
                black_box(n);
            }
        });
    });
    group.finish();
}

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    let at = |n: u32| Now::from_nanos(u64::from(n.wrapping_mul(2_654_435_761) >> 12) * MILLIS / 16);
    let mut wheel = TimerWheel::with_capacity(Now::ZERO, TIMERS as usize + 1);
    let keys: Vec<_> = (0..TIMERS).map(|n| wheel.insert(at(n), n)).collect();
    let mut n = 0;
    group.bench_function("insert_cancel_among_100k", |b| {
        b.iter(|| {
            n += 1;
            let key = wheel.insert(at(n), n);
            wheel.cancel(key)
        });
    });
    group.bench_function("reschedule_among_100k", |b| {
        b.iter(|| {
            n = n.wrapping_add(1);
            wheel.reschedule(&keys[n as usize % keys.len()], at(n))
        });
    });
    group.bench_function("next_deadline", |b| b.iter(|| black_box(&wheel).next_deadline()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("fire_and_insert_again", |b| {
        let mut wheel = TimerWheel::with_capacity(Now::ZERO, 1000);
        let mut now = Now::ZERO;
        let wait = Duration::from_secs(30);
        for n in 0..1000u64 {
            wheel.insert(Now::from_nanos(n * 30 * MILLIS), n as u32);
        }
        b.iter_custom(|rounds| {
            let start = std::time::Instant::now();
            let mut fired = 0;
            let mut due = Vec::with_capacity(1000);
            while fired < rounds {
                now = wheel.next_deadline().unwrap_or(now);
                wheel.advance(now, 1000, &mut |token| due.push(token));
                fired += due.len() as u64;
                for token in due.drain(..) {
                    wheel.insert(now.after(wait), token);
                }
            }
            start.elapsed()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700));
    targets = pool, frames, rings, wheel
}
criterion_main!(benches);
