//! The one place that knows how smoltcp draws its initial sequence numbers, and the test at
//! start-up that it still does.
//!
//! smoltcp takes a socket's ISN from the generator of the `Interface` in whose context the socket
//! is opened: a 64-bit congruential generator with a permuted 32-bit output, seeded by
//! `Config::random_seed`. Making an `Interface` draws once (a 16-bit IPv4 ident, again while it
//! is 0), so the first ISN is the second draw. The step is invertible: for each ISN there are 2^29
//! states with one particular shift that give it, and going back two steps gives a seed.

use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, TcpPacket};

use crate::device::Capture;

const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;
/// The multiplier's inverse modulo 2^64, by Newton's iteration.
const INVERSE: u64 = {
    let mut x = MULTIPLIER;
    let mut i = 0;
    while i < 6 {
        x = x.wrapping_mul(2u64.wrapping_sub(MULTIPLIER.wrapping_mul(x)));
        i += 1;
    }
    x
};
const _: () = assert!(MULTIPLIER.wrapping_mul(INVERSE) == 1);

/// Low bits of the state that don't reach the output when the shift is 29.
const FREE_BITS: u32 = 29;

fn back(state: u64) -> u64 {
    state.wrapping_sub(INCREMENT).wrapping_mul(INVERSE)
}

fn output(state: u64) -> u32 {
    (state >> (29 - (state >> 61))) as u32
}

/// A seed with which the first socket that an interface opens gets this ISN.
pub(crate) fn seed_for(isn: u32) -> u64 {
    // Top three bits 0: the shift is 29 and the output is bits 29 to 60.
    let base = u64::from(isn) << FREE_BITS;
    // Any free bits do, unless the first draw's 16-bit form is 0, which makes smoltcp draw again:
    // one try in 65,536.
    let mut seed = 0;
    for free in 0..4 {
        let first = back(base | free);
        let ident = output(first);
        seed = back(first);
        if (ident ^ (ident >> 16)) as u16 != 0 {
            break;
        }
    }
    seed
}

/// An interface whose next socket gets this ISN. `device` tells the capabilities.
pub(crate) fn seeded(isn: u32, device: &mut Capture) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed_for(isn);
    let mut interface = Interface::new(config, device, Instant::ZERO);
    interface.set_any_ip(true);
    interface
}

/// The ISN that a connecting socket really sends in such an interface.
fn observed(isn: u32) -> Option<u32> {
    let mut device = Capture::new(1500);
    let mut interface = seeded(isn, &mut device);
    let (mut rx, mut tx) = ([0u8; 64], [0u8; 64]);
    let mut storage = [SocketStorage::EMPTY];
    let mut set = SocketSet::new(&mut storage[..]);
    let handle = set.add(tcp::Socket::new(
        tcp::SocketBuffer::new(&mut rx[..]),
        tcp::SocketBuffer::new(&mut tx[..]),
    ));
    let socket = set.get_mut::<tcp::Socket>(handle);
    let to = (IpAddress::v4(192, 0, 2, 2), 80u16);
    let from = (IpAddress::v4(192, 0, 2, 1), 1024u16);
    socket.connect(interface.context(), to, from).ok()?;
    interface.poll_egress(Instant::ZERO, &mut device, &mut set);
    let packet = TcpPacket::new_checked(device.sent().get(20..)?).ok()?;
    Some(packet.seq_number().0 as u32)
}

/// Whether smoltcp's ISNs are what [`seed_for`] says: without that nothing may be frozen, and no
/// SYN cookie be sent.
pub(crate) fn self_test() -> bool {
    [0, 1, 0x8000_0000, 0xdead_beef, u32::MAX].into_iter().all(|isn| observed(isn) == Some(isn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoltcp_gives_the_isn_that_was_asked_for() {
        assert!(self_test());
        let mut isn = 12345u32;
        for _ in 0..2000 {
            isn = isn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert_eq!(observed(isn), Some(isn));
        }
    }
}
