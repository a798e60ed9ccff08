//! The end of a turn: each connection that was touched sends what it has, has its deadlines
//! looked at, and gets its timer. Then the user's news.

use std::time::Duration;

use hioload_core::Now;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, State};

use super::fast::Settled;
use super::{Core, Path, Tcp, instant, state_name};
use crate::config::StackConfig;
use crate::conn::{ConnId, Phase};
use crate::counters::StackCounters;
use crate::device::Wire;
use crate::frame::{ACK, Bare};
use crate::link::LinkTx;
use crate::live::{Live, Sent, before};
use crate::net::Out;
use crate::slots::{Fast, Slots};
use crate::{Event, Gone};

/// Segments that one connection sends a turn at most; the rest waits for the next one.
pub(super) const SEGMENTS_MAX: usize = 64;
/// How far ahead of its use the socket of a connection that waited for the link is fetched.
const STALLED_AHEAD: usize = 4;
/// A timer that is due and does nothing is looked at again after this.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

/// How long output is refused in the hope that the queues drain and the rings can be changed.
const GROW_PATIENCE: Duration = Duration::from_millis(500);

/// How often the peer is asked where it is, when smoltcp has lost its timer.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Past the handshake, with a peer that listens.
fn is_open(state: State) -> bool {
    use State::{CloseWait, Closing, Established, FinWait1, LastAck};
    matches!(state, Established | CloseWait | FinWait1 | Closing | LastAck)
}

/// smoltcp's least retransmission timeout (RFC 6298 §2.4), less what its clock rounds away.
const RTO_LEAST: Duration = Duration::from_millis(999);

/// How a socket stands after it sent what it had.
#[derive(Copy, Clone)]
pub(super) struct Poll {
    pub(super) state: State,
    /// Queues empty, nothing sent that isn't acknowledged, no hole, no timer.
    pub(super) quiescent: bool,
    /// Output waits, smoltcp has no timer for it, and the peer wasn't asked lately.
    pub(super) ask: bool,
    /// When smoltcp wants to be polled, where that may be before the timer that is set.
    pub(super) at: Option<Now>,
    /// There is more to send than one turn takes, or the link is full.
    pub(super) more: bool,
}

impl Tcp {
    /// Settles all that were touched.
    pub(crate) fn settle_all<T: LinkTx>(&mut self, out: &mut Out<'_, T>) {
        let mut dirty = std::mem::take(&mut self.core.dirty);
        // Those that waited for the link come first, but not more of them than it has room for: a
        // hundred thousand may wait, and a walk over them all would be most of each turn.
        for _ in 0..self.core.stalled.len() {
            if out.tx.room() == 0 {
                break;
            }
            let Some(index) = self.core.stalled.pop_front() else { break };
            // They have waited: entry and socket are no longer at hand.
            if let Some(&later) = self.core.stalled.get(2 * STALLED_AHEAD) {
                self.table.conns.prefetch(later);
            }
            if let Some(&soon) = self.core.stalled.get(STALLED_AHEAD) {
                self.prefetch_slot(soon);
            }
            self.table.conns.at_mut(index).in_stalled = false;
            self.settle(index, out);
        }
        // Those that must wait go to `core.dirty` again: this walk is over what there is now.
        for index in dirty.drain(..) {
            let conn = self.table.conns.at_mut(index);
            // Nothing can leave: one visit, when there is room, does it all. What is due by then is
            // the timer's to say, and where it has just said so, the visit isn't put off.
            if out.tx.room() == 0 && conn.timer.is_some() {
                conn.in_dirty = false;
                self.stall(index);
                continue;
            }
            self.settle(index, out);
        }
        if self.core.dirty.is_empty() {
            self.core.dirty = dirty;
        }
    }

    /// Asks the peer for its acknowledgement and window (RFC 9293 §3.8.6.1).
    ///
    /// smoltcp has no timer after a retransmission into a closed window, nor after a window that
    /// closed under data in flight and opened again. The answer makes it go on: by the window, or as
    /// a duplicate ACK. Its own keep-alive won't do for asking: that has a byte of garbage just
    /// before its SND.NXT, which the peer takes for data where what came before was lost.
    #[cold]
    fn ask<T: LinkTx>(&self, index: u32, slot: u32, out: &mut Out<'_, T>) {
        let tuple = self.table.conns.at(index).tuple;
        let live = self.table.slots.live(slot);
        let bare = Bare {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: live.snd_una.wrapping_sub(1),
            ack: live.rcv_nxt,
            flags: ACK,
            window: live.rcv_edge.wrapping_sub(live.rcv_nxt).min(0xffff) as u16,
            ..Bare::default()
        };
        out.bare(out.net.local_ip(tuple.local), tuple.remote_ip(), &bare);
    }

    fn settle<T: LinkTx>(&mut self, index: u32, out: &mut Out<'_, T>) {
        let conn = self.table.conns.at_mut(index);
        conn.in_dirty = false;
        if conn.phase != Phase::Live {
            return;
        }
        let (opened, paused) = (conn.opened, conn.paused);
        let (poll, timer, news) = match self.settle_fast(index, out) {
            Settled::Fast(poll, timer, news) => (poll, timer, news),
            Settled::Gone => return,
            Settled::Slow => match self.settle_slow(index, opened, paused, out) {
                Some(settled) => {
                    self.pay_ack(index, out);
                    settled
                }
                None => return self.finish(index, Gone::Failed, out.now),
            },
        };
        let slot = self.table.conns.at(index).live;
        if let Some(trace) = &mut out.net.trace {
            let tuple = self.table.conns.at(index).tuple;
            trace.state(&tuple, state_name(poll.state), out.now);
        }
        if poll.ask {
            self.ask(index, slot, out);
        }
        match poll.more {
            true if out.tx.room() == 0 => self.stall(index),
            true => self.mark_dirty(index),
            false => {}
        }
        match poll.state {
            State::Closed if !poll.more => {
                let live = self.table.slots.live(slot);
                let gone = match (live.was_reset, live.failed) {
                    (true, _) => Gone::Reset,
                    (_, true) => Gone::Failed,
                    _ => Gone::Finished,
                };
                return self.finish(index, gone, out.now);
            }
            // A reset in SYN-RECEIVED.
            State::Listen => return self.finish(index, Gone::Reset, out.now),
            State::TimeWait => return self.enter_time_wait(index, out),
            _ => {}
        }
        if poll.quiescent && self.core.isn_known {
            let live = self.table.slots.live(slot);
            let wish = live.wish_class;
            if wish > Slots::class(slot) {
                self.move_rings(index, wish, out);
                if self.table.conns.at(index).phase == Phase::Live && self.has_news(index, paused) {
                    self.mark_ready(index);
                }
                return;
            }
            let idle = self.core.config.freeze_after;
            if idle.is_some_and(|idle| out.now >= live.active.after(idle)) && live.wanted == 0 {
                if let Some(trace) = &mut out.net.trace {
                    let tuple = self.table.conns.at(index).tuple;
                    trace.state(&tuple, "ESTABLISHED, frozen", out.now);
                }
                return self.freeze(index);
            }
        }
        if let Some(at) = timer {
            self.set_timer(index, slot, at);
        }
        if news {
            self.mark_ready(index);
        }
    }

    /// [`Tcp::settle`] where smoltcp has the connection; `None` where it shall vanish.
    #[inline]
    fn settle_slow<T: LinkTx>(
        &mut self,
        index: u32,
        opened: bool,
        paused: bool,
        out: &mut Out<'_, T>,
    ) -> Option<(Poll, Option<Now>, bool)> {
        let slot = self.table.conns.at(index).live;
        let Core { config, counters, paths, isn_known, .. } = &mut self.core;
        // One visit does it all: each costs finding the slot anew.
        self.table.slots.with_set(slot, |set, live| {
            let socket = set.get_mut(SocketHandle::default());
            if expire(socket, live, config, counters, out.now) {
                return None;
            }
            let poll = poll_socket(set, live, paths, counters, out);
            let timer = match poll.state {
                State::Closed if !poll.more => None,
                State::Listen | State::TimeWait => None,
                _ => {
                    let at = due(live, poll, config, *isn_known, out.now);
                    (at < live.timer_at).then_some(at)
                }
            };
            let socket = set.get(SocketHandle::default());
            let standing = Standing::of(socket);
            Some((poll, timer, News::of(&standing, live, opened, paused).is_some()))
        })
    }

    fn set_timer(&mut self, index: u32, slot: u32, at: Now) {
        self.table.slots.live_mut(slot).timer_at = at;
        let timer = &mut self.table.conns.at_mut(index).timer;
        match timer {
            Some(key) => {
                self.core.wheel.reschedule(key, at);
            }
            None => *timer = Some(self.core.wheel.insert(at, index)),
        }
    }

    /// Whether the user should hear of a connection.
    fn has_news(&mut self, index: u32, paused: bool) -> bool {
        let conn = self.table.conns.at(index);
        let (slot, opened) = (conn.live, conn.opened);
        self.with_standing(slot, |standing, live| {
            News::of(standing, live, opened, paused).is_some()
        })
    }

    /// How a connection stands towards its user.
    #[inline]
    fn with_standing<R>(&mut self, slot: u32, f: impl FnOnce(&Standing, &mut Live) -> R) -> R {
        match self.table.slots.fast(slot) {
            Some(fast) => f(&Standing::of_fast(&fast), fast.live),
            None => self.table.slots.with(slot, |socket, live| f(&Standing::of(socket), live)),
        }
    }

    /// The next thing that happened.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        if let Some((id, gone)) = self.core.closed.pop_front() {
            return Some(Event::Closed(id, gone));
        }
        // Each turn takes one from the list.
        while let Some(index) = self.core.ready.pop_front() {
            let conn = self.table.conns.at_mut(index);
            conn.in_ready = false;
            if conn.phase != Phase::Live {
                continue;
            }
            let (slot, opened, paused) = (conn.live, conn.opened, conn.paused);
            let dirty = conn.in_dirty;
            let id = ConnId { slot: index, generation: conn.generation };
            let news = self.with_standing(slot, |standing, live| {
                let news = News::of(standing, live, opened, paused)?;
                match news {
                    News::Writable => live.wanted = 0,
                    News::Eof => live.eof_told = true,
                    News::Opened | News::Readable => {}
                }
                Some(news)
            });
            let Some(news) = news else { continue };
            match news {
                News::Opened => {
                    self.table.conns.at_mut(index).opened = true;
                    self.mark_ready(index);
                    return Some(Event::Opened(id));
                }
                News::Writable => {
                    self.mark_ready(index);
                    return Some(Event::Writable(id));
                }
                News::Readable => {
                    // At the turn's end, what was taken is consumed, and the rest offered again.
                    if !dirty {
                        self.mark_dirty(index);
                    }
                    return Some(Event::Readable(id));
                }
                News::Eof => return Some(Event::Eof(id)),
            }
        }
        None
    }
}

/// Does what is overdue. True where the connection shall vanish without a word.
#[inline]
fn expire(
    socket: &mut tcp::Socket<'_>,
    live: &mut Live,
    config: &StackConfig,
    counters: &StackCounters,
    now: Now,
) -> bool {
    live.touched = false;
    if live.lent > 0 {
        // The windows are dead: what was lent is consumed.
        let lent = std::mem::take(&mut live.lent) as usize;
        let _gone = socket.recv(|bytes| (lent.min(bytes.len()), ()));
    }
    if live.closing {
        // A ring wraps once.
        for _ in 0..2 {
            let _gone = socket.recv(|bytes| (bytes.len(), ()));
        }
        // In LAST-ACK smoltcp takes no window from a segment that acknowledges nothing new: where the
        // peer closed its window under data in flight and opened it again, that data would never
        // leave. So the peer that has finished gets our FIN when he has all the rest.
        if socket.state() != State::CloseWait || socket.send_queue() == 0 {
            socket.close();
        }
    }
    if now >= live.growing.after(GROW_PATIENCE) {
        // The peer never lets it rest: it lives with the rings that it has.
        live.growing = Now::MAX;
        live.restless = true;
    }
    if live.half_open && now >= live.began.after(config.handshake_timeout) {
        live.failed = true;
        counters.half_open_reaped_total.inc();
        // Nobody answered our SYN-ACK: a flood's sources are forged, so no reset either.
        if !live.outgoing {
            return true;
        }
        socket.abort();
    } else if live.in_flight() && now >= live.progress.after(config.user_timeout) {
        live.failed = true;
        counters.user_timeouts_total.inc();
        socket.abort();
    } else if live.closing && now >= live.began.after(config.fin_timeout) {
        live.failed = true;
        socket.abort();
    }
    false
}

/// Sends what the socket has.
#[inline]
fn poll_socket<T: LinkTx>(
    set: &mut SocketSet<'_>,
    live: &mut Live,
    paths: &mut [Path],
    counters: &StackCounters,
    out: &mut Out<'_, T>,
) -> Poll {
    let now = out.now;
    let at = instant(now);
    if live.mtu_class > 0 && now >= live.mtu_until {
        live.mtu_class = 0;
    }
    let path = &mut paths[usize::from(live.mtu_class)];
    let mut next = None;
    let mut more = true;
    for _ in 0..SEGMENTS_MAX {
        if out.tx.room() == 0 {
            break;
        }
        out.begin(live);
        let mut wire = Wire { packet: None, out, capabilities: &path.capabilities };
        path.interface.poll_egress(at, &mut wire, set);
        let again = live.note(&out.sent, now);
        if again {
            counters.retransmits_total.inc();
        } else if said_all(set.get(SocketHandle::default()), live, &out.sent, now) {
            return Poll {
                state: State::Established,
                quiescent: false,
                ask: false,
                at: None,
                more: false,
            };
        }
        next = path.interface.poll_at(at, set);
        if out.sent.segments == 0 || next.is_none_or(|next| next > at) {
            more = false;
            break;
        }
    }
    let socket = set.get::<tcp::Socket<'_>>(SocketHandle::default());
    let state = socket.state();
    let quiescent = state == State::Established
        && next.is_none()
        && !more
        && !live.in_flight()
        && !live.closing
        && socket.recv_queue() == 0
        && socket.send_queue() == 0
        && !before(live.rcv_nxt, live.rcv_seen);
    let mut at = next.map(|at| {
        let at = Now::from_nanos(at.total_micros().max(0) as u64 * 1_000);
        // Due, and nothing came of it.
        if at <= now { now.after(PATIENCE) } else { at }
    });
    let timerless = next.is_none() && !more && socket.send_queue() > 0 && is_open(state);
    let ask = timerless && now >= live.ack_at;
    if timerless {
        if ask {
            live.ack_at = now.after(ASK_EVERY);
        }
        at = Some(live.ack_at);
    }
    Poll { state, quiescent, ask, at, more }
}

/// Whether the segment that just left, new data with an acknowledgement of all that arrived,
/// leaves smoltcp nothing to do before the timer that is set: what it waits for now is a
/// retransmission timeout, which began at this moment or was looked at before. It needn't be asked
/// then when to poll it, which costs as much as a tenth of an echo.
#[inline]
fn said_all(socket: &tcp::Socket<'_>, live: &Live, sent: &Sent, now: Now) -> bool {
    sent.segments == 1
        && sent.has_ack
        && sent.ack == live.rcv_nxt
        && sent.data.is_some_and(|(seq, len)| seq.wrapping_add(len) == live.snd_max)
        && live.snd_max == live.snd_nxt
        && live.peer_window > 0
        && live.timer_at <= now.after(RTO_LEAST)
        && socket.state() == State::Established
        && socket.send_queue() == live.snd_max.wrapping_sub(live.snd_una) as usize
}

/// The earliest of all deadlines, or something not before the timer that is set. A timer that is
/// set earlier stays: when it fires, the connection is looked at and its timer set anew.
#[inline]
pub(super) fn due(
    live: &Live,
    poll: Poll,
    config: &StackConfig,
    can_freeze: bool,
    now: Now,
) -> Now {
    let mut at = poll.at.unwrap_or(Now::MAX);
    if live.half_open {
        return at.min(live.began.after(config.handshake_timeout));
    }
    if live.in_flight() {
        at = at.min(live.progress.after(config.user_timeout));
    }
    if live.closing {
        at = at.min(live.began.after(config.fin_timeout));
    }
    at = at.min(live.growing.after(GROW_PATIENCE));
    if let Some(idle) = config.freeze_after
        && poll.quiescent
        && can_freeze
    {
        // One that is idle but for output that the user holds back is looked at later.
        at = at.min(live.active.after(idle).max(now.after(PATIENCE)));
    }
    at
}

/// What of a connection's queues concerns its user.
pub(super) struct Standing {
    /// Something waits in the receive queue.
    pub(super) readable: bool,
    /// Room in the send queue, and what that is when empty.
    pub(super) room: usize,
    pub(super) capacity: usize,
    /// The peer sends no more.
    pub(super) finished: bool,
}

impl Standing {
    #[inline]
    fn of(socket: &tcp::Socket<'_>) -> Standing {
        let capacity = socket.send_capacity();
        Standing {
            readable: socket.can_recv(),
            room: capacity - socket.send_queue(),
            capacity,
            finished: socket.state() == State::CloseWait,
        }
    }

    #[inline]
    pub(super) fn of_fast(fast: &Fast<'_>) -> Standing {
        Standing {
            readable: fast.received() > 0,
            room: fast.ring() - fast.unacknowledged(),
            capacity: fast.ring(),
            finished: false,
        }
    }
}

/// What there is to tell about a connection, the most urgent first.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum News {
    Opened,
    Writable,
    Readable,
    Eof,
}

impl News {
    #[inline]
    pub(super) fn of(is: &Standing, live: &Live, opened: bool, paused: bool) -> Option<News> {
        if live.half_open || live.closing {
            return None;
        }
        if !opened {
            return Some(News::Opened);
        }
        if live.wanted > 0
            && live.growing == Now::MAX
            && is.room >= (live.wanted as usize).min(is.capacity)
        {
            return Some(News::Writable);
        }
        if is.readable {
            return (!paused).then_some(News::Readable);
        }
        (is.finished && !live.eof_told).then_some(News::Eof)
    }
}
