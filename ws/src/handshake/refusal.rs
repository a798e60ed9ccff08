//! A handshake that is not met, as the HTTP response that says so.

use super::response::{HeaderError, check_header, push_header};
use super::status::Status;
use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

/// Why a request is refused. [`Refusal::write`] makes the response; the connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: Status,
    reason: Cow<'static, str>,
    extra: Vec<u8>,
}

impl Refusal {
    /// A refusal whose body is `reason`, in plain text.
    pub fn new(status: Status, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut refusal = Self { status, reason: reason.into(), extra: Vec::new() };
        if status == Status::METHOD_NOT_ALLOWED {
            // RFC 9110 §15.5.6: a 405 must name the methods that are allowed.
            push_header(&mut refusal.extra, "Allow", "GET");
        }
        if status == Status::UPGRADE_REQUIRED {
            // RFC 9110 §15.5.22: a 426 must name the protocol; RFC 6455 §4.4: and the version.
            push_header(&mut refusal.extra, "Upgrade", "websocket");
            push_header(&mut refusal.extra, "Sec-WebSocket-Version", "13");
        }
        refusal
    }

    /// Adds a header, such as `WWW-Authenticate` or `Retry-After`.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn header(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        check_header(name, value)?;
        push_header(&mut self.extra, name, value);
        Ok(())
    }

    /// What the response will say.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The body.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Appends the whole response.
    pub fn write(&self, out: &mut Vec<u8>) {
        // RFC 9110 §7.8: a sender of Upgrade must list it in Connection.
        let connection =
            if self.status == Status::UPGRADE_REQUIRED { "close, Upgrade" } else { "close" };
        let body = &self.reason;
        let head = format_args!(
            "HTTP/1.1 {}\r\nConnection: {connection}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n",
            self.status,
            body.len() + 1
        );
        // Writing to a vector cannot fail.
        let _ = out.write_fmt(head);
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body.as_bytes());
        out.push(b'\n');
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}
