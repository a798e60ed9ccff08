//! One producer, one consumer.
//!
//! Invariants: `tail` is written by the producer alone, `head` by the consumer alone, both only
//! grow (wrapping) and `tail - head <= capacity`. The slots in `head..tail` hold values and belong
//! to the consumer, all others are empty and belong to the producer. Publishing an index with
//! Release, and reading it with Acquire, hands the slots over. Each side keeps a copy of the other
//! one's index and reads the shared one only where the copy says full or empty.

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

struct Shared<T> {
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
    mask: usize,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched only by the side it belongs to (see the module), so values cross
// threads but are never shared.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn write(&self, index: usize, value: T) {
        self.slots[index & self.mask].with_mut(|slot| {
            // SAFETY: called by the producer with an index outside of `head..tail`: the slot is
            // empty and ours.
            unsafe { (*slot).write(value) };
        });
    }

    fn read(&self, index: usize) -> T {
        self.slots[index & self.mask].with_mut(|slot| {
            // SAFETY: called by the consumer with an index inside of `head..tail`: the slot holds
            // a value, and `head` moves past it before it could be read again.
            unsafe { (*slot).assume_init_read() }
        })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut head, tail) =
            (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            drop(self.read(head));
            head = head.wrapping_add(1);
        }
    }
}

/// The writing end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The reading end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring of at least `capacity` slots (rounded up to a power of two).
#[must_use]
pub fn channel<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        mask: capacity - 1,
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (
        Producer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 },
        Consumer { shared, head: 0, tail_seen: 0 },
    )
}

impl<T> Producer<T> {
    /// Puts one value in; hands it back where the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(value);
        }
        self.shared.write(self.tail, value);
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Moves values out of `values` until the ring is full or they end, and publishes them all at
    /// once. Returns how many; what did not fit is still in the iterator.
    pub fn push_burst(&mut self, values: &mut impl Iterator<Item = T>) -> usize {
        let room = self.room_now();
        let mut pushed = 0;
        // `room` is checked first: `next` on a full ring would lose the value.
        while pushed < room
            && let Some(value) = values.next()
        {
            self.shared.write(self.tail.wrapping_add(pushed), value);
            pushed += 1;
        }
        self.tail = self.tail.wrapping_add(pushed);
        self.shared.tail.store(self.tail, Ordering::Release);
        pushed
    }

    /// Free slots, as far as known; looks at the consumer's index only where that says none.
    fn room(&mut self) -> usize {
        let room = self.capacity() - self.tail.wrapping_sub(self.head_seen);
        if room == 0 { self.room_now() } else { room }
    }

    fn room_now(&mut self) -> usize {
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    /// Values in the ring; the consumer may be taking some out right now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.load(Ordering::Acquire))
    }

    /// Whether the ring is empty.
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

impl<T> Consumer<T> {
    /// Takes one value out.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen && self.ready_now() == 0 {
            return None;
        }
        let value = self.shared.read(self.head);
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Takes up to `max` values out and gives their slots back all at once. Returns how many.
    ///
    /// Where `each` panics, the values already passed to it are gone and the rest stay.
    pub fn pop_burst(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        struct Publish<'a, T>(&'a mut Consumer<T>);
        impl<T> Drop for Publish<'_, T> {
            fn drop(&mut self) {
                self.0.shared.head.store(self.0.head, Ordering::Release);
            }
        }
        let count = self.ready_now().min(max);
        let publish = Publish(self);
        for _ in 0..count {
            let value = publish.0.shared.read(publish.0.head);
            publish.0.head = publish.0.head.wrapping_add(1);
            each(value);
        }
        count
    }

    fn ready_now(&mut self) -> usize {
        self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        self.tail_seen.wrapping_sub(self.head)
    }

    /// Values in the ring; the producer may be adding some right now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether the ring is empty; fit for the sleep protocol of [`crate::wake`].
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::rc::Rc;

    #[test]
    fn capacity_is_rounded_up_to_a_power_of_two() {
        for (asked, given) in [(0, 1), (1, 1), (3, 4), (1024, 1024)] {
            assert_eq!(channel::<u8>(asked).0.capacity(), given);
        }
    }

    #[test]
    fn what_is_left_is_dropped_with_the_ring() {
        let value = Rc::new(());
        let (mut tx, mut rx) = channel(4);
        for _ in 0..6 {
            let _ = tx.push(Rc::clone(&value));
        }
        drop(rx.pop());
        drop((tx, rx));
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn a_panic_in_a_burst_loses_and_doubles_nothing() {
        let (mut tx, mut rx) = channel(4);
        assert_eq!(tx.push_burst(&mut (0..3).map(|n| n.to_string())), 3);
        let burst = std::panic::AssertUnwindSafe(|| rx.pop_burst(9, |n| assert_eq!(n, "0")));
        assert!(std::panic::catch_unwind(burst).is_err());
        assert_eq!(rx.pop().as_deref(), Some("2"));
        assert_eq!((rx.pop(), tx.len()), (None, 0));
    }

    #[test]
    fn values_cross_threads_in_order() {
        const COUNT: u64 = 20_000;
        let (mut tx, mut rx) = channel(64);
        let producer = std::thread::spawn(move || {
            let mut values = 0..COUNT;
            while !values.is_empty() {
                if tx.push_burst(&mut values) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            let popped = rx.pop_burst(10, |value| {
                assert_eq!(value, expected);
                expected += 1;
            });
            if popped == 0 {
                std::thread::yield_now();
            }
        }
        producer.join().unwrap();
    }

    proptest! {
        #[test]
        fn behaves_as_a_bounded_queue(
            capacity in 1usize..9,
            ops in prop::collection::vec((0u8..4, 0usize..12), 1..200),
        ) {
            let (mut tx, mut rx) = channel(capacity);
            let capacity = tx.capacity();
            let mut model = VecDeque::new();
            let mut values = 0..;
            for (op, n) in ops {
                match op {
                    0 => {
                        let value: u32 = values.next().unwrap();
                        let fits = model.len() < capacity;
                        prop_assert_eq!(tx.push(value), if fits { Ok(()) } else { Err(value) });
                        if fits { model.push_back(value); }
                    }
                    1 => {
                        let fits = n.min(capacity - model.len());
                        model.extend(values.clone().take(fits));
                        // Bounded by `n`, and by the room: the rest stays in the iterator.
                        prop_assert_eq!(tx.push_burst(&mut values.by_ref().take(n)), fits);
                    }
                    2 => prop_assert_eq!(rx.pop(), model.pop_front()),
                    _ => {
                        let count = n.min(model.len());
                        let mut popped = Vec::new();
                        prop_assert_eq!(rx.pop_burst(n, |value| popped.push(value)), count);
                        prop_assert_eq!(popped, model.drain(..count).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!((tx.len(), rx.len()), (model.len(), model.len()));
                prop_assert_eq!(rx.is_empty(), model.is_empty());
            }
        }
    }
}
