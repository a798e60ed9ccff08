//! One peer's packets, and what became of its connections, as a capture file: what an operator looks
//! at when a peer misbehaves.
//!
//! pcapng, as Wireshark and tcpdump read it. A change of state is a journal entry (pcapng's systemd
//! Journal Export Block) between the packets where it happened: Wireshark shows it there with its time,
//! and finds it by `systemd_journal.message`; tcpdump passes over it in silence.

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
/// Kinds of blocks: section header, interface description, enhanced packet, journal entry.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const JOURNAL: u32 = 9;

/// Writes pcapng (raw IP, microseconds, as journals have no more) for one remote endpoint, up to a number of records; an error
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

/// A block (pcapng §3.1): type, length, body padded to 32 bits, length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = &[0; 3][..body.len().next_multiple_of(4) - body.len()];
    let len = ((12 + body.len() + padding.len()) as u32).to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, padding, &len].concat()
}

/// The beginning of a file: a section of one interface.
fn header() -> Vec<u8> {
    // Byte order, version 1.0, length unknown.
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    section.extend([0xff; 8]);
    // Link type, reserved, bytes kept. Times are in microseconds unless an option says otherwise.
    let mut interface = LINK_RAW.to_le_bytes().to_vec();
    interface.extend([0, 0]);
    interface.extend((SNAP_BYTES as u32).to_le_bytes());
    [block(SECTION, &section), block(INTERFACE, &interface)].concat()
}

/// A packet (pcapng §4.3) at a time in microseconds since 1970.
fn packet_block(packet: &[u8], at_us: u64) -> Vec<u8> {
    let kept = &packet[..packet.len().min(SNAP_BYTES)];
    let [high, low] = [(at_us >> 32) as u32, at_us as u32];
    let words = [0, high, low, kept.len() as u32, packet.len() as u32];
    let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    body.extend(kept);
    block(PACKET, &body)
}

/// A journal entry of one line of text (pcapng §4.7, systemd's Journal Export Format) at a time in
/// microseconds since 1970.
fn journal_block(text: &str, at_us: u64) -> Vec<u8> {
    let entry = format!(
        "__REALTIME_TIMESTAMP={at_us}\nPRIORITY=6\nSYSLOG_IDENTIFIER=hioload-ws\nMESSAGE={text}\n"
    );
    block(JOURNAL, entry.as_bytes())
}

impl Trace {
    pub(crate) fn new(
        remote: SocketAddr,
        packets: u32,
        mut file: Box<dyn Write + Send>,
        now: Now,
    ) -> io::Result<Trace> {
        file.write_all(&header())?;
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
            self.record(now, |at_us| packet_block(packet, at_us));
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
        let text = format!("{peer} with port {}: {state}", tuple.local_port);
        self.record(now, |at_us| journal_block(&text, at_us));
    }

    /// Writes a block in one piece, so that the file can be read meanwhile.
    fn record(&mut self, now: Now, block: impl FnOnce(u64) -> Vec<u8>) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let at = self.epoch + Duration::from_nanos(now.as_nanos());
        let written = self.file.write_all(&block(at.as_micros() as u64));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_begins_with_a_section_of_one_interface_of_raw_ip() {
        let section = *b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\
            \xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0";
        let interface = *b"\x01\0\0\0\x14\0\0\0\x65\0\0\0\0\x01\0\0\x14\0\0\0";
        assert_eq!(header(), [&section[..], &interface].concat());
    }

    #[test]
    fn a_packet_is_cut_and_padded_and_says_how_long_it_was() {
        let short = packet_block(b"abcde", 0x1_0000_0002);
        let expected = *b"\x06\0\0\0\x28\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\
            \x05\0\0\0\x05\0\0\0abcde\0\0\0\x28\0\0\0";
        assert_eq!(short, expected);
        let long = packet_block(&[7; 1500], 0);
        assert_eq!(long.len(), 32 + SNAP_BYTES);
        assert_eq!(long[20..28], *b"\0\x01\0\0\xdc\x05\0\0");
    }

    #[test]
    fn a_state_is_a_journal_entry_which_tcpdump_passes_over_and_wireshark_shows() {
        let block = journal_block("10.0.0.1:5 with port 80: CLOSED", 1_700_000_000_000_001);
        let entry = b"__REALTIME_TIMESTAMP=1700000000000001\nPRIORITY=6\n\
            SYSLOG_IDENTIFIER=hioload-ws\nMESSAGE=10.0.0.1:5 with port 80: CLOSED\n";
        assert_eq!(block.len() % 4, 0);
        assert_eq!(block[..4], JOURNAL.to_le_bytes());
        assert_eq!(block[4..8], (block.len() as u32).to_le_bytes());
        assert_eq!(block[8..8 + entry.len()], entry[..]);
        assert!(block[8 + entry.len()..block.len() - 4].iter().all(|&byte| byte == 0));
        assert_eq!(block[block.len() - 4..], block[4..8]);
    }
}
