//! Many senders, one receiver. After Dmitry Vyukov's bounded queue: a sequence number a slot.
//!
//! Invariants: slot `i` has sequence `n` (with `n & mask == i`) where it is empty and waits for
//! the `n`-th value, and `n + 1` where it holds that value. A sender owns slot `n` between winning
//! `tail: n -> n + 1` and storing `n + 1`; the receiver owns it between reading `n + 1` and storing
//! `n + capacity`. Storing with Release and reading with Acquire hands the slot over.
//!
//! A sender that was stopped between those two steps hides what others sent after it until it goes
//! on; nothing is lost, and it wakes the receiver when it is done.

use std::fmt;
use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

struct Slot<T> {
    sequence: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

struct Shared<T> {
    tail: CachePadded<AtomicUsize>,
    /// Where the receiver stands, kept up to date for the final drain and for `len` alone.
    head: CachePadded<AtomicUsize>,
    closed: AtomicBool,
    mask: usize,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a slot is touched only by its owner of the moment (see the module), so values cross
// threads but are never shared.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn is_ready(&self, head: usize) -> bool {
        let sequence = self.slots[head & self.mask].sequence.load(Ordering::Acquire);
        sequence == head.wrapping_add(1)
    }

    /// Takes the value at `head`. Only for the receiver, or with all ends gone.
    fn take(&self, head: usize) -> Option<T> {
        if !self.is_ready(head) {
            return None;
        }
        let slot = &self.slots[head & self.mask];
        let value = slot.value.with_mut(|value| {
            // SAFETY: the sequence says that the slot holds a value and is the receiver's; storing
            // the next sequence below keeps it from being read twice.
            unsafe { (*value).assume_init_read() }
        });
        slot.sequence.store(head.wrapping_add(self.mask + 1), Ordering::Release);
        Some(value)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // All senders are gone, so each claimed slot has been written.
        let mut head = self.head.load(Ordering::Relaxed);
        while let Some(value) = self.take(head) {
            drop(value);
            head = head.wrapping_add(1);
        }
    }
}

/// Why a value was not sent. Holds the value.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The ring is full: the sender's policy applies.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(value) | TrySendError::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the ring is full",
            TrySendError::Closed(_) => "the receiver is gone",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

/// A writing end; clone it for each sender.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { shared: Arc::clone(&self.shared) }
    }
}

/// The reading end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
}

/// A ring of at least `capacity` slots (rounded up to a power of two, at least 2).
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    // With one slot, "holds value n" and "waits for value n + 1" would be the same number.
    let capacity = capacity.max(2).next_power_of_two();
    let slot =
        |i| Slot { sequence: AtomicUsize::new(i), value: UnsafeCell::new(MaybeUninit::uninit()) };
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(0)),
        head: CachePadded::new(AtomicUsize::new(0)),
        closed: AtomicBool::new(false),
        mask: capacity - 1,
        slots: (0..capacity).map(slot).collect(),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, head: 0 })
}

impl<T> Sender<T> {
    /// Sends one value; hands it back where the ring is full or the receiver gone. Retries only
    /// where another sender was quicker.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let shared = &*self.shared;
        if shared.closed.load(Ordering::Relaxed) {
            return Err(TrySendError::Closed(value));
        }
        let mut tail = shared.tail.load(Ordering::Relaxed);
        loop {
            let slot = &shared.slots[tail & shared.mask];
            let sequence = slot.sequence.load(Ordering::Acquire);
            let ahead = sequence.wrapping_sub(tail) as isize;
            if ahead < 0 {
                return Err(TrySendError::Full(value));
            }
            if ahead > 0 {
                tail = shared.tail.load(Ordering::Relaxed);
                continue;
            }
            let next = tail.wrapping_add(1);
            match shared.tail.compare_exchange_weak(
                tail,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    slot.value.with_mut(|cell| {
                        // SAFETY: the sequence says that the slot is empty, and winning `tail`
                        // makes it this sender's alone.
                        unsafe { (*cell).write(value) };
                    });
                    slot.sequence.store(next, Ordering::Release);
                    return Ok(());
                }
                Err(now) => tail = now,
            }
        }
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Values in the ring, about.
    #[must_use]
    pub fn len(&self) -> usize {
        let head = self.shared.head.load(Ordering::Relaxed);
        self.shared.tail.load(Ordering::Relaxed).wrapping_sub(head).min(self.capacity())
    }

    /// Whether the ring is empty, about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }
}

impl<T> Receiver<T> {
    /// Takes one value out. Values of one sender come in the order in which it sent them.
    pub fn pop(&mut self) -> Option<T> {
        let value = self.shared.take(self.head)?;
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Relaxed);
        Some(value)
    }

    /// Whether there is nothing to pop. After [`prepare_sleep`](crate::wake::SleepFlag::prepare_sleep)
    /// this never misses a value whose sender then finds the flag clear.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.shared.is_ready(self.head)
    }

    /// Values in the ring, those being written right now included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Relaxed).wrapping_sub(self.head).min(self.capacity())
    }

    /// Slots of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What a sender still puts in after this is dropped with the ring itself.
        self.shared.closed.store(true, Ordering::Relaxed);
        // At most a ring full: senders that do not see the flag yet could go on for ever.
        for _ in 0..self.capacity() {
            if self.pop().is_none() {
                break;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn capacity_is_rounded_up_to_a_power_of_two() {
        for (asked, given) in [(0, 2), (2, 2), (3, 4), (1024, 1024)] {
            assert_eq!(channel::<u8>(asked).0.capacity(), given);
        }
    }

    #[test]
    fn sending_to_nobody_is_told_and_nothing_leaks() {
        let value = std::sync::Arc::new(());
        let (tx, rx) = channel(4);
        for _ in 0..3 {
            tx.try_send(std::sync::Arc::clone(&value)).unwrap();
        }
        drop(rx);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        assert!(tx.is_closed());
        let refused = tx.try_send(value).unwrap_err();
        assert!(matches!(refused, TrySendError::Closed(_)));
        assert_eq!(std::sync::Arc::strong_count(&refused.into_inner()), 1);
    }

    #[test]
    fn each_senders_values_arrive_in_its_order_and_once() {
        const SENDERS: u64 = 3;
        const COUNT: u64 = 5_000;
        let (tx, mut rx) = channel(16);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let tx = tx.clone();
                std::thread::spawn(move || {
                    for n in 0..COUNT {
                        let mut value = (sender, n);
                        while let Err(error) = tx.try_send(value) {
                            value = error.into_inner();
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut expected = [0; SENDERS as usize];
        while expected.iter().sum::<u64>() < SENDERS * COUNT {
            match rx.pop() {
                Some((sender, n)) => {
                    assert_eq!(n, expected[sender as usize]);
                    expected[sender as usize] += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(rx.is_empty());
    }

    proptest! {
        #[test]
        fn behaves_as_a_bounded_queue(
            capacity in 1usize..9,
            ops in prop::collection::vec(any::<bool>(), 1..200),
        ) {
            let (tx, mut rx) = channel(capacity);
            let other = tx.clone();
            let mut model = VecDeque::new();
            for (n, send) in ops.into_iter().enumerate() {
                if send {
                    let sender = if n % 2 == 0 { &tx } else { &other };
                    if model.len() < tx.capacity() {
                        prop_assert_eq!(sender.try_send(n), Ok(()));
                        model.push_back(n);
                    } else {
                        prop_assert_eq!(sender.try_send(n), Err(TrySendError::Full(n)));
                    }
                } else {
                    prop_assert_eq!(rx.pop(), model.pop_front());
                }
                prop_assert_eq!((tx.len(), rx.len()), (model.len(), model.len()));
                prop_assert_eq!(rx.is_empty(), model.is_empty());
            }
        }
    }
}
