//! What a worker owns besides its backend and its handler: sessions, their queues and assemblies,
//! timers, memory, counters. The rest of the crate is behaviour over it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hioload_core::clock::Now;
use hioload_core::local::{LocalFrame, LocalFrames};
use hioload_core::pool::Pool;
use hioload_core::prefetch;
use hioload_core::slab::{Key, Slab};
use hioload_core::wheel::{TimerKey, TimerWheel};
use hioload_ws_proto::Rules;
use hioload_ws_proto::mask::MaskKeys;

use crate::admission::Admission;
use crate::backend::ConnId;
use crate::counters::WorkerCounters;
use crate::id::SessionId;
use crate::inbox::Remote;
use crate::queue::Queue;
use crate::session::{Assembly, Ending, Index, Link, Phase, Session};
use crate::settings::Settings;

/// Broadcasts under way on one worker, before more are dropped and counted.
pub(crate) const MAX_BROADCASTS: usize = 1024;
/// The newest sessions that are remembered for closing when memory runs out.
pub(crate) const MAX_NEWEST: usize = 1024;

/// What the backend is asked once the halves of the turn are gone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Connect(Key, SocketAddr),
    Close(ConnId),
    Abort(ConnId),
    Pause(ConnId),
    Resume(ConnId),
}

/// What the handler is owed. It is told between its own calls, never from inside one.
pub(crate) enum Owed {
    /// The session can be sent to.
    Ready(Key),
    /// Its output has left.
    Writable(Key),
    /// It is over.
    Ended(Key, Ending),
}

/// A broadcast that is being delivered to this worker's sessions.
pub(crate) struct Delivery {
    pub(crate) frame: LocalFrame,
    pub(crate) payload_len: usize,
    pub(crate) except: Option<Key>,
    /// The slot to go on from.
    pub(crate) next_slot: u32,
}

/// What a timer of the wheel is for: a session's slot, or one of the handler's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// The session's one timer: what is due follows from its phase.
    Session(u32),
    /// An index into the handler's timers.
    Handler(u32),
}

impl Timer {
    const HANDLER: u32 = 1 << 31;

    pub(crate) fn token(self) -> u32 {
        match self {
            Timer::Session(slot) => slot,
            Timer::Handler(index) => index | Self::HANDLER,
        }
    }

    pub(crate) fn from_token(token: u32) -> Self {
        match token & Self::HANDLER {
            0 => Timer::Session(token),
            _ => Timer::Handler(token & !Self::HANDLER),
        }
    }
}

/// See the module.
pub(crate) struct Hub<S> {
    pub(crate) worker: u16,
    pub(crate) settings: Settings,
    /// What holds for the input of sessions that a peer opened.
    pub(crate) rules: Rules,
    /// The same for sessions that this side opened.
    pub(crate) client_rules: Rules,
    /// Masking keys, from the first connection on that this side opens.
    pub(crate) keys: Option<MaskKeys>,
    /// Sessions whose transport never came to be; forgotten once the handler was told.
    pub(crate) unborn: Vec<Key>,
    pub(crate) now: Now,
    pub(crate) sessions: Slab<Session>,
    /// Tokens of timers that fired; kept for its memory.
    pub(crate) fired: Vec<u32>,
    /// The handler's state of each session, by slot.
    pub(crate) states: Vec<Option<S>>,
    /// By the slot of the connection.
    pub(crate) links: Vec<Link>,
    pub(crate) assemblies: Slab<(Key, Assembly)>,
    /// Where the search for large ones goes on.
    pub(crate) assembly_cursor: u32,
    pub(crate) queues: Slab<(Key, Queue)>,
    /// Where the search for slow readers goes on.
    pub(crate) queue_cursor: u32,
    /// Emptied queues, to be used again with the memory that they have.
    pub(crate) spare_queues: Vec<Queue>,
    pub(crate) wheel: TimerWheel,
    /// Tokens of the handler's timers that are set.
    pub(crate) handler_timers: Slab<(u64, Option<TimerKey>)>,
    pub(crate) pool: Pool,
    pub(crate) frames: LocalFrames,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) ops: Vec<Op>,
    pub(crate) owed: Vec<Owed>,
    pub(crate) deliveries: VecDeque<Delivery>,
    pub(crate) newest: VecDeque<Key>,
    pub(crate) remote: Remote,
    pub(crate) admission: Admission,
    /// The address of each connection, by slot of its session; filled only where addresses are
    /// limited.
    pub(crate) addresses: HashMap<u32, IpAddr>,
    pub(crate) draining: bool,
    /// For the text of HTTP responses; kept for its memory.
    pub(crate) scratch: Vec<u8>,
}

impl<S> Hub<S> {
    pub(crate) fn id(&self, key: Key) -> SessionId {
        SessionId::new(self.worker, key)
    }

    /// The session that a connection carries.
    #[inline]
    pub(crate) fn by_conn(&self, conn: ConnId) -> Option<Key> {
        let link = self.links.get(conn.slot as usize)?;
        if link.generation != conn.generation {
            return None;
        }
        self.sessions.key_at(link.session.get()?)
    }

    /// Asks the processor for where a connection's session is named.
    #[inline]
    pub(crate) fn prefetch_link(&self, conn: ConnId) {
        if let Some(link) = self.links.get(conn.slot as usize) {
            prefetch(link);
        }
    }

    /// Asks the processor for a connection's session and for the handler's state of it.
    #[inline]
    pub(crate) fn prefetch_session(&self, conn: ConnId) {
        let link = self.links.get(conn.slot as usize);
        let Some(slot) = link.and_then(|link| link.session.get()) else { return };
        self.sessions.prefetch(slot);
        if let Some(state) = self.states.get(slot as usize) {
            prefetch(state);
        }
    }

    /// A session of this worker that is still there.
    pub(crate) fn by_id(&self, id: SessionId) -> Option<Key> {
        let key = id.key();
        (id.worker() == usize::from(self.worker) && self.sessions.get(key).is_some()).then_some(key)
    }

    /// Takes up a session's record, with room for its state.
    pub(crate) fn insert(&mut self, session: Session) -> Key {
        let key = self.sessions.insert(session);
        let slots = key.slot as usize + 1;
        if self.states.len() < slots {
            self.states.resize_with(slots, || None);
        }
        self.counters.connections_total.inc();
        self.counters.connections_open.add(1);
        key
    }

    pub(crate) fn link(&mut self, conn: ConnId, session: Index) {
        let slot = conn.slot as usize;
        if self.links.len() <= slot {
            self.links.resize(slot + 1, Link { generation: 0, session: Index::NONE });
        }
        self.links[slot] = Link { generation: conn.generation, session };
    }

    /// The session's assembly, made if there is none.
    pub(crate) fn assembly(&mut self, key: Key) -> Option<&mut Assembly> {
        let session = self.sessions.get_mut(key)?;
        let slot = match session.assembly.get() {
            Some(slot) => slot,
            None => {
                let slot = self.assemblies.insert((key, Assembly::new())).slot;
                session.assembly = Index::some(slot);
                self.counters.assemblies_open.add(1);
                slot
            }
        };
        self.assemblies.get_slot_mut(slot).map(|(_, assembly)| assembly)
    }

    /// Takes the session's assembly away.
    pub(crate) fn take_assembly(&mut self, key: Key) -> Option<Assembly> {
        let session = self.sessions.get_mut(key)?;
        let slot = session.assembly.get()?;
        session.assembly = Index::NONE;
        self.counters.assemblies_open.sub(1);
        let key = self.assemblies.key_at(slot)?;
        self.assemblies.remove(key).map(|(_, assembly)| assembly)
    }

    /// Gives the session an assembly.
    pub(crate) fn put_assembly(&mut self, key: Key, assembly: Assembly) {
        if let Some(session) = self.sessions.get_mut(key) {
            debug_assert!(session.assembly == Index::NONE);
            session.assembly = Index::some(self.assemblies.insert((key, assembly)).slot);
            self.counters.assemblies_open.add(1);
        }
    }

    /// Sets the session's timer to the earliest of what its phase waits for.
    pub(crate) fn arm(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let due = self.due(session);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.timer = match (session.timer.take(), due) {
            (Some(timer), Some(at)) => {
                self.wheel.reschedule(&timer, at);
                Some(timer)
            }
            (Some(timer), None) => {
                self.wheel.cancel(timer);
                None
            }
            (None, Some(at)) => Some(self.wheel.insert(at, Timer::Session(key.slot).token())),
            (None, None) => None,
        };
    }

    /// When something is due for a session that hears nothing more.
    pub(crate) fn due(&self, session: &Session) -> Option<Now> {
        let s = &self.settings;
        let some = |base: Now, span: Duration| (!span.is_zero()).then(|| base.after(span));
        match session.phase {
            Phase::Connecting | Phase::Asking | Phase::Handshake | Phase::Deferred => {
                Some(session.since.end().after(s.handshake_timeout))
            }
            Phase::Open => {
                let heard = session.heard.end();
                let ping = if session.pinged { None } else { some(heard, s.ping_after) };
                let dead = some(heard, s.dead_after);
                match (ping, dead) {
                    (Some(p), Some(d)) => Some(p.min(d)),
                    (p, d) => p.or(d),
                }
            }
            Phase::Closing | Phase::Flushing | Phase::Leaving => {
                Some(session.since.end().after(s.close_timeout))
            }
        }
    }

    /// Moves the session on, with the deadline of the new phase.
    pub(crate) fn enter(&mut self, key: Key, phase: Phase) {
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(key) {
            session.enter(phase, now);
        }
        self.arm(key);
    }

    /// Forgets a session whose transport is gone. The handler was told before.
    pub(crate) fn forget(&mut self, key: Key) {
        self.take_assembly(key);
        self.take_queue(key);
        let Some(session) = self.sessions.remove(key) else { return };
        if let Some(timer) = session.timer {
            self.wheel.cancel(timer);
        }
        self.states[key.slot as usize] = None;
        if let Some(link) = self.links.get_mut(session.conn.slot as usize) {
            link.session = Index::NONE;
        }
        self.counters.connections_open.sub(1);
        if !session.client {
            self.admission.leave(self.addresses.remove(&key.slot));
        }
    }

    /// Takes the session's queue away and gives its memory back.
    pub(crate) fn take_queue(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(slot) = session.queue.get() else { return };
        session.queue = Index::NONE;
        let removed = self.queues.key_at(slot).and_then(|k| self.queues.remove(k));
        let Some((_, mut queue)) = removed else {
            return;
        };
        self.counters.queues_open.sub(1);
        self.counters.queued_bytes.sub(queue.bytes() as u64);
        queue.reset();
        if self.spare_queues.len() < 1024 {
            self.spare_queues.push(queue);
        }
    }

    /// The session whose waiting output holds the most memory, among some of those that have any.
    pub(crate) fn slowest(&mut self) -> Option<Key> {
        largest(&self.queues, &mut self.queue_cursor, |(owner, queue)| {
            Some((queue.held_bytes(), *owner))
        })
    }

    /// The session whose unfinished input holds the most memory, among some of those that have any.
    pub(crate) fn largest_assembly(&mut self) -> Option<Key> {
        largest(&self.assemblies, &mut self.assembly_cursor, |(owner, assembly)| {
            let buf = assembly.buf.as_ref()?;
            Some((buf.capacity(), *owner))
        })
    }

    /// The newest open session that is remembered.
    pub(crate) fn newest(&mut self) -> Option<Key> {
        while let Some(key) = self.newest.pop_back() {
            if self.sessions.get(key).is_some_and(|session| session.phase == Phase::Open) {
                return Some(key);
            }
        }
        None
    }

    /// Remembers a session that just opened.
    pub(crate) fn remember(&mut self, key: Key) {
        if self.newest.len() == MAX_NEWEST {
            self.newest.pop_front();
        }
        self.newest.push_back(key);
    }
}

/// The owner of the largest among the next few entries behind the cursor, which moves on.
fn largest<T>(
    slab: &Slab<T>,
    cursor: &mut u32,
    size: impl Fn(&T) -> Option<(usize, Key)>,
) -> Option<Key> {
    const LOOK_AT: usize = 256;
    let mut most: Option<(usize, Key)> = None;
    for _ in 0..LOOK_AT.min(slab.len()) {
        let Some(at) = slab.next_occupied(*cursor).or_else(|| slab.next_occupied(0)) else { break };
        *cursor = at.slot + 1;
        if let Some((bytes, owner)) = slab.get(at).and_then(&size)
            && most.is_none_or(|(larger, _)| bytes > larger)
        {
            most = Some((bytes, owner));
        }
    }
    most.map(|(_, owner)| owner)
}
