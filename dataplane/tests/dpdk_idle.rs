//! A worker on a DPDK device with nothing to do: by which means it waits, and what ends that.
#![cfg(target_os = "linux")]

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::dpdk::{Driver, Site};
use hioload_core::Now;
use hioload_core::wait::Wait;
use hioload_dataplane::dpdk::{DeviceConfig, Queue, Waiting};
use hioload_dataplane::{Frames, IdlePolicy, LoopCounters};
use hioload_pipeline::backend::{Backend, Events};
use hioload_pipeline::suite::PATIENCE;

/// Looks in vain before a sleep; where there are no interrupts, sleeps would be of half a second.
const SPINS: u32 = 10;
/// Datagrams of a test.
const FRAMES: u64 = 100;
const IDLE: IdlePolicy = IdlePolicy::Adaptive { spins: SPINS, sleep: Duration::from_millis(500) };

/// A worker that is driven turn by turn.
struct Worker {
    backend: Frames<Queue>,
    counters: Arc<LoopCounters>,
    events: Events,
    began: Instant,
}

impl Worker {
    fn new(site: &Site) -> Worker {
        let backend = site.backend(0);
        let counters = backend.loop_counters();
        Worker { backend, counters, events: Events::with_limit(64), began: Instant::now() }
    }

    /// A turn that may wait until `at_most` from now.
    fn turn(&mut self, at_most: Duration) {
        let now = Now::ZERO.after(self.began.elapsed());
        self.events.clear();
        let wait = Wait::Until(Some(now.after(at_most)));
        self.backend.poll(now, wait, &mut self.events).expect("the device is there");
        self.backend.flush(Now::ZERO.after(self.began.elapsed()));
    }

    fn sleeps(&self) -> u64 {
        self.counters.sleeps_total.get()
    }

    /// Turns until the kernel's greetings have been heard, and it has slept to the end of its time.
    fn settle(&mut self, site: &Site) {
        let began = Instant::now();
        loop {
            let (sleeps, frames) = (self.sleeps(), site.counters(0).rx_frames_total.get());
            for _ in 0..200 {
                self.turn(Duration::from_millis(20));
            }
            let quiet = site.counters(0).rx_frames_total.get() == frames;
            if quiet && self.sleeps() > sleeps {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the network is never quiet");
        }
    }
}

fn site(driver: Driver) -> Site {
    Site::with(driver, DeviceConfig { idle: IDLE, ..Site::config() })
}

/// A datagram to the stack, of which the kernel knows no neighbour: it asks for it.
fn send(site: &Site) {
    let socket = UdpSocket::bind((site.ip(false, 1), 0)).expect("a port");
    socket.send_to(b"frame", (site.ip(false, 2), 9)).expect("sent");
}

#[test]
fn a_frame_ends_the_sleep_of_a_worker_with_interrupts() {
    let site = site(Driver::Tap);
    assert_eq!(site.device().report().waiting, Waiting::Interrupts);
    assert!(site.device().report().to_string().contains("until a receive interrupt"));
    let mut worker = Worker::new(&site);
    worker.settle(&site);
    let (sleeps, received) = (worker.sleeps(), site.counters(0).rx_frames_total.get());
    let done = AtomicBool::new(false);
    let turns = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..FRAMES {
                std::thread::sleep(Duration::from_millis(20));
                send(&site);
            }
            done.store(true, Ordering::Release);
        });
        let mut turns = 0;
        while !done.load(Ordering::Acquire) {
            worker.turn(PATIENCE);
            turns += 1;
        }
        turns
    });
    let (sleeps, received) =
        (worker.sleeps() - sleeps, site.counters(0).rx_frames_total.get() - received);
    assert!(received >= FRAMES / 2, "{received} frames");
    // By its own time it would have woken once a second.
    assert!(sleeps >= FRAMES / 2, "{sleeps} sleeps for {received} frames");
    // Polling takes a million turns.
    assert!(turns <= (sleeps + 1) * u64::from(SPINS) * 10, "{turns} turns, {sleeps} sleeps");
}

#[test]
fn a_ring_of_the_bell_ends_the_sleep_of_a_worker_with_interrupts() {
    let site = site(Driver::Tap);
    let mut worker = Worker::new(&site);
    worker.settle(&site);
    let waker = worker.backend.waker();
    // Without a sleep: somebody rang before.
    let sleeps = worker.sleeps();
    waker.wake();
    worker.turn(PATIENCE);
    worker.turn(Duration::ZERO);
    std::thread::scope(|scope| {
        let asleep = Arc::clone(&worker.counters);
        let rings = scope.spawn(move || {
            let (mut rings, began) = (0u32, Instant::now());
            while asleep.sleeps_total.get() < sleeps + 10 && began.elapsed() < PATIENCE {
                waker.wake();
                rings += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            rings
        });
        let mut turns = 0u64;
        while worker.sleeps() < sleeps + 10 {
            worker.turn(PATIENCE);
            turns += 1;
            assert!(turns < 100_000, "it doesn't sleep");
        }
        let rings = rings.join().expect("no panic");
        // By their own time they would have ended one a second, in two hundred rings each.
        assert!(rings < 1000, "{rings} rings");
    });
}

#[test]
fn a_device_without_interrupts_is_looked_at_after_bounded_sleeps() {
    let site = site(Driver::AfPacket);
    let waiting = &site.device().report().waiting;
    let Waiting::Sleeps(why) = waiting else { panic!("{waiting:?}") };
    assert!(why.contains("net_af_packet has no receive interrupts"), "{why}");
    let mut worker = Worker::new(&site);
    worker.settle(&site);
    send(&site);
    let frames = site.counters(0).rx_frames_total.get();
    while site.counters(0).rx_frames_total.get() == frames {
        worker.turn(PATIENCE);
        assert!(worker.began.elapsed() < 3 * PATIENCE, "the frame was never seen");
    }
}

#[test]
fn a_busy_worker_neither_sleeps_nor_asks_for_interrupts() {
    let config = DeviceConfig { idle: IdlePolicy::Busy, ..Site::config() };
    let site = Site::with(Driver::Tap, config);
    assert_eq!(site.device().report().waiting, Waiting::Never);
    let mut worker = Worker::new(&site);
    for _ in 0..10_000 {
        worker.turn(PATIENCE);
    }
    assert_eq!(worker.sleeps(), 0);
}
