//! The stack as a whole: a link, what is below TCP, and TCP. Everything happens in
//! [`Stack::poll`] and [`Stack::flush`], or in the functions that the user calls between them.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use hioload_core::Now;

use crate::config::{StackConfig, StackError};
use crate::conn::{ConnId, Phase, Tuple};
use crate::counters::StackCounters;
use crate::frame::{self, ACK, Bare, Drop, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip};
use crate::frame::{ICMP, ICMPV6, RST, Segment, TCP};
use crate::icmp;
use crate::link::{Link, LinkRx, LinkTx, RxChecksum, RxFrame};
use crate::net::{Net, Out};
use crate::secret::Secret;
use crate::slots::{Lending, Slots};
use crate::tcp::{FrozenRecord, Tcp};
use crate::trace::Trace;
use crate::turn::{self, RxTurn, TxTurn};
use crate::{Accepting, Event};

/// Frames that one poll takes.
pub const BURST: usize = 64;

/// How many segments ahead of its use a socket is fetched, and its ring.
const SOCKETS_AHEAD: usize = 8;
const RINGS_AHEAD: usize = 3;
/// Connections that take no more lie in a core's own caches: nothing is to be fetched.
const CACHED_BYTES: usize = 512 << 10;

/// What an operator sees of one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ConnStats {
    /// The peer.
    pub peer: SocketAddr,
    /// It holds no memory at present; what follows was last known when it did.
    pub frozen: bool,
    /// Smoothed round trip time; `None` where none was measured since it was last thawed.
    pub rtt: Option<Duration>,
    /// Segments sent again since it was last thawed.
    pub retransmits: u32,
    /// Bytes sent and not acknowledged.
    pub in_flight: u32,
    /// Bytes that may be in flight for the sake of the path (RFC 5681), whatever the peer's window.
    /// `None` unless it was asked for, by [`Stack::congestion_window`].
    pub congestion_window: Option<u32>,
    /// Bytes of output that wait or are in flight.
    pub send_queue: usize,
    /// Bytes received that the user hasn't taken.
    pub recv_queue: usize,
    /// Bytes of each ring; 0 while frozen.
    pub ring_bytes: usize,
    /// Largest packet that the path lets through, as far as is known.
    pub path_mtu: u16,
}

/// A TCP/IP stack on one link, owned by one worker.
pub struct Stack<L: Link> {
    link: L,
    net: Net,
    tcp: Tcp,
    now: Now,
    touched_rx: Vec<u32>,
    touched_tx: Vec<u32>,
    announced: bool,
}

/// A segment between its two looks.
struct Parsed<'a> {
    segment: Segment<'a>,
    tuple: Tuple,
    hash: u32,
}

impl<L: Link> Stack<L> {
    /// A stack that has said nothing yet. `now` is the clock's time.
    ///
    /// # Errors
    /// What is wrong with the configuration, or a host without random numbers.
    pub fn new(link: L, config: &StackConfig, now: Now) -> Result<Self, StackError> {
        config.validate()?;
        let info = link.info();
        if info.mtu < 1280 {
            return Err(StackError::MtuTooSmall(info.mtu));
        }
        let mut secret = [0u8; 32];
        match config.secret {
            Some(given) => secret = given,
            None => getrandom::fill(&mut secret).map_err(|_| StackError::NoRandom)?,
        }
        let counters = Arc::new(StackCounters::default());
        let tcp = Tcp::new(config, info, secret, Arc::clone(&counters), now)?;
        let net = Net::new(config, info, &Secret::new(secret), counters);
        let (touched_rx, touched_tx) = (Vec::new(), Vec::new());
        Ok(Stack { link, net, tcp, now, touched_rx, touched_tx, announced: false })
    }

    /// Whether connections can be frozen and SYN cookies sent. False, and to be said to the
    /// operator, where smoltcp's initial sequence numbers aren't what this stack computes.
    pub fn can_freeze(&self) -> bool {
        self.tcp.core.isn_known
    }

    /// The link, for its owner.
    pub fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<StackCounters> {
        Arc::clone(&self.net.counters)
    }

    /// Accepts connections on a port, on all our addresses.
    ///
    /// # Errors
    /// [`StackError::PortTaken`].
    pub fn listen(&mut self, port: u16) -> Result<(), StackError> {
        self.tcp.listen(port)
    }

    /// Asks `admits` before a SYN is answered, and before a SYN cookie that came back becomes a
    /// connection: where it says no to that peer's address, nobody answers, and the peer tries again
    /// by itself (counted as `drop_at_limit_total`). What it says may be outdated when the handshake
    /// ends: a few more connections than that may open.
    pub fn admit_by(&mut self, admits: impl Fn(IpAddr) -> bool + Send + 'static) {
        self.tcp.core.admits = Box::new(admits);
    }

    /// Opens a connection; `Opened` or `Closed` follows.
    ///
    /// # Errors
    /// No route, no port or no memory.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnId, StackError> {
        let link = &self.link;
        let id = self.tcp.connect(&self.net, to, self.now, |local, to| link.receives(local, to))?;
        if let Some(hop) = self.net.next_hop(to.ip()) {
            self.net.neighbors.expect(hop, self.now);
        }
        Ok(id)
    }

    /// Stops or resumes accepting. While paused, SYNs aren't answered; closed is for good.
    pub fn set_accepting(&mut self, accepting: Accepting) {
        if self.tcp.core.accepting != Accepting::Closed {
            self.tcp.core.accepting = accepting;
        }
        if accepting == Accepting::Closed {
            self.tcp.stop_listening();
        }
    }

    /// Takes a burst of frames from the link and lets timers fire. Returns how many frames there
    /// were: [`BURST`] means that there may be more.
    pub fn poll(&mut self, now: Now) -> usize {
        self.now = self.now.max(now);
        let now = self.now;
        let (rx, tx) = self.link.split();
        let mut out = Out::new(tx, &mut self.net, now);
        if !self.announced {
            self.announced = true;
            out.announce();
        }
        let (asks, lost) = out.net.neighbors.tick(now);
        out.net.counters.drop_neighbor_total.add(lost as u64);
        for ip in asks {
            out.ask(ip);
        }
        let count = rx.receive(BURST).min(BURST);
        let mut parsed: ArrayVec<Parsed<'_>, BURST> = ArrayVec::new();
        for index in 0..count {
            out.net.counters.frames_in_total.inc();
            if let Err(why) = receive(rx.frame(index), &mut out, &mut self.tcp, &mut parsed) {
                count_drop(&out.net.counters, why);
            }
        }
        // Entries for the whole burst; sockets and rings a few segments ahead of their use, as the
        // processor fetches only so many lines at once. A guess that turns out wrong costs a line.
        let mut guessed: ArrayVec<Option<u32>, BURST> = ArrayVec::new();
        if parsed.len() > 1 {
            guessed.extend(parsed.iter().map(|parsed| self.tcp.prefetch_conn(parsed.hash)));
        }
        let ahead = |at: usize| guessed.get(at).copied().flatten();
        let cold = self.tcp.table.bytes_used() > CACHED_BYTES;
        if cold {
            for index in (0..SOCKETS_AHEAD).filter_map(ahead) {
                self.tcp.prefetch_slot(index);
            }
        }
        for (at, Parsed { segment, tuple, hash }) in parsed.iter().enumerate() {
            if cold {
                if let Some(index) = ahead(at + SOCKETS_AHEAD) {
                    self.tcp.prefetch_slot(index);
                }
                if let Some(index) = ahead(at + RINGS_AHEAD) {
                    self.tcp.prefetch_ring(index);
                }
            }
            self.tcp.segment(tuple, *hash, ahead(at), segment, &mut out);
        }
        self.tcp.advance(out.net, now);
        count
    }

    /// The next thing that happened. Ask as often as there is room for events in the turn.
    pub fn next_event(&mut self) -> Option<Event> {
        self.tcp.next_event()
    }

    /// This turn's windows and rings.
    pub fn turn(&mut self) -> (RxTurn<'_>, TxTurn<'_>) {
        let (for_rx, for_tx) = Lending::pair(&mut self.tcp.table);
        let rx = RxTurn { lending: for_rx, touched: &mut self.touched_rx };
        let tx = TxTurn {
            lending: for_tx,
            touched: &mut self.touched_tx,
            core: &mut self.tcp.core,
            net: &self.net,
            now: self.now,
        };
        (rx, tx)
    }

    /// Ends the turn: lent windows are consumed, and all that may be sent leaves in a burst.
    pub fn flush(&mut self, now: Now) {
        self.now = self.now.max(now);
        for touched in [&mut self.touched_rx, &mut self.touched_tx] {
            for index in touched.drain(..) {
                self.tcp.mark_dirty(index);
            }
        }
        let (_, tx) = self.link.split();
        let mut out = Out::new(tx, &mut self.net, self.now);
        self.tcp.settle_all(&mut out);
        out.tx.flush();
    }

    /// The earliest time at which to poll though no frame comes. `None`: never.
    pub fn next_deadline(&self) -> Option<Now> {
        match (self.tcp.next_deadline(), self.net.neighbors.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Sends what was taken, then FIN, and throws away what still arrives; `Closed` follows when
    /// the peer has finished as well.
    pub fn close(&mut self, id: ConnId) {
        let Some(index) = self.tcp.table.conns.index(id) else { return };
        let conn = self.tcp.table.conns.at(index);
        if conn.phase == Phase::Frozen {
            let local = self.net.local_ip(conn.tuple.local);
            if !self.tcp.core.thaw(&mut self.tcp.table, index, local, self.now) {
                return self.abort(id);
            }
        }
        let Some(slot) = self.tcp.table.slot(index) else { return };
        let now = self.now;
        // The socket is closed where the connection is settled.
        let live = self.tcp.table.slots.live_mut(slot);
        if !live.closing {
            live.closing = true;
            live.began = now;
        }
        self.tcp.mark_dirty(index);
    }

    /// Drops a connection at once, with a reset; `Closed` follows.
    pub fn abort(&mut self, id: ConnId) {
        let Some(index) = self.tcp.table.conns.index(id) else { return };
        if self.tcp.table.slot(index).is_some() && !self.tcp.leave_fast(index, &self.net, self.now)
        {
            return;
        }
        match self.tcp.table.slot(index) {
            Some(slot) => {
                let now = self.now;
                self.tcp.table.slots.with(slot, |socket, live| {
                    socket.abort();
                    live.closing = true;
                    live.began = now;
                });
                self.tcp.mark_dirty(index);
            }
            None => self.abort_frozen(index),
        }
    }

    fn abort_frozen(&mut self, index: u32) {
        let conn = self.tcp.table.conns.at(index);
        let (tuple, record) = (conn.tuple, conn.record);
        let bare = Bare {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: record.snd_nxt,
            ack: record.rcv_nxt,
            flags: RST | ACK,
            ..Bare::default()
        };
        let (_, tx) = self.link.split();
        let mut out = Out::new(tx, &mut self.net, self.now);
        out.bare(out.net.local_ip(tuple.local), tuple.remote_ip(), &bare);
        self.tcp.abort_frozen(index, self.now);
    }

    /// Writes a frozen connection down for another process to [`Stack::adopt`], and forgets it: no
    /// event follows, and its peer isn't told. `None` where it isn't frozen.
    pub fn hand_over(&mut self, id: ConnId) -> Option<FrozenRecord> {
        self.tcp.hand_over(id, &self.net)
    }

    /// Goes on with a connection that another process handed over. It is open; no event says so.
    ///
    /// # Errors
    /// A record that isn't good here, an address that isn't ours, a full table.
    pub fn adopt(&mut self, record: &FrozenRecord) -> Result<ConnId, StackError> {
        self.tcp.adopt(record, &self.net)
    }

    /// Stops or resumes offering what arrives on a connection.
    pub fn pause(&mut self, id: ConnId, paused: bool) {
        let Some(index) = self.tcp.table.conns.index(id) else { return };
        self.tcp.table.conns.at_mut(index).paused = paused;
        if !paused {
            self.tcp.mark_dirty(index);
        }
    }

    /// The peer; `None` for a dead connection.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        turn::peer(&self.tcp.table, id)
    }

    /// What is known of a connection; `None` for a dead one.
    pub fn stats(&mut self, id: ConnId) -> Option<ConnStats> {
        let peer = self.peer(id)?;
        let index = self.tcp.table.conns.index(id)?;
        let mtu = |tcp: &Tcp, class: u8| tcp.path_mtu(class);
        let Some(slot) = self.tcp.table.slot(index) else {
            let record = self.tcp.table.conns.at(index).record;
            return Some(ConnStats {
                peer,
                frozen: true,
                rtt: None,
                retransmits: 0,
                in_flight: 0,
                congestion_window: None,
                send_queue: 0,
                recv_queue: 0,
                ring_bytes: 0,
                path_mtu: mtu(&self.tcp, record.mtu_class),
            });
        };
        let live = *self.tcp.table.slots.live(slot);
        let path_mtu = mtu(&self.tcp, live.mtu_class);
        let (send_queue, recv_queue) = match self.tcp.table.slots.fast(slot) {
            Some(fast) => (fast.unacknowledged(), fast.received()),
            None => self.tcp.table.slots.with(slot, |s, _| (s.send_queue(), s.recv_queue())),
        };
        Some(ConnStats {
            peer,
            frozen: false,
            rtt: (live.rtt_us > 0).then(|| Duration::from_micros(live.rtt_us.into())),
            retransmits: live.retransmits,
            in_flight: live.snd_max.wrapping_sub(live.snd_una),
            congestion_window: None,
            send_queue,
            recv_queue,
            ring_bytes: crate::config::RING_BYTES[usize::from(Slots::class(slot))],
            path_mtu,
        })
    }

    /// The congestion window of a connection, in bytes: what may be in flight for the sake of the path
    /// (RFC 5681). smoltcp tells it in its debugging output only, behind the bytes of both rings, so
    /// this takes as long as printing those: 0.05 ms with the smallest rings, 0.4 ms with the middle
    /// ones, 1.7 ms with the largest. `None` for one that is frozen or dead, and where a self-test at
    /// the start found that smoltcp prints something else.
    pub fn congestion_window(&mut self, id: ConnId) -> Option<u32> {
        let index = self.tcp.table.conns.index(id)?;
        self.tcp.congestion_window(index)
    }

    /// Looks at `look` places of the table of connections, from place `at` (begin with 0), and gives
    /// what is known of those that are open to `seen`, but for their congestion windows. Returns where
    /// to go on; `None`: that was all. A walk over all of them is for an operator who asks, in steps
    /// that no message waits for.
    pub fn survey(
        &mut self,
        at: u32,
        look: u32,
        seen: &mut dyn FnMut(ConnId, ConnStats),
    ) -> Option<u32> {
        let all = self.tcp.table.conns.used();
        let end = at.saturating_add(look).min(all);
        for index in at..end {
            let id = self.tcp.table.conns.id(index);
            if let Some(stats) = self.stats(id) {
                seen(id, stats);
            }
        }
        (end < all).then_some(end)
    }

    /// Writes the packets to and from one remote endpoint, and the state changes of its connections,
    /// to `file` in pcapng format, `packets` of them at most; port 0 means every port of that
    /// address. Each is one write, so that the file can be read while it grows. It replaces the trace
    /// before.
    ///
    /// # Errors
    /// What writing the file's header says.
    pub fn trace(
        &mut self,
        remote: SocketAddr,
        packets: u32,
        file: Box<dyn Write + Send>,
    ) -> io::Result<()> {
        self.net.trace = Some(Trace::new(remote, packets, file, self.now)?);
        Ok(())
    }
}

fn count_drop(counters: &StackCounters, why: Drop) {
    match why {
        Drop::Malformed => counters.drop_malformed_total.inc(),
        Drop::Checksum => counters.drop_checksum_total.inc(),
        Drop::NotOurs => counters.drop_not_ours_total.inc(),
        Drop::Fragment => counters.drop_fragment_total.inc(),
        Drop::Protocol => counters.drop_protocol_total.inc(),
    }
}

/// Takes a frame apart, and puts a segment in `parsed`, which has room. What isn't TCP is dealt with
/// here.
#[inline(always)]
fn receive<'a, T: LinkTx>(
    frame: RxFrame<'a>,
    out: &mut Out<'_, T>,
    tcp: &mut Tcp,
    parsed: &mut ArrayVec<Parsed<'a>, BURST>,
) -> Result<(), Drop> {
    let l2 = frame::ethernet(frame.bytes, out.net.info.mac, out.net.vlan)?;
    let ip = match l2.ethertype {
        ETHERTYPE_IPV4 => frame::ipv4(l2.payload, frame.checksum == RxChecksum::Good)?,
        ETHERTYPE_IPV6 => frame::ipv6(l2.payload)?,
        ETHERTYPE_ARP => return icmp::arp(out, l2.payload),
        _ => return Err(Drop::Protocol),
    };
    let Some(local) = out.net.local_index(ip.dst) else {
        return group(&ip, out);
    };
    if out.net.local_index(ip.src).is_some() || (l2.group && ip.protocol == TCP) {
        // Somebody pretends to be us (RFC 9293 §3.9.2.3, "LAND"), or shouts.
        return Err(Drop::NotOurs);
    }
    let notice = match ip.protocol {
        TCP => {
            let segment = frame::tcp(ip, frame.checksum != RxChecksum::Unknown)?;
            out.net.counters.segments_in_total.inc();
            if let Some(trace) = &mut out.net.trace {
                trace.packet(ip.packet, ip.src, out.now);
            }
            let tuple = Tuple::new(local, segment.dst_port, ip.src, segment.src_port);
            let hash = tcp.hash(&tuple);
            tcp.prefetch_flow(hash);
            parsed.push(Parsed { segment, tuple, hash });
            return Ok(());
        }
        ICMP if !ip.dst.is_ipv6() => icmp::icmpv4(out, &ip)?,
        ICMPV6 if ip.dst.is_ipv6() => icmp::icmpv6(out, &ip)?,
        _ => return Err(Drop::Protocol),
    };
    if let Some(notice) = notice {
        tcp.notice(&notice, out.now);
    }
    Ok(())
}

/// A packet for a group: neighbour discovery, or nothing.
fn group<T: LinkTx>(ip: &Ip<'_>, out: &mut Out<'_, T>) -> Result<(), Drop> {
    match ip.dst {
        IpAddr::V6(dst) if ip.protocol == ICMPV6 && icmp::is_our_group(out.net, dst) => {
            icmp::icmpv6(out, ip).map(|_| ())
        }
        _ => Err(Drop::NotOurs),
    }
}
