//! Masking with the machine's integers: eight bytes at a time, then four, two and one.

/// XORs `buf` with `key`, little-endian, from the key's low byte on.
#[inline]
pub(super) fn xor(key: u32, buf: &mut [u8]) {
    let wide = u64::from(key) << 32 | u64::from(key);
    let (words, tail) = buf.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(wide.to_le_bytes()) {
        *byte ^= mask;
    }
}
