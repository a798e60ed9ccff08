//! A link around a link: the seeded wire of `hioload_stack::sim` harms the frames both ways, in real
//! time, and can carry them with a VLAN tag that the other side doesn't see.

use std::time::Instant;

use hioload_core::Now;
use hioload_stack::sim::{Faults, Harm};
use hioload_stack::{BURST, Link, LinkInfo, LinkRx, LinkTx, RxChecksum, RxFrame, TxMeta};

/// A wire that is not to be trusted.
pub struct Wire<L: Link> {
    link: L,
    rx: WireRx,
    tx: WireTx,
}

/// Frames that came in; the link is asked by [`Wire::pump`].
pub struct WireRx {
    harm: Harm,
    began: Instant,
    burst: Vec<Vec<u8>>,
}

/// Frames that go out with [`Wire::pump`].
pub struct WireTx {
    harm: Harm,
    began: Instant,
    next: Vec<u8>,
    vlan: Option<u16>,
}

fn since(began: Instant) -> Now {
    Now::ZERO.after(began.elapsed())
}

impl<L: Link> Wire<L> {
    pub fn new(link: L, seed: u64, faults: Faults, vlan: Option<u16>) -> Self {
        let began = Instant::now();
        Wire {
            link,
            rx: WireRx { harm: Harm::new(seed, faults), began, burst: Vec::new() },
            tx: WireTx { harm: Harm::new(!seed, faults), began, next: Vec::new(), vlan },
        }
    }

    /// Moves frames between the link and the harm that is done to them.
    pub fn pump(&mut self) {
        let (rx, tx) = self.link.split();
        for index in 0..rx.receive(BURST) {
            let mut frame = rx.frame(index).bytes.to_vec();
            if let Some(vlan) = self.tx.vlan {
                let [high, low] = vlan.to_be_bytes();
                frame.splice(12..12, [0x81, 0x00, high, low]);
            }
            self.rx.harm.carry(since(self.rx.began), frame);
        }
        while let Some(frame) = self.tx.harm.arrived(since(self.tx.began)) {
            // One that corruption made too long for the link is lost.
            if let Some(room) = tx.next(frame.len()) {
                room.copy_from_slice(&frame);
                tx.commit(TxMeta::default());
            }
        }
        tx.flush();
    }
}

impl<L: Link> Link for Wire<L> {
    type Rx = WireRx;
    type Tx = WireTx;

    fn info(&self) -> LinkInfo {
        self.link.info()
    }

    fn split(&mut self) -> (&mut WireRx, &mut WireTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for WireRx {
    fn receive(&mut self, max: usize) -> usize {
        self.burst.clear();
        while self.burst.len() < max
            && let Some(frame) = self.harm.arrived(since(self.began))
        {
            self.burst.push(frame);
        }
        self.burst.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.burst[index], checksum: RxChecksum::Unknown }
    }
}

impl LinkTx for WireTx {
    fn room(&self) -> usize {
        BURST
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next.resize(len, 0);
        Some(&mut self.next)
    }

    fn commit(&mut self, _: TxMeta) {
        let mut frame = self.next.clone();
        if let Some(vlan) = self.vlan {
            assert_eq!(frame[12..16], [0x81, 0x00, (vlan >> 8) as u8, vlan as u8], "no tag");
            frame.drain(12..16);
        }
        self.harm.carry(since(self.began), frame);
    }

    fn flush(&mut self) {}
}
