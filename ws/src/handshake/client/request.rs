//! The request that opens a WebSocket, as a client writes it (RFC 6455 §4.1).

use super::super::accept_key;
use super::super::lists::{ExtensionOffer, is_token};
use super::super::request::{is_authority_byte, is_target_byte};
use super::super::response::{HeaderError, check_header, push_header};
use super::response::ClientHandshake;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// Headers of a request that the handshake itself writes, besides those of a response.
const RESERVED: [&str; 2] = ["host", "sec-websocket-key"];

/// Why something cannot stand in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The authority is empty or holds what no host and port are written with (RFC 3986 §3.2).
    Host,
    /// The target does not begin with `/`, or holds white space, a control character, a fragment
    /// or what is not ASCII (RFC 9112 §3.2.1, RFC 6455 §3).
    Target,
    /// A header of the application's is not one.
    Header(HeaderError),
    /// The subprotocol is not a token, or was offered before (RFC 6455 §4.1).
    Subprotocol,
    /// The extension offer is malformed (RFC 6455 §9.1).
    Extension,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host is not a name or address with an optional port",
            Self::Target => "the target is not a path in ASCII that begins with /",
            Self::Header(error) => return error.fmt(f),
            Self::Subprotocol => "the subprotocol is not a token, or is offered twice",
            Self::Extension => "the extension offer is not `name; param=value`",
        })
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Header(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HeaderError> for RequestError {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

/// What a client asks for, without what differs between its connections: written once, started
/// any number of times.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The request line and the headers that never change.
    front: Vec<u8>,
    subprotocols: String,
    extensions: String,
    /// The names alone, joined by commas.
    extension_names: String,
    extra: Vec<u8>,
}

impl ClientRequest {
    /// A request for `target`, a path and perhaps a query, with `host` in `Host`: a name or
    /// address, and the port if it is not the scheme's own ([`WsUrl`](super::WsUrl) has both).
    ///
    /// # Errors
    /// [`RequestError::Host`], [`RequestError::Target`].
    pub fn new(host: &str, target: &str) -> Result<Self, RequestError> {
        if host.is_empty() || !host.bytes().all(is_authority_byte) {
            return Err(RequestError::Host);
        }
        if !target.starts_with('/') || !target.bytes().all(is_target_byte) {
            return Err(RequestError::Target);
        }
        let front = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        );
        Ok(Self {
            front: front.into_bytes(),
            subprotocols: String::new(),
            extensions: String::new(),
            extension_names: String::new(),
            extra: Vec::new(),
        })
    }

    /// Adds a header, such as `Origin` or `Authorization`.
    ///
    /// # Errors
    /// [`RequestError::Header`].
    pub fn header(&mut self, name: &str, value: &str) -> Result<(), RequestError> {
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(HeaderError::Reserved.into());
        }
        check_header(name, value)?;
        push_header(&mut self.extra, name, value);
        Ok(())
    }

    /// Offers a subprotocol, after those that are wanted more.
    ///
    /// # Errors
    /// [`RequestError::Subprotocol`].
    pub fn subprotocol(&mut self, name: &str) -> Result<(), RequestError> {
        if !is_token(name) || lists(&self.subprotocols, name) {
            return Err(RequestError::Subprotocol);
        }
        append(&mut self.subprotocols, name);
        Ok(())
    }

    /// Offers an extension as `name; param=value`, after those that are wanted more. One name may
    /// be offered several times, with other parameters.
    ///
    /// # Errors
    /// [`RequestError::Extension`].
    pub fn extension(&mut self, offer: &str) -> Result<(), RequestError> {
        let offer = ExtensionOffer::parse(offer).ok_or(RequestError::Extension)?;
        append(&mut self.extensions, offer.text());
        append(&mut self.extension_names, offer.name());
        Ok(())
    }

    /// Appends the whole request to `out` and gives what will check the answer. `nonce` must be
    /// fresh and unpredictable for each connection (RFC 6455 §4.1):
    /// [`MaskKeys::nonce`](crate::mask::MaskKeys::nonce).
    pub fn start(&self, nonce: [u8; 16], out: &mut Vec<u8>) -> ClientHandshake {
        let mut key = [b'='; 24];
        // 16 bytes are 24 characters, all of them ASCII.
        let written = STANDARD.encode_slice(nonce, &mut key);
        debug_assert_eq!(written, Ok(24));
        let key = str::from_utf8(&key).unwrap_or_default();

        out.extend_from_slice(&self.front);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, list) in [
            ("Sec-WebSocket-Protocol", &self.subprotocols),
            ("Sec-WebSocket-Extensions", &self.extensions),
        ] {
            if !list.is_empty() {
                push_header(out, name, list);
            }
        }
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(b"\r\n");
        ClientHandshake::new(
            accept_key(key),
            self.subprotocols.clone(),
            self.extension_names.clone(),
        )
    }
}

fn append(list: &mut String, element: &str) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(element);
}

/// Whether a list that [`append`] made, of elements without commas, has this one.
pub(super) fn lists(list: &str, element: &str) -> bool {
    list.split(", ").any(|other| other == element)
}
