//! The command line of `hioload-ws bench`, and the plan that it makes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hioload_ws::{BackendChoice, Client, ClientBuilder, Kind, Network, Settings};

use super::payload::Payloads;
use super::sizes::Sizes;
use crate::cli::Options;
use crate::dpdk_options::DpdkOptions;
use crate::units::{Size, Span};

/// Sequence numbers that fan-out's receivers keep at most: one a connection and sender.
const MAX_PAIRS: usize = 4 << 20;
/// Messages a connection may have in flight.
pub const MAX_DEPTH: u32 = 65_536;

/// Measures a WebSocket server.
///
/// Without --rate each connection keeps --depth messages in flight (closed loop). With it all
/// connections together send so many messages a second whatever the server does (open loop), and
/// latencies count from when a message was due, so that a server that stalls can't hide it.
#[derive(Args, Debug)]
#[command(after_help = "Sizes: 64, 1-1024 (uniform), 64:70,1024:25,16384:5 (with weights). \
                        Durations: 500ms, 5s, 1m.\nExit codes: 0 measured, 1 with errors or not \
                        at all, 2 wrong options.\nThe summary goes to stdout, or with --json to \
                        stderr; SIGINT ends early with what was measured.")]
pub struct BenchArgs {
    /// The server, as ws://HOST:PORT/PATH
    pub url: String,
    /// What is measured
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// The same as --mode handshake
    #[arg(long, group = "short")]
    pub handshake: bool,
    /// The same as --mode idle
    #[arg(long, group = "short")]
    pub idle: bool,
    /// The same as --mode fan-out
    #[arg(long, group = "short", conflicts_with = "mode")]
    pub fan_out: bool,
    /// Connections in all; with --handshake: at a time
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub connections: usize,
    /// Bytes of a message: fixed, a range, or a list with weights
    #[arg(long, value_name = "SIZES", default_value = "64")]
    pub size: Sizes,
    /// Messages that each connection keeps in flight; with --rate: has at most
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Messages (handshakes) a second in all, at fixed times; fan-out: 100 unless set
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub duration: Span,
    /// How long the load runs before that
    #[arg(long, value_name = "TIME", default_value = "200ms")]
    pub warmup: Span,
    /// Worker threads; 0: one a core
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// Connections that send, in fan-out
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub senders: usize,
    /// Connections opened a second at most; 0: as fast as they open
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub ramp: f64,
    /// Time for a handshake, and for the last answers
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub timeout: Span,
    /// Offer a subprotocol; repeatable
    #[arg(long, value_name = "NAME")]
    pub subprotocol: Vec<String>,
    /// Add a header to the request, as `Name: value`; repeatable
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub header: Vec<(String, String)>,
    /// Send text (ASCII) instead of binary messages
    #[arg(long, conflicts_with = "binary")]
    pub text: bool,
    /// Send binary messages (the default)
    #[arg(long)]
    pub binary: bool,
    /// What moves the bytes: auto, epoll, tap, af-packet, dpdk
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub backend: BackendChoice,
    /// Interface to take for this program's own TCP/IP (tap, af-packet); one worker
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Address of its own on it, not one of the kernel's; repeatable
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
    /// Idle time after which its TCP connections keep 64 bytes only; 0: never [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub freeze_after: Option<Span>,
    /// Receive and send ring that they begin with: 2KiB, 16KiB, 64KiB [default: 16KiB]
    #[arg(long, value_name = "SIZE")]
    pub tcp_ring: Option<Size>,
    /// Leave the workers to the scheduler; else each has a core of its own, the last core first
    #[arg(long)]
    pub no_pin: bool,
    /// Print one JSON object to stdout
    #[arg(long)]
    pub json: bool,
    /// Write an HDR interval log (V2, values in ns)
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write a report with plots, one self-contained HTML file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub dpdk: DpdkOptions,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Mode {
    /// Each message comes back
    #[default]
    Echo,
    /// Connections are opened and closed, again and again
    Handshake,
    /// Connections are held
    Idle,
    /// Some send, all others receive
    FanOut,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Handshake => "handshake",
            Mode::Idle => "idle",
            Mode::FanOut => "fan-out",
        }
    }

    /// What it counts, in the plural.
    pub fn unit(self) -> &'static str {
        match self {
            Mode::Echo | Mode::Idle => "messages",
            Mode::Handshake => "handshakes",
            Mode::FanOut => "deliveries",
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    Ok((name.trim().into(), value.trim().into()))
}

/// A run, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub url: String,
    pub mode: Mode,
    pub connections: usize,
    pub senders: usize,
    pub sizes: Sizes,
    pub kind: Kind,
    pub depth: u32,
    /// Messages a second in all; `None`: closed loop.
    pub rate: Option<f64>,
    pub duration: Duration,
    pub warmup: Duration,
    /// Connections opened a second; `None`: as they open.
    pub ramp: Option<f64>,
    pub timeout: Duration,
}

impl BenchArgs {
    /// What is to be measured.
    ///
    /// # Errors
    /// What doesn't fit together.
    pub fn plan(&self) -> Result<Plan, String> {
        let mode = match (self.handshake, self.idle, self.fan_out) {
            (true, ..) => Mode::Handshake,
            (_, true, _) => Mode::Idle,
            (.., true) => Mode::FanOut,
            _ => self.mode,
        };
        let kind = if self.text { Kind::Text } else { Kind::Binary };
        let positive = |name, value: f64| match value.is_finite() && value > 0.0 && value <= 1e9 {
            true => Ok(value),
            false => Err(format!("--{name} {value}: write a number above 0, at most 1e9")),
        };
        let rate = match (self.rate, mode) {
            (Some(_), Mode::Idle) => return Err("--rate: an idle connection sends nothing".into()),
            (Some(rate), _) => Some(positive("rate", rate)?),
            (None, Mode::FanOut) => Some(100.0),
            (None, _) => None,
        };
        let ramp = if self.ramp == 0.0 { None } else { Some(positive("ramp", self.ramp)?) };
        if self.connections == 0 {
            return Err("--connections 0: at least one".into());
        }
        if self.duration.0.is_zero() || self.timeout.0.is_zero() {
            return Err("--duration and --timeout: more than 0".into());
        }
        let depth = self.depth.unwrap_or(if rate.is_some() { MAX_DEPTH } else { 1 });
        if !(1..=MAX_DEPTH).contains(&depth) {
            return Err(format!("--depth {depth}: 1 to {MAX_DEPTH}"));
        }
        if mode == Mode::FanOut {
            let least = Payloads::least_stamped(kind);
            if self.size.smallest() < least {
                return Err(format!(
                    "--size {}: in fan-out a message says who sent it, which takes {least} bytes",
                    self.size
                ));
            }
            if self.senders == 0 || self.connections < 2 || self.senders > self.connections {
                return Err("fan-out takes at least one sender and one other connection".into());
            }
            if self.connections.saturating_mul(self.senders) > MAX_PAIRS {
                return Err(format!(
                    "{} connections x {} senders: at most {MAX_PAIRS} pairs are kept track of",
                    self.connections, self.senders
                ));
            }
        }
        Ok(Plan {
            url: self.url.clone(),
            mode,
            connections: self.connections,
            senders: if mode == Mode::FanOut { self.senders } else { 0 },
            sizes: self.size.clone(),
            kind,
            depth,
            rate,
            duration: self.duration.0,
            warmup: if mode == Mode::Idle { Duration::ZERO } else { self.warmup.0 },
            ramp,
            timeout: self.timeout.0,
        })
    }

    /// The network that any of its options asks for: they mean what they mean to `serve`.
    pub fn network(&self) -> Option<Network> {
        Options {
            interface: self.interface.clone(),
            address: self.address.clone(),
            gateway: self.gateway.clone(),
            mac: self.mac.clone(),
            vlan: self.vlan,
            freeze_after: self.freeze_after,
            tcp_ring: self.tcp_ring,
            dpdk: self.dpdk.clone(),
            ..Options::default()
        }
        .network()
    }

    /// The client that the plan runs on.
    pub fn client(&self, plan: &Plan) -> ClientBuilder {
        let mut settings = Settings {
            handshake_timeout: plan.timeout,
            // What is in flight is bounded by the depth. A side that stopped reading because its
            // own output waits could wait for ever on a server that does the same.
            max_unsent_bytes: usize::MAX / 4,
            ping_after: Duration::ZERO,
            dead_after: Duration::ZERO,
            drain_spread: Duration::ZERO,
            drain_limit: Duration::from_secs(2),
            close_timeout: plan.timeout,
            ..Settings::default()
        };
        let largest = plan.sizes.largest() as u64;
        settings.limits.max_frame = settings.limits.max_frame.max(largest);
        settings.limits.max_message = settings.limits.max_message.max(largest);
        let mut client = Client::builder()
            .url(&self.url)
            .connections(plan.connections)
            .workers(self.workers.min(plan.connections))
            .backend(self.backend)
            .settings(settings)
            .pin(!self.no_pin);
        if let Some(network) = self.network() {
            client = client.network(network);
        }
        for name in &self.subprotocol {
            client = client.subprotocol(name);
        }
        for (name, value) in &self.header {
            client = client.header(name, value);
        }
        client
    }
}
