//! The options of backend dpdk, for `serve`, `topology` and `bench`: with `dpdk-` in front on the
//! command line, as section `[dpdk]` in the file. What follows `--` is the EAL's.

use clap::{Args, ValueEnum};
use hioload_ws::Dpdk;
use serde::{Deserialize, Deserializer};

/// What may be set of DPDK. `None`: not said here.
#[derive(Args, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DpdkOptions {
    /// DPDK's port: its number or its device's name [default: the first one]
    #[arg(id = "dpdk-port", long = "dpdk-port", value_name = "PORT")]
    #[serde(deserialize_with = "number_or_name")]
    pub port: Option<String>,
    /// What a worker without work does on DPDK [default: adaptive]
    #[arg(id = "dpdk-idle", long = "dpdk-idle", value_enum, value_name = "POLICY")]
    pub idle: Option<Idle>,
    /// Descriptors of a receive queue of DPDK [default: the driver's]
    #[arg(id = "dpdk-rx-descriptors", long = "dpdk-rx-descriptors", value_name = "N")]
    pub rx_descriptors: Option<u16>,
    /// Descriptors of a transmit queue of DPDK [default: the driver's]
    #[arg(id = "dpdk-tx-descriptors", long = "dpdk-tx-descriptors", value_name = "N")]
    pub tx_descriptors: Option<u16>,
    /// Packet buffers of a queue pair of DPDK [default: follows from its descriptors]
    #[arg(id = "dpdk-mbufs", long = "dpdk-mbufs", value_name = "N")]
    pub mbufs: Option<u32>,
    /// Let dpdk-dumpcap capture DPDK's packets, which costs a little
    #[arg(id = "dpdk-capture", long = "dpdk-capture", value_name = "BOOL",
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub capture: Option<bool>,
    /// Arguments of DPDK's EAL, in its own syntax, such as -l 1 -a 0000:03:00.0
    #[arg(id = "eal", last = true, value_name = "EAL")]
    pub eal: Vec<String>,
}

/// What a worker without work does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Polls all the time
    Busy,
    /// Polls for a moment, then sleeps between looks
    Adaptive,
}

impl DpdkOptions {
    /// These options, and those of `other` where these say nothing.
    pub fn or(self, other: DpdkOptions) -> DpdkOptions {
        DpdkOptions {
            port: self.port.or(other.port),
            idle: self.idle.or(other.idle),
            rx_descriptors: self.rx_descriptors.or(other.rx_descriptors),
            tx_descriptors: self.tx_descriptors.or(other.tx_descriptors),
            mbufs: self.mbufs.or(other.mbufs),
            capture: self.capture.or(other.capture),
            eal: if self.eal.is_empty() { other.eal } else { self.eal },
        }
    }

    /// What they ask for, where they ask for anything.
    pub fn dpdk(&self) -> Option<Dpdk> {
        if *self == DpdkOptions::default() {
            return None;
        }
        let mut dpdk = Dpdk::new(&self.eal).descriptors(self.rx_descriptors, self.tx_descriptors);
        if let Some(port) = &self.port {
            dpdk = dpdk.port(port);
        }
        if let Some(mbufs) = self.mbufs {
            dpdk = dpdk.mbufs(mbufs);
        }
        dpdk = dpdk.capture(self.capture.unwrap_or(false));
        Some(match self.idle {
            Some(Idle::Busy) => dpdk.idle(hioload_ws::Idle::Busy),
            Some(Idle::Adaptive) | None => dpdk.idle(hioload_ws::Idle::Adaptive),
        })
    }
}

/// `port = 0` is as good as `port = "0"`.
fn number_or_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a port's number or its device's name")]
    enum Port {
        Number(u16),
        Name(String),
    }
    Ok(Some(match Port::deserialize(from)? {
        Port::Number(number) => number.to_string(),
        Port::Name(name) => name,
    }))
}
