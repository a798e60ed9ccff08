//! A network of the process's own: the interface that a server or a client takes, and the addresses
//! that it has there on the userspace TCP/IP stack. What an operator writes is read here, and the
//! link is opened before the worker starts, so that what is wrong is known at once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::dpdk::Dpdk;
use super::error::Error;

/// The interface that a server or a client takes for itself, and who it is there. Its TCP/IP is this
/// program's own; none of these addresses may be the kernel's.
///
/// ```
/// let network = hioload_ws::Network::on("eth1").address("10.9.0.2/24").gateway("10.9.0.1");
/// # let _ = network;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Network {
    pub(crate) interface: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) freeze_after: Option<Duration>,
    pub(crate) ring_bytes: Option<u64>,
    pub(crate) half_open: Option<u32>,
    pub(crate) trace: Option<(String, PathBuf)>,
    pub(crate) gateways: Vec<String>,
    pub(crate) mac: Option<String>,
    pub(crate) vlan: Option<u16>,
    pub(crate) dpdk: Option<Dpdk>,
}

impl Network {
    /// A network on a port of DPDK, instead of an interface; it needs an address as well.
    pub fn on_dpdk(dpdk: Dpdk) -> Self {
        Network::default().dpdk(dpdk)
    }

    /// A port of DPDK instead of an interface.
    pub fn dpdk(mut self, dpdk: Dpdk) -> Self {
        self.dpdk = Some(dpdk);
        self
    }

    /// What is known of the NIC, the interface or the PCI address, before it is taken.
    pub(crate) fn device(&self) -> Option<&str> {
        let interface = Some(self.interface.as_str()).filter(|name| !name.is_empty());
        interface.or_else(|| self.dpdk.as_ref()?.device())
    }

    /// A network on an interface; it needs an address as well.
    pub fn on(interface: impl Into<String>) -> Self {
        Network { interface: interface.into(), ..Network::default() }
    }

    /// An address and the length of its network's prefix, besides those given: `10.9.0.2/24`.
    pub fn address(mut self, address: impl ToString) -> Self {
        self.addresses.push(address.to_string());
        self
    }

    /// A router: one for IPv4, one for IPv6.
    pub fn gateway(mut self, gateway: impl ToString) -> Self {
        self.gateways.push(gateway.to_string());
        self
    }

    /// The station address, as `02:00:00:00:00:01`; otherwise it follows from the interface's.
    pub fn mac(mut self, mac: impl ToString) -> Self {
        self.mac = Some(mac.to_string());
        self
    }

    /// The VLAN that all frames belong to, 1 to 4094.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlan = Some(id);
        self
    }

    /// How long a TCP connection may be idle before it gives up its rings (2 x 16 KiB unless set)
    /// and keeps 64 bytes; 5 s unless set, zero: never.
    pub fn freeze_after(mut self, idle: Duration) -> Self {
        self.freeze_after = Some(idle);
        self
    }

    /// Bytes of the receive ring, and of the send ring, that a TCP connection begins with: 2,048,
    /// 16,384 (unless set) or 65,535. They grow where output doesn't fit.
    pub fn ring_bytes(mut self, bytes: u64) -> Self {
        self.ring_bytes = Some(bytes);
        self
    }

    /// Half-open TCP connections that get memory, 4,096 unless set; further SYNs are answered with
    /// cookies. 0: all are.
    pub fn half_open(mut self, connections: u32) -> Self {
        self.half_open = Some(connections);
        self
    }

    /// Writes the packets to and from a peer (an IP address, or one with a port) to a file in pcapng
    /// format, the first 100,000 of them.
    pub fn trace(mut self, peer: impl ToString, file: impl Into<PathBuf>) -> Self {
        self.trace = Some((peer.to_string(), file.into()));
        self
    }

    /// Whether it has an address of the same family. What can't be read as an address is complained
    /// about elsewhere.
    pub(crate) fn speaks(&self, to: IpAddr) -> bool {
        let ip = |text: &String| text.trim().split('/').next()?.parse::<IpAddr>().ok();
        self.addresses.iter().filter_map(ip).any(|ip| ip.is_ipv6() == to.is_ipv6())
    }
}

fn setting<T>(name: &'static str, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Setting { name, problem: problem.into() })
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{Ready, Run, Shared, plan, take};

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;

    use hioload_core::Now;
    use hioload_dataplane::{
        Address, AfPacket, Frames, LinkCounters, Port, RING_BYTES, Stack, StackConfig, Tap,
    };
    use hioload_pipeline::admission::Admission;

    use super::{Network, PathBuf, setting};
    use crate::server::backend::TAP;
    #[cfg(feature = "dpdk")]
    use crate::server::dpdk_device::{self, DpdkLink};
    use crate::server::error::Error;
    use crate::server::launch::Listening;
    use crate::server::listen;
    use crate::server::view::{Slot, View};
    use crate::server::worker::Transport;

    /// Class of the rings of a new connection: 16 KiB each way, which is eleven full segments. In
    /// the smallest class a peer that delays its acknowledgements slows a stream to a crawl.
    const RING_CLASS: u8 = 1;
    /// What an idle connection costs in the stack's tables: record, flow entry, timer.
    const IDLE_BYTES: u64 = 160;
    /// Bounds of the table of connections.
    const CONNECTIONS_LEAST: u64 = 1 << 16;
    const CONNECTIONS_MOST: u64 = 1 << 27;
    /// Packets that a trace has at most: 27 MB.
    const TRACE_PACKETS: u32 = 100_000;

    /// What was asked for, understood.
    #[derive(Debug)]
    pub(crate) struct Plan {
        backend: &'static str,
        interface: String,
        mac: Option<[u8; 6]>,
        config: StackConfig,
        ports: Vec<u16>,
        trace: Option<(SocketAddr, PathBuf)>,
    }

    /// An open link, and what its stack is to be.
    pub(crate) struct Ready {
        interface: String,
        link: OpenLink,
        counters: Arc<LinkCounters>,
        config: StackConfig,
        ports: Vec<u16>,
        trace: Option<(SocketAddr, File)>,
    }

    #[expect(clippy::large_enum_variant, reason = "there is one a process, in a box")]
    enum OpenLink {
        Tap(Tap),
        AfPacket(AfPacket),
        #[cfg(feature = "dpdk")]
        Dpdk(DpdkLink),
    }

    /// Reads what was asked for, opens the link, and makes the workers' transports of it: one, but
    /// on DPDK as many as there are queues. `workers`: as asked for.
    pub(crate) fn take(
        network: &Network,
        backend: &'static str,
        listen: Option<&[String]>,
        workers: usize,
    ) -> Result<Listening, Error> {
        let plan = plan(network, backend, listen, workers)?;
        let mut listening = Listening::at(plan.listening());
        #[cfg(feature = "dpdk")]
        if let Some(dpdk) = &network.dpdk {
            let taken = dpdk_device::take(dpdk, &plan.config, plan.mac, workers)?;
            listening.warnings = taken.warnings;
            listening.network = Some(format!("{}; {}", taken.description, manner(&plan.config)));
            listening.device = Some(taken.opened);
            listening.transports = plan.on_queues(taken.links)?;
            return Ok(listening);
        }
        let ready = plan.open()?;
        listening.network = Some(ready.describe(&network.interface));
        listening.transports = vec![Transport::Network(Box::new(ready))];
        Ok(listening)
    }

    /// Reads what was asked for. A client listens to nothing: `None`.
    pub(crate) fn plan(
        network: &Network,
        backend: &'static str,
        listen: Option<&[String]>,
        workers: usize,
    ) -> Result<Plan, Error> {
        if workers > 1 && network.dpdk.is_none() {
            let problem = format!(
                "{workers}; an interface of {backend} is one queue, which one worker serves: leave \
                 it out, or give 1"
            );
            return setting("workers", problem);
        }
        let mut config =
            StackConfig { vlan: network.vlan, ring_class: RING_CLASS, ..StackConfig::default() };
        tune(&mut config, network)?;
        for text in &network.addresses {
            config.addresses.push(address(text)?);
        }
        if config.addresses.is_empty() {
            return setting("address", "missing; give it one of its own, like 10.9.0.2/24");
        }
        for text in &network.gateways {
            let twice = match text.trim().parse() {
                Ok(IpAddr::V4(ip)) => config.gateway_v4.replace(ip).is_some(),
                Ok(IpAddr::V6(ip)) => config.gateway_v6.replace(ip).is_some(),
                Err(_) => return setting("gateway", format!("`{text}` is not an IP address")),
            };
            if twice {
                return setting("gateway", format!("`{text}` is the second of its family"));
            }
        }
        config.validate().or_else(|error| setting("address, vlan", error.to_string()))?;
        Ok(Plan {
            backend,
            interface: network.interface.clone(),
            mac: network.mac.as_deref().map(mac).transpose()?,
            ports: match listen {
                Some(listen) => ports(listen, &config.addresses)?,
                None => Vec::new(),
            },
            trace: match &network.trace {
                Some((_, file)) if file.as_os_str().is_empty() => {
                    return setting("trace-file", "missing; the packets need one to go to");
                }
                Some((peer, file)) => Some((traced(peer)?, file.clone())),
                None => None,
            },
            config,
        })
    }

    impl Plan {
        /// What workers on the queues of a DPDK port begin with.
        #[cfg(feature = "dpdk")]
        fn on_queues(self, links: Vec<DpdkLink>) -> Result<Vec<Transport>, Error> {
            let Plan { config, ports, trace, .. } = self;
            let several = links.len() > 1;
            let ready = |(index, link): (usize, DpdkLink)| {
                let trace = trace.as_ref().map(|(peer, path)| {
                    let mut path = path.clone().into_os_string();
                    // A connection is one worker's; nobody knows whose.
                    if several {
                        path.push(format!(".{index}"));
                    }
                    create(path.into()).map(|file| (*peer, file))
                });
                let config = StackConfig { node: link.node, ..config.clone() };
                Ok(Transport::Network(Box::new(Ready {
                    interface: link.name.clone(),
                    link: OpenLink::Dpdk(link),
                    counters: Arc::default(),
                    config,
                    ports: ports.clone(),
                    trace: trace.transpose()?,
                })))
            };
            links.into_iter().enumerate().map(ready).collect()
        }

        /// Opens the link.
        pub(crate) fn open(self) -> Result<Ready, Error> {
            let Plan { interface, mac, config, ports, trace, .. } = self;
            let counters = Arc::<LinkCounters>::default();
            let counted = Arc::clone(&counters);
            let link = match self.backend {
                TAP => Tap::open(&interface, mac, counted).map(OpenLink::Tap),
                _ => AfPacket::open(&interface, mac, counted).map(OpenLink::AfPacket),
            };
            let link = link.map_err(Error::Interface)?;
            let trace = match trace {
                Some((peer, path)) => Some((peer, create(path)?)),
                None => None,
            };
            Ok(Ready { interface, link, counters, config, ports, trace })
        }

        /// What it listens on.
        pub(crate) fn listening(&self) -> Vec<SocketAddr> {
            let on = |port: &u16| {
                let port = *port;
                self.config.addresses.iter().map(move |address| (address.ip, port).into())
            };
            self.ports.iter().flat_map(on).collect()
        }
    }

    impl Ready {
        /// The core that its worker has to be on; `None`: any.
        pub(crate) fn cpu(&self) -> Option<usize> {
            match &self.link {
                #[cfg(feature = "dpdk")]
                OpenLink::Dpdk(link) => link.cpu,
                _ => None,
            }
        }

        /// The NUMA node of its device, as the device says.
        pub(crate) fn node(&self) -> Option<u32> {
            match &self.link {
                #[cfg(feature = "dpdk")]
                OpenLink::Dpdk(link) => link.node,
                _ => None,
            }
        }

        /// The name of its interface.
        pub(crate) fn interface(&self) -> &str {
            &self.interface
        }

        /// A line about it for the operator.
        pub(crate) fn describe(&self, interface: &str) -> String {
            use hioload_dataplane::Link as _;
            let info = match &self.link {
                OpenLink::Tap(link) => link.info(),
                OpenLink::AfPacket(link) => link.info(),
                #[cfg(feature = "dpdk")]
                OpenLink::Dpdk(link) => link.queue.info(),
            };
            let mac = info.mac.map(|byte| format!("{byte:02x}")).join(":");
            let vlan = self.config.vlan.map_or(String::new(), |id| format!(", VLAN {id}"));
            let manner = manner(&self.config);
            format!("{interface}, station {mac}, MTU {}{vlan}; {manner}", info.mtu)
        }

        /// Makes the backend, on the worker's thread, and has `run` run on it.
        pub(crate) fn with<R>(
            self,
            now: Now,
            shared: Shared<'_>,
            run: impl Run<R>,
        ) -> io::Result<R> {
            let Ready { link, counters, config, ports, trace, .. } = self;
            let rest = Rest { counters, config, ports, trace, shared };
            match link {
                OpenLink::Tap(link) => Ok(run.on(rest.frames(link, now)?)),
                OpenLink::AfPacket(link) => Ok(run.on(rest.frames(link, now)?)),
                #[cfg(feature = "dpdk")]
                OpenLink::Dpdk(DpdkLink { queue, eal, .. }) => {
                    // Outlives the queue: it gives this thread its own cache of packet buffers.
                    let _registered = eal.register_thread().map_err(io::Error::other)?;
                    Ok(run.on(rest.frames(queue, now)?))
                }
            }
        }
    }

    /// What is done with a backend, whichever it is.
    pub(crate) trait Run<R> {
        fn on<L: Port>(self, backend: Frames<L>) -> R;
    }

    /// What a worker's TCP/IP has of the server.
    pub(crate) struct Shared<'a> {
        /// The limits of connections.
        pub(crate) admission: Admission,
        /// Memory for sockets and rings, and the same again for what idle connections keep.
        pub(crate) memory_bytes: u64,
        /// Where it can be looked at.
        pub(crate) view: &'a Slot,
    }

    /// All that a backend needs besides its link.
    struct Rest<'a> {
        counters: Arc<LinkCounters>,
        config: StackConfig,
        ports: Vec<u16>,
        trace: Option<(SocketAddr, File)>,
        shared: Shared<'a>,
    }

    impl Rest<'_> {
        fn frames<L: Port>(self, link: L, now: Now) -> io::Result<Frames<L>> {
            let Rest { counters, mut config, ports, trace, shared } = self;
            let Shared { admission, memory_bytes, view } = shared;
            config.memory_max_bytes = memory_bytes;
            let connections =
                (memory_bytes / IDLE_BYTES).clamp(CONNECTIONS_LEAST, CONNECTIONS_MOST);
            config.connections_max = connections as u32;
            let mut stack = Stack::new(link, &config, now).map_err(io::Error::other)?;
            stack.admit_by(move |peer| admission.admits(peer));
            for port in ports {
                stack.listen(port).map_err(io::Error::other)?;
            }
            if let Some((peer, file)) = trace {
                stack.trace(peer, TRACE_PACKETS, Box::new(file))?;
            }
            if !stack.can_freeze() {
                tracing::warn!(
                    "smoltcp does not compute its initial sequence numbers as this program \
                     expects: idle connections keep their memory, and there are no SYN cookies"
                );
            }
            let frames = Frames::new(stack)?;
            // A worker makes its backend once.
            let _ = view.set(View::of(&frames, counters));
            Ok(frames)
        }
    }

    fn create(path: PathBuf) -> Result<File, Error> {
        File::create(&path)
            .or_else(|error| setting("trace-file", format!("{}: {error}", path.display())))
    }

    /// How TCP goes about here, for the operator.
    fn manner(config: &StackConfig) -> String {
        let ring = RING_BYTES[usize::from(config.ring_class)].next_multiple_of(1024) >> 10;
        let freeze = match config.freeze_after {
            Some(idle) => format!("frozen after {idle:?}"),
            None => "never frozen".into(),
        };
        let half_open = config.half_open_max;
        format!(
            "TCP/IP of this program: rings {ring} KiB, {freeze}, cookies beyond {half_open} half-open"
        )
    }

    fn tune(config: &mut StackConfig, network: &Network) -> Result<(), Error> {
        if let Some(idle) = network.freeze_after {
            config.freeze_after = (!idle.is_zero()).then_some(idle);
        }
        if let Some(connections) = network.half_open {
            config.half_open_max = connections;
        }
        let Some(bytes) = network.ring_bytes else { return Ok(()) };
        // 64 KiB means the largest, which lacks a byte of it: no window is ever scaled.
        match RING_BYTES
            .iter()
            .position(|&ring| (ring as u64).next_multiple_of(1024) == bytes.next_multiple_of(1024))
        {
            Some(class) => config.ring_class = class as u8,
            None => {
                return setting("tcp-ring", format!("{bytes} bytes; there are 2KiB, 16KiB, 64KiB"));
            }
        }
        Ok(())
    }

    /// A peer to be traced: port 0 where none is given.
    fn traced(peer: &str) -> Result<SocketAddr, Error> {
        let peer = peer.trim();
        match peer.parse().or_else(|_| peer.parse().map(|ip: IpAddr| (ip, 0).into())) {
            Ok(peer) => Ok(peer),
            Err(_) => setting(
                "trace-connection",
                format!("`{peer}` is not like 10.9.0.1, 10.9.0.1:40000 or [fd00::1]:40000"),
            ),
        }
    }

    fn address(text: &str) -> Result<Address, Error> {
        let read = text.trim().split_once('/').and_then(|(ip, prefix)| {
            Some(Address { ip: ip.parse().ok()?, prefix: prefix.parse().ok()? })
        });
        match read {
            Some(address) => Ok(address),
            None => setting("address", format!("`{text}` is not like 10.9.0.2/24 or fd00::2/64")),
        }
    }

    fn mac(text: &str) -> Result<[u8; 6], Error> {
        let wrong = || setting("mac", format!("`{text}` is not like 02:00:00:00:00:01"));
        let mut mac = [0; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut mac {
            match parts.next().filter(|part| part.len() == 2).map(|p| u8::from_str_radix(p, 16)) {
                Some(Ok(value)) => *byte = value,
                _ => return wrong(),
            }
        }
        if parts.next().is_some() {
            return wrong();
        }
        if mac[0] & 1 == 1 || mac == [0; 6] {
            return setting("mac", format!("`{text}` can't be the address of one station"));
        }
        Ok(mac)
    }

    /// The ports to listen on, each once. The stack listens on all of its addresses.
    fn ports(listen: &[String], addresses: &[Address]) -> Result<Vec<u16>, Error> {
        let mut ports = Vec::new();
        for to in listen::parse(listen)? {
            let all = to.ip().is_unspecified() || matches!(addresses, [only] if only.ip == to.ip());
            if !all {
                let problem = format!(
                    "{to}: on an interface of its own the server listens on all its addresses; \
                     write 0.0.0.0:{}",
                    to.port()
                );
                return setting("listen", problem);
            }
            if to.port() == 0 {
                return setting("listen", "port 0: nobody would know which; choose one");
            }
            if !ports.contains(&to.port()) {
                ports.push(to.port());
            }
        }
        if ports.is_empty() {
            ports.push(listen::PORT);
        }
        Ok(ports)
    }

    #[cfg(test)]
    mod tests {
        use std::time::Duration;

        use super::*;
        use crate::server::backend::AF_PACKET;

        fn network() -> Network {
            Network::on("v0").address("10.9.0.2/24").address("fd00::2/64")
        }

        fn problem(network: &Network, listen: &[&str], workers: usize) -> String {
            let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
            plan(network, TAP, Some(&listen), workers).unwrap_err().to_string()
        }

        #[test]
        fn it_listens_on_every_address_at_every_port_once() {
            let listen = ["0.0.0.0:80".into(), "[::]:80".into(), "0.0.0.0:81".into()];
            let addresses = plan(&network(), TAP, Some(&listen), 1).unwrap().listening();
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["10.9.0.2:80", "[fd00::2]:80", "10.9.0.2:81", "[fd00::2]:81"]);
        }

        #[test]
        fn rings_half_open_connections_freezing_and_a_trace_are_as_asked_for() {
            for (given, class) in [(2048, 0), (16 << 10, 1), (64 << 10, 2), (65_535, 2)] {
                let network = network()
                    .ring_bytes(given)
                    .half_open(0)
                    .freeze_after(Duration::ZERO)
                    .trace("fd00::1", "f");
                let plan = plan(&network, TAP, None, 1).unwrap();
                assert_eq!((plan.config.ring_class, plan.config.half_open_max), (class, 0));
                assert_eq!(plan.config.freeze_after, None);
                assert!(manner(&plan.config).contains("never frozen, cookies beyond 0"));
                assert_eq!(plan.trace.unwrap().0, "[fd00::1]:0".parse().unwrap());
            }
        }

        #[test]
        fn without_ports_it_has_the_default_one() {
            let addresses = plan(&network(), AF_PACKET, Some(&[]), 0).unwrap().listening();
            assert!(addresses.iter().all(|address| address.port() == 9001));
        }

        #[test]
        fn a_client_listens_nowhere_and_speaks_the_families_of_its_addresses() {
            assert_eq!(plan(&network(), TAP, None, 1).unwrap().listening(), []);
            let only_v4 = Network::on("v0").address("10.9.0.2/24");
            for (ip, both) in [("192.0.2.1", true), ("2001:db8::1", false)] {
                let ip = ip.parse().unwrap();
                assert!(network().speaks(ip));
                assert_eq!(only_v4.speaks(ip), both);
            }
        }

        #[test]
        fn what_is_wrong_is_told_by_its_option() {
            for (network, listen, workers, parts) in [
                (Network::on("v0"), &[][..], 1, ["address", "missing"]),
                (network().address("10.9.0.3"), &[], 1, ["address", "`10.9.0.3`"]),
                (network().address("127.0.0.1/40"), &[], 1, ["address", "127.0.0.1"]),
                (network().gateway("router"), &[], 1, ["gateway", "`router`"]),
                (network().gateway("10.9.0.1").gateway("10.9.0.9"), &[], 1, ["gateway", "second"]),
                (network().mac("02:00:00:00:00"), &[], 1, ["mac", "not like"]),
                (network().mac("03:00:00:00:00:01"), &[], 1, ["mac", "one station"]),
                (network().vlan(4095), &[], 1, ["vlan", "4095"]),
                (network(), &["10.9.0.2:80"], 1, ["listen", "0.0.0.0:80"]),
                (network(), &["0.0.0.0:0"], 1, ["listen", "port 0"]),
                (network(), &[], 2, ["workers", "one queue"]),
                (network().ring_bytes(4096), &[], 1, ["tcp-ring", "16KiB"]),
                (network().trace("client", "f"), &[], 1, ["trace-connection", "`client`"]),
            ] {
                let message = problem(&network, listen, workers);
                assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
            }
        }
    }
}
