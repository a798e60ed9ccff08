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
        4..8 => xor_words::<4>(key, buf),
        8..16 => xor_words::<8>(key, buf),
        _ => xor_words::<16>(key, buf),
    }
}

/// XORs a buffer of at least `N` bytes, `N` being 4, 8 or 16.
#[inline(always)]
fn xor_words<const N: usize>(key: u32, buf: &mut [u8]) -> bool {
    let tail_at = buf.len() - N;
    let tail_mask = repeated::<N>(key.rotate_right(8 * (tail_at % 4) as u32));
    let Some(tail) = buf.last_chunk::<N>().map(|&tail| xored(tail, tail_mask)) else {
        return false;
    };
    let mask = repeated::<N>(key);
    let mut seen = tail;
    for word in buf.as_chunks_mut::<N>().0 {
        *word = xored(*word, mask);
        seen = std::array::from_fn(|index| seen[index] | word[index]);
    }
    if let Some(end) = buf.last_chunk_mut::<N>() {
        *end = tail;
    }
    seen.is_ascii()
}

#[inline(always)]
fn repeated<const N: usize>(key: u32) -> [u8; N] {
    let key = key.to_le_bytes();
    std::array::from_fn(|index| key[index % 4])
}

#[inline(always)]
fn xored<const N: usize>(word: [u8; N], mask: [u8; N]) -> [u8; N] {
    std::array::from_fn(|index| word[index] ^ mask[index])
}
