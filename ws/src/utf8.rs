//! UTF-8 that arrives in pieces (RFC 6455 §8.1): the bulk goes through simdutf8, a character that
//! straddles two pieces through a table-free automaton of three bytes.

use std::fmt;

/// The bytes cannot be part of UTF-8, whatever may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidUtf8;

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are not UTF-8")
    }
}

impl std::error::Error for InvalidUtf8 {}

/// Validates a text that comes in pieces, and fails with the first byte that no valid text can
/// have there, also inside an unfinished character: F4 90 fails at 90.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Utf8Stream {
    /// Continuation bytes that the open character still needs.
    missing: u8,
    /// The range that the next of them must be in.
    low: u8,
    high: u8,
}

impl Utf8Stream {
    /// The state before the first byte.
    pub const fn new() -> Self {
        Self { missing: 0, low: 0, high: 0 }
    }

    /// Whether no character is open, so that ASCII may follow unlooked at.
    #[inline]
    pub fn is_between_characters(&self) -> bool {
        self.missing == 0
    }

    /// Takes the next piece of the text.
    ///
    /// # Errors
    /// A byte in the piece cannot be there. The stream is then of no further use.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.missing != 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            self.step(byte)?;
            piece = rest;
        }
        let (whole, open) = piece.split_at(whole_characters(piece));
        if simdutf8::basic::from_utf8(whole).is_err() {
            return Err(InvalidUtf8);
        }
        open.iter().try_for_each(|&byte| self.step(byte))
    }

    /// Ends the text and makes the stream ready for the next one.
    ///
    /// # Errors
    /// The last character is unfinished.
    pub fn finish(&mut self) -> Result<(), InvalidUtf8> {
        if std::mem::take(self).missing == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// One byte of the automaton of RFC 3629 §4.
    fn step(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        if self.missing != 0 {
            if byte < self.low || byte > self.high {
                return Err(InvalidUtf8);
            }
            (self.missing, self.low, self.high) = (self.missing - 1, 0x80, 0xBF);
            return Ok(());
        }
        (self.missing, self.low, self.high) = match byte {
            0x00..=0x7F => (0, 0, 0),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(InvalidUtf8),
        };
        Ok(())
    }
}

/// How much of `piece` lies before a character that may go on in the next piece. Whether the rest
/// is valid is not asked here: it is at most three bytes, which the automaton takes.
fn whole_characters(piece: &[u8]) -> usize {
    for back in 1..=piece.len().min(3) {
        let at = piece.len() - back;
        match piece[at] {
            0x80..=0xBF => continue,
            lead => {
                let needed = match lead {
                    0xF0.. => 4,
                    0xE0.. => 3,
                    0xC0.. => 2,
                    _ => 1,
                };
                return if needed > back { at } else { piece.len() };
            }
        }
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where std says that text breaks: the number of bytes that may still become valid text.
    fn possible_prefix(bytes: &[u8]) -> usize {
        (0..=bytes.len())
            .rev()
            .find(|&len| match str::from_utf8(&bytes[..len]) {
                Ok(_) => true,
                Err(error) => error.error_len().is_none(),
            })
            .unwrap_or(0)
    }

    fn check(bytes: &[u8], cut: usize) {
        let (front, back) = bytes.split_at(cut);
        let possible = possible_prefix(bytes);
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(front).is_ok(), possible >= cut, "{bytes:x?} at {cut}");
        if possible >= cut {
            assert_eq!(stream.push(back).is_ok(), possible == bytes.len(), "{bytes:x?} at {cut}");
        }
        if possible == bytes.len() {
            assert_eq!(stream.is_between_characters(), str::from_utf8(bytes).is_ok());
            assert_eq!(stream.finish().is_ok(), str::from_utf8(bytes).is_ok());
            assert_eq!(stream, Utf8Stream::new());
        }
    }

    #[test]
    fn every_start_of_a_character_is_judged_as_std_does_at_every_split() {
        let edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xE2, 0xF4, 0xFF];
        for (first, second) in (0..=255).flat_map(|first| (0..=255).map(move |s| (first, s))) {
            (0..=2).for_each(|cut| check(&[first, second], cut));
            if first < 0xC0 {
                continue;
            }
            for third in edges {
                for fourth in [0x41, 0x80, 0xC2] {
                    check(&[first, second, third, fourth], usize::from(second ^ fourth) % 5);
                }
            }
        }
    }

    #[test]
    fn a_byte_that_cannot_be_fails_at_once_inside_a_character() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(b"plain \xF4"), Ok(()));
        assert_eq!(stream.push(b"\x90"), Err(InvalidUtf8));
        assert!(size_of::<Utf8Stream>() <= 8);
    }

    proptest! {
        #[test]
        fn any_text_passes_and_any_bytes_are_judged_as_std_does(
            text in "[a-z\u{80}-\u{10FFFF}]{0,80}",
            noise in proptest::collection::vec(any::<u8>(), 0..4),
            at in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            check(&bytes, cut.index(bytes.len() + 1));
        }
    }
}
