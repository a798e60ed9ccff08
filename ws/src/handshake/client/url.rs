//! WebSocket URLs (RFC 6455 §3): where to connect, and what to ask for there.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Why a text is not a WebSocket URL that can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It does not begin with `ws://` or `wss://`.
    Scheme,
    /// It names a user (RFC 6455 §3 has no room for it; use an `Authorization` header).
    UserInfo,
    /// The host is missing, or not a name in ASCII, an IPv4 address or an IPv6 address in brackets.
    Host,
    /// The port is not a number from 1 to 65,535.
    Port,
    /// The path or query holds white space, a control character or what is not ASCII: it must be
    /// percent-encoded.
    Target,
    /// It has a fragment (RFC 6455 §3: `#` must be written `%23`).
    Fragment,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a WebSocket URL begins with ws:// or wss://",
            Self::UserInfo => "a WebSocket URL names no user; use an Authorization header",
            Self::Host => {
                "the URL's host is not a name in ASCII, an IPv4 address or an [IPv6 address]"
            }
            Self::Port => "the URL's port is not a number from 1 to 65535",
            Self::Target => "the URL's path or query holds what must be percent-encoded",
            Self::Fragment => "a WebSocket URL has no #fragment; write # as %23",
        })
    }
}

impl std::error::Error for UrlError {}

/// A `ws://` or `wss://` URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WsUrl {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

impl WsUrl {
    /// Reads `ws://host:port/path?query` or the same with `wss`.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = if scheme.eq_ignore_ascii_case("ws") {
            false
        } else if scheme.eq_ignore_ascii_case("wss") {
            true
        } else {
            return Err(UrlError::Scheme);
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if target.contains('#') {
            return Err(UrlError::Fragment);
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Target);
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };

        let (host, port) = parse_authority(authority)?;
        let default_port = if secure { 443 } else { 80 };
        let port = port.unwrap_or(default_port);
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        // RFC 6455 §4.1: the port stands in Host unless it is the scheme's own.
        let authority =
            if port == default_port { bracketed } else { format!("{bracketed}:{port}") };
        Ok(Self { secure, host, port, authority, target })
    }

    /// Whether the scheme is `wss`: the connection must run over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The name or address to connect to, in lower case; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to: 80 or 443 where the URL says none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value for `Host`: the host, in brackets if it is IPv6, and the port unless it is the
    /// scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path and query to ask for, beginning with `/`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl FromStr for WsUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for WsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

/// Host and port (RFC 3986 §3.2). A colon with nothing behind it means the default port there too.
fn parse_authority(authority: &str) -> Result<(String, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Host)?;
            let port = match port.strip_prefix(':') {
                Some(port) => port,
                None if port.is_empty() => "",
                None => return Err(UrlError::Host),
            };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(legal) {
                return Err(UrlError::Host);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    Ok((host, parse_port(port)?))
}

fn parse_port(port: &str) -> Result<Option<u16>, UrlError> {
    if port.is_empty() {
        return Ok(None);
    }
    // The standard parser would take a sign.
    if !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok(Some(port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (bool, String, u16, String, String) {
        let url = WsUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        let WsUrl { secure, host, port, authority, target } = url;
        (secure, host, port, authority, target)
    }

    #[test]
    fn a_url_comes_apart() {
        for (url, secure, host, port, authority, target) in [
            ("ws://a", false, "a", 80, "a", "/"),
            ("wss://a", true, "a", 443, "a", "/"),
            ("WS://A.Example:80/B?C", false, "a.example", 80, "a.example", "/B?C"),
            ("ws://a:443/", false, "a", 443, "a:443", "/"),
            ("wss://a:443/", true, "a", 443, "a", "/"),
            ("wss://a:80/", true, "a", 80, "a:80", "/"),
            ("ws://a:/b", false, "a", 80, "a", "/b"),
            ("ws://a:00080", false, "a", 80, "a", "/"),
            (
                "ws://127.0.0.1:65535?q=/@:x",
                false,
                "127.0.0.1",
                65535,
                "127.0.0.1:65535",
                "/?q=/@:x",
            ),
            ("ws://[::1]", false, "::1", 80, "[::1]", "/"),
            (
                "ws://[2001:DB8:0::1]:9001//x",
                false,
                "2001:db8::1",
                9001,
                "[2001:db8::1]:9001",
                "//x",
            ),
            ("ws://[::ffff:1.2.3.4]:1/?", false, "::ffff:1.2.3.4", 1, "[::ffff:1.2.3.4]:1", "/?"),
            ("ws://my_host.a-b/%23", false, "my_host.a-b", 80, "my_host.a-b", "/%23"),
        ] {
            let expected = (secure, host.into(), port, authority.into(), target.into());
            assert_eq!(parts(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_refused_by_its_fault() {
        for (url, error) in [
            ("", UrlError::Scheme),
            ("a", UrlError::Scheme),
            ("a:80", UrlError::Scheme),
            ("ws:a", UrlError::Scheme),
            ("http://a", UrlError::Scheme),
            (" ws://a", UrlError::Scheme),
            ("ws://", UrlError::Host),
            ("ws:///b", UrlError::Host),
            ("ws://:80", UrlError::Host),
            ("ws://a b", UrlError::Host),
            ("ws://b\u{fc}cher.example", UrlError::Host),
            ("ws://a%41", UrlError::Host),
            ("ws://a\r\nb", UrlError::Host),
            ("ws://a\\b", UrlError::Host),
            ("ws://[::1", UrlError::Host),
            ("ws://[::1]80", UrlError::Host),
            ("ws://[::1%25eth0]", UrlError::Host),
            ("ws://[a]", UrlError::Host),
            ("ws://::1", UrlError::Host),
            ("ws://a:0", UrlError::Port),
            ("ws://a:65536", UrlError::Port),
            ("ws://a:+80", UrlError::Port),
            ("ws://a:80:80", UrlError::Port),
            ("ws://a:99999999999999999999", UrlError::Port),
            ("ws://me@a", UrlError::UserInfo),
            ("ws://me:secret@a:80/", UrlError::UserInfo),
            ("ws://a/b c", UrlError::Target),
            ("ws://a/\u{fc}", UrlError::Target),
            ("ws://a/\r\nX: y", UrlError::Target),
            ("ws://a/b#c", UrlError::Fragment),
            ("ws://a#", UrlError::Fragment),
        ] {
            assert_eq!(WsUrl::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn a_shown_url_reads_back_as_itself() {
        for url in ["ws://a/", "wss://[::1]:9001/b?c", "wss://a/?x"] {
            let parsed: WsUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), url);
        }
    }
}
