//! Why an opening handshake failed, as the server's doing: what an operator reads when a client
//! does not connect.

use std::fmt;

/// The most characters of the server's own words that an error carries.
const MAX_QUOTE_CHARS: usize = 200;

/// What the server did instead of opening a WebSocket. Text of the server's is cleared of control
/// characters and, all but a `Location`, cut to 200 characters: it can be shown and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What it sends is not HTTP.
    NotHttp,
    /// A line of its head ends in LF alone, which is a line's end for some readers and not for
    /// others.
    BareLf,
    /// Its head goes on past the limit.
    TooLong {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// Its head has more than [`MAX_HEADERS`](crate::handshake::MAX_HEADERS) lines.
    TooManyHeaders,
    /// Its head is not HTTP's; what is wrong with it.
    Malformed(&'static str),
    /// It answered with a major version of HTTP other than 1.
    OtherHttp,
    /// It switched protocols in HTTP/1.0, which cannot (RFC 9110 §7.8).
    OldHttp,
    /// It answered with a status other than 101.
    Refused {
        /// The status code, 0 to 999: servers send anything.
        status: u16,
        /// The reason phrase; it may be empty.
        phrase: String,
        /// The first line of the body as far as it was [there](HandshakeError::with_body); it
        /// may be empty.
        body: String,
    },
    /// It redirects (RFC 9110 §15.4). RFC 6455 leaves it to the client, and this one does not
    /// follow: the application may, if it trusts the place.
    Redirected {
        /// The status code, 300 to 399.
        status: u16,
        /// The reason phrase; it may be empty.
        phrase: String,
        /// Where to, as the server wrote it: perhaps relative.
        location: String,
    },
    /// No single `Upgrade: websocket`.
    Upgrade,
    /// `Connection` does not list upgrade.
    Connection,
    /// Not exactly one `Sec-WebSocket-Accept`.
    AcceptCount,
    /// `Sec-WebSocket-Accept` does not answer our key: no WebSocket server, or the answer to
    /// someone else's request.
    AcceptWrong,
    /// More than one `Sec-WebSocket-Protocol` (RFC 6455 §11.3.4).
    SubprotocolCount,
    /// It chose a subprotocol that was not offered.
    SubprotocolNotOffered(String),
    /// `Sec-WebSocket-Extensions` is malformed.
    ExtensionMalformed,
    /// It accepted an extension that was not offered.
    ExtensionNotOffered(String),
    /// It accepted an extension twice.
    ExtensionTwice(String),
}

impl HandshakeError {
    /// A response with a status other than 101.
    pub(super) fn not_switched(status: u16, phrase: &str, location: Option<&[u8]>) -> Self {
        let phrase = printable(phrase.as_bytes());
        match (status, location) {
            (300..=399, Some(location)) if !location.is_empty() => {
                Self::Redirected { status, phrase, location: cleared(location).collect() }
            }
            _ => Self::Refused { status, phrase, body: String::new() },
        }
    }

    /// Adds to [`HandshakeError::Refused`] what arrived behind the head: its first line is often
    /// the server's explanation. Other errors stay as they are.
    #[must_use]
    pub fn with_body(mut self, behind_head: &[u8]) -> Self {
        if let Self::Refused { body, .. } = &mut self {
            let first_line = behind_head.split(|&byte| matches!(byte, b'\r' | b'\n')).next();
            *body = printable(first_line.unwrap_or_default());
        }
        self
    }
}

/// The first characters of what a peer says, safe to show.
pub(super) fn printable(bytes: &[u8]) -> String {
    // A character is at most four bytes: what lies behind cannot be among the first ones.
    let bytes = &bytes[..bytes.len().min(4 * MAX_QUOTE_CHARS)];
    cleared(bytes).take(MAX_QUOTE_CHARS).collect()
}

/// Text without characters that steer a terminal.
fn cleared(bytes: &[u8]) -> impl Iterator<Item = char> {
    let chars = bytes.trim_ascii().utf8_chunks().flat_map(|chunk| {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(broken)
    });
    chars.map(|c| if is_steering(c) { char::REPLACEMENT_CHARACTER } else { c })
}

/// Control characters, line separators and the overrides of writing direction.
fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `403 Forbidden`, or the number alone.
struct Answer<'a>(u16, &'a str);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(status, "") => write!(f, "{status}"),
            Self(status, phrase) => write!(f, "{status} {phrase}"),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => {
                "the server does not speak HTTP here (a TLS port wants wss://, or the port is \
                 another service's)"
            }
            Self::BareLf => "the server's response is malformed: a line does not end in CR LF",
            Self::TooLong { limit_bytes } => {
                return write!(f, "the head of the server's response exceeds {limit_bytes} bytes");
            }
            Self::TooManyHeaders => "the server's response has too many header lines",
            Self::Malformed(what) => {
                return write!(f, "the server's response is malformed: {what}");
            }
            Self::OtherHttp => "the server answered in a version of HTTP other than 1.1",
            Self::OldHttp => "the server switched protocols in HTTP/1.0, which cannot",
            Self::Refused { status, phrase, body } => {
                return write_refused(f, *status, phrase, body);
            }
            Self::Redirected { status, phrase, location } => {
                let answer = Answer(*status, phrase);
                return write!(
                    f,
                    "the server redirects to {location} with {answer}; redirects are not followed"
                );
            }
            Self::Upgrade => "the server's 101 does not say `Upgrade: websocket`",
            Self::Connection => "the server's 101 does not say `Connection: Upgrade`",
            Self::AcceptCount => "the server's 101 does not have exactly one Sec-WebSocket-Accept",
            Self::AcceptWrong => {
                "the server's Sec-WebSocket-Accept does not answer our key: a cache, or no \
                 WebSocket server, answered"
            }
            Self::SubprotocolCount => "the server chose more than one subprotocol",
            Self::SubprotocolNotOffered(name) => {
                return write!(
                    f,
                    "the server chose the subprotocol \"{name}\", which was not offered"
                );
            }
            Self::ExtensionMalformed => "the server's Sec-WebSocket-Extensions is malformed",
            Self::ExtensionNotOffered(name) => {
                return write!(
                    f,
                    "the server accepted the extension \"{name}\", which was not offered"
                );
            }
            Self::ExtensionTwice(name) => {
                return write!(f, "the server accepted the extension \"{name}\" twice");
            }
        })
    }
}

fn write_refused(f: &mut fmt::Formatter<'_>, status: u16, phrase: &str, body: &str) -> fmt::Result {
    let answer = Answer(status, phrase);
    match status {
        300..=399 => write!(f, "the server redirects with {answer} and does not say where")?,
        400..=599 => write!(f, "the server refused with {answer}")?,
        _ => write!(f, "the server answered {answer}, not 101: there is no WebSocket here")?,
    }
    if body.is_empty() { Ok(()) } else { write!(f, ": \"{body}\"") }
}

impl std::error::Error for HandshakeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_steer_the_terminal_that_shows_its_words() {
        let said = b" \x1b[2Jno\x07\xff\xe2\x80\xaeway\xc2\x9b ";
        let replaced = "\u{FFFD}[2Jno\u{FFFD}\u{FFFD}\u{FFFD}way\u{FFFD}";
        assert_eq!(printable(said), replaced);
        let error = HandshakeError::not_switched(403, "", None).with_body(said);
        assert_eq!(error.to_string(), format!("the server refused with 403: \"{replaced}\""));
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        for long in ["\u{1F980}".repeat(1000), "x".repeat(1000), "é".repeat(1000)] {
            let shown = printable(long.as_bytes());
            assert_eq!(shown.chars().count(), 200);
            assert!(long.starts_with(&shown));
        }
    }

    #[test]
    fn only_a_refusal_has_a_body() {
        let refused = HandshakeError::not_switched(503, "Busy", None);
        let told = refused.with_body(b"later\r\nand more\n").to_string();
        assert_eq!(told, "the server refused with 503 Busy: \"later\"");
        assert_eq!(HandshakeError::Upgrade.with_body(b"x"), HandshakeError::Upgrade);
    }

    #[test]
    fn each_kind_of_answer_is_told_apart() {
        for (status, location, told) in [
            (200, None, "the server answered 200 X, not 101: there is no WebSocket here"),
            (100, None, "the server answered 100 X, not 101: there is no WebSocket here"),
            (304, None, "the server redirects with 304 X and does not say where"),
            (302, Some(&b""[..]), "the server redirects with 302 X and does not say where"),
            (
                302,
                Some(b"wss://b/c"),
                "the server redirects to wss://b/c with 302 X; redirects are not followed",
            ),
            (404, Some(b"/d"), "the server refused with 404 X"),
            (999, None, "the server answered 999 X, not 101: there is no WebSocket here"),
        ] {
            assert_eq!(HandshakeError::not_switched(status, "X", location).to_string(), told);
        }
    }

    #[test]
    fn a_location_is_not_cut() {
        let place = format!("wss://a/{}", "x".repeat(4000));
        let error = HandshakeError::not_switched(307, "", Some(place.as_bytes()));
        let expected =
            HandshakeError::Redirected { status: 307, phrase: String::new(), location: place };
        assert_eq!(error, expected);
    }
}
