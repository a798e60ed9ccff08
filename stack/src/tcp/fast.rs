//! The fast path: small exchanges on a good path, without smoltcp.
//!
//! Most connections of a message server are always the same: the next data in order, which
//! acknowledges what was sent before; an answer of a few hundred bytes; then nothing until the next.
//! Van Jacobson's header prediction serves that in a fraction of the full machine's time, and so does
//! this: queues in the rings' memory, sequence numbers in [`Live`], segments written here. What is
//! behind it never has more in flight than smoltcp would have at its beginning, has no holes, and
//! never sends anything twice.
//!
//! At the first sign of anything else (a hole, a duplicate, a closing window, FIN, RST, an
//! acknowledgement that doesn't come, more output than fits in a beginning connection's flight) the
//! connection leaves: it gets a new socket, brought to where it stands by the same means as one that
//! thaws, which is then told what is in the queues. As with thawing, the congestion window and what
//! was known of the round trip begin anew. After [`SLOW_LEAST`], twice as long each time that it left,
//! it may come back: with the first data that acknowledges all that was sent, when nothing waits. So
//! nothing of TCP's trouble is here.

use std::net::IpAddr;
use std::time::Duration;

use hioload_core::Now;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;

use super::settle::{News, PATIENCE, Poll, SEGMENTS_MAX, Standing, due};
use super::{Core, Tcp, instant};
use crate::Gone;
use crate::conn::{NIL, NO_SCALE, Phase, Record, Table, Tuple};
use crate::device::Replay;
use crate::frame::{ACK, Bare, FIN, PSH, RST, SYN, Segment, write_segment};
use crate::link::LinkTx;
use crate::live::{Live, before};
use crate::net::{Net, Out};
use crate::slots::{Fast, Slots};

/// What may be in flight: smoltcp's congestion window at its beginning, so that a socket that takes
/// over has sent no more than it would have.
pub(crate) const FLIGHT_MAX: usize = 2048;
/// How long a connection that left stays away: what is in trouble, or sends much, mostly goes on so.
const SLOW_LEAST: Duration = Duration::from_secs(1);
/// How often that is doubled at most; after as long a stay it begins anew.
const LEFT_MAX: u8 = 6;
/// How long an acknowledgement waits for data to go with (RFC 9293 §3.8.6.3); smoltcp's.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// The least retransmission timeout, and the largest (RFC 6298 §2.4, §2.5).
const RTO_LEAST: Duration = Duration::from_secs(1);
const RTO_MOST: Duration = Duration::from_secs(60);
/// What a segment carries at most where the peer doesn't say (RFC 9293 §3.7.1).
const MSS_DEFAULT: u16 = 536;
/// What it carries at least, whatever the peer says: nobody shall make us send a frame a byte.
/// smoltcp's.
const MSS_LEAST: u16 = 48;

/// What a connection's queues held when it left.
#[derive(Default)]
pub(super) struct Moving {
    received: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of it that are in flight.
    sent: usize,
    packet: Vec<u8>,
    nowhere: Vec<u8>,
}

/// What the fast path made of a segment.
pub(super) enum Taken {
    /// All. The user may be interested.
    All { user: bool },
    /// Nothing: the connection has to leave.
    Nothing,
}

/// Whether a connection that smoltcp has may go on here from this segment on: all that was sent is
/// acknowledged by it, nothing waits, nothing is missing.
#[inline]
pub(super) fn may_enter(
    socket: &tcp::Socket<'_>,
    live: &Live,
    segment: &Segment<'_>,
    now: Now,
) -> bool {
    segment.data_len > 0
        && is_plain(live, segment)
        && segment.ack == live.snd_max
        && live.snd_max == live.snd_nxt
        && socket.send_queue() == live.snd_max.wrapping_sub(live.snd_una) as usize
        && socket.recv_queue() == 0
        && live.rcv_seen == live.rcv_nxt
        && live.growing == Now::MAX
        && !live.closing
        && now >= live.slow_until
}

/// Makes a connection for which [`may_enter`] one of the fast path.
#[inline]
pub(super) fn enter(live: &mut Live, now: Now) {
    live.acknowledged(live.snd_max, now);
    live.fast = true;
    live.lent = 0;
    live.rx_len = 0;
    (live.tx_first, live.tx_len) = (live.snd_una, 0);
    live.ack_at = Now::MAX;
}

/// Whether a segment is what the fast path knows: the next one, whose acknowledgement is of what is
/// in flight, or only a window.
#[inline]
fn is_plain(live: &Live, segment: &Segment<'_>) -> bool {
    let acked = segment.ack.wrapping_sub(live.snd_una);
    let flight = live.snd_max.wrapping_sub(live.snd_una);
    let end = segment.seq.wrapping_add(segment.data_len);
    segment.seq == live.rcv_nxt
        && segment.flags & (SYN | RST | FIN | ACK) == ACK
        && acked <= flight
        && segment.window > 0
        && !before(live.rcv_edge, end)
        // Who sends much wants an acknowledgement of each second segment, and there is one a turn.
        && end.wrapping_sub(live.acked) <= 2 * u32::from(mss(live.peer_mss))
        // A duplicate, or what goes with one: the peer misses something.
        && (flight == 0
            || acked > 0
            || ((segment.data_len > 0 || segment.window != live.peer_window)
                && !segment.has_sack_blocks()))
}

/// A segment for a connection of the fast path.
#[inline]
pub(super) fn take(fast: &mut Fast<'_>, segment: &Segment<'_>, now: Now) -> Taken {
    fast.consume();
    let len = segment.data_len;
    if !is_plain(fast.live, segment) || (len > 0 && !fast.receive(segment.data())) {
        return Taken::Nothing;
    }
    let ring = fast.ring();
    let held = fast.received();
    let live = &mut *fast.live;
    live.active = now;
    let acked = segment.ack != live.snd_una;
    if acked {
        live.acknowledged(segment.ack, now);
    }
    live.peer_window = segment.window;
    if len > 0 {
        let end = segment.seq.wrapping_add(len);
        live.rcv_nxt = end;
        live.rcv_seen = end;
        live.wish_for(held, ring);
        // The second full segment is acknowledged at once (RFC 9293 §3.8.6.3).
        let told = end.wrapping_sub(live.acked) > u32::from(mss(live.peer_mss));
        live.ack_at = live.ack_at.min(if told { now } else { now.after(ACK_DELAY) });
    }
    Taken::All { user: len > 0 || (live.wanted > 0 && acked) }
}

fn mss(peer_mss: u16) -> u16 {
    if peer_mss == 0 { MSS_DEFAULT } else { peer_mss.max(MSS_LEAST) }
}

/// When what is in flight should have been acknowledged (RFC 6298, whose §5.3 begins anew with each
/// acknowledgement).
#[inline]
fn overdue(live: &Live) -> Now {
    let rtt = Duration::from_micros(live.rtt_us.into());
    live.progress.after((3 * rtt).clamp(RTO_LEAST, RTO_MOST))
}

/// Whether a connection has to leave at the end of its turn.
#[inline]
fn must_leave(fast: &Fast<'_>, user_timeout: Duration, now: Now) -> bool {
    let live = &*fast.live;
    let shift = if live.peer_scale == NO_SCALE { 0 } else { live.peer_scale.min(14) };
    let window = usize::from(live.peer_window) << shift;
    live.closing
        || live.growing != Now::MAX
        || fast.unacknowledged() > FLIGHT_MAX.min(window)
        || (live.in_flight() && now >= overdue(live).min(live.progress.after(user_timeout)))
}

/// Sends what a connection of the fast path has.
fn send<T: LinkTx>(fast: &mut Fast<'_>, tuple: &Tuple, mtu: u16, out: &mut Out<'_, T>) -> Poll {
    let now = out.now;
    let (local, remote) = (out.net.local_ip(tuple.local), tuple.remote_ip());
    let headers = if tuple.v6 { 60 } else { 40 };
    let mss = usize::from(mss(fast.live.peer_mss).min(mtu - headers));
    let window = (fast.ring() - fast.received()) as u32;
    let edge = fast.live.rcv_nxt.wrapping_add(window);
    let mut bare = Bare {
        src_port: tuple.local_port,
        dst_port: tuple.remote_port,
        ack: fast.live.rcv_nxt,
        window: window as u16,
        ..Bare::default()
    };
    let sum = !out.net.info.offloads.tx_tcp_checksum;
    let mut more = true;
    for _ in 0..SEGMENTS_MAX {
        out.begin(fast.live);
        bare.seq = fast.live.snd_nxt;
        let (output, sent) = fast.output();
        let data = &output[sent..];
        let data = &data[..data.len().min(mss)];
        // A window that was as good as closed has opened again (RFC 9293 §3.8.6.2.2).
        if data.is_empty() {
            let opened = edge.wrapping_sub(fast.live.rcv_edge) as usize >= fast.ring() / 2;
            if now < fast.live.ack_at && !opened {
                more = false;
                break;
            }
        }
        if out.tx.room() == 0 {
            break;
        }
        bare.flags =
            if sent + data.len() == output.len() && !data.is_empty() { ACK | PSH } else { ACK };
        let len = usize::from(headers) + data.len();
        out.packet(len, |packet| write_segment(packet, local, remote, &bare, data, sum));
        if out.sent.segments == 0 {
            break;
        }
        fast.live.note(&out.sent, now);
        fast.live.ack_at = Now::MAX;
    }
    let live = &*fast.live;
    let idle = fast.unacknowledged() == 0 && fast.received() == 0 && live.ack_at == Now::MAX;
    let mut at = live.ack_at;
    if live.in_flight() {
        at = at.min(overdue(live));
    }
    Poll {
        state: State::Established,
        quiescent: idle && !more,
        ask: false,
        at: (at < Now::MAX).then_some(at),
        more,
    }
}

/// What came of settling.
pub(super) enum Settled {
    /// It has a socket, now or as before.
    Slow,
    /// It left, and its memory was gone.
    Gone,
    /// How it stands; the timer that it wants, where that is earlier than the one it has; whether
    /// there is news for the user.
    Fast(Poll, Option<Now>, bool),
}

impl Tcp {
    /// Settles a connection of the fast path, or makes it leave: its slot may be another one then.
    #[inline]
    pub(super) fn settle_fast<T: LinkTx>(&mut self, index: u32, out: &mut Out<'_, T>) -> Settled {
        let conn = self.table.conns.at(index);
        let (slot, opened, paused) = (conn.live, conn.opened, conn.paused);
        let Some(mut fast) = self.table.slots.fast(slot) else { return Settled::Slow };
        fast.consume();
        fast.live.touched = false;
        if must_leave(&fast, self.core.config.user_timeout, out.now) {
            let alive = self.leave_fast(index, out.net, out.now);
            return if alive { Settled::Slow } else { Settled::Gone };
        }
        if fast.live.mtu_class > 0 && out.now >= fast.live.mtu_until {
            fast.live.mtu_class = 0;
        }
        let mtu = self.core.paths[usize::from(fast.live.mtu_class)].mtu;
        let poll = send(&mut fast, &conn.tuple, mtu, out);
        let at = due(fast.live, poll, &self.core.config, true, out.now);
        // Due, and nothing came of it.
        let at = if at <= out.now { out.now.after(PATIENCE) } else { at };
        let timer = (at < fast.live.timer_at).then_some(at);
        let standing = Standing::of_fast(&fast);
        let news = News::of(&standing, fast.live, opened, paused).is_some();
        Settled::Fast(poll, timer, news)
    }

    /// Gives a connection of the fast path a socket that stands where it stands. Others are left as
    /// they are. False where the memory for it is gone, and so is the connection.
    pub(crate) fn leave_fast(&mut self, index: u32, net: &Net, now: Now) -> bool {
        let conn = self.table.conns.at(index);
        let (slot, tuple) = (conn.live, conn.tuple);
        let Some(mut fast) = self.table.slots.fast(slot) else { return true };
        fast.consume();
        let mut live = *fast.live;
        let moving = &mut self.core.moving;
        moving.received.clear();
        moving.received.extend_from_slice(fast.held());
        moving.output.clear();
        let (output, sent) = fast.output();
        moving.output.extend_from_slice(output);
        moving.sent = sent;
        let edge = live.rcv_nxt.wrapping_add((fast.ring() - fast.received()) as u32);
        live.owes_ack = live.acked != live.rcv_nxt || before(live.rcv_edge, edge);
        // After a long stay it is as one that never left.
        if now >= live.slow_until.after(SLOW_LEAST * (1 << LEFT_MAX)) {
            live.left = 0;
        }
        live.slow_until = now.after(SLOW_LEAST * (1 << live.left));
        live.left = (live.left + 1).min(LEFT_MAX);
        (live.fast, live.ack_at) = (false, Now::ZERO);
        let record = Record {
            snd_nxt: live.snd_una,
            rcv_nxt: live.rcv_nxt.wrapping_sub(moving.received.len() as u32),
            ..live.record(Slots::class(slot))
        };
        self.table.slots.remove(slot);
        self.core.counters.fast_left_total.inc();
        let local = net.local_ip(tuple.local);
        let slot = self.core.resume(&mut self.table, &tuple, local, &live, &record, now);
        let conn = self.table.conns.at_mut(index);
        if let Some(slot) = slot {
            conn.live = slot;
            return true;
        }
        // The memory that it had a moment ago is gone.
        self.core.counters.drop_no_memory_total.inc();
        (conn.phase, conn.live) = (Phase::Frozen, NIL);
        conn.record = Record { snd_nxt: live.snd_nxt, rcv_nxt: live.rcv_nxt, ..record };
        self.core.counters.frozen.add(1);
        self.finish_frozen(index, Gone::Failed, now);
        false
    }

    /// Acknowledges what a connection owed when it left, unless that went with something else.
    #[inline]
    pub(super) fn pay_ack<T: LinkTx>(&mut self, index: u32, out: &mut Out<'_, T>) {
        let conn = self.table.conns.at(index);
        let (slot, tuple) = (conn.live, conn.tuple);
        if !self.table.slots.live(slot).owes_ack {
            return;
        }
        if out.tx.room() == 0 {
            return self.stall(index);
        }
        let live = *self.table.slots.live(slot);
        let bare = Bare {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: live.flight().pure_seq(),
            ack: live.rcv_nxt,
            flags: ACK,
            window: self.window(&live),
            ..Bare::default()
        };
        out.begin(&live);
        out.bare(out.net.local_ip(tuple.local), tuple.remote_ip(), &bare);
        let sent = out.sent;
        self.table.slots.live_mut(slot).note(&sent, out.now);
    }
}

impl Core {
    /// A socket that stands where a connection stood that left the fast path, whose queues are in
    /// `moving`. `None` where there is no memory.
    fn resume(
        &mut self,
        table: &mut Table,
        tuple: &Tuple,
        local: IpAddr,
        live: &Live,
        record: &Record,
        now: Now,
    ) -> Option<u32> {
        // Its retransmission timer: from when that was sent which is overdue, else from now.
        let overdue = live.in_flight() && now >= overdue(live);
        let then = if overdue { live.progress } else { now };
        let at = instant(then);
        let Moving { received, output, sent, packet, nowhere } = &mut self.moving;
        let sent = *sent;
        // What is in flight was sent into a window that had room for it.
        let shift = if record.peer_scale == NO_SCALE { 0 } else { record.peer_scale.min(14) };
        let needed = u16::try_from(sent.div_ceil(1 << shift)).unwrap_or(u16::MAX);
        let peer_window = record.peer_window.max(needed);
        let (received, output) = (std::mem::take(received), std::mem::take(output));
        let (mut packet, mut nowhere) = (std::mem::take(packet), std::mem::take(nowhere));
        let slot = self.revive(table, tuple, local, &Record { peer_window, ..*record }, then)?;
        let path = &mut self.paths[usize::from(live.mtu_class)];
        let capabilities = &path.capabilities;
        let whole = table.slots.with_set(slot, |set, fresh| {
            *fresh = Live { rcv_first: record.rcv_nxt, ..*live };
            let mut bare = Bare {
                src_port: tuple.remote_port,
                dst_port: tuple.local_port,
                seq: record.rcv_nxt,
                ack: record.snd_nxt,
                flags: ACK,
                window: peer_window,
                ..Bare::default()
            };
            let mut tell =
                |bare: &Bare, data: &[u8], set: &mut SocketSet<'_>, egress: Option<Instant>| {
                    packet.clear();
                    packet.resize(bare.packet_len(tuple.v6) + data.len(), 0);
                    write_segment(&mut packet, tuple.remote_ip(), local, bare, data, false);
                    let taken = egress.is_none().then_some(&packet[..]);
                    let mut device =
                        Replay { packet: taken, nowhere: &mut nowhere, capabilities, sent: 0 };
                    match egress {
                        Some(at) => _ = path.interface.poll_egress(at, &mut device, set),
                        None => _ = path.interface.poll_ingress_single(at, &mut device, set),
                    }
                    device.sent
                };
            for data in received.chunks(1024) {
                tell(&bare, data, set, None);
                bare.seq = bare.seq.wrapping_add(data.len() as u32);
            }
            if !received.is_empty() {
                // The acknowledgement of what was acknowledged.
                tell(&bare, &[], set, Some(instant(then.after(2 * ACK_DELAY))));
            }
            let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
            let (flying, waiting) = output.split_at(sent);
            let mut whole = socket.recv_queue() == received.len();
            whole &= socket.send_slice(flying) == Ok(sent);
            for _ in 0..FLIGHT_MAX {
                if tell(&bare, &[], set, Some(at)) == 0 {
                    break;
                }
            }
            if peer_window != record.peer_window {
                bare.window = record.peer_window;
                tell(&bare, &[], set, None);
            }
            let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
            whole && socket.send_slice(waiting) == Ok(waiting.len())
        });
        self.moving = Moving { received, output, sent, packet, nowhere };
        if !whole {
            debug_assert!(false, "smoltcp takes what it would have taken");
            table.slots.remove(slot);
            return None;
        }
        Some(slot)
    }
}
