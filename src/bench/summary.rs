//! The result of a run: for a person, as JSON, and as the data of the report.

use std::fmt;

use serde_json::{Map, Value, json};

use super::args::{Mode, Plan};
use super::sizes::Sizes;
use super::tally::{Interval, Latencies, Tally};

/// Below this idle share of its busiest worker the generator was itself the bottleneck.
const BUSY_SHARE: f64 = 0.05;
/// Percentiles that are told, with their names in JSON.
const TOLD: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];

/// A second of the window in brief; latencies in ns.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    pub at: u64,
    pub messages: u64,
    pub bytes: u64,
    pub p50: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

impl Second {
    pub fn of(at: u64, interval: &Interval) -> Self {
        let Interval { latency, messages, bytes } = interval;
        let quantile = |q| latency.value_at_quantile(q);
        Second {
            at,
            messages: *messages,
            bytes: *bytes,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: latency.max(),
        }
    }
}

/// All that a run brought.
pub struct Summary {
    pub plan: Plan,
    pub workers: usize,
    pub ramp_seconds: f64,
    /// Connections that were opened.
    pub connected: u64,
    pub window_seconds: f64,
    pub interrupted: bool,
    pub total: Interval,
    pub tally: Tally,
    pub seconds: Vec<Second>,
}

impl Summary {
    /// Something went wrong: not a result to rely on.
    pub fn failed(&self) -> bool {
        self.tally.errors.total() > 0 || self.tally.failed > 0 || self.connected == 0
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.window_seconds > 0.0 { count as f64 / self.window_seconds } else { 0.0 }
    }

    pub fn rate(&self) -> f64 {
        self.per_second(self.total.messages)
    }

    /// The generator could not do more than it did.
    fn is_bottleneck(&self) -> bool {
        self.tally.idle_share.is_some_and(|share| share < BUSY_SHARE)
    }

    /// In idle mode nothing is sent: what is told are the handshakes.
    fn latencies(&self) -> &Latencies {
        match self.plan.mode {
            Mode::Idle => &self.tally.handshakes,
            _ => &self.total.latency,
        }
    }

    pub fn json(&self) -> Value {
        let Summary { plan, tally, total, .. } = self;
        let reasons: Map<_, _> = tally
            .reasons
            .sorted()
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), json!(count)))
            .collect();
        json!({
            "url": plan.url,
            "mode": plan.mode.name(),
            "size": match plan.sizes {
                Sizes::Fixed(bytes) => json!(bytes),
                ref other => json!(other.to_string()),
            },
            "depth": plan.depth,
            "rate_asked": plan.rate,
            "workers": self.workers,
            "connections": self.connected,
            "failed_connections": tally.failed,
            "open_at_end": tally.open,
            "ramp_seconds": self.ramp_seconds,
            "seconds": self.window_seconds,
            "sent": tally.sent,
            "sent_late": tally.late,
            "latest_us": micros(tally.latest_ns),
            "messages": total.messages,
            "rate": self.rate(),
            "bytes_per_second": self.per_second(total.bytes),
            "errors": tally.errors.total(),
            "errors_by_kind": tally.errors.json(),
            "reasons": reasons,
            "latency_us": latency_json(self.latencies()),
            "handshake_us": latency_json(&tally.handshakes),
            "client_idle_share": tally.idle_share,
            "bottleneck": self.is_bottleneck().then_some("client"),
            "interrupted": self.interrupted,
        })
    }

    /// The data of the report's plots.
    pub fn plots(&self) -> Value {
        let latencies = self.latencies();
        let curve: Vec<_> = curve(latencies);
        let seconds: Vec<_> = thinned(&self.seconds)
            .map(|s| {
                json!([
                    s.at + 1,
                    s.messages,
                    s.bytes,
                    micros(s.p50),
                    micros(s.p99),
                    micros(s.p99_9),
                    micros(s.max)
                ])
            })
            .collect();
        json!({
            "summary": self.json(),
            "unit": self.plan.mode.unit(),
            "text": self.to_string(),
            "seconds": seconds,
            "curve": curve,
        })
    }
}

/// At most so many seconds go into a plot.
const PLOTTED_MAX: usize = 2_000;

/// Whole seconds only (the last one may be cut), every so-manieth of them where there are many.
fn thinned(seconds: &[Second]) -> impl Iterator<Item = &Second> {
    seconds.iter().step_by(seconds.len().div_ceil(PLOTTED_MAX).max(1))
}

/// Points of the percentile curve: the distance to 100 % and the latency in us.
fn curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let least = (1.0 / latencies.len() as f64).max(1e-6);
    let steps = (-least.log10() * 24.0).ceil() as u32;
    (0..=steps)
        .map(|step| 10_f64.powf(-f64::from(step) / 24.0).max(least))
        .map(|beyond| (beyond, micros(latencies.value_at_quantile(1.0 - beyond))))
        .collect()
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

fn latency_json(latencies: &Latencies) -> Value {
    let mut object = Map::new();
    object.insert(
        "min".into(),
        json!(micros(if latencies.is_empty() { 0 } else { latencies.min() })),
    );
    for (name, percentile) in TOLD {
        let value = latencies.value_at_percentile(percentile);
        object.insert(name.into(), json!(micros(value)));
    }
    object.insert("max".into(), json!(micros(latencies.max())));
    object.insert("mean".into(), json!(latencies.mean() / 1e3));
    object.insert("count".into(), json!(latencies.len()));
    object.into()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { plan, tally, total, .. } = self;
        let unit = plan.mode.unit();
        writeln!(f, "{} {}", plan.mode.name(), plan.url)?;
        let failed = match tally.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        writeln!(
            f,
            "  connections  {} opened{failed}, {} worker{}, {:.1} s to open",
            self.connected,
            self.workers,
            if self.workers == 1 { "" } else { "s" },
            self.ramp_seconds
        )?;
        match (plan.mode, plan.rate) {
            (Mode::Idle, _) => writeln!(f, "  load         none: connections are held"),
            (Mode::Handshake, None) => writeln!(f, "  load         closed loop"),
            (Mode::Handshake, Some(rate)) => writeln!(f, "  load         {rate} a second"),
            (_, None) => {
                writeln!(f, "  load         closed loop, {} B, depth {}", plan.sizes, plan.depth)
            }
            (_, Some(rate)) => {
                writeln!(f, "  load         {rate} messages a second, {} B", plan.sizes)
            }
        }?;
        if plan.mode == Mode::Idle {
            writeln!(f, "  held         {} of them for {:.1} s", tally.open, self.window_seconds)?;
        } else {
            writeln!(
                f,
                "  throughput   {} {unit}/s, {}/s ({} in {:.1} s, {} sent)",
                Thousands(self.rate()),
                Bytes(self.per_second(total.bytes)),
                Thousands(total.messages as f64),
                self.window_seconds,
                Thousands(tally.sent as f64),
            )?;
        }
        write_latencies(f, "latency", &total.latency)?;
        if plan.mode != Mode::Handshake {
            write_latencies(f, "handshake", &tally.handshakes)?;
        }
        if tally.late > 0 {
            writeln!(
                f,
                "  late         {} sends were late by the schedule, by {} at most; they count from \
                 the schedule",
                tally.late,
                Micros(tally.latest_ns)
            )?;
        }
        if tally.errors.total() > 0 {
            writeln!(f, "  errors       {}", tally.errors.text())?;
        }
        for (reason, count) in tally.reasons.sorted() {
            writeln!(f, "               {count} x {reason}")?;
        }
        self.write_idle(f)?;
        if self.interrupted {
            writeln!(f, "  interrupted: this is what was measured until then")?;
        }
        Ok(())
    }
}

impl Summary {
    fn write_idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(share) = self.tally.idle_share else { return Ok(()) };
        writeln!(f, "  generator    its busiest worker was idle for {:.0} %", share * 100.0)?;
        if self.is_bottleneck() {
            writeln!(
                f,
                "  BOTTLENECK   the generator itself: the server may be able to do more; use more \
                 --workers, or another machine"
            )?;
        }
        Ok(())
    }
}

fn write_latencies(f: &mut fmt::Formatter<'_>, name: &str, latencies: &Latencies) -> fmt::Result {
    if latencies.is_empty() {
        return Ok(());
    }
    write!(f, "  {name:<12} min {}", Micros(latencies.min()))?;
    for (told, percentile) in TOLD {
        let value = latencies.value_at_percentile(percentile);
        write!(f, "  {} {}", told.replace('_', "."), Micros(value))?;
    }
    writeln!(f, "  max {}", Micros(latencies.max()))
}

/// A latency in ns, shown in the unit in which it is readable.
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = micros(self.0);
        match micros {
            m if m < 100.0 => write!(f, "{m:.1} us"),
            m if m < 10_000.0 => write!(f, "{m:.0} us"),
            m if m < 1e6 => write!(f, "{:.1} ms", m / 1e3),
            m => write!(f, "{:.2} s", m / 1e6),
        }
    }
}

/// A number with its thousands apart.
pub struct Thousands(pub f64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.write_str(&text)
    }
}

/// Bytes in a decimal unit, as networks are measured.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b if b < 1e3 => write!(f, "{b:.0} B"),
            b if b < 1e6 => write!(f, "{:.1} kB", b / 1e3),
            b if b < 1e9 => write!(f, "{:.1} MB", b / 1e6),
            b => write!(f, "{:.2} GB", b / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::latencies;

    #[test]
    fn numbers_are_readable() {
        let counts = [0.0, 999.4, 1_000.0, 1_234_567.0].map(|n| Thousands(n).to_string());
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let times =
            [950, 45_600, 250_000, 25_000_000, 2_500_000_000].map(|n| Micros(n).to_string());
        assert_eq!(times, ["0.9 us", "45.6 us", "250 us", "25.0 ms", "2.50 s"]);
    }

    #[test]
    fn the_curve_goes_as_far_as_there_are_messages() {
        let mut some = latencies();
        for micros in 1..=1_000 {
            some.record(micros * 1_000).unwrap();
        }
        let curve = curve(&some);
        let (beyond, last) = curve[curve.len() - 1];
        assert!((beyond - 0.001).abs() < 1e-9, "{beyond}");
        assert!((995.0..=1_001.0).contains(&last), "{last}");
        assert!(curve.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1 <= pair[1].1));
    }
}
