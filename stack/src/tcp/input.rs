//! A segment arrives: who it is for, whether it may be what it says (RFC 5961), and what smoltcp
//! made of it.

use smoltcp::socket::tcp::State;

use super::fast::{self, Taken};
use super::{MTU_MIN_V6, PATH_MTU_AGE, Path, Tcp, instant, state_name};
use crate::Gone;
use crate::conn::{NIL, NO_SCALE, Phase, Tuple};
use crate::device::Wire;
use crate::frame::{ACK, BARE_MAX, Bare, FIN, RST, SYN, Segment, write_bare};
use crate::icmp::{Notice, Trouble};
use crate::link::LinkTx;
use crate::live::{Live, before};
use crate::net::Out;
use crate::slots::Slots;
use hioload_core::Now;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;

/// What the rules in front of smoltcp say.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// smoltcp shall see it.
    Take,
    /// Its data counts, its old acknowledgement doesn't: smoltcp would drop both.
    TakeData,
    /// Gone without a word.
    Ignore,
    /// Answer by an ACK that shows where we are.
    Challenge,
}

/// The state of a synchronised connection that the rules need.
#[derive(Copy, Clone, Debug)]
pub(super) struct Edges {
    pub(super) snd_una: u32,
    pub(super) snd_max: u32,
    pub(super) rcv_nxt: u32,
    pub(super) rcv_edge: u32,
    /// The most that the peer's window ever can be (MAX.SND.WND of RFC 5961).
    pub(super) send_window_max: u32,
}

impl Edges {
    pub(super) fn send_window_max(scale: u8) -> u32 {
        let shift = if scale == NO_SCALE { 0 } else { u32::from(scale).min(14) };
        0xffff << shift
    }

    fn of(live: &Live) -> Edges {
        Edges {
            snd_una: live.snd_una,
            snd_max: live.snd_max,
            rcv_nxt: live.rcv_nxt,
            rcv_edge: live.rcv_edge,
            send_window_max: Edges::send_window_max(live.peer_scale),
        }
    }

    /// RFC 5961 §3.2 (reset), §4.2 (SYN), §5.2 (data), in a synchronised state.
    pub(super) fn judge(&self, segment: &Segment<'_>) -> Verdict {
        if segment.has(RST) {
            return match segment.seq {
                seq if seq == self.rcv_nxt => Verdict::Take,
                seq if !before(seq, self.rcv_nxt) && before(seq, self.rcv_edge) => {
                    Verdict::Challenge
                }
                _ => Verdict::Ignore,
            };
        }
        if segment.has(SYN) {
            return Verdict::Challenge;
        }
        if !segment.has(ACK) {
            return Verdict::Ignore;
        }
        if before(self.snd_max, segment.ack) {
            return Verdict::Challenge;
        }
        if !before(segment.ack, self.snd_una) {
            return Verdict::Take;
        }
        if self.snd_una.wrapping_sub(segment.ack) > self.send_window_max {
            return Verdict::Challenge;
        }
        if segment.len() > 0 { Verdict::TakeData } else { Verdict::Ignore }
    }
}

/// The largest packet that is copied to have its acknowledgement changed.
const COPY_MAX: usize = 9216;

impl Tcp {
    /// A TCP segment for one of our addresses, checksum verified. `guess` is an entry of the table
    /// whose connection it may be for.
    #[inline]
    pub(crate) fn segment<T: LinkTx>(
        &mut self,
        tuple: &Tuple,
        hash: u32,
        guess: Option<u32>,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        let mut found = (Phase::Free, NIL);
        let conns = &self.table.conns;
        let mut is = |index: u32| {
            let conn = conns.at(index);
            found = (conn.phase, conn.live);
            conn.tuple == *tuple && conn.phase != Phase::Free
        };
        let index = match guess {
            Some(index) if is(index) => Some(index),
            _ => self.core.flow.find(hash, is),
        };
        let Some(index) = index else {
            return self.stranger(*tuple, hash, segment, out);
        };
        let (phase, slot) = found;
        match phase {
            Phase::Live => self.live_segment(index, slot, segment, out),
            Phase::Frozen => self.frozen_segment(index, segment, out),
            Phase::TimeWait => self.time_wait_segment(index, hash, segment, out),
            Phase::Free => debug_assert!(false, "a free entry is in no flow table"),
        }
    }

    pub(super) fn live_segment<T: LinkTx>(
        &mut self,
        index: u32,
        mut slot: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        match self.take_fast(slot, segment, out.now) {
            Some(Taken::All { user }) => {
                let state = State::Established;
                return self.fed(index, News { state, opened: false, user }, out);
            }
            Some(Taken::Nothing) => {
                let live = *self.table.slots.live(slot);
                let verdict = Edges::of(&live).judge(segment);
                let end = segment.seq.wrapping_add(segment.len());
                // A keep-alive (RFC 9293 §3.8.4), or data that we have: where we are is the answer.
                let old = before(segment.seq, live.rcv_nxt) && !before(live.rcv_nxt, end);
                let answer = old && verdict == Verdict::Take && segment.ack == live.snd_una;
                let window = self.window(&live);
                if answer && !segment.has(RST) {
                    return self.challenge(index, live.snd_nxt, live.rcv_nxt, window, out);
                }
                if matches!(verdict, Verdict::Ignore | Verdict::Challenge) {
                    let stand = (live.snd_nxt, live.rcv_nxt, window);
                    return self.refuse(index, verdict, segment, stand, out);
                }
                if !self.leave_fast(index, out.net, out.now) {
                    return;
                }
                slot = self.table.conns.at(index).live;
                self.mark_dirty(index);
            }
            None => {}
        }
        let paths = &mut self.core.paths;
        let can_enter = self.core.config.fast_path && self.core.isn_known;
        // Nearly all segments: the next ones of an open connection. They need one visit.
        let mut entered = false;
        let plain = self.table.slots.with_set(slot, |set, live| {
            let socket = set.get::<tcp::Socket<'_>>(SocketHandle::default());
            let plain = socket.state() == State::Established
                && segment.seq == live.rcv_nxt
                && segment.flags & (SYN | RST | ACK) == ACK
                && is_within_flight(live, segment.ack)
                && !is_duplicate_ack(live, segment);
            if plain && can_enter && fast::may_enter(socket, live, segment, out.now) {
                fast::enter(live, out.now);
                entered = true;
                return None;
            }
            plain.then(|| feed_socket::<_, true>(set, live, paths, segment, segment.ip.packet, out))
        });
        if let Some(news) = plain {
            return self.fed(index, news, out);
        }
        if entered {
            self.table.conns.at_mut(index).live = Slots::on_fast_path(slot);
            return self.live_segment(index, slot, segment, out);
        }
        let (state, live, unsent) = self
            .table
            .slots
            .with(slot, |socket, live| (socket.state(), *live, socket.send_queue()));
        let verdict = match state {
            // smoltcp knows what may answer our SYN (RFC 9293 §3.10.7.3).
            State::SynSent => Verdict::Take,
            // Both sides opened at once: the peer's SYN-ACK acknowledges our SYN, and smoltcp would
            // drop it as old (RFC 9293 figure 8).
            State::SynReceived
                if segment.has(SYN | ACK)
                    && segment.seq.wrapping_add(1) == live.rcv_nxt
                    && segment.ack == live.snd_una.wrapping_add(1) =>
            {
                return self.feed_ack(index, segment, segment.window, &live, out);
            }
            // The peer's SYN again: the SYN-ACK goes again by its timer.
            State::SynReceived if segment.has(SYN) => Verdict::Ignore,
            State::SynReceived if !segment.has(RST) => {
                let isn_acked = segment.ack == live.snd_una.wrapping_add(1);
                let tuple = self.table.conns.at(index).tuple;
                if !isn_acked && !live.outgoing && self.is_good_cookie(&tuple, segment, out.now) {
                    // The first SYN was answered by a cookie, its copy by this handshake.
                    self.finish(index, Gone::Failed, out.now);
                    let hash = self.hash(&tuple);
                    self.take_cookie(tuple, hash, segment, out);
                    return;
                }
                match isn_acked || live.outgoing || !self.cookies_under_way(out.now) {
                    true => Verdict::Take,
                    // smoltcp would reset, and hit the connection that a cookie is about to make.
                    false => Verdict::Ignore,
                }
            }
            // Not a record yet, as this turn isn't over, or the link had no room; a reset ends it no more
            // than that (RFC 1337).
            State::TimeWait if segment.has(RST) => Verdict::Ignore,
            _ => Edges::of(&live).judge(segment),
        };
        // Where our FIN alone is in flight, smoltcp's third duplicate ACK stops the timer, and
        // resends nothing: it must not count them. The FIN goes again by its timer.
        let only_fin = unsent == 0
            && matches!(state, State::FinWait1 | State::Closing | State::LastAck)
            && segment.len() == 0
            && segment.ack == live.snd_una;
        match verdict {
            Verdict::Take if only_fin && !segment.has(RST) => {}
            // smoltcp counts duplicates of the same window only (RFC 5681 §2), and Linux's window
            // grows with each: it would never resend but by its timer.
            Verdict::Take if !is_handshake(state) && is_duplicate_ack(&live, segment) => {
                self.feed_ack(index, segment, live.peer_window, &live, out);
            }
            Verdict::Take => {
                let end = segment.seq.wrapping_add(segment.len());
                let old = before(segment.seq, live.rcv_nxt) && !before(live.rcv_nxt, end);
                // RFC 9293 §3.10.7.4: a closed window still takes acknowledgements.
                let closed =
                    live.rcv_edge == live.rcv_nxt && segment.seq == live.rcv_nxt.wrapping_add(1);
                if (old || closed) && !is_handshake(state) && before(live.snd_una, segment.ack) {
                    self.feed_ack(index, segment, live.peer_window, &live, out);
                }
                self.feed(index, segment, segment.ip.packet, out);
            }
            Verdict::TakeData => self.feed_data(index, segment, &live, out),
            Verdict::Ignore | Verdict::Challenge => {
                let stand = (live.snd_nxt, live.rcv_nxt, self.window(&live));
                self.refuse(index, verdict, segment, stand, out);
            }
        }
    }

    /// A segment that nobody needs to see: it is ignored, or answered by where we stand (SND.NXT,
    /// RCV.NXT and the window).
    #[cold]
    pub(super) fn refuse<T: LinkTx>(
        &mut self,
        index: u32,
        verdict: Verdict,
        segment: &Segment<'_>,
        (snd, rcv, window): (u32, u32, u16),
        out: &mut Out<'_, T>,
    ) {
        if segment.has(RST) {
            self.core.counters.drop_blind_rst_total.inc();
        } else if verdict == Verdict::Challenge && !segment.has(SYN) {
            self.core.counters.drop_blind_ack_total.inc();
        }
        if verdict == Verdict::Challenge {
            self.challenge(index, snd, rcv, window, out);
        }
    }

    /// The window that a connection has now.
    pub(super) fn window(&mut self, live: &Live) -> u16 {
        let slot = self.table.conns.at(live.conn).live;
        match self.table.slots.fast(slot) {
            Some(fast) => (fast.ring() - fast.received()).min(0xffff) as u16,
            None => self.table.slots.with(slot, |socket, _| window_of(socket)),
        }
    }

    /// Gives a segment to the fast path, where that has the connection.
    #[inline]
    fn take_fast(&mut self, slot: u32, segment: &Segment<'_>, now: Now) -> Option<Taken> {
        let taken = fast::take(&mut self.table.slots.fast(slot)?, segment, now);
        if let Taken::All { .. } = taken
            && segment.data_len > 0
        {
            self.core.counters.fast_segments_total.inc();
        }
        Some(taken)
    }

    /// Gives smoltcp a segment whose acknowledgement is old with a current one.
    fn feed_data<T: LinkTx>(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        live: &Live,
        out: &mut Out<'_, T>,
    ) {
        let packet = segment.ip.packet;
        if packet.len() > COPY_MAX {
            return;
        }
        let mut copy = [0u8; COPY_MAX];
        let copy = &mut copy[..packet.len()];
        copy.copy_from_slice(packet);
        let tcp = &mut copy[segment.ip.header..];
        tcp[8..12].copy_from_slice(&live.snd_una.to_be_bytes());
        tcp[14..16].copy_from_slice(&live.peer_window.to_be_bytes());
        let current = Segment { ack: live.snd_una, window: live.peer_window, ..*segment };
        self.feed(index, &current, copy, out);
    }

    /// Gives smoltcp the acknowledgement of a segment whose data it has.
    ///
    /// It drops both. Where both sides lost the other's acknowledgements and their windows of
    /// retransmission are one segment, neither would ever get further.
    fn feed_ack<T: LinkTx>(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        window: u16,
        live: &Live,
        out: &mut Out<'_, T>,
    ) {
        let bare = Bare {
            src_port: segment.src_port,
            dst_port: segment.dst_port,
            seq: live.rcv_nxt,
            ack: segment.ack,
            flags: ACK,
            window,
            ..Bare::default()
        };
        let mut packet = [0u8; BARE_MAX];
        let (src, dst) = (segment.ip.src, segment.ip.dst);
        let packet = &mut packet[..bare.packet_len(src.is_ipv6())];
        write_bare(packet, src, dst, &bare);
        let ack = Segment {
            seq: live.rcv_nxt,
            flags: ACK,
            window,
            data_len: 0,
            options: &[],
            ..*segment
        };
        self.feed(index, &ack, packet, out);
    }

    /// Gives smoltcp a segment, and takes note of what it did with it.
    fn feed<T: LinkTx>(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        packet: &[u8],
        out: &mut Out<'_, T>,
    ) {
        let slot = self.table.conns.at(index).live;
        let paths = &mut self.core.paths;
        let news = self.table.slots.with_set(slot, |set, live| {
            feed_socket::<_, false>(set, live, paths, segment, packet, out)
        });
        self.fed(index, news, out);
    }

    /// smoltcp saw a segment of this connection.
    #[inline(always)]
    fn fed<T: LinkTx>(&mut self, index: u32, news: News, out: &mut Out<'_, T>) {
        if let Some(trace) = &mut out.net.trace {
            trace.state(&self.table.conns.at(index).tuple, state_name(news.state), out.now);
        }
        if news.opened {
            self.handshake_done(index);
        }
        let conn = self.table.conns.at_mut(index);
        if news.user && !std::mem::replace(&mut conn.in_ready, true) {
            self.core.ready.push_back(index);
        }
        if !std::mem::replace(&mut conn.in_dirty, true) {
            self.core.dirty.push(index);
        }
    }

    /// A handshake ended well.
    pub(super) fn handshake_done(&mut self, index: u32) {
        let slot = self.table.conns.at(index).live;
        let live = self.table.slots.live_mut(slot);
        let outgoing = live.outgoing;
        if std::mem::replace(&mut live.half_open, false) {
            self.core.half_open -= 1;
            self.core.counters.half_open.set(u64::from(self.core.half_open));
        }
        match outgoing {
            true => self.core.counters.connected_total.inc(),
            false => self.core.counters.accepted_total.inc(),
        }
        self.mark_ready(index);
    }

    /// The network says something about a segment of ours (RFC 5927: only one that is in flight).
    pub(crate) fn notice(&mut self, notice: &Notice, now: Now) {
        let hash = self.hash(&notice.tuple);
        let found = self.find(hash, &notice.tuple);
        let Some((index, slot)) = found.and_then(|index| Some((index, self.table.slot(index)?)))
        else {
            return self.core.counters.drop_icmp_total.inc();
        };
        let v6 = notice.tuple.v6;
        let live = self.table.slots.live_mut(slot);
        let flight = live.snd_max.wrapping_sub(live.snd_una);
        if !live.in_flight() || notice.seq.wrapping_sub(live.snd_una) >= flight {
            return self.core.counters.drop_icmp_total.inc();
        }
        match notice.trouble {
            Trouble::TooBig(mtu) => {
                let floor = if v6 { MTU_MIN_V6 } else { 576 };
                // Below the floor, or from a router that doesn't say (RFC 1191 §5): the floor.
                let wanted = mtu.max(floor);
                let fits = |path: &Path| path.mtu <= wanted && path.mtu >= floor;
                let Some(class) = self.core.paths.iter().position(fits) else { return };
                if class > usize::from(live.mtu_class) {
                    live.mtu_class = class as u8;
                    live.mtu_until = now.after(PATH_MTU_AGE);
                    self.core.counters.path_mtu_lowered_total.inc();
                    self.mark_dirty(index);
                }
            }
            // RFC 5461: an error ends a handshake of ours, and nothing else.
            Trouble::Refused if live.outgoing && live.half_open => {
                self.finish(index, Gone::Failed, now);
            }
            Trouble::Refused | Trouble::Unreachable => {}
        }
    }
}

/// Lets a socket see a segment, and draws our numbers after it. `PLAIN`: it is the next one of an
/// open connection, an acknowledgement of what is in flight, and neither SYN nor RST.
#[inline]
fn feed_socket<T: LinkTx, const PLAIN: bool>(
    set: &mut SocketSet<'_>,
    live: &mut Live,
    paths: &mut [Path],
    segment: &Segment<'_>,
    packet: &[u8],
    out: &mut Out<'_, T>,
) -> News {
    let now = out.now;
    let path = &mut paths[usize::from(live.mtu_class)];
    let was = Snapshot::of(set.get(SocketHandle::default()));
    out.begin(live);
    let mut wire = Wire { packet: Some(packet), out, capabilities: &path.capabilities };
    path.interface.poll_ingress_single(instant(now), &mut wire, set);
    live.note(&out.sent, now);
    let is = Snapshot::of(set.get(SocketHandle::default()));
    if PLAIN && is.state == State::Established {
        return follow_plain(live, segment, was, is, now);
    }
    follow(live, segment, was, is, now)
}

/// What there is to compare before and after smoltcp saw a segment.
#[derive(Copy, Clone)]
struct Snapshot {
    state: State,
    received: usize,
    unsent: usize,
    room: usize,
}

impl Snapshot {
    #[inline]
    fn of(socket: &tcp::Socket<'_>) -> Snapshot {
        Snapshot {
            state: socket.state(),
            received: socket.recv_queue(),
            unsent: socket.send_queue(),
            room: socket.recv_capacity(),
        }
    }
}

fn window_of(socket: &tcp::Socket<'_>) -> u16 {
    (socket.recv_capacity() - socket.recv_queue()).min(0xffff) as u16
}

fn is_handshake(state: State) -> bool {
    matches!(state, State::SynSent | State::SynReceived)
}

struct News {
    /// The socket's state now.
    state: State,
    /// The handshake ended.
    opened: bool,
    /// The user may be interested.
    user: bool,
}

/// [`follow`] where the next segment of an open connection left it open: what that comes to.
#[inline]
fn follow_plain(
    live: &mut Live,
    segment: &Segment<'_>,
    was: Snapshot,
    is: Snapshot,
    now: Now,
) -> News {
    live.active = now;
    if segment.data_len > 0 {
        live.see(segment.seq.wrapping_add(segment.data_len));
        live.rcv_nxt = live.rcv_nxt.wrapping_add((is.received - was.received) as u32);
        if before(live.rcv_seen, live.rcv_nxt) {
            live.rcv_seen = live.rcv_nxt;
        }
        live.wish_for(is.received, is.room);
    }
    let acked = is.unsent < was.unsent;
    if acked {
        live.acknowledged(segment.ack, now);
    }
    live.peer_window = segment.window;
    if segment.window == 0 {
        // RFC 9293 §3.8.6.1: a peer that closes its window and says so is alive.
        live.progress = now;
    }
    News {
        state: State::Established,
        opened: false,
        user: is.received > was.received || (live.wanted > 0 && acked),
    }
}

impl Live {
    /// Data arrived up to `end`.
    #[inline]
    fn see(&mut self, end: u32) {
        let end = if before(self.rcv_edge, end) { self.rcv_edge } else { end };
        if before(self.rcv_seen, end) {
            self.rcv_seen = end;
        }
    }

    /// Wishes for larger rings where these are nearly full.
    #[inline]
    pub(super) fn wish_for(&mut self, received: usize, room: usize) {
        if received * 4 >= room * 3 && room < 0xffff {
            self.wish_class = self.wish_class.max(if room <= 2048 { 1 } else { 2 });
        }
    }
}

/// Draws our numbers after smoltcp's.
#[inline]
fn follow(live: &mut Live, segment: &Segment<'_>, was: Snapshot, is: Snapshot, now: Now) -> News {
    live.active = now;
    let rcv_nxt = live.rcv_nxt;
    // As smoltcp judges it: part of the segment is in the window.
    let end = segment.seq.wrapping_add(segment.data_len);
    let took_window = segment.seq == rcv_nxt
        || (!before(segment.seq, rcv_nxt) && before(segment.seq, live.rcv_edge))
        || (before(rcv_nxt, end) && !before(live.rcv_edge, end));
    if was.state == State::SynSent && segment.has(SYN) && is.state != State::SynSent {
        // The peer's SYN: its options count from here.
        let options = segment.syn_options();
        live.peer_mss = options.mss;
        live.peer_scale = options.scale.unwrap_or(NO_SCALE);
        live.peer_sack = options.sack;
        live.rcv_nxt = segment.seq.wrapping_add(1);
        live.rcv_first = live.rcv_nxt;
        live.rcv_seen = live.rcv_nxt;
        live.rcv_edge = live.rcv_nxt.wrapping_add(is.room.min(0xffff) as u32);
        live.peer_window = segment.window;
    }
    live.rcv_nxt = live.rcv_nxt.wrapping_add((is.received - was.received) as u32);
    let fin_taken = match (was.state, is.state) {
        (State::Established | State::SynReceived, State::CloseWait) => true,
        (State::FinWait1, State::Closing) => true,
        (State::FinWait1 | State::FinWait2, State::TimeWait) => segment.has(FIN),
        _ => false,
    };
    live.rcv_nxt = live.rcv_nxt.wrapping_add(u32::from(fin_taken));
    if segment.data_len > 0 && !before(segment.seq, rcv_nxt.wrapping_sub(0xffff)) {
        live.see(end);
    }
    if before(live.rcv_seen, live.rcv_nxt) {
        live.rcv_seen = live.rcv_nxt;
    }
    if segment.has(RST) {
        live.was_reset = is.state == State::Closed;
    } else if segment.has(ACK) {
        let took_control = was.state != is.state
            && (is_handshake(was.state)
                || matches!(is.state, State::FinWait2 | State::TimeWait | State::Closed));
        if is.unsent < was.unsent || took_control {
            live.acknowledged(segment.ack, now);
        }
        if took_window && !before(segment.ack, live.snd_una) && !segment.has(SYN) {
            live.peer_window = segment.window;
            if segment.window == 0 {
                // RFC 9293 §3.8.6.1: a peer that closes its window and says so is alive.
                live.progress = now;
            }
        }
    }
    live.wish_for(is.received, is.room);
    let opened =
        is_handshake(was.state) && matches!(is.state, State::Established | State::CloseWait);
    News {
        state: is.state,
        opened,
        user: is.received > was.received
            || is.state != was.state
            || (live.wanted > 0 && is.unsent < was.unsent),
    }
}

/// Whether `ack` is of something in flight, or the last one again.
#[inline]
fn is_within_flight(live: &Live, ack: u32) -> bool {
    ack.wrapping_sub(live.snd_una) <= live.snd_max.wrapping_sub(live.snd_una)
}

/// Whether an acknowledgement says, by a SACK block, that something arrived behind a hole of what we
/// sent (RFC 6675 §2: a duplicate whatever its window), and tells a larger window at the same time.
#[inline]
fn is_duplicate_ack(live: &Live, segment: &Segment<'_>) -> bool {
    segment.data_len == 0
        && segment.ack == live.snd_una
        && segment.window > live.peer_window
        && live.peer_window > 0
        && live.in_flight()
        && !segment.has(FIN)
        && segment.has_sack_blocks()
}
