//! Everything that a stranger must not be able to foresee comes from one secret of this start:
//! flow hash, initial sequence numbers, SYN cookies, ephemeral ports, the neighbour cache. One key
//! each. What leaves this machine is keyed SipHash. The flow hash, which nobody sees and which each
//! segment pays for, is three multiplications.

use std::hash::Hasher;

use hioload_core::Now;
use siphasher::sip::SipHasher13;

use crate::conn::Tuple;

/// The keys of this start.
#[derive(Clone)]
pub(crate) struct Secret {
    flow: [u64; 5],
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
        let part = |n: u8, side: u8| {
            let mut hasher = root;
            hasher.write(label);
            hasher.write(&[n, side]);
            hasher.finish()
        };
        let derive = |n: u8| SipHasher13::new_with_keys(part(n, 0), part(n, 1));
        Secret {
            flow: [0, 1, 2, 3, 4].map(|side| part(0, side)),
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
    ///
    /// Multiply and fold, keyed at every operand: as far as is known, tuples that a stranger chooses
    /// without knowing the 320 bits of key collide no more often than by chance, and no hash is ever
    /// told to him from which he could learn them. Entries are compared by tuple: the worst that a
    /// collision does is a longer probe.
    #[inline]
    pub(crate) fn flow(&self, tuple: &Tuple) -> u32 {
        let [a, b, c] = tuple.words();
        let [k0, k1, k2, k3, k4] = self.flow;
        let remote = fold(a ^ k0, b ^ k1);
        // One product makes a progression of a progression of ports; two don't.
        fold(fold(remote ^ k2, c ^ k3) ^ k4, k0 | 1) as u32
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

/// Both halves of the product, mixed.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// What one host, one subnet and one port can send, in both families: the flow hash must
    /// spread each as well as chance does, in its low bits, which choose the bucket, and altogether.
    #[test]
    fn flows_that_differ_in_a_few_bits_spread_as_well_as_by_chance() {
        let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
        let v6 = |n: u32| IpAddr::V6(Ipv6Addr::from((0x2001_0db8 << 96) | u128::from(n) << 64));
        for key in 0..20 {
            let secret = Secret::new([key; 32]);
            for family in 0..4 {
                let tuple = |n: u32| match family {
                    0 => Tuple::new(0, 80, v4(1), n as u16),
                    1 => Tuple::new(0, n as u16, v4(1), 999),
                    2 => Tuple::new(0, 80, v4(n), 999),
                    _ => Tuple::new(1, 80, v6(n), 999),
                };
                let mut buckets: HashMap<u32, u32> = HashMap::new();
                let mut whole: Vec<u32> = (0..1 << 16).map(|n| secret.flow(&tuple(n))).collect();
                whole.iter().for_each(|hash| *buckets.entry(hash % (1 << 16)).or_default() += 1);
                // Balls into as many bins: chance hits 1 - 1/e of them, none more than a dozen times.
                let hit = buckets.len();
                assert!(hit >= 40_900, "{hit} buckets, key {key}, family {family}");
                assert!(buckets.values().all(|&n| n <= 14), "key {key}, family {family}");
                whole.sort_unstable();
                whole.dedup();
                // About half a pair collides in 32 bits.
                assert!(whole.len() >= (1 << 16) - 8, "key {key}, family {family}");
            }
        }
    }
}
