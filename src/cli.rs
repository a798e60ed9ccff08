//! The command line. One struct of options serves it and the configuration file, so that their
//! names can't differ.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hioload_ws::{BackendChoice, Builder, Network, Overflow, Server, Settings};
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use crate::dpdk_options::DpdkOptions;
use crate::units::{Size, Span};

/// A WebSocket server: one worker a core, messages in batches, nothing shared.
#[derive(Parser)]
#[command(name = "hioload-ws", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Sizes: 65536, 64KiB, 1MiB. Durations: 500ms, 5s, 1m. Without a command, \
                        `serve` is meant.\nSIGINT or SIGTERM closes all sessions in order (1001) \
                        and ends; a second one ends at once.\nExit codes: 0 ended in order, 1 \
                        failed while it ran, 2 wrong options or configuration.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Box<ServeArgs>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve until a signal ends it (the default)
    Serve(Box<ServeArgs>),
    /// Check a configuration file, and start nothing
    Check {
        /// The file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show NUMA nodes, cores and NICs, and where `serve` with these options puts its workers
    Topology(Box<crate::topology_command::TopologyArgs>),
    /// Measure a server
    Bench(Box<crate::bench::BenchArgs>),
}

#[derive(Args)]
pub struct ServeArgs {
    /// A TOML file with the same options, without the dashes in front; the command line wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
}

/// What may be set. `None`: not said here.
#[derive(Args, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Address to listen on; repeatable [default: 0.0.0.0:9001 and [::]:9001]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<String>,
    /// Worker threads; 0: one a core that this process may use [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// What is done with messages [default: echo]
    #[arg(long, value_enum)]
    pub app: Option<App>,
    /// What moves the bytes: auto, epoll, tap, af-packet, dpdk [default: auto]
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "backend")]
    pub backend: Option<BackendChoice>,
    /// Interface that the server takes for its own TCP/IP (tap, af-packet)
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The server's own address on it, not one of the kernel's; repeatable
    #[arg(long, value_name = "IP/PREFIX")]
    pub address: Vec<String>,
    /// Router on that network, one for each of IPv4 and IPv6; repeatable
    #[arg(long, value_name = "IP")]
    pub gateway: Vec<String>,
    /// Station address on it [default: follows from the interface's]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,
    /// VLAN that its frames belong to, 1 to 4094 [default: none]
    #[arg(long, value_name = "ID")]
    pub vlan: Option<u16>,
    /// Idle time after which a TCP connection keeps 64 bytes only; 0: never [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub freeze_after: Option<Span>,
    /// Receive and send ring that a TCP connection begins with: 2KiB, 16KiB, 64KiB [default: 16KiB]
    #[arg(long, value_name = "SIZE")]
    pub tcp_ring: Option<Size>,
    /// Half-open TCP connections that get memory; SYN cookies beyond [default: 4096]
    #[arg(long, value_name = "N")]
    pub half_open: Option<u32>,
    /// Peer whose packets are written to --trace-file, the first 100000
    #[arg(long, value_name = "IP[:PORT]")]
    pub trace_connection: Option<String>,
    /// File for them, in pcapng format
    #[arg(long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
    /// Messages that a batch hands to the app at most [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Slots of each worker's ring for what other threads send it [default: 1024]
    #[arg(long, value_name = "N")]
    pub ring: Option<usize>,
    /// Connections in all, 503 beyond; 0: as many as memory allows [default: 0]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// Connections from one IP address, 503 beyond; 0: no such limit [default: 0]
    #[arg(long, value_name = "N")]
    pub max_per_ip: Option<usize>,
    /// Payload of a frame, close 1009 beyond [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_frame: Option<Size>,
    /// Payload of a message, close 1009 beyond [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_message: Option<Size>,
    /// Unsent bytes of a session before --overflow applies [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub max_unsent: Option<Size>,
    /// What happens to messages for a session that reads too slowly [default: close]
    #[arg(long, value_enum)]
    pub overflow: Option<OverflowPolicy>,
    /// Time for the opening handshake [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub handshake_timeout: Option<Span>,
    /// Idle time before a ping; 0: never [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub ping_after: Option<Span>,
    /// Idle time before a session is closed; 0: never [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub dead_after: Option<Span>,
    /// How long a drain spreads the closing of its sessions [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub drain_spread: Option<Span>,
    /// When a drain drops the sessions that are left [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub drain_limit: Option<Span>,
    /// The most memory for buffers [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// How long an idle worker polls before it sleeps [default: 0]
    #[arg(long, value_name = "TIME")]
    pub spin: Option<Span>,
    /// What is logged to stderr; `info` has a line for each session's begin and end [default: warn]
    #[arg(long, value_enum)]
    pub log: Option<Log>,
    /// The section of the file.
    #[command(flatten)]
    pub dpdk: DpdkOptions,
}

/// A backend's name in the file; the error lists those that are built in.
fn backend<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<BackendChoice>, D::Error> {
    let name = String::deserialize(from)?;
    name.parse().map(Some).map_err(serde::de::Error::custom)
}

/// What is done with messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum App {
    /// Each message goes back to its sender
    #[default]
    Echo,
    /// Each message goes to everybody but its sender
    Broadcast,
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            App::Echo => "echo: each message goes back to its sender",
            App::Broadcast => "broadcast: each message goes to everybody but its sender",
        })
    }
}

/// What happens to messages for a session that reads too slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// The new message is dropped
    DropNewest,
    /// The oldest waiting messages are dropped
    DropOldest,
    /// The session is closed with 1013
    Close,
}

impl From<OverflowPolicy> for Overflow {
    fn from(policy: OverflowPolicy) -> Overflow {
        match policy {
            OverflowPolicy::DropNewest => Overflow::DropNewest,
            OverflowPolicy::DropOldest => Overflow::DropOldest,
            OverflowPolicy::Close => Overflow::Close,
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// Nothing
    Off,
    /// What failed
    Error,
    /// What an operator should look at
    #[default]
    Warn,
    /// Each session's begin and end, too
    Info,
    /// What developers look at
    Debug,
    /// Each batch, too
    Trace,
}

impl Log {
    pub fn filter(self) -> LevelFilter {
        match self {
            Log::Off => LevelFilter::OFF,
            Log::Error => LevelFilter::ERROR,
            Log::Warn => LevelFilter::WARN,
            Log::Info => LevelFilter::INFO,
            Log::Debug => LevelFilter::DEBUG,
            Log::Trace => LevelFilter::TRACE,
        }
    }
}

impl Options {
    /// These options, and those of `other` where these say nothing.
    pub fn or(self, other: Options) -> Options {
        Options {
            listen: if self.listen.is_empty() { other.listen } else { self.listen },
            workers: self.workers.or(other.workers),
            app: self.app.or(other.app),
            backend: self.backend.or(other.backend),
            interface: self.interface.or(other.interface),
            address: if self.address.is_empty() { other.address } else { self.address },
            gateway: if self.gateway.is_empty() { other.gateway } else { self.gateway },
            mac: self.mac.or(other.mac),
            vlan: self.vlan.or(other.vlan),
            freeze_after: self.freeze_after.or(other.freeze_after),
            tcp_ring: self.tcp_ring.or(other.tcp_ring),
            half_open: self.half_open.or(other.half_open),
            trace_connection: self.trace_connection.or(other.trace_connection),
            trace_file: self.trace_file.or(other.trace_file),
            batch: self.batch.or(other.batch),
            ring: self.ring.or(other.ring),
            max_connections: self.max_connections.or(other.max_connections),
            max_per_ip: self.max_per_ip.or(other.max_per_ip),
            max_frame: self.max_frame.or(other.max_frame),
            max_message: self.max_message.or(other.max_message),
            max_unsent: self.max_unsent.or(other.max_unsent),
            overflow: self.overflow.or(other.overflow),
            handshake_timeout: self.handshake_timeout.or(other.handshake_timeout),
            ping_after: self.ping_after.or(other.ping_after),
            dead_after: self.dead_after.or(other.dead_after),
            drain_spread: self.drain_spread.or(other.drain_spread),
            drain_limit: self.drain_limit.or(other.drain_limit),
            memory: self.memory.or(other.memory),
            spin: self.spin.or(other.spin),
            log: self.log.or(other.log),
            dpdk: self.dpdk.or(other.dpdk),
        }
    }

    /// The network that any of its options asks for: one without an interface is refused later.
    pub fn network(&self) -> Option<Network> {
        let mut network = Network::on(self.interface.as_deref().unwrap_or_default());
        for address in &self.address {
            network = network.address(address);
        }
        for gateway in &self.gateway {
            network = network.gateway(gateway);
        }
        if let Some(mac) = &self.mac {
            network = network.mac(mac);
        }
        if let Some(id) = self.vlan {
            network = network.vlan(id);
        }
        if let Some(idle) = self.freeze_after {
            network = network.freeze_after(idle.0);
        }
        if let Some(bytes) = self.tcp_ring {
            network = network.ring_bytes(bytes.0);
        }
        if let Some(connections) = self.half_open {
            network = network.half_open(connections);
        }
        if self.trace_connection.is_some() || self.trace_file.is_some() {
            let peer = self.trace_connection.clone().unwrap_or_default();
            network = network.trace(peer, self.trace_file.clone().unwrap_or_default());
        }
        if let Some(dpdk) = self.dpdk.dpdk() {
            network = network.dpdk(dpdk);
        }
        (network != Network::default()).then_some(network)
    }

    /// The server that they describe.
    pub fn builder(&self) -> Builder {
        let mut s = Settings::default();
        set(&mut s.batch, self.batch);
        set(&mut s.ring, self.ring);
        set(&mut s.limits.max_frame, self.max_frame.map(|size| size.0));
        set(&mut s.limits.max_message, self.max_message.map(|size| size.0));
        let unsent = self.max_unsent.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        set(&mut s.max_unsent_bytes, unsent);
        set(&mut s.overflow, self.overflow.map(Overflow::from));
        for (setting, span) in [
            (&mut s.handshake_timeout, self.handshake_timeout),
            (&mut s.ping_after, self.ping_after),
            (&mut s.dead_after, self.dead_after),
            (&mut s.drain_spread, self.drain_spread),
            (&mut s.drain_limit, self.drain_limit),
            (&mut s.spin, self.spin),
        ] {
            set(setting, span.map(|span| span.0));
        }
        let mut builder = Server::builder()
            .settings(s)
            .workers(self.workers.unwrap_or(0))
            .backend(self.backend.unwrap_or_default())
            .max_connections(self.max_connections.unwrap_or(0))
            .max_per_address(self.max_per_ip.unwrap_or(0));
        for address in &self.listen {
            builder = builder.listen(address);
        }
        if let Some(network) = self.network() {
            builder = builder.network(network);
        }
        match self.memory {
            Some(size) => builder.memory_budget(size.0),
            None => builder,
        }
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Options {
        let cli = Cli::try_parse_from([&["hioload-ws"], args].concat()).unwrap();
        match cli.command {
            Some(Command::Serve(serve)) => serve.options,
            Some(_) => panic!("not serve"),
            None => cli.serve.options,
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let args = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--max-frame", "2MiB"];
        assert_eq!(parse(&args), parse(&[&["serve"], &args[..]].concat()));
        assert_eq!(parse(&args).listen.len(), 2);
    }

    #[test]
    fn every_option_of_the_command_line_is_one_of_the_file_and_back() {
        let command = <Cli as clap::CommandFactory>::command();
        let mut names: Vec<_> = command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|name| !["config", "help", "version"].contains(name))
            .collect();
        names.sort_unstable();
        // The parser lists the keys that it knows.
        let fields = |text, section: &str| -> Vec<String> {
            let message = toml::from_str::<Options>(text).unwrap_err().to_string();
            message.split('`').skip(3).step_by(2).map(|name| format!("{section}{name}")).collect()
        };
        let mut known = fields("none-such = 1", "");
        known.extend(fields("[dpdk]\nnone-such = 1", "dpdk-"));
        // The section itself, and what follows `--`.
        known.retain(|name| !["dpdk", "dpdk-eal"].contains(&name.as_str()));
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn what_follows_two_dashes_is_the_eals() {
        let first = parse(&["--dpdk-idle", "busy", "--", "-l", "1", "--vdev=net_tap0"]);
        assert_eq!(first.dpdk.eal, ["-l", "1", "--vdev=net_tap0"]);
        let second = parse(&["serve", "--dpdk-port", "1", "--", "-l", "2"]);
        let both = first.or(second).dpdk;
        assert_eq!((both.eal.len(), both.port.as_deref()), (3, Some("1")));
    }

    #[test]
    fn what_the_first_says_wins_and_the_second_fills_in() {
        let first = parse(&["--workers", "3", "--listen", "127.0.0.1:1"]);
        let second = parse(&["--workers", "5", "--batch", "8", "--listen", "127.0.0.1:2"]);
        let both = first.or(second);
        assert_eq!((both.workers, both.batch), (Some(3), Some(8)));
        assert_eq!(both.listen, ["127.0.0.1:1"]);
    }
}
