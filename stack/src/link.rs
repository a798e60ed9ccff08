//! The seam to whatever carries frames: a NIC queue, a TAP device, a simulated wire.
//!
//! A link is split into its receive and its transmit half, so that a frame can be answered while
//! the burst that it came in is still borrowed. Frames are whole Ethernet frames without FCS. The
//! link knows nothing of what is in them; the stack knows nothing of how they travel.

use std::net::SocketAddr;

/// What the hardware found about a received frame's checksums.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum RxChecksum {
    /// Nobody looked: the stack verifies in software.
    #[default]
    Unknown,
    /// IP header and TCP checksums are right: the stack doesn't look.
    Good,
    /// The TCP checksum is right, or was never made, as the frame hasn't left this host. Nobody looked
    /// at the IPv4 header's: the stack verifies that.
    TcpGood,
}

/// A received frame, borrowed until the next [`LinkRx::receive`].
#[derive(Copy, Clone, Debug)]
pub struct RxFrame<'a> {
    /// The frame, from its destination address on.
    pub bytes: &'a [u8],
    /// What is known about its checksums.
    pub checksum: RxChecksum,
}

/// Where the parts of a frame to be sent begin, for a device that fills in checksums.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct TxMeta {
    /// Length of the Ethernet (and VLAN) header in bytes.
    pub l2_len: u8,
    /// Length of the IP header in bytes; 0 where the frame isn't IP.
    pub l3_len: u8,
    /// The device must compute the IPv4 header checksum.
    pub ip_checksum: bool,
    /// The device must compute the TCP checksum; the pseudo-header's sum is in place.
    pub tcp_checksum: bool,
}

/// What a link can do in hardware.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// The IPv4 header checksum of sent frames.
    pub tx_ip_checksum: bool,
    /// The TCP checksum of sent frames, from a pseudo-header sum.
    pub tx_tcp_checksum: bool,
}

/// What a link is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// The station address.
    pub mac: [u8; 6],
    /// Bytes of an IP packet that fit in a frame (1,500 on Ethernet), VLAN tag not counted.
    pub mtu: u16,
    /// What the stack may leave to the link.
    pub offloads: Offloads,
}

/// The receive half of a link.
pub trait LinkRx {
    /// Takes the next burst of at most `max` frames and gives back the memory of the one before.
    /// Never blocks.
    fn receive(&mut self, max: usize) -> usize;

    /// A frame of the current burst.
    ///
    /// # Panics
    /// May panic where `index` is not below what [`LinkRx::receive`] returned.
    fn frame(&self, index: usize) -> RxFrame<'_>;
}

/// The transmit half of a link. A frame is written into [`LinkTx::next`] and sent by
/// [`LinkTx::commit`]; one that isn't committed was never there.
pub trait LinkTx {
    /// How many more frames there is room for now.
    fn room(&self) -> usize;

    /// Memory for the next frame, `len` bytes of unspecified content. `None` where there is no
    /// room; asking again gives the same memory.
    fn next(&mut self, len: usize) -> Option<&mut [u8]>;

    /// Queues the frame that was last asked for with [`LinkTx::next`].
    fn commit(&mut self, meta: TxMeta);

    /// Hands all committed frames to the device.
    fn flush(&mut self);
}

/// A carrier of frames, owned by one stack.
pub trait Link {
    /// The receive half.
    type Rx: LinkRx;
    /// The transmit half.
    type Tx: LinkTx;

    /// What it is. Doesn't change.
    fn info(&self) -> LinkInfo;

    /// Whether segments from `remote` to `local` will be received on this link: one queue of several
    /// may get only some flows. A connection that is opened takes a port for which this is so.
    fn receives(&self, _local: SocketAddr, _remote: SocketAddr) -> bool {
        true
    }

    /// Both halves.
    fn split(&mut self) -> (&mut Self::Rx, &mut Self::Tx);
}
