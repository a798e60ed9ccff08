//! Somebody on the wire who sends what he likes: a packet socket on the kernel's side of a device.

use std::sync::Arc;

use hioload_dataplane::AfPacket;
use hioload_stack::sim::Forged;
use hioload_stack::{Link, LinkTx, TxMeta};

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// Sends forged segments.
pub struct Attacker(AfPacket);

impl Attacker {
    pub fn on(interface: &str) -> Attacker {
        Attacker(AfPacket::open(interface, None, Arc::default()).expect("root, and the interface"))
    }

    /// Sends one segment; what there is no room for is lost, as on any wire.
    pub fn send(&mut self, segment: &Forged<'_>) {
        let frame = segment.frame();
        let (_, tx) = self.0.split();
        if let Some(room) = tx.next(frame.len()) {
            room.copy_from_slice(&frame);
            tx.commit(TxMeta::default());
        }
    }

    pub fn flush(&mut self) {
        self.0.split().1.flush();
    }
}
