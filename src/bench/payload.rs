//! Payloads that can be verified to the last byte: each is a piece of one random text, which piece
//! follows from sender and number, and begins with a stamp of both and of the send time where it
//! is long enough. Making and checking one cost a copy and a comparison.

use hioload_ws::Kind;

use super::sizes::Sizes;

/// Bytes of a stamp in a binary message; in a text message each is two letters.
const STAMP_BYTES: usize = 16;
/// Places at which a payload may begin in the random text: few enough for a core's first cache.
const PLACES: usize = 1 << 12;

/// Who sent a message, the how-manieth it is, and when it was to be sent (ns since the run's
/// epoch).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub sender: u32,
    pub number: u32,
    pub at: u64,
}

/// Makes and checks payloads; see the module.
#[derive(Clone, Debug)]
pub struct Payloads {
    kind: Kind,
    sizes: Sizes,
    seed: u64,
    text: std::sync::Arc<[u8]>,
}

impl Payloads {
    pub fn new(kind: Kind, sizes: Sizes, seed: u64) -> Self {
        let bytes = sizes.largest() + PLACES;
        let text = (0..bytes.div_ceil(8) as u64)
            .flat_map(|word| mix(seed ^ word.wrapping_mul(0xA076_1D64_78BD_642F)).to_le_bytes())
            .map(|byte| match kind {
                Kind::Binary => byte,
                Kind::Text => b'0' + byte % 64,
            })
            .take(bytes)
            .collect();
        Payloads { kind, sizes, seed, text }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn stamp_len(&self) -> usize {
        Self::least_stamped(self.kind)
    }

    /// Bytes of a stamp in a message of this kind: shorter ones have none.
    pub fn least_stamped(kind: Kind) -> usize {
        match kind {
            Kind::Binary => STAMP_BYTES,
            Kind::Text => 2 * STAMP_BYTES,
        }
    }

    fn random(&self, sender: u32, number: u32) -> u64 {
        mix(self.seed ^ (u64::from(sender) << 32 | u64::from(number)))
    }

    /// How long a message is, in bytes.
    pub fn len(&self, sender: u32, number: u32) -> usize {
        self.sizes.pick(self.random(sender, number))
    }

    /// Writes a message. `room` has its length.
    pub fn fill(&self, room: &mut [u8], stamp: Stamp) {
        let place = self.place(stamp);
        room.copy_from_slice(&self.text[place..place + room.len()]);
        let mut bytes = [0; 2 * STAMP_BYTES];
        let stamped = self.encode(stamp, &mut bytes);
        if let Some(front) = room.get_mut(..stamped.len()) {
            front.copy_from_slice(stamped);
        }
    }

    /// Whether a message is what was sent, to the last byte.
    pub fn is_right(&self, kind: Kind, payload: &[u8], stamp: Stamp) -> bool {
        if kind != self.kind || payload.len() != self.len(stamp.sender, stamp.number) {
            return false;
        }
        let place = self.place(stamp);
        let expected = &self.text[place..place + payload.len()];
        match payload.split_at_checked(self.stamp_len()) {
            Some((front, rest)) => {
                let mut bytes = [0; 2 * STAMP_BYTES];
                rest == &expected[front.len()..] && front == self.encode(stamp, &mut bytes)
            }
            None => payload == expected,
        }
    }

    /// Reads the stamp that a message begins with, as its sender wrote it.
    pub fn stamp(&self, payload: &[u8]) -> Option<Stamp> {
        let front = payload.get(..self.stamp_len())?;
        let mut bytes = [0; STAMP_BYTES];
        match self.kind {
            Kind::Binary => bytes.copy_from_slice(front),
            Kind::Text => {
                for (byte, pair) in bytes.iter_mut().zip(front.as_chunks::<2>().0) {
                    let [low, high] = pair.map(|c| c.wrapping_sub(b'a'));
                    if low > 15 || high > 15 {
                        return None;
                    }
                    *byte = low | high << 4;
                }
            }
        }
        let [a, b, c, d, e, f, g, h, time @ ..] = bytes;
        let sender = u32::from_le_bytes([a, b, c, d]);
        let number = u32::from_le_bytes([e, f, g, h]);
        Some(Stamp { sender, number, at: u64::from_le_bytes(time) })
    }

    fn place(&self, stamp: Stamp) -> usize {
        self.random(stamp.sender, stamp.number) as usize % PLACES
    }

    fn encode<'b>(&self, stamp: Stamp, room: &'b mut [u8; 2 * STAMP_BYTES]) -> &'b [u8] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&stamp.sender.to_le_bytes());
        bytes[4..8].copy_from_slice(&stamp.number.to_le_bytes());
        bytes[8..].copy_from_slice(&stamp.at.to_le_bytes());
        match self.kind {
            Kind::Binary => room[..STAMP_BYTES].copy_from_slice(&bytes),
            Kind::Text => {
                for (pair, byte) in room.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                    *pair = [b'a' + (byte & 15), b'a' + (byte >> 4)];
                }
            }
        }
        &room[..self.stamp_len()]
    }
}

/// SplitMix64's finalizer: numbers that look random from any that don't.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, number: 70_000, at: 0x0123_4567_89AB_CDEF };

    fn made(kind: Kind, bytes: usize) -> (Payloads, Vec<u8>) {
        let payloads = Payloads::new(kind, Sizes::Fixed(bytes), 42);
        let mut room = vec![0; bytes];
        payloads.fill(&mut room, STAMP);
        (payloads, room)
    }

    #[test]
    fn one_wrong_bit_anywhere_is_found() {
        for kind in [Kind::Binary, Kind::Text] {
            for bytes in [1, 15, 16, 17, 31, 32, 33, 300] {
                let (payloads, mut payload) = made(kind, bytes);
                assert!(payloads.is_right(kind, &payload, STAMP), "{kind:?} {bytes}");
                for at in 0..bytes {
                    payload[at] ^= 1;
                    assert!(!payloads.is_right(kind, &payload, STAMP), "{kind:?} {bytes} at {at}");
                    payload[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn a_message_of_another_length_kind_sender_or_number_is_found() {
        let (payloads, payload) = made(Kind::Text, 64);
        assert!(!payloads.is_right(Kind::Text, &payload[..63], STAMP));
        assert!(!payloads.is_right(Kind::Binary, &payload, STAMP));
        for stamp in [
            Stamp { sender: 8, ..STAMP },
            Stamp { number: 70_001, ..STAMP },
            Stamp { at: 1, ..STAMP },
        ] {
            assert!(!payloads.is_right(Kind::Text, &payload, stamp));
        }
    }

    #[test]
    fn a_stamp_reads_back_and_text_is_text() {
        for kind in [Kind::Binary, Kind::Text] {
            let (payloads, payload) = made(kind, 4000);
            assert_eq!(payloads.stamp(&payload), Some(STAMP));
            assert_eq!(payloads.stamp(&payload[..15]), None);
            assert!(kind == Kind::Binary || payload.is_ascii());
        }
        let (payloads, _) = made(Kind::Text, 64);
        assert_eq!(payloads.stamp(&[0xFF; 64]), None);
    }
}
