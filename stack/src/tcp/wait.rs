//! TIME_WAIT as a record: the tuple and where both sides ended, without a socket
//! (RFC 9293 §3.4.3 and §3.10.7.4).

use hioload_core::Now;

use super::Tcp;
use super::cookie::LIFETIME;
use crate::Gone;
use crate::conn::{NIL, Phase, Record};
use crate::frame::{ACK, FIN, RST, SYN, Segment};
use crate::link::LinkTx;
use crate::live::before;
use crate::net::Out;

/// A new ISN lies beyond the old connection's last byte by at least this (RFC 9293 §3.6.1).
const ISN_GAP: u32 = 1 << 17;

impl Tcp {
    /// A live connection has ended in TIME-WAIT: the user is told, the memory goes back, a record
    /// stays.
    pub(super) fn enter_time_wait<T: LinkTx>(&mut self, index: u32, out: &Out<'_, T>) {
        if !self.has_time_wait_room() {
            return self.finish(index, Gone::Finished, out.now);
        }
        self.end_in_time_wait(index, Gone::Finished, out.now);
    }

    pub(super) fn has_time_wait_room(&self) -> bool {
        self.core.time_wait < self.core.config.time_wait_max
    }

    /// Tells the user that a live connection is gone, gives its memory back, and remembers it.
    pub(super) fn end_in_time_wait(&mut self, index: u32, gone: Gone, now: Now) {
        let id = self.table.conns.id(index);
        let conn = self.table.conns.at_mut(index);
        let slot = conn.live;
        let live = *self.table.slots.live(slot);
        if conn.opened || live.outgoing {
            self.core.closed.push_back((id, gone));
        }
        conn.record = Record {
            snd_nxt: live.snd_nxt,
            rcv_nxt: live.rcv_nxt,
            rcv_edge: live.rcv_edge,
            cookie: live.cookie,
            ..Record::default()
        };
        conn.live = NIL;
        self.table.slots.remove(slot);
        self.core.counters.slab_bytes.set(self.table.slots.bytes() as u64);
        self.remember(index, now);
    }

    fn wait_until(&self, cookie: bool, now: Now) -> Now {
        let time = self.core.config.time_wait;
        now.after(if cookie { time.max(LIFETIME) } else { time })
    }

    /// Makes an entry without memory a TIME_WAIT record; its names are dead from now on.
    pub(super) fn remember(&mut self, index: u32, now: Now) {
        let at = self.wait_until(self.table.conns.at(index).record.cookie, now);
        let conn = self.table.conns.at_mut(index);
        conn.phase = Phase::TimeWait;
        conn.generation = conn.generation.wrapping_add(1);
        if let Some(timer) = conn.timer.take() {
            self.core.wheel.cancel(timer);
        }
        conn.timer = Some(self.core.wheel.insert(at, index));
        self.core.time_wait += 1;
        self.core.counters.time_wait.set(u64::from(self.core.time_wait));
    }

    pub(super) fn forget_time_wait(&mut self, index: u32) {
        self.core.time_wait -= 1;
        self.core.counters.time_wait.set(u64::from(self.core.time_wait));
        self.leave(index);
    }

    /// A segment for a tuple that was closed a short time ago.
    pub(super) fn time_wait_segment<T: LinkTx>(
        &mut self,
        index: u32,
        hash: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        let conn = self.table.conns.at(index);
        let (tuple, record) = (conn.tuple, conn.record);
        // RFC 1337: a reset must not cut TIME-WAIT short.
        if segment.has(RST) {
            return self.core.counters.drop_blind_rst_total.inc();
        }
        let reusable = segment.has(SYN)
            && !segment.has(ACK)
            && before(record.rcv_nxt, segment.seq)
            && self.is_listening(segment.dst_port)
            && self.core.accepting == crate::Accepting::Yes;
        if reusable {
            // RFC 9293 §3.6.1: the SYN is beyond all that the old connection said.
            let mut isn = self.core.secret.isn(&tuple, out.now);
            let floor = record.snd_nxt.wrapping_add(ISN_GAP);
            if before(isn, floor) {
                isn = floor;
            }
            self.forget_time_wait(index);
            self.core.counters.time_wait_reused_total.inc();
            return self.open_passive(tuple, hash, isn, segment, out);
        }
        if segment.has(FIN) {
            // Our last ACK was lost: the time starts again.
            let at = self.wait_until(record.cookie, out.now);
            if let Some(timer) = &self.table.conns.at(index).timer {
                self.core.wheel.reschedule(timer, at);
            }
        }
        if segment.len() > 0 {
            self.challenge(index, record.snd_nxt, record.rcv_nxt, 0, out);
        }
    }
}
