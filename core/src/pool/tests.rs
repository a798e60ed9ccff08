//! Tests of the pool as a whole: buffers, frames, shares and their node.

use std::sync::mpsc;
use std::thread;

use super::*;
use crate::frame::Frame;

const MIB: u64 = 1 << 20;

fn node(budget_bytes: u64) -> NodePool {
    NodePool::new(PoolConfig { node: None, budget_bytes, huge: true }).unwrap()
}

#[test]
fn a_buffer_is_of_the_smallest_class_that_fits() {
    let pool = node(64 * MIB).share();
    for (bytes, capacity) in
        [(0, 512), (512, 512), (513, 1024), (RECEIVE_UNIT, RECEIVE_UNIT), (CLASS_MAX, CLASS_MAX)]
    {
        assert_eq!(pool.alloc(bytes).unwrap().capacity(), capacity);
    }
    let big = pool.alloc(CLASS_MAX + 1).unwrap();
    assert!(big.capacity() > CLASS_MAX);
    assert_eq!(pool.stats().fallback, 1);
}

#[test]
fn a_range_is_filled_and_emptied() {
    let pool = node(8 * MIB).share();
    let mut buf = pool.alloc(512).unwrap();
    assert!(buf.is_empty() && buf.tail_room() == 512);
    buf.set_range(10, 0);
    assert_eq!(buf.append(b"hello"), 5);
    buf.trim_front(2);
    assert_eq!((buf.start(), buf.data()), (12, &b"llo"[..]));
    buf.data_mut()[0] = b'L';
    assert_eq!(buf.append(&[7; 600]), 512 - 15);
    assert_eq!((buf.tail_room(), buf.append(b"x")), (0, 0));
    buf.trim_front(usize::MAX);
    assert_eq!((buf.start(), buf.len()), (512, 0));
    buf.clear();
    buf.spare_mut()[..2].copy_from_slice(b"ab");
    buf.commit(2);
    assert_eq!(buf.data(), b"ab");
    assert_eq!(buf.full_mut().len(), 512);
}

#[test]
#[should_panic(expected = "does not lie in a buffer")]
fn a_range_outside_of_the_buffer_is_refused() {
    node(8 * MIB).share().alloc(512).unwrap().set_range(usize::MAX, 2);
}

#[test]
#[should_panic(expected = "bytes behind")]
fn more_than_the_spare_bytes_cannot_be_committed() {
    node(8 * MIB).share().alloc(512).unwrap().commit(513);
}

#[test]
fn buffers_never_overlap() {
    let pool = node(16 * MIB).share();
    for bytes in CLASSES {
        let mut bufs: Vec<_> = (0..9u8).map(|_| pool.alloc(bytes).unwrap()).collect();
        for (i, buf) in bufs.iter_mut().enumerate() {
            buf.full_mut().fill(i as u8);
        }
        for (i, buf) in bufs.iter_mut().enumerate() {
            assert!(buf.full_mut().iter().all(|&b| b == i as u8));
        }
        drop(bufs);
        pool.trim();
    }
}

#[test]
fn the_life_cycle_is_counted() {
    let node = node(64 * MIB);
    let pool = node.share();
    let first = pool.alloc(1000).unwrap();
    let second = pool.alloc(1000).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.miss, stats.hit, stats.taken), (1, 1, 2));
    assert_eq!((stats.lent, stats.lent_bytes, stats.pages), (2, 2048, 1));
    drop(first);
    let frame = second.into_frame();
    assert_eq!(pool.stats().lent, 1);
    drop(frame);
    let stats = pool.stats();
    assert_eq!((stats.returned, stats.lent, stats.lent_bytes, stats.pages), (2, 0, 0, 1));
    assert_eq!(node.used_bytes(), 2 * MIB);
    pool.trim();
    assert_eq!((pool.stats().pages, node.used_bytes()), (0, 0));
}

#[test]
fn a_spent_budget_refuses_and_recovers() {
    let node = node(4 * MIB);
    let pool = node.share();
    let mut bufs: Vec<_> = std::iter::from_fn(|| pool.alloc(RECEIVE_UNIT)).collect();
    assert_eq!(bufs.len(), 64);
    assert_eq!(node.mapped_bytes(), 4 * MIB);
    assert!(pool.alloc(512).is_none() && pool.alloc(2 << 20).is_none());
    assert_eq!(pool.stats().failed, 3);
    assert_eq!(node.pressure(), Pressure::CloseNewest);
    bufs.truncate(32);
    assert!(pool.alloc(512).is_some(), "a page emptied of one class serves another");
    drop(bufs);
    assert!(pool.alloc(3 << 20).is_some(), "pages at rest make room for a dedicated buffer");
    assert!(node.mapped_bytes() <= 4 * MIB);
    assert_eq!(pool.stats().lent, 0);
}

#[test]
fn pressure_rises_at_80_90_and_95_percent() {
    let node = node(40 * MIB);
    let pool = node.share();
    let mut bufs = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..20 {
        bufs.extend([pool.alloc(CLASS_MAX).unwrap(), pool.alloc(CLASS_MAX).unwrap()]);
        seen.push(node.pressure());
    }
    let expected = |used: usize| match used {
        0..16 => Pressure::None,
        16..18 => Pressure::Refuse,
        18 => Pressure::CloseSlow,
        _ => Pressure::CloseNewest,
    };
    assert_eq!(seen, (1..=20).map(expected).collect::<Vec<_>>());
    drop(bufs);
    assert_eq!(node.pressure(), Pressure::None);
}

#[test]
fn empty_pages_but_one_a_class_go_to_whoever_needs_them() {
    let node = node(16 * MIB);
    let (first, second) = (node.share(), node.share());
    let bufs: Vec<_> = (0..5).flat_map(|_| [first.alloc(CLASS_MAX), first.alloc(1)]).collect();
    assert_eq!(first.stats().pages, 4);
    drop(bufs);
    assert_eq!(first.stats().pages, 2);
    let mapped_bytes = node.mapped_bytes();
    let others: Vec<_> = (0..4).map(|_| second.alloc(CLASS_MAX).unwrap()).collect();
    assert_eq!(node.mapped_bytes(), mapped_bytes, "no new memory for them");
    drop(others);
}

#[test]
fn a_load_at_the_brink_of_a_page_does_not_move_pages() {
    let node = node(16 * MIB);
    let pool = node.share();
    let _full = (pool.alloc(CLASS_MAX).unwrap(), pool.alloc(CLASS_MAX).unwrap());
    for _ in 0..100 {
        assert!(pool.alloc(CLASS_MAX).is_some());
    }
    assert_eq!(pool.stats().miss, 2);
}

#[test]
fn a_frame_is_the_buffer_itself_and_goes_home_from_any_thread() {
    let node = node(8 * MIB);
    let pool = node.share();
    let mut buf = pool.alloc(4096).unwrap();
    // No room left in the buffer at all.
    buf.set_range(0, 4096);
    buf.data_mut().fill(9);
    let at = buf.data().as_ptr();
    let frame = buf.into_frame();
    assert_eq!(frame.as_bytes().as_ptr(), at);
    assert_eq!(frame, Frame::from_slice(&[9; 4096]));
    let copies: Vec<_> = (0..3).map(|_| frame.clone()).collect();
    assert_eq!(frame.references(), 4);
    thread::scope(|scope| {
        for copy in copies {
            scope.spawn(move || assert!(copy.as_bytes().iter().all(|&b| b == 9)));
        }
        scope.spawn(move || drop(frame));
    });
    assert_eq!(pool.collect(), 1);
    assert_eq!(pool.stats().lent, 0);
    assert_eq!(pool.alloc(4096).unwrap().full_mut().as_ptr(), at);
}

#[test]
fn frames_outlive_their_share_and_their_node() {
    let node = node(16 * MIB);
    let pool = node.share();
    let frame_of = |bytes: usize| {
        let mut buf = pool.alloc(bytes).unwrap();
        buf.append(b"still here");
        buf.into_frame()
    };
    let frames = [frame_of(600), frame_of(600), frame_of(3 << 20), frame_of(70_000)];
    drop(pool);
    // A page each for two classes, and the dedicated 4 MiB.
    assert_eq!(node.used_bytes(), 8 * MIB);
    let [first, second, dedicated, last] = frames;
    drop(dedicated);
    assert_eq!(node.used_bytes(), 4 * MIB);
    drop(first);
    assert_eq!(node.used_bytes(), 4 * MIB);
    assert_eq!(second.as_bytes(), b"still here");
    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(node.used_bytes(), 2 * MIB);
    drop(node);
    assert_eq!(last.as_bytes(), b"still here");
}

#[test]
fn a_buffer_outlives_the_handles_of_its_share() {
    let node = node(8 * MIB);
    let mut buf = node.share().alloc(512).unwrap();
    assert_eq!(buf.append(b"x"), 1);
    assert_eq!(node.used_bytes(), 2 * MIB);
    drop(buf);
    assert_eq!(node.used_bytes(), 0);
}

#[test]
fn a_budget_below_a_page_is_an_error() {
    let config = PoolConfig { node: None, budget_bytes: 2 * MIB - 1, huge: false };
    let error = NodePool::new(config).unwrap_err();
    assert!(error.to_string().contains("2097152"), "{error}");
}

#[test]
fn a_buffer_larger_than_any_budget_is_refused() {
    let pool = node(8 * MIB).share();
    for bytes in [9 << 20, (1 << 30) + 1, usize::MAX] {
        assert!(pool.alloc(bytes).is_none());
    }
}

/// A generator of its own, so that a run is told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Content that tells whether anybody else wrote to the buffer.
fn stamp(buf: &mut PoolBuf, random: &mut Random) {
    let len = random.below(buf.capacity() as u64 + 1) as usize;
    let start = random.below((buf.capacity() - len) as u64 + 1) as usize;
    buf.set_range(start, len);
    buf.data_mut().fill(len as u8 ^ 0x5a);
}

fn is_stamped(data: &[u8]) -> bool {
    data.iter().all(|&b| b == data.len() as u8 ^ 0x5a)
}

fn worker(
    node: &NodePool,
    seed: u64,
    steps: u32,
    inbox: mpsc::Receiver<Frame>,
    others: Vec<mpsc::SyncSender<Frame>>,
) {
    let mut random = Random(seed);
    let mut pool = node.share();
    let mut bufs: Vec<PoolBuf> = Vec::new();
    let mut frames: Vec<Frame> = Vec::new();
    for _ in 0..steps {
        match random.below(10) {
            0..4 => {
                let largest = if random.below(50) == 0 { 23 } else { 18 };
                let bytes = 1usize << random.below(largest);
                if let Some(mut buf) = pool.alloc(bytes) {
                    assert!(buf.capacity() >= bytes);
                    stamp(&mut buf, &mut random);
                    bufs.push(buf);
                }
            }
            4..6 if !bufs.is_empty() => {
                let buf = bufs.swap_remove(random.below(bufs.len() as u64) as usize);
                assert!(is_stamped(buf.data()), "seed {seed}");
                if random.below(2) == 0 {
                    frames.push(buf.into_frame());
                }
            }
            6 if !frames.is_empty() => {
                let frame = frames.swap_remove(random.below(frames.len() as u64) as usize);
                assert!(is_stamped(frame.as_bytes()), "seed {seed}");
                for other in &others {
                    let _ = other.try_send(frame.clone());
                }
            }
            7 => frames.extend(inbox.try_iter().take(20)),
            8 if random.below(100) == 0 => {
                // A worker goes and another comes; its frames stay out.
                bufs.clear();
                assert!(pool.stats().lent <= pool.stats().taken);
                pool = node.share();
            }
            _ if frames.len() > 50 => frames.truncate(25),
            _ => {
                pool.collect();
            }
        }
        assert!(node.mapped_bytes() <= node.budget_bytes());
        assert!(node.used_bytes() <= node.budget_bytes());
    }
    assert!(bufs.iter().all(|buf| is_stamped(buf.data())), "seed {seed}");
    assert!(frames.iter().all(|frame| is_stamped(frame.as_bytes())), "seed {seed}");
}

#[test]
fn workers_that_trade_frames_lose_nothing_and_stay_in_the_budget() {
    let steps = if cfg!(debug_assertions) { 4_000 } else { 20_000 };
    for round in 1..6 {
        let node = node(40 * MIB);
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| mpsc::sync_channel(64)).unzip();
        thread::scope(|scope| {
            for (i, inbox) in inboxes.into_iter().enumerate() {
                let others = senders.clone();
                let node = &node;
                scope.spawn(move || {
                    worker(node, round * 7919 + i as u64 * 104_729 + 1, steps, inbox, others);
                });
            }
        });
        drop(senders);
        assert_eq!(node.used_bytes(), 0, "round {round}");
    }
}
