//! A WebSocket client without manners: it sends whatever bytes it is told to. Every read and write
//! has a time limit, so that no test hangs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A correct opening handshake for `path`, with more header lines (each ending in CRLF).
pub fn request(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// A masked frame as a client sends it.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

pub struct Raw {
    pub stream: TcpStream,
    /// Received and not looked at yet.
    ahead: Vec<u8>,
}

impl Raw {
    /// A connection on which nothing was said.
    pub fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        stream.set_nodelay(true).expect("no delay");
        Raw::adopt(stream)
    }

    /// A connection that was made before, with its time limits.
    pub fn adopt(stream: TcpStream) -> Raw {
        Raw { stream, ahead: Vec::new() }
    }

    /// An open WebSocket.
    pub fn open(address: SocketAddr) -> Raw {
        Raw::open_at(address, "/")
    }

    /// An open WebSocket for a path.
    pub fn open_at(address: SocketAddr, path: &str) -> Raw {
        let mut raw = Raw::connect(address);
        raw.send(&request(path, ""));
        let head = raw.head().expect("a response");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send(&frame(true, opcode, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    /// Begins or answers the closing handshake.
    pub fn close(&mut self, code: u16) {
        self.send_frame(CLOSE, &code.to_be_bytes());
    }

    fn fill(&mut self, least: usize) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        while self.ahead.len() < least {
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.ahead.extend_from_slice(&bytes[..n]),
            }
        }
        Ok(())
    }

    /// The head of an HTTP response.
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.fill(self.ahead.len() + 1)?;
        }
    }

    /// The status of an HTTP response that ends the connection.
    pub fn refusal(&mut self) -> u16 {
        let head = self.head().expect("a response");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        self.end();
        status.unwrap_or_else(|| panic!("no status in {head:?}"))
    }

    /// The next frame.
    pub fn frame(&mut self) -> io::Result<Frame> {
        self.fill(2)?;
        let (first, second) = (self.ahead[0], self.ahead[1]);
        assert_eq!(second & 0x80, 0, "a server's frame is never masked");
        let (head, len) = match second {
            126 => {
                self.fill(4)?;
                (4, u64::from(u16::from_be_bytes([self.ahead[2], self.ahead[3]])))
            }
            127 => {
                self.fill(10)?;
                let mut len = [0; 8];
                len.copy_from_slice(&self.ahead[2..10]);
                (10, u64::from_be_bytes(len))
            }
            len => (2, u64::from(len)),
        };
        let whole = head + usize::try_from(len).expect("a length that fits");
        self.fill(whole)?;
        let payload = self.ahead.drain(..whole).skip(head).collect();
        Ok(Frame { fin: first & 0x80 != 0, opcode: first & 0x0F, payload })
    }

    /// The next frame, which must be a whole text.
    pub fn text(&mut self) -> String {
        let frame = self.frame().expect("a frame");
        assert_eq!((frame.fin, frame.opcode), (true, TEXT), "{frame:?}");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// Reads on to the Close frame and to the end of the connection. `None`: no Close came.
    pub fn close_code(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame().ok()?;
            if frame.opcode == CLOSE {
                self.end();
                return match frame.payload[..] {
                    [high, low, ..] => Some(u16::from_be_bytes([high, low])),
                    _ => Some(1005),
                };
            }
        }
    }

    /// Reads on to the end of the connection, which must come.
    pub fn end(&mut self) {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the connection doesn't end: {error}"),
            }
        }
    }

    /// Ends the connection by a reset.
    #[cfg(target_os = "linux")]
    pub fn reset(self) {
        use rustix::net::sockopt::set_socket_linger;
        set_socket_linger(&self.stream, Some(std::time::Duration::ZERO)).expect("linger");
    }
}
