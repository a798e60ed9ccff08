//! Where a server's workers would go, told without opening anything.

use super::dpdk::Dpdk;
use super::{Builder, Error, host, launch};
use crate::topology::{End, Placement, Topology};

impl Builder {
    /// Where the workers go on this machine: what [`Builder::start`] would do, as far as it is
    /// known before a device is opened.
    ///
    /// # Errors
    /// As for [`Builder::check`].
    pub fn placement(&self, topology: &Topology) -> Result<Placement, Error> {
        self.check()?;
        let usable = host::usable_cpus();
        let near = self.nic().and_then(|nic| topology.node_of_nic(nic));
        let dpdk = self.launch.network.as_ref().and_then(|network| network.dpdk.as_ref());
        if let Some(mut cores) = dpdk.and_then(Dpdk::listed_cores) {
            if self.launch.workers > 0 {
                cores.truncate(self.launch.workers);
            }
            return Ok(Placement::fixed(topology, &cores, near));
        }
        let workers = match (&self.launch.network, dpdk) {
            (Some(_), None) => 1,
            (Some(_), Some(_)) => self.launch.workers.max(1),
            (None, _) => launch::resolved_workers(self.launch.workers, usable),
        };
        Ok(topology.place(workers, usable, near, End::First))
    }

    /// The NIC that it takes for itself, by its interface or its PCI address; `None`: none, or not
    /// known before DPDK looked for it.
    #[must_use]
    pub fn nic(&self) -> Option<&str> {
        self.launch.network.as_ref()?.device()
    }
}
