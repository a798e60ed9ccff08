//! Masking with the machine's integers. A tail is not walked byte by byte: the last word of the
//! buffer, which overlaps the one before, is read before anything is written and written last.

/// XORs `buf` with `key`, little-endian, from the key's low byte on; says whether the outcome is
/// ASCII.
#[inline]
pub(super) fn xor(key: u32, buf: &mut [u8]) -> bool {
    match buf.len() {
        0..4 => {
            let mut seen = 0;
            for (byte, mask) in buf.iter_mut().zip(key.to_le_bytes()) {
                *byte ^= mask;
                seen |= *byte;
            }
            seen.is_ascii()
        }
        4..8 => xor_u32(key, buf),
        8..16 => xor_u64(key, buf),
        16..=64 => xor_u128(key, buf),
        // A long loop over narrower words is one that compilers turn into vectors.
        _ => xor_u64(key, buf),
    }
}

/// `$name` XORs a buffer of at least one `$word`.
macro_rules! words {
    ($($name:ident $word:ty;)*) => {$(
        #[inline(always)]
        fn $name(key: u32, buf: &mut [u8]) -> bool {
            const BYTES: usize = size_of::<$word>();
            /// Each 32 bits of a word hold the key once.
            const REPEAT: $word = <$word>::MAX / u32::MAX as $word;
            /// The bits that no ASCII has.
            const HIGH_BITS: $word = 0x8080_8080 * REPEAT;

            let Some(tail) = buf.last_chunk() else { return true };
            let turn = 8 * (buf.len() % 4) as u32;
            let tail = <$word>::from_le_bytes(*tail) ^ REPEAT * <$word>::from(key.rotate_right(turn));
            let mask = REPEAT * <$word>::from(key);
            let mut seen = tail;
            for bytes in buf.as_chunks_mut::<BYTES>().0 {
                let word = <$word>::from_le_bytes(*bytes) ^ mask;
                *bytes = word.to_le_bytes();
                seen |= word;
            }
            if let Some(end) = buf.last_chunk_mut() {
                *end = tail.to_le_bytes();
            }
            seen & HIGH_BITS == 0
        }
    )*};
}

words! {
    xor_u32 u32;
    xor_u64 u64;
    xor_u128 u128;
}
