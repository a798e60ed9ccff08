//! A blocking WebSocket client over any byte stream; it fails loudly, as tests want.

use std::io::{ErrorKind, Read, Write};

use super::Stream;
use super::wire::{self, Frame};

/// See the module.
pub struct Client {
    stream: Box<dyn Stream>,
    seen: Vec<u8>,
    used: usize,
}

impl Client {
    /// A client that hasn't sent anything.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Client { stream, seen: Vec::new(), used: 0 }
    }

    /// Opens a WebSocket.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.send(&wire::request("/", ""));
        let head = self.head().expect("a response");
        assert_eq!(wire::status(&head), Some(101), "{}", String::from_utf8_lossy(&head));
        let text = String::from_utf8_lossy(&head).into_owned();
        assert!(text.contains(wire::ACCEPT), "{text}");
        self
    }

    /// The head of the response; `None` when the connection ended before.
    pub fn head(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = wire::head_len(&self.seen[self.used..]) {
                self.used += len;
                return Some(self.seen[self.used - len..self.used].to_vec());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When they can't be sent.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes it");
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one masked frame.
    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&wire::frame(first, payload));
    }

    /// Reads more; false at the end of the connection, however it ended.
    fn more(&mut self) -> bool {
        if self.used > 1 << 20 {
            self.seen.drain(..std::mem::take(&mut self.used));
        }
        let mut buf = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return false,
                Ok(count) => {
                    self.seen.extend_from_slice(&buf[..count]);
                    return true;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                    panic!("the server says nothing")
                }
                Err(_) => return false,
            }
        }
    }

    /// The next frame; `None` when the connection ended.
    pub fn recv(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = wire::parse(&self.seen[self.used..]) {
                self.used += len;
                return Some(frame);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Takes the next frame, which is to be just this one.
    ///
    /// # Panics
    /// When it isn't.
    pub fn expect(&mut self, first: u8, payload: &[u8]) {
        let Some(got) = self.recv() else { panic!("the connection ended early") };
        assert_eq!((got.first, got.payload.len()), (first, payload.len()));
        // Not assert_eq: a megabyte in a message helps nobody.
        assert!(got.payload == payload, "the payload differs");
    }

    /// Takes frames until a close frame with this code, and then the end.
    ///
    /// # Panics
    /// When that isn't what comes.
    pub fn expect_close(&mut self, code: u16) {
        while let Some(frame) = self.recv() {
            if let Some((got, reason)) = frame.close() {
                assert_eq!(got, code, "{reason}");
                // Whoever the server tells to go answers (RFC 6455 §5.5.1), if it still can.
                let _ = self.try_send(&wire::close(code, ""));
                assert_eq!(self.recv(), None, "nothing follows a close frame");
                return;
            }
        }
        panic!("the connection ended without a close frame");
    }

    /// Leaves in order.
    pub fn leave(mut self) {
        self.send(&wire::close(1000, ""));
        self.expect_close(1000);
    }

    /// The stream, for what a well-behaved client doesn't do.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }

    /// Another handle on the same stream, to read while somebody else writes.
    pub fn another(&self) -> Box<dyn Stream> {
        self.stream.another()
    }
}
