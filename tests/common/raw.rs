//! A WebSocket client without manners: it sends whatever bytes it is told to. Every read and write
//! has a time limit, so that no test hangs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Frames, requests and responses.
pub use hioload_pipeline::suite::wire::*;

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
        assert!(head.contains(ACCEPT), "{head}");
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Sends a frame; `first` is its first byte.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&frame(first, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    /// Begins or answers the closing handshake.
    pub fn close(&mut self, code: u16) {
        self.send(&close(code, ""));
    }

    /// Receives more.
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.ahead.extend_from_slice(&bytes[..n]);
                Ok(())
            }
        }
    }

    /// The head of an HTTP response.
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(len) = head_len(&self.ahead) {
                let head: Vec<u8> = self.ahead.drain(..len).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.fill()?;
        }
    }

    /// The status of an HTTP response that ends the connection.
    pub fn refusal(&mut self) -> u16 {
        let head = self.head().expect("a response");
        self.end();
        status(head.as_bytes()).unwrap_or_else(|| panic!("no status in {head:?}"))
    }

    /// The next frame.
    pub fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, len)) = parse(&self.ahead) {
                self.ahead.drain(..len);
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// The next frame, which must be a whole text.
    pub fn text(&mut self) -> String {
        let frame = self.frame().expect("a frame");
        assert_eq!(frame.first, TEXT, "{frame:?}");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// Reads on to the Close frame and to the end of the connection. `None`: no Close came.
    pub fn close_code(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame().ok()?;
            if frame.first == CLOSE {
                self.end();
                return Some(frame.close().map_or(1005, |(code, _)| code));
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
