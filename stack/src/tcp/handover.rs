//! A frozen connection as bytes that another process can go on with: what a restart hands over.

use std::net::IpAddr;

use super::Tcp;
use crate::config::{RING_BYTES, StackError};
use crate::conn::{ConnId, NIL, NO_SCALE, Phase, Record, Tuple};
use crate::net::Net;

/// Size of a [`FrozenRecord`].
pub const FROZEN_RECORD_BYTES: usize = 64;
const VERSION: u8 = 1;
const SACK: u8 = 1;
const COOKIE: u8 = 2;
const V6: u8 = 4;

/// A frozen connection: no pointers, big-endian, the first byte is the version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrozenRecord(pub [u8; FROZEN_RECORD_BYTES]);

fn address(v6: bool, bytes: [u8; 16]) -> IpAddr {
    match v6 {
        true => IpAddr::from(bytes),
        false => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::from([a, b, c, d])
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

impl Tcp {
    /// Writes a frozen connection down, and forgets it without a word to anybody.
    pub(crate) fn hand_over(&mut self, id: ConnId, net: &Net) -> Option<FrozenRecord> {
        let index = self.table.conns.index(id)?;
        let conn = self.table.conns.at(index);
        if conn.phase != Phase::Frozen {
            return None;
        }
        let (tuple, record) = (conn.tuple, conn.record);
        let mut bytes = [0u8; FROZEN_RECORD_BYTES];
        bytes[0] = VERSION;
        bytes[1] = if record.peer_sack { SACK } else { 0 }
            | if record.cookie { COOKIE } else { 0 }
            | if tuple.v6 { V6 } else { 0 };
        bytes[2] = record.peer_scale;
        bytes[3] = record.ring_class;
        bytes[4..20].copy_from_slice(&octets(net.local_ip(tuple.local)));
        bytes[20..36].copy_from_slice(&tuple.remote);
        bytes[36..38].copy_from_slice(&tuple.local_port.to_be_bytes());
        bytes[38..40].copy_from_slice(&tuple.remote_port.to_be_bytes());
        bytes[40..44].copy_from_slice(&record.snd_nxt.to_be_bytes());
        bytes[44..48].copy_from_slice(&record.rcv_nxt.to_be_bytes());
        bytes[48..52].copy_from_slice(&record.rcv_edge.to_be_bytes());
        bytes[52..54].copy_from_slice(&record.peer_window.to_be_bytes());
        bytes[54..56].copy_from_slice(&record.peer_mss.to_be_bytes());
        bytes[56] = record.mtu_class;
        self.core.counters.frozen.sub(1);
        self.leave(index);
        Some(FrozenRecord(bytes))
    }

    /// Goes on with a connection of another process. It is open, and no event says so.
    pub(crate) fn adopt(&mut self, record: &FrozenRecord, net: &Net) -> Result<ConnId, StackError> {
        let bytes = &record.0;
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let ip_at = |at: usize| {
            let mut ip = [0u8; 16];
            ip.copy_from_slice(&bytes[at..at + 16]);
            address(bytes[1] & V6 != 0, ip)
        };
        let ring_class = bytes[3];
        let mtu_class = bytes[56].min(self.core.paths.len() as u8 - 1);
        let scale = bytes[2];
        let known = bytes[0] == VERSION
            && usize::from(ring_class) < RING_BYTES.len()
            && (scale <= 14 || scale == NO_SCALE)
            && u16_at(36) != 0
            && u16_at(38) != 0;
        if !known || !self.core.isn_known {
            return Err(StackError::BadRecord);
        }
        let local = ip_at(4);
        let local_index = net.local_index(local).ok_or(StackError::Unreachable(local))?;
        let tuple = Tuple::new(local_index, u16_at(36), ip_at(20), u16_at(38));
        let hash = self.hash(&tuple);
        if self.find(hash, &tuple).is_some() {
            return Err(StackError::BadRecord);
        }
        let index = self.enter(tuple, hash, NIL).ok_or(StackError::NoMemory)?;
        let conn = self.table.conns.at_mut(index);
        conn.phase = Phase::Frozen;
        conn.opened = true;
        conn.record = Record {
            snd_nxt: u32_at(40),
            rcv_nxt: u32_at(44),
            rcv_edge: u32_at(48),
            peer_window: u16_at(52),
            peer_mss: u16_at(54),
            peer_scale: scale,
            peer_sack: bytes[1] & SACK != 0,
            cookie: bytes[1] & COOKIE != 0,
            ring_class,
            mtu_class,
        };
        self.core.counters.frozen.add(1);
        Ok(self.table.conns.id(index))
    }
}
