//! A packet socket on an interface: frames in and out of a NIC, or one end of a veth pair, without
//! taking it from the kernel. Bursts by recvmmsg and sendmmsg.
//!
//! The kernel sees each frame, too, so our addresses must not be its own: it would answer with
//! resets. It hands over what it joined (GRO) or hasn't cut yet (a veth peer with TSO), up to 64
//! KiB a frame, and tells where a checksum was verified or, on the same host, never made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hioload_stack::{BURST, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, TxMeta};

use super::{Attention, HEADER_BYTES, LinkCounters, LinkError, Port, sys};

/// Room in front of a received frame for the VLAN tag that the kernel took out of it.
const TAG_BYTES: usize = 4;
/// Bytes of both station addresses, behind which the tag belongs.
const STATIONS_BYTES: usize = 12;
/// The largest packet that the kernel hands over, and its header.
const RX_BYTES: usize = 65_536 + HEADER_BYTES;

/// A station on an interface of this host.
pub struct AfPacket {
    info: LinkInfo,
    interface: Box<str>,
    index: i32,
    fd: Arc<OwnedFd>,
    rx: PacketRx,
    tx: PacketTx,
}

/// The receive half.
pub struct PacketRx {
    fd: Arc<OwnedFd>,
    memory: Box<[u8]>,
    received: [sys::Received; BURST],
    frames: [(usize, usize, RxChecksum); BURST],
    counters: Arc<LinkCounters>,
    /// An error that may mean that the interface is gone, until a frame comes.
    doubt: Option<io::Error>,
}

/// The transmit half: a burst that leaves with a flush, or when it is full.
pub struct PacketTx {
    fd: Arc<OwnedFd>,
    memory: Box<[u8]>,
    stride: usize,
    lengths: [usize; BURST],
    /// Frames `sent..queued` wait.
    queued: usize,
    sent: usize,
    len: usize,
    counters: Arc<LinkCounters>,
}

impl AfPacket {
    /// Opens a packet socket on `interface`. `mac` is our station address; by default the
    /// interface's own. With another one the interface becomes promiscuous.
    ///
    /// # Errors
    /// No right to, no such interface, or not an Ethernet.
    pub fn open(
        interface: &str,
        mac: Option<[u8; 6]>,
        counters: Arc<LinkCounters>,
    ) -> Result<AfPacket, LinkError> {
        let fail = |what, help| move |error| LinkError::new(interface, what, help, error);
        let kernel =
            sys::interface(interface).map_err(fail("it can't be found", "`ip link` lists all"))?;
        if !kernel.ethernet {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            let help = "give an interface with station addresses (not `lo`, not a tunnel)";
            return Err(LinkError::new(interface, "it isn't an Ethernet", help, error));
        }
        let refused = "a packet socket is refused";
        let help = "run as root, or with CAP_NET_RAW (setcap cap_net_raw,cap_net_admin=ep)";
        let fd = sys::packet_socket(kernel.index).map_err(fail(refused, help))?;
        let groups = "it can't be made to hear groups";
        sys::hear_all_groups(&fd, kernel.index).map_err(fail(groups, help))?;
        if mac.is_some_and(|mac| mac != kernel.mac) {
            let what = "it can't be made promiscuous for another station address";
            sys::be_promiscuous(&fd, kernel.index).map_err(fail(what, help))?;
        }
        let fd = Arc::new(fd);
        let stride = usize::from(kernel.mtu) + HEADER_BYTES;
        Ok(AfPacket {
            info: LinkInfo {
                mac: mac.unwrap_or(kernel.mac),
                mtu: kernel.mtu,
                offloads: Offloads::default(),
            },
            interface: interface.into(),
            index: kernel.index,
            rx: PacketRx {
                fd: Arc::clone(&fd),
                memory: vec![0; (TAG_BYTES + RX_BYTES) * BURST].into(),
                received: [sys::Received::default(); BURST],
                frames: [(0, 0, RxChecksum::Unknown); BURST],
                counters: Arc::clone(&counters),
                doubt: None,
            },
            tx: PacketTx {
                fd: Arc::clone(&fd),
                memory: vec![0; stride * BURST].into(),
                stride,
                lengths: [0; BURST],
                queued: 0,
                sent: 0,
                len: 0,
                counters,
            },
            fd,
        })
    }
}

impl Link for AfPacket {
    type Rx = PacketRx;
    type Tx = PacketTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut PacketRx, &mut PacketTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl Port for AfPacket {
    fn name(&self) -> &'static str {
        "af-packet"
    }

    fn attention(&self) -> Attention<'_> {
        Attention::Descriptor(self.fd.as_fd())
    }

    fn has_unsent(&self) -> bool {
        self.tx.queued > self.tx.sent
    }

    fn is_in_doubt(&self) -> bool {
        self.rx.doubt.is_some()
    }

    fn take_fault(&mut self) -> Option<io::Error> {
        self.rx.doubt.as_ref()?;
        // An interface that is only down comes up again. One that is being deleted goes down first,
        // and then vanishes without another word.
        match sys::interface(&self.interface) {
            Ok(now) if now.index == self.index => None,
            _ => self.rx.doubt.take(),
        }
    }
}

impl LinkRx for PacketRx {
    fn receive(&mut self, max: usize) -> usize {
        let stride = TAG_BYTES + RX_BYTES;
        let received = &mut self.received[..max.min(BURST)];
        let count = match sys::receive(&self.fd, &mut self.memory, stride, TAG_BYTES, received) {
            Ok(count) => {
                self.doubt = None;
                count
            }
            Err(error) => {
                let kind = error.kind();
                if kind != io::ErrorKind::WouldBlock && kind != io::ErrorKind::Interrupted {
                    self.doubt = Some(error);
                }
                return 0;
            }
        };
        let mut kept = 0;
        for (index, received) in self.received[..count].iter().enumerate() {
            if received.len > RX_BYTES {
                self.counters.rx_oversized_total.inc();
                continue;
            }
            let mut start = index * stride + TAG_BYTES;
            let mut len = received.len;
            if let Some((tpid, tci)) = received.tag
                && len >= STATIONS_BYTES
            {
                let place = &mut self.memory[start - TAG_BYTES..][..STATIONS_BYTES + TAG_BYTES];
                place.copy_within(TAG_BYTES.., 0);
                place[STATIONS_BYTES..][..2].copy_from_slice(&tpid.to_be_bytes());
                place[STATIONS_BYTES + 2..].copy_from_slice(&tci.to_be_bytes());
                start -= TAG_BYTES;
                len += TAG_BYTES;
            }
            let checksum = match received.checksum_good {
                true => RxChecksum::Good,
                false => RxChecksum::Unknown,
            };
            self.frames[kept] = (start, len, checksum);
            kept += 1;
        }
        kept
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        let (start, len, checksum) = self.frames[index];
        RxFrame { bytes: &self.memory[start..][..len], checksum }
    }
}

impl LinkTx for PacketTx {
    fn room(&self) -> usize {
        BURST - self.queued
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.queued == BURST || len > self.stride {
            return None;
        }
        self.len = len;
        self.memory.get_mut(self.queued * self.stride..)?.get_mut(..len)
    }

    fn commit(&mut self, _: TxMeta) {
        self.lengths[self.queued] = self.len;
        self.queued += 1;
        if self.queued == BURST {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // Each round sends a frame or drops one, or is the last.
        while self.sent < self.queued {
            let lengths = &self.lengths[..self.queued];
            match sys::send(&self.fd, &mut self.memory, self.stride, lengths, self.sent) {
                Ok(count) => self.sent += count.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.tx_full_total.inc();
                    return;
                }
                Err(_) => {
                    // An interface that is down, or a queue that dropped it: lost as on a wire.
                    self.counters.tx_refused_total.inc();
                    self.sent += 1;
                }
            }
        }
        self.queued = 0;
        self.sent = 0;
    }
}
