//! One connection's packets as a capture file: what an operator looks at when a peer misbehaves.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hioload_core::Now;

/// Bytes kept of each packet.
const SNAP_BYTES: usize = 256;

/// Bytes of a packet's header in the file.
const HEADER_BYTES: usize = 16;

/// Writes pcap (raw IP, nanoseconds) for one remote endpoint, up to a number of packets; an error
/// ends the trace. Port 0 is every port.
pub(crate) struct Trace {
    remote: SocketAddr,
    /// The stack's time 0, since 1970: a capture is laid beside logs.
    epoch: Duration,
    left: u32,
    file: Box<dyn Write + Send>,
}

impl Trace {
    pub(crate) fn new(
        remote: SocketAddr,
        packets: u32,
        mut file: Box<dyn Write + Send>,
        now: Now,
    ) -> io::Result<Trace> {
        let mut header = [0u8; 24];
        header[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_le_bytes());
        header[4..6].copy_from_slice(&2u16.to_le_bytes());
        header[6..8].copy_from_slice(&4u16.to_le_bytes());
        header[16..20].copy_from_slice(&(SNAP_BYTES as u32).to_le_bytes());
        // LINKTYPE_RAW: IPv4 or IPv6, told by the first nibble.
        header[20..24].copy_from_slice(&101u32.to_le_bytes());
        file.write_all(&header)?;
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = today.saturating_sub(Duration::from_nanos(now.as_nanos()));
        Ok(Trace { remote, epoch, left: packets, file })
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
        if !ours || self.left == 0 {
            return;
        }
        self.left -= 1;
        let kept = packet.len().min(SNAP_BYTES);
        let mut record = [0u8; HEADER_BYTES + SNAP_BYTES];
        let at = self.epoch + Duration::from_nanos(now.as_nanos());
        record[..4].copy_from_slice(&(at.as_secs() as u32).to_le_bytes());
        record[4..8].copy_from_slice(&at.subsec_nanos().to_le_bytes());
        record[8..12].copy_from_slice(&(kept as u32).to_le_bytes());
        record[12..16].copy_from_slice(&(packet.len() as u32).to_le_bytes());
        record[HEADER_BYTES..][..kept].copy_from_slice(&packet[..kept]);
        let written = self.file.write_all(&record[..HEADER_BYTES + kept]);
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
