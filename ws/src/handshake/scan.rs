//! Finding the end of a head while it arrives, in any pieces, at linear cost.

use super::refusal::Refusal;
use super::status::Status;

/// The longest method that is waited for. No registered one has more than 17 letters.
const MAX_METHOD_BYTES: usize = 20;

/// Remembers how much of the head was looked at already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanner {
    /// Bytes that were looked at and are part of an unfinished head.
    seen: u32,
}

impl Scanner {
    /// A scanner at the start of a connection.
    pub const fn new() -> Self {
        Self { seen: 0 }
    }

    /// Looks at what is new in `buf`, which holds all that arrived so far, and gives the length
    /// of the head, blank line included, once it is whole. `limit`: the longest head, in bytes.
    ///
    /// # Errors
    /// 400 as soon as this cannot become an HTTP request: the method is not a token (a TLS client
    /// hello fails on its first byte; RFC 9112 §2.2's blank line before a request is for
    /// connections that carried one before) or a line does not end in CR LF. 431 above `limit`.
    pub fn feed(&mut self, buf: &[u8], limit: usize) -> Result<Option<usize>, Refusal> {
        if self.seen as usize <= MAX_METHOD_BYTES {
            check_method(&buf[..buf.len().min(limit)])?;
        }
        self.find_end(buf, limit).map_err(|flaw| match flaw {
            Flaw::BareLf => Refusal::new(Status::BAD_REQUEST, "a line does not end in CR LF"),
            Flaw::TooLong => Refusal::new(
                Status::HEADERS_TOO_LARGE,
                format!("the head of the request exceeds {limit} bytes"),
            ),
        })
    }

    /// The part of [`Scanner::feed`] that a response needs as well.
    pub(super) fn find_end(&mut self, buf: &[u8], limit: usize) -> Result<Option<usize>, Flaw> {
        let from = (self.seen as usize).min(buf.len());
        let to = buf.len().min(limit).min(u32::MAX as usize);
        for at in from..to {
            if buf[at] != b'\n' {
                continue;
            }
            // A bare LF would end a line for some readers and not for others.
            if at == 0 || buf[at - 1] != b'\r' {
                return Err(Flaw::BareLf);
            }
            if buf[..at - 1].ends_with(b"\r\n") {
                return Ok(Some(at + 1));
            }
        }
        if to == limit {
            return Err(Flaw::TooLong);
        }
        self.seen = to as u32;
        Ok(None)
    }
}

/// What is wrong with a head before anyone reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A line that does not end in CR LF.
    BareLf,
    /// It goes on past the limit.
    TooLong,
}

/// Refuses what does not begin like `METHOD SP`.
fn check_method(buf: &[u8]) -> Result<(), Refusal> {
    let begin = &buf[..buf.len().min(MAX_METHOD_BYTES + 1)];
    let method = begin.split(|&byte| byte == b' ').next().unwrap_or_default();
    let ended = method.len() < begin.len();
    let legal = method.iter().all(|&byte| super::lists::is_token_byte(byte))
        && (!ended || !method.is_empty())
        && method.len() <= MAX_METHOD_BYTES;
    if legal {
        Ok(())
    } else {
        Err(Refusal::new(Status::BAD_REQUEST, "this is not an HTTP request"))
    }
}
