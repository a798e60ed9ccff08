//! One frame, counted locally: a worker that hands a frame to a thousand of its sessions crosses
//! cores for one reference only.
//!
//! A [`LocalFrame`] is a plain counter's worth. The counters are recycled, so that a warm worker
//! allocates nothing.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::frame::Frame;

/// Recycled counters kept at most; beyond that they go back to the heap.
const KEPT_MAX: usize = 4096;

/// A worker's recycled counters. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LocalFrames {
    kept: Rc<RefCell<Vec<Rc<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Empty while the slot waits in `kept`.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    frame: Frame,
    home: LocalFrames,
}

/// A reference to a [`Frame`] that stays on its worker. Clone and drop are plain additions; the
/// last one gives the frame's one reference back.
pub struct LocalFrame {
    /// `None` only inside of `drop`.
    slot: Option<Rc<Slot>>,
}

const _: () = assert!(size_of::<LocalFrame>() == 8 && size_of::<Option<LocalFrame>>() <= 16);

impl LocalFrames {
    /// No counters yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over one reference of the frame.
    #[must_use]
    pub fn adopt(&self, frame: Frame) -> LocalFrame {
        let mut slot = self.kept.borrow_mut().pop().unwrap_or_default();
        let live = Some(Live { frame, home: self.clone() });
        match Rc::get_mut(&mut slot) {
            Some(free) => free.live = live,
            None => slot = Rc::new(Slot { live }),
        }
        LocalFrame { slot: Some(slot) }
    }

    /// Counters that wait to be used again.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.borrow().len()
    }
}

impl LocalFrame {
    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.frame().map_or(&[], Frame::as_bytes)
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// A reference that may leave the worker.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        self.frame().cloned().unwrap_or_default()
    }

    fn frame(&self) -> Option<&Frame> {
        Some(&self.slot.as_ref()?.live.as_ref()?.frame)
    }
}

impl Clone for LocalFrame {
    #[inline]
    fn clone(&self) -> Self {
        LocalFrame { slot: self.slot.clone() }
    }
}

impl Drop for LocalFrame {
    #[inline]
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        // Not the last one: the slot is only counted down.
        let Some(unique) = Rc::get_mut(&mut slot) else { return };
        let Some(Live { frame, home }) = unique.live.take() else { return };
        drop(frame);
        let mut kept = home.kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(slot);
        }
    }
}

impl fmt::Debug for LocalFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalFrame({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_local_reference_gives_the_one_reference_back() {
        let frames = LocalFrames::new();
        let frame = Frame::from_slice(b"hello");
        let first = frames.adopt(frame.clone());
        let copies: Vec<_> = (0..100).map(|_| first.clone()).collect();
        assert_eq!(frame.references(), 2);
        drop(first);
        assert!(copies.iter().all(|copy| copy.as_bytes() == b"hello"));
        drop(copies);
        assert_eq!(frame.references(), 1);
        assert_eq!(frames.kept(), 1);
    }

    #[test]
    fn counters_are_recycled() {
        let frames = LocalFrames::new();
        for round in 0..10u8 {
            let locals: Vec<_> =
                (0..5u8).map(|i| frames.adopt(Frame::from_slice(&[round, i]))).collect();
            for (i, local) in locals.iter().enumerate() {
                assert_eq!(local.as_bytes(), [round, i as u8]);
            }
        }
        assert_eq!(frames.kept(), 5);
    }

    #[test]
    fn a_local_frame_outlives_its_counters_home() {
        let local = LocalFrames::new().adopt(Frame::from_slice(b"x"));
        assert_eq!(local.to_frame().as_bytes(), b"x");
        assert_eq!(local.as_bytes(), b"x");
    }
}
