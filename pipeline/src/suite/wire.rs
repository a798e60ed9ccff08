//! The client's side of the wire, written out plainly and apart from the protocol crate, so that a
//! mistake there isn't made here again.

/// FIN and the opcode of a text frame.
pub const TEXT: u8 = 0x81;
/// FIN and the opcode of a binary frame.
pub const BINARY: u8 = 0x82;
/// FIN and the opcode of a close frame.
pub const CLOSE: u8 = 0x88;
/// FIN and the opcode of a ping.
pub const PING: u8 = 0x89;
/// FIN and the opcode of a pong.
pub const PONG: u8 = 0x8A;
/// The opcode of a continuation, without FIN.
pub const CONTINUATION: u8 = 0x00;
/// The bit that ends a message.
pub const FIN: u8 = 0x80;

/// What RFC 6455 §1.3 computes for the key of [`request`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An opening handshake, with more header lines (each ended by CRLF) behind the usual ones.
pub fn request(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Appends a masked frame; `first` is its first byte.
pub fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    out.push(first);
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// A masked frame; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, first, payload);
    out
}

/// A close frame with a code and a reason.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_bytes());
    frame(CLOSE, &payload)
}

/// A frame of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Close code and reason, if this is a close frame that has them.
    pub fn close(&self) -> Option<(u16, &str)> {
        if self.first != CLOSE {
            return None;
        }
        let (code, reason) = self.payload.split_first_chunk()?;
        Some((u16::from_be_bytes(*code), std::str::from_utf8(reason).ok()?))
    }
}

/// The first frame in `bytes` and how many it takes; `None` while it isn't whole.
///
/// # Panics
/// When it is masked: a server's frames never are.
pub fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let [first, second, ..] = *bytes else { return None };
    assert!(second & 0x80 == 0, "a server doesn't mask (RFC 6455 §5.1)");
    let (head, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(head..head + len)?.to_vec();
    Some((Frame { first, payload }, head + len))
}

/// Length of a response's head, blank line included; `None` while it isn't whole.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The status of a response.
pub fn status(head: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(head.get(..12)?).ok()?;
    text.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

/// A payload of ASCII that differs by seed, so that mixed up messages are noticed.
pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| b' ' + ((i * 7 + i / 251 + seed * 31) % 95) as u8).collect()
}
