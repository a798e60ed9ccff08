//! The client's opening request, checked against RFC 6455 §4.2.1 and HTTP's own rules.

use super::headers::{HeaderSlots, Headers, MAX_HEADERS};
use super::lists::{ExtensionOffer, Extensions, Subprotocols, is_token};
use super::refusal::Refusal;
use super::status::Status;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

/// A correct opening handshake. Everything is a view of the head that it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'b> {
    headers: Headers<'b>,
    target: &'b str,
    path: &'b str,
    query: Option<&'b str>,
    host: &'b str,
    key: &'b str,
}

impl<'b> Request<'b> {
    /// The method: always `GET`.
    pub fn method(&self) -> &'static str {
        "GET"
    }

    /// The request target as it was sent.
    pub fn target(&self) -> &'b str {
        self.target
    }

    /// The path of the target, beginning with `/`, as it was sent (percent-encoded).
    pub fn path(&self) -> &'b str {
        self.path
    }

    /// What follows `?` in the target, as it was sent.
    pub fn query(&self) -> Option<&'b str> {
        self.query
    }

    /// The first header of this name, in any case, without the white space around its value.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.first(name)
    }

    /// All header lines in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + Clone + use<'b> {
        self.headers.lines()
    }

    /// The authority that the client wanted: the target's if it names one (RFC 9112 §3.2.2), else
    /// that of `Host`.
    pub fn host(&self) -> &'b str {
        self.host
    }

    /// Where the page that asks comes from; a program other than a browser sends none.
    pub fn origin(&self) -> Option<&'b str> {
        self.headers.values("origin").next_text()
    }

    /// `Sec-WebSocket-Key`, for [`accept_key`](super::accept_key).
    pub fn key(&self) -> &'b str {
        self.key
    }

    /// The subprotocols that the client offers, most wanted first.
    pub fn subprotocols(&self) -> Subprotocols<'b> {
        Subprotocols::new(self.headers.values("sec-websocket-protocol"))
    }

    /// The extensions that the client offers, most wanted first.
    pub fn extensions(&self) -> Extensions<'b> {
        Extensions::new(self.headers.values("sec-websocket-extensions"))
    }
}

fn bad_request(reason: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Status::BAD_REQUEST, reason)
}

/// The value of a header that must come exactly once and not be empty.
fn single<'b>(headers: Headers<'b>, name: &'static str) -> Result<&'b str, Refusal> {
    let value = headers.values(name).single();
    value.ok_or_else(|| bad_request(format!("exactly one {name} header is needed")))
}

/// Parses the head of a request, blank line included, as [`Scanner`](super::Scanner) cut it.
///
/// # Errors
/// The refusal to send:
/// - 400: not HTTP/1.1 (an HTTP/1.0 request cannot upgrade: RFC 9110 §7.8), malformed, a body
///   announced, or one of RFC 6455 §4.2.1's requirements broken.
/// - 405: a method other than GET.
/// - 426: no `Upgrade: websocket` (a plain GET: what is here speaks WebSocket only, and 426 says
///   just that), or a version other than 13.
/// - 431: more than [`MAX_HEADERS`] header lines.
/// - 505: a major version of HTTP other than 1.
pub fn parse_request<'b>(
    head: &'b [u8],
    slots: &'b mut HeaderSlots,
) -> Result<Request<'b>, Refusal> {
    let (method, target, headers) = parse_http(head, slots)?;

    if method != "GET" {
        return Err(Refusal::new(Status::METHOD_NOT_ALLOWED, "only GET opens a WebSocket"));
    }
    let Target { authority, path, query } = Target::parse(target)
        .ok_or_else(|| bad_request("the target is neither a path nor an absolute URI"))?;
    let host = single(headers, "host")?;
    if !host.bytes().all(is_authority_byte) {
        return Err(bad_request("Host is not a host and a port"));
    }
    refuse_body(headers)?;
    if !headers.contains_token("upgrade", "websocket") {
        return Err(Refusal::new(Status::UPGRADE_REQUIRED, "this is a WebSocket server"));
    }
    if !headers.contains_token("connection", "upgrade") {
        return Err(bad_request("Connection does not list upgrade"));
    }
    let mut versions = headers.values("sec-websocket-version");
    if (versions.next_text(), versions.next_bytes()) != (Some("13"), None) {
        return Err(Refusal::new(Status::UPGRADE_REQUIRED, "only version 13 is spoken here"));
    }
    let key = single(headers, "sec-websocket-key")?;
    check_key(key)?;
    check_offers(headers)?;
    let host = authority.unwrap_or(host);
    Ok(Request { headers, target, path, query, host, key })
}

/// Method, target and header lines, which are noted in `slots`.
fn parse_http<'b>(
    head: &'b [u8],
    slots: &'b mut HeaderSlots,
) -> Result<(&'b str, &'b str, Headers<'b>), Refusal> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(bad_request("the head does not end where its blank line is")),
        Err(httparse::Error::TooManyHeaders) => {
            let reason = format!("more than {MAX_HEADERS} header lines");
            return Err(Refusal::new(Status::HEADERS_TOO_LARGE, reason));
        }
        Err(httparse::Error::Version) if names_other_major(head) => {
            let reason = "only HTTP/1.1 is spoken here";
            return Err(Refusal::new(Status::VERSION_NOT_SUPPORTED, reason));
        }
        Err(error) => return Err(bad_request(format!("malformed HTTP: {error}"))),
    }
    if request.version != Some(1) {
        return Err(bad_request("HTTP/1.0 cannot upgrade"));
    }
    let headers = slots.note(head, request.headers);
    Ok((request.method.unwrap_or_default(), request.path.unwrap_or_default(), headers))
}

/// Whether the request line ends in a well-formed version that is not 1.x.
fn names_other_major(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && *major != b'1' && minor.is_ascii_digit())
}

struct Target<'b> {
    authority: Option<&'b str>,
    path: &'b str,
    query: Option<&'b str>,
}

impl<'b> Target<'b> {
    /// RFC 9112 §3.2: origin form, or absolute form, which a server must take too.
    fn parse(target: &'b str) -> Option<Self> {
        if !target.bytes().all(is_target_byte) {
            return None;
        }
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let (scheme, rest) = target.split_once("://")?;
            if !["http", "https", "ws", "wss"].iter().any(|s| s.eq_ignore_ascii_case(scheme)) {
                return None;
            }
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if authority.is_empty() || !authority.bytes().all(is_authority_byte) {
                return None;
            }
            (Some(authority), rest)
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self { authority, path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// What a request target is written with. RFC 6455 §3: no fragment.
pub(super) fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

/// RFC 3986 §3.2.2 and §3.2.3: what a host and a port are written with. No `@`: RFC 9110 §4.2.4
/// takes user information for an attack.
pub(super) fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// A body would be read as frames: what announces one is refused.
fn refuse_body(headers: Headers<'_>) -> Result<(), Refusal> {
    let chunked = headers.values("transfer-encoding").next_bytes().is_some();
    let sized = headers
        .values("content-length")
        .text()
        .any(|value| value.is_empty() || value.bytes().any(|digit| digit != b'0'));
    if chunked || sized { Err(bad_request("a handshake has no body")) } else { Ok(()) }
}

/// RFC 6455 §4.2.1: 16 bytes in base64. Bits that the last character does not need may be set:
/// clients fill in any 24 characters, and the key is hashed as text.
fn check_key(key: &str) -> Result<(), Refusal> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut nonce = [0; 18];
    match LENIENT.decode_slice(key, &mut nonce) {
        Ok(16) => Ok(()),
        _ => Err(bad_request("Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// What the client offers must be well-formed, so that iterating over it later cannot fail.
fn check_offers(headers: Headers<'_>) -> Result<(), Refusal> {
    let mut origins = headers.values("origin");
    if origins.next_text() == Some("") || origins.next_bytes().is_some() {
        return Err(bad_request("more than one Origin, or one that is not text"));
    }
    for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
        if !headers.is_text(name) {
            return Err(bad_request(format!("{name} is not text")));
        }
    }
    let subprotocols = Subprotocols::new(headers.values("sec-websocket-protocol"));
    for (index, subprotocol) in subprotocols.clone().enumerate() {
        // RFC 6455 §4.1: tokens, each different from the others.
        if !is_token(subprotocol) || subprotocols.clone().take(index).any(|s| s == subprotocol) {
            return Err(bad_request("Sec-WebSocket-Protocol is not a list of different tokens"));
        }
    }
    let mut extensions = Extensions::new(headers.values("sec-websocket-extensions"));
    if extensions.any(|offer| ExtensionOffer::parse(offer.text()).is_none()) {
        return Err(bad_request("Sec-WebSocket-Extensions is malformed"));
    }
    Ok(())
}
