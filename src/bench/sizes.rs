//! Sizes of messages: fixed, uniform between two, or a list with weights. Which size a message has
//! follows from its number alone, so that the receiver of an echo knows it without being told.

use std::fmt;
use std::str::FromStr;

/// The largest message that is sent, in bytes.
pub const MAX_BYTES: usize = 64 << 20;
/// Entries of a list.
const MAX_ENTRIES: usize = 64;

/// A distribution of sizes in bytes. Reads back what it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// Always the same.
    Fixed(usize),
    /// Each one from the first to the second as likely as the others.
    Uniform(usize, usize),
    /// Sizes with their weights.
    Weighted(Vec<(usize, u32)>),
}

impl Sizes {
    /// The size that goes with a number drawn at random.
    #[inline]
    pub fn pick(&self, random: u64) -> usize {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Uniform(low, high) => low + below(random, (high - low) as u64 + 1) as usize,
            Sizes::Weighted(list) => {
                let total = list.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut at = below(random, total);
                for (bytes, weight) in list {
                    match at.checked_sub(u64::from(*weight)) {
                        Some(rest) => at = rest,
                        None => return *bytes,
                    }
                }
                self.largest()
            }
        }
    }

    pub fn largest(&self) -> usize {
        match self {
            Sizes::Fixed(bytes) | Sizes::Uniform(_, bytes) => *bytes,
            Sizes::Weighted(list) => list.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0),
        }
    }

    pub fn smallest(&self) -> usize {
        match self {
            Sizes::Fixed(bytes) | Sizes::Uniform(bytes, _) => *bytes,
            Sizes::Weighted(list) => list.iter().map(|(bytes, _)| *bytes).min().unwrap_or(0),
        }
    }
}

/// A number from 0 to `bound` - 1, as even as 64 random bits make it.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = |text: &str| {
            let bytes: usize = text.trim().parse().map_err(|_| {
                format!("`{text}` is no size; write 64, 64-1024 or 64:70,1024:25,16384:5 (bytes)")
            })?;
            if bytes > MAX_BYTES {
                return Err(format!("{bytes} bytes; at most {MAX_BYTES}"));
            }
            Ok(bytes)
        };
        if text.contains(':') {
            let mut list = Vec::new();
            for entry in text.split(',') {
                let (size, weight) = entry.split_once(':').ok_or("each entry is SIZE:WEIGHT")?;
                let weight: u32 = weight
                    .trim()
                    .parse()
                    .ok()
                    .filter(|&weight| weight > 0)
                    .ok_or_else(|| format!("`{weight}` is no weight; write a whole number"))?;
                list.push((bytes(size)?, weight));
            }
            if list.len() > MAX_ENTRIES {
                return Err(format!("{} entries; at most {MAX_ENTRIES}", list.len()));
            }
            return Ok(Sizes::Weighted(list));
        }
        match text.split_once('-') {
            Some((low, high)) => match (bytes(low)?, bytes(high)?) {
                (low, high) if low <= high => Ok(Sizes::Uniform(low, high)),
                (low, high) => Err(format!("{low} is more than {high}")),
            },
            None => bytes(text).map(Sizes::Fixed),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Uniform(low, high) => write!(f, "{low}-{high}"),
            Sizes::Weighted(list) => {
                let entries: Vec<_> =
                    list.iter().map(|(bytes, weight)| format!("{bytes}:{weight}")).collect();
                f.write_str(&entries.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in ["0", "64", "1-100", "64:70,1024:25,16384:5"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "x", "5-4", "1-", "-1", "64:0", "64:1,", "1:2,3", "99999999999"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_come_in_their_shares() {
        let sizes: Sizes = "64:70,1024:25,16384:5".parse().unwrap();
        let mut counts = [0; 3];
        for number in 0..10_000_u64 {
            match sizes.pick(super::super::payload::mix(number)) {
                64 => counts[0] += 1,
                1024 => counts[1] += 1,
                16384 => counts[2] += 1,
                other => panic!("{other}"),
            }
        }
        for (count, share) in counts.into_iter().zip([7_000, 2_500, 500]) {
            assert!((share * 9 / 10..share * 11 / 10).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn a_uniform_size_reaches_both_ends() {
        let sizes = Sizes::Uniform(3, 5);
        assert_eq!((sizes.pick(0), sizes.pick(u64::MAX / 2), sizes.pick(u64::MAX)), (3, 4, 5));
    }
}
