//! Masking keys and handshake nonces: fresh and unpredictable for whoever chooses the payload
//! (RFC 6455 §5.3 and §10.3), from the operating system's generator, a block at a time.

use std::fmt;

/// Bytes that one system call brings: 1,024 keys.
const BLOCK_BYTES: usize = 4096;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomError(getrandom::Error);

impl fmt::Display for RandomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operating system gave no random bytes: {}", self.0)
    }
}

impl std::error::Error for RandomError {}

/// A client's source of masking keys and nonces: one a worker. Each is handed out once. Not to be
/// carried over a `fork`, whose two sides would hand out the same.
pub struct MaskKeys {
    block: Box<[u8; BLOCK_BYTES]>,
    /// Bytes of the block that were handed out; all of them when the next call must refill.
    used: usize,
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    System,
    /// SplitMix64, for tests that must replay.
    Seeded(u64),
}

impl MaskKeys {
    /// Keys from the operating system.
    ///
    /// # Errors
    /// It has no random bytes to give; better to know before a connection is open.
    pub fn new() -> Result<Self, RandomError> {
        let mut keys = Self::from_source(Source::System);
        keys.refill()?;
        Ok(keys)
    }

    /// Keys that anyone can predict and a test can replay. Never for a connection.
    #[doc(hidden)]
    pub fn seeded(seed: u64) -> Self {
        Self::from_source(Source::Seeded(seed))
    }

    /// With an empty block: the first call fills it.
    fn from_source(source: Source) -> Self {
        Self { block: Box::new([0; BLOCK_BYTES]), used: BLOCK_BYTES, source }
    }

    /// A masking key for one frame (RFC 6455 §5.3).
    ///
    /// # Errors
    /// A refill failed. No key was handed out twice; the next call tries again.
    #[inline]
    pub fn next_key(&mut self) -> Result<[u8; 4], RandomError> {
        self.take()
    }

    /// A nonce for one handshake (RFC 6455 §4.1).
    ///
    /// # Errors
    /// As for [`next_key`](Self::next_key).
    pub fn nonce(&mut self) -> Result<[u8; 16], RandomError> {
        self.take()
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RandomError> {
        loop {
            if let Some(bytes) = self.block[self.used..].first_chunk() {
                self.used += N;
                return Ok(*bytes);
            }
            self.refill()?;
        }
    }

    #[cold]
    fn refill(&mut self) -> Result<(), RandomError> {
        // Until the new block is whole, nothing of it may be handed out.
        self.used = BLOCK_BYTES;
        match &mut self.source {
            Source::System => getrandom::fill(&mut self.block[..]).map_err(RandomError)?,
            Source::Seeded(state) => {
                for bytes in self.block.as_chunks_mut::<8>().0 {
                    *bytes = splitmix64(state).to_le_bytes();
                }
            }
        }
        self.used = 0;
        Ok(())
    }
}

impl fmt::Debug for MaskKeys {
    /// Without the keys: they are for the peer they mask to, not for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskKeys").field("used", &self.used).finish_non_exhaustive()
    }
}

/// Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_and_nonces_are_fresh_across_refills() {
        let (mut one, mut other) = (MaskKeys::new().unwrap(), MaskKeys::new().unwrap());
        // Nonces, not keys: two of 16 bytes never meet by chance. The odd key between them makes
        // blocks end inside a nonce.
        let mut seen = HashSet::new();
        for _ in 0..3 * BLOCK_BYTES / 16 {
            one.next_key().unwrap();
            assert!(seen.insert(one.nonce().unwrap()));
            assert!(seen.insert(other.nonce().unwrap()));
        }
    }

    #[test]
    fn one_block_is_handed_out_from_end_to_end() {
        let mut keys = MaskKeys::seeded(1);
        let first = keys.next_key().unwrap();
        let block = *keys.block;
        let rest = (1..BLOCK_BYTES / 4).map(|_| keys.next_key().unwrap());
        let handed: Vec<u8> = [first].into_iter().chain(rest).flatten().collect();
        assert!(handed == block);
        keys.next_key().unwrap();
        assert!(*keys.block != block, "the next key comes from a new block");
        assert_eq!(keys.used, 4);
    }

    #[test]
    fn what_is_too_short_for_a_nonce_is_passed_over() {
        let mut keys = MaskKeys::seeded(1);
        keys.next_key().unwrap();
        keys.used = BLOCK_BYTES - 12;
        let nonce = keys.nonce().unwrap();
        assert_eq!((&nonce, keys.used), (keys.block.first_chunk().unwrap(), 16));
    }

    #[test]
    fn a_seed_replays() {
        let [mut one, mut same, mut other] = [7, 7, 8].map(MaskKeys::seeded);
        let nonce = one.nonce();
        assert_eq!(nonce, same.nonce());
        assert_ne!(nonce, other.nonce());
        assert_eq!(splitmix64(&mut 0), 0xE220_A839_7B1D_CDAF, "the generator's published first");
    }

    #[test]
    fn every_bit_of_a_key_is_random() {
        let mut keys = MaskKeys::new().unwrap();
        let mut ones = [0u32; 32];
        for _ in 0..4096 {
            let key = u32::from_ne_bytes(keys.next_key().unwrap());
            (0..32).for_each(|bit| ones[bit] += key >> bit & 1);
        }
        // Ten standard deviations (of 32) around the middle.
        assert!(ones.iter().all(|ones| (1728..=2368).contains(ones)), "{ones:?}");
    }

    #[test]
    fn keys_are_not_logged() {
        let mut keys = MaskKeys::seeded(1);
        keys.nonce().unwrap();
        assert_eq!(format!("{keys:?}"), "MaskKeys { used: 16, .. }");
    }
}
