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

/// A client's source of masking keys and nonces: one a worker. Each is handed out once.
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
        Self::from_source(Source::System)
    }

    /// Keys that anyone can predict and a test can replay. Never for a connection.
    #[doc(hidden)]
    pub fn seeded(seed: u64) -> Self {
        // A seeded block cannot fail; if it did, the first key would say so.
        Self::from_source(Source::Seeded(seed)).unwrap_or_else(|_| unreachable!())
    }

    fn from_source(source: Source) -> Result<Self, RandomError> {
        let mut keys = Self { block: Box::new([0; BLOCK_BYTES]), used: BLOCK_BYTES, source };
        keys.refill()?;
        Ok(keys)
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
                for bytes in self.block.chunks_exact_mut(8) {
                    bytes.copy_from_slice(&splitmix64(state).to_le_bytes());
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
