//! smoltcp without this crate: as its manual has it, all sockets in one set, and the floor, a set
//! for each socket, where the connection of a packet is known beforehand.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Time;
use smoltcp::wire::HardwareAddress;

use super::{BURST_MAX, Clients, Subject};

/// Bytes of an Ethernet header, which smoltcp doesn't see here.
const L2: usize = 14;

struct Pipe {
    rx: Vec<Vec<u8>>,
    next: usize,
    tx: Vec<[u8; 2048]>,
    sent: usize,
}

struct Rx<'a>(&'a [u8]);
struct Tx<'a>(&'a mut [u8; 2048], &'a mut usize);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        *self.1 += 1;
        f(&mut self.0[..len])
    }
}

impl Device for Pipe {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Time) -> Option<(Rx<'_>, Tx<'_>)> {
        let packet = self.rx.get(self.next)?;
        self.next += 1;
        Some((Rx(&packet[L2..]), Tx(self.tx.get_mut(self.sent)?, &mut self.sent)))
    }

    fn transmit(&mut self, _: Time) -> Option<Tx<'_>> {
        Some(Tx(self.tx.get_mut(self.sent)?, &mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// How sockets are kept.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Sets {
    /// All in one set: smoltcp finds the socket of a packet by looking at each.
    One,
    /// A set each.
    Each,
}

/// Connections of a server that is smoltcp and nothing else.
pub struct Bare {
    device: Pipe,
    interface: Interface,
    sets: Vec<SocketSet<'static>>,
    handles: Vec<SocketHandle>,
    clients: Clients,
    micros: i64,
}

impl Bare {
    /// `count` established connections.
    pub fn new(count: u32, how: Sets) -> Bare {
        let tx = vec![[0; 2048]; BURST_MAX];
        let mut device = Pipe { rx: Vec::new(), next: 0, tx, sent: 0 };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut device, Time::ZERO);
        interface.set_any_ip(true);
        let mut bare = Bare {
            device,
            interface,
            sets: Vec::new(),
            handles: Vec::new(),
            clients: Clients::new(count),
            micros: 0,
        };
        for n in 0..count {
            let ring = || tcp::SocketBuffer::new(vec![0; 2048]);
            let mut socket = tcp::Socket::new(ring(), ring());
            socket.set_nagle_enabled(false);
            socket.listen(80).unwrap();
            if how == Sets::Each || n == 0 {
                bare.sets.push(SocketSet::new(Vec::new()));
            }
            bare.handles.push(bare.sets.last_mut().unwrap().add(socket));
            bare.clients.frames(&mut bare.device.rx, &[n], super::Kind::Syn);
            bare.begin();
            bare.ingress(n);
            bare.egress(n);
            bare.clients.learn(&bare.device.tx[0][..], 0);
            bare.clients.frames(&mut bare.device.rx, &[n], super::Kind::Ack);
            bare.begin();
            bare.ingress(n);
        }
        bare
    }

    fn begin(&mut self) {
        self.micros += 20;
        self.device.next = 0;
        self.device.sent = 0;
    }

    fn set(&self, n: u32) -> usize {
        if self.sets.len() == 1 { 0 } else { n as usize }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.micros)
    }

    fn ingress(&mut self, n: u32) {
        let (set, now) = (self.set(n), self.now());
        self.interface.poll_ingress_single(now, &mut self.device, &mut self.sets[set]);
    }

    fn egress(&mut self, n: u32) {
        let (set, now) = (self.set(n), self.now());
        let set = &mut self.sets[set];
        self.interface.poll_egress(now, &mut self.device, set);
        self.interface.poll_at(now, set);
    }

    fn echo(&mut self, n: u32) {
        let set = self.set(n);
        let socket = self.sets[set].get_mut::<tcp::Socket<'_>>(self.handles[n as usize]);
        let mut message = [0; super::MESSAGE];
        let got = socket.recv_slice(&mut message).unwrap();
        assert_eq!(socket.send_slice(&message[..got]), Ok(super::MESSAGE));
    }

    /// One turn of an echo server. What callgrind counts, and the clock.
    #[inline(never)]
    fn measured(&mut self, burst: &[u32]) {
        for &n in burst {
            self.ingress(n);
        }
        for &n in burst {
            self.echo(n);
        }
        match self.sets.len() {
            1 => self.egress(0),
            _ => burst.iter().for_each(|&n| self.egress(n)),
        }
    }
}

impl Subject for Bare {
    fn round(&mut self, burst: &[u32]) -> Duration {
        self.clients.frames(&mut self.device.rx, burst, super::Kind::Message);
        self.begin();
        let start = Instant::now();
        self.measured(burst);
        let took = start.elapsed();
        assert_eq!(self.device.sent, burst.len());
        took
    }
}
