//! Freezing and thawing: an idle connection is its entry in the table, 64 bytes, and no more.
//!
//! What can be answered without a socket (keep-alives, resets, challenges) is answered from the
//! record. Anything else thaws it first.

use std::net::IpAddr;
use std::time::Duration;

use hioload_core::Now;

use super::input::{Edges, Verdict};
use super::{Core, Tcp};
use crate::Gone;
use crate::conn::{Phase, Table};
use crate::frame::{FIN, RST, Segment};
use crate::link::LinkTx;
use crate::live::before;
use crate::net::Out;
use crate::slots::Slots;

impl Tcp {
    /// Gives a quiescent connection's memory back.
    pub(super) fn freeze(&mut self, index: u32) {
        let conn = self.table.conns.at_mut(index);
        let slot = conn.live;
        let live = self.table.slots.live(slot);
        conn.record = live.record(Slots::class(slot));
        conn.phase = Phase::Frozen;
        conn.live = crate::conn::NIL;
        if let Some(timer) = conn.timer.take() {
            self.core.wheel.cancel(timer);
        }
        self.table.slots.remove(slot);
        self.core.counters.freezes_total.inc();
        self.core.counters.frozen.add(1);
        self.core.counters.slab_bytes.set(self.table.slots.bytes() as u64);
    }

    /// The timer of a frozen connection whose user has output for it.
    pub(super) fn retry_thaw(&mut self, index: u32, local: IpAddr, now: Now) {
        // The key died with the firing, and says that output waits.
        let (table, core) = (&mut self.table, &mut self.core);
        if core.thaw(table, index, local, now) {
            let slot = table.conns.at(index).live;
            table.slots.live_mut(slot).wanted = 1;
            self.mark_dirty(index);
        } else {
            core.await_memory(table, index, now);
        }
    }

    /// Gives a frozen connection a socket again.
    pub(super) fn thaw<T: LinkTx>(&mut self, index: u32, out: &mut Out<'_, T>) -> bool {
        let local = out.net.local_ip(self.table.conns.at(index).tuple.local);
        self.core.thaw(&mut self.table, index, local, out.now)
    }

    /// Moves a quiescent connection to other rings.
    pub(super) fn move_rings<T: LinkTx>(&mut self, index: u32, class: u8, out: &mut Out<'_, T>) {
        let was = *self.table.slots.live(self.table.conns.at(index).live);
        let old_class = Slots::class(self.table.conns.at(index).live);
        self.freeze(index);
        for class in [class, old_class] {
            self.table.conns.at_mut(index).record.ring_class = class;
            if self.thaw(index, out) {
                let slot = self.table.conns.at(index).live;
                let live = self.table.slots.live_mut(slot);
                // What the user waits for, and what the operator looks at, outlives the rings.
                (live.wanted, live.rtt_us) = (was.wanted, was.rtt_us);
                live.retransmits = was.retransmits;
                (live.slow_until, live.left) = (was.slow_until, was.left);
                return self.mark_dirty(index);
            }
        }
        // The memory that it had a moment ago is gone.
        self.core.counters.drop_no_memory_total.inc();
        self.finish_frozen(index, Gone::Failed, out.now);
    }

    /// A segment for a frozen connection.
    pub(super) fn frozen_segment<T: LinkTx>(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        let record = self.table.conns.at(index).record;
        let edges = Edges {
            snd_una: record.snd_nxt,
            snd_max: record.snd_nxt,
            rcv_nxt: record.rcv_nxt,
            rcv_edge: record.rcv_edge,
            send_window_max: Edges::send_window_max(record.peer_scale),
        };
        let window = Tcp::ring_window(record.ring_class);
        match edges.judge(segment) {
            Verdict::Take if segment.has(RST) => {
                self.core.counters.resets_in_total.inc();
                return self.finish_frozen(index, Gone::Reset, out.now);
            }
            verdict @ Verdict::Challenge => {
                let stand = (record.snd_nxt, record.rcv_nxt, window);
                return self.refuse(index, verdict, segment, stand, out);
            }
            Verdict::Ignore => return,
            Verdict::Take | Verdict::TakeData => {}
        }
        let ahead = segment.seq.wrapping_sub(record.rcv_nxt);
        if segment.len() == 0 && ahead == 0 {
            // Nothing new but perhaps a window.
            self.table.conns.at_mut(index).record.peer_window = segment.window;
            return;
        }
        let end = segment.seq.wrapping_add(segment.data_len);
        if !before(record.rcv_nxt, end) && !segment.has(FIN) {
            // A keep-alive (RFC 9293 §3.8.4), or data that we have: where we are is the answer.
            return self.challenge(index, record.snd_nxt, record.rcv_nxt, window, out);
        }
        if self.thaw(index, out) {
            let slot = self.table.conns.at(index).live;
            self.live_segment(index, slot, segment, out);
        } else {
            self.core.counters.drop_no_memory_total.inc();
        }
    }

    /// Ends a frozen connection and tells the user.
    pub(super) fn finish_frozen(&mut self, index: u32, gone: Gone, now: Now) {
        let id = self.table.conns.id(index);
        self.core.closed.push_back((id, gone));
        self.core.counters.frozen.sub(1);
        if self.table.conns.at(index).record.cookie && self.has_time_wait_room() {
            return self.remember(index, now);
        }
        self.leave(index);
    }

    /// The user aborted a frozen connection; the reset is sent.
    pub(crate) fn abort_frozen(&mut self, index: u32, now: Now) {
        self.finish_frozen(index, Gone::Finished, now);
    }

    /// The path MTU of a class.
    pub(crate) fn path_mtu(&self, class: u8) -> u16 {
        self.core.paths[usize::from(class)].mtu
    }
}

/// How often a frozen connection with output tries to get memory.
const MEMORY_EVERY: Duration = Duration::from_millis(20);

impl Core {
    /// The user has output for a frozen connection, and there is no memory to thaw it: it is tried
    /// again, and `Writable` follows. A timer on a frozen connection means that, and nothing else.
    pub(crate) fn await_memory(&mut self, table: &mut Table, index: u32, now: Now) {
        let timer = &mut table.conns.at_mut(index).timer;
        if timer.is_none() {
            self.counters.drop_no_memory_total.inc();
            *timer = Some(self.wheel.insert(now.after(MEMORY_EVERY), index));
        }
    }

    /// Gives a frozen connection a socket; false where there is no memory.
    pub(crate) fn thaw(&mut self, table: &mut Table, index: u32, local: IpAddr, now: Now) -> bool {
        let conn = table.conns.at(index);
        let (tuple, record) = (conn.tuple, conn.record);
        let Some(slot) = self.revive(table, &tuple, local, &record, now) else { return false };
        let conn = table.conns.at_mut(index);
        conn.phase = Phase::Live;
        conn.live = slot;
        let live = table.slots.live_mut(slot);
        live.conn = index;
        // Output was refused while there was no memory: any room is news.
        live.wanted = u32::from(conn.timer.is_some());
        self.counters.thaws_total.inc();
        self.counters.frozen.sub(1);
        self.counters.slab_bytes.set(table.slots.bytes() as u64);
        true
    }
}
