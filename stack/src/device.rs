//! What smoltcp's `Interface` sees as its device: one received packet at most, and the way out.

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::time::Instant;

use crate::frame::BARE_MAX;
use crate::link::LinkTx;
use crate::net::Out;

/// A packet that is borrowed from the link or from us.
pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The real thing: packets leave by the link.
pub(crate) struct Wire<'a, 'o, T: LinkTx> {
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) out: &'a mut Out<'o, T>,
    pub(crate) capabilities: &'a DeviceCapabilities,
}

/// Sends one packet.
pub(crate) struct Send<'a, 'o, T: LinkTx>(&'a mut Out<'o, T>);

impl<T: LinkTx> TxToken for Send<'_, '_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.0.packet(len, f)
    }
}

impl<'o, T: LinkTx> Device for Wire<'_, 'o, T> {
    type RxToken<'r>
        = Received<'r>
    where
        Self: 'r;
    type TxToken<'t>
        = Send<'t, 'o, T>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Send<'_, 'o, T>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Send(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Send<'_, 'o, T>> {
        (self.out.tx.room() > 0).then_some(Send(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// What smoltcp may rely on. Received checksums are ours to verify.
pub(crate) fn capabilities(mtu: usize, tx_ip: bool, tx_tcp: bool) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    let mut checksum = ChecksumCapabilities::ignored();
    checksum.ipv4 = if tx_ip { Checksum::None } else { Checksum::Tx };
    checksum.tcp = if tx_tcp { Checksum::None } else { Checksum::Tx };
    capabilities.checksum = checksum;
    capabilities
}

/// A device from which nothing leaves: for the segments by which a socket is brought to where a
/// connection stands. Keeps the last one for the self-test.
pub(crate) struct Capture {
    packet: Option<([u8; BARE_MAX], usize)>,
    sent: [u8; BARE_MAX],
    sent_len: usize,
    capabilities: DeviceCapabilities,
}

impl Capture {
    /// Checksums are nobody's: what goes in is ours, what comes out is thrown away.
    pub(crate) fn new(mtu: usize) -> Capture {
        Capture::with(capabilities(mtu, true, true))
    }

    /// With the capabilities of a real device, for making an interface that will use one.
    pub(crate) fn with(capabilities: DeviceCapabilities) -> Capture {
        Capture { packet: None, sent: [0; BARE_MAX], sent_len: 0, capabilities }
    }

    /// The next packet to be received: `len` bytes that `fill` writes.
    pub(crate) fn give(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let mut packet = [0; BARE_MAX];
        fill(&mut packet[..len]);
        self.packet = Some((packet, len));
    }

    pub(crate) fn sent(&self) -> &[u8] {
        &self.sent[..self.sent_len]
    }
}

/// A device that gives one packet and throws away what is sent: for telling a socket what happened
/// while the fast path had its connection.
pub(crate) struct Replay<'a> {
    pub(crate) packet: Option<&'a [u8]>,
    /// Room for a packet that is thrown away.
    pub(crate) nowhere: &'a mut Vec<u8>,
    pub(crate) capabilities: &'a DeviceCapabilities,
    pub(crate) sent: usize,
}

/// Throws a packet away.
pub(crate) struct Forget<'a>(&'a mut Vec<u8>, &'a mut usize);

impl TxToken for Forget<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        *self.1 += 1;
        self.0.resize(len.max(self.0.len()), 0);
        f(&mut self.0[..len])
    }
}

impl Device for Replay<'_> {
    type RxToken<'r>
        = Received<'r>
    where
        Self: 'r;
    type TxToken<'t>
        = Forget<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Forget<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Forget(self.nowhere, &mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Forget<'_>> {
        Some(Forget(self.nowhere, &mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// A packet of our own making.
pub(crate) struct Made([u8; BARE_MAX], usize);

impl RxToken for Made {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[..self.1])
    }
}

/// Remembers one packet.
pub(crate) struct Remember<'a>(&'a mut [u8; BARE_MAX], &'a mut usize);

impl TxToken for Remember<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        *self.1 = len.min(BARE_MAX);
        if len <= BARE_MAX {
            return f(&mut self.0[..len]);
        }
        // No segment without data is longer; smoltcp is handed none with data here.
        f(&mut vec![0; len])
    }
}

impl Device for Capture {
    type RxToken<'r> = Made;
    type TxToken<'t> = Remember<'t>;

    fn receive(&mut self, _: Instant) -> Option<(Made, Remember<'_>)> {
        let (packet, len) = self.packet.take()?;
        Some((Made(packet, len), Remember(&mut self.sent, &mut self.sent_len)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Remember<'_>> {
        Some(Remember(&mut self.sent, &mut self.sent_len))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}
