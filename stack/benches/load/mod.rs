//! A link that is memory, and clients that are a few numbers each: so that what is measured is the
//! server's side of an echo and nothing else.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hioload_core::Now;
use hioload_stack::{
    Address, BURST, Event, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, Stack,
    StackConfig, TxMeta,
};

/// Bytes of a message.
pub const MESSAGE: usize = 64;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Ports that each client address uses.
const PORTS: u32 = 32_768;

/// Both directions are arrays.
pub struct Memory {
    rx: MemoryRx,
    tx: MemoryTx,
}

pub struct MemoryRx {
    frames: Vec<Vec<u8>>,
    taken: usize,
}

pub struct MemoryTx {
    frames: Vec<[u8; 2048]>,
    lens: Vec<usize>,
    next: usize,
}

impl Link for Memory {
    type Rx = MemoryRx;
    type Tx = MemoryTx;

    fn info(&self) -> LinkInfo {
        // As a NIC: checksums are its own.
        let offloads = Offloads { tx_ip_checksum: true, tx_tcp_checksum: true };
        LinkInfo { mac: MAC, mtu: 1500, offloads }
    }

    fn split(&mut self) -> (&mut MemoryRx, &mut MemoryTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for MemoryRx {
    fn receive(&mut self, max: usize) -> usize {
        assert!(self.frames.len() <= max);
        if std::mem::replace(&mut self.taken, 1) == 1 { 0 } else { self.frames.len() }
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.frames[index], checksum: RxChecksum::Good }
    }
}

impl LinkTx for MemoryTx {
    fn room(&self) -> usize {
        self.frames.len() - self.lens.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next = len;
        self.frames.get_mut(self.lens.len()).map(|frame| &mut frame[..len])
    }

    fn commit(&mut self, _: TxMeta) {
        self.lens.push(self.next);
    }

    fn flush(&mut self) {}
}

/// A client's side of a connection.
#[derive(Clone, Copy)]
struct Client {
    seq: u32,
    ack: u32,
}

/// A server with clients.
pub struct Load {
    pub stack: Stack<Memory>,
    clients: Vec<Client>,
    now: Now,
    payload: [u8; MESSAGE],
}

fn address(n: u32) -> (Ipv4Addr, u16) {
    let ip = Ipv4Addr::from(0x0b00_0000 + n / PORTS);
    (ip, (1024 + n % PORTS) as u16)
}

fn write(frame: &mut Vec<u8>, n: u32, seq: u32, ack: u32, flags: u8, data: &[u8]) {
    let (ip, port) = address(n);
    frame.clear();
    frame.extend(MAC);
    frame.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    let total = 40 + data.len() as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(ip.octets());
    frame.extend(SERVER.octets());
    frame.extend(port.to_be_bytes());
    frame.extend(80u16.to_be_bytes());
    frame.extend(seq.to_be_bytes());
    frame.extend(ack.to_be_bytes());
    frame.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    frame.extend(data);
}

impl Load {
    /// `count` established connections.
    pub fn new(count: u32, freeze_after: Option<Duration>) -> Load {
        let link = Memory {
            rx: MemoryRx { frames: Vec::new(), taken: 0 },
            tx: MemoryTx { frames: vec![[0; 2048]; 1024], lens: Vec::new(), next: 0 },
        };
        let config = StackConfig {
            addresses: vec![Address { ip: IpAddr::V4(SERVER), prefix: 24 }],
            gateway_v4: Some(ROUTER),
            connections_max: count + 16,
            half_open_max: u32::MAX,
            freeze_after,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(link, &config, Now::ZERO).unwrap();
        stack.listen(80).unwrap();
        let clients = vec![Client { seq: 1, ack: 0 }; count as usize];
        let mut load = Load { stack, clients, now: Now::ZERO, payload: [b'x'; MESSAGE] };
        // The router's station address.
        let mut arp = vec![255; 6];
        arp.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2]);
        arp.extend(ROUTER.octets());
        arp.extend([0; 6]);
        arp.extend(SERVER.octets());
        load.frames(|frames| frames.push(arp));
        load.turn();
        let all: Vec<u32> = (0..count).collect();
        for burst in all.chunks(BURST) {
            load.burst(burst, |client, n, frame| write(frame, n, 0, client.ack, 2, &[]));
            load.turn();
            load.learn();
            load.burst(burst, |client, n, frame| write(frame, n, 1, client.ack, 16, &[]));
            load.turn();
        }
        load
    }

    fn frames(&mut self, fill: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let (rx, tx) = self.stack.link_mut().split();
        rx.taken = 0;
        rx.frames.clear();
        fill(&mut rx.frames);
        tx.lens.clear();
    }

    fn burst(&mut self, burst: &[u32], mut f: impl FnMut(&mut Client, u32, &mut Vec<u8>)) {
        let (rx, tx) = self.stack.link_mut().split();
        rx.taken = 0;
        rx.frames.resize(burst.len(), Vec::new());
        tx.lens.clear();
        for (frame, &n) in rx.frames.iter_mut().zip(burst) {
            f(&mut self.clients[n as usize], n, frame);
        }
    }

    /// One turn of an echo server.
    fn turn(&mut self) -> usize {
        self.stack.poll(self.now);
        let mut answered = 0;
        while let Some(event) = self.stack.next_event() {
            if let Event::Readable(id) = event {
                let (mut rx, mut tx) = self.stack.turn();
                if let Some(window) = rx.take(id) {
                    assert!(tx.send(id, window));
                    answered += 1;
                }
            }
        }
        self.stack.flush(self.now);
        answered
    }

    /// Takes the SYN-ACKs' sequence numbers.
    fn learn(&mut self) {
        let (_, tx) = self.stack.link_mut().split();
        for (frame, _) in tx.frames.iter().zip(&tx.lens) {
            let ip = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
            let port = u16::from_be_bytes([frame[36], frame[37]]);
            let n = (u32::from(ip) - 0x0b00_0000) * PORTS + u32::from(port) - 1024;
            let seq = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            self.clients[n as usize].ack = seq.wrapping_add(1);
        }
    }

    /// Each of these clients sends a message, up to a burst of them, and takes the answer. Returns
    /// the time of the server's turn.
    pub fn round(&mut self, burst: &[u32]) -> Duration {
        self.now = self.now.after(Duration::from_micros(20));
        let payload = self.payload;
        self.burst(burst, |client, n, frame| {
            write(frame, n, client.seq, client.ack, 24, &payload);
            client.seq = client.seq.wrapping_add(MESSAGE as u32);
            client.ack = client.ack.wrapping_add(MESSAGE as u32);
        });
        let start = Instant::now();
        let answered = self.turn();
        let took = start.elapsed();
        assert_eq!(answered, burst.len());
        took
    }

    /// Lets all connections freeze.
    pub fn freeze(&mut self, after: Duration) {
        let count = self.clients.len() as u32;
        let all: Vec<u32> = (0..count).collect();
        for burst in all.chunks(BURST) {
            // The last answers are acknowledged: nothing is in flight.
            self.burst(burst, |client, n, frame| write(frame, n, client.seq, client.ack, 16, &[]));
            self.turn();
        }
        self.now = self.now.after(after * 2);
        for _ in 0..count / 512 + 64 {
            self.frames(|_| {});
            self.turn();
            self.now = self.now.after(Duration::from_millis(1));
        }
    }
}

/// A permutation by multiplication: far apart, each once.
pub fn scatter(step: u32, count: u32) -> u32 {
    ((u64::from(step) * 2_654_435_761) % u64::from(count)) as u32
}

/// smoltcp as its manual has it: all sockets in one set.
pub mod naive {
    use super::MESSAGE;
    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
    use smoltcp::socket::tcp;
    use smoltcp::time::Instant as Time;
    use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
    use std::time::{Duration, Instant};

    struct Pipe {
        rx: Vec<Vec<u8>>,
        tx: Vec<Vec<u8>>,
    }

    struct Rx(Vec<u8>);
    struct Tx<'a>(&'a mut Vec<Vec<u8>>);

    impl RxToken for Rx {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
            f(&self.0)
        }
    }

    impl TxToken for Tx<'_> {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
            let mut packet = vec![0; len];
            let result = f(&mut packet);
            self.0.push(packet);
            result
        }
    }

    impl Device for Pipe {
        type RxToken<'a> = Rx;
        type TxToken<'a> = Tx<'a>;

        fn receive(&mut self, _: Time) -> Option<(Rx, Tx<'_>)> {
            let packet = self.rx.pop()?;
            Some((Rx(packet), Tx(&mut self.tx)))
        }

        fn transmit(&mut self, _: Time) -> Option<Tx<'_>> {
            Some(Tx(&mut self.tx))
        }

        fn capabilities(&self) -> DeviceCapabilities {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.medium = Medium::Ip;
            capabilities.max_transmission_unit = 1500;
            capabilities.checksum = smoltcp::phy::ChecksumCapabilities::ignored();
            capabilities
        }
    }

    /// `count` connections to one server.
    pub struct Naive {
        device: Pipe,
        interface: Interface,
        sockets: SocketSet<'static>,
        handles: Vec<SocketHandle>,
        clients: Vec<(u32, u32)>,
        micros: i64,
    }

    impl Naive {
        pub fn new(count: u32) -> Naive {
            let mut device = Pipe { rx: Vec::new(), tx: Vec::new() };
            let config = Config::new(HardwareAddress::Ip);
            let mut interface = Interface::new(config, &mut device, Time::ZERO);
            interface.set_any_ip(true);
            interface.update_ip_addrs(|ips| {
                let _full = ips.push(IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24));
            });
            let mut sockets = SocketSet::new(Vec::new());
            let handles = (0..count)
                .map(|_| {
                    let ring = || tcp::SocketBuffer::new(vec![0; 2048]);
                    let mut socket = tcp::Socket::new(ring(), ring());
                    socket.set_nagle_enabled(false);
                    sockets.add(socket)
                })
                .collect();
            let clients = vec![(1, 0); count as usize];
            let mut naive = Naive { device, interface, sockets, handles, clients, micros: 0 };
            for n in 0..count {
                let handle = naive.handles[n as usize];
                naive.sockets.get_mut::<tcp::Socket<'_>>(handle).listen(80).unwrap();
                naive.give(n, 0, 2, &[]);
                naive.poll();
                let syn_ack = naive.device.tx.pop().unwrap();
                let seq = u32::from_be_bytes(syn_ack[24..28].try_into().unwrap());
                naive.clients[n as usize].1 = seq.wrapping_add(1);
                naive.give(n, 1, 16, &[]);
                naive.poll();
            }
            naive
        }

        fn give(&mut self, n: u32, seq: u32, flags: u8, data: &[u8]) {
            let mut frame = Vec::new();
            super::write(&mut frame, n, seq, self.clients[n as usize].1, flags, data);
            self.device.rx.push(frame.split_off(14));
        }

        fn poll(&mut self) {
            self.micros += 20;
            let now = Time::from_micros(self.micros);
            self.interface.poll(now, &mut self.device, &mut self.sockets);
        }

        /// One message of one client, and its answer.
        pub fn round(&mut self, n: u32) -> Duration {
            let (seq, _) = self.clients[n as usize];
            self.give(n, seq, 24, &[b'x'; MESSAGE]);
            self.device.tx.clear();
            let start = Instant::now();
            self.poll();
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handles[n as usize]);
            let mut message = [0; MESSAGE];
            let got = socket.recv_slice(&mut message).unwrap();
            socket.send_slice(&message[..got]).unwrap();
            self.poll();
            let took = start.elapsed();
            assert_eq!(got, MESSAGE);
            let client = &mut self.clients[n as usize];
            client.0 = client.0.wrapping_add(MESSAGE as u32);
            client.1 = client.1.wrapping_add(MESSAGE as u32);
            took
        }
    }
}
