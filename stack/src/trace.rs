//! One connection's packets as a capture file: what an operator looks at when a peer misbehaves.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use hioload_core::Now;

/// Bytes kept of each packet.
const SNAP_BYTES: usize = 256;

/// Writes pcap (raw IP, nanoseconds) for one remote endpoint, up to a number of packets. Output is
/// buffered by the writer that is handed in; an error ends the trace.
pub(crate) struct Trace {
    remote: SocketAddr,
    left: u32,
    file: Box<dyn Write + Send>,
}

impl Trace {
    pub(crate) fn new(
        remote: SocketAddr,
        packets: u32,
        mut file: Box<dyn Write + Send>,
    ) -> io::Result<Trace> {
        let mut header = [0u8; 24];
        header[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
        header[4..6].copy_from_slice(&2u16.to_le_bytes());
        header[6..8].copy_from_slice(&4u16.to_le_bytes());
        header[16..20].copy_from_slice(&(SNAP_BYTES as u32).to_le_bytes());
        // LINKTYPE_RAW: IPv4 or IPv6, told by the first nibble.
        header[20..24].copy_from_slice(&101u32.to_le_bytes());
        file.write_all(&header)?;
        Ok(Trace { remote, left: packets, file })
    }

    /// Writes a packet, if `far` is the traced address and one of its ports is the traced one.
    pub(crate) fn packet(&mut self, packet: &[u8], far: IpAddr, now: Now) {
        let at = if far.is_ipv6() { 40 } else { 20 };
        let port = self.remote.port().to_be_bytes();
        let ports = packet.get(at..at + 4);
        let ours = far == self.remote.ip()
            && ports.is_some_and(|ports| ports[..2] == port || ports[2..] == port);
        if !ours || self.left == 0 {
            return;
        }
        self.left -= 1;
        let kept = packet.len().min(SNAP_BYTES);
        let mut record = [0u8; 16];
        let nanos = now.as_nanos();
        record[..4].copy_from_slice(&((nanos / 1_000_000_000) as u32).to_le_bytes());
        record[4..8].copy_from_slice(&((nanos % 1_000_000_000) as u32).to_le_bytes());
        record[8..12].copy_from_slice(&(kept as u32).to_le_bytes());
        record[12..16].copy_from_slice(&(packet.len() as u32).to_le_bytes());
        let written =
            self.file.write_all(&record).and_then(|()| self.file.write_all(&packet[..kept]));
        if written.is_err() || (self.left == 0 && self.file.flush().is_err()) {
            self.left = 0;
        }
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trace of ")?;
        f.write_fmt(format_args!("{}", self.remote))?;
        f.write_char('.')
    }
}
