//! SYN cookies (RFC 4987 §3.6): when too many handshakes are half-open, the next SYN-ACKs carry all
//! that is needed to make the connection from the ACK, and nothing is kept.
//!
//! 32 bits: 26 of keyed hash over tuple, peer's ISN and period; 2 of the period of 64 s; 3 of the
//! peer's MSS; 1 for SACK. No window scale: without one in the SYN-ACK the peer doesn't scale, and
//! with our rings nothing is lost by that. The ACK that brings a cookie back would make the
//! connection again if it came again: a tuple that was made from one is remembered, when it closes,
//! for as long as the cookie is good (as TIME_WAIT).

use std::time::Duration;

use hioload_core::Now;

use super::Tcp;
use crate::conn::{NO_SCALE, Record, Tuple};
use crate::frame::{ACK, Bare, SYN, Segment};
use crate::link::LinkTx;
use crate::net::Out;

/// MSS values that fit in three bits: common ones.
const MSS: [u16; 8] = [536, 1220, 1300, 1400, 1440, 1460, 4312, 8940];
const PERIOD_NS: u64 = 64_000_000_000;
/// A cookie is good for no longer than this.
pub(super) const LIFETIME: Duration = Duration::from_nanos(2 * PERIOD_NS);
/// How long after a cookie was sent a segment without a good one isn't reset.
const OVERTAKEN: Duration = Duration::from_secs(60);

fn period(now: Now) -> u64 {
    now.as_nanos() / PERIOD_NS
}

impl Tcp {
    fn cookie(&self, tuple: &Tuple, peer_isn: u32, period: u64, extra: u8) -> u32 {
        let mac = self.core.secret.cookie(tuple, peer_isn, period, extra);
        mac << 6 | (period as u32 & 3) << 4 | u32::from(extra)
    }

    /// Answers a SYN and remembers nothing.
    pub(super) fn send_cookie<T: LinkTx>(
        &mut self,
        tuple: &Tuple,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        let options = segment.syn_options();
        let peer_mss = if options.mss == 0 { 536 } else { options.mss };
        let fits = MSS.iter().rposition(|&mss| mss <= peer_mss).unwrap_or(0) as u8;
        let extra = fits << 1 | u8::from(options.sack);
        let now = out.now;
        self.core.cookie_sent = Some(now);
        self.core.counters.cookies_out_total.inc();
        let headers = if tuple.v6 { 60 } else { 40 };
        let bare = Bare {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: self.cookie(tuple, segment.seq, period(now), extra),
            ack: segment.seq.wrapping_add(1),
            flags: SYN | ACK,
            window: Tcp::ring_window(self.core.config.ring_class),
            mss: out.net.info.mtu - headers,
            scale: None,
            sack: options.sack,
        };
        out.bare(segment.ip.dst, segment.ip.src, &bare);
    }

    /// Whether a cookie went out so lately that what looks wrong may be a handshake out of order.
    pub(super) fn cookies_under_way(&self, now: Now) -> bool {
        self.core.cookie_sent.is_some_and(|sent| now.since(sent) < OVERTAKEN)
    }

    /// Whether a segment acknowledges a cookie of ours that hasn't run out.
    pub(super) fn is_good_cookie(&self, tuple: &Tuple, segment: &Segment<'_>, now: Now) -> bool {
        if self.core.cookie_sent.is_none() {
            return false;
        }
        let cookie = segment.ack.wrapping_sub(1);
        let peer_isn = segment.seq.wrapping_sub(1);
        let (extra, low) = ((cookie & 15) as u8, u64::from(cookie >> 4 & 3));
        let current = period(now);
        [Some(current), current.checked_sub(1)].into_iter().flatten().any(|period| {
            period & 3 == low && self.cookie(tuple, peer_isn, period, extra) == cookie
        })
    }

    /// Makes a connection of an ACK that brings a good cookie back. False where a reset is due.
    pub(super) fn take_cookie<T: LinkTx>(
        &mut self,
        tuple: Tuple,
        hash: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) -> bool {
        let now = out.now;
        // Out of flood nobody may guess: a cookie lives for two periods at most.
        let Some(sent) = self.core.cookie_sent else { return false };
        if now.since(sent) > LIFETIME {
            self.core.cookie_sent = None;
            return false;
        }
        if !self.is_good_cookie(&tuple, segment, now) {
            self.core.counters.cookies_bad_total.inc();
            // Perhaps the second segment overtook the first: a reset would end a connection that
            // is about to be made. Without one, the peer sends both again.
            return self.cookies_under_way(now);
        }
        let extra = (segment.ack.wrapping_sub(1) & 15) as u8;
        let record = Record {
            snd_nxt: segment.ack,
            rcv_nxt: segment.seq,
            rcv_edge: segment
                .seq
                .wrapping_add(u32::from(Tcp::ring_window(self.core.config.ring_class))),
            peer_window: segment.window,
            peer_mss: MSS[usize::from(extra >> 1)],
            peer_scale: NO_SCALE,
            peer_sack: extra & 1 == 1,
            cookie: true,
            ring_class: self.core.config.ring_class,
            mtu_class: 0,
        };
        if self.table.conns.is_full() {
            self.core.counters.drop_no_memory_total.inc();
            return true;
        }
        if !(self.core.admits)(segment.ip.src) {
            self.core.counters.drop_at_limit_total.inc();
            return true;
        }
        let local = out.net.local_ip(tuple.local);
        let Some(slot) = self.core.revive(&mut self.table, &tuple, local, &record, now) else {
            self.core.counters.drop_no_memory_total.inc();
            return true;
        };
        let Some(index) = self.enter(tuple, hash, slot) else {
            self.table.slots.remove(slot);
            return true;
        };
        self.table.slots.live_mut(slot).conn = index;
        self.core.counters.cookies_good_total.inc();
        self.handshake_done(index);
        // What it carries counts as well.
        self.live_segment(index, slot, segment, out);
        self.mark_dirty(index);
        true
    }
}
