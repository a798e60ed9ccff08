//! The processor's time stamp counter: where nanoseconds of the clock are too dear to ask for twice
//! a turn. On processors without one that user space may read, nanoseconds take its place.

/// Cycles since some time in the past.
#[inline]
#[must_use]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has it, and no system in use forbids it.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Cycles a second, measured once, over ten milliseconds.
#[must_use]
pub fn per_second() -> u64 {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (began, cycles) = (Instant::now(), now());
        std::thread::sleep(Duration::from_millis(10));
        let (elapsed, cycles) = (began.elapsed(), now().saturating_sub(cycles));
        (u128::from(cycles) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64
    })
}
