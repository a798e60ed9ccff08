//! TCP around smoltcp: one shared `Interface` (one for each path MTU), a socket set of one socket
//! for each call. What smoltcp does is in its socket; what it lacks is in front of it, in `input`,
//! and behind it, in `settle`. What needs nothing of it is in `fast`.
//!
//! A connection is looked at when a segment, the user or its timer touches it, and at no other
//! time. Those that were touched are settled once, at the end of the turn.

mod cookie;
mod fast;
mod handover;
mod idle;
mod input;
mod open;
mod settle;
mod wait;
mod window;

pub use handover::{FROZEN_RECORD_BYTES, FrozenRecord};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hioload_core::{Now, TimerWheel};
use smoltcp::iface::{Config, Interface};
use smoltcp::phy::DeviceCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use crate::config::{RING_BYTES, StackConfig, StackError};
use crate::conn::{ConnId, Conns, Phase, Table, Tuple};
use crate::counters::StackCounters;
use crate::device::{Capture, capabilities};
use crate::flow::FlowTable;
use crate::frame::{ACK, Bare, Segment};
use crate::link::{LinkInfo, LinkTx};
use crate::net::{Net, Out};
use crate::secret::Secret;
use crate::slots::Slots;
use crate::{Accepting, Gone};

/// Path MTUs that are told apart, below the link's own.
const MTU_STEPS: [u16; 6] = [8960, 4312, 1492, 1400, 1280, 576];
/// IPv6 needs no less (RFC 8200 §5).
const MTU_MIN_V6: u16 = 1280;
/// How long a lower path MTU is believed; then larger packets try again (RFC 8201 §4).
const PATH_MTU_AGE: Duration = Duration::from_secs(600);
/// Timers that one poll lets fire.
const TIMERS_MAX: usize = 1024;
/// Connections whose challenge ACKs are told apart.
const CHALLENGE_SLOTS: usize = 1024;
/// Time between two challenge ACKs to one connection (RFC 5961 §7).
const CHALLENGE_EVERY_NS: u64 = 500_000_000;

/// A path MTU: the interface that cuts segments for it.
struct Path {
    mtu: u16,
    capabilities: DeviceCapabilities,
    interface: Interface,
}

/// All of TCP.
pub(crate) struct Tcp {
    pub(crate) table: Table,
    pub(crate) core: Core,
}

/// What isn't a connection.
pub(crate) struct Core {
    pub(crate) config: StackConfig,
    pub(crate) counters: Arc<StackCounters>,
    flow: FlowTable,
    wheel: TimerWheel,
    /// To be settled at the end of the turn.
    dirty: Vec<u32>,
    /// To be settled when the link has room again, in the order in which it hadn't.
    stalled: VecDeque<u32>,
    /// With news for the user.
    ready: VecDeque<u32>,
    closed: VecDeque<(ConnId, Gone)>,
    fired: Vec<u32>,
    /// What a connection's queues hold while it leaves the fast path.
    moving: fast::Moving,
    paths: Vec<Path>,
    secret: Secret,
    /// One bit a port.
    listening: Box<[u64; 1024]>,
    pub(crate) accepting: Accepting,
    /// Whether an address may have one more connection with us.
    pub(crate) admits: Box<dyn Fn(IpAddr) -> bool + Send>,
    /// The last SYN cookie that was sent: without one, none is taken.
    cookie_sent: Option<Now>,
    challenged: Box<[u64; CHALLENGE_SLOTS]>,
    /// smoltcp's ISNs are what we compute: [`crate::seed::self_test`].
    pub(crate) isn_known: bool,
    /// smoltcp prints its congestion windows as we read them: [`window::self_test`].
    cwnd_known: bool,
    half_open: u32,
    time_wait: u32,
    /// Ephemeral ports that `connect` went past (RFC 6056 §3.3.3, `next_ephemeral`).
    ports_tried: u32,
}

/// smoltcp's clock.
pub(crate) fn instant(now: Now) -> Instant {
    Instant::from_micros((now.as_nanos() / 1_000) as i64)
}

/// As RFC 9293 §3.3.2 calls it.
fn state_name(state: State) -> &'static str {
    match state {
        State::Closed => "CLOSED",
        State::Listen => "LISTEN",
        State::SynSent => "SYN-SENT",
        State::SynReceived => "SYN-RECEIVED",
        State::Established => "ESTABLISHED",
        State::FinWait1 => "FIN-WAIT-1",
        State::FinWait2 => "FIN-WAIT-2",
        State::CloseWait => "CLOSE-WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST-ACK",
        State::TimeWait => "TIME-WAIT",
    }
}

impl Tcp {
    pub(crate) fn new(
        config: &StackConfig,
        info: LinkInfo,
        secret: [u8; 32],
        counters: Arc<StackCounters>,
        now: Now,
    ) -> Result<Tcp, StackError> {
        let mut paths = Vec::new();
        let steps = MTU_STEPS.into_iter().filter(|&mtu| mtu < info.mtu);
        for mtu in std::iter::once(info.mtu).chain(steps) {
            let offloads = info.offloads;
            let capabilities =
                capabilities(usize::from(mtu), offloads.tx_ip_checksum, offloads.tx_tcp_checksum);
            let mut device = Capture::with(capabilities.clone());
            let mut interface =
                Interface::new(Config::new(HardwareAddress::Ip), &mut device, instant(now));
            interface.set_any_ip(true);
            paths.push(Path { mtu, capabilities, interface });
        }
        let flow = FlowTable::new(config.hugepages, config.node).ok_or(StackError::NoMemory)?;
        Ok(Tcp {
            table: Table {
                conns: Conns::new(config.connections_max, config.hugepages, config.node),
                slots: Slots::new(config.hugepages, config.node, config.memory_max_bytes),
            },
            core: Core {
                config: config.clone(),
                counters,
                flow,
                wheel: TimerWheel::new(now),
                dirty: Vec::new(),
                stalled: VecDeque::new(),
                ready: VecDeque::new(),
                closed: VecDeque::new(),
                fired: Vec::new(),
                moving: fast::Moving::default(),
                paths,
                secret: Secret::new(secret),
                listening: Box::new([0; 1024]),
                accepting: Accepting::Yes,
                admits: Box::new(|_| true),
                cookie_sent: None,
                challenged: Box::new([0; CHALLENGE_SLOTS]),
                isn_known: crate::seed::self_test(),
                cwnd_known: window::self_test(),
                half_open: 0,
                time_wait: 0,
                ports_tried: 0,
            },
        })
    }

    /// Lets timers fire, and the flow table grow on: half-way, flows are looked for twice.
    pub(crate) fn advance(&mut self, net: &Net, now: Now) {
        self.core.flow.migrate();
        let mut fired = std::mem::take(&mut self.core.fired);
        self.core.wheel.advance(now, TIMERS_MAX, &mut |index| fired.push(index));
        for index in fired.drain(..) {
            let conn = self.table.conns.at_mut(index);
            // The key died with the firing.
            conn.timer = None;
            match conn.phase {
                Phase::Live => {
                    let slot = conn.live;
                    self.table.slots.live_mut(slot).timer_at = Now::MAX;
                    self.mark_dirty(index);
                }
                Phase::TimeWait => self.forget_time_wait(index),
                Phase::Frozen => {
                    let local = net.local_ip(conn.tuple.local);
                    self.retry_thaw(index, local, now);
                }
                Phase::Free => {}
            }
        }
        self.core.fired = fired;
    }

    /// When it wants to be polled though nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        let core = &self.core;
        let waiting = [core.dirty.len(), core.stalled.len(), core.ready.len(), core.closed.len()];
        if waiting != [0; 4] {
            return Some(Now::ZERO);
        }
        core.wheel.next_deadline()
    }

    #[inline]
    pub(crate) fn mark_dirty(&mut self, index: u32) {
        let conn = self.table.conns.at_mut(index);
        if !conn.in_dirty {
            conn.in_dirty = true;
            self.core.dirty.push(index);
        }
    }

    /// The link had no room for what a connection has to send.
    #[cold]
    fn stall(&mut self, index: u32) {
        self.core.counters.link_full_total.inc();
        let conn = self.table.conns.at_mut(index);
        if !std::mem::replace(&mut conn.in_stalled, true) {
            self.core.stalled.push_back(index);
        }
    }

    #[inline]
    fn mark_ready(&mut self, index: u32) {
        let conn = self.table.conns.at_mut(index);
        if !conn.in_ready {
            conn.in_ready = true;
            self.core.ready.push_back(index);
        }
    }

    #[inline]
    pub(crate) fn hash(&self, tuple: &Tuple) -> u32 {
        self.core.secret.flow(tuple)
    }

    #[inline]
    fn find(&self, hash: u32, tuple: &Tuple) -> Option<u32> {
        self.core.flow.find(hash, |index| self.table.conns.at(index).tuple == *tuple)
    }

    /// First step of a burst's look-ups.
    #[inline]
    pub(crate) fn prefetch_flow(&self, hash: u32) {
        self.core.flow.prefetch(hash);
    }

    /// Second step: the entry.
    #[inline]
    pub(crate) fn prefetch_conn(&self, hash: u32) -> Option<u32> {
        let index = self.core.flow.guess(hash)?;
        self.table.conns.prefetch(index);
        Some(index)
    }

    /// Third step: the socket.
    #[inline]
    pub(crate) fn prefetch_slot(&self, index: u32) {
        if let Some(slot) = self.table.slot(index) {
            self.table.slots.prefetch(slot);
        }
    }

    /// Fourth step: the ring.
    #[inline]
    pub(crate) fn prefetch_ring(&self, index: u32) {
        if let Some(slot) = self.table.slot(index) {
            self.table.slots.prefetch_ring(slot);
        }
    }

    /// Takes an entry and makes it findable.
    fn enter(&mut self, tuple: Tuple, hash: u32, slot: u32) -> Option<u32> {
        let index = self.table.conns.take(tuple, Phase::Live, slot)?;
        if !self.core.flow.insert(hash, index) {
            self.table.conns.release(index);
            return None;
        }
        self.core.counters.connections.set(u64::from(self.table.conns.len()));
        self.core.counters.flow_buckets.set(self.core.flow.buckets() as u64);
        self.core.counters.slab_bytes.set(self.table.slots.bytes() as u64);
        Some(index)
    }

    /// Forgets an entry whose slot is gone.
    fn leave(&mut self, index: u32) {
        let conn = self.table.conns.at_mut(index);
        let tuple = conn.tuple;
        if let Some(timer) = conn.timer.take() {
            self.core.wheel.cancel(timer);
        }
        let hash = self.core.secret.flow(&tuple);
        let known = self.core.flow.remove(hash, index);
        debug_assert!(known, "a connection is in the flow table");
        self.table.conns.release(index);
        self.core.counters.connections.set(u64::from(self.table.conns.len()));
        self.core.counters.slab_bytes.set(self.table.slots.bytes() as u64);
    }

    /// Ends a live connection and tells the user.
    fn finish(&mut self, index: u32, gone: Gone, now: Now) {
        let id = self.table.conns.id(index);
        let conn = self.table.conns.at(index);
        let (slot, opened) = (conn.live, conn.opened);
        let live = *self.table.slots.live(slot);
        if live.half_open {
            self.core.half_open -= 1;
            self.core.counters.half_open.set(u64::from(self.core.half_open));
        }
        if gone == Gone::Reset {
            self.core.counters.resets_in_total.inc();
        }
        if live.cookie && self.has_time_wait_room() {
            return self.end_in_time_wait(index, gone, now);
        }
        if opened || live.outgoing {
            self.core.closed.push_back((id, gone));
        }
        self.table.slots.remove(slot);
        self.leave(index);
    }

    /// Sends an ACK that shows where we are, unless one just went (RFC 5961 §7).
    fn challenge<T: LinkTx>(
        &mut self,
        index: u32,
        snd: u32,
        rcv: u32,
        window: u16,
        out: &mut Out<'_, T>,
    ) {
        let tuple = self.table.conns.at(index).tuple;
        let hash = self.core.secret.flow(&tuple);
        let last = &mut self.core.challenged[hash as usize % CHALLENGE_SLOTS];
        let now = out.now.as_nanos();
        if *last != 0 && now < last.saturating_add(CHALLENGE_EVERY_NS) {
            return self.core.counters.drop_rate_limited_total.inc();
        }
        *last = now.max(1);
        self.core.counters.challenge_acks_total.inc();
        let bare = Bare {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: snd,
            ack: rcv,
            flags: ACK,
            window,
            ..Bare::default()
        };
        out.bare(out.net.local_ip(tuple.local), tuple.remote_ip(), &bare);
    }

    /// RFC 9293 §3.10.7.1: a segment of no connection is answered by a reset.
    fn reset<T: LinkTx>(&mut self, segment: &Segment<'_>, out: &mut Out<'_, T>) {
        use crate::frame::{RST, SYN};
        if segment.has(RST) {
            return;
        }
        let now = out.now;
        if !out.net.reset_rate.take(now) {
            return self.core.counters.drop_rate_limited_total.inc();
        }
        self.core.counters.resets_out_total.inc();
        let acked = segment.has(ACK);
        debug_assert!(acked || segment.has(SYN));
        let bare = Bare {
            src_port: segment.dst_port,
            dst_port: segment.src_port,
            seq: if acked { segment.ack } else { 0 },
            ack: if acked { 0 } else { segment.seq.wrapping_add(segment.len()) },
            flags: if acked { RST } else { RST | ACK },
            ..Bare::default()
        };
        out.bare(segment.ip.dst, segment.ip.src, &bare);
    }

    /// The congestion window of a live connection, in bytes. Takes as long as printing its rings.
    pub(crate) fn congestion_window(&mut self, index: u32) -> Option<u32> {
        let slot = self.table.slot(index).filter(|_| self.core.cwnd_known)?;
        if self.table.slots.fast(slot).is_some() {
            return Some(fast::FLIGHT_MAX as u32);
        }
        self.table.slots.with(slot, |socket, _| window::congestion_window(socket))
    }

    /// The window that a fresh ring of this class is told with.
    fn ring_window(class: u8) -> u16 {
        u16::try_from(RING_BYTES[usize::from(class)]).unwrap_or(u16::MAX)
    }
}
