//! The memory for buffers: a pool for each NUMA node that workers are on. Where there is one node,
//! or the scheduler places the workers, it is one pool for all of them.

use hioload_core::pool::{NodePool, PoolConfig, default_budget};

use super::error::Error;
use crate::topology::{Placement, Topology};

/// The pools, each for the workers of a node.
pub(crate) struct Pools {
    /// Of one node: `None`, where it doesn't matter which.
    by_node: Vec<(Option<u32>, NodePool)>,
    pub(crate) budget_bytes: u64,
}

impl Pools {
    /// Makes them. The budget is for all together; without one it is the default of these nodes,
    /// but not above the machine's.
    pub(crate) fn new(
        topology: &Topology,
        placement: &Placement,
        budget_bytes: Option<u64>,
    ) -> Result<Pools, Error> {
        let nodes = placement.nodes();
        let one = topology.nodes.len() < 2 || nodes.is_empty();
        let budget_bytes = budget_bytes.unwrap_or_else(|| match one {
            true => default_budget(None),
            false => {
                let of_nodes = nodes.iter().map(|&(node, _)| default_budget(Some(node))).sum();
                default_budget(None).min(of_nodes)
            }
        });
        let pool = |node, budget_bytes| {
            let pool = NodePool::new(PoolConfig { node, budget_bytes, huge: true });
            pool.map(|pool| (node, pool)).map_err(Error::Memory)
        };
        let by_node = match one {
            true => vec![pool(None, budget_bytes)?],
            false => split(budget_bytes, &nodes)
                .map(|(node, bytes)| pool(Some(node), bytes))
                .collect::<Result<_, _>>()?,
        };
        Ok(Pools { by_node, budget_bytes })
    }

    /// The pool of a node's workers.
    pub(crate) fn of(&self, node: Option<u32>) -> &NodePool {
        let its = self.by_node.iter().find(|(of, _)| *of == node);
        &its.unwrap_or(&self.by_node[0]).1
    }

    /// All of them; at least one.
    pub(crate) fn all(&self) -> impl Iterator<Item = &NodePool> {
        self.by_node.iter().map(|(_, pool)| pool)
    }

    /// The nodes that they are on; empty where that doesn't matter.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.by_node.iter().filter_map(|(node, _)| *node).collect()
    }
}

/// Shares a budget out by how many workers a node has.
fn split(bytes: u64, nodes: &[(u32, usize)]) -> impl Iterator<Item = (u32, u64)> {
    let workers: usize = nodes.iter().map(|(_, workers)| workers).sum();
    let each = bytes / workers.max(1) as u64;
    nodes.iter().map(move |&(node, workers)| (node, each * workers as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{End, made_up};

    #[test]
    fn one_node_has_one_pool_wherever_its_workers_are() {
        let topology = made_up::nodes(&[&[0, 1]]);
        let placement = topology.place(2, 2, None, End::First);
        let pools = Pools::new(&topology, &placement, Some(64 << 20)).unwrap();
        assert_eq!((pools.nodes(), pools.all().count()), (vec![], 1));
        assert_eq!(pools.of(Some(0)).budget_bytes(), 64 << 20);
    }

    #[test]
    fn workers_that_the_scheduler_places_share_one_pool() {
        let topology = made_up::nodes(&[&[0], &[1]]);
        let placement = topology.place(3, 2, None, End::First);
        let pools = Pools::new(&topology, &placement, Some(64 << 20)).unwrap();
        assert_eq!((pools.nodes(), pools.all().count()), (vec![], 1));
    }

    #[test]
    fn a_budget_is_shared_out_by_the_workers_of_a_node() {
        assert!(split(90, &[(0, 1), (3, 2)]).eq([(0, 30), (3, 60)]));
        assert!(split(90, &[]).eq([]));
    }
}
