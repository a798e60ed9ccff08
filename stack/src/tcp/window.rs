//! A connection's congestion window, which smoltcp keeps to itself.
//!
//! No method tells it, but `tcp::Socket` is `Debug`, and what that prints has a fixed place for it. It
//! is read from there by a `fmt::Write` that keeps nothing but how much of the mark before the number
//! has passed, and that ends the printing once it has the number. The rings stand before it, byte by
//! byte, and can't be skipped: that takes 13 ns a byte. So nobody asks but an operator who names a
//! peer, and nothing depends on the answer: [`self_test`] says whether there is any.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;

use crate::device::Capture;
use crate::frame::{ACK, Bare, SYN, write_bare};
use crate::seed::seeded;

/// What stands before the number. Its first byte is in it once, so a search never has to go back.
const MARK: &[u8] = b"Reno { cwnd: ";

/// Reads the number behind [`MARK`] as the text passes.
#[derive(Default)]
struct Reader {
    /// Bytes of the mark that just passed.
    matched: usize,
    /// The number so far; `None` before its first digit.
    number: Option<u32>,
    /// The number has ended, or is none.
    ended: bool,
}

impl Write for Reader {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.matched < MARK.len() {
                let next = byte == MARK[self.matched];
                self.matched = if next { self.matched + 1 } else { (byte == MARK[0]).into() };
                continue;
            }
            if !byte.is_ascii_digit() {
                self.ended = true;
                return Err(fmt::Error);
            }
            let number = self.number.unwrap_or(0).checked_mul(10);
            self.number = number.and_then(|number| number.checked_add(u32::from(byte - b'0')));
            if self.number.is_none() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Bytes that may be in flight, as far as congestion is concerned. Takes as long as printing both
/// rings. `None` where smoltcp doesn't print it as expected.
pub(crate) fn congestion_window(socket: &tcp::Socket<'_>) -> Option<u32> {
    let mut reader = Reader::default();
    // The error that ends the printing is the reader's own.
    let _ = write!(reader, "{socket:?}");
    reader.number.filter(|_| reader.ended)
}

/// The congestion windows of a fresh socket and, each time, after one more acknowledgement.
fn observed() -> Option<[u32; 3]> {
    let (mut rx, mut tx) = ([0u8; 64], [0u8; 64]);
    let mut storage = [SocketStorage::EMPTY];
    let mut set = SocketSet::new(&mut storage[..]);
    set.add(tcp::Socket::new(
        tcp::SocketBuffer::new(&mut rx[..]),
        tcp::SocketBuffer::new(&mut tx[..]),
    ));
    let (us, peer) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), Ipv4Addr::new(192, 0, 2, 2).into());
    let mut device = Capture::new(1500);
    let mut interface = seeded(0, &mut device);
    let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
    socket.set_nagle_enabled(false);
    let fresh = congestion_window(socket)?;
    socket.connect(interface.context(), (peer, 80), (us, 1024)).ok()?;
    interface.poll_egress(Instant::ZERO, &mut device, &mut set);
    let mut windows = [fresh; 3];
    let mut segment = Bare {
        src_port: 80,
        dst_port: 1024,
        seq: 0,
        ack: 1,
        flags: SYN | ACK,
        window: 1000,
        mss: 536,
        ..Bare::default()
    };
    for window in &mut windows {
        device.give(segment.packet_len(false), |packet| write_bare(packet, peer, us, &segment));
        interface.poll_ingress_single(Instant::ZERO, &mut device, &mut set);
        let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
        *window = congestion_window(socket)?;
        socket.send_slice(&[0; 10]).ok()?;
        interface.poll_egress(Instant::ZERO, &mut device, &mut set);
        segment = Bare { seq: 1, ack: segment.ack + 10, flags: ACK, mss: 0, ..segment };
    }
    (windows[0] == fresh).then_some(windows)
}

/// Whether what [`congestion_window`] reads is one: slow start begins with 2,048 bytes and adds what
/// is acknowledged (RFC 5681 §3.1).
pub(crate) fn self_test() -> bool {
    observed() == Some([2048, 2058, 2068])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Option<u32> {
        let mut reader = Reader::default();
        let _ended = pieces.iter().try_for_each(|piece| reader.write_str(piece));
        reader.number.filter(|_| reader.ended)
    }

    #[test]
    fn a_congestion_window_is_read_from_a_socket_and_follows_it() {
        assert_eq!(observed(), Some([2048, 2058, 2068]));
    }

    #[test]
    fn the_number_is_read_however_the_text_is_cut() {
        assert_eq!(read(&["Reno(Reno { cwnd: 2048, mss: 1024"]), Some(2048));
        assert_eq!(read(&["ReReno", " ", "{ cw", "nd: 20", "48", ",", " mss: 1"]), Some(2048));
    }

    #[test]
    fn what_is_no_number_is_no_answer() {
        for text in ["", "Reno { cwnd: ", "Reno { cwnd: 2048", "Reno { cwnd: x, mss: 7,"] {
            assert_eq!(read(&[text]), None, "{text}");
        }
        assert_eq!(read(&["Cubic { cwnd: 2048, mss"]), None);
        assert_eq!(read(&["Reno { cwnd: 4294967296, mss"]), None, "larger than any window");
    }
}
