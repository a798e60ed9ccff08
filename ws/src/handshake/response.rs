//! The 101 that opens the WebSocket (RFC 6455 §4.2.2).

use super::accept_key;
use super::lists::{ExtensionOffer, is_token};
use super::request::Request;
use std::fmt;

/// Headers that HTTP or the handshake itself writes.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
];

/// Why something cannot stand in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The name is not a token (RFC 9110 §5.1).
    Name,
    /// The value holds a control character or begins or ends with white space (RFC 9110 §5.5).
    Value,
    /// The header is the protocol's own and written by it.
    Reserved,
    /// The client did not offer this subprotocol or extension.
    NotOffered,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the header's name is not a token",
            Self::Value => "the header's value holds a control character or outer white space",
            Self::Reserved => "the header is written by the protocol itself",
            Self::NotOffered => "the client did not offer it",
        })
    }
}

impl std::error::Error for HeaderError {}

/// The head of the response that accepts a request. It owns what it needs of the request, so that
/// a verdict may come later.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    accept: [u8; 28],
    offered_subprotocols: String,
    offered_extensions: String,
    subprotocol: String,
    extensions: String,
    extra: Vec<u8>,
}

impl ResponseHead {
    /// Accepts `request` with no subprotocol and no extension.
    pub fn new(request: &Request<'_>) -> Self {
        Self {
            accept: accept_key(request.key()),
            offered_subprotocols: join(request.subprotocols()),
            offered_extensions: join(request.extensions().map(|offer| offer.name())),
            subprotocol: String::new(),
            extensions: String::new(),
            extra: Vec::new(),
        }
    }

    /// Chooses a subprotocol.
    ///
    /// # Errors
    /// [`HeaderError::NotOffered`]: the client would fail the connection (RFC 6455 §4.1).
    pub fn subprotocol(&mut self, name: &str) -> Result<(), HeaderError> {
        was_offered(&self.offered_subprotocols, name)?;
        name.clone_into(&mut self.subprotocol);
        Ok(())
    }

    /// Accepts an extension, as `name; param=value`. The order of calls is the order in which the
    /// extensions transform a message that is sent.
    ///
    /// # Errors
    /// [`HeaderError::Value`] if it is malformed, [`HeaderError::NotOffered`].
    pub fn extension(&mut self, accepted: &str) -> Result<(), HeaderError> {
        let parsed = ExtensionOffer::parse(accepted).ok_or(HeaderError::Value)?;
        was_offered(&self.offered_extensions, parsed.name())?;
        if !self.extensions.is_empty() {
            self.extensions.push_str(", ");
        }
        self.extensions.push_str(parsed.text());
        Ok(())
    }

    /// Adds a header of the application's.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn header(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        check_header(name, value)?;
        push_header(&mut self.extra, name, value);
        Ok(())
    }

    /// Appends the head, blank line included.
    pub fn write(&self, out: &mut Vec<u8>) {
        for piece in self.pieces() {
            out.extend_from_slice(piece);
        }
    }

    /// Writes the head to the front of `out` and says how many bytes it took. `None`: it does not
    /// fit, and nothing was written.
    pub fn write_into(&self, out: &mut [u8]) -> Option<usize> {
        let len = self.pieces().iter().map(|piece| piece.len()).sum();
        let mut out = out.get_mut(..len)?;
        for piece in self.pieces() {
            let (front, rest) = out.split_at_mut(piece.len());
            front.copy_from_slice(piece);
            out = rest;
        }
        Some(len)
    }

    fn pieces(&self) -> [&[u8]; 11] {
        let line = |name: &'static str, value: &str| -> &'static [u8] {
            if value.is_empty() { b"" } else { name.as_bytes() }
        };
        let end = |value: &str| -> &'static [u8] { if value.is_empty() { b"" } else { b"\r\n" } };
        [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
            &self.accept,
            b"\r\n",
            line("Sec-WebSocket-Protocol: ", &self.subprotocol),
            self.subprotocol.as_bytes(),
            end(&self.subprotocol),
            line("Sec-WebSocket-Extensions: ", &self.extensions),
            self.extensions.as_bytes(),
            end(&self.extensions),
            &self.extra,
            b"\r\n",
        ]
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::new();
    for name in names {
        list.push_str(name);
        list.push(',');
    }
    list
}

fn was_offered(offered: &str, name: &str) -> Result<(), HeaderError> {
    if is_token(name) && offered.split(',').any(|other| other == name) {
        Ok(())
    } else {
        Err(HeaderError::NotOffered)
    }
}

/// Whether an application may add this header.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), HeaderError> {
    if !is_token(name) {
        return Err(HeaderError::Name);
    }
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(HeaderError::Reserved);
    }
    let control = |byte: u8| byte != b'\t' && byte.is_ascii_control();
    if value.bytes().any(control) || super::lists::trim(value) != value {
        return Err(HeaderError::Value);
    }
    Ok(())
}

/// Appends a header line that was checked.
pub(crate) fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for piece in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}
