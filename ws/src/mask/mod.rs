//! Masking (RFC 6455 §5.3): XOR with a four-byte key that repeats. It is its own inverse.
//!
//! Payloads of a few bytes are done where the caller is; longer ones by the widest kernel that
//! the processor has, chosen once. A client's keys come from [`MaskKeys`].

mod keys;
mod portable;
#[cfg(target_arch = "x86_64")]
mod simd;

pub use keys::{MaskKeys, RandomError};

/// Up to this many bytes a call costs more than wider vectors win.
const INLINE_BYTES: usize = 64;

/// A way to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kernel {
    /// The machine's integers, everywhere.
    Portable,
    /// 16 bytes at a time (x86-64).
    Sse2,
    /// 32 bytes at a time (x86-64 with AVX2).
    Avx2,
    /// 64 bytes at a time (x86-64 with AVX-512 F and BW).
    Avx512,
}

impl Kernel {
    /// All of them, narrowest first.
    pub const ALL: [Kernel; 4] = [Self::Portable, Self::Sse2, Self::Avx2, Self::Avx512];

    /// The fastest that this processor has; asked once, then remembered.
    #[inline]
    pub fn best() -> Kernel {
        #[cfg(target_arch = "x86_64")]
        return simd::best();
        #[cfg(not(target_arch = "x86_64"))]
        return Kernel::Portable;
    }

    /// Whether this processor has what the kernel needs.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return simd::runs_here(self);
        #[cfg(not(target_arch = "x86_64"))]
        return self == Kernel::Portable;
    }
}

/// XORs `buf` with `key`, whose byte `phase % 4` meets the first byte of `buf`: `phase` is how
/// much of the frame's payload came before.
#[inline]
pub fn apply(key: [u8; 4], phase: usize, buf: &mut [u8]) {
    apply_and_see_ascii(key, phase, buf);
}

/// [`apply`], and whether the outcome is all ASCII, which is nearly free to see while the bytes
/// are in registers and spares most texts a second pass.
#[inline]
pub fn apply_and_see_ascii(key: [u8; 4], phase: usize, buf: &mut [u8]) -> bool {
    let key = turned(key, phase);
    #[cfg(target_arch = "x86_64")]
    if buf.len() > INLINE_BYTES {
        return simd::xor_best(key, buf);
    }
    portable::xor(key, buf)
}

/// [`apply_and_see_ascii`] with a kernel of the caller's choice, or the portable one where the processor lacks
/// what it needs.
pub fn apply_with(kernel: Kernel, key: [u8; 4], phase: usize, buf: &mut [u8]) -> bool {
    let key = turned(key, phase);
    #[cfg(target_arch = "x86_64")]
    return simd::xor_with(kernel, key, buf);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = kernel;
        portable::xor(key, buf)
    }
}

/// The key as a little-endian word whose low byte meets the next byte of the payload.
#[inline]
fn turned(key: [u8; 4], phase: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (phase % 4) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §5.3, to the letter.
    fn by_the_letter(key: [u8; 4], phase: usize, buf: &mut [u8]) {
        for (index, byte) in buf.iter_mut().enumerate() {
            *byte ^= key[(index + phase) % 4];
        }
    }

    fn check(kernel: Option<Kernel>, alignment: usize, len: usize, phase: usize) {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        let original: Vec<u8> = (0..alignment + len + 64).map(|i| (i * 31 + 7) as u8).collect();
        let (mut expected, mut got) = (original.clone(), original);
        by_the_letter(key, phase, &mut expected[alignment..alignment + len]);
        let buf = &mut got[alignment..alignment + len];
        let ascii = match kernel {
            Some(kernel) => apply_with(kernel, key, phase, buf),
            None => apply_and_see_ascii(key, phase, buf),
        };
        assert_eq!(ascii, buf.is_ascii());
        assert!(got == expected, "{kernel:?} alignment {alignment} len {len} phase {phase}");
    }

    #[test]
    fn every_kernel_masks_alike_at_every_alignment_length_and_phase() {
        let kernels = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()).map(Some);
        for kernel in kernels.chain([None]) {
            for alignment in 0..64 {
                for len in (0..=300).step_by(if alignment < 2 { 1 } else { 11 }) {
                    check(kernel, alignment, len, len + alignment);
                }
                for (phase, len) in [1023, 1024, 1087, 1500, 4099].iter().enumerate() {
                    check(kernel, alignment, *len, phase);
                }
            }
            for phase in 0..8 {
                (0..260).for_each(|len| check(kernel, phase, len, phase));
            }
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_is() {
        let key = [0xC3, 0x28, 0xA0, 0x7F];
        for kernel in Kernel::ALL {
            for len in (0..200).chain([1024, 1100]) {
                for odd in (0..=len).step_by(if len < 200 { 1 } else { 13 }) {
                    let mut buf = vec![b'a'; len];
                    if odd < len {
                        buf[odd] = 0x80;
                    }
                    by_the_letter(key, 1, &mut buf);
                    assert_eq!(apply_with(kernel, key, 1, &mut buf), odd == len);
                }
            }
        }
    }

    #[test]
    fn the_best_kernel_is_one_that_runs_here() {
        assert!(Kernel::best().is_available());
        assert_eq!(Kernel::best(), Kernel::best());
    }
}
