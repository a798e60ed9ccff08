//! The user's half of a turn: windows of what arrived, and output into the send rings. Both may be
//! used side by side; nothing travels until the turn is flushed.

use std::net::SocketAddr;

use hioload_core::Now;

use crate::config::RING_BYTES;
use crate::conn::{ConnId, Phase, Table};
use crate::live::Live;
use crate::net::Net;
use crate::slots::{Lending, Slots};
use crate::tcp::Core;

/// What arrived, lent for the turn.
pub struct RxTurn<'t> {
    pub(crate) lending: Lending<'t>,
    pub(crate) touched: &'t mut Vec<u32>,
}

impl<'t> RxTurn<'t> {
    /// The contiguous front of what waits on a connection: lent once a turn, mutable, and consumed
    /// at the turn's end. `None` where nothing waits, or it was lent. Where the ring wraps, the rest
    /// is offered in the next turn.
    pub fn take(&mut self, id: ConnId) -> Option<&'t mut [u8]> {
        let (index, slot, dirty) = self.lending.with(|table| {
            let conn = table.conns.named(id)?;
            (conn.phase == Phase::Live).then_some((id.slot, conn.live, conn.in_dirty))
        })?;
        let (window, first) = self.lending.lend(slot)?;
        // What is to be settled already, as all that have news are, needn't be told twice.
        if first && !dirty {
            self.touched.push(index);
        }
        Some(window)
    }
}

/// Output, taken until the send ring is full.
pub struct TxTurn<'t> {
    pub(crate) lending: Lending<'t>,
    pub(crate) touched: &'t mut Vec<u32>,
    pub(crate) core: &'t mut Core,
    pub(crate) net: &'t Net,
    pub(crate) now: Now,
}

/// What became of output.
enum Offer {
    /// All of it, or nobody is there to have it.
    Taken,
    /// As many bytes.
    Part(usize),
}

impl TxTurn<'_> {
    /// Takes all of `bytes`, or nothing: then `Event::Writable` follows when they fit. Output for a
    /// dead connection is taken and dropped. More than the largest ring
    /// ([`RING_BYTES`]) never fits: see [`TxTurn::send_some`].
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        match self.offer(id, bytes, true) {
            Offer::Taken => true,
            Offer::Part(taken) => taken == bytes.len(),
        }
    }

    /// Takes as many of `bytes` as there is room for and returns their number; where it isn't all,
    /// `Event::Writable` follows when there is room again. Of output for a dead connection, all is
    /// taken and dropped.
    pub fn send_some(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        match self.offer(id, bytes, false) {
            Offer::Taken => bytes.len(),
            Offer::Part(taken) => taken,
        }
    }

    /// Builds `len` bytes of output in the send ring. False, and `fill` isn't called, where there is
    /// no contiguous room for them or no connection; no event follows from that.
    pub fn build(&mut self, id: ConnId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        let Some((index, slot)) = self.thawed(id) else { return false };
        let built = self.lending.with(|table| {
            if let Some(mut fast) = table.slots.fast(slot) {
                if fast.live.growing != Now::MAX || fast.live.closing {
                    return false;
                }
                return fast.send(len).map(fill).is_some();
            }
            table.slots.with(slot, |socket, live| {
                if live.growing != Now::MAX || live.closing {
                    return false;
                }
                let built = socket.send(|ring| match ring.get_mut(..len) {
                    Some(room) => {
                        fill(room);
                        (len, true)
                    }
                    None => (0, false),
                });
                built.unwrap_or(false)
            })
        });
        if built {
            touch(&self.lending, slot, index, self.touched);
        }
        built
    }

    /// Bytes that were taken and aren't acknowledged yet.
    pub fn unsent(&self, id: ConnId) -> usize {
        self.lending.with(|table| match live(table, id) {
            Some((_, slot)) => match table.slots.fast(slot) {
                Some(fast) => fast.unacknowledged(),
                None => table.slots.with(slot, |socket, _| socket.send_queue()),
            },
            None => 0,
        })
    }

    /// The peer; `None` for a dead connection.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.lending.with(|table| peer(table, id))
    }

    /// Asks the processor for a connection's entry in the table, which output for it needs first.
    #[inline]
    pub fn prefetch_entry(&self, id: ConnId) {
        self.lending.with(|table| table.conns.prefetch_any(id.slot));
    }

    /// Asks the processor for a connection's socket, whose place its entry says.
    #[inline]
    pub fn prefetch_socket(&self, id: ConnId) {
        self.lending.with(|table| {
            if let Some((_, slot)) = live(table, id) {
                table.slots.prefetch(slot);
            }
        });
    }

    fn offer(&mut self, id: ConnId, bytes: &[u8], whole: bool) -> Offer {
        let Some((index, slot)) = self.thawed(id) else {
            let (core, now) = (&mut *self.core, self.now);
            // Known, but frozen and no memory to thaw it: the user keeps the output.
            return self.lending.with(|table| match table.conns.index(id) {
                Some(index) => {
                    core.await_memory(table, index, now);
                    Offer::Part(0)
                }
                None => Offer::Taken,
            });
        };
        let (now, can_grow) = (self.now, self.core.isn_known);
        let (offer, first) = self.lending.with(|table| {
            let mut taken = 0;
            let put = |live: &mut Live, taken: usize| {
                if taken < bytes.len() {
                    want(live, slot, bytes.len() - taken, whole);
                    if can_grow && !live.restless && live.wish_class > Slots::class(slot) {
                        live.growing = live.growing.min(now);
                    }
                }
                Offer::Part(taken)
            };
            if let Some(mut fast) = table.slots.fast(slot) {
                let first = !std::mem::replace(&mut fast.live.touched, true);
                if fast.live.closing {
                    return (Offer::Taken, first);
                }
                let room = fast.ring() - fast.unacknowledged();
                if fast.live.growing == Now::MAX && (room >= bytes.len() || !whole) {
                    taken = room.min(bytes.len());
                    if let Some(place) = fast.send(taken) {
                        place.copy_from_slice(&bytes[..taken]);
                    }
                }
                return (put(fast.live, taken), first);
            }
            table.slots.with(slot, |socket, live| {
                let first = !std::mem::replace(&mut live.touched, true);
                if !socket.may_send() || live.closing {
                    return (Offer::Taken, first);
                }
                let room = socket.send_capacity() - socket.send_queue();
                if live.growing == Now::MAX && (room >= bytes.len() || !whole) {
                    taken = socket.send_slice(bytes).unwrap_or(0);
                }
                (put(live, taken), first)
            })
        });
        if first {
            self.touched.push(index);
        }
        offer
    }

    /// The slot of a connection, thawed for it where need be.
    #[inline(always)]
    fn thawed(&mut self, id: ConnId) -> Option<(u32, u32)> {
        match self.lending.with(|table| live(table, id)) {
            Some(found) => Some(found),
            None => self.thaw(id),
        }
    }

    #[cold]
    fn thaw(&mut self, id: ConnId) -> Option<(u32, u32)> {
        let (core, net, now) = (&mut *self.core, self.net, self.now);
        self.lending.with(|table| {
            let index = table.conns.index(id)?;
            let local = net.local_ip(table.conns.at(index).tuple.local);
            core.thaw(table, index, local, now).then_some(())?;
            Some((index, table.slot(index)?))
        })
    }
}

/// What a segment carries at least where the peer doesn't say more (RFC 9293 §3.7.1).
const MSS_LEAST: usize = 536;

/// Output found no room: it waits for as much, or where it may be sent in pieces, for a segment's
/// worth; and for larger rings where these never have it.
fn want(live: &mut Live, slot: u32, bytes: usize, whole: bool) {
    let class = Slots::class(slot);
    let capacity = RING_BYTES[usize::from(class)];
    let piece = if whole { bytes } else { bytes.min(MSS_LEAST.max(live.peer_mss.into())) };
    live.wanted = piece.min(capacity) as u32;
    let fits = RING_BYTES.iter().position(|&ring| ring >= bytes).unwrap_or(RING_BYTES.len() - 1);
    // A queue that is full in small rings is a sign as well.
    let larger = fits.max(usize::from(class) + 1).min(RING_BYTES.len() - 1);
    live.wish_class = live.wish_class.max(larger as u8);
}

#[inline]
pub(crate) fn live(table: &Table, id: ConnId) -> Option<(u32, u32)> {
    let conn = table.conns.named(id)?;
    (conn.phase == Phase::Live).then_some((id.slot, conn.live))
}

pub(crate) fn peer(table: &Table, id: ConnId) -> Option<SocketAddr> {
    let tuple = table.conns.at(table.conns.index(id)?).tuple;
    Some(SocketAddr::new(tuple.remote_ip(), tuple.remote_port))
}

fn touch(lending: &Lending<'_>, slot: u32, index: u32, touched: &mut Vec<u32>) {
    let first =
        lending.with(|table| !std::mem::replace(&mut table.slots.live_mut(slot).touched, true));
    if first {
        touched.push(index);
    }
}
