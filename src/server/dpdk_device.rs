//! A port of DPDK, taken for a server or a client: the EAL is started, the port opened with a queue
//! pair for each worker, and each worker told its core. What the port counts stays readable until
//! the workers have ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hioload_dataplane::dpdk::{
    Device, DeviceConfig, DeviceInfo, DeviceStats, Eal, Queue, QueueCounters, QueueSnapshot,
};
use hioload_dataplane::{IdlePolicy, StackConfig};

use super::dpdk::{Dpdk, Idle};
use super::error::Error;
use super::monitor::Monitor;
use crate::topology::Topology;

/// A queue pair of a port, for one worker.
pub(crate) struct DpdkLink {
    pub(crate) queue: Queue,
    pub(crate) eal: Eal,
    /// The core that the EAL's arguments say; `None`: they don't.
    pub(crate) cpu: Option<usize>,
    /// The node of the port.
    pub(crate) node: Option<u32>,
    /// Its name in DPDK.
    pub(crate) name: String,
}

/// A port that was taken.
pub(crate) struct Taken {
    /// One for each worker.
    pub(crate) links: Vec<DpdkLink>,
    pub(crate) opened: Opened,
    /// A line about it for the operator.
    pub(crate) description: String,
    pub(crate) warnings: Vec<String>,
}

/// What counts: the port, and its queues.
#[derive(Debug)]
pub(crate) struct Opened {
    device: Device,
    queues: Vec<Arc<QueueCounters>>,
}

/// The port, for whoever wants its counts, also after it was closed. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
enum Watched {
    #[default]
    None,
    Open(Opened),
    Closed(DeviceStats, Vec<Arc<QueueCounters>>),
}

/// Starts the EAL and opens the port. `workers`: as asked for, 0 for as many as there are lcores.
pub(crate) fn take(
    dpdk: &Dpdk,
    stack: &StackConfig,
    mac: Option<[u8; 6]>,
    workers: usize,
) -> Result<Taken, Error> {
    let topology = Topology::read();
    let eal = Eal::start(&dpdk.arguments(&topology)).map_err(Error::Dpdk)?;
    let cpus = cpus(dpdk, &eal);
    let queues = match (workers, cpus.len()) {
        (0, 0) => 1,
        (0, lcores) => lcores,
        (asked, lcores) if lcores > 0 && asked > lcores => {
            let problem = format!(
                "{asked}, but the EAL's arguments have lcores for {lcores}: the first of `-l` is \
                 the main one, which only waits; name one more than there are workers"
            );
            return Err(Error::Setting { name: "workers", problem });
        }
        (asked, _) => asked,
    };
    let found = find(&eal, dpdk.port.as_deref())?;
    let defaults = DeviceConfig::default();
    let config = DeviceConfig {
        queues: u16::try_from(queues).unwrap_or(u16::MAX),
        rx_descriptors: dpdk.rx_descriptors.unwrap_or(defaults.rx_descriptors),
        tx_descriptors: dpdk.tx_descriptors.unwrap_or(defaults.tx_descriptors),
        mac,
        groups: DeviceConfig::groups_of(stack.addresses.iter().map(|address| address.ip)),
        idle: match dpdk.idle {
            Idle::Busy => IdlePolicy::Busy,
            Idle::Adaptive => IdlePolicy::ADAPTIVE,
        },
        mbufs: dpdk.mbufs,
        capture: dpdk.capture,
        ..defaults
    };
    let (device, queues) = Device::open(&eal, &found.name, &config).map_err(Error::Dpdk)?;
    let memory = if eal.has_hugepages() { "hugepages" } else { "no hugepages" };
    let description = format!("{}; {}, {memory}", device.report(), eal.version());
    let warnings = device.report().warnings.clone();
    let counters = queues.iter().map(Queue::counters).collect();
    let link = |(at, queue)| DpdkLink {
        queue,
        eal: eal.clone(),
        cpu: cpus.get(at).copied(),
        node: found.node,
        name: found.name.clone(),
    };
    let links = queues.into_iter().enumerate().map(link).collect();
    Ok(Taken { links, opened: Opened { device, queues: counters }, description, warnings })
}

/// The cores that the EAL's arguments give to workers; empty where they say nothing of cores.
fn cpus(dpdk: &Dpdk, eal: &Eal) -> Vec<usize> {
    if !dpdk.chooses_cores() {
        return Vec::new();
    }
    let lcores = eal.lcores();
    match lcores.is_empty() {
        // Of a single core the main lcore leaves everything to the worker.
        true => vec![eal.main_lcore().cpu as usize],
        false => lcores.iter().map(|lcore| lcore.cpu as usize).collect(),
    }
}

/// The port that is meant: by number, by name, or the first.
fn find(eal: &Eal, port: Option<&str>) -> Result<DeviceInfo, Error> {
    let devices = eal.devices();
    let known: Vec<_> =
        devices.iter().map(|device| format!("{} ({})", device.port, device.name)).collect();
    let is_it = |device: &DeviceInfo| match port {
        None => true,
        Some(port) => match port.parse::<u16>() {
            Ok(number) => device.port == number,
            Err(_) => device.name == port || device.name.strip_prefix("0000:") == Some(port),
        },
    };
    match devices.into_iter().find(is_it) {
        Some(device) => Ok(device),
        // It says what drivers complained of, too.
        None if known.is_empty() => eal.device(port.unwrap_or("0")).map_err(Error::Dpdk),
        None => {
            let port = port.unwrap_or_default();
            let problem = format!("no port `{port}`; there are {}", known.join(", "));
            Err(Error::Setting { name: "dpdk-port", problem })
        }
    }
}

impl Watch {
    pub(crate) fn open(&self, opened: Opened) {
        *self.lock() = Watched::Open(opened);
    }

    /// The last that may use the port is done with it; its counts are kept.
    pub(crate) fn close(&self) {
        let mut watched = self.lock();
        *watched = match std::mem::take(&mut *watched) {
            Watched::Open(Opened { device, queues }) => Watched::Closed(device.stats(), queues),
            other => other,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor {
    /// What the port of DPDK counted itself, drops by their causes among it; `None` on other
    /// backends.
    #[must_use]
    pub fn device(&self) -> Option<DeviceStats> {
        match &*self.device.lock() {
            Watched::None => None,
            Watched::Open(opened) => Some(opened.device.stats()),
            Watched::Closed(stats, _) => Some(*stats),
        }
    }

    /// What each worker counted of its queue pair of DPDK; empty on other backends.
    #[must_use]
    pub fn worker_queues(&self) -> Vec<QueueSnapshot> {
        match &*self.device.lock() {
            Watched::None => Vec::new(),
            Watched::Open(Opened { queues, .. }) | Watched::Closed(_, queues) => {
                queues.iter().map(|counters| counters.snapshot()).collect()
            }
        }
    }

    /// What all workers together counted of them; `None` on other backends.
    #[must_use]
    pub fn queues(&self) -> Option<QueueSnapshot> {
        let each = self.worker_queues();
        let none = each.is_empty();
        let mut sum = QueueSnapshot::default();
        each.into_iter().for_each(|queue| sum += queue);
        (!none).then_some(sum)
    }
}
