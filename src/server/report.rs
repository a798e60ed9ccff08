//! How a server started, in a few lines for its operator.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hioload_core::region::MemoryKind;
use hioload_pipeline::{Overflow, Settings};

use crate::topology::Source;

/// How a server started. `Display` writes it for a person, one matter a line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The addresses that it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Name of the backend.
    pub backend: &'static str,
    /// Why that one.
    pub backend_why: &'static str,
    /// The interface that it took for itself, where it did.
    pub network: Option<String>,
    /// For each worker the core that it is pinned to; `None`: it isn't pinned.
    pub pinned: Vec<Option<usize>>,
    /// Why no worker is pinned.
    pub unpinned_why: Option<String>,
    /// Who told what the machine is like.
    pub topology: Source,
    /// How many NUMA nodes it has.
    pub nodes: usize,
    /// What the memory for buffers is made of.
    pub memory_kind: MemoryKind,
    /// The most memory for buffers, in bytes.
    pub memory_budget_bytes: u64,
    /// The NUMA nodes that this memory is taken on; empty where there is one node only, or the
    /// scheduler places the workers.
    pub memory_nodes: Vec<u32>,
    /// The budget is the default.
    pub memory_is_default: bool,
    /// Limits, deadlines and policies.
    pub settings: Settings,
    /// The limit of connections; 0: none.
    pub max_connections: usize,
    /// The limit of connections from an address; 0: none.
    pub max_per_address: usize,
    /// Descriptors that the process may have; `None`: not limited, or not known.
    pub descriptors: Option<u64>,
    /// What is not as asked for, and what to do about it.
    pub warnings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hioload-ws {}", env!("CARGO_PKG_VERSION"))?;
        for address in &self.addresses {
            writeln!(f, "  listening on {address}")?;
        }
        writeln!(f, "  backend      {} ({})", self.backend, self.backend_why)?;
        if let Some(network) = &self.network {
            writeln!(f, "  interface    {network}")?;
        }
        self.write_workers(f)?;
        self.write_memory(f)?;
        self.write_limits(f)?;
        for warning in &self.warnings {
            writeln!(f, "  warning      {warning}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_workers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  workers      {}, ", self.pinned.len())?;
        let cpus: Vec<String> = self.pinned.iter().flatten().map(usize::to_string).collect();
        match (&self.unpinned_why, cpus.is_empty()) {
            (Some(why), _) => writeln!(f, "not pinned: {why}"),
            (None, true) => writeln!(f, "not pinned"),
            (None, false) => writeln!(f, "pinned to cores {}", cpus.join(" ")),
        }
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  memory       {}", self.memory_kind)?;
        let nodes: Vec<String> = self.memory_nodes.iter().map(u32::to_string).collect();
        if !nodes.is_empty() {
            write!(f, " of NUMA node {}", nodes.join(", "))?;
        }
        write!(f, ", budget {}", Bytes(self.memory_budget_bytes))?;
        if self.memory_is_default {
            write!(f, " (a quarter of {})", if nodes.is_empty() { "the machine's" } else { "it" })?;
        }
        writeln!(f)?;
        let plural = if self.nodes == 1 { "" } else { "s" };
        writeln!(f, "  topology     {} NUMA node{plural}, {}", self.nodes, self.topology)
    }

    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.settings;
        let no_limit = |limit: usize| match limit {
            0 => "no limit".into(),
            limit => limit.to_string(),
        };
        write!(
            f,
            "  connections  {} (each address: {})",
            no_limit(self.max_connections),
            no_limit(self.max_per_address)
        )?;
        match self.descriptors {
            Some(descriptors) => writeln!(f, ", {descriptors} descriptors"),
            None => writeln!(f),
        }?;
        let overflow = match s.overflow {
            Overflow::DropNewest => "the newest message is dropped",
            Overflow::DropOldest => "the oldest messages are dropped",
            Overflow::Close => "close 1013",
        };
        writeln!(
            f,
            "  limits       frame {}, message {}, unsent {} (then {overflow}), batch {}, ring {}",
            Bytes(s.limits.max_frame),
            Bytes(s.limits.max_message),
            Bytes(s.max_unsent_bytes as u64),
            s.batch,
            s.ring
        )?;
        writeln!(
            f,
            "  timers       handshake {:?}, ping after {}, dead after {}, drain over {:?} to {:?}",
            s.handshake_timeout,
            OrNever(s.ping_after),
            OrNever(s.dead_after),
            s.drain_spread,
            s.drain_limit
        )
    }
}

/// A number of bytes, in the largest unit that leaves it readable.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (unit, name) in units {
            if self.0 >= unit {
                return match self.0 % unit {
                    0 => write!(f, "{} {name}", self.0 / unit),
                    _ => write!(f, "{:.1} {name}", self.0 as f64 / unit as f64),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

struct OrNever(Duration);

impl fmt::Display for OrNever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_zero() {
            true => f.write_str("never"),
            false => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            addresses: vec!["127.0.0.1:9001".parse().unwrap(), "[::1]:9001".parse().unwrap()],
            backend: "epoll",
            backend_why: "as asked for",
            network: Some("v0, station 02:00:00:00:00:01".into()),
            pinned: vec![Some(0), Some(3)],
            unpinned_why: None,
            topology: Source::Hwloc,
            nodes: 2,
            memory_kind: MemoryKind::Plain,
            memory_budget_bytes: 3 << 30,
            memory_nodes: vec![0, 1],
            memory_is_default: true,
            settings: Settings::default(),
            max_connections: 0,
            max_per_address: 7,
            descriptors: Some(4096),
            warnings: vec!["mind this".into()],
        }
    }

    #[test]
    fn every_address_has_a_line_that_scripts_can_wait_for() {
        let text = report().to_string();
        for address in ["127.0.0.1:9001", "[::1]:9001"] {
            assert!(text.lines().any(|l| l.trim() == format!("listening on {address}")), "{text}");
        }
    }

    #[test]
    fn it_says_what_an_operator_wants_to_know() {
        let text = report().to_string();
        for part in [
            "epoll (as asked for)",
            "interface    v0, station",
            "2, pinned to cores 0 3",
            "plain pages of NUMA node 0, 1, budget 3 GiB (a quarter",
            "topology     2 NUMA nodes, read by hwloc",
            "no limit (each address: 7), 4096 descriptors",
            "unsent 1 MiB (then close 1013)",
            "ping after 30s",
            "warning      mind this",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_their_largest_unit() {
        let texts: Vec<_> =
            [0, 1023, 1024, 1536, 1 << 20, 5 << 30].map(|bytes| Bytes(bytes).to_string()).into();
        assert_eq!(texts, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "5 GiB"]);
    }
}
