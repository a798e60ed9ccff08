//! What happens in a turn while the windows are lent: events, decoding, batches, timers.
//!
//! Cost of a small message on the straight path: its frame is parsed and unmasked where it lies,
//! a slot of the batch on the stack is filled, and the reply leaves from the same memory. Nothing
//! is copied or allocated.

use std::mem;

use hioload_core::clock::Now;
use hioload_core::pool::{PoolBuf, Pressure};
use hioload_core::slab::Key;
use hioload_ws_proto::CloseCode;
use hioload_ws_proto::Opcode;
use hioload_ws_proto::ProtocolError;
use hioload_ws_proto::encode::MAX_HEADER;
use hioload_ws_proto::handshake::{Refusal, Status};
use hioload_ws_proto::{Decoder, Item};

use crate::backend::{ConnId, Gone, RxHalf};
use crate::batch::{Batch, Messages};
use crate::context::Context;
use crate::handler::{Closed, ClosedBy, Handler};
use crate::hub::{Hub, Op, Owed, Timer};
use crate::inbox::Command;
use crate::message::{Kind, Message, Room};
use crate::output::{Cause, Tx};
use crate::session::{Assembly, Coarse, Ending, Index, Phase, Session};
use crate::window::Out;

/// The lent halves, and all that works with them.
pub(crate) struct Turn<'w, 't, Rx, H: Handler> {
    pub(crate) rx: &'w mut Rx,
    pub(crate) tx: &'w mut Tx<'t>,
    pub(crate) handler: &'w mut H,
    pub(crate) hub: &'w mut Hub<H::Session>,
    pub(crate) messages: Messages<'t>,
}

impl<'t, Rx: RxHalf<'t>, H: Handler> Turn<'_, 't, Rx, H> {
    /// The worker begins.
    pub(crate) fn start(&mut self) {
        let Turn { handler, hub, tx, .. } = self;
        handler.on_start(&mut Context { hub, tx: *tx, replying_to: None });
        self.settle_owed();
    }

    /// A connection begins, within the limits or not.
    pub(crate) fn opened(&mut self, conn: ConnId, pressure: Pressure) {
        if let Some(key) = self.hub.by_conn(conn) {
            return self.established(key);
        }
        let hub = &mut *self.hub;
        let key = hub.insert(Session::new(conn, hub.now));
        hub.link(conn, Index::some(key.slot));
        let peer = match hub.admission.by_address() {
            true => self.tx.peer(conn).map(|peer| peer.ip()),
            false => None,
        };
        if let Some(ip) = peer {
            hub.addresses.insert(key.slot, ip);
        }
        hub.arm(key);
        if hub.admission.enter(peer).is_err() {
            hub.counters.refused_by_limit_total.inc();
            self.refuse(key, &unavailable("the limit of connections is reached"));
        } else if pressure >= Pressure::Refuse {
            hub.counters.refused_by_memory_total.inc();
            self.refuse(key, &unavailable("memory is short"));
        } else if hub.draining {
            self.refuse(key, &unavailable("the server is going away"));
        }
    }

    /// Takes all that waits on a connection.
    pub(crate) fn readable(&mut self, conn: ConnId) {
        while let Some(window) = self.rx.take(conn) {
            let Some(key) = self.hub.by_conn(conn) else { continue };
            self.received(key, window.into_room());
        }
    }

    fn received(&mut self, key: Key, bytes: &'t mut [u8]) {
        let now = self.hub.now;
        let Some(session) = self.hub.sessions.get_mut(key) else { return };
        session.heard = Coarse::of(now);
        session.pinged = false;
        let (phase, unarmed) = (session.phase, session.timer.is_none());
        if unarmed {
            // It had nothing to wait for, having been pinged; now its idle time begins anew.
            self.hub.arm(key);
        }
        match phase {
            Phase::Open | Phase::Closing => self.frames(key, bytes),
            Phase::Handshake => {
                if let Some(rest) = self.handshake(key, bytes) {
                    self.frames(key, rest);
                }
            }
            Phase::Asking => {
                if let Some(rest) = self.answered(key, bytes) {
                    self.frames(key, rest);
                }
            }
            Phase::Deferred => self.keep_behind(key, bytes),
            Phase::Connecting | Phase::Flushing | Phase::Leaving => {}
        }
    }

    /// Decodes frames in place until the window is used up or the session ends.
    pub(crate) fn frames(&mut self, key: Key, window: &'t mut [u8]) {
        self.decode(key, window, |_, room, head| Some((Room::Window(room), head)));
    }

    /// Decodes frames in memory that isn't lent for the turn: messages are copied out of it.
    pub(crate) fn kept_frames(&mut self, key: Key, kept: &mut [u8]) {
        self.decode(key, kept, |turn, room, head| {
            let mut gathered = None;
            let copied = turn.append(&mut gathered, &room[head..], 0);
            gathered.filter(|_| copied).map(|buf| (Room::Assembled(buf), MAX_HEADER))
        });
    }

    /// `place` says where a whole message of the window is to lie until it is handled.
    fn decode<'a>(
        &mut self,
        key: Key,
        mut window: &'a mut [u8],
        place: impl Fn(&Self, &'a mut [u8], usize) -> Option<(Room<'t>, usize)>,
    ) {
        if window.is_empty() {
            return;
        }
        let Some(session) = self.hub.sessions.get(key) else { return };
        let rules = if session.client { self.hub.client_rules } else { self.hub.rules };
        // RFC 6455 §1.4: after we sent Close, what still comes is discarded.
        let mut open = session.phase == Phase::Open;
        // An idle session has no decoder: a fresh one goes on just as well.
        let mut assembly = self.hub.take_assembly(key);
        let mut fresh = Decoder::new();
        // What the last byte completes is given with it: an empty window has nothing more.
        while !window.is_empty() {
            let decoder = assembly.as_mut().map_or(&mut fresh, |a| &mut a.decoder);
            let item = match decoder.next(&rules, &mut window) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(error) => return self.protocol_error(key, error),
            };
            match item {
                Item::Message { opcode, head, room, .. } => {
                    let Some((room, head)) = place(self, room, head) else {
                        return self.out_of_memory_for_message(key);
                    };
                    if open && self.message(key, kind_of(opcode), room, head) {
                        open = self.phase(key) == Some(Phase::Open);
                    }
                }
                Item::Part { opcode, last, data, frame_left, .. } => {
                    let mut gathering = assembly.take().unwrap_or_else(|| {
                        let mut made = Assembly::new();
                        mem::swap(&mut made.decoder, &mut fresh);
                        made
                    });
                    if !self.append(&mut gathering.buf, data, frame_left) {
                        return self.out_of_memory_for_message(key);
                    }
                    if last && let Some(buf) = gathering.buf.take() {
                        self.hub.counters.messages_assembled_total.inc();
                        let room = Room::Assembled(buf);
                        if open && self.message(key, kind_of(opcode), room, MAX_HEADER) {
                            open = self.phase(key) == Some(Phase::Open);
                        }
                    }
                    assembly = Some(gathering);
                }
                Item::Ping(payload) => {
                    self.hub.counters.pings_in_total.inc();
                    if self.phase(key) == Some(Phase::Open)
                        && !self.hub.control(key, Opcode::Pong, &payload, self.tx)
                    {
                        self.hub.counters.refused_by_memory_total.inc();
                    }
                }
                Item::Pong(_) => {}
                Item::Close(given) => {
                    self.dispatch();
                    let (code, reason) = match &given {
                        Some((code, reason)) => (*code, reason.as_str()),
                        None => (CloseCode::NO_STATUS, ""),
                    };
                    return self.peer_closed(key, code, reason);
                }
            }
        }
        let idle = match &assembly {
            Some(assembly) => assembly.buf.is_none() && assembly.decoder.is_idle(),
            None => fresh.is_idle(),
        };
        if !idle {
            let mut keep = assembly.unwrap_or_else(Assembly::new);
            if keep.buf.is_none() && keep.decoder.is_idle() {
                keep.decoder = fresh;
            }
            self.hub.put_assembly(key, keep);
        }
    }

    fn phase(&self, key: Key) -> Option<Phase> {
        self.hub.sessions.get(key).map(|session| session.phase)
    }

    /// Adds a whole message to the batch, and hands the batch on when it is full. True: that was
    /// done, and the session may have been closed by it.
    #[inline]
    fn message(&mut self, key: Key, kind: Kind, room: Room<'t>, head: usize) -> bool {
        let message = Message { session: self.hub.id(key), kind, head: head as u32, room };
        let counters = &self.hub.counters;
        counters.messages_in_total.inc();
        counters.message_bytes_in_total.add(message.len() as u64);
        self.messages.push(message);
        let full = self.messages.len() >= self.hub.settings.batch;
        if full {
            self.dispatch();
        }
        full
    }

    #[cold]
    fn out_of_memory_for_message(&mut self, key: Key) {
        self.dispatch();
        self.hub.counters.refused_by_memory_total.inc();
        self.hub.cut(key, CloseCode::TRY_AGAIN_LATER, "out of memory", self.tx);
        self.settle_owed();
    }

    /// Appends to a message that is being gathered, behind headroom for a header. The buffer
    /// doubles, so that a peer's claim alone takes no memory. False: memory ran out.
    fn append(&self, gathered: &mut Option<PoolBuf>, data: &[u8], frame_left: u64) -> bool {
        let have = gathered.as_ref().map_or(MAX_HEADER, PoolBuf::len);
        let need = have + data.len();
        if gathered.as_ref().is_none_or(|buf| buf.tail_room() < data.len()) {
            let announced = need.saturating_add(usize::try_from(frame_left).unwrap_or(usize::MAX));
            let wanted = announced.min(2 * need).max(need);
            let Some(mut larger) =
                self.hub.pool.alloc(wanted).or_else(|| self.hub.pool.alloc(need))
            else {
                return false;
            };
            match gathered.take() {
                Some(smaller) => larger.append(smaller.data()),
                None => larger.append(&[0; MAX_HEADER]),
            };
            *gathered = Some(larger);
        }
        gathered.as_mut().is_some_and(|buf| buf.append(data) == data.len())
    }

    fn protocol_error(&mut self, key: Key, error: ProtocolError) {
        self.dispatch();
        self.hub.counters.protocol_errors_total.inc();
        tracing::debug!(session = %self.hub.id(key), %error, "protocol error");
        if self.phase(key) == Some(Phase::Closing) {
            // Our Close is on its way already; nothing may follow it.
            let code = self.hub.sessions.get(key).and_then(|session| session.sent_code);
            let code = code.unwrap_or(CloseCode::ABNORMAL);
            self.hub.finish(key, Ending::new(code, ClosedBy::Us));
        } else {
            self.hub.fail(key, error.close_code(), &error.to_string(), self.tx);
        }
        self.settle_owed();
    }

    /// The peer's Close arrived: it is answered in kind (RFC 6455 §5.5.1), or it
    /// answers ours. Either way the server closes the transport.
    fn peer_closed(&mut self, key: Key, code: CloseCode, reason: &str) {
        let by = match self.phase(key) {
            Some(Phase::Open) => {
                self.hub.close_frame(key, code, reason, self.tx);
                ClosedBy::Peer
            }
            Some(Phase::Closing) => ClosedBy::Us,
            _ => return,
        };
        self.hub.finish(key, Ending::with_reason(code, reason, by));
        self.settle_owed();
    }

    /// Hands the batch to the handler.
    pub(crate) fn dispatch(&mut self) {
        if self.messages.len() == 0 {
            return;
        }
        self.hub.counters.batches_total.inc();
        let context = Context { hub: self.hub, tx: self.tx, replying_to: None };
        self.handler.on_batch(&mut Batch { messages: &mut self.messages, context });
        self.messages.clear();
        if !self.hub.owed.is_empty() {
            self.settle_owed();
        }
    }

    /// Tells the handler what it is owed. What its own calls bring about is told too, in the
    /// order in which it happened; each session can be owed only a few, so this ends.
    pub(crate) fn settle_owed(&mut self) {
        while !self.hub.owed.is_empty() {
            let mut owed = mem::take(&mut self.hub.owed);
            for debt in owed.drain(..) {
                match debt {
                    Owed::Ready(key) => {
                        let id = self.hub.id(key);
                        let Turn { handler, hub, tx, .. } = self;
                        handler.on_ready(id, &mut Context { hub, tx: *tx, replying_to: None });
                    }
                    Owed::Writable(key) => {
                        let id = self.hub.id(key);
                        let Turn { handler, hub, tx, .. } = self;
                        handler.on_writable(id, &mut Context { hub, tx: *tx, replying_to: None });
                    }
                    Owed::Ended(key, ending) => self.ended(key, &ending),
                }
            }
            if self.hub.owed.is_empty() {
                // Keeps its memory.
                self.hub.owed = owed;
            }
        }
    }

    fn ended(&mut self, key: Key, ending: &Ending) {
        let id = self.hub.id(key);
        let Some(state) = self.hub.states[key.slot as usize].take() else { return };
        self.hub.counters.sessions_open.sub(1);
        let closed = Closed { code: ending.code, reason: &ending.reason, by: ending.by };
        let Turn { handler, hub, tx, .. } = self;
        handler.on_close(id, state, closed, &mut Context { hub, tx: *tx, replying_to: None });
    }

    /// The transport has room again.
    pub(crate) fn writable(&mut self, conn: ConnId) {
        let Some(key) = self.hub.by_conn(conn) else { return };
        self.hub.writable(key, self.tx);
    }

    /// The peer sends no more. Without a Close before it, that is an abnormal end; what waits
    /// for the peer still leaves.
    pub(crate) fn eof(&mut self, conn: ConnId) {
        self.dispatch();
        let Some(key) = self.hub.by_conn(conn) else { return };
        let Some(session) = self.hub.sessions.get_mut(key) else { return };
        session.eof = true;
        if session.phase == Phase::Asking {
            return self.not_opened(key, "the server ended the connection without an answer");
        }
        if session.announced {
            self.hub.counters.abnormal_closed_total.inc();
        }
        self.hub.finish(key, Ending::new(CloseCode::ABNORMAL, ClosedBy::Transport));
        self.hub.settle(key);
        self.settle_owed();
    }

    /// The transport is gone.
    pub(crate) fn closed(&mut self, conn: ConnId, gone: Gone) {
        self.dispatch();
        let Some(key) = self.hub.by_conn(conn) else { return };
        let why = match (self.phase(key), gone) {
            (Some(Phase::Connecting), _) => "can't connect",
            (_, Gone::Finished) => "",
            (_, Gone::Reset) => "reset by the peer",
            (_, Gone::Failed) => "the transport failed",
        };
        if self.hub.sessions.get(key).is_some_and(|session| session.announced) {
            match self.phase(key) {
                Some(Phase::Connecting | Phase::Asking) => {
                    self.hub.counters.connects_failed_total.inc();
                }
                _ => self.hub.counters.abnormal_closed_total.inc(),
            }
            tracing::debug!(session = %self.hub.id(key), ?gone, "transport ended");
        }
        let ending = Ending::with_reason(CloseCode::ABNORMAL, why, ClosedBy::Transport);
        self.hub.announce_end(key, ending);
        self.settle_owed();
        self.hub.forget(key);
    }

    /// Does what another thread asks.
    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::Send { session, frame } => {
                if let Some(key) = self.hub.by_id(session) {
                    let payload_len = crate::output::payload_bytes(frame.as_bytes());
                    let out = Out::Shared(self.hub.frames.adopt(frame));
                    // A session that can't take it counts so itself.
                    let _ = self.hub.deliver(key, out, payload_len, Cause::Unasked, self.tx);
                }
            }
            Command::Broadcast { frame, except } => {
                self.hub.broadcast_here(frame, except);
            }
            Command::Close { session, code, reason } => {
                if let Some(key) = self.hub.by_id(session) {
                    // One that is closing already has what was asked.
                    let _ = self.hub.begin_close(key, code, &reason, self.tx);
                }
            }
            Command::Accept { session } => {
                if let Some(key) = self.hub.by_id(session) {
                    self.accept_deferred(key);
                }
            }
            Command::Refuse { session, refusal } => {
                if let Some(key) = self.hub.by_id(session)
                    && self.phase(key) == Some(Phase::Deferred)
                {
                    self.refuse(key, &refusal);
                }
            }
            Command::Drain | Command::Stop => {}
        }
        self.settle_owed();
    }

    /// Does what is due; true when more is due than the budget.
    pub(crate) fn timers(&mut self, budget: usize) -> bool {
        let mut fired = mem::take(&mut self.hub.fired);
        let more = self.hub.wheel.advance(self.hub.now, budget, &mut |token| fired.push(token));
        // A fired key is dead: all are forgotten before any of what they bring is done.
        for token in &fired {
            match Timer::from_token(*token) {
                Timer::Session(slot) => {
                    if let Some(session) = self.hub.sessions.get_slot_mut(slot) {
                        session.timer = None;
                    }
                }
                Timer::Handler(slot) => {
                    if let Some(entry) = self.hub.handler_timers.get_slot_mut(slot) {
                        entry.1 = None;
                    }
                }
            }
        }
        for token in fired.drain(..) {
            match Timer::from_token(token) {
                Timer::Session(slot) => {
                    if let Some(key) = self.hub.sessions.key_at(slot) {
                        self.session_due(key);
                    }
                }
                Timer::Handler(slot) => self.handler_due(slot),
            }
            self.settle_owed();
        }
        self.hub.fired = fired;
        more
    }

    fn handler_due(&mut self, slot: u32) {
        let timers = &mut self.hub.handler_timers;
        // One that was set anew in this slot meanwhile isn't due.
        let Some((_, None)) = timers.get_slot(slot) else { return };
        let Some((token, _)) = timers.key_at(slot).and_then(|key| timers.remove(key)) else {
            return;
        };
        let Turn { handler, hub, tx, .. } = self;
        handler.on_timer(token, &mut Context { hub, tx: *tx, replying_to: None });
    }

    fn session_due(&mut self, key: Key) {
        let now = self.hub.now;
        let Some(session) = self.hub.sessions.get(key) else { return };
        if self.hub.due(session).is_none_or(|at| at > now) {
            // It heard something since the timer was set.
            return self.hub.arm(key);
        }
        match session.phase {
            Phase::Handshake => {
                self.hub.counters.handshakes_timed_out_total.inc();
                let late = Refusal::new(Status::REQUEST_TIMEOUT, "the request did not end in time");
                self.refuse(key, &late);
            }
            Phase::Deferred => {
                self.hub.counters.handshakes_timed_out_total.inc();
                self.refuse(key, &unavailable("no verdict on the request in time"));
            }
            Phase::Connecting => self.not_opened(key, "no connection in time"),
            Phase::Asking => self.not_opened(key, "no answer from the server in time"),
            Phase::Open => self.idle(key, now),
            Phase::Closing => {
                let code = session.sent_code.unwrap_or(CloseCode::ABNORMAL);
                // What was not read by now would only hold the end up.
                self.hub.take_queue(key);
                self.hub.finish(key, Ending::new(code, ClosedBy::Us));
            }
            Phase::Flushing | Phase::Leaving => {
                let conn = session.conn;
                self.hub.take_queue(key);
                self.hub.ops.push(Op::Abort(conn));
                self.hub.enter(key, Phase::Leaving);
            }
        }
    }

    /// Nothing came for a while: ping, or give up.
    fn idle(&mut self, key: Key, now: Now) {
        let Some(session) = self.hub.sessions.get(key) else { return };
        let dead_after = self.hub.settings.dead_after;
        let (conn, unsent_at_ping) = (session.conn, session.unsent_at_ping as usize);
        if !dead_after.is_zero() && session.heard.end().after(dead_after) <= now {
            if self.hub.waiting(key) + self.tx.unsent(conn) >= unsent_at_ping {
                self.hub.counters.idle_closed_total.inc();
                return self.hub.cut(key, CloseCode::GOING_AWAY, "nothing heard", self.tx);
            }
            // It has read some of what waited: a slow reader, not a dead one.
            if let Some(session) = self.hub.sessions.get_mut(key) {
                session.heard = Coarse::of(now);
            }
        }
        // Without the ping: that it leaves is no sign of the peer's.
        let unsent = self.hub.waiting(key) + self.tx.unsent(conn);
        self.hub.counters.pings_out_total.inc();
        if !self.hub.control(key, Opcode::Ping, b"", self.tx) {
            self.hub.counters.refused_by_memory_total.inc();
        }
        if let Some(session) = self.hub.sessions.get_mut(key) {
            session.pinged = true;
            session.unsent_at_ping = u32::try_from(unsent).unwrap_or(u32::MAX);
        }
        self.hub.arm(key);
    }

    /// Delivers broadcasts; true when some are left.
    pub(crate) fn deliveries(&mut self, budget: usize) -> bool {
        self.hub.run_deliveries(budget, self.tx)
    }

    /// Gives memory back when it is short: slow readers go first, then those in the middle of the
    /// largest messages, then the newest sessions, which have lost the least.
    pub(crate) fn relieve(&mut self, pressure: Pressure) {
        const A_TURN: usize = 16;
        if pressure < Pressure::CloseSlow {
            return;
        }
        for _ in 0..A_TURN {
            let Some(key) = self.hub.slowest().or_else(|| match pressure {
                Pressure::CloseNewest => self.hub.largest_assembly().or_else(|| self.hub.newest()),
                _ => None,
            }) else {
                break;
            };
            self.hub.counters.refused_by_memory_total.inc();
            self.hub.cut(key, CloseCode::TRY_AGAIN_LATER, "memory is short", self.tx);
            if let Some(session) = self.hub.sessions.get(key)
                && self.tx.unsent(session.conn) > 0
            {
                // What the transport holds for a slow reader would stay until the deadline.
                self.hub.ops.push(Op::Abort(session.conn));
            }
        }
    }
}

pub(crate) fn unavailable(why: &'static str) -> Refusal {
    Refusal::new(Status::UNAVAILABLE, why)
}

fn kind_of(opcode: Opcode) -> Kind {
    match opcode {
        Opcode::Text => Kind::Text,
        _ => Kind::Binary,
    }
}
