//! Where a server's workers would go, told without opening anything.

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
        let workers = match &self.network {
            Some(_) => 1,
            None => launch::resolved_workers(self.workers, usable),
        };
        let near = self.nic().and_then(|nic| topology.node_of_nic(nic));
        Ok(topology.place(workers, usable, near, End::First))
    }

    /// The NIC that it takes for itself, by its interface or its PCI address; `None`: none, or not
    /// known before DPDK looked for it.
    #[must_use]
    pub fn nic(&self) -> Option<&str> {
        self.network.as_ref()?.device()
    }
}
