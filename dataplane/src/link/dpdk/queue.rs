//! A queue pair as a link: bursts of mbufs in, frames lent where the device wrote them; frames
//! written where the device reads them, bursts out. See the room's first page for what that costs.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use hioload_dpdk_sys as sys;
use hioload_pipeline::backend::Wake;
use hioload_stack::{BURST, Link, LinkInfo, LinkRx, LinkTx, RxChecksum, RxFrame, TxMeta};

use super::device::Open;
use super::events;
use super::interrupt::Interrupt;
use super::mbuf::{self, Bursts, Mbuf};
use super::negotiate::RxChecks;
use super::relay::{Relay, concerns_all};
use super::spread::Spread;
use crate::link::{Attention, IdlePolicy, Port, cycles};

/// Frames that are asked for, and sent, at once: what drivers' vector paths take.
const AT_ONCE: usize = 32;
/// Mbufs that a queue's worker may hold: a burst being looked at, one to be sent, fresh ones.
pub(super) const HELD_MAX: usize = 2 * BURST + AT_ONCE;
/// How many frames ahead of its use an mbuf is fetched: who read what was last in it has its lines.
const MBUFS_AHEAD: usize = 3;
/// Frames of a burst that may go to the other workers: a bound on what a stranger makes us copy.
const TOLD_MAX: usize = 8;

hioload_core::counters! {
    /// What a worker counts of its queue pair. What the device drops is in `DeviceStats`.
    pub struct QueueCounters => QueueSnapshot {
        /// Frames received.
        counter rx_frames_total,
        /// Bytes received.
        counter rx_bytes_total,
        /// Bursts received of one frame.
        counter rx_bursts_1_total,
        /// Bursts received of 2 or 3 frames.
        counter rx_bursts_2_total,
        /// Bursts received of 4 to 7 frames.
        counter rx_bursts_4_total,
        /// Bursts received of 8 to 15 frames.
        counter rx_bursts_8_total,
        /// Bursts received of 16 to 31 frames.
        counter rx_bursts_16_total,
        /// Bursts received of 32 frames or more.
        counter rx_bursts_32_total,
        /// Frames received in several mbufs, longer than the MTU allows, and dropped.
        counter rx_segmented_total,
        /// Frames handed to the device.
        counter tx_frames_total,
        /// Bytes handed to the device.
        counter tx_bytes_total,
        /// Times that there was no mbuf for a frame to be sent, which was dropped.
        counter tx_no_mbuf_total,
        /// Flushes that the device's ring took only a part of; the rest went later.
        counter tx_ring_full_total,
        /// Frames that the device refused to send, and dropped.
        counter tx_refused_total,
        /// Frames dropped as the device's ring took none for a second: its link is down, or nobody
        /// is at the other end.
        counter tx_stuck_total,
        /// Frames that were given to the other workers of the device as well.
        counter relayed_total,
        /// Copies of such frames that another worker had no room for.
        counter relay_full_total,
    }
}

/// A queue pair of a device. One thread uses it, after the other if need be; give it a number by
/// [`Eal::register_thread`](super::Eal::register_thread) or run it on an lcore: without one each
/// mbuf costs atomic operations.
#[derive(Debug)]
pub struct Queue {
    info: LinkInfo,
    idle: IdlePolicy,
    /// Goes before the port is closed.
    interrupt: Option<Interrupt>,
    spread: Spread,
    rx: QueueRx,
    tx: QueueTx,
    told_fault: bool,
    counters: Arc<QueueCounters>,
}

/// The receive half.
#[derive(Debug)]
pub struct QueueRx {
    port: u16,
    queue: u16,
    bursts: Bursts,
    /// The device's verdict on checksums counts.
    checks: RxChecks,
    burst: ArrayVec<Mbuf, BURST>,
    relay: Option<Relay>,
    /// Frames of this burst that other workers received; they come behind its own.
    told: ArrayVec<Box<[u8]>, TOLD_MAX>,
    doubt: Doubt,
    counters: Arc<QueueCounters>,
    _open: Arc<Open>,
}

/// The transmit half.
#[derive(Debug)]
pub struct QueueTx {
    port: u16,
    queue: u16,
    bursts: Bursts,
    /// The device may want to look at headers first.
    prepare: bool,
    queued: ArrayVec<Mbuf, BURST>,
    fresh: ArrayVec<Mbuf, AT_ONCE>,
    /// Bytes of the frame that is being written in the last of `fresh`.
    len: usize,
    /// The device's ring had no room for all that is queued.
    full: bool,
    /// Cycles when it was found full, if it took no frame since; else 0.
    full_since: u64,
    counters: Arc<QueueCounters>,
    open: Arc<Open>,
}

impl Queue {
    pub(super) fn new(
        open: Arc<Open>,
        queue: u16,
        info: LinkInfo,
        (idle, interrupt): (IdlePolicy, Option<Interrupt>),
        spread: Spread,
        relay: Option<Relay>,
        if_index: u32,
    ) -> Queue {
        let counters = Arc::new(QueueCounters::default());
        let port = open.port;
        // Measures them, which is not for a worker's loop.
        let _ = cycles::per_second();
        let rx = QueueRx {
            port,
            queue,
            bursts: open.bursts(),
            checks: open.rx_checks,
            burst: ArrayVec::new(),
            relay,
            told: ArrayVec::new(),
            doubt: Doubt::about(if_index),
            counters: Arc::clone(&counters),
            _open: Arc::clone(&open),
        };
        let tx = QueueTx {
            port,
            queue,
            bursts: open.bursts(),
            prepare: info.offloads.tx_ip_checksum || info.offloads.tx_tcp_checksum,
            queued: ArrayVec::new(),
            fresh: ArrayVec::new(),
            len: 0,
            full: false,
            full_since: 0,
            counters: Arc::clone(&counters),
            open,
        };
        Queue { info, idle, interrupt, spread, rx, tx, told_fault: false, counters }
    }

    /// Its number on the device.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.rx.queue
    }

    /// What its worker counts.
    #[must_use]
    pub fn counters(&self) -> Arc<QueueCounters> {
        Arc::clone(&self.counters)
    }
}

impl Link for Queue {
    type Rx = QueueRx;
    type Tx = QueueTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut QueueRx, &mut QueueTx) {
        (&mut self.rx, &mut self.tx)
    }

    fn receives(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.spread.leads_to(self.rx.queue, local, remote)
    }
}

impl Port for Queue {
    fn name(&self) -> &'static str {
        "dpdk"
    }

    fn attention(&self) -> Attention<'_> {
        Attention::Polling(self.idle)
    }

    fn arm(&mut self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::enable)
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    fn disarm(&mut self, fired: bool) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.disable(fired);
        }
    }

    fn wake_by(&mut self, waker: Arc<dyn Wake>) {
        if let Some(relay) = &self.rx.relay {
            relay.wake_by(waker);
        }
    }

    fn has_unsent(&self) -> bool {
        !self.tx.queued.is_empty()
    }

    fn is_in_doubt(&self) -> bool {
        // Nobody wakes the worker for an event of the port, or for an interface that was deleted.
        self.interrupt.is_some()
    }

    #[inline]
    fn take_fault(&mut self) -> Option<io::Error> {
        if !events::is_removed(self.rx.port) || std::mem::replace(&mut self.told_fault, true) {
            return None;
        }
        let name = self.tx.open.name();
        let what =
            format!("DPDK device `{name}` is gone: pulled out, reset, or its interface deleted");
        Some(io::Error::new(io::ErrorKind::NotConnected, what))
    }
}

impl LinkRx for QueueRx {
    #[inline]
    fn receive(&mut self, max: usize) -> usize {
        mbuf::free_all(&mut self.burst);
        if !self.told.is_empty() {
            self.told.clear();
        }
        let max = max.min(BURST);
        let of = (self.port, self.queue);
        let mut room = max;
        while room > 0 {
            // SAFETY: `Open` keeps the port started, and this is the queue's only user.
            let count =
                unsafe { mbuf::receive(self.bursts, of, &mut self.burst, room.min(AT_ONCE)) };
            if count < AT_ONCE {
                break;
            }
            room -= count;
        }
        if self.relay.is_some() {
            self.hear(max);
        }
        if self.burst.is_empty() {
            self.doubt.consider(self.port);
            return self.told.len();
        }
        self.look();
        self.burst.len() + self.told.len()
    }

    #[inline]
    fn frame(&self, index: usize) -> RxFrame<'_> {
        let Some(mbuf) = self.burst.get(index) else {
            let bytes = &self.told[index - self.burst.len()];
            return RxFrame { bytes, checksum: RxChecksum::Unknown };
        };
        RxFrame { bytes: mbuf.bytes(), checksum: checksum(mbuf.flags(), self.checks) }
    }
}

impl QueueRx {
    /// Counts a burst, asks for its frames' first lines, and drops what it can't lend.
    #[inline]
    fn look(&mut self) {
        let (mut bytes, mut whole) = (0, true);
        for mbuf in &self.burst {
            mbuf.prefetch();
            bytes += u64::from(mbuf.frame_len());
            whole &= mbuf.is_one_segment();
        }
        let counters = &self.counters;
        let frames = self.burst.len();
        counters.rx_frames_total.add(frames as u64);
        counters.rx_bytes_total.add(bytes);
        match frames.ilog2() {
            0 => counters.rx_bursts_1_total.inc(),
            1 => counters.rx_bursts_2_total.inc(),
            2 => counters.rx_bursts_4_total.inc(),
            3 => counters.rx_bursts_8_total.inc(),
            4 => counters.rx_bursts_16_total.inc(),
            _ => counters.rx_bursts_32_total.inc(),
        }
        if !whole {
            self.burst.retain(|mbuf| mbuf.is_one_segment());
            counters.rx_segmented_total.add((frames - self.burst.len()) as u64);
        }
        if let Some(relay) = &self.relay {
            let news = self.burst.iter().filter(|mbuf| concerns_all(mbuf.bytes()));
            for mbuf in news.take(TOLD_MAX) {
                counters.relayed_total.inc();
                counters.relay_full_total.add(relay.tell(mbuf.bytes()));
            }
        }
    }

    /// Takes what other workers received and this one must hear.
    #[inline]
    fn hear(&mut self, max: usize) {
        let Some(relay) = &self.relay else { return };
        while self.burst.len() + self.told.len() < max
            && !self.told.is_full()
            && let Some(frame) = relay.take()
        {
            self.told.push(frame);
        }
    }
}

/// What the device found; only what it calls good spares the stack a look of its own.
#[inline]
fn checksum(flags: u64, checks: RxChecks) -> RxChecksum {
    let tcp = match flags & sys::HIO_RX_L4_MASK {
        sys::HIO_RX_L4_GOOD => checks != RxChecks::None,
        // The sum in the frame isn't one, and the data is as it was sent.
        sys::HIO_RX_L4_NONE => checks == RxChecks::OfPeerInMemory,
        _ => false,
    };
    // What they call bad is looked at again.
    match flags & sys::HIO_RX_IP_MASK {
        sys::HIO_RX_IP_GOOD if tcp => RxChecksum::Good,
        // IPv6 has none, and virtio doesn't look.
        0 if tcp => RxChecksum::TcpGood,
        _ => RxChecksum::Unknown,
    }
}

impl LinkTx for QueueTx {
    #[inline]
    fn room(&self) -> usize {
        let room = self.queued.remaining_capacity();
        // A ring that was full gives room a few frames at a time. A turn for each of these costs
        // more than they do: it waits for a burst's worth.
        if self.full && room < AT_ONCE { 0 } else { room }
    }

    #[inline]
    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.queued.is_full() {
            return None;
        }
        if self.fresh.is_empty() && !self.open.pools[usize::from(self.queue)].fill(&mut self.fresh)
        {
            self.counters.tx_no_mbuf_total.inc();
            return None;
        }
        self.len = len;
        self.fresh.last_mut()?.space(len)
    }

    #[inline]
    fn commit(&mut self, meta: TxMeta) {
        let Some(mut mbuf) = self.fresh.pop() else { return };
        if let Some(later) = self.fresh.len().checked_sub(MBUFS_AHEAD) {
            self.fresh[later].prefetch_space();
        }
        let mut flags = 0;
        if meta.ip_checksum || meta.tcp_checksum {
            // IPv6's header is longer than any that IPv4 has here (no options are sent).
            flags = match meta.l3_len {
                40 => sys::HIO_TX_IPV6,
                _ => sys::HIO_TX_IPV4,
            };
            flags |= if meta.ip_checksum { sys::HIO_TX_IP_CKSUM } else { 0 };
            flags |= if meta.tcp_checksum { sys::HIO_TX_TCP_CKSUM } else { 0 };
        }
        mbuf.finish(self.len, flags, meta.l2_len, meta.l3_len);
        self.counters.tx_bytes_total.add(self.len as u64);
        self.queued.push(mbuf);
        if self.queued.len() == AT_ONCE || self.queued.is_full() {
            self.flush();
        }
    }

    #[inline]
    fn flush(&mut self) {
        let to = (self.port, self.queue);
        // Each round but the last sends a frame or drops one.
        while !self.queued.is_empty() {
            // SAFETY: `Open` keeps the port started, and this is the queue's only user.
            let (sent, refused) =
                unsafe { mbuf::send(self.bursts, to, &mut self.queued, self.prepare) };
            self.counters.tx_frames_total.add(sent as u64);
            self.counters.tx_refused_total.add(refused as u64);
            if sent + refused == 0 {
                self.counters.tx_ring_full_total.inc();
                self.full = true;
                self.consider_full_ring();
                return;
            }
            self.full_since = 0;
        }
        self.full = false;
    }
}

impl QueueTx {
    /// The ring took nothing. Where that goes on, frames are lost as on any bad wire: those who wait
    /// for room, a connection that is to be reset among them, would else wait as long as the link is
    /// down, and a server that is to end with them.
    #[cold]
    fn consider_full_ring(&mut self) {
        let now = cycles::now();
        if self.full_since == 0 {
            self.full_since = now;
        } else if now.saturating_sub(self.full_since) > cycles::per_second() {
            self.counters.tx_stuck_total.add(self.queued.len() as u64);
            mbuf::free_all(&mut self.queued);
            self.full = false;
        }
    }
}

/// Whether an interface of the kernel, under the device, is still there: its drivers don't tell.
#[derive(Debug)]
struct Doubt {
    if_index: u32,
    /// Cycles when it is looked at next, if nothing has come by then.
    next: u64,
}

impl Doubt {
    fn about(if_index: u32) -> Doubt {
        Doubt { if_index, next: 0 }
    }

    /// Nothing came: looks once a second.
    #[inline]
    fn consider(&mut self, port: u16) {
        if self.if_index != 0 {
            let now = cycles::now();
            if now >= self.next {
                self.next = now.saturating_add(cycles::per_second());
                self.look(port);
            }
        }
    }

    #[cold]
    fn look(&self, port: u16) {
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: there is room for a name.
        let found = unsafe { libc::if_indextoname(self.if_index, name.as_mut_ptr()) };
        let gone = io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO);
        if found.is_null() && gone {
            events::removed(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_device_calls_good_is_believed() {
        let good = sys::HIO_RX_L4_GOOD | sys::HIO_RX_IP_GOOD;
        let checks = RxChecks::ByDevice;
        assert_eq!(checksum(good, checks), RxChecksum::Good);
        assert_eq!(checksum(sys::HIO_RX_L4_GOOD, checks), RxChecksum::TcpGood, "IPv6");
        assert_eq!(checksum(good, RxChecks::None), RxChecksum::Unknown, "it wasn't asked to look");
        for flags in [0, sys::HIO_RX_IP_GOOD, sys::HIO_RX_L4_NONE | sys::HIO_RX_IP_GOOD] {
            assert_eq!(checksum(flags, checks), RxChecksum::Unknown, "{flags:x}");
        }
        let bad_ip = sys::HIO_RX_IP_MASK & !sys::HIO_RX_IP_GOOD;
        let bad_tcp = sys::HIO_RX_L4_MASK & !sys::HIO_RX_L4_GOOD;
        for checks in [checks, RxChecks::OfPeerInMemory] {
            assert_eq!(checksum(bad_ip | sys::HIO_RX_L4_GOOD, checks), RxChecksum::Unknown);
            assert_eq!(checksum(bad_tcp | sys::HIO_RX_IP_GOOD, checks), RxChecksum::Unknown);
        }
    }

    #[test]
    fn a_sum_that_was_never_made_is_believed_of_a_peer_in_memory_only() {
        let none = sys::HIO_RX_L4_NONE;
        assert_eq!(checksum(none, RxChecks::OfPeerInMemory), RxChecksum::TcpGood);
        assert_eq!(checksum(none, RxChecks::ByDevice), RxChecksum::Unknown);
        assert_eq!(checksum(none, RxChecks::None), RxChecksum::Unknown);
    }
}
