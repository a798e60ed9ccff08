//! A TAP device: the kernel is the station at the other end of the wire. One system call a frame,
//! so it shows that the stack works, not how fast it is.
//!
//! The kernel fills in all checksums and cuts no segment larger than the MTU for a TAP that asks
//! for no offloads, and this one asks for none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use hioload_stack::{BURST, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, TxMeta};

use super::{Attention, HEADER_BYTES, LinkCounters, LinkError, Port, sys};

/// The station at our end of a TAP device.
pub struct Tap {
    info: LinkInfo,
    fd: Arc<OwnedFd>,
    rx: TapRx,
    tx: TapTx,
}

/// The receive half.
pub struct TapRx {
    fd: Arc<OwnedFd>,
    /// [`BURST`] frames of at most `stride - 1` bytes.
    memory: Box<[u8]>,
    stride: usize,
    lengths: [usize; BURST],
    counters: Arc<LinkCounters>,
    fault: Option<io::Error>,
}

/// The transmit half: a committed frame leaves at once.
pub struct TapTx {
    fd: Arc<OwnedFd>,
    frame: Box<[u8]>,
    len: usize,
    counters: Arc<LinkCounters>,
}

impl Tap {
    /// Attaches to TAP device `interface`, and makes it where there is none: then it vanishes with
    /// the link. The kernel's end has to be brought up and given an address by the operator. `mac`
    /// is our station address; by default one that follows from the kernel's.
    ///
    /// # Errors
    /// No right to, no such device, or not a TAP device.
    pub fn open(
        interface: &str,
        mac: Option<[u8; 6]>,
        counters: Arc<LinkCounters>,
    ) -> Result<Tap, LinkError> {
        let fail = |what, help| move |error| LinkError::new(interface, what, help, error);
        let fd =
            std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(
                fail("/dev/net/tun can't be opened", "load the module `tun`, run as root"),
            )?;
        let fd = OwnedFd::from(fd);
        rustix::io::ioctl_fionbio(&fd, true).map_err(|error| {
            LinkError::new(interface, "it can't be made non-blocking", "report this", error)
        })?;
        sys::attach_tap(fd.as_fd(), interface).map_err(fail(
            "it can't be attached to",
            "a TAP device that no other program uses is needed, and CAP_NET_ADMIN or to be its owner \
             (ip tuntap add dev NAME mode tap user USER)",
        ))?;
        let kernel = sys::interface(interface)
            .map_err(fail("it can't be asked for its address", "check `ip link`"))?;
        let fd = Arc::new(fd);
        let stride = usize::from(kernel.mtu) + HEADER_BYTES + 1;
        Ok(Tap {
            info: LinkInfo {
                mac: mac.unwrap_or_else(|| opposite(kernel.mac)),
                mtu: kernel.mtu,
                offloads: Offloads::default(),
            },
            rx: TapRx {
                fd: Arc::clone(&fd),
                memory: vec![0; stride * BURST].into(),
                stride,
                lengths: [0; BURST],
                counters: Arc::clone(&counters),
                fault: None,
            },
            tx: TapTx { fd: Arc::clone(&fd), frame: vec![0; stride].into(), len: 0, counters },
            fd,
        })
    }
}

/// The address of the other end of a wire at whose end `mac` is: locally administered, stable as
/// long as the device is, and another one.
fn opposite(mac: [u8; 6]) -> [u8; 6] {
    let [first, b, c, d, e, last] = mac;
    [(first | 0x02) & 0xfe, b, c, d, e, last ^ 0x80]
}

impl Link for Tap {
    type Rx = TapRx;
    type Tx = TapTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut TapRx, &mut TapTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl Port for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn attention(&self) -> Attention<'_> {
        Attention::Descriptor(self.fd.as_fd())
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn is_in_doubt(&self) -> bool {
        false
    }

    fn take_fault(&mut self) -> Option<io::Error> {
        self.rx.fault.take()
    }
}

impl LinkRx for TapRx {
    fn receive(&mut self, max: usize) -> usize {
        let mut count = 0;
        let most = max.min(BURST);
        // As many reads as frames are wanted, whatever comes: it is a bound.
        for _ in 0..most {
            let place = &mut self.memory[count * self.stride..][..self.stride];
            match rustix::io::read(&self.fd, place) {
                Ok(len) if len < self.stride => {
                    self.lengths[count] = len;
                    count += 1;
                }
                Ok(_) => self.counters.rx_oversized_total.inc(),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(error) => {
                    // EBADFD: the device was deleted. Any other is no more hopeful.
                    self.fault = Some(error.into());
                    break;
                }
            }
        }
        count
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        let bytes = &self.memory[index * self.stride..][..self.lengths[index]];
        RxFrame { bytes, checksum: RxChecksum::Unknown }
    }
}

impl LinkTx for TapTx {
    fn room(&self) -> usize {
        BURST
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.len = len;
        self.frame.get_mut(..len)
    }

    fn commit(&mut self, _: TxMeta) {
        // A device that is down, or whose kernel has no memory, loses frames as wires do.
        if rustix::io::write(&self.fd, &self.frame[..self.len]).is_err() {
            self.counters.tx_refused_total.inc();
        }
    }

    fn flush(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_end_has_a_local_unicast_address_other_than_the_kernels() {
        for mac in [[0, 1, 2, 3, 4, 5], [0xfe, 1, 2, 3, 4, 0x80], [2, 0, 0, 0, 0, 0xff]] {
            let ours = opposite(mac);
            assert_ne!(ours, mac);
            assert_eq!(ours[0] & 3, 2, "{ours:x?}");
        }
    }

    #[test]
    fn a_name_that_no_interface_can_have_is_an_error() {
        for name in ["", "sixteen-bytes-xx", "a\0b"] {
            assert!(sys::interface(name).is_err(), "{name:?}");
        }
    }
}
