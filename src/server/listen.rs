//! Addresses to listen on: read, defaulted, and bound before any worker starts, so that what is
//! wrong with them is known at once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) use hioload_sockets::epoll::ListenError;
use hioload_sockets::epoll::Listeners;

use super::error::Error;
use super::host;
use super::launch::Listening;
use super::worker::Transport;

/// The port of the defaults.
pub(crate) const PORT: u16 = 9001;
/// Connections that may wait to be accepted, for each listening socket.
const BACKLOG: u32 = 4_096;

/// The addresses as given; empty where none are.
pub(crate) fn parse(given: &[String]) -> Result<Vec<SocketAddr>, Error> {
    given
        .iter()
        .map(|text| text.trim().parse().map_err(|_| Error::Address { given: text.clone() }))
        .collect()
}

/// Binds what was given, or the defaults, for each worker. That the host has no IPv6 is an error
/// only where an IPv6 address was asked for.
pub(crate) fn bind(
    given: &[String],
    workers: usize,
    warnings: &mut Vec<String>,
) -> Result<Listening, Error> {
    let mut addresses = parse(given)?;
    if addresses.is_empty() {
        addresses.push((Ipv4Addr::UNSPECIFIED, PORT).into());
        if host::has_ipv6() {
            addresses.push((Ipv6Addr::UNSPECIFIED, PORT).into());
        } else {
            warnings.push(format!("this host has no IPv6: not listening on [::]:{PORT}"));
        }
    }
    let listeners = Listeners::bind(&addresses, workers, BACKLOG).map_err(Error::Listen)?;
    let addresses = listeners.local_addrs().to_vec();
    let transports = listeners.into_workers().into_iter().map(Transport::Sockets).collect();
    Ok(Listening { transports, ..Listening::at(addresses) })
}
