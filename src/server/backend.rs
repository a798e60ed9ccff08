//! Which backend a server runs on, and why: what was asked for, of what is built in and works here.

use std::fmt;
use std::str::FromStr;

use super::dpdk::{self, Dpdk};
use super::error::Error;
use super::network::Network;

pub(crate) const EPOLL: &str = "epoll";
pub(crate) const TAP: &str = "tap";
pub(crate) const AF_PACKET: &str = "af-packet";
pub(crate) const DPDK: &str = "dpdk";

/// A backend by name, or the choice of the best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// The best kernel backend that is built in and works here; with an interface or a DPDK port,
    /// the one for it.
    #[default]
    Auto,
    /// Linux epoll.
    Epoll,
    /// This program's own TCP/IP on a TAP device.
    Tap,
    /// This program's own TCP/IP on a packet socket.
    AfPacket,
    /// This program's own TCP/IP on queues of a DPDK port; with the feature `dpdk`.
    Dpdk,
}

/// The names that this build knows, for messages.
pub(crate) fn built_in() -> &'static str {
    match (cfg!(target_os = "linux"), dpdk::BUILT_IN) {
        (true, true) => "auto, epoll, tap, af-packet, dpdk",
        (true, false) => "auto, epoll, tap, af-packet (not dpdk)",
        (false, _) => "none on this operating system",
    }
}

/// What was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

impl BackendChoice {
    /// Chooses; an interface is taken only where one is given.
    pub(crate) fn choose(self, network: Option<&Network>) -> Result<Chosen, Error> {
        if !cfg!(target_os = "linux") {
            return Err(Error::Backend { asked: self.to_string() });
        }
        let chosen = |name, why| Ok(Chosen { name, why });
        let setting = |problem: String| Err(Error::Setting { name: "interface", problem });
        let asked = "as asked for";
        if let Some(network) = network.filter(|network| network.dpdk.is_some()) {
            return self.choose_dpdk(network);
        }
        if self != BackendChoice::Dpdk && network.is_some_and(|n| n.interface.is_empty()) {
            return setting("missing; an address, gateway, mac or vlan belongs to one".into());
        }
        match (self, network) {
            (BackendChoice::Dpdk, _) if !dpdk::BUILT_IN => Err(Error::NoDpdk),
            (BackendChoice::Dpdk, _) => Err(Error::Setting {
                name: "dpdk",
                problem: "missing; give the EAL's arguments after `--`, or as `eal` in section \
                          [dpdk] of the file: `-- -l 1 -a 0000:03:00.0`"
                    .into(),
            }),
            (BackendChoice::Auto, None) => {
                chosen(EPOLL, "auto: the one kernel backend that this build has for Linux")
            }
            (BackendChoice::Auto, Some(network)) if is_tap(&network.interface) => {
                chosen(TAP, "auto: the interface is a TAP device")
            }
            (BackendChoice::Auto, Some(_)) => {
                chosen(AF_PACKET, "auto: the interface is not a TAP device")
            }
            (BackendChoice::Epoll, None) => chosen(EPOLL, asked),
            (BackendChoice::Epoll, Some(network)) => setting(format!(
                "`{}` is for tap and af-packet; epoll uses the kernel's addresses",
                network.interface
            )),
            (BackendChoice::Tap, Some(_)) => chosen(TAP, asked),
            (BackendChoice::AfPacket, Some(_)) => chosen(AF_PACKET, asked),
            (BackendChoice::Tap | BackendChoice::AfPacket, None) => {
                setting(format!("missing; {self} needs one, and an address"))
            }
        }
    }

    /// The choice where a port of DPDK is configured.
    fn choose_dpdk(self, network: &Network) -> Result<Chosen, Error> {
        let setting = |name, problem| Err(Error::Setting { name, problem });
        let why = match self {
            BackendChoice::Auto => "auto: a port of DPDK is configured",
            BackendChoice::Dpdk => "as asked for",
            other => {
                let problem = format!("EAL arguments and its settings aren't for {other}");
                return setting("dpdk", problem);
            }
        };
        if !dpdk::BUILT_IN {
            return Err(Error::NoDpdk);
        }
        network.dpdk.as_ref().map_or(Ok(()), Dpdk::check)?;
        match network.interface.as_str() {
            "" => Ok(Chosen { name: DPDK, why }),
            interface => setting(
                "interface",
                format!("`{interface}`; DPDK has its device from the EAL's -a or --vdev"),
            ),
        }
    }
}

fn is_tap(interface: &str) -> bool {
    !interface.contains('/')
        && std::path::Path::new("/sys/class/net").join(interface).join("tun_flags").exists()
}

impl FromStr for BackendChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(BackendChoice::Auto),
            EPOLL => Ok(BackendChoice::Epoll),
            TAP => Ok(BackendChoice::Tap),
            AF_PACKET => Ok(BackendChoice::AfPacket),
            DPDK => Ok(BackendChoice::Dpdk),
            _ => Err(Error::Backend { asked: name.into() }),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendChoice::Auto => "auto",
            BackendChoice::Epoll => EPOLL,
            BackendChoice::Tap => TAP,
            BackendChoice::AfPacket => AF_PACKET,
            BackendChoice::Dpdk => DPDK,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::BackendChoice::{AfPacket, Auto, Dpdk as OnDpdk, Epoll, Tap};
    use super::*;

    #[test]
    fn an_unknown_backend_is_told_which_there_are() {
        let message = "io_uring".parse::<BackendChoice>().unwrap_err().to_string();
        assert!(message.contains("`io_uring`") && message.contains(built_in()), "{message}");
    }

    #[test]
    fn names_read_back_as_they_are_written() {
        for choice in [Auto, Epoll, Tap, AfPacket, OnDpdk] {
            assert_eq!(choice.to_string().parse::<BackendChoice>().unwrap(), choice);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_interface_is_taken_only_where_one_is_given() {
        let network = Network::on("none-such0");
        assert_eq!(Auto.choose(None).unwrap().name, "epoll");
        assert_eq!(Auto.choose(Some(&network)).unwrap().name, "af-packet");
        assert!(Epoll.choose(Some(&network)).is_err());
        for choice in [Tap, AfPacket] {
            assert!(choice.choose(None).is_err());
            assert_eq!(choice.choose(Some(&network)).unwrap().name, choice.to_string());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn dpdk_is_taken_only_where_a_port_is_given_and_it_is_built_in() {
        let network = Network::on_dpdk(Dpdk::new(["-l", "1"])).address("10.9.0.2/24");
        for choice in [Auto, OnDpdk] {
            let (name, message) = match choice.choose(Some(&network)) {
                Ok(chosen) => (chosen.name, String::new()),
                Err(error) => ("", error.to_string()),
            };
            assert_eq!(name == "dpdk", dpdk::BUILT_IN, "{message}");
            assert_eq!(message.contains("--features dpdk"), !dpdk::BUILT_IN, "{message}");
        }
        for choice in [Epoll, Tap, AfPacket] {
            let message = choice.choose(Some(&network)).unwrap_err().to_string();
            assert!(message.contains("aren't for"), "{message}");
        }
        assert!(OnDpdk.choose(None).is_err());
        let both = Network { interface: "eth1".into(), ..network };
        assert!(OnDpdk.choose(Some(&both)).is_err());
    }
}
