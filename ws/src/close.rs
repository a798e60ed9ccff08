//! Close codes and the payload of a close frame (RFC 6455 §5.5.1 and §7.4).

use crate::decode::ControlPayload;
use crate::error::ProtocolError;
use std::fmt;

/// The longest reason that fits a close frame behind its two-byte code, in bytes.
pub const MAX_REASON_BYTES: usize = 123;

/// A status code of RFC 6455 §7.4, either one that may travel or one of the three that only
/// report locally how a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away: a server shuts down, a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The endpoint does not take this kind of data.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Never on the wire: the close frame carried no code.
    pub const NO_STATUS: Self = Self(1005);
    /// Never on the wire: the connection ended without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// Data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The message violates the endpoint's policy.
    pub const POLICY: Self = Self(1008);
    /// The message is too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// A client expected an extension that the server did not negotiate.
    pub const EXTENSION_REQUIRED: Self = Self(1010);
    /// The server met a condition that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The service is overloaded; try again later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// A gateway got an invalid response from upstream (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);
    /// Never on the wire: the TLS handshake failed.
    pub const TLS_FAILED: Self = Self(1015);

    /// The code, if it may travel in a close frame; see [`CloseCode::may_travel`].
    pub const fn new(code: u16) -> Option<Self> {
        let code = Self(code);
        if code.may_travel() { Some(code) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a close frame may carry this code, in either direction: 1000-1003 and 1007-1014
    /// by RFC 6455 §7.4.1 and the IANA registry, 3000-4999 for libraries and applications.
    pub const fn may_travel(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> u16 {
        code.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the unmasked payload of a close frame. An empty one carries no code.
///
/// # Errors
/// A payload of one byte, a code that must not be sent, a reason that is not UTF-8.
pub fn parse_close(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [_] => Err(ProtocolError::CloseTooShort),
        [high, low, reason @ ..] => {
            let number = u16::from_be_bytes([*high, *low]);
            let code = CloseCode::new(number).ok_or(ProtocolError::BadCloseCode(number))?;
            let reason = str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// Replaces `buf` by the payload of a close frame. A reason above [`MAX_REASON_BYTES`] is cut at
/// the last character boundary that fits. A code that never travels (1005, 1006, 1015, or one out
/// of range) gives the empty payload, which says "no code".
pub fn write_close(buf: &mut ControlPayload, code: CloseCode, reason: &str) {
    buf.clear();
    if !code.may_travel() {
        return;
    }
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    buf.extend(code.0.to_be_bytes());
    buf.extend(reason.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_judged_as_the_rfc_and_iana_say() {
        for code in 0..=u16::MAX {
            let legal = (1000..=1003).contains(&code)
                || (1007..=1014).contains(&code)
                || (3000..5000).contains(&code);
            assert_eq!(CloseCode::new(code).is_some(), legal, "{code}");
            let parsed = parse_close(&code.to_be_bytes()).map(|c| c.map(|(c, _)| c.get()));
            let expected =
                if legal { Ok(Some(code)) } else { Err(ProtocolError::BadCloseCode(code)) };
            assert_eq!(parsed, expected);
        }
    }

    #[test]
    fn half_a_code_and_a_reason_that_is_not_utf8_are_refused() {
        assert_eq!(parse_close(&[]), Ok(None));
        assert_eq!(parse_close(&[3]), Err(ProtocolError::CloseTooShort));
        assert_eq!(parse_close(&[3, 0xE8, 0xC3]), Err(ProtocolError::InvalidUtf8));
        assert_eq!(parse_close(b"\x03\xE8bye"), Ok(Some((CloseCode::NORMAL, "bye"))));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut buf = ControlPayload::new();
        for pad in 0..4 {
            let reason = "x".repeat(pad) + &"\u{1F980}".repeat(40);
            write_close(&mut buf, CloseCode::TOO_BIG, &reason);
            let (code, kept) = parse_close(&buf).unwrap().unwrap();
            assert_eq!(code, CloseCode::TOO_BIG);
            assert!(reason.starts_with(kept) && kept.len() > MAX_REASON_BYTES - 4);
        }
        write_close(&mut buf, CloseCode::NORMAL, &"y".repeat(123));
        assert_eq!(buf.len(), 125);
    }

    #[test]
    fn codes_that_never_travel_are_written_as_no_code() {
        let mut buf = ControlPayload::new();
        for code in [CloseCode::NO_STATUS, CloseCode::ABNORMAL, CloseCode::TLS_FAILED] {
            write_close(&mut buf, code, "secret");
            assert!(buf.is_empty());
        }
    }
}
