//! Counters of one writer, read by anyone.
//!
//! A worker owns one cache-line-aligned struct of them and is the only one that writes, so adding
//! is a plain load and store: no locked instruction, no line that two workers write. A reader sees
//! each value whole, a snapshot is not a single moment. [`counters!`](crate::counters!) makes the
//! struct, its snapshot and the list that an exporter walks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a value means to an exporter.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A count that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this: two writers lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one; see [`Counter::add`].
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value, from any thread.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A level that goes up and down. One writer. Never below zero.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the level.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Raises the level by `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.get().saturating_add(n));
    }

    /// Lowers the level by `n`. Only the owning worker may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        debug_assert!(self.get() >= n, "a gauge went below zero");
        self.set(self.get().saturating_sub(n));
    }

    /// The level, from any thread.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Makes a struct of counters and its snapshot. The doc comment of a field is its help text.
///
/// ```no_run
/// hioload_core::counters! {
///     /// What a worker counts.
///     pub struct WorkerCounters => WorkerSnapshot {
///         /// Connections accepted.
///         counter accepted_total,
///         /// Sessions open now.
///         gauge sessions_open,
///     }
/// }
/// let counters = WorkerCounters::default();
/// counters.accepted_total.inc();
/// let mut sum = WorkerSnapshot::default();
/// sum += counters.snapshot();
/// assert_eq!(sum.accepted_total, 1);
/// sum.for_each(|name, help, kind, value| println!("{name} {help} {kind:?} {value}"));
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident => $snapshot:ident {
            $($(#[doc = $help:literal])+ $kind:ident $field:ident),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        // Two lines: the neighbour is fetched along by the prefetcher on x86.
        #[repr(align(128))]
        $vis struct $name {
            $($(#[doc = $help])+ pub $field: $crate::counters!(@type $kind)),+
        }

        impl $name {
            /// Name, help text and kind of each field, in order.
            pub const FIELDS: &'static [(&'static str, &'static str, $crate::counters::Kind)] = &[
                $((
                    stringify!($field),
                    concat!($($help),+).trim_ascii(),
                    $crate::counters!(@kind $kind),
                )),+
            ];

            /// The values as they are now, each read on its own.
            #[must_use]
            pub fn snapshot(&self) -> $snapshot {
                $snapshot { $($field: self.$field.get()),+ }
            }
        }

        #[doc = concat!("The values of a [`", stringify!($name), "`] at one time, or a sum of such.")]
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
        $vis struct $snapshot {
            $($(#[doc = $help])+ pub $field: u64),+
        }

        impl $snapshot {
            /// Adds the values of another worker.
            pub fn merge(&mut self, other: &$snapshot) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }

            /// Calls `f` with name, help text, kind and value of each field, in order.
            pub fn for_each(
                &self,
                mut f: impl FnMut(&'static str, &'static str, $crate::counters::Kind, u64),
            ) {
                let values = [$(self.$field),+];
                for (&(name, help, kind), value) in $name::FIELDS.iter().zip(values) {
                    f(name, help, kind, value);
                }
            }
        }

        impl ::core::ops::AddAssign for $snapshot {
            fn add_assign(&mut self, other: $snapshot) {
                self.merge(&other);
            }
        }
    };
    (@type counter) => { $crate::counters::Counter };
    (@type gauge) => { $crate::counters::Gauge };
    (@kind counter) => { $crate::counters::Kind::Counter };
    (@kind gauge) => { $crate::counters::Kind::Gauge };
}

#[cfg(test)]
mod tests {
    use super::*;

    counters! {
        /// Counters of the test.
        struct TestCounters => TestSnapshot {
            /// Things that
            /// were seen.
            counter seen_total,
            /// Things open.
            gauge open,
        }
    }

    #[test]
    fn snapshots_of_workers_add_up() {
        let workers = [TestCounters::default(), TestCounters::default()];
        workers[0].seen_total.inc();
        workers[1].seen_total.add(4);
        workers[1].open.add(3);
        workers[1].open.sub(1);
        let mut sum = TestSnapshot::default();
        for worker in &workers {
            sum += worker.snapshot();
        }
        assert_eq!(sum, TestSnapshot { seen_total: 5, open: 2 });
    }

    #[test]
    fn an_exporter_sees_name_help_kind_and_value_in_order() {
        let counters = TestCounters::default();
        counters.seen_total.add(7);
        counters.open.set(2);
        let mut seen = Vec::new();
        counters
            .snapshot()
            .for_each(|name, help, kind, value| seen.push((name, help, kind, value)));
        assert_eq!(
            seen,
            [
                ("seen_total", "Things that were seen.", Kind::Counter, 7),
                ("open", "Things open.", Kind::Gauge, 2),
            ]
        );
    }

    #[test]
    fn two_workers_never_share_a_cache_line() {
        assert_eq!(align_of::<TestCounters>(), 128);
    }
}
