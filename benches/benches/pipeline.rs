//! Whole echoes through the pipeline over the in-memory backend: what decode, batch, handler and
//! reply cost together. The backend's own copying is in the figures.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hioload_benches::{Rig, client_frames, echo};

fn echoes(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    for (sessions, depth, payload) in
        [(1, 1, 20), (1, 16, 20), (50, 1, 20), (50, 1, 1024), (1, 1, 16 * 1024)]
    {
        let frames = client_frames(payload, depth);
        let mut rig = Rig::new(echo(), sessions);
        group.throughput(Throughput::Elements((sessions * depth) as u64));
        group.bench_function(format!("{payload}B/{sessions}_sessions/depth_{depth}"), |b| {
            b.iter(|| rig.round(&frames, |reply| assert!(!reply.is_empty())));
        });
    }
    group.finish();
}

criterion_group!(benches, echoes);
criterion_main!(benches);
