//! A seeded wire for tests (feature `sim`): frames are lost, duplicated, corrupted, reordered and
//! late as a seed says, and one seed gives one run, always. [`Harm`] is one direction of it, for
//! whatever carries frames; [`Wire`] joins two stacks by two of them, in virtual time.
//!
//! Nothing of it is for production: it panics on what only a test can do wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use hioload_core::Now;

use crate::checksum::Sum;
use crate::frame::{self, ICMP, ICMPV6, TCP};
use crate::link::{Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, TxMeta};

/// SplitMix64: small, seeded, good enough to choose faults.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in `rate` of 1,000 cases.
    pub fn per_mille(&mut self, rate: u64) -> bool {
        self.below(1000) < rate
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What happens to frames on their way; rates are per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Frames that vanish.
    pub loss: u64,
    /// Frames that arrive twice.
    pub duplicate: u64,
    /// Frames of which one bit flips.
    pub corrupt: u64,
    /// Frames that take up to 1 ms and three times the delay longer.
    pub reorder: u64,
    /// Time that every frame takes.
    pub delay_us: u64,
}

/// One direction of a bad wire.
#[derive(Debug)]
pub struct Harm {
    /// What it does from now on.
    pub faults: Faults,
    rng: Rng,
    /// By when they arrive (ns), and in the order of sending.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl Harm {
    /// A wire with nothing on it.
    pub fn new(seed: u64, faults: Faults) -> Harm {
        Harm { faults, rng: Rng(seed), under_way: BTreeMap::new(), count: 0 }
    }

    /// Sends a frame.
    pub fn carry(&mut self, now: Now, mut frame: Vec<u8>) {
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
            let mut at = now.as_nanos() + faults.delay_us * 1000;
            if self.rng.per_mille(faults.reorder) {
                at += self.rng.below(faults.delay_us * 3000 + 1_000_000);
            }
            self.count += 1;
            self.under_way.insert((at, self.count), frame.clone());
        }
    }

    /// The next frame that has arrived by `now`.
    pub fn arrived(&mut self, now: Now) -> Option<Vec<u8>> {
        let entry = self.under_way.first_entry()?;
        (entry.key().0 <= now.as_nanos()).then(|| entry.remove())
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<Now> {
        self.under_way.keys().next().map(|key| Now::from_nanos(key.0))
    }
}

/// A frame that a wire carried.
pub type Logged = (usize, Vec<u8>);

/// Both directions of a wire between two stacks, 0 and 1, and the time that both live in.
#[derive(Debug)]
pub struct Wire {
    /// The time.
    pub now: Now,
    /// Direction is where frames go.
    harm: [Harm; 2],
    /// Largest IP packet that passes, in bytes; 0: any. IPv6 always has its 1,280. What is larger
    /// vanishes, and a router says so (RFC 1191, RFC 8201).
    pub largest: usize,
    /// Windows of all segments are told no larger than this, in bytes, as a middlebox might;
    /// 0: as they are.
    pub window_max: u16,
    /// Room of each end's transmit queue, in frames a flush.
    pub room: usize,
    /// What both ends say of the checksums of what arrives, as a device might.
    pub verdict: RxChecksum,
    /// All frames, with where they were to go, where wanted.
    pub log: Option<Vec<Logged>>,
    trace: bool,
}

impl Wire {
    /// A wire at time 0. With `HIOLOAD_TRACE` in the environment it writes what it carries to
    /// standard error: for looking at a seed that fails.
    pub fn new(seed: u64, faults: Faults) -> Rc<RefCell<Wire>> {
        Rc::new(RefCell::new(Wire {
            now: Now::ZERO,
            harm: [Harm::new(seed, faults), Harm::new(!seed, faults)],
            largest: 0,
            window_max: 0,
            room: 1024,
            verdict: RxChecksum::Unknown,
            log: None,
            trace: std::env::var_os("HIOLOAD_TRACE").is_some(),
        }))
    }

    /// Changes what happens to frames, both ways, from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        for harm in &mut self.harm {
            harm.faults = faults;
        }
    }

    /// What happens to frames.
    pub fn faults(&self) -> Faults {
        self.harm[0].faults
    }

    /// Sends a frame.
    pub fn carry(&mut self, to: usize, mut frame: Vec<u8>) {
        if let Some(log) = &mut self.log {
            log.push((to, frame.clone()));
        }
        if self.trace {
            describe(self.now, to, &frame);
        }
        if self.largest > 0
            && let Some(complaint) = too_big(&frame, self.largest)
        {
            return self.harm[1 - to].carry(self.now, complaint);
        }
        if self.window_max > 0 {
            limit_window(&mut frame, self.window_max);
        }
        self.harm[to].carry(self.now, frame);
    }

    /// When the next frame arrives at either end.
    pub fn next_arrival(&self) -> Option<Now> {
        self.harm.iter().filter_map(Harm::next_arrival).min()
    }
}

/// Where the IP packet of a frame begins, and its TCP segment; `None` where there is none.
fn segment_at(frame: &[u8]) -> Option<(usize, usize)> {
    let l2 = if frame.get(12..14)? == [0x81, 0] { 18 } else { 14 };
    let (at, protocol_at) = match frame.get(l2 - 2..l2)? {
        [0x08, 0x00] => (l2 + 20, l2 + 9),
        [0x86, 0xdd] => (l2 + 40, l2 + 6),
        _ => return None,
    };
    (*frame.get(protocol_at)? == TCP && frame.len() >= at + 20).then_some((l2, at))
}

/// A line for each TCP segment.
fn describe(now: Now, to: usize, frame: &[u8]) {
    let at_us = now.as_nanos() / 1000;
    let Some((_, at)) = segment_at(frame) else {
        return eprintln!("{at_us:>14} to {to} {} bytes, not TCP", frame.len());
    };
    let tcp = &frame[at..];
    let word = |n: usize| u32::from_be_bytes([tcp[n], tcp[n + 1], tcp[n + 2], tcp[n + 3]]);
    let port = |n: usize| u16::from_be_bytes([tcp[n], tcp[n + 1]]);
    eprintln!(
        "{at_us:>14} to {to} {}>{} flags {:02x} seq {} ack {} len {} win {}",
        port(0),
        port(2),
        tcp[13],
        word(4),
        word(8),
        tcp.len().saturating_sub(usize::from(tcp[12] >> 4) * 4),
        port(14),
    );
}

fn limit_window(frame: &mut [u8], most: u16) {
    let Some((_, at)) = segment_at(frame) else { return };
    let tcp = &mut frame[at..];
    let was = u16::from_be_bytes([tcp[14], tcp[15]]);
    if was <= most {
        return;
    }
    tcp[14..16].copy_from_slice(&most.to_be_bytes());
    // RFC 1624 §3: HC' = ~(~HC + ~m + m').
    let sum = u16::from_be_bytes([tcp[16], tcp[17]]);
    let mut folded = u32::from(!sum) + u32::from(!was) + u32::from(most);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    tcp[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// What a router answers to a TCP segment that is larger than the next network takes.
fn too_big(frame: &[u8], largest: usize) -> Option<Vec<u8>> {
    let (l2, at) = segment_at(frame)?;
    let v6 = at - l2 == 40;
    let largest = if v6 { largest.max(1280) } else { largest };
    if frame.len() - l2 <= largest {
        return None;
    }
    let mtu = (largest as u32).to_be_bytes();
    let (src, dst, protocol, kind) = match v6 {
        true => {
            let mut to = [0u8; 16];
            to.copy_from_slice(&frame[l2 + 8..l2 + 24]);
            let router = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
            (router.into(), Ipv6Addr::from(to).into(), ICMPV6, [2, 0])
        }
        false => {
            let to = [frame[l2 + 12], frame[l2 + 13], frame[l2 + 14], frame[l2 + 15]];
            (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::from(to).into(), ICMP, [3, 4])
        }
    };
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(mtu);
    // The quoted header and the first bytes of what it carries.
    message.extend(&frame[l2..at + 20]);
    let sum = match v6 {
        true => Sum::pseudo(src, dst, protocol, message.len() as u16),
        false => Sum::default(),
    };
    let sum = sum.add(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = if v6 { 40 } else { 20 };
    let mut answer = frame[..l2].to_vec();
    let (to, from) = (&frame[6..12], &frame[..6]);
    answer[..6].copy_from_slice(to);
    answer[6..12].copy_from_slice(from);
    answer.resize(l2 + header + message.len(), 0);
    frame::write_ip(&mut answer[l2..], src, dst, protocol, 64);
    answer[l2 + header..].copy_from_slice(&message);
    Some(answer)
}

/// One end of a [`Wire`].
#[derive(Debug)]
pub struct SimLink {
    info: LinkInfo,
    rx: SimRx,
    tx: SimTx,
}

/// See [`SimLink`].
#[derive(Debug)]
pub struct SimRx {
    wire: Rc<RefCell<Wire>>,
    side: usize,
    burst: Vec<Vec<u8>>,
    verdict: RxChecksum,
}

/// See [`SimLink`].
#[derive(Debug)]
pub struct SimTx {
    wire: Rc<RefCell<Wire>>,
    side: usize,
    next: Vec<u8>,
    sent: Vec<Vec<u8>>,
}

impl SimLink {
    /// The end of stack `side` (0 or 1). Its station address is 02:00:00:00:00:01 or :02.
    pub fn new(wire: &Rc<RefCell<Wire>>, side: usize, mtu: u16, offloads: Offloads) -> SimLink {
        SimLink {
            info: LinkInfo { mac: [2, 0, 0, 0, 0, side as u8 + 1], mtu, offloads },
            rx: SimRx {
                wire: Rc::clone(wire),
                side,
                burst: Vec::new(),
                verdict: RxChecksum::Unknown,
            },
            tx: SimTx { wire: Rc::clone(wire), side, next: Vec::new(), sent: Vec::new() },
        }
    }
}

impl Link for SimLink {
    type Rx = SimRx;
    type Tx = SimTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut SimRx, &mut SimTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for SimRx {
    fn receive(&mut self, max: usize) -> usize {
        self.burst.clear();
        let mut wire = self.wire.borrow_mut();
        let now = wire.now;
        self.verdict = wire.verdict;
        while self.burst.len() < max
            && let Some(frame) = wire.harm[self.side].arrived(now)
        {
            self.burst.push(frame);
        }
        self.burst.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.burst[index], checksum: self.verdict }
    }
}

/// What a device does that was told to fill in checksums.
pub fn fill_in_checksums(frame: &mut [u8], meta: TxMeta) {
    let l3 = usize::from(meta.l2_len);
    let l4 = l3 + usize::from(meta.l3_len);
    if meta.ip_checksum {
        let sum = Sum::default().add(&frame[l3..l4]).finish();
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if meta.tcp_checksum {
        let sum = Sum::default().add(&frame[l4..]).finish();
        frame[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
    }
}

impl LinkTx for SimTx {
    fn room(&self) -> usize {
        self.wire.borrow().room.saturating_sub(self.sent.len())
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.room() == 0 {
            return None;
        }
        // Not zeros: whoever relies on them is found out.
        self.next.resize(len, 0xee);
        Some(&mut self.next)
    }

    fn commit(&mut self, meta: TxMeta) {
        let mut frame = self.next.clone();
        fill_in_checksums(&mut frame, meta);
        self.sent.push(frame);
    }

    fn flush(&mut self) {
        for frame in self.sent.drain(..) {
            self.wire.borrow_mut().carry(1 - self.side, frame);
        }
    }
}

/// A segment of whoever pretends to be somebody: for attacks.
#[derive(Clone, Copy, Debug)]
pub struct Forged<'a> {
    /// The station that shall take it.
    pub to_mac: [u8; 6],
    /// Who it claims to come from.
    pub from: SocketAddr,
    /// Whom it is for, of the same family.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
    pub flags: u8,
    /// What it carries.
    pub data: &'a [u8],
}

impl Forged<'_> {
    /// The frame, with good checksums and a window of 2,048 bytes.
    pub fn frame(&self) -> Vec<u8> {
        let (src, dst) = (self.from.ip(), self.to.ip());
        let (ethertype, header) = match src.is_ipv6() {
            true => (frame::ETHERTYPE_IPV6, 40),
            false => (frame::ETHERTYPE_IPV4, 20),
        };
        let mut bytes = vec![0; 14 + header + 20 + self.data.len()];
        frame::write_ethernet(&mut bytes, self.to_mac, [2, 0, 0, 0, 0, 99], None, ethertype);
        let packet = &mut bytes[14..];
        frame::write_ip(packet, src, dst, TCP, 64);
        let tcp = &mut packet[header..];
        tcp[..2].copy_from_slice(&self.from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&2048u16.to_be_bytes());
        tcp[20..].copy_from_slice(self.data);
        let sum = Sum::pseudo(src, dst, TCP, tcp.len() as u16).add(tcp).finish();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}
