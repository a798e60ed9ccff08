//! How busy a worker's thread is, by the scheduler's own account: what it neither ran nor waited
//! to run, it was idle.

use std::time::Instant;

/// A reading of the calling thread's account.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    taken: Instant,
    /// Nanoseconds run, and ready to run but without a core.
    busy_ns: Option<u64>,
}

impl Reading {
    /// Reads the account of the calling thread.
    pub fn take() -> Self {
        Reading { taken: Instant::now(), busy_ns: busy_ns() }
    }

    /// The share of the time since `earlier` that the thread had nothing to do, 0 to 1; `None`
    /// where the system keeps no account.
    pub fn idle_share_since(&self, earlier: &Reading) -> Option<f64> {
        let wall = self.taken.duration_since(earlier.taken).as_nanos() as f64;
        let busy = self.busy_ns?.saturating_sub(earlier.busy_ns?) as f64;
        (wall > 0.0).then(|| (1.0 - busy / wall).clamp(0.0, 1.0))
    }
}

/// Linux's `schedstat`: time on a core, time waiting for one (both ns), slices.
fn busy_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(ran + waited)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sleeping_is_idle_and_computing_is_not() {
        let begin = Reading::take();
        std::thread::sleep(Duration::from_millis(100));
        let slept = Reading::take();
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let computed = Reading::take();
        let shares = (slept.idle_share_since(&begin), computed.idle_share_since(&slept));
        let (Some(asleep), Some(busy)) = shares else { return };
        assert!(asleep > 0.5 && busy < 0.5, "{asleep} {busy}");
    }
}
