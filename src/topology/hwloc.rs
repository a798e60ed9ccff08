//! The machine as hwloc sees it, put into our own model.

use std::ffi::CStr;

use hwlocality::Topology as Hwloc;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::{ObjectAttributes, PCIDeviceAttributes};
use hwlocality::object::types::{OSDeviceType, ObjectType};
use hwlocality::topology::builder::{BuildFlags, TopologyBuilder, TypeFilter};

use super::{Core, Cpu, Nic, Node, Source, Topology};

/// Base class of network controllers, in the upper byte of a PCI class (PCI Code and ID Assignment).
const NETWORK_CONTROLLER: u16 = 0x02;

/// Reads this machine, of which the process may use the CPUs `allowed`.
pub(super) fn read(allowed: &[usize]) -> Result<Topology, String> {
    let topology = build(TopologyBuilder::new())?;
    let read = translate(&topology, |cpu| allowed.contains(&cpu));
    match read.nodes.iter().flat_map(Node::cpus).filter(|cpu| cpu.allowed).count() {
        found if found == allowed.len() => Ok(read),
        found => Err(format!(
            "hwloc knows {found} of the {} CPUs that this process may use",
            allowed.len()
        )),
    }
}

fn build(builder: TopologyBuilder) -> Result<Hwloc, String> {
    let refused = |what: &str, error: &dyn std::fmt::Display| format!("hwloc {what}: {error}");
    let builder = builder
        // What this process may use, its CPU mask says.
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(|error| refused("refused to include all CPUs", &error))?
        .with_io_type_filter(TypeFilter::KeepImportant)
        .map_err(|error| refused("refused to look for NICs", &error))?;
    builder.build().map_err(|error| refused("could not read this machine", &error))
}

fn translate(hwloc: &Hwloc, allowed: impl Fn(usize) -> bool) -> Topology {
    let mut nodes: Vec<Node> = hwloc
        .objects_with_type(ObjectType::NUMANode)
        .filter_map(|object| {
            Some(Node {
                number: u32::try_from(object.os_index()?).ok()?,
                memory_bytes: memory(object),
                cores: Vec::new(),
            })
        })
        .collect();
    nodes.sort_by_key(|node| node.number);
    if nodes.is_empty() {
        nodes.push(Node { number: 0, memory_bytes: None, cores: Vec::new() });
    }
    // Hardware threads of a core come one after the other.
    let mut last_core = None;
    for pu in hwloc.objects_with_type(ObjectType::PU) {
        let Some(number) = pu.os_index() else { continue };
        let core = pu.first_ancestor_with_type(ObjectType::Core);
        let core = core.map(TopologyObject::global_persistent_index);
        let node = node_of(pu).and_then(|number| nodes.iter().position(|n| n.number == number));
        let cores = &mut nodes[node.unwrap_or(0)].cores;
        if core.is_none() || core != last_core || cores.is_empty() {
            cores.push(Core { cpus: Vec::new() });
        }
        last_core = core;
        if let Some(core) = cores.last_mut() {
            core.cpus.push(Cpu { number, allowed: allowed(number) });
            core.cpus.sort_by_key(|cpu| cpu.number);
        }
    }
    Topology { source: Source::Hwloc, nodes, nics: nics(hwloc) }
}

fn memory(node: &TopologyObject) -> Option<u64> {
    match node.attributes()? {
        ObjectAttributes::NUMANode(attributes) => attributes.local_memory().map(u64::from),
        _ => None,
    }
}

/// The node of an object. Where it has several (ordinary and fast memory), the first is the
/// ordinary one; where it is near to all of a machine's nodes, it has none in particular.
fn node_of(object: &TopologyObject) -> Option<u32> {
    object.nodeset()?.first_set().and_then(|index| u32::try_from(usize::from(index)).ok())
}

fn nics(hwloc: &Hwloc) -> Vec<Nic> {
    let nic = |object: &TopologyObject| {
        let Some(ObjectAttributes::PCIDevice(pci)) = object.attributes() else { return None };
        let is_network_device = |child: &&TopologyObject| {
            matches!(child.attributes(), Some(ObjectAttributes::OSDevice(device))
                if device.device_type() == OSDeviceType::Network)
        };
        let interfaces: Vec<String> = object
            .io_children()
            .filter(is_network_device)
            .filter_map(|child| text(child.name()))
            .collect();
        let is_nic = pci.class_id() >> 8 == NETWORK_CONTROLLER || !interfaces.is_empty();
        is_nic.then(|| Nic {
            pci: address(pci),
            interfaces,
            model: text(object.name()),
            node: at_one_node(object),
        })
    };
    hwloc.pci_devices().filter_map(nic).collect()
}

/// The node that a device hangs at; `None` where it hangs at the whole of a larger machine.
fn at_one_node(device: &TopologyObject) -> Option<u32> {
    let at = device.first_non_io_ancestor()?;
    (at.nodeset()?.weight() == Some(1)).then(|| node_of(at)).flatten()
}

fn address(pci: &PCIDeviceAttributes) -> String {
    let (domain, bus) = (pci.domain(), pci.bus_id());
    format!("{domain:04x}:{bus:02x}:{:02x}.{}", pci.bus_device(), pci.function())
}

fn text(name: Option<&CStr>) -> Option<String> {
    name.map(|name| name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::*;

    fn synthetic(description: &str, allowed: impl Fn(usize) -> bool) -> Topology {
        let builder = TopologyBuilder::new().from_synthetic(description).unwrap();
        translate(&build(builder).unwrap(), allowed)
    }

    #[test]
    fn nodes_cores_and_threads_are_as_described() {
        let topology = synthetic("node:2(memory=2GB) core:2 pu:2", |_| true);
        assert_eq!(topology.nodes.len(), 2);
        for node in &topology.nodes {
            assert_eq!(node.cores.len(), 2, "{topology:?}");
            assert!(node.cores.iter().all(|core| core.cpus.len() == 2));
            assert!(node.memory_bytes.is_some_and(|bytes| bytes >= 2_000_000_000));
        }
        let order: Vec<_> = topology.order(Some(1)).iter().map(|place| place.cpu).collect();
        assert_eq!(order, [4, 6, 5, 7, 0, 2, 1, 3]);
    }

    #[test]
    fn a_mask_that_leaves_a_node_empty_is_seen() {
        let topology = synthetic("node:2 core:2 pu:1", |cpu| cpu < 2);
        assert_eq!(topology.nodes[1].cpus().filter(|cpu| cpu.allowed).count(), 0);
        let placement = topology.place(2, 2, Some(1), End::First);
        assert_eq!(placement.nodes(), [(0, 2)]);
        assert!(placement.warning("a NIC").is_some());
    }

    #[test]
    fn numbers_that_interleave_over_the_nodes_are_kept_apart() {
        let topology = synthetic("node:2 core:2 pu:1(indexes=0,2,1,3)", |_| true);
        assert_eq!(topology.nodes[0].cpus().map(|cpu| cpu.number).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(topology.node_of_cpu(1), Some(1));
    }
}
