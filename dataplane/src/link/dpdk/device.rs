//! A port: opened with a queue pair for each worker, watched while it runs, closed when the last of
//! its queues has gone.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hioload_dpdk_sys as sys;
use hioload_stack::{LinkInfo, Offloads};

use super::capture;
use super::eal::{self, DeviceInfo, Eal};
use super::events;
use super::explain::{self, DpdkError};
use super::mbuf::Bursts;
use super::mempool::Mempool;
use super::negotiate::RxChecks;
use super::queue::Queue;
use super::relay::Relay;
use super::setup::{CloseOnDrop, Setup, check, close};
use super::spread::Spread;
use crate::link::IdlePolicy;

/// How a device is to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceConfig {
    /// Queue pairs, one for each worker. There may be fewer: [`Device::open`] returns as many as the
    /// device can keep flows apart for.
    pub queues: u16,
    /// Receive descriptors of a queue; the device rounds them to what it can. More survive longer
    /// absences of the worker, fewer stay in the cache.
    pub rx_descriptors: u16,
    /// Transmit descriptors of a queue.
    pub tx_descriptors: u16,
    /// Bytes of an IP packet; `None`: what the device has set.
    pub mtu: Option<u16>,
    /// Station address; `None`: the device's own.
    pub mac: Option<[u8; 6]>,
    /// Groups to hear besides: see [`DeviceConfig::groups_of`]. Without them nobody finds an IPv6
    /// address of ours.
    pub groups: Vec<[u8; 6]>,
    /// What a worker does while nothing comes.
    pub idle: IdlePolicy,
    /// Mbufs of a queue; `None`: as many as its descriptors and its worker can hold. With fewer,
    /// frames are dropped and counted when they run out.
    pub mbufs: Option<u32>,
    /// Checksums are left to the device as far as it can.
    pub offloads: bool,
    /// DPDK's capture programs may look at the frames. Costs a call through C a burst, and mempools
    /// without caches, as threads can't be registered then: open it before any thread is. Wants an
    /// EAL that lets other processes in: not `--in-memory`, `--no-shconf`, `--no-huge` or
    /// `--huge-unlink`.
    pub capture: bool,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        DeviceConfig {
            queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            mac: None,
            groups: Vec::new(),
            idle: IdlePolicy::Busy,
            mbufs: None,
            offloads: true,
            capture: false,
        }
    }
}

impl DeviceConfig {
    /// The station addresses of the groups that a host with these addresses must hear: all nodes,
    /// and those who ask for one of them (RFC 4291 §2.8, RFC 2464 §7). None for IPv4.
    #[must_use]
    pub fn groups_of(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<[u8; 6]> {
        let mut groups = Vec::new();
        for address in addresses {
            let IpAddr::V6(ip) = address else { continue };
            let [.., a, b, c] = ip.octets();
            for group in [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, a, b, c]] {
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        groups
    }
}

/// Whether a link is up, and how fast it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Frames can pass.
    pub up: bool,
    /// Megabits a second; `None` where nobody knows.
    pub mbps: Option<u32>,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.up, self.mbps) {
            (false, _) => f.write_str("link down"),
            (true, None) => f.write_str("link up"),
            (true, Some(mbps)) => write!(f, "link up, {mbps} Mbit/s"),
        }
    }
}

/// What a device counts itself, since it was opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames dropped as a receive ring was full: a worker was too slow (`imissed`).
    pub rx_missed: u64,
    /// Frames dropped as a mempool was empty (`rx_nombuf`).
    pub rx_no_mbuf: u64,
    /// Frames received that were damaged.
    pub rx_errors: u64,
    /// Frames that couldn't be sent.
    pub tx_errors: u64,
}

/// How workers wait when nothing comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// They don't ([`IdlePolicy::Busy`]).
    Never,
    /// Until a receive interrupt.
    Interrupts,
    /// For a bounded time, as there are no interrupts; why.
    Sleeps(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Never => f.write_str("never idle"),
            Waiting::Interrupts => f.write_str("idle until a receive interrupt"),
            Waiting::Sleeps(why) => write!(f, "idle in short sleeps ({why})"),
        }
    }
}

/// How a device came to be set up, for the start-up report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceReport {
    /// What it is.
    pub info: DeviceInfo,
    /// Queue pairs in use.
    pub queues: u16,
    /// How flows find their queue.
    pub spread: Spread,
    /// Descriptors of a receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue.
    pub tx_descriptors: u16,
    /// Mbufs of a queue.
    pub mbufs: u32,
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// Station address.
    pub mac: [u8; 6],
    /// The device verifies checksums.
    pub checks_rx: bool,
    /// The checksums that the device fills in.
    pub offloads: Offloads,
    /// Frames for anybody are heard, as the device can't be told otherwise.
    pub promiscuous: bool,
    /// How workers wait when nothing comes.
    pub waiting: Waiting,
    /// DPDK's capture programs may look at the frames.
    pub capture: bool,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceReport { info, queues, rx_descriptors, tx_descriptors, mbufs, mtu, .. } = self;
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        let node = info.node.map_or("any".into(), |node| node.to_string());
        let spread = match &self.spread {
            Spread::One => "",
            Spread::Peer => ", flows stay where the peer puts them",
            Spread::Kernel => ", flows stay where the kernel puts them",
            Spread::Rss(_) => ", flows spread by symmetric RSS",
        };
        let by_device = |yes: bool| if yes { "by the device" } else { "in software" };
        write!(
            f,
            "{} ({}), node {node}, station {mac}, MTU {mtu}; {queues} queue pair(s){spread}; \
             {rx_descriptors}/{tx_descriptors} descriptors and {mbufs} mbufs each; checksums \
             verified {}, made {}; {}{}{}",
            info.name,
            info.driver,
            by_device(self.checks_rx),
            by_device(self.offloads.tx_tcp_checksum),
            self.waiting,
            if self.promiscuous { "; promiscuous" } else { "" },
            if self.capture { "; dpdk-dumpcap may capture" } else { "" },
        )
    }
}

/// An open port, for whoever watches it; any thread may. It is closed when all its queues and all
/// clones of this are gone.
#[derive(Clone, Debug)]
pub struct Device(Arc<Open>);

/// What the queues of a port share. Not touched on the path of a frame.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) port: u16,
    report: DeviceReport,
    pub(super) rx_checks: RxChecks,
    pub(super) pools: Vec<Mempool>,
    /// The last to go.
    _eal: Eal,
}

impl Device {
    /// Opens and starts the port of that name, and gives a queue for each worker; see
    /// [`Eal::devices`] for names. Queues move to their workers' threads.
    ///
    /// # Errors
    /// There is no such device, it is open already, there isn't the memory, it can't do what was
    /// asked; packets are to be captured, and the EAL's arguments shut others out.
    pub fn open(
        eal: &Eal,
        name: &str,
        config: &DeviceConfig,
    ) -> Result<(Device, Vec<Queue>), DpdkError> {
        if config.capture {
            capture::offer(eal)?;
        }
        let known = eal.device(name)?;
        let port = known.port;
        events::claim(port, name)?;
        explain::forget();
        let configured = Setup::new(known, config).and_then(|mut setup| {
            setup.configure(config)?;
            Ok(setup)
        });
        let mut setup = configured.inspect_err(|_| {
            events::silence(port);
            events::released(port);
        })?;
        let closing = CloseOnDrop(port);
        setup.queues(config)?;
        setup.start(config)?;
        std::mem::forget(closing);
        let Setup { known, terms, promiscuous, if_index, spread, mtu, mac, pools, .. } = setup;
        let mut interrupts = setup.interrupts.into_iter();
        let report = DeviceReport {
            queues: terms.queues,
            spread: spread.clone(),
            rx_descriptors: setup.rx_descriptors,
            tx_descriptors: setup.tx_descriptors,
            mbufs: setup.mbufs,
            mtu,
            mac,
            checks_rx: terms.rx_checks != RxChecks::None,
            offloads: terms.offloads(),
            promiscuous,
            waiting: setup.waiting,
            capture: config.capture,
            warnings: terms.warnings.clone(),
            info: known,
        };
        let open = Open { port, report, rx_checks: terms.rx_checks, pools, _eal: eal.clone() };
        let open = Arc::new(open);
        let info = LinkInfo { mac, mtu, offloads: terms.offloads() };
        let mut relays = Relay::new(terms.queues).into_iter().map(Some).collect::<Vec<_>>();
        let queues = (0..terms.queues).map(|queue| {
            let relay = relays[usize::from(queue)].take().filter(|_| terms.queues > 1);
            let idle = (config.idle, interrupts.next());
            Queue::new(Arc::clone(&open), queue, info, idle, spread.clone(), relay, if_index)
        });
        let queues = queues.collect();
        Ok((Device(open), queues))
    }

    /// How it was set up.
    #[must_use]
    pub fn report(&self) -> &DeviceReport {
        &self.0.report
    }

    /// Whether its link is up.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        link_state(self.0.port)
    }

    /// How often its link came up or went down, where the device tells.
    #[must_use]
    pub fn link_changes(&self) -> u32 {
        events::link_changes(self.0.port)
    }

    /// Whether it is gone for good: pulled out, or its interface deleted.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        events::is_removed(self.0.port)
    }

    /// Brings the link down or up, where the device can.
    ///
    /// # Errors
    /// It can't.
    pub fn set_link(&self, up: bool) -> Result<(), DpdkError> {
        let port = self.0.port;
        // SAFETY: the port is open.
        let result = unsafe {
            match up {
                true => sys::rte_eth_dev_set_link_up(port),
                false => sys::rte_eth_dev_set_link_down(port),
            }
        };
        check(result, "its link can't be switched", "not every device can")
    }

    /// What it counts. Takes some microseconds.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        // SAFETY: plain numbers.
        let mut stats: sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: the port is open; it fills in what it is given.
        unsafe { sys::rte_eth_stats_get(self.0.port, &raw mut stats) };
        DeviceStats {
            rx_frames: stats.ipackets,
            tx_frames: stats.opackets,
            rx_bytes: stats.ibytes,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_no_mbuf: stats.rx_nombuf,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
        }
    }

    /// All that its driver counts, by the driver's names.
    #[must_use]
    pub fn extended_stats(&self) -> Vec<(String, u64)> {
        let port = self.0.port;
        // SAFETY: the port is open; without room it says how many there are.
        let count = unsafe { sys::rte_eth_xstats_get_names(port, std::ptr::null_mut(), 0) };
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: characters, for which zero is a value.
        let name = || unsafe { std::mem::zeroed::<sys::rte_eth_xstat_name>() };
        let mut names: Vec<_> = (0..count).map(|_| name()).collect();
        let mut values = vec![sys::rte_eth_xstat { id: 0, value: 0 }; count];
        // SAFETY: there is room for `count` each.
        let filled = unsafe {
            let names = sys::rte_eth_xstats_get_names(port, names.as_mut_ptr(), count as u32);
            names.min(sys::rte_eth_xstats_get(port, values.as_mut_ptr(), count as u32))
        };
        let filled = usize::try_from(filled).unwrap_or(0).min(count);
        let pairs = values[..filled].iter().filter_map(|value| {
            let name = names.get(value.id as usize)?;
            // SAFETY: the driver ends the name with a zero.
            Some((unsafe { eal::text(name.name.as_ptr()) }, value.value))
        });
        pairs.collect()
    }

    /// Mbufs of a queue that are free, those in a thread's cache included; a moment's value.
    #[must_use]
    pub fn free_mbufs(&self, queue: u16) -> u32 {
        self.0.pools.get(usize::from(queue)).map_or(0, Mempool::free_count)
    }
}

impl Open {
    /// How bursts are done on its queues.
    pub(super) fn bursts(&self) -> Bursts {
        match self.report.capture {
            true => Bursts::WithCallbacks,
            false => Bursts::Bare,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.report.info.name
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        close(self.port);
    }
}

pub(super) fn link_state(port: u16) -> LinkState {
    // SAFETY: plain numbers.
    let mut link: sys::rte_eth_link = unsafe { std::mem::zeroed() };
    // SAFETY: it fills in what it is given, and knows which ports there are.
    let known = unsafe { sys::rte_eth_link_get_nowait(port, &raw mut link) } == 0;
    let up = known && link.link_status() == 1;
    // u32::MAX is RTE_ETH_SPEED_NUM_UNKNOWN, 0 is none.
    let mbps = Some(link.link_speed).filter(|&mbps| up && mbps > 0 && mbps < u32::MAX);
    LinkState { up, mbps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_hears_all_nodes_and_those_who_ask_for_it() {
        let addresses = ["10.0.0.1", "fd00::1:2:3", "fe80::9901:203"].map(|ip| ip.parse().unwrap());
        let groups = DeviceConfig::groups_of(addresses);
        let wanted =
            [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 2, 0, 3], [0x33, 0x33, 0xff, 1, 2, 3]];
        assert_eq!(groups, wanted);
        assert!(DeviceConfig::groups_of(addresses[..1].iter().copied()).is_empty());
    }
}
