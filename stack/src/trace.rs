//! One peer's packets, and what became of its connections, as a capture file: what an operator looks
//! at when a peer misbehaves.
//!
//! pcapng, as Wireshark and tcpdump read it. A change of state is a packet of no bytes with a comment
//! that says it, between the packets where it happened; `frame.comment` finds them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hioload_core::Now;

use crate::conn::Tuple;

/// Bytes kept of each packet.
const SNAP_BYTES: usize = 256;
/// Connections whose state is remembered: of more, each word is written, news or not.
const STATES_MAX: usize = 1024;
/// LINKTYPE_RAW: IPv4 or IPv6, told by the first nibble.
const LINK_RAW: u16 = 101;

/// Writes pcapng (raw IP, nanoseconds) for one remote endpoint, up to a number of records; an error
/// ends the trace. Port 0 is every port.
pub(crate) struct Trace {
    remote: SocketAddr,
    /// The stack's time 0, since 1970: a capture is laid beside logs.
    epoch: Duration,
    left: u32,
    /// The last state that was written of each connection: peer's port, our port.
    states: HashMap<(u16, u16), &'static str>,
    file: Box<dyn Write + Send>,
}

/// A block (pcapng §3.1): type, length, body, length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (12 + body.len()) as u32;
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), body, &len.to_le_bytes()].concat()
}

/// An option (pcapng §3.5), padded to 32 bits.
fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [code.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const END_OF_OPTIONS: [u8; 4] = [0; 4];

impl Trace {
    pub(crate) fn new(
        remote: SocketAddr,
        packets: u32,
        mut file: Box<dyn Write + Send>,
        now: Now,
    ) -> io::Result<Trace> {
        // Section header: byte order, version 1.0, length unknown.
        let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        // Interface: link type, reserved, bytes kept; option if_tsresol (9): 10^-9 s.
        let mut interface = LINK_RAW.to_le_bytes().to_vec();
        interface.extend([0, 0]);
        interface.extend((SNAP_BYTES as u32).to_le_bytes());
        interface.extend(option(9, &[9]));
        interface.extend(END_OF_OPTIONS);
        file.write_all(&[block(0x0a0d_0d0a, &section), block(1, &interface)].concat())?;
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = today.saturating_sub(Duration::from_nanos(now.as_nanos()));
        Ok(Trace { remote, epoch, left: packets, states: HashMap::new(), file })
    }

    /// Writes a packet, if `far` is the traced address and one of its ports is the traced one.
    pub(crate) fn packet(&mut self, packet: &[u8], far: IpAddr, now: Now) {
        let at = if far.is_ipv6() { 40 } else { 20 };
        let port = self.remote.port().to_be_bytes();
        let ports = packet.get(at..at + 4);
        let ours = far == self.remote.ip()
            && ports.is_some_and(|ports| {
                self.remote.port() == 0 || ports[..2] == port || ports[2..] == port
            });
        if ours {
            self.record(packet, None, now);
        }
    }

    /// Writes the state of a connection with the traced peer, where it is news.
    pub(crate) fn state(&mut self, tuple: &Tuple, state: &'static str, now: Now) {
        let wanted = self.remote.port();
        let ours = tuple.remote_ip() == self.remote.ip()
            && (wanted == 0 || wanted == tuple.remote_port || wanted == tuple.local_port);
        if !ours {
            return;
        }
        let key = (tuple.remote_port, tuple.local_port);
        if self.states.get(&key) == Some(&state) {
            return;
        }
        if self.states.len() < STATES_MAX || self.states.contains_key(&key) {
            self.states.insert(key, state);
        }
        let peer = SocketAddr::new(tuple.remote_ip(), tuple.remote_port);
        self.record(&[], Some(&format!("{peer} with port {}: {state}", tuple.local_port)), now);
    }

    /// An enhanced packet block (pcapng §4.3), in one write, so that the file can be read meanwhile.
    fn record(&mut self, packet: &[u8], comment: Option<&str>, now: Now) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let kept = &packet[..packet.len().min(SNAP_BYTES)];
        let at = (self.epoch + Duration::from_nanos(now.as_nanos())).as_nanos() as u64;
        let mut body = vec![0; 4];
        body.extend(((at >> 32) as u32).to_le_bytes());
        body.extend((at as u32).to_le_bytes());
        body.extend((kept.len() as u32).to_le_bytes());
        body.extend((packet.len() as u32).to_le_bytes());
        body.extend(kept);
        body.resize(body.len().next_multiple_of(4), 0);
        if let Some(comment) = comment {
            body.extend(option(1, comment.as_bytes()));
            body.extend(END_OF_OPTIONS);
        }
        let written = self.file.write_all(&block(6, &body));
        if written.is_err() || (self.left == 0 && self.file.flush().is_err()) {
            self.left = 0;
        }
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace of {}", self.remote)
    }
}
