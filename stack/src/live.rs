//! What we know of a connection that has a socket, beside what smoltcp knows and doesn't tell.
//!
//! smoltcp keeps its sequence numbers to itself; ours follow what goes in and out of the socket.

use hioload_core::Now;

use crate::conn::{NO_SCALE, Record};

/// Lies in the slot, next to the socket.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Live {
    /// Its entry in the table.
    pub(crate) conn: u32,
    /// Next byte that we expect (RCV.NXT).
    pub(crate) rcv_nxt: u32,
    /// What stood at the receive ring's beginning.
    pub(crate) rcv_first: u32,
    /// Right edge of the window that we told the peer.
    pub(crate) rcv_edge: u32,
    /// End of the furthest data that arrived in the window: beyond `rcv_nxt`, there is a hole.
    pub(crate) rcv_seen: u32,
    /// Oldest unacknowledged byte (SND.UNA).
    pub(crate) snd_una: u32,
    /// Next byte to send (SND.NXT): the highest that was ever sent, plus one, probes of a closed
    /// window not counted: the peer doesn't take them.
    pub(crate) snd_nxt: u32,
    /// The same with the probes: what the peer may acknowledge.
    pub(crate) snd_max: u32,
    /// Bytes lent out of the receive ring in this turn.
    pub(crate) lent: u32,
    /// Bytes of output that found no room: `Writable` follows when they would.
    pub(crate) wanted: u32,
    /// Segments sent again.
    pub(crate) retransmits: u32,
    /// Smoothed round trip in µs; 0 where none was measured.
    pub(crate) rtt_us: u32,
    /// The segment that is timed: its end, and when it was sent.
    pub(crate) timed: Option<(u32, Now)>,
    /// Last time a segment came in or data went out.
    pub(crate) active: Now,
    /// Last time the peer acknowledged something, or there was nothing to acknowledge.
    pub(crate) progress: Now,
    /// When the handshake began; once the user closed, when that was.
    pub(crate) began: Now,
    /// When the peer may be asked again where it is. On the fast path, when an acknowledgement is due;
    /// MAX: none is.
    pub(crate) ack_at: Now,
    /// No fast path before this.
    pub(crate) slow_until: Now,
    /// When the wheel will wake it.
    pub(crate) timer_at: Now,
    /// RCV.NXT as we last told the peer.
    pub(crate) acked: u32,
    /// On the fast path: the sequence number of the first byte in the send ring's memory.
    pub(crate) tx_first: u32,
    /// On the fast path: bytes in the send ring's memory, from its beginning.
    pub(crate) tx_len: u16,
    /// On the fast path: bytes in the receive ring's memory, from its beginning.
    pub(crate) rx_len: u16,
    /// The fast path has the connection: smoltcp's socket is out of date, and its rings' memory
    /// isn't the socket's (see `tcp::fast`).
    pub(crate) fast: bool,
    /// How often it left the fast path lately.
    pub(crate) left: u8,
    /// It left the fast path, and the peer is owed an acknowledgement that the socket doesn't know of.
    pub(crate) owes_ack: bool,
    pub(crate) peer_window: u16,
    pub(crate) peer_mss: u16,
    pub(crate) peer_scale: u8,
    pub(crate) peer_sack: bool,
    pub(crate) mtu_class: u8,
    /// When a path MTU below the link's is doubted (RFC 8201 §4).
    pub(crate) mtu_until: Now,
    /// Rings that it would rather have.
    pub(crate) wish_class: u8,
    /// Output is refused so that the queues drain and the rings can change, since then; MAX: it
    /// isn't.
    pub(crate) growing: Now,
    /// It tried to change rings and never came to rest.
    pub(crate) restless: bool,
    /// Counted as half-open.
    pub(crate) half_open: bool,
    /// Made from a SYN cookie, whose ACK may come again.
    pub(crate) cookie: bool,
    /// We opened it.
    pub(crate) outgoing: bool,
    /// In the turn's list of those that were sent on or taken from.
    pub(crate) touched: bool,
    /// The user closed it: what arrives is thrown away.
    pub(crate) closing: bool,
    /// The user was told that the peer finished.
    pub(crate) eof_told: bool,
    /// The peer reset it.
    pub(crate) was_reset: bool,
    /// It ended by a timeout or an error.
    pub(crate) failed: bool,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            conn: 0,
            rcv_nxt: 0,
            rcv_first: 0,
            rcv_edge: 0,
            rcv_seen: 0,
            snd_una: 0,
            snd_nxt: 0,
            snd_max: 0,
            lent: 0,
            wanted: 0,
            retransmits: 0,
            rtt_us: 0,
            timed: None,
            active: Now::ZERO,
            progress: Now::ZERO,
            began: Now::ZERO,
            ack_at: Now::ZERO,
            slow_until: Now::ZERO,
            timer_at: Now::MAX,
            acked: 0,
            tx_first: 0,
            tx_len: 0,
            rx_len: 0,
            fast: false,
            left: 0,
            owes_ack: false,
            peer_window: 0,
            peer_mss: 0,
            peer_scale: NO_SCALE,
            peer_sack: false,
            mtu_class: 0,
            mtu_until: Now::ZERO,
            wish_class: 0,
            growing: Now::MAX,
            restless: false,
            half_open: false,
            cookie: false,
            outgoing: false,
            touched: false,
            closing: false,
            eof_told: false,
            was_reset: false,
            failed: false,
        }
    }
}

/// What a call into smoltcp sent for a connection.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Sent {
    /// Segments.
    pub(crate) segments: u32,
    /// Of the last one.
    pub(crate) ack: u32,
    /// Of the last one.
    pub(crate) window: u16,
    /// Where the first segment that occupies sequence space begins, and its length.
    pub(crate) data: Option<(u32, u32)>,
    /// The last one acknowledges something.
    pub(crate) has_ack: bool,
}

/// What of a connection's state its outgoing segments are held against.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Flight {
    snd_una: u32,
    snd_nxt: u32,
    peer_window: u16,
    peer_scale: u8,
}

impl Flight {
    /// The sequence number of a segment without data (RFC 9293 §3.10): SND.NXT, but not beyond the
    /// window where the peer shrank it, as it would refuse that.
    pub(crate) fn pure_seq(&self) -> u32 {
        let shift = if self.peer_scale == NO_SCALE { 0 } else { self.peer_scale.min(14) };
        let edge = self.snd_una.wrapping_add(u32::from(self.peer_window) << shift);
        if before(edge, self.snd_nxt) { edge } else { self.snd_nxt }
    }
}

/// Whether `a` is before `b` in sequence space (RFC 9293 §3.4).
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Live {
    /// Takes note of what was sent; true where it was sent before. Each call into smoltcp sends one segment at most, beside replies.
    #[inline]
    pub(crate) fn note(&mut self, sent: &Sent, now: Now) -> bool {
        if sent.segments == 0 {
            return false;
        }
        if sent.has_ack {
            (self.acked, self.owes_ack) = (sent.ack, false);
            let edge = sent.ack.wrapping_add(u32::from(sent.window));
            if before(self.rcv_edge, edge) {
                self.rcv_edge = edge;
            }
        }
        let Some((seq, len)) = sent.data else { return false };
        let end = seq.wrapping_add(len);
        let again = before(seq, self.snd_max);
        let probe = len == 1 && self.peer_window == 0 && seq == self.snd_una;
        self.active = now;
        if !self.in_flight() {
            self.progress = now;
        }
        if before(self.snd_max, end) {
            self.snd_max = end;
        }
        if !probe && before(self.snd_nxt, end) {
            self.snd_nxt = end;
        }
        if again || probe {
            // Karn: what was sent twice isn't timed (RFC 6298 §3).
            self.timed = None;
        } else if self.timed.is_none() {
            self.timed = Some((end, now));
        }
        if again {
            self.retransmits = self.retransmits.saturating_add(1);
        }
        again
    }

    /// The peer acknowledged up to `ack`.
    #[inline]
    pub(crate) fn acknowledged(&mut self, ack: u32, now: Now) {
        if !before(self.snd_una, ack) {
            return;
        }
        self.snd_una = ack;
        self.progress = now;
        if before(self.snd_nxt, ack) {
            self.snd_nxt = ack;
        }
        if let Some((end, at)) = self.timed
            && !before(ack, end)
        {
            let nanos = now.as_nanos().saturating_sub(at.as_nanos());
            let sample = u32::try_from(nanos / 1_000).unwrap_or(u32::MAX).max(1);
            self.rtt_us = match self.rtt_us {
                0 => sample,
                // RFC 6298 §2.3, alpha = 1/8.
                rtt => (u64::from(rtt) * 7 / 8 + u64::from(sample) / 8) as u32,
            };
            self.timed = None;
        }
    }

    #[inline]
    pub(crate) fn flight(&self) -> Flight {
        Flight {
            snd_una: self.snd_una,
            snd_nxt: self.snd_nxt,
            peer_window: self.peer_window,
            peer_scale: self.peer_scale,
        }
    }

    /// What a socket in rings of this class is brought by to where this one stands.
    pub(crate) fn record(&self, ring_class: u8) -> Record {
        Record {
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            rcv_edge: self.rcv_edge,
            peer_window: self.peer_window,
            peer_mss: self.peer_mss,
            peer_scale: self.peer_scale,
            peer_sack: self.peer_sack,
            cookie: self.cookie,
            ring_class,
            mtu_class: self.mtu_class,
        }
    }

    /// Whether something that we sent isn't acknowledged.
    #[inline]
    pub(crate) fn in_flight(&self) -> bool {
        self.snd_una != self.snd_max
    }
}
