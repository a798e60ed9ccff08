//! What a worker counts, and how the counts of all workers become one: latencies in HDR histograms
//! of fixed size, an interval of a second at a time, errors by kind, reasons with a bound.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// The longest latency that is told apart, in ns; longer ones count as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant digits of latencies.
const DIGITS: u8 = 3;
/// Different reasons for failures that are remembered; the rest are counted together.
const MAX_REASONS: usize = 16;

/// Latencies in nanoseconds, 1 ns to 60 s, with three significant digits; about 210 KiB.
pub type Latencies = Histogram<u64>;

pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("these bounds are legal")
}

/// A second of a worker's measured window, or what is left of it.
pub struct Interval {
    pub latency: Latencies,
    pub messages: u64,
    /// Payload bytes received.
    pub bytes: u64,
}

impl Interval {
    pub fn new() -> Self {
        Interval { latency: latencies(), messages: 0, bytes: 0 }
    }

    pub fn add(&mut self, other: &Interval) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// What went wrong, by kind. Whatever is not zero makes the run a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Errors {
    /// Messages that are not what was sent.
    pub corrupt: u64,
    /// Messages that nobody was owed.
    pub unexpected: u64,
    /// Messages that were not answered, or not delivered to a receiver, in time.
    pub missing: u64,
    /// Messages that a receiver got again, or after later ones.
    pub duplicate: u64,
    /// Messages that could not be sent.
    pub unsent: u64,
    /// Connections that ended early.
    pub lost: u64,
}

impl Errors {
    fn kinds(&self) -> [(&'static str, u64); 6] {
        let Errors { corrupt, unexpected, missing, duplicate, unsent, lost } = *self;
        [
            ("corrupt", corrupt),
            ("unexpected", unexpected),
            ("missing", missing),
            ("duplicate", duplicate),
            ("unsent", unsent),
            ("lost_connections", lost),
        ]
    }

    pub fn total(&self) -> u64 {
        self.kinds().iter().map(|(_, count)| count).sum()
    }

    pub fn json(&self) -> Value {
        self.kinds()
            .into_iter()
            .map(|(kind, count)| (kind.into(), json!(count)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Those that there are, for a person.
    pub fn text(&self) -> String {
        let some = self.kinds().into_iter().filter(|(_, count)| *count > 0);
        let parts: Vec<_> =
            some.map(|(kind, count)| format!("{count} {}", kind.replace('_', " "))).collect();
        parts.join(", ")
    }

    fn add(&mut self, other: &Errors) {
        self.corrupt += other.corrupt;
        self.unexpected += other.unexpected;
        self.missing += other.missing;
        self.duplicate += other.duplicate;
        self.unsent += other.unsent;
        self.lost += other.lost;
    }
}

/// Reasons in the words of whoever gave them, and how often each was given.
#[derive(Clone, Debug, Default)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub fn add(&mut self, reason: &str, times: u64) {
        if let Some(count) = self.0.get_mut(reason) {
            *count += times;
        } else if self.0.len() < MAX_REASONS {
            self.0.insert(reason.into(), times);
        } else {
            *self.0.entry("other reasons".into()).or_default() += times;
        }
    }

    /// The most frequent first.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut list: Vec<_> = self.0.iter().map(|(why, count)| (why.as_str(), *count)).collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        list
    }
}

/// What a worker knows at its end.
pub struct Tally {
    /// Time from connect to 101, of the connections that were opened.
    pub handshakes: Latencies,
    /// Messages sent in the measured window.
    pub sent: u64,
    /// Of those, sent later than the schedule by more than its resolution.
    pub late: u64,
    /// The longest that one was late, in ns.
    pub latest_ns: u64,
    pub errors: Errors,
    /// Handshakes that failed.
    pub failed: u64,
    /// Why handshakes failed and connections ended.
    pub reasons: Reasons,
    /// Connections that are still open.
    pub open: u64,
    /// Of the measured window; `None`: not known.
    pub idle_share: Option<f64>,
}

impl Tally {
    pub fn new() -> Self {
        Tally {
            handshakes: latencies(),
            sent: 0,
            late: 0,
            latest_ns: 0,
            errors: Errors::default(),
            failed: 0,
            reasons: Reasons::default(),
            open: 0,
            idle_share: None,
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.handshakes.add(&other.handshakes).expect("all histograms have the same bounds");
        self.sent += other.sent;
        self.late += other.late;
        self.latest_ns = self.latest_ns.max(other.latest_ns);
        self.errors.add(&other.errors);
        self.failed += other.failed;
        for (reason, times) in other.reasons.sorted() {
            self.reasons.add(reason, times);
        }
        self.open += other.open;
        // The busiest worker is the one that holds the others up.
        self.idle_share = match (self.idle_share, other.idle_share) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_a_bound_and_lose_no_count() {
        let mut reasons = Reasons::default();
        for number in 0..100 {
            reasons.add(&format!("reason {number}"), 2);
        }
        reasons.add("reason 0", 1);
        let sorted = reasons.sorted();
        assert_eq!(sorted.len(), MAX_REASONS + 1);
        assert_eq!(sorted[0], ("other reasons", 168));
        assert_eq!(sorted[1], ("reason 0", 3));
        assert_eq!(sorted.iter().map(|(_, count)| count).sum::<u64>(), 201);
    }

    #[test]
    fn the_busiest_worker_counts() {
        let mut sum = Tally::new();
        for share in [Some(0.9), Some(0.02), None] {
            sum.add(&Tally { idle_share: share, ..Tally::new() });
        }
        assert_eq!(sum.idle_share, Some(0.02));
    }
}
