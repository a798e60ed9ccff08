//! Everything that a stranger must not be able to foresee comes from one secret of this start:
//! flow hash, initial sequence numbers, SYN cookies, ephemeral ports, the neighbour cache. Keyed
//! SipHash, one key each.

use std::hash::Hasher;

use hioload_core::Now;
use siphasher::sip::SipHasher13;

use crate::conn::Tuple;

/// The keys of this start.
#[derive(Clone)]
pub(crate) struct Secret {
    flow: SipHasher13,
    isn: SipHasher13,
    cookie: SipHasher13,
    port: SipHasher13,
    neighbor: SipHasher13,
}

impl Secret {
    /// Derives the keys from 32 secret bytes.
    pub(crate) fn new(bytes: [u8; 32]) -> Secret {
        let (key, label) = bytes.split_at(16);
        let mut first = [0u8; 16];
        first.copy_from_slice(key);
        let root = SipHasher13::new_with_key(&first);
        let derive = |n: u8| {
            let half = |side: u8| {
                let mut hasher = root;
                hasher.write(label);
                hasher.write(&[n, side]);
                hasher.finish()
            };
            SipHasher13::new_with_keys(half(0), half(1))
        };
        Secret {
            flow: derive(0),
            isn: derive(1),
            cookie: derive(2),
            port: derive(3),
            neighbor: derive(4),
        }
    }

    /// For the neighbour cache.
    pub(crate) fn neighbor(&self) -> SipHasher13 {
        self.neighbor
    }

    /// Where a tuple stands in the flow table.
    pub(crate) fn flow(&self, tuple: &Tuple) -> u32 {
        self.flow.hash(&tuple.bytes()) as u32
    }

    /// RFC 6528 §3: ISN = M + F(tuple, secret), M a clock of 4 µs.
    pub(crate) fn isn(&self, tuple: &Tuple, now: Now) -> u32 {
        let clock = (now.as_nanos() / 4_000) as u32;
        clock.wrapping_add(self.isn.hash(&tuple.bytes()) as u32)
    }

    /// Authenticates a SYN cookie.
    pub(crate) fn cookie(&self, tuple: &Tuple, peer_isn: u32, period: u64, extra: u8) -> u32 {
        let mut hasher = self.cookie;
        hasher.write(&tuple.bytes());
        hasher.write(&peer_isn.to_be_bytes());
        hasher.write(&period.to_be_bytes());
        hasher.write(&[extra]);
        hasher.finish() as u32
    }

    /// RFC 6056 §3.3.3: where the search for an ephemeral port to this destination begins. The
    /// tuple's local port is 0.
    pub(crate) fn port(&self, tuple: &Tuple) -> u32 {
        self.port.hash(&tuple.bytes()) as u32
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
