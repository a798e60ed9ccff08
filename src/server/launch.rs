//! Bringing workers up, for a server as for a client: what they share is made, each gets its seat,
//! and the handle on what runs comes back.

use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::sync::Arc;

use hioload_core::clock::MonotonicClock;
use hioload_pipeline::admission::Admission;
use hioload_pipeline::{Handler, MAX_BATCH, Settings, inbox};

use super::backend::{BackendChoice, Chosen};
use super::error::Error;
use super::monitor::Monitor;
use super::network::{self, Network};
use super::pools::Pools;
use super::report::Report;
use super::running::Running;
use super::worker::{Make, Plan, Seat, Team, Transport};
use super::{host, listen, signals};
use crate::topology::{End, Placement, Topology};

/// Workers a group may have.
const MAX_WORKERS: usize = 1_024;
/// A message is assembled in one buffer, of which the largest has 1 GiB.
const MAX_MESSAGE_BYTES: u64 = (1 << 30) - 64;

/// Which cores the workers are pinned to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pinning {
    /// The first ones that are allowed.
    First,
    /// The last ones, so that a server on the same machine keeps the first.
    Last,
    /// None: the scheduler places them.
    No,
}

/// What a group of workers is to be: what the builders of a server and of a client have in common.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// 0: one for each core.
    pub(crate) workers: usize,
    pub(crate) backend: BackendChoice,
    /// `None`: the kernel's.
    pub(crate) network: Option<Network>,
    pub(crate) settings: Settings,
    /// 0: no limit.
    pub(crate) max_connections: usize,
    /// 0: no limit.
    pub(crate) max_per_address: usize,
    /// `None`: the default.
    pub(crate) memory_budget: Option<u64>,
    pub(crate) handle_signals: bool,
    pub(crate) pinning: Pinning,
}

/// Where a group listens.
pub(crate) struct Listening {
    pub(crate) addresses: Vec<SocketAddr>,
    /// About the interface that was taken.
    pub(crate) network: Option<String>,
    /// What each worker listens with.
    pub(crate) transports: Vec<Transport>,
    /// What the operator should know of it.
    pub(crate) warnings: Vec<String>,
    /// The port of DPDK that these belong to.
    #[cfg(feature = "dpdk")]
    pub(crate) device: Option<super::dpdk_device::Opened>,
}

impl Listening {
    /// At these addresses, with transports to come.
    pub(crate) fn at(addresses: Vec<SocketAddr>) -> Self {
        Listening {
            addresses,
            network: None,
            transports: Vec::new(),
            warnings: Vec::new(),
            #[cfg(feature = "dpdk")]
            device: None,
        }
    }

    /// Nowhere: a client's.
    pub(crate) fn nowhere(workers: usize) -> Self {
        let none = || Transport::Sockets(Vec::new());
        let transports = std::iter::repeat_with(none).take(workers).collect();
        Listening { transports, ..Listening::at(Vec::new()) }
    }
}

impl Launch {
    /// So many workers, the rest as by default.
    pub(crate) fn new(workers: usize, pinning: Pinning) -> Self {
        Launch {
            workers,
            backend: BackendChoice::Auto,
            network: None,
            settings: Settings::default(),
            max_connections: 0,
            max_per_address: 0,
            memory_budget: None,
            handle_signals: false,
            pinning,
        }
    }

    /// Checks what can be checked without opening anything. A client listens to nothing: `None`.
    pub(crate) fn check(&self, listen: Option<&[String]>) -> Result<(), Error> {
        let chosen = self.choose()?;
        if let Some(network) = &self.network {
            network::plan(network, chosen.name, listen, self.workers)?;
        }
        check_settings(&self.settings, self.workers)
    }

    fn choose(&self) -> Result<Chosen, Error> {
        self.backend.choose(self.network.as_ref())
    }

    /// Where the workers go: near the NIC that they are for, where they are for one.
    fn place(&self, topology: &Topology, usable: usize, transports: &[Transport]) -> Placement {
        let workers = transports.len();
        let near = transports.iter().find_map(|transport| transport.near(topology));
        let chosen: Option<Vec<usize>> = transports.iter().map(Transport::cpu).collect();
        if let Some(cpus) = chosen {
            return Placement::fixed(topology, &cpus, near);
        }
        let end = match self.pinning {
            Pinning::First => End::First,
            Pinning::Last => End::Last,
            Pinning::No => {
                return Placement { places: Err("as asked for".into()), near, workers };
            }
        };
        topology.place(workers, usable, near, end)
    }

    /// Starts the workers. `listen` is as for [`Launch::check`]; `wanted` names the setting that
    /// asks for descriptors, and so many.
    pub(crate) fn start<H: Handler + 'static>(
        self,
        listen: Option<&[String]>,
        wanted: (&str, usize),
        maker: &mut impl FnMut() -> Make<H>,
    ) -> Result<Running, Error> {
        let mut warnings = Vec::new();
        let descriptors = host::raise_descriptors();
        // On a network of their own, connections take none.
        if self.network.is_none() {
            host::compare_descriptors(wanted.0, wanted.1, descriptors, &mut warnings);
        }
        let (topology, usable) = (Topology::read(), host::usable_cpus());
        let chosen = self.choose()?;
        let workers = resolved_workers(self.workers, usable);
        let listening = match (&self.network, listen) {
            (Some(network), _) => network::take(network, chosen.name, listen, self.workers)?,
            (None, Some(given)) => listen::bind(given, workers, &mut warnings)?,
            (None, None) => Listening::nowhere(workers),
        };
        let Listening { addresses, network, transports, .. } = listening;
        let workers = transports.len();
        warnings.extend(listening.warnings);
        let placement = self.place(&topology, usable, &transports);
        let device = transports.iter().find_map(Transport::device);
        warnings.extend(device.and_then(|device| placement.warning(device)));

        let pools = Pools::new(&topology, &placement, self.memory_budget)?;
        let (remote, inboxes) = inbox::inboxes(workers, self.settings.ring);
        let admission = Admission::new(self.max_connections, self.max_per_address);
        let monitor = Monitor::new(workers, pools.all().cloned().collect(), admission.clone());
        #[cfg(feature = "dpdk")]
        if let Some(device) = listening.device {
            monitor.device.open(device);
        }

        let plan = Plan {
            settings: self.settings.clone(),
            admission,
            clock: MonotonicClock::new(),
            remote: remote.clone(),
        };
        let seats =
            inboxes.into_iter().zip(transports).enumerate().map(|(index, (inbox, transport))| {
                let place = placement.places.as_ref().ok().and_then(|all| all.get(index));
                Seat {
                    index,
                    workers,
                    cpu: place.map(|place| place.cpu),
                    pool: pools.of(place.map(|place| place.node)).clone(),
                    inbox,
                    transport,
                    counters: monitor.worker(index),
                    sockets: monitor.socket(index),
                    #[cfg(target_os = "linux")]
                    view: Arc::clone(&monitor.views[index]),
                }
            });
        let mut team = Team::start(&plan, seats, maker)?;
        let pinned = team.pinned(&mut warnings);
        let signals = match self.handle_signals {
            true => Some(signals::Watch::start(remote.clone())?),
            false => None,
        };
        let report = Report {
            addresses,
            backend: chosen.name,
            backend_why: chosen.why,
            network,
            pinned,
            unpinned_why: placement.places.err(),
            topology: topology.source,
            nodes: topology.nodes.len(),
            memory_kind: monitor.pool().kind,
            memory_budget_bytes: pools.budget_bytes,
            memory_nodes: pools.nodes(),
            memory_is_default: self.memory_budget.is_none(),
            settings: self.settings,
            max_connections: self.max_connections,
            max_per_address: self.max_per_address,
            descriptors,
            warnings,
        };
        Ok(Running::new(team, remote, monitor, report, signals))
    }
}

/// How many workers there will be, at most as many as there may be.
pub(crate) fn resolved_workers(asked: usize, usable: usize) -> usize {
    if asked == 0 { usable.min(MAX_WORKERS) } else { asked }
}

fn check_settings(settings: &Settings, workers: usize) -> Result<(), Error> {
    let Settings { batch, ring, limits, ping_after, dead_after, .. } = settings;
    let setting = |name, problem: String| Err(Error::Setting { name, problem });
    if !(1..=MAX_BATCH).contains(batch) {
        return setting("batch", format!("{batch} messages a call; allowed is 1 to {MAX_BATCH}"));
    }
    if !(16..=1 << 20).contains(ring) {
        return setting("ring", format!("{ring} slots; allowed is 16 to {}", 1 << 20));
    }
    if workers > MAX_WORKERS {
        let problem = format!("{workers}; allowed is 0 (one a core) to {MAX_WORKERS}");
        return setting("workers", problem);
    }
    for (name, bytes) in [("max-frame", limits.max_frame), ("max-message", limits.max_message)] {
        if !(1..=MAX_MESSAGE_BYTES).contains(&bytes) {
            return setting(name, format!("{bytes} bytes; allowed is 1 to {MAX_MESSAGE_BYTES}"));
        }
    }
    if settings.max_unsent_bytes < 1024 {
        let problem = format!("{} bytes; at least 1 KiB", settings.max_unsent_bytes);
        return setting("max-unsent", problem);
    }
    if settings.handshake_timeout.is_zero() {
        return setting("handshake-timeout", "0: a handshake needs some time".into());
    }
    if !dead_after.is_zero() && !ping_after.is_zero() && dead_after <= ping_after {
        let problem = format!(
            "{dead_after:?} is not longer than ping-after ({ping_after:?}): no peer could answer \
             the ping in time; set both, or one of them to 0 to turn it off"
        );
        return setting("dead-after", problem);
    }
    Ok(())
}
