//! `hioload-ws topology`: the machine's nodes, cores and NICs, and where `serve` with the same
//! options would put its workers; as a table or as JSON.

use std::fmt;

use clap::Args;
use hioload_ws::topology::{Core, Nic, Node, Placement, Source, Topology};
use serde_json::{Value, json};

use crate::cli::ServeArgs;

/// Shows NUMA nodes, cores and NICs, and where `serve` with the same options puts its workers.
#[derive(Args)]
pub struct TopologyArgs {
    #[command(flatten)]
    pub serve: Box<ServeArgs>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What is told.
pub struct Told {
    pub topology: Topology,
    pub placement: Placement,
    /// The NIC that the workers are for.
    pub nic: Option<String>,
}

impl Told {
    fn warning(&self) -> Option<String> {
        self.placement.warning(self.nic.as_deref()?)
    }

    pub fn json(&self) -> Value {
        let Told { topology, placement, nic } = self;
        let core = |core: &Core| -> Value {
            core.cpus.iter().map(|cpu| json!({"cpu": cpu.number, "allowed": cpu.allowed})).collect()
        };
        let node = |node: &Node| {
            json!({
                "node": node.number,
                "memory_bytes": node.memory_bytes,
                "cores": node.cores.iter().map(core).collect::<Value>(),
            })
        };
        let of_nic = |nic: &Nic| {
            json!({
                "pci": nic.pci,
                "interfaces": nic.interfaces,
                "model": nic.model,
                "node": nic.node,
            })
        };
        let places = placement.places.as_ref();
        let workers = places.map(|places| {
            let place = |(worker, place): (usize, &hioload_ws::topology::Place)| {
                json!({"worker": worker, "cpu": place.cpu, "node": place.node})
            };
            places.iter().enumerate().map(place).collect::<Value>()
        });
        json!({
            "source": match topology.source {
                Source::Hwloc => "hwloc",
                Source::CpuMask { .. } => "cpu-mask",
            },
            "nodes": topology.nodes.iter().map(node).collect::<Value>(),
            "nics": topology.nics.iter().map(of_nic).collect::<Value>(),
            "workers": placement.workers,
            "nic": nic,
            "nic_node": placement.near,
            "places": workers.ok(),
            "unplaced_why": places.err(),
            "warning": self.warning(),
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { topology, placement, nic } = self;
        writeln!(f, "topology: {}", topology.source)?;
        for node in &topology.nodes {
            write!(f, "  node {:<3} ", node.number)?;
            match node.memory_bytes {
                Some(bytes) => write!(f, "{:>7.1} GiB", bytes as f64 / f64::from(1 << 30))?,
                None => write!(f, "   memory ?")?,
            }
            writeln!(f, "  {}", Cores(&node.cores))?;
        }
        for nic in &topology.nics {
            let node = nic.node.map_or_else(|| "no node".into(), |node| format!("node {node}"));
            write!(f, "  NIC {}  {node}", nic.pci)?;
            for text in nic.interfaces.iter().chain(&nic.model) {
                write!(f, "  {text}")?;
            }
            writeln!(f)?;
        }
        write!(f, "workers: {}", placement.workers)?;
        match (nic, placement.near) {
            (Some(nic), Some(node)) => writeln!(f, ", for {nic} at node {node}")?,
            (Some(nic), None) => writeln!(f, ", for {nic}, whose node isn't known")?,
            (None, _) => writeln!(f)?,
        }
        match &placement.places {
            Ok(places) => {
                for (worker, place) in places.iter().enumerate() {
                    writeln!(f, "  worker {worker:<4} CPU {:<4} node {}", place.cpu, place.node)?;
                }
            }
            Err(why) => writeln!(f, "  not pinned: {why}")?,
        }
        if let Some(warning) = self.warning() {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// The CPUs of a node's cores: `0+4 1+5 (2+6)`.
struct Cores<'a>(&'a [Core]);

impl fmt::Display for Cores<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no CPUs");
        }
        f.write_str("CPUs")?;
        for core in self.0 {
            f.write_str(" ")?;
            for (at, cpu) in core.cpus.iter().enumerate() {
                let joint = if at == 0 { "" } else { "+" };
                match cpu.allowed {
                    true => write!(f, "{joint}{}", cpu.number)?,
                    false => write!(f, "{joint}({})", cpu.number)?,
                }
            }
        }
        let all = || self.0.iter().flat_map(|core| &core.cpus);
        if all().any(|cpu| !cpu.allowed) {
            f.write_str("  (in brackets: not for this process)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hioload_ws::topology::{Cpu, Place};

    fn told() -> Told {
        let cpu = |number, allowed| Cpu { number, allowed };
        let nodes = vec![
            Node {
                number: 0,
                memory_bytes: Some(3 << 29),
                cores: vec![
                    Core { cpus: vec![cpu(0, true), cpu(2, false)] },
                    Core { cpus: vec![cpu(1, true)] },
                ],
            },
            Node { number: 1, memory_bytes: None, cores: vec![] },
        ];
        let nics = vec![Nic {
            pci: "0000:81:00.0".into(),
            interfaces: vec!["ens1".into()],
            model: Some("A fast one".into()),
            node: Some(1),
        }];
        let places = Ok(vec![Place { cpu: 1, node: 0 }]);
        Told {
            topology: Topology { source: Source::Hwloc, nodes, nics },
            placement: Placement { places, near: Some(1), workers: 1 },
            nic: Some("ens1".into()),
        }
    }

    #[test]
    fn the_table_says_who_is_where() {
        let text = told().to_string();
        for part in [
            "node 0       1.5 GiB  CPUs 0+(2) 1  (in brackets",
            "node 1      memory ?  no CPUs",
            "NIC 0000:81:00.0  node 1  ens1  A fast one",
            "workers: 1, for ens1 at node 1",
            "worker 0    CPU 1    node 0",
            "warning: ens1 is at NUMA node 1",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let json = told().json();
        assert_eq!(json["nodes"][0]["cores"][0][1], json!({"cpu": 2, "allowed": false}));
        assert_eq!(json["nics"][0]["pci"], "0000:81:00.0");
        assert_eq!(json["places"], json!([{"worker": 0, "cpu": 1, "node": 0}]));
        assert!(json["warning"].as_str().is_some_and(|text| text.contains("node 1")));
        let unpinned = Placement { places: Err("a quota".into()), near: None, workers: 3 };
        let json = Told { placement: unpinned, nic: None, ..told() }.json();
        assert_eq!((&json["places"], &json["unplaced_why"]), (&Value::Null, &json!("a quota")));
    }
}
