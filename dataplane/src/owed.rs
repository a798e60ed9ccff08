//! Output that was taken and is larger than the room in its connection's send ring: one piece of
//! it a connection at most, which leaves as acknowledgements make room.

use std::collections::HashMap;

use hioload_core::local::LocalFrame;
use hioload_core::pool::PoolBuf;
use hioload_stack::{ConnId, TxTurn};

/// The memory that output lies in.
pub(crate) enum Memory {
    Owned(PoolBuf),
    Shared(LocalFrame),
}

impl Memory {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Memory::Owned(buf) => buf.data(),
            Memory::Shared(frame) => frame.as_bytes(),
        }
    }
}

/// What one connection is owed.
pub(crate) struct Debt {
    memory: Memory,
    sent: usize,
    /// Output was refused because of this, so the pipeline waits for `Writable`.
    refused: bool,
    /// FIN follows.
    pub(crate) closing: bool,
}

/// What became of a debt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paid {
    /// Some of it still waits.
    Part,
    /// All of it is in the ring.
    All {
        /// The pipeline waits for `Writable`.
        refused: bool,
        /// FIN is next.
        closing: bool,
    },
}

/// The debts of all connections. Empty nearly always: what fits in the ring never comes here.
#[derive(Default)]
pub(crate) struct Owed(HashMap<ConnId, Debt>);

impl Owed {
    /// Whether the connection is owed something; notes that output was refused for it.
    pub(crate) fn refuse(&mut self, id: ConnId) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let debt = self.0.get_mut(&id);
        debt.map(|debt| debt.refused = true).is_some()
    }

    pub(crate) fn contains(&self, id: ConnId) -> bool {
        !self.0.is_empty() && self.0.contains_key(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Debt> {
        if self.0.is_empty() { None } else { self.0.get_mut(&id) }
    }

    /// Takes output of which the ring took `sent` bytes.
    pub(crate) fn add(&mut self, id: ConnId, memory: Memory, sent: usize) {
        self.0.insert(id, Debt { memory, sent, refused: false, closing: false });
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self, id: ConnId) -> usize {
        match self.0.is_empty() {
            true => 0,
            false => self.0.get(&id).map_or(0, |debt| debt.memory.bytes().len() - debt.sent),
        }
    }

    pub(crate) fn forget(&mut self, id: ConnId) {
        if !self.0.is_empty() {
            self.0.remove(&id);
        }
    }

    /// Hands as much as there is room for to the ring. `None`: nothing is owed.
    pub(crate) fn pay(&mut self, id: ConnId, tx: &mut TxTurn<'_>) -> Option<Paid> {
        let debt = self.get_mut(id)?;
        debt.sent += tx.send_some(id, &debt.memory.bytes()[debt.sent..]);
        if debt.sent < debt.memory.bytes().len() {
            return Some(Paid::Part);
        }
        let paid = Paid::All { refused: debt.refused, closing: debt.closing };
        self.0.remove(&id);
        Some(paid)
    }
}
