//! A session's unsent output. Whole frames only: what the transport took in part is the
//! transport's. Small frames share a buffer, so that many of them cost what their bytes cost.

use std::collections::VecDeque;

use hioload_core::local::LocalFrame;
use hioload_core::pool::{Pool, PoolBuf, RECEIVE_UNIT};
use hioload_ws_proto::{Limits, Role, Rules, parse_header};

use crate::backend::{ConnId, TxHalf};
use crate::window::Out;

/// Frames up to this size are copied to join others in a buffer; larger ones keep their own.
const JOIN_MAX_BYTES: usize = 4096;
/// How far the search for the oldest droppable frame goes past control frames.
const DROP_SEARCH: usize = 16;
/// A recycled queue keeps at most this many entries' worth of memory.
const KEEP_ENTRIES: usize = 64;

/// Frames that leave together.
enum Entry {
    /// One or more data frames in a buffer.
    Data(PoolBuf),
    /// A data frame that many sessions share.
    Shared(LocalFrame),
    /// A control frame: never dropped for a newer message.
    Control(PoolBuf),
}

impl Entry {
    fn len(&self) -> usize {
        match self {
            Entry::Data(buf) | Entry::Control(buf) => buf.len(),
            Entry::Shared(frame) => frame.as_bytes().len(),
        }
    }
}

/// The queue could not take it: the memory budget is spent.
#[derive(Debug)]
pub(crate) struct NoMemory;

/// Output of one session in the order in which it will leave.
#[derive(Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Queue {
    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a data frame.
    pub(crate) fn push(&mut self, out: Out<'_>, pool: &Pool) -> Result<(), NoMemory> {
        let len = out.len();
        let entry = match out {
            Out::Shared(frame) => Entry::Shared(frame),
            Out::Owned(buf) if len > JOIN_MAX_BYTES => Entry::Data(buf),
            Out::Owned(buf) => match self.join(buf.data()) {
                true => return Ok(()),
                false => Entry::Data(buf),
            },
            Out::Window(window) => {
                if len <= JOIN_MAX_BYTES && self.join(window.bytes()) {
                    return Ok(());
                }
                Entry::Data(self.copy(window.bytes(), pool)?)
            }
        };
        self.bytes += len;
        self.entries.push_back(entry);
        Ok(())
    }

    /// Appends a control frame.
    pub(crate) fn push_control(&mut self, frame: &[u8], pool: &Pool) -> Result<(), NoMemory> {
        let mut buf = pool.alloc(frame.len()).ok_or(NoMemory)?;
        buf.append(frame);
        self.bytes += frame.len();
        self.entries.push_back(Entry::Control(buf));
        Ok(())
    }

    /// Copies a small frame behind the last data frame, if its buffer has room.
    fn join(&mut self, bytes: &[u8]) -> bool {
        match self.entries.back_mut() {
            Some(Entry::Data(last)) if last.tail_room() >= bytes.len() => {
                last.append(bytes);
                self.bytes += bytes.len();
                true
            }
            _ => false,
        }
    }

    /// The first buffer is of the smallest class that fits; while the queue grows, so do they.
    fn copy(&self, bytes: &[u8], pool: &Pool) -> Result<PoolBuf, NoMemory> {
        let roomy = bytes.len().max(self.bytes.min(RECEIVE_UNIT));
        let mut buf = pool.alloc(roomy).or_else(|| pool.alloc(bytes.len())).ok_or(NoMemory)?;
        buf.append(bytes);
        Ok(buf)
    }

    /// Hands to the transport what it takes; true when nothing is left.
    pub(crate) fn drain_into(&mut self, conn: ConnId, tx: &mut dyn TxHalf<'_>) -> bool {
        while let Some(entry) = self.entries.pop_front() {
            let (len, control) = (entry.len(), matches!(entry, Entry::Control(_)));
            let out = match entry {
                Entry::Data(buf) | Entry::Control(buf) => Out::Owned(buf),
                Entry::Shared(frame) => Out::Shared(frame),
            };
            match tx.send(conn, out) {
                Ok(()) => self.bytes -= len,
                Err(back) => {
                    self.entries.push_front(match back {
                        Out::Owned(buf) if control => Entry::Control(buf),
                        Out::Owned(buf) => Entry::Data(buf),
                        Out::Shared(frame) => Entry::Shared(frame),
                        Out::Window(_) => unreachable!("no window was sent"),
                    });
                    return false;
                }
            }
        }
        true
    }

    /// Drops the oldest message that waits whole; false when there is none near the front.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let droppable = |e: &Entry| !matches!(e, Entry::Control(_));
        let Some(at) = self.entries.iter().take(DROP_SEARCH).position(droppable) else {
            return false;
        };
        let dropped = match &mut self.entries[at] {
            Entry::Data(buf) => {
                let frame = first_frame_bytes(buf.data());
                buf.trim_front(frame);
                frame
            }
            other => other.len(),
        };
        self.bytes -= dropped;
        let spent = match &self.entries[at] {
            Entry::Data(buf) => buf.is_empty(),
            _ => true,
        };
        if spent {
            self.entries.remove(at);
        }
        true
    }

    /// Forgets everything; keeps little memory.
    pub(crate) fn reset(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEEP_ENTRIES);
        self.bytes = 0;
    }
}

/// Length of the first frame in bytes that this side encoded, header included.
fn first_frame_bytes(bytes: &[u8]) -> usize {
    // Frames of ours are either all masked or none, and of any length.
    let masked = bytes.get(1).is_some_and(|b| b & 0x80 != 0);
    let role = if masked { Role::Server } else { Role::Client };
    let limits = Limits { max_frame: u64::MAX, max_message: u64::MAX };
    let rules = Rules { role, limits, rsv1: true };
    match parse_header(bytes, &rules) {
        Ok(Some(header)) => bytes.len().min(header.header_len() + header.payload_len() as usize),
        _ => bytes.len(),
    }
}
