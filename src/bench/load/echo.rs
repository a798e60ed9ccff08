//! Echo: what is sent comes back, in order, and is compared to the last byte.

use hioload_ws::{Context, Message, SessionId};

use super::super::args::Mode;
use super::super::payload::Stamp;
use super::{Conn, Load, Phase};

/// Messages sent at a look at the schedule; the answers are read in between.
const BURST: usize = 16 * 1024;
/// The same for the beginning of a closed loop, in payload bytes.
const FILL_BYTES: usize = 2 << 20;
/// What a worker has in flight at most in open loop: messages, and their payload bytes.
const IN_FLIGHT_MAX: u64 = 1 << 20;
const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;

impl Load {
    /// Closed loop: the connections get their depth of messages, some at a look, so that answers
    /// are read in between and what is in flight isn't all in our own memory.
    pub(super) fn fill_some(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        let mut bytes = 0;
        while bytes < FILL_BYTES
            && let Some(&session) = self.live.get(self.filled)
        {
            self.filled += 1;
            for _ in 0..self.plan.depth {
                // Where one can't be sent, that is counted, and the rest could not either.
                if !self.send(session, now, context) {
                    break;
                }
            }
            bytes += self.plan.depth as usize * self.plan.sizes.largest().max(1);
        }
    }

    /// Every connection has got its depth.
    pub(super) fn is_full(&self) -> bool {
        self.filled >= self.live.len()
    }

    /// Open loop: sends what is due, each connection in turn.
    pub(super) fn send_due(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        let Some(mut schedule) = self.schedule else { return };
        for _ in 0..BURST {
            let due = schedule.next();
            if due > now || due >= self.window.until {
                break;
            }
            // Where all are full, it stays due: what waits here is late by the schedule.
            let Some(session) = self.next_with_room(context) else { break };
            schedule.advance();
            let counts_from = self.on_schedule(now, due);
            self.send(session, counts_from, context);
        }
        self.schedule = Some(schedule);
    }

    /// The next connection that may send.
    fn next_with_room(&mut self, context: &mut Context<'_, '_, Conn>) -> Option<SessionId> {
        let largest = self.plan.sizes.largest().max(1);
        let most = IN_FLIGHT_MAX.min((IN_FLIGHT_BYTES_MAX / largest) as u64);
        if self.plan.mode == Mode::Echo && self.in_flight >= most {
            return None;
        }
        // A sender of fan-out gets no answers: what bounds it is what it could not hand over.
        let most_unsent = IN_FLIGHT_BYTES_MAX / self.plan.senders.max(1);
        for _ in 0..self.live.len() {
            self.turn = if self.turn + 1 >= self.live.len() { 0 } else { self.turn + 1 };
            let session = self.live[self.turn];
            let Some(conn) = context.state(session) else { continue };
            let has_room = match self.plan.mode {
                Mode::FanOut => {
                    let sends = (conn.index as usize) < self.plan.senders;
                    sends && context.unsent(session) < most_unsent
                }
                _ => conn.in_flight.len() < self.plan.depth as usize,
            };
            if has_room {
                return Some(session);
            }
        }
        None
    }

    /// Sends the next message of a connection, due at `due`.
    pub(super) fn send(
        &mut self,
        session: SessionId,
        due: u64,
        context: &mut Context<'_, '_, Conn>,
    ) -> bool {
        let Some(conn) = context.state(session) else { return false };
        let stamp = Stamp { sender: conn.index, number: conn.sent, at: due };
        let len = self.payloads.len(stamp.sender, stamp.number);
        let payloads = &self.payloads;
        let built = context.build(session, payloads.kind(), len, |room| payloads.fill(room, stamp));
        if let Err(error) = built {
            self.tally.errors.unsent += 1;
            self.tally.reasons.add(&format!("not sent: {error}"), 1);
            return false;
        }
        let Some(conn) = context.state(session) else { return false };
        conn.sent = conn.sent.wrapping_add(1);
        match self.plan.mode {
            Mode::FanOut => self.publish(stamp.sender),
            _ => {
                conn.in_flight.push_back(due);
                self.in_flight += 1;
            }
        }
        if (self.window.from..self.window.until).contains(&due) {
            self.tally.sent += 1;
        }
        true
    }

    /// A message came: the oldest in flight is answered.
    #[inline]
    pub(super) fn echoed(
        &mut self,
        now: u64,
        message: &Message<'_>,
        context: &mut Context<'_, '_, Conn>,
    ) {
        let session = message.session();
        let Some(conn) = context.state(session) else { return };
        let Some(due) = conn.in_flight.pop_front() else {
            self.tally.errors.unexpected += 1;
            return;
        };
        let stamp = Stamp { sender: conn.index, number: conn.answered, at: due };
        conn.answered = conn.answered.wrapping_add(1);
        self.in_flight -= 1;
        if self.payloads.is_right(message.kind(), message.payload(), stamp) {
            self.arrived(now, due, message.len());
        } else {
            self.tally.errors.corrupt += 1;
        }
        if self.phase == Phase::Run && self.schedule.is_none() && now < self.window.until {
            self.send(session, now, context);
        }
    }

    /// What got no answer until now counts as long as it waited.
    pub(super) fn count_unanswered(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        for place in 0..self.live.len() {
            let session = self.live[place];
            let Some(conn) = context.state(session) else { continue };
            for due in conn.in_flight.drain(..) {
                self.tally.errors.missing += 1;
                if (self.window.from..self.window.until).contains(&due) {
                    self.interval.latency.saturating_record(now.saturating_sub(due));
                }
            }
        }
        self.in_flight = 0;
    }
}
