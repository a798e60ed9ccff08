//! A token bucket: the bound on everything that a stranger can make the stack say.

use hioload_core::Now;

/// Lets `per_second` things pass a second, and as many in one burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    /// Nanoseconds' worth of tokens: one token is `1e9 / per_second`.
    credit_ns: u64,
    last: Now,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket. `per_second` 0 lets nothing pass.
    pub(crate) fn new(per_second: u32) -> Bucket {
        Bucket { per_second, credit_ns: SECOND_NS, last: Now::ZERO }
    }

    /// Takes a token; false where there is none.
    pub(crate) fn take(&mut self, now: Now) -> bool {
        if self.per_second == 0 {
            return false;
        }
        let passed = now.since(self.last).as_nanos().min(u128::from(SECOND_NS)) as u64;
        self.last = self.last.max(now);
        self.credit_ns = (self.credit_ns + passed).min(SECOND_NS);
        let price = SECOND_NS / u64::from(self.per_second);
        match self.credit_ns.checked_sub(price) {
            Some(left) => {
                self.credit_ns = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_no_more_than_its_number_pass() {
        let mut bucket = Bucket::new(10);
        let burst = (0..100).filter(|_| bucket.take(Now::ZERO)).count();
        assert_eq!(burst, 10);
        let half = Now::from_nanos(SECOND_NS / 2);
        assert_eq!((0..100).filter(|_| bucket.take(half)).count(), 5);
        assert!(!Bucket::new(0).take(half));
    }
}
