//! What an operator says of DPDK: the EAL's arguments, which port, and how its queues are. It is
//! the same with and without the feature `dpdk`, so that a build without says what is missing.

use super::error::Error;
#[cfg(any(feature = "dpdk", test))]
use crate::topology::Topology;

/// Whether this build has DPDK.
pub(crate) const BUILT_IN: bool = cfg!(feature = "dpdk");

/// A port of DPDK, and how it is driven. Its address and the like are a
/// [`Network`](crate::Network)'s.
///
/// ```
/// use hioload_ws::{Dpdk, Network};
///
/// let dpdk = Dpdk::new(["-l", "1", "-a", "0000:03:00.0"]).idle(hioload_ws::Idle::Busy);
/// let network = Network::on_dpdk(dpdk).address("192.0.2.7/24");
/// # let _ = network;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Dpdk {
    pub(crate) eal: Vec<String>,
    pub(crate) port: Option<String>,
    pub(crate) idle: Idle,
    pub(crate) rx_descriptors: Option<u16>,
    pub(crate) tx_descriptors: Option<u16>,
    pub(crate) mbufs: Option<u32>,
    pub(crate) capture: bool,
}

/// What a worker does while it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Looks for frames all the time: the least latency, and a core that is always at full load.
    Busy,
    /// Looks for a moment, then sleeps: until a receive interrupt where the device has them, else a
    /// fraction of a millisecond between looks.
    #[default]
    Adaptive,
}

impl Dpdk {
    /// With these arguments of the EAL, in DPDK's own syntax, without a program name.
    pub fn new<T: Into<String>>(eal: impl IntoIterator<Item = T>) -> Self {
        Dpdk { eal: eal.into_iter().map(Into::into).collect(), ..Dpdk::default() }
    }

    /// The port: its number, or the name that DPDK has for its device (`net_tap0`,
    /// `0000:03:00.0`). The first one unless set.
    pub fn port(mut self, port: impl ToString) -> Self {
        self.port = Some(port.to_string());
        self
    }

    /// What workers do while they have nothing to do.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// Descriptors of each receive and each transmit queue; the device's limits hold.
    pub fn descriptors(mut self, rx: Option<u16>, tx: Option<u16>) -> Self {
        (self.rx_descriptors, self.tx_descriptors) = (rx, tx);
        self
    }

    /// Packet buffers of each queue pair; follows from its descriptors unless set.
    pub fn mbufs(mut self, mbufs: u32) -> Self {
        self.mbufs = Some(mbufs);
        self
    }

    /// Lets DPDK's programs `dpdk-dumpcap` and `dpdk-pdump` capture its packets; not unless set. The
    /// EAL must let other processes in: not with `--in-memory`, `--no-shconf`, `--no-huge` or
    /// `--huge-unlink`.
    pub fn capture(mut self, capture: bool) -> Self {
        self.capture = capture;
        self
    }

    /// What is known of the device before the EAL looked for it: a PCI address or an interface of
    /// the kernel.
    pub(crate) fn device(&self) -> Option<&str> {
        let is_pci = |name: &&str| name.contains(':') && name.contains('.');
        let port = self.port.as_deref().filter(is_pci);
        port.or_else(|| self.allowed()).or_else(|| self.interface())
    }

    /// The first device that `-a` or `--allow` names.
    fn allowed(&self) -> Option<&str> {
        let device = value_of(&self.eal, &["-a", "--allow"])?;
        device.split(',').next().filter(|name| !name.is_empty())
    }

    /// The kernel's interface that the first virtual device is on.
    fn interface(&self) -> Option<&str> {
        let vdev = value_of(&self.eal, &["--vdev"])?;
        // A TAP device is made, not taken.
        let taken = !vdev.starts_with("net_tap");
        vdev.split(',').find_map(|part| part.strip_prefix("iface=")).filter(|_| taken)
    }

    /// Whether the EAL's arguments say on which cores workers run.
    #[cfg(any(feature = "dpdk", test))]
    pub(crate) fn chooses_cores(&self) -> bool {
        value_of(&self.eal, &["-l", "-c", "--lcores"]).is_some()
    }

    /// The EAL's arguments. Where they say nothing of cores, the main lcore is one core near the
    /// device, and no thread is made for the others: workers are placed by topology.
    #[cfg(any(feature = "dpdk", test))]
    pub(crate) fn arguments(&self, topology: &Topology) -> Vec<String> {
        let mut arguments = self.eal.clone();
        let near = self.device().and_then(|device| topology.node_of_nic(device));
        if !self.chooses_cores()
            && let Some(first) = topology.order(near).first()
        {
            arguments.extend(["-l".into(), first.cpu.to_string()]);
        }
        arguments
    }

    /// The workers' cores, where the arguments list cores in the simple form `-l 1,3-5`. The lowest
    /// is the main lcore, which only waits, unless it is the only one.
    pub(crate) fn listed_cores(&self) -> Option<Vec<usize>> {
        let mut cores = Vec::new();
        for part in value_of(&self.eal, &["-l"])?.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().ok()?;
            let last: usize = last.trim().parse().ok()?;
            // DPDK has 128 lcores at most.
            cores.extend((first..=last).take(128));
        }
        cores.sort_unstable();
        if cores.len() > 1 {
            cores.remove(0);
        }
        Some(cores)
    }

    /// Checks what can be checked without the EAL.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let setting = |name, problem: String| Err(Error::Setting { name, problem });
        if let Some(nul) = self.eal.iter().find(|argument| argument.contains('\0')) {
            return setting("dpdk", format!("the EAL argument {nul:?} has a zero byte"));
        }
        for (name, descriptors) in [
            ("dpdk-rx-descriptors", self.rx_descriptors),
            ("dpdk-tx-descriptors", self.tx_descriptors),
        ] {
            if descriptors.is_some_and(|count| count < 64) {
                return setting(name, "at least 64: two bursts of 32".into());
            }
        }
        if self.mbufs.is_some_and(|count| count < 512) {
            return setting("dpdk-mbufs", "at least 512 packet buffers".into());
        }
        Ok(())
    }
}

/// The value of the first of these options: `-a X`, `-aX`, `--allow X`, `--allow=X`.
fn value_of<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        for name in names {
            let Some(rest) = argument.strip_prefix(name) else { continue };
            match rest.strip_prefix('=') {
                Some(value) => return Some(value),
                None if rest.is_empty() => return left.next().map(String::as_str),
                None if !name.starts_with("--") => return Some(rest),
                None => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_found_as_an_operator_may_write_it() {
        for (arguments, device) in [
            (&["-l", "1", "-a", "0000:03:00.0,txq_inline=1"][..], Some("0000:03:00.0")),
            (&["-a03:00.0"], Some("03:00.0")),
            (&["--allow=03:00.0"], Some("03:00.0")),
            (&["--vdev=net_af_packet0,iface=eth1,qpairs=2"], Some("eth1")),
            (&["--vdev", "net_tap0,iface=dtap0"], None),
            (&["--allocate", "x", "-a"], None),
            (&[], None),
        ] {
            assert_eq!(Dpdk::new(arguments.to_vec()).device(), device, "{arguments:?}");
        }
        assert_eq!(Dpdk::new(["-a", "1:00.0"]).port("0000:02:00.0").device(), Some("0000:02:00.0"));
        assert_eq!(Dpdk::new(["-a", "01:00.0"]).port(0).device(), Some("01:00.0"));
    }

    #[test]
    fn the_first_of_several_cores_only_waits() {
        for (arguments, cores) in [
            (&["-l", "1"][..], Some(vec![1])),
            (&["-l2-4,0"], Some(vec![2, 3, 4])),
            (&["-l", "(0-3)@1"], None),
            (&["--vdev", "net_null0"], None),
        ] {
            assert_eq!(Dpdk::new(arguments.to_vec()).listed_cores(), cores, "{arguments:?}");
        }
    }

    #[test]
    fn without_a_word_about_cores_the_main_lcore_is_near_the_device() {
        let two = crate::topology::made_up::nodes(&[&[0, 1], &[2, 3]]);
        let nic = Dpdk::new(["-a", "81:00.0"]);
        assert_eq!(nic.arguments(&two), ["-a", "81:00.0", "-l", "2"]);
        assert_eq!(Dpdk::new(["--no-pci"]).arguments(&two), ["--no-pci", "-l", "0"]);
        assert_eq!(Dpdk::new(["--lcores=1@0"]).arguments(&two), ["--lcores=1@0"]);
    }

    #[test]
    fn what_can_be_known_to_be_wrong_is_told_without_an_eal() {
        for dpdk in [
            Dpdk::new(["-l\0"]),
            Dpdk::default().descriptors(Some(8), None),
            Dpdk::default().descriptors(None, Some(63)),
            Dpdk::default().mbufs(100),
        ] {
            assert!(dpdk.check().is_err(), "{dpdk:?}");
        }
        assert!(Dpdk::new(["-l", "1"]).descriptors(Some(64), None).mbufs(512).check().is_ok());
    }
}
