//! A warm worker allocates nothing on the heap for a message.

use hioload_benches::{Rig, client_frames, echo};
use hioload_pipeline::{Handler, Kind, on_message};

/// Heap allocations of `rounds` rounds of a warm rig.
fn allocations<H: Handler>(handler: H, sessions: usize, frames: &[u8], rounds: usize) -> u64 {
    let mut rig = Rig::new(handler, sessions);
    for _ in 0..64 {
        rig.round(frames, |reply| assert!(!reply.is_empty()));
    }
    allocation_counter::measure(|| {
        for _ in 0..rounds {
            rig.round(frames, |reply| assert!(!reply.is_empty()));
        }
    })
    .count_total
}

#[test]
fn an_echo_allocates_nothing() {
    for (sessions, depth, payload) in [(1, 1, 20), (1, 16, 20), (50, 1, 1024), (4, 2, 16 * 1024)] {
        let frames = client_frames(payload, depth);
        let count = allocations(echo(), sessions, &frames, 100);
        assert_eq!(count, 0, "{sessions} sessions, depth {depth}, {payload} B");
    }
}

#[test]
fn a_message_in_parts_allocates_nothing() {
    // 200 KiB need four turns: the message is gathered in pool buffers, and leaves from there.
    let frames = client_frames(200 * 1024, 1);
    assert_eq!(allocations(echo(), 2, &frames, 20), 0);
}

#[test]
fn a_built_reply_allocates_nothing() {
    let reverse = on_message(|message, context| {
        let (session, len) = (message.session(), message.len());
        let _ = context.build(session, Kind::Binary, len, |room| {
            room.copy_from_slice(message.payload());
            room.reverse();
        });
    });
    assert_eq!(allocations(reverse, 8, &client_frames(100, 4), 100), 0);
}

#[test]
fn a_broadcast_allocates_nothing() {
    let fan_out = on_message(|message, context| {
        context.broadcast(message.kind(), message.payload(), None);
    });
    assert_eq!(allocations(fan_out, 16, &client_frames(100, 1), 50), 0);
}
