//! Asking the processor for memory ahead of its use. A hint: it changes nothing but the time.

/// Asks for the lines of a value that will be needed soon: the first and the last, which are one
/// where it lies in one, and all that there are of values up to two lines long.
#[inline]
pub fn prefetch<T>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    prefetch_at(first);
    if size_of::<T>() > 1 {
        prefetch_at(first.wrapping_add(size_of::<T>() - 1));
    }
}

/// Asks for the line that an address lies in. Any address will do.
#[inline]
pub fn prefetch_at<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing and faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for the line that an address lies in, to be written: other cores give it up. Any address will
/// do.
#[inline]
pub fn prefetch_to_write<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint as above. Processors without this one take it for no operation. (The intrinsic
    // would be the other kind unless the whole program is built for newer processors.)
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_faults_and_no_value_changes() {
        prefetch_at(std::ptr::null::<u64>());
        prefetch_at(usize::MAX as *const u64);
        prefetch_to_write(std::ptr::null::<u64>());
        prefetch(&());
        let value = [7u8; 130];
        prefetch(&value);
        assert_eq!(value, [7; 130]);
    }
}
