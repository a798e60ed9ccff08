//! The way home for buffers that were let go on another thread: a list that anyone may push to
//! and of which the owner takes all at once.
//!
//! Invariants: between a successful [`Inbox::push`] and the [`Inbox::take_all`] or
//! [`Inbox::close`] that returns it, a node belongs to the inbox. Nothing is ever removed from the
//! middle, so there is no ABA. A closed inbox stays closed and holds nothing.

use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// A link of the list, written into whatever memory is on its way home.
pub(crate) struct Link<T> {
    pub(crate) next: *mut Link<T>,
    pub(crate) item: T,
}

pub(crate) struct Inbox<T> {
    head: AtomicPtr<Link<T>>,
}

fn closed<T>() -> *mut Link<T> {
    ptr::without_provenance_mut(1)
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Inbox { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Hands a node over. False: the inbox is closed and the node still the caller's.
    ///
    /// Does not touch the inbox after the node is in, so whatever the node keeps alive may go the
    /// very moment it is taken.
    ///
    /// # Safety
    /// `link` is valid for writes, is in no list, and belongs to the caller.
    pub(crate) unsafe fn push(&self, link: *mut Link<T>) -> bool {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if head == closed() {
                return false;
            }
            // SAFETY: the caller's until the exchange below succeeds.
            unsafe { (*link).next = head };
            // Release: what happened to the node's memory is over before the owner takes it.
            match self.head.compare_exchange_weak(head, link, Ordering::Release, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
    }

    /// Whether there is nothing to take, about. One relaxed load.
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == closed()
    }

    /// Takes all nodes, linked, the last pushed first. Not on a closed inbox.
    pub(crate) fn take_all(&self) -> *mut Link<T> {
        let head = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        debug_assert!(head != closed(), "taken from a closed inbox");
        head
    }

    /// Takes all nodes and refuses all to come.
    pub(crate) fn close(&self) -> *mut Link<T> {
        // AcqRel: a pusher that sees the inbox closed sees what its owner did before.
        let head = self.head.swap(closed(), Ordering::AcqRel);
        if head == closed() { ptr::null_mut() } else { head }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicIsize;
    use loom::thread;

    fn node(value: usize) -> *mut Link<usize> {
        Box::into_raw(Box::new(Link { next: ptr::null_mut(), item: value }))
    }

    fn sum_and_free(mut at: *mut Link<usize>) -> (usize, isize) {
        let (mut sum, mut count) = (0, 0);
        while !at.is_null() {
            // SAFETY: a taken list belongs to the taker.
            let link = unsafe { Box::from_raw(at) };
            sum += link.item;
            count += 1;
            at = link.next;
        }
        (sum, count)
    }

    #[test]
    fn loom_each_node_is_taken_once() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::new());
            let pushers: Vec<_> = [1, 2]
                .map(|value| {
                    let inbox = Arc::clone(&inbox);
                    // SAFETY: a fresh node of our own.
                    thread::spawn(move || assert!(unsafe { inbox.push(node(value)) }))
                })
                .into();
            let early = sum_and_free(inbox.take_all()).0;
            for pusher in pushers {
                pusher.join().unwrap();
            }
            assert_eq!(early + sum_and_free(inbox.take_all()).0, 3);
        });
    }

    /// The orphan protocol of `page.rs`: who comes last, the owner that closes or the pusher that
    /// is refused, and nobody else, brings the page back.
    #[test]
    fn loom_exactly_one_side_finishes_an_orphan() {
        loom::model(|| {
            let shared = Arc::new((Inbox::new(), AtomicIsize::new(0), AtomicIsize::new(0)));
            let pushers: Vec<_> = [1, 2]
                .map(|value| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        let (inbox, left, finished) = &*shared;
                        let link = node(value);
                        // SAFETY: a fresh node of our own; refused, it is ours still.
                        if !unsafe { inbox.push(link) } {
                            // SAFETY: as above. Its `next` means nothing.
                            drop(unsafe { Box::from_raw(link) });
                            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                                finished.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .into();
            let (inbox, left, finished) = &*shared;
            let remaining = 2 - sum_and_free(inbox.close()).1;
            if remaining == 0 || left.fetch_add(remaining, Ordering::AcqRel) + remaining == 0 {
                finished.fetch_add(1, Ordering::Relaxed);
            }
            for pusher in pushers {
                pusher.join().unwrap();
            }
            assert_eq!(finished.load(Ordering::Relaxed), 1);
        });
    }
}
