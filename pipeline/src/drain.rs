//! Graceful end: no new connections, a Close (1001) to every session spread over a while, and a
//! hard stop.

use std::time::Duration;

use hioload_core::clock::Now;
use hioload_core::slab::Key;
use hioload_ws_proto::CloseCode;

use crate::backend::RxHalf;
use crate::handler::{ClosedBy, Handler};
use crate::hub::Op;
use crate::session::{Ending, Phase};
use crate::settings::Settings;
use crate::turn::{Turn, unavailable};

/// A drain goes at least this fast, so that a small server ends at once.
const MIN_PER_SECOND: u64 = 2_000;
/// Slots looked at a turn.
const LOOK_AT: usize = 4_096;

/// A drain under way.
pub(crate) struct Drain {
    started: Now,
    spread: Duration,
    limit: Duration,
    /// Sessions at the start; set at the first turn.
    total: Option<u64>,
    closed: u64,
    next_slot: u32,
    listeners_closed: bool,
}

impl Drain {
    pub(crate) fn new(now: Now, settings: &Settings) -> Self {
        Drain {
            started: now,
            spread: settings.drain_spread,
            limit: settings.drain_limit,
            total: None,
            closed: 0,
            next_slot: 0,
            listeners_closed: false,
        }
    }

    /// True once: the listeners are to be closed.
    pub(crate) fn close_listeners(&mut self) -> bool {
        !std::mem::replace(&mut self.listeners_closed, true)
    }

    /// How many sessions are to be told by `now`.
    fn target(&self, now: Now) -> u64 {
        let total = self.total.unwrap_or(0);
        let fast = Duration::from_millis(total * 1000 / MIN_PER_SECOND);
        let spread = self.spread.min(fast).as_nanos();
        if spread == 0 {
            return u64::MAX;
        }
        let elapsed = now.since(self.started).as_nanos();
        if elapsed >= spread {
            return u64::MAX;
        }
        (u128::from(total) * elapsed / spread) as u64
    }
}

impl<'t, Rx: RxHalf<'t>, H: Handler> Turn<'_, 't, Rx, H> {
    /// Goes on with the drain.
    pub(crate) fn drain(&mut self, drain: &mut Drain) {
        self.hub.draining = true;
        drain.total.get_or_insert(self.hub.sessions.len() as u64);
        let now = self.hub.now;
        let hard = now.since(drain.started) >= drain.limit;
        let target = if hard { u64::MAX } else { drain.target(now) };
        for _ in 0..LOOK_AT {
            if drain.closed >= target {
                break;
            }
            let Some(key) = self.hub.sessions.next_occupied(drain.next_slot) else {
                // The next turn begins anew, for those that opened behind the walk.
                drain.next_slot = 0;
                break;
            };
            drain.next_slot = key.slot + 1;
            drain.closed += u64::from(self.tell(key, hard));
        }
        self.settle_owed();
    }

    /// Ends every session at once: the worker stops.
    pub(crate) fn end_all(&mut self) {
        let mut next_slot = 0;
        while let Some(key) = self.hub.sessions.next_occupied(next_slot) {
            next_slot = key.slot + 1;
            self.tell(key, true);
        }
        self.settle_owed();
    }

    /// Tells one session; true when it had to be told.
    fn tell(&mut self, key: Key, hard: bool) -> bool {
        let Some(session) = self.hub.sessions.get(key) else { return false };
        let (conn, phase) = (session.conn, session.phase);
        if hard {
            let ending = Ending::new(CloseCode::GOING_AWAY, ClosedBy::Us);
            self.hub.announce_end(key, ending);
            self.hub.ops.push(Op::Abort(conn));
            return true;
        }
        match phase {
            Phase::Handshake | Phase::Deferred => {
                self.refuse(key, &unavailable("the server is going away"));
                true
            }
            Phase::Open => {
                // It is open, so this can't be refused.
                let _ = self.hub.begin_close(key, CloseCode::GOING_AWAY, "going away", self.tx);
                true
            }
            Phase::Connecting | Phase::Asking => {
                self.not_opened(key, "this side is going away");
                true
            }
            Phase::Closing | Phase::Flushing | Phase::Leaving => false,
        }
    }
}
