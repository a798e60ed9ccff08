//! The server's answer, found while it arrives and checked against what was asked
//! (RFC 6455 §4.1, the client's requirements 1 to 6).

use super::super::headers::{HeaderSlots, Headers, MAX_HEADERS};
use super::super::lists::{ExtensionOffer, Extensions};
use super::super::scan::{Flaw, Scanner};
use super::error::{HandshakeError, printable};
use super::request::lists;

/// What a response must begin with; nothing else is waited for.
const BEGIN: &[u8] = b"HTTP/";

/// One connection's handshake, after its request: it finds the end of the response's head and
/// holds what the response is checked against.
#[derive(Debug, Clone)]
pub struct ClientHandshake {
    scanner: Scanner,
    /// Bytes of interim responses before the one that counts.
    interim_bytes: u32,
    accept: [u8; 28],
    subprotocols: String,
    extension_names: String,
}

impl ClientHandshake {
    pub(super) fn new(accept: [u8; 28], subprotocols: String, extension_names: String) -> Self {
        Self { scanner: Scanner::new(), interim_bytes: 0, accept, subprotocols, extension_names }
    }

    /// Looks at what is new in `buf`, which holds all that the server sent so far, and gives the
    /// length of the head, blank line included, once it is whole. What lies behind it are the
    /// server's first frames. Interim responses before it (RFC 9110 §15.2: 100, 103; a client must
    /// bear them) count as part of it. `limit`: the longest head, in bytes. The cost is linear in
    /// what arrives, in whatever pieces.
    ///
    /// # Errors
    /// [`HandshakeError::NotHttp`] on the first byte that shows it, [`HandshakeError::BareLf`],
    /// [`HandshakeError::TooLong`] above `limit`.
    pub fn feed(&mut self, buf: &[u8], limit: usize) -> Result<Option<usize>, HandshakeError> {
        // Every turn but the last passes over a response: `limit` bounds their number.
        loop {
            let skipped = (self.interim_bytes as usize).min(buf.len());
            let (buf, rest_limit) = (&buf[skipped..], limit.saturating_sub(skipped));
            let begin = &buf[..buf.len().min(rest_limit).min(BEGIN.len())];
            if !BEGIN.starts_with(begin) {
                return Err(HandshakeError::NotHttp);
            }
            let found = self.scanner.find_end(buf, rest_limit).map_err(|flaw| match flaw {
                Flaw::BareLf => HandshakeError::BareLf,
                Flaw::TooLong => HandshakeError::TooLong { limit_bytes: limit },
            })?;
            match found {
                // The scanner's own count is 32 bits wide as well.
                Some(len) if is_interim(&buf[..len]) => {
                    self.interim_bytes = (skipped + len) as u32;
                    self.scanner = Scanner::new();
                }
                found => return Ok(found.map(|len| skipped + len)),
            }
        }
    }

    /// Checks the head of the response, blank line included, as [`feed`](Self::feed) cut it.
    ///
    /// # Errors
    /// What of RFC 6455 §4.1 the server broke, or that it refused: see [`HandshakeError`]. The
    /// connection must be closed then; a redirect is not followed, for who may be asked is the
    /// caller's to say.
    pub fn check<'b>(
        &self,
        head: &'b [u8],
        slots: &'b mut HeaderSlots,
    ) -> Result<Response<'b>, HandshakeError> {
        let head = head.get(self.interim_bytes as usize..).unwrap_or_default();
        let (version, headers) = parse_http(head, slots)?;
        if version != 1 {
            return Err(HandshakeError::OldHttp);
        }
        let upgrade = headers.values("upgrade").single();
        if !upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
            return Err(HandshakeError::Upgrade);
        }
        if !headers.contains_token("connection", "upgrade") {
            return Err(HandshakeError::Connection);
        }
        match headers.values("sec-websocket-accept").single() {
            None => return Err(HandshakeError::AcceptCount),
            Some(accept) if accept.as_bytes() != self.accept => {
                return Err(HandshakeError::AcceptWrong);
            }
            Some(_) => {}
        }
        let subprotocol = self.check_subprotocol(headers)?;
        self.check_extensions(headers)?;
        Ok(Response { headers, subprotocol })
    }

    /// RFC 6455 §4.1: none, or one of those that were offered, in their case.
    fn check_subprotocol<'b>(
        &self,
        headers: Headers<'b>,
    ) -> Result<Option<&'b str>, HandshakeError> {
        let mut values = headers.values("sec-websocket-protocol");
        let Some(value) = values.next_bytes() else { return Ok(None) };
        if values.next_bytes().is_some() {
            return Err(HandshakeError::SubprotocolCount);
        }
        match str::from_utf8(value) {
            Ok(name) if !name.is_empty() && lists(&self.subprotocols, name) => Ok(Some(name)),
            _ => Err(HandshakeError::SubprotocolNotOffered(printable(value))),
        }
    }

    /// RFC 6455 §4.1: only extensions that were offered, and each at most once, for two of a kind
    /// would both own the same reserved bit. Their parameters are for the extension to judge.
    fn check_extensions(&self, headers: Headers<'_>) -> Result<(), HandshakeError> {
        if !headers.is_text("sec-websocket-extensions") {
            return Err(HandshakeError::ExtensionMalformed);
        }
        let extensions = Extensions::new(headers.values("sec-websocket-extensions"));
        for (index, extension) in extensions.clone().enumerate() {
            let name = extension.name();
            if ExtensionOffer::parse(extension.text()).is_none() {
                return Err(HandshakeError::ExtensionMalformed);
            }
            if !lists(&self.extension_names, name) {
                return Err(HandshakeError::ExtensionNotOffered(printable(name.as_bytes())));
            }
            // Bounded by the number of names that were offered: the next one ends the loop.
            if extensions.clone().take(index).any(|other| other.name() == name) {
                return Err(HandshakeError::ExtensionTwice(printable(name.as_bytes())));
            }
        }
        Ok(())
    }
}

/// Whether a head is that of a status from 100 to 199 other than 101.
fn is_interim(head: &[u8]) -> bool {
    let Some(code) = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..5)) else {
        return false;
    };
    matches!(code, [b' ', b'1', tens, ones] if (tens, ones) != (&b'0', &b'1')
        && tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// The minor version of a 101 and its header lines, which are noted in `slots`.
fn parse_http<'b>(
    head: &'b [u8],
    slots: &'b mut HeaderSlots,
) -> Result<(u8, Headers<'b>), HandshakeError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut lines);
    match response.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(HandshakeError::Malformed("its head does not end in a blank line")),
        Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(HandshakeError::OtherHttp),
        Err(error) => return Err(HandshakeError::Malformed(explain(error))),
    }
    let (version, code) = (response.version.unwrap_or_default(), response.code.unwrap_or_default());
    let headers = slots.note(head, response.headers);
    if code != 101 {
        let phrase = response.reason.unwrap_or_default();
        return Err(HandshakeError::not_switched(code, phrase, headers.first("location")));
    }
    Ok((version, headers))
}

fn explain(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header's name is not a token",
        httparse::Error::HeaderValue => "a header's value holds a control character",
        httparse::Error::NewLine => "a line does not end in CR LF",
        _ => "its status line is malformed",
    }
}

/// A response that opened the WebSocket. Everything is a view of the head that was checked.
#[derive(Debug, Clone, Copy)]
pub struct Response<'b> {
    headers: Headers<'b>,
    subprotocol: Option<&'b str>,
}

impl<'b> Response<'b> {
    /// The status: always 101.
    pub fn status(&self) -> u16 {
        101
    }

    /// The first header of this name, in any case, without the white space around its value.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.first(name)
    }

    /// All header lines in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + Clone + use<'b> {
        self.headers.lines()
    }

    /// The subprotocol that the server chose among those offered. `None`: it chose none, and
    /// whether that is good enough is the application's to say.
    pub fn subprotocol(&self) -> Option<&'b str> {
        self.subprotocol
    }

    /// The extensions that the server accepted, with their parameters, in the order in which they
    /// transform a message. All were offered.
    pub fn extensions(&self) -> Extensions<'b> {
        Extensions::new(self.headers.values("sec-websocket-extensions"))
    }
}
