//! The machine as placement sees it: NUMA nodes, their cores with the logical CPUs of each, and the
//! NICs near them; and in which order workers take the CPUs.
//!
//! It is read once, by hwloc where the feature `hwloc` is built in, else from the process's own CPU
//! mask as one node. A model of our own stands between, so that placement can be tried on machines
//! that nobody has.

#[cfg(feature = "hwloc")]
mod hwloc;
mod placement;

use std::fmt;

pub(crate) use placement::End;
pub use placement::{Place, Placement};

use crate::server::host;

/// What was found of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Who told it.
    pub source: Source,
    /// The NUMA nodes, by their numbers; at least one.
    pub nodes: Vec<Node>,
    /// The NICs on PCI; none where only the CPU mask was read.
    pub nics: Vec<Nic>,
}

/// Who told what the machine is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// hwloc.
    Hwloc,
    /// The process's CPU mask, and why not hwloc.
    CpuMask {
        /// Why.
        why: String,
    },
}

/// A NUMA node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// The system's number for it.
    pub number: u32,
    /// Its memory in bytes; `None`: not known.
    pub memory_bytes: Option<u64>,
    /// Its cores. A node may have none (memory only).
    pub cores: Vec<Core>,
}

/// A physical core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Core {
    /// Its logical CPUs (hardware threads), ascending.
    pub cpus: Vec<Cpu>,
}

/// A logical CPU: what a thread is pinned to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The system's number for it.
    pub number: usize,
    /// Whether this process may use it.
    pub allowed: bool,
}

/// A NIC on PCI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Its PCI address, as in `0000:03:00.0`.
    pub pci: String,
    /// The kernel's interfaces on it; none where DPDK has it.
    pub interfaces: Vec<String>,
    /// What it is called; `None`: not known.
    pub model: Option<String>,
    /// The node that it is at; `None`: at none in particular.
    pub node: Option<u32>,
}

impl Topology {
    /// Reads the machine's.
    #[must_use]
    pub fn read() -> Topology {
        let allowed = host::allowed_cpus();
        match read_by_hwloc(&allowed) {
            Ok(topology) => topology,
            Err(why) => Topology::of_cpu_mask(&allowed, why),
        }
    }

    /// One node with these CPUs, a core each.
    fn of_cpu_mask(allowed: &[usize], why: String) -> Topology {
        let core = |&number: &usize| Core { cpus: vec![Cpu { number, allowed: true }] };
        let cores = allowed.iter().map(core).collect();
        Topology {
            source: Source::CpuMask { why },
            nodes: vec![Node { number: 0, memory_bytes: None, cores }],
            nics: Vec::new(),
        }
    }

    /// The node of a NIC, by its PCI address (with or without the domain) or one of its interfaces.
    #[must_use]
    pub fn node_of_nic(&self, name: &str) -> Option<u32> {
        let is_it = |nic: &&Nic| {
            let short = nic.pci.strip_prefix("0000:");
            let address = nic.pci.eq_ignore_ascii_case(name)
                || short.is_some_and(|short| short.eq_ignore_ascii_case(name));
            address || nic.interfaces.iter().any(|interface| interface == name)
        };
        self.nics.iter().find(is_it).and_then(|nic| nic.node)
    }

    /// The node of a CPU.
    #[must_use]
    pub fn node_of_cpu(&self, cpu: usize) -> Option<u32> {
        let has = |node: &&Node| node.cpus().any(|its| its.number == cpu);
        self.nodes.iter().find(has).map(|node| node.number)
    }
}

impl Node {
    /// Its logical CPUs, core by core.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + '_ {
        self.cores.iter().flat_map(|core| core.cpus.iter().copied())
    }
}

#[cfg(feature = "hwloc")]
fn read_by_hwloc(allowed: &[usize]) -> Result<Topology, String> {
    hwloc::read(allowed)
}

#[cfg(not(feature = "hwloc"))]
fn read_by_hwloc(_: &[usize]) -> Result<Topology, String> {
    Err("this program was built without the feature `hwloc`".into())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hwloc => f.write_str("read by hwloc"),
            Source::CpuMask { why } => {
                write!(f, "the process's CPU mask, taken as one node: {why}")
            }
        }
    }
}

/// Machines for tests.
#[cfg(test)]
pub(crate) mod made_up {
    use super::*;

    /// Nodes with these allowed CPUs; a core each.
    pub(crate) fn nodes(cpus: &[&[usize]]) -> Topology {
        let cores: Vec<Vec<Core>> = cpus
            .iter()
            .map(|cpus| {
                cpus.iter()
                    .map(|&n| Core { cpus: vec![Cpu { number: n, allowed: true }] })
                    .collect()
            })
            .collect();
        let node = |(number, cores)| Node { number, memory_bytes: Some(1 << 30), cores };
        Topology {
            source: Source::Hwloc,
            nodes: (0..).zip(cores).map(node).collect(),
            nics: vec![Nic {
                pci: "0000:81:00.0".into(),
                interfaces: vec!["ens1".into()],
                model: None,
                node: Some(1),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_hwloc_the_cpu_mask_is_one_node() {
        let topology = Topology::of_cpu_mask(&[2, 5], "because".into());
        assert_eq!(topology.nodes.len(), 1);
        assert_eq!(topology.node_of_cpu(5), Some(0));
        assert_eq!(topology.node_of_cpu(3), None);
        assert!(topology.source.to_string().ends_with("because"), "{}", topology.source);
    }

    #[test]
    fn this_machine_has_the_cpus_that_this_process_may_use() {
        let topology = Topology::read();
        let allowed = |node: &Node| node.cpus().filter(|cpu| cpu.allowed).count();
        let count: usize = topology.nodes.iter().map(allowed).sum();
        assert_eq!(count, host::allowed_cpus().len(), "{topology:?}");
        assert_eq!(topology.source == Source::Hwloc, cfg!(feature = "hwloc"), "{topology:?}");
    }

    #[test]
    fn a_nic_is_found_by_address_and_by_interface() {
        let topology = made_up::nodes(&[&[0], &[1]]);
        for name in ["0000:81:00.0", "81:00.0", "ens1"] {
            assert_eq!(topology.node_of_nic(name), Some(1), "{name}");
        }
        assert_eq!(topology.node_of_nic("82:00.0"), None);
    }
}
