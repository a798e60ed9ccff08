//! Masking with the vectors of x86-64. The only unsafe code of this crate: each kernel is a
//! function that only a processor with its feature may run, and vectors move through pointers.
//!
//! All kernels have one shape. The last vector of the buffer is read before anything is written,
//! and written last, so that no tail is left; long buffers are first brought to a vector
//! boundary, since every access that straddles two cache lines costs double.

#![allow(unsafe_code)]

use super::Kernel;
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering};

/// From how many bytes on a vector boundary is worth its own step.
const ALIGN_FROM: usize = 1024;

/// The best kernel as a number, or `UNKNOWN` until it is asked for.
static BEST: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = u8::MAX;

/// The widest kernel of this processor.
#[inline]
pub(super) fn best() -> Kernel {
    // Relaxed: whoever sees it unknown finds the same answer again.
    match BEST.load(Ordering::Relaxed) {
        AVX512 => Kernel::Avx512,
        AVX2 => Kernel::Avx2,
        SSE2 => Kernel::Sse2,
        _ => detect(),
    }
}

const SSE2: u8 = Kernel::Sse2 as u8;
const AVX2: u8 = Kernel::Avx2 as u8;
const AVX512: u8 = Kernel::Avx512 as u8;

#[cold]
fn detect() -> Kernel {
    let found = [Kernel::Avx512, Kernel::Avx2].into_iter().find(|&kernel| runs_here(kernel));
    let best = found.unwrap_or(Kernel::Sse2);
    BEST.store(best as u8, Ordering::Relaxed);
    best
}

/// Whether this processor has what `kernel` needs.
pub(super) fn runs_here(kernel: Kernel) -> bool {
    match kernel {
        // SSE2 is part of x86-64.
        Kernel::Portable | Kernel::Sse2 => true,
        Kernel::Avx2 => is_x86_feature_detected!("avx2"),
        Kernel::Avx512 => {
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
        }
    }
}

/// XORs with the best kernel of this processor; says whether the outcome is ASCII.
#[inline]
pub(super) fn xor_best(key: u32, buf: &mut [u8]) -> bool {
    match best() {
        // SAFETY: `best` names a kernel only after `runs_here` said that the processor has it.
        Kernel::Avx512 => unsafe { xor_avx512(key, buf) },
        // SAFETY: as above.
        Kernel::Avx2 => unsafe { xor_avx2(key, buf) },
        // SAFETY: SSE2 is part of x86-64.
        _ => unsafe { xor_sse2(key, buf) },
    }
}

/// XORs with the named kernel, or with the portable one where the processor lacks it.
pub(super) fn xor_with(kernel: Kernel, key: u32, buf: &mut [u8]) -> bool {
    match kernel {
        // SAFETY: the guard asked the processor.
        Kernel::Avx512 if runs_here(kernel) => unsafe { xor_avx512(key, buf) },
        // SAFETY: the guard asked the processor.
        Kernel::Avx2 if runs_here(kernel) => unsafe { xor_avx2(key, buf) },
        // SAFETY: SSE2 is part of x86-64.
        Kernel::Sse2 => unsafe { xor_sse2(key, buf) },
        _ => super::portable::xor(key, buf),
    }
}

/// Splits off what lies before the next multiple of `VECTOR` and XORs it; gives the key as it
/// goes on from there, what is left, and whether the front is ASCII.
#[inline(always)]
fn align<const VECTOR: usize>(key: u32, buf: &mut [u8]) -> (u32, &mut [u8], bool) {
    let ahead = buf.as_ptr().align_offset(VECTOR).min(buf.len());
    let (front, rest) = buf.split_at_mut(ahead);
    let ascii = super::portable::xor(key, front);
    (key.rotate_right(8 * (ahead % 4) as u32), rest, ascii)
}

/// One kernel: `$vector` bytes a step, four steps a turn. All that is written is gathered by OR;
/// `$high_bits` says which bytes of that are not ASCII.
macro_rules! kernel {
    ($name:ident, $feature:literal, $vector:literal, $pointee:ty, $splat:ident, $load:ident,
     $store:ident, $xor:ident, $or:ident, $high_bits:ident) => {
        #[target_feature(enable = $feature)]
        fn $name(key: u32, buf: &mut [u8]) -> bool {
            if buf.len() < $vector {
                return super::portable::xor(key, buf);
            }
            let (key, buf, ascii_front) =
                if buf.len() >= ALIGN_FROM { align::<$vector>(key, buf) } else { (key, buf, true) };
            let tail_at = buf.len() - $vector;
            let mask = $splat(key as i32);
            let tail_mask = $splat(key.rotate_right(8 * (tail_at % 4) as u32) as i32);
            let base = buf.as_mut_ptr();
            // SAFETY: `buf` is at least one vector long (`align` takes less than one vector off a
            // buffer of at least ALIGN_FROM bytes). `tail_at` is its length less one vector. In
            // the loops, `at` plus what a turn moves is at most the length. So every access lies
            // in `buf`, which is borrowed mutably; the loads and stores need no alignment.
            unsafe {
                let tail = $xor($load(base.add(tail_at) as *const $pointee), tail_mask);
                let mut seen = tail;
                let mut at = 0;
                while at + 4 * $vector <= buf.len() {
                    let lane = |index: usize| base.add(at + index * $vector) as *mut $pointee;
                    let a = $xor($load(lane(0)), mask);
                    let b = $xor($load(lane(1)), mask);
                    let c = $xor($load(lane(2)), mask);
                    let d = $xor($load(lane(3)), mask);
                    $store(lane(0), a);
                    $store(lane(1), b);
                    $store(lane(2), c);
                    $store(lane(3), d);
                    seen = $or(seen, $or($or(a, b), $or(c, d)));
                    at += 4 * $vector;
                }
                while at + $vector <= buf.len() {
                    let lane = base.add(at) as *mut $pointee;
                    let a = $xor($load(lane), mask);
                    $store(lane, a);
                    seen = $or(seen, a);
                    at += $vector;
                }
                $store(base.add(tail_at) as *mut $pointee, tail);
                ascii_front && $high_bits(seen) == 0
            }
        }
    };
}

kernel!(
    xor_sse2,
    "sse2",
    16,
    __m128i,
    _mm_set1_epi32,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_xor_si128,
    _mm_or_si128,
    _mm_movemask_epi8
);
kernel!(
    xor_avx2,
    "avx2",
    32,
    __m256i,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_xor_si256,
    _mm256_or_si256,
    _mm256_movemask_epi8
);
kernel!(
    xor_avx512,
    "avx512f,avx512bw",
    64,
    __m512i,
    _mm512_set1_epi32,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_xor_si512,
    _mm512_or_si512,
    _mm512_movepi8_mask
);
