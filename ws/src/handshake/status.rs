//! HTTP status codes (RFC 9110 §15, RFC 6585) that a WebSocket server answers with.

use std::fmt;

/// A status code, 300 to 599: what a handshake can be refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    /// The request is malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// Credentials are needed.
    pub const UNAUTHORIZED: Self = Self(401);
    /// The request is understood and not allowed, for instance by its Origin.
    pub const FORBIDDEN: Self = Self(403);
    /// There is nothing at this path.
    pub const NOT_FOUND: Self = Self(404);
    /// The method is not GET.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// The head of the request did not arrive in time.
    pub const REQUEST_TIMEOUT: Self = Self(408);
    /// The client must upgrade, or speak another version of the protocol.
    pub const UPGRADE_REQUIRED: Self = Self(426);
    /// The client asks too often.
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    /// The head of the request is too long.
    pub const HEADERS_TOO_LARGE: Self = Self(431);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(500);
    /// The server has no room now.
    pub const UNAVAILABLE: Self = Self(503);
    /// The major version of HTTP is not 1.
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);

    /// The status, if it says that the request was not met: 300 to 599.
    pub const fn new(code: u16) -> Option<Self> {
        if matches!(code, 300..=599) { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The phrase of the status line; that of the class for a code without one here (RFC 9112 §4:
    /// clients ignore it).
    pub const fn phrase(self) -> &'static str {
        match self.0 {
            301 => "Moved Permanently",
            302 => "Found",
            303 => "See Other",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            code => match code / 100 {
                3 => "Redirection",
                4 => "Client Error",
                _ => "Server Error",
            },
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.phrase())
    }
}
