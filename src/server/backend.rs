//! Which backend a server runs on, and why: what was asked for, of what is built in and works here.

use std::fmt;
use std::str::FromStr;

use super::error::Error;
use super::network::Network;

pub(crate) const EPOLL: &str = "epoll";
pub(crate) const TAP: &str = "tap";
pub(crate) const AF_PACKET: &str = "af-packet";

/// A backend by name, or the choice of the best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// The best kernel backend that is built in and works here; with an interface, the one for it.
    #[default]
    Auto,
    /// Linux epoll.
    Epoll,
    /// This program's own TCP/IP on a TAP device.
    Tap,
    /// This program's own TCP/IP on a packet socket.
    AfPacket,
}

/// The names that this build knows, for messages.
pub(crate) fn built_in() -> &'static str {
    match cfg!(target_os = "linux") {
        true => "auto, epoll, tap, af-packet",
        false => "none on this operating system",
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
        if network.is_some_and(|network| network.interface.is_empty()) {
            return setting("missing; an address, gateway, mac or vlan belongs to one".into());
        }
        match (self, network) {
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::BackendChoice::{AfPacket, Auto, Epoll, Tap};
    use super::*;

    #[test]
    fn an_unknown_backend_is_told_which_there_are() {
        let message = "io_uring".parse::<BackendChoice>().unwrap_err().to_string();
        assert!(message.contains("`io_uring`") && message.contains(built_in()), "{message}");
    }

    #[test]
    fn names_read_back_as_they_are_written() {
        for choice in [Auto, Epoll, Tap, AfPacket] {
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
}
