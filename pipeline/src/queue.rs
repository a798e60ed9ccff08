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
/// The same for frames that others send too, of which only a reference would be held.
const SHARED_JOIN_MAX_BYTES: usize = 512;
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

    /// The memory that it holds, which for short frames is far more than their bytes.
    fn held_bytes(&self) -> usize {
        match self {
            Entry::Data(buf) | Entry::Control(buf) => buf.capacity(),
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
    held_bytes: usize,
}

impl Queue {
    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that what waits holds: whole buffers.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Appends a data frame.
    pub(crate) fn push(&mut self, out: Out<'_>, pool: &Pool) -> Result<(), NoMemory> {
        let len = out.len();
        let entry = match out {
            // A short frame is copied, so that it doesn't hold a buffer of its own.
            Out::Shared(frame) if len <= SHARED_JOIN_MAX_BYTES => {
                if self.join(frame.as_bytes()) {
                    return Ok(());
                }
                Entry::Data(self.copy(frame.as_bytes(), pool)?)
            }
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
        self.append(entry);
        Ok(())
    }

    /// Appends a control frame, behind the last one in its buffer where that has room: a peer that
    /// pings and reads nothing must not make each pong of two bytes hold a buffer.
    pub(crate) fn push_control(&mut self, frame: &[u8], pool: &Pool) -> Result<(), NoMemory> {
        match self.entries.back_mut() {
            Some(Entry::Control(last)) if last.tail_room() >= frame.len() => {
                last.append(frame);
                self.bytes += frame.len();
            }
            _ => {
                let mut buf = pool.alloc(frame.len()).ok_or(NoMemory)?;
                buf.append(frame);
                self.append(Entry::Control(buf));
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry) {
        self.bytes += entry.len();
        self.held_bytes += entry.held_bytes();
        self.entries.push_back(entry);
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

    /// The first buffer is of the smallest class that fits; each one that directly follows a full
    /// one is twice its size. Behind a control frame it begins anew, or a ping before each message
    /// would make each of them hold a large buffer.
    fn copy(&self, bytes: &[u8], pool: &Pool) -> Result<PoolBuf, NoMemory> {
        let roomy = match self.entries.back() {
            Some(Entry::Data(last)) => bytes.len().max((2 * last.capacity()).min(RECEIVE_UNIT)),
            _ => bytes.len(),
        };
        let mut buf = pool.alloc(roomy).or_else(|| pool.alloc(bytes.len())).ok_or(NoMemory)?;
        buf.append(bytes);
        Ok(buf)
    }

    /// Hands to the transport what it takes; true when nothing is left.
    pub(crate) fn drain_into(&mut self, conn: ConnId, tx: &mut dyn TxHalf<'_>) -> bool {
        while let Some(entry) = self.entries.pop_front() {
            let (len, held_bytes) = (entry.len(), entry.held_bytes());
            let control = matches!(entry, Entry::Control(_));
            let out = match entry {
                Entry::Data(buf) | Entry::Control(buf) => Out::Owned(buf),
                Entry::Shared(frame) => Out::Shared(frame),
            };
            match tx.send(conn, out) {
                Ok(()) => {
                    self.bytes -= len;
                    self.held_bytes -= held_bytes;
                }
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
        if spent && let Some(entry) = self.entries.remove(at) {
            self.held_bytes -= entry.held_bytes();
        }
        true
    }

    /// Forgets everything; keeps little memory.
    pub(crate) fn reset(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEEP_ENTRIES);
        (self.bytes, self.held_bytes) = (0, 0);
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
