//! What the protocol costs by itself, in memory: unmasking against a copy in the same run, a
//! frame parsed and unmasked, UTF-8, the opening handshake. Ratios are what counts: times move
//! with the machine, and the copy of the same run is the floor.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hioload_ws_proto::handshake::{HeaderSlots, ResponseHead, Scanner, parse_request};
use hioload_ws_proto::mask::{self, Kernel};
use hioload_ws_proto::{Decoder, Item, Limits, Opcode, Role, Rules, Utf8Stream, encode};
use std::hint::black_box;

const SIZES: [usize; 5] = [16, 125, 1024, 16 * 1024, 64 * 1024];
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const RULES: Rules = Rules::new(Role::Server, Limits { max_frame: 1 << 20, max_message: 1 << 20 });

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for size in SIZES {
        let source = vec![0x5A; size];
        let mut target = vec![0xA5; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(&mut target[..]).copy_from_slice(black_box(&source)));
        });
        group.bench_function(BenchmarkId::new("best", size), |b| {
            b.iter(|| mask::apply(black_box(KEY), 0, black_box(&mut target)));
        });
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
            group.bench_function(BenchmarkId::new(format!("{kernel:?}"), size), |b| {
                b.iter(|| mask::apply_with(kernel, black_box(KEY), 0, black_box(&mut target)));
            });
        }
    }
    group.finish();
}

/// A masked frame as it lies in a receive buffer. Decoding it in place masks it back and forth,
/// so the same bytes serve every round; a binary frame's payload is never judged.
fn frame(size: usize) -> Vec<u8> {
    let mut frame = vec![0; size + encode::MAX_HEADER];
    let payload = vec![b'x'; size];
    let len = encode::encode_into(&mut frame, Opcode::Binary, &payload, Some(KEY));
    frame.truncate(len.expect("the buffer has room for the header"));
    frame
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse and unmask");
    for size in SIZES {
        let mut bytes = frame(size);
        let mut decoder = Decoder::new();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("one frame", size), |b| {
            b.iter(|| {
                let mut window = black_box(&mut bytes[..]);
                match decoder.next(&RULES, &mut window) {
                    Ok(Some(Item::Message { room, head, .. })) => black_box(room.len() - head),
                    other => panic!("expected a message, not {other:?}"),
                }
            });
        });
    }
    let mut bytes: Vec<u8> = (0..32).flat_map(|_| frame(16)).collect();
    let mut decoder = Decoder::new();
    group.throughput(Throughput::Elements(32));
    group.bench_function("32 frames of 16", |b| {
        b.iter(|| {
            let mut window = black_box(&mut bytes[..]);
            while let Ok(Some(item)) = decoder.next(&RULES, &mut window) {
                if let Item::Message { room, .. } = item {
                    black_box(room.len());
                }
            }
        });
    });
    group.finish();
}

fn utf8(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8");
    for (name, pattern) in [("ascii", "plain text "), ("mixed", "Grüße, мир, 世界, 🦀 ")] {
        for size in [125, 1024, 16 * 1024] {
            let text: String = pattern.chars().cycle().take(size).collect();
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    let mut stream = Utf8Stream::new();
                    stream.push(black_box(text.as_bytes())).and_then(|()| stream.finish())
                });
            });
        }
    }
    group.finish();
}

/// What a browser sends.
const REQUEST: &[u8] = b"GET /chat?room=1 HTTP/1.1\r\nHost: localhost:9001\r\n\
    Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/124.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: http://localhost:9001\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    group.bench_function("scan", |b| {
        b.iter(|| Scanner::new().feed(black_box(REQUEST), 8192));
    });
    let mut slots = HeaderSlots::new();
    group.bench_function("parse", |b| {
        b.iter(|| parse_request(black_box(REQUEST), &mut slots).is_ok());
    });
    let mut out = [0; 512];
    group.bench_function("parse and answer", |b| {
        b.iter(|| {
            let request = parse_request(black_box(REQUEST), &mut slots)?;
            Ok::<_, hioload_ws_proto::handshake::Refusal>(
                ResponseHead::new(&request).write_into(&mut out),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, unmask, decode, utf8, handshake);
criterion_main!(benches);
