//! The rings and the sleep flag under loom, which tries every order of what threads do.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p hioload-core --release --test loom`; empty otherwise.
//! The inbox of the pool has its loom tests beside it: `--lib loom_`.
#![cfg(loom)]

use std::sync::Arc;

use hioload_core::ring::{mpsc, spsc};
use hioload_core::wake::SleepFlag;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Bounds the runs: three preemptions find nearly all there is to find.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// A value whose drops are counted.
struct Counted(u32, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn spsc_hands_over_in_order_and_wraps() {
    model(|| {
        let (mut tx, mut rx) = spsc::channel(2);
        let producer = thread::spawn(move || {
            for n in 0..3u32 {
                let mut value = Box::new(n);
                while let Err(back) = tx.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let value = loop {
                match rx.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        producer.join().unwrap();
        assert!(rx.is_empty());
    });
}

#[test]
fn spsc_bursts_are_whole_and_leftovers_are_dropped() {
    model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (mut tx, mut rx) = spsc::channel(4);
        let producer = {
            let drops = Arc::clone(&drops);
            thread::spawn(move || {
                let mut values = (0..3).map(|n| Counted(n, Arc::clone(&drops)));
                assert_eq!(tx.push_burst(&mut values), 3);
            })
        };
        let mut expected = 0;
        rx.pop_burst(2, |value| {
            assert_eq!(value.0, expected);
            expected += 1;
        });
        assert!(expected == 0 || expected == 2, "a burst appears at once");
        drop(rx);
        producer.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn mpsc_values_of_two_senders_arrive_once() {
    model(|| {
        let (tx, mut rx) = mpsc::channel(2);
        let senders = [1u32, 2].map(|n| {
            let tx = tx.clone();
            thread::spawn(move || tx.try_send(Box::new(n)).is_ok())
        });
        let mut sum = rx.pop().map_or(0, |value| *value);
        let sent = senders.map(|sender| sender.join().unwrap());
        assert_eq!(sent, [true, true]);
        while let Some(value) = rx.pop() {
            sum += *value;
        }
        assert_eq!(sum, 3);
    });
}

#[test]
fn mpsc_is_full_or_takes_each_value_when_it_wraps() {
    model(|| {
        let (tx, mut rx) = mpsc::channel(2);
        tx.try_send(1u32).unwrap();
        tx.try_send(2).unwrap();
        let sender = {
            let tx = tx.clone();
            thread::spawn(move || tx.try_send(3).is_ok())
        };
        assert_eq!(rx.pop(), Some(1));
        let sent = sender.join().unwrap();
        assert_eq!(rx.pop(), Some(2));
        assert_eq!(rx.pop(), sent.then_some(3));
    });
}

#[test]
fn mpsc_drops_what_a_closing_receiver_leaves() {
    model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = mpsc::channel(2);
        let sender = {
            let drops = Arc::clone(&drops);
            thread::spawn(move || {
                let _ = tx.try_send(Counted(0, Arc::clone(&drops)));
                drop(tx.try_send(Counted(1, drops)));
            })
        };
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

/// Each of two senders publishes and then asks the flag; the receiver looks once more before it
/// sleeps. Whoever is asleep with work in the ring must have been woken.
#[test]
fn a_sleeper_never_misses_work() {
    model(|| {
        let (tx, mut rx) = mpsc::channel(2);
        let flag = Arc::new(SleepFlag::new());
        let wakes = Arc::new(AtomicUsize::new(0));
        let senders = [1u32, 2].map(|n| {
            let (tx, flag, wakes) = (tx.clone(), Arc::clone(&flag), Arc::clone(&wakes));
            thread::spawn(move || {
                tx.try_send(n).unwrap();
                if flag.needs_wake() {
                    wakes.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        flag.prepare_sleep();
        let sleeps = rx.is_empty();
        if !sleeps {
            flag.cancel_sleep();
            assert!(rx.pop().is_some());
        }
        for sender in senders {
            sender.join().unwrap();
        }
        let wakes = wakes.load(Ordering::Relaxed);
        if sleeps {
            assert_eq!(wakes, 1, "asleep with work in the ring");
        } else {
            assert!(wakes <= 1);
        }
    });
}

/// The same with the spsc ring, whose consumer may sleep, too.
#[test]
fn an_spsc_consumer_never_misses_work() {
    model(|| {
        let (mut tx, rx) = spsc::channel(2);
        let flag = Arc::new(SleepFlag::new());
        let producer = {
            let flag = Arc::clone(&flag);
            thread::spawn(move || {
                tx.push(1u32).unwrap();
                flag.needs_wake()
            })
        };
        flag.prepare_sleep();
        let sleeps = rx.is_empty();
        let woken = producer.join().unwrap();
        assert!(!sleeps || woken);
    });
}
