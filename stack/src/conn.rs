//! The table of connections: 64 bytes for each, frozen or not, in chunks that never move.
//!
//! An entry holds the 4-tuple and, while the connection has no socket, all that is needed to give
//! it one again. Its index is the connection's name for the timer wheel, the flow table and (with
//! a generation) the user; its fields have no pointers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hioload_core::region::HUGE_PAGE_BYTES;
use hioload_core::{RegionVec, TimerKey, prefetch_at};

use crate::config::RING_BYTES;
use crate::slots::{HEAD_BYTES, Slots};

/// Names a connection of one stack. A stale one reaches nobody.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// Index, dense from 0.
    pub slot: u32,
    /// Counts the tenants of the index.
    pub generation: u32,
}

/// No slot, no connection.
pub(crate) const NIL: u32 = u32::MAX;

/// A 4-tuple. The family is that of our address.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tuple {
    /// IPv4 in the first four bytes, the rest 0.
    pub(crate) remote: [u8; 16],
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    /// Index into the stack's addresses.
    pub(crate) local: u8,
    pub(crate) v6: bool,
}

impl Tuple {
    pub(crate) fn new(local: u8, local_port: u16, remote: IpAddr, remote_port: u16) -> Tuple {
        let mut bytes = [0; 16];
        match remote {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        Tuple { remote: bytes, remote_port, local_port, local, v6: remote.is_ipv6() }
    }

    pub(crate) fn remote_ip(&self) -> IpAddr {
        match self.v6 {
            true => IpAddr::V6(Ipv6Addr::from(self.remote)),
            false => {
                let [a, b, c, d, ..] = self.remote;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
        }
    }

    /// All of it as numbers, for the flow hash.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 3] {
        let [a, b] = [0, 8].map(|at| {
            let mut half = [0; 8];
            half.copy_from_slice(&self.remote[at..at + 8]);
            u64::from_le_bytes(half)
        });
        let ports = u64::from(self.remote_port) << 16 | u64::from(self.local_port);
        [a, b, ports << 16 | u64::from(self.local) << 8 | u64::from(self.v6)]
    }

    /// All of it, for the keyed hashes of what strangers see.
    pub(crate) fn bytes(&self) -> [u8; 22] {
        let mut bytes = [0; 22];
        bytes[..16].copy_from_slice(&self.remote);
        bytes[16..18].copy_from_slice(&self.remote_port.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.local_port.to_be_bytes());
        bytes[20] = self.local;
        bytes[21] = u8::from(self.v6);
        bytes
    }
}

/// What an entry is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nobody's.
    Free,
    /// A socket with rings.
    Live,
    /// Established, idle, without memory: `record` says how to go on.
    Frozen,
    /// RFC 9293 §3.4.3: closed; `record` says what to answer.
    TimeWait,
}

/// A connection's state while it has no socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    pub(crate) snd_nxt: u32,
    pub(crate) rcv_nxt: u32,
    /// Right edge of the window that the peer was told.
    pub(crate) rcv_edge: u32,
    /// The peer's window as it stood in its last segment, not yet scaled.
    pub(crate) peer_window: u16,
    /// The peer's MSS option; 0 where it sent none.
    pub(crate) peer_mss: u16,
    /// The peer's window scale; `NO_SCALE` where it sent none.
    pub(crate) peer_scale: u8,
    pub(crate) peer_sack: bool,
    /// Made from a SYN cookie.
    pub(crate) cookie: bool,
    pub(crate) ring_class: u8,
    pub(crate) mtu_class: u8,
}

/// The peer didn't send a window scale option.
pub(crate) const NO_SCALE: u8 = u8::MAX;

/// One entry of the table.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Conn {
    pub(crate) tuple: Tuple,
    pub(crate) phase: Phase,
    /// The user was told that it is open.
    pub(crate) opened: bool,
    /// The user wants no `Readable`.
    pub(crate) paused: bool,
    /// In the list of connections with news for the user.
    pub(crate) in_ready: bool,
    /// In the list of connections to look after at the end of the turn.
    pub(crate) in_dirty: bool,
    /// In the queue of connections whose output waits for room on the link.
    pub(crate) in_stalled: bool,
    pub(crate) generation: u32,
    /// The socket's slot while live.
    pub(crate) live: u32,
    pub(crate) timer: Option<TimerKey>,
    pub(crate) record: Record,
}

/// What a connection costs in this table.
pub const CONN_BYTES: usize = size_of::<Conn>();
const _: () = assert!(CONN_BYTES == 64);

/// What a frozen connection costs, all told: its entry, 8 bytes in the flow table at a load of 0.75,
/// and 16 in the timer wheel, which keeps the room of a timer that it had.
pub const FROZEN_BYTES: usize = CONN_BYTES + (8usize * 4).div_ceil(3) + 16;
const _: () = assert!(FROZEN_BYTES == 91);

/// What a live connection with the smallest rings costs, all told.
pub const LIVE_BYTES: usize = FROZEN_BYTES + HEAD_BYTES + 2 * RING_BYTES[0];
const _: () = assert!(LIVE_BYTES == 4_891);
const _: () = assert!(size_of::<Record>() <= 24);

/// A chunk is a hugepage.
const CHUNK_SHIFT: u32 = 15;
const CHUNK: usize = 1 << CHUNK_SHIFT;
const _: () = assert!(CHUNK * CONN_BYTES == HUGE_PAGE_BYTES);

/// See the module.
#[derive(Debug)]
pub(crate) struct Conns {
    chunks: Vec<RegionVec<Conn>>,
    free: Vec<u32>,
    used: u32,
    max: u32,
    huge: bool,
    node: Option<u32>,
}

fn vacant() -> Conn {
    Conn {
        tuple: Tuple::default(),
        phase: Phase::Free,
        opened: false,
        paused: false,
        in_ready: false,
        in_dirty: false,
        in_stalled: false,
        generation: 0,
        live: NIL,
        timer: None,
        record: Record::default(),
    }
}

impl Conns {
    pub(crate) fn new(max: u32, huge: bool, node: Option<u32>) -> Conns {
        Conns { chunks: Vec::new(), free: Vec::new(), used: 0, max, huge, node }
    }

    pub(crate) fn len(&self) -> u32 {
        self.used - self.free.len() as u32
    }

    /// Places that ever had a connection.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// Takes an entry; `None` where the table is full or the system has no memory.
    pub(crate) fn take(&mut self, tuple: Tuple, phase: Phase, live: u32) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.add()?,
        };
        let conn = self.at_mut(index);
        let Conn { generation, in_dirty, in_stalled, in_ready, .. } = *conn;
        // A stale place in a list is harmless: whoever walks it looks at what is here now.
        *conn = Conn { tuple, phase, live, generation, in_dirty, in_stalled, in_ready, ..vacant() };
        Some(index)
    }

    /// Makes one more entry.
    fn add(&mut self) -> Option<u32> {
        if self.used as usize == self.chunks.len() * CHUNK {
            self.chunks.push(RegionVec::with_capacity(CHUNK, self.huge, self.node).ok()?);
        }
        self.chunks.last_mut()?.push(vacant()).ok()?;
        self.used += 1;
        Some(self.used - 1)
    }

    /// Gives an entry back; its names are dead from now on.
    pub(crate) fn release(&mut self, index: u32) {
        let conn = self.at_mut(index);
        debug_assert!(conn.phase != Phase::Free && conn.timer.is_none());
        conn.phase = Phase::Free;
        conn.live = NIL;
        conn.generation = conn.generation.wrapping_add(1);
        self.free.push(index);
    }

    #[inline]
    pub(crate) fn at(&self, index: u32) -> &Conn {
        &self.chunks[(index >> CHUNK_SHIFT) as usize][index as usize % CHUNK]
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> &mut Conn {
        &mut self.chunks[(index >> CHUNK_SHIFT) as usize][index as usize % CHUNK]
    }

    /// The index that a user's name means, if it still means one.
    pub(crate) fn index(&self, id: ConnId) -> Option<u32> {
        self.named(id).map(|_| id.slot)
    }

    /// The entry that a user's name means, if it still means one.
    #[inline]
    pub(crate) fn named(&self, id: ConnId) -> Option<&Conn> {
        (id.slot < self.used).then_some(())?;
        let conn = self.at(id.slot);
        let named = matches!(conn.phase, Phase::Live | Phase::Frozen);
        (named && conn.generation == id.generation).then_some(conn)
    }

    pub(crate) fn id(&self, index: u32) -> ConnId {
        ConnId { slot: index, generation: self.at(index).generation }
    }

    /// [`Conns::prefetch`] of what a user names, who may name anything.
    #[inline]
    pub(crate) fn prefetch_any(&self, index: u32) {
        if index < self.used {
            self.prefetch(index);
        }
    }

    #[inline]
    pub(crate) fn prefetch(&self, index: u32) {
        prefetch_at(self.at(index));
    }
}

/// The connections and the memory of those that are live.
pub(crate) struct Table {
    pub(crate) conns: Conns,
    pub(crate) slots: Slots,
}

impl Table {
    /// Bytes of all connections, as if all were live in the smallest rings.
    #[inline]
    pub(crate) fn bytes_used(&self) -> usize {
        self.conns.len() as usize * LIVE_BYTES
    }

    /// The slot of a connection, where it is live.
    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Option<u32> {
        let conn = self.conns.at(index);
        (conn.phase == Phase::Live).then_some(conn.live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_reaches_nobody_and_the_table_is_bounded() {
        let mut conns = Conns::new(2, false, None);
        let first = conns.take(Tuple::default(), Phase::Live, 7).unwrap();
        let id = conns.id(first);
        assert_eq!(conns.index(id), Some(first));
        conns.release(first);
        assert_eq!(conns.index(id), None);
        let again = conns.take(Tuple::default(), Phase::Live, 8).unwrap();
        assert_eq!(again, first);
        assert_eq!(conns.index(id), None);
        assert!(conns.take(Tuple::default(), Phase::Live, 9).is_some());
        assert!(conns.take(Tuple::default(), Phase::Live, 10).is_none());
        assert_eq!(conns.index(ConnId { slot: 99, generation: 0 }), None);
    }

    #[test]
    fn both_families_survive_a_tuple() {
        for ip in ["192.0.2.7", "2001:db8::7"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(Tuple::new(0, 1, ip, 2).remote_ip(), ip);
        }
    }
}
