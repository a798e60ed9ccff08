//! What a server counts, for any thread to read. Reading takes no lock and stops nobody.

use std::sync::Arc;

use hioload_core::pool::{NodePool, Pressure};
use hioload_core::region::MemoryKind;
use hioload_pipeline::admission::Admission;
use hioload_pipeline::counters::{WorkerCounters, WorkerSnapshot};
use hioload_sockets::{SocketCounters, SocketSnapshot};

/// Reads the counters of a server, also after it ended. Cheap to clone.
#[derive(Clone)]
pub struct Monitor {
    workers: Arc<[Arc<WorkerCounters>]>,
    sockets: Arc<[Arc<SocketCounters>]>,
    pools: Arc<[NodePool]>,
    admission: Admission,
    /// Each worker's own TCP/IP, where it has one.
    #[cfg(target_os = "linux")]
    pub(crate) views: Arc<[super::view::Slot]>,
    #[cfg(feature = "dpdk")]
    pub(crate) device: super::dpdk_device::Watch,
}

/// How much of the memory budget is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// The most that may be mapped, in bytes.
    pub budget_bytes: u64,
    /// What is mapped, in bytes.
    pub mapped_bytes: u64,
    /// What of it workers hold, in bytes: whole pages of 2 MiB.
    pub used_bytes: u64,
    /// How near that is to the budget, on the NUMA node where it is nearest.
    pub pressure: Pressure,
    /// What the memory is made of: the weakest of it.
    pub kind: MemoryKind,
}

impl Monitor {
    pub(crate) fn new(workers: usize, pools: Arc<[NodePool]>, admission: Admission) -> Self {
        Monitor {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            sockets: (0..workers).map(|_| Arc::default()).collect(),
            pools,
            admission,
            #[cfg(target_os = "linux")]
            views: (0..workers).map(|_| Arc::default()).collect(),
            #[cfg(feature = "dpdk")]
            device: Default::default(),
        }
    }

    pub(crate) fn worker(&self, index: usize) -> Arc<WorkerCounters> {
        Arc::clone(&self.workers[index])
    }

    pub(crate) fn socket(&self, index: usize) -> Arc<SocketCounters> {
        Arc::clone(&self.sockets[index])
    }

    /// What each worker counted.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = WorkerSnapshot> + '_ {
        self.workers.iter().map(|counters| counters.snapshot())
    }

    /// What all workers together counted.
    #[must_use]
    pub fn total(&self) -> WorkerSnapshot {
        let mut sum = WorkerSnapshot::default();
        self.workers().for_each(|worker| sum += worker);
        sum
    }

    /// What each worker's sockets counted.
    pub fn worker_sockets(&self) -> impl ExactSizeIterator<Item = SocketSnapshot> + '_ {
        self.sockets.iter().map(|counters| counters.snapshot())
    }

    /// What the sockets of all workers counted.
    #[must_use]
    pub fn sockets(&self) -> SocketSnapshot {
        let mut sum = SocketSnapshot::default();
        self.worker_sockets().for_each(|worker| sum += worker);
        sum
    }

    /// How the memory for buffers is used.
    #[must_use]
    pub fn pool(&self) -> PoolUse {
        let sum = |bytes: fn(&NodePool) -> u64| self.pools.iter().map(bytes).sum();
        PoolUse {
            budget_bytes: sum(NodePool::budget_bytes),
            mapped_bytes: sum(NodePool::mapped_bytes),
            used_bytes: sum(NodePool::used_bytes),
            pressure: self.pools.iter().map(NodePool::pressure).max().unwrap_or(Pressure::None),
            kind: self.pools.iter().map(NodePool::kind).min().unwrap_or(MemoryKind::Plain),
        }
    }

    /// Connections that count against the limits now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.admission.total()
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("workers", &self.workers)
            .field("sockets", &self.sockets)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}
