//! Sizes and durations as operators write them, on the command line and in the file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes: `65536`, `64KiB`, `1MiB`, `2GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

/// A duration: `50us`, `500ms`, `5s`, `1m`, `2h`, or `0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Duration);

const SIZES: &str = "a number of bytes, or one with KiB, MiB or GiB, such as 64KiB";
const SPANS: &str = "a whole number with us, ms, s, m or h, such as 500ms, or 0";

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let unit: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(format!("expected {SIZES}")),
        };
        let number: Option<u64> = number.parse().ok();
        number.and_then(|n| n.checked_mul(unit)).map(Size).ok_or(format!("expected {SIZES}"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let number: u64 = number.parse().map_err(|_| format!("expected {SPANS}"))?;
        let span = match unit {
            "" if number == 0 => Some(Duration::ZERO),
            "us" => Some(Duration::from_micros(number)),
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "h" => number.checked_mul(3600).map(Duration::from_secs),
            _ => None,
        };
        span.map(Span).ok_or(format!("expected {SPANS}"))
    }
}

/// Splits digits from what follows them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// Reads a text through `FromStr`, or a whole number as that text would be.
struct Written<T> {
    expected: &'static str,
    of: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = String>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|message| E::custom(format!("`{text}`: {message}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written { expected: SIZES, of: std::marker::PhantomData })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written { expected: SPANS, of: std::marker::PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_or_none() {
        let sizes = ["0", "16777216", "64KiB", "1MiB", "3 GiB", "7B"].map(|t| t.parse::<Size>());
        let bytes = [0, 16 << 20, 64 << 10, 1 << 20, 3 << 30, 7];
        assert_eq!(sizes, bytes.map(|b| Ok(Size(b))));
    }

    #[test]
    fn what_is_no_size_is_told_what_is() {
        for text in ["", "KiB", "1.5MiB", "-1", "1MB", "99999999999GiB", "1 MiB 2"] {
            let message = text.parse::<Size>().unwrap_err();
            assert!(message.contains("such as 64KiB"), "{text}: {message}");
        }
    }

    #[test]
    fn durations_need_a_unit_but_for_zero() {
        let spans = ["0", "50us", "500ms", "5s", "1m", "2h"].map(|t| t.parse::<Span>());
        let millis = [0.0, 0.05, 500.0, 5e3, 60e3, 7200e3];
        assert_eq!(spans, millis.map(|ms| Ok(Span(Duration::from_secs_f64(ms / 1e3)))));
        for text in ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
