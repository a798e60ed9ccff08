//! A link around a link: it loses, duplicates, corrupts, delays and reorders frames as a seed says,
//! both ways, and can carry them with a VLAN tag that the other side doesn't see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hioload_stack::{BURST, Link, LinkInfo, LinkRx, LinkTx, RxChecksum, RxFrame, TxMeta};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn per_mille(&mut self, rate: u64) -> bool {
        self.below(1000) < rate
    }
}

/// What happens to frames, each way; rates are per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub corrupt: u64,
    /// Frames that are held up for 3 ms more.
    pub reorder: u64,
    pub delay_ms: u64,
}

/// One direction.
struct Harm {
    faults: Faults,
    rng: Rng,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    count: u64,
}

impl Harm {
    fn carry(&mut self, mut frame: Vec<u8>) {
        let faults = self.faults;
        if self.rng.per_mille(faults.loss) {
            return;
        }
        if self.rng.per_mille(faults.corrupt) {
            let bit = self.rng.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.rng.per_mille(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.per_mille(faults.reorder) { 3 } else { 0 };
            let at = Instant::now() + Duration::from_millis(faults.delay_ms + late);
            self.count += 1;
            self.under_way.insert((at, self.count), frame.clone());
        }
    }

    fn arrived(&mut self) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }
}

/// A wire that is not to be trusted.
pub struct Wire<L: Link> {
    link: L,
    rx: WireRx,
    tx: WireTx,
}

/// Frames that came in; the link is asked by [`Wire::pump`].
pub struct WireRx {
    harm: Harm,
    burst: Vec<Vec<u8>>,
}

/// Frames that go out with [`Wire::pump`].
pub struct WireTx {
    harm: Harm,
    next: Vec<u8>,
    vlan: Option<u16>,
}

impl<L: Link> Wire<L> {
    pub fn new(link: L, seed: u64, faults: Faults, vlan: Option<u16>) -> Self {
        let harm = |seed| Harm { faults, rng: Rng(seed), under_way: BTreeMap::new(), count: 0 };
        Wire {
            link,
            rx: WireRx { harm: harm(seed), burst: Vec::new() },
            tx: WireTx { harm: harm(!seed), next: Vec::new(), vlan },
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
            self.rx.harm.carry(frame);
        }
        while let Some(frame) = self.tx.harm.arrived() {
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
            && let Some(frame) = self.harm.arrived()
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
        self.harm.carry(frame);
    }

    fn flush(&mut self) {}
}
