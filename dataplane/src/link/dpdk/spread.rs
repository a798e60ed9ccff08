//! Which queue a flow's frames meet, so that a connection always finds its own worker: by a device's
//! RSS, whose hash is computed here as well, or because whoever is at the other end keeps a flow on
//! its queue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The key of every RSS hash, repeated: as its period is that of the words that are hashed, source
/// and destination may change places (Woo and Park, "Scalable TCP Session Monitoring with Symmetric
/// Receive-side Scaling", 2012). So both directions of a flow meet one queue.
pub(super) const KEY_WORD: [u8; 2] = [0x6d, 0x5a];

/// How a device spreads flows over its queues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spread {
    /// There is one queue.
    One,
    /// Whoever is at the other end answers on the queue that he was asked on: a kernel behind a TAP
    /// of several queues, the peer's queue of the same number on vhost, virtio, memif and rings.
    Peer,
    /// The kernel's fanout (af_packet), or the NIC as the kernel's driver set it up (af_xdp), keeps a
    /// flow on a queue that can't be foreseen here.
    Kernel,
    /// RSS by the symmetric Toeplitz hash.
    Rss(Rss),
}

/// What a device hashes, and where hashes lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rss {
    /// Ports are hashed as well as addresses, of IPv4.
    pub(super) ports_v4: bool,
    /// Ports are hashed as well as addresses, of IPv6.
    pub(super) ports_v6: bool,
    /// The queue by the hash's low bits. `None`: the device doesn't tell.
    pub(super) table: Option<Arc<[u16]>>,
}

impl Spread {
    /// Whether a connection that is opened here can be given a port that leads its answers back to
    /// `queue`'s worker, and whether this one does.
    #[inline]
    pub(super) fn leads_to(&self, queue: u16, local: SocketAddr, remote: SocketAddr) -> bool {
        match self {
            Spread::One | Spread::Peer | Spread::Kernel => true,
            Spread::Rss(rss) => rss.queue(local, remote).is_none_or(|found| found == queue),
        }
    }

    /// Whether connections that are opened here find their way back to their worker.
    #[must_use]
    pub fn places_outgoing(&self) -> bool {
        !matches!(self, Spread::Kernel | Spread::Rss(Rss { table: None, .. }))
    }
}

impl Rss {
    fn queue(&self, local: SocketAddr, remote: SocketAddr) -> Option<u16> {
        let table = self.table.as_deref()?;
        let ports = if local.is_ipv4() { self.ports_v4 } else { self.ports_v6 };
        let hash = hash(local, remote, ports);
        // Devices take the low bits: their tables' sizes are powers of two.
        table.get(hash as usize % table.len().max(1)).copied()
    }
}

/// Toeplitz over addresses, and ports, with [`KEY_WORD`] repeated. As each word of 16 bits meets
/// the same stretch of the key, their exclusive-or is all that counts.
fn hash(a: SocketAddr, b: SocketAddr, ports: bool) -> u32 {
    let words = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            (bits >> 16) as u16 ^ bits as u16
        }
        IpAddr::V6(ip) => ip.segments().into_iter().fold(0, |sum, word| sum ^ word),
    };
    let mut word = words(a.ip()) ^ words(b.ip());
    if ports {
        word ^= a.port() ^ b.port();
    }
    let key = u32::from(u16::from_be_bytes(KEY_WORD));
    let key = key << 16 | key;
    (0..16).fold(0, |sum, bit| match word & 0x8000 >> bit {
        0 => sum,
        _ => sum ^ key.rotate_left(bit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microsoft's definition of the Toeplitz hash, bit by bit.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
        let mut sum = 0;
        for n in (0..input.len() * 8).filter(|&n| bit(input, n) == 1) {
            let window = (0..32).fold(0, |w, m| w << 1 | u32::from(bit(key, n + m)));
            sum ^= window;
        }
        sum
    }

    fn input(source: SocketAddr, destination: SocketAddr, ports: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        if ports {
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
        bytes
    }

    #[test]
    fn the_bitwise_hash_of_the_test_is_the_published_one() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
            0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let source = "66.9.149.187:2794".parse().expect("an address");
        let destination = "161.142.100.80:1766".parse().expect("an address");
        assert_eq!(toeplitz(&key, &input(source, destination, true)), 0x51cc_c178);
    }

    #[test]
    fn the_short_hash_is_toeplitz_with_the_repeated_key_in_both_directions() {
        let key = KEY_WORD.repeat(26);
        for (a, b) in [
            ("10.0.0.1:40001", "10.9.3.2:9001"),
            ("192.0.2.200:1", "198.51.100.7:65535"),
            ("[fd00::1]:40001", "[2001:db8:1234::2]:9001"),
        ] {
            let (a, b) = (a.parse().expect("an address"), b.parse().expect("an address"));
            for ports in [true, false] {
                assert_eq!(hash(a, b, ports), toeplitz(&key, &input(a, b, ports)));
                assert_eq!(hash(a, b, ports), toeplitz(&key, &input(b, a, ports)));
            }
        }
    }

    #[test]
    fn ports_of_a_connection_lead_to_each_of_its_queues_in_turn() {
        let table: Arc<[u16]> = (0..128).map(|n| n % 4).collect();
        let spread = Spread::Rss(Rss { ports_v4: true, ports_v6: true, table: Some(table) });
        let remote: SocketAddr = "10.0.0.9:9001".parse().expect("an address");
        let mut found = [0; 4];
        for port in 49_152..49_152 + 1024 {
            let local = SocketAddr::new("10.0.0.1".parse().expect("an address"), port);
            let homes: Vec<_> = (0..4).filter(|&q| spread.leads_to(q, local, remote)).collect();
            assert_eq!(homes.len(), 1, "each flow has one home");
            found[usize::from(homes[0])] += 1;
        }
        assert_eq!(found, [256; 4]);
    }
}
