//! What the kernel had no room for: kept by the backend until it has, beyond the turn in which it
//! was accepted. Buffers and frames are kept as they are; only bytes that lie in a turn's memory
//! are copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use hioload_core::local::LocalFrame;
use hioload_core::pool::{Pool, PoolBuf, RECEIVE_UNIT};

/// The pool is spent.
#[derive(Debug)]
pub(super) struct NoMemory;

enum Held {
    Buffer(PoolBuf),
    Frame { frame: LocalFrame, sent: usize },
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Held::Buffer(buf) => buf.data(),
            Held::Frame { frame, sent } => &frame.as_bytes()[*sent..],
        }
    }
}

/// One connection's backlog.
#[derive(Default)]
pub(super) struct Backlog {
    held: VecDeque<Held>,
    bytes: usize,
}

impl Backlog {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies bytes behind what waits. `to_come` says how many are about to follow, so that one
    /// buffer takes them all.
    pub(super) fn copy(
        &mut self,
        mut bytes: &[u8],
        to_come: usize,
        pool: &Pool,
    ) -> Result<(), NoMemory> {
        while !bytes.is_empty() {
            let taken = match self.held.back_mut() {
                Some(Held::Buffer(last)) => last.append(bytes),
                _ => 0,
            };
            self.bytes += taken;
            bytes = &bytes[taken..];
            if !bytes.is_empty() {
                let wanted = bytes.len().saturating_add(to_come).min(RECEIVE_UNIT);
                let fresh = pool.alloc(wanted).or_else(|| pool.alloc(1)).ok_or(NoMemory)?;
                self.held.push_back(Held::Buffer(fresh));
            }
        }
        Ok(())
    }

    /// Keeps a buffer, without its first `sent` bytes.
    pub(super) fn keep_buffer(&mut self, mut buf: PoolBuf, sent: usize) {
        buf.trim_front(sent);
        self.bytes += buf.len();
        self.held.push_back(Held::Buffer(buf));
    }

    /// Keeps a frame, without its first `sent` bytes.
    pub(super) fn keep_frame(&mut self, frame: LocalFrame, sent: usize) {
        self.bytes += frame.len() - sent;
        self.held.push_back(Held::Frame { frame, sent });
    }

    /// The first pieces that wait.
    pub(super) fn pieces<const N: usize>(&self) -> ArrayVec<IoSlice<'_>, N> {
        self.held.iter().take(N).map(|held| IoSlice::new(held.bytes())).collect()
    }

    /// Forgets `count` bytes that were sent.
    pub(super) fn sent(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.held.front_mut() {
            let len = first.bytes().len();
            if count < len {
                match first {
                    Held::Buffer(buf) => buf.trim_front(count),
                    Held::Frame { sent, .. } => *sent += count,
                }
                return;
            }
            count -= len;
            self.held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hioload_core::frame::Frame;
    use hioload_core::local::LocalFrames;
    use hioload_core::pool::{NodePool, PoolConfig};

    fn pool(budget_bytes: u64) -> Pool {
        NodePool::new(PoolConfig { node: None, budget_bytes, huge: false }).unwrap().share()
    }

    fn all(backlog: &Backlog) -> Vec<u8> {
        backlog.pieces::<64>().iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn bytes_leave_in_order_from_any_split() {
        let pool = pool(16 << 20);
        let frame = LocalFrames::new().adopt(Frame::from_slice(b"0123456789"));
        for step in 1..40 {
            let mut backlog = Backlog::default();
            backlog.copy(b"abcdef", 0, &pool).unwrap();
            backlog.keep_frame(frame.clone(), 3);
            let mut buf = pool.alloc(10).unwrap();
            buf.append(b"ABCDEF");
            backlog.keep_buffer(buf, 2);
            backlog.copy(b"xyz", 0, &pool).unwrap();
            let whole = all(&backlog);
            assert_eq!(whole, b"abcdef3456789CDEFxyz");
            assert_eq!(backlog.bytes(), whole.len());
            let mut out = Vec::new();
            while backlog.bytes() > 0 {
                let now = all(&backlog);
                let count = now.len().min(step);
                out.extend_from_slice(&now[..count]);
                backlog.sent(count);
            }
            assert_eq!(out, whole);
            assert!(backlog.held.is_empty());
        }
    }

    #[test]
    fn copies_share_a_buffer() {
        let pool = pool(16 << 20);
        let mut backlog = Backlog::default();
        for left in (0..100).rev() {
            backlog.copy(&[7; 300], left * 300, &pool).unwrap();
        }
        assert_eq!(backlog.held.len(), 1);
        assert_eq!(backlog.bytes(), 30_000);
    }

    #[test]
    fn a_spent_pool_is_an_error() {
        let pool = pool(2 << 20);
        let _all: Vec<_> = std::iter::from_fn(|| pool.alloc(1 << 20)).collect();
        let mut backlog = Backlog::default();
        assert!(backlog.copy(b"x", 0, &pool).is_err());
    }
}
