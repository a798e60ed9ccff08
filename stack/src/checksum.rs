//! The Internet checksum (RFC 1071) of IP, TCP and ICMP. Pure arithmetic over slices.

use std::net::IpAddr;

/// A one's complement sum that isn't folded yet, of words in the machine's own byte order: the sum's
/// bytes come out swapped and otherwise the same (RFC 1071 §2.B), and no word is turned on the way.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian 16-bit words; an odd last byte is padded with a zero.
    #[inline]
    pub(crate) fn add(mut self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<4>();
        for &word in words {
            // Words of 32 bits: 2^32 of them fit in the sum, far more than a packet has.
            self.0 += u64::from(u32::from_ne_bytes(word));
        }
        let mut last = [0u8; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_ne_bytes(last));
        self
    }

    /// Adds a 16-bit number.
    #[inline]
    pub(crate) fn add_u16(mut self, n: u16) -> Sum {
        self.0 += u64::from(n.to_be());
        self
    }

    /// The pseudo-header of RFC 9293 §3.1 and RFC 8200 §8.1.
    pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: u16) -> Sum {
        let sum = Sum::default().add_u16(u16::from(protocol)).add_u16(len);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => sum.add(&src.octets()).add(&dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => sum.add(&src.octets()).add(&dst.octets()),
            // A packet has one family; a mixture never verifies.
            _ => sum.add_u16(1),
        }
    }

    /// The sum in 16 bits, not complemented: what an offload wants for the pseudo-header.
    #[inline]
    pub(crate) fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement.
    pub(crate) fn finish(self) -> u16 {
        !self.fold()
    }

    /// Whether a sum over data that includes its checksum says that it arrived whole.
    pub(crate) fn is_good(self) -> bool {
        self.fold() == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn an_odd_byte_counts_as_a_padded_word() {
        assert_eq!(Sum::default().add(&[1, 2, 3]).fold(), 0x0102 + 0x0300);
    }

    #[test]
    fn data_with_its_checksum_is_good_and_one_bit_off_is_not() {
        let mut data = *b"\x45\x00\x00\x28\xab\xcd\x00\x00";
        let sum = Sum::default().add(&data).finish();
        data[6..8].copy_from_slice(&sum.to_be_bytes());
        assert!(Sum::default().add(&data).is_good());
        data[3] ^= 4;
        assert!(!Sum::default().add(&data).is_good());
    }
}
