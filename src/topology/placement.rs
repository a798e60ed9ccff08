//! Who goes where: each worker gets a CPU of its own, those at the NIC's node first, and of a core
//! with several hardware threads the second one only when every core has a worker.

use super::{Core, Node, Topology};

/// Where a worker goes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// The node of that CPU, and of its memory.
    pub node: u32,
}

/// Where the workers go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The place of each worker, or why the scheduler places them.
    pub places: Result<Vec<Place>, String>,
    /// The node that they should be near: the NIC's.
    pub near: Option<u32>,
    /// How many workers there are.
    pub workers: usize,
}

/// From which end of the order workers take their CPUs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The first ones: a server.
    First,
    /// The last ones: a client, so that a server on the same machine keeps the first.
    Last,
}

impl Topology {
    /// The CPUs that this process may use, in the order in which workers take them.
    #[must_use]
    pub fn order(&self, near: Option<u32>) -> Vec<Place> {
        let mut nodes: Vec<&Node> = self.nodes.iter().collect();
        // Stable: the others stay in their order.
        nodes.sort_by_key(|node| Some(node.number) != near);
        nodes.into_iter().flat_map(Node::order).collect()
    }

    /// Places so many workers near a node. `usable`: of how many CPUs a scheduler's quota gives
    /// the time.
    pub(crate) fn place(
        &self,
        workers: usize,
        usable: usize,
        near: Option<u32>,
        end: End,
    ) -> Placement {
        let mut order = self.order(near);
        let cpus = order.len();
        if end == End::Last {
            order.reverse();
        }
        let places = if cpus == 0 {
            Err("this system doesn't say which cores are allowed".into())
        } else if workers > cpus {
            Err(format!("there are more workers than the {cpus} allowed cores"))
        } else if usable < cpus {
            // Pinned, every container of a large machine would sit on its first cores.
            Err(format!(
                "a CPU quota gives {usable} of the {cpus} allowed cores, and others use them too"
            ))
        } else {
            order.truncate(workers);
            Ok(order)
        };
        Placement { places, near, workers }
    }
}

impl Node {
    fn order(&self) -> Vec<Place> {
        let allowed = |core: &Core| -> Vec<usize> {
            core.cpus.iter().filter(|cpu| cpu.allowed).map(|cpu| cpu.number).collect()
        };
        let cores: Vec<Vec<usize>> = self.cores.iter().map(allowed).collect();
        let threads = cores.iter().map(Vec::len).max().unwrap_or(0);
        let nth = |n: usize| cores.iter().filter_map(move |cpus| cpus.get(n));
        (0..threads).flat_map(nth).map(|&cpu| Place { cpu, node: self.number }).collect()
    }
}

impl Placement {
    /// Workers at given CPUs, as where an operator chose them.
    pub(crate) fn fixed(topology: &Topology, cpus: &[usize], near: Option<u32>) -> Placement {
        let place =
            |&cpu: &usize| Place { cpu, node: topology.node_of_cpu(cpu).unwrap_or_default() };
        let places = Ok(cpus.iter().map(place).collect());
        Placement { places, near, workers: cpus.len() }
    }

    /// The nodes that workers are on, with how many there are; ascending. Empty where the
    /// scheduler places them.
    #[must_use]
    pub fn nodes(&self) -> Vec<(u32, usize)> {
        let mut numbers: Vec<u32> = self.places.iter().flatten().map(|place| place.node).collect();
        numbers.sort_unstable();
        let runs = numbers.chunk_by(|a, b| a == b);
        runs.map(|run| (run[0], run.len())).collect()
    }

    /// What an operator should know: workers that sit at another node than their NIC.
    #[must_use]
    pub fn warning(&self, nic: &str) -> Option<String> {
        let (near, places) = (self.near?, self.places.as_ref().ok()?);
        let far: Vec<String> = places
            .iter()
            .filter(|place| place.node != near)
            .map(|place| format!("{} (node {})", place.cpu, place.node))
            .collect();
        (!far.is_empty()).then(|| {
            format!(
                "{nic} is at NUMA node {near}, but these cores are not: {}; every packet of theirs \
                 crosses between the nodes. Use fewer workers, or allow the process more cores of \
                 node {near} (taskset, cpuset)",
                far.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cpu, made_up};
    use super::*;

    fn cpus(placement: &Placement) -> Vec<usize> {
        placement.places.as_ref().unwrap().iter().map(|place| place.cpu).collect()
    }

    #[test]
    fn workers_get_a_cpu_each_from_the_first_or_from_the_last() {
        let one = made_up::nodes(&[&[2, 5, 7]]);
        assert_eq!(cpus(&one.place(2, 3, None, End::First)), [2, 5]);
        assert_eq!(cpus(&one.place(3, 3, None, End::First)), [2, 5, 7]);
        assert_eq!(cpus(&one.place(2, 3, None, End::Last)), [7, 5]);
    }

    #[test]
    fn more_workers_than_cpus_are_left_to_the_scheduler() {
        let two = made_up::nodes(&[&[0], &[1]]);
        let placement = two.place(3, 2, Some(1), End::First);
        assert!(placement.places.clone().is_err_and(|why| why.contains("the 2 allowed cores")));
        assert_eq!((placement.nodes(), placement.warning("nic")), (vec![], None));
        assert!(made_up::nodes(&[&[]]).place(1, 1, None, End::First).places.is_err());
    }

    #[test]
    fn a_cpu_quota_leaves_workers_to_the_scheduler() {
        let many: Vec<usize> = (0..64).collect();
        let placement = made_up::nodes(&[&many]).place(2, 2, None, End::First);
        assert!(placement.places.is_err_and(|why| why.contains("quota")));
    }

    #[test]
    fn a_nics_node_comes_first_and_the_others_are_warned_of() {
        let two = made_up::nodes(&[&[0, 1], &[2, 3]]);
        let near = two.place(2, 4, Some(1), End::First);
        assert_eq!(cpus(&near), [2, 3]);
        assert_eq!((near.nodes(), near.warning("ens1")), (vec![(1, 2)], None));

        let more = two.place(3, 4, Some(1), End::First);
        assert_eq!(cpus(&more), [2, 3, 0]);
        assert_eq!(more.nodes(), [(0, 1), (1, 2)]);
        let warning = more.warning("ens1").unwrap();
        for part in ["ens1 is at NUMA node 1", "0 (node 0)", "taskset"] {
            assert!(warning.contains(part), "{part:?} is missing in {warning}");
        }
    }

    #[test]
    fn a_node_whose_cpus_are_all_masked_gives_its_nic_to_the_other_node() {
        let mut two = made_up::nodes(&[&[0, 1], &[2, 3]]);
        for core in &mut two.nodes[1].cores {
            core.cpus[0].allowed = false;
        }
        let placement = two.place(1, 2, Some(1), End::First);
        assert_eq!(cpus(&placement), [0]);
        assert!(placement.warning("ens1").is_some_and(|text| text.contains("0 (node 0)")));
    }

    #[test]
    fn second_threads_of_cores_come_after_all_first_ones() {
        let mut one = made_up::nodes(&[&[0, 1, 2]]);
        for (core, second) in one.nodes[0].cores.iter_mut().zip([3, 4, 5]) {
            core.cpus.push(Cpu { number: second, allowed: second != 4 });
        }
        assert_eq!(cpus(&one.place(5, 5, None, End::First)), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn cpus_that_were_chosen_are_kept_and_warned_of() {
        let two = made_up::nodes(&[&[0, 1], &[2, 3]]);
        let placement = Placement::fixed(&two, &[1, 2], Some(0));
        assert_eq!(placement.nodes(), [(0, 1), (1, 1)]);
        assert!(placement.warning("port 0").is_some_and(|text| text.contains("2 (node 1)")));
    }
}
