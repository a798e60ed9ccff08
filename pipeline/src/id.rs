//! Names of sessions.

use hioload_core::slab::Key;

/// Names a WebSocket session of this process: which worker owns it, and where. Ids are never
/// reused, so one that is kept too long reaches nobody.
///
/// A session is not a transport: where one connection carries many sessions, each has its own id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    worker: u16,
    slot: u32,
    generation: u32,
}

impl SessionId {
    pub(crate) fn new(worker: u16, key: Key) -> Self {
        SessionId { worker, slot: key.slot, generation: key.generation }
    }

    pub(crate) fn key(self) -> Key {
        Key { slot: self.slot, generation: self.generation }
    }

    /// Index of the worker that owns the session.
    pub fn worker(self) -> usize {
        usize::from(self.worker)
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.worker, self.slot, self.generation)
    }
}
