//! Listening sockets: one a worker for each address, so that the kernel spreads connections over
//! the workers and none of them shares a queue.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::sys;

/// One worker's listening socket for one address.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// All listening sockets of a server, made before its workers start, so that what is wrong with an
/// address is said before anything runs.
#[derive(Debug)]
pub struct Listeners {
    workers: Vec<Vec<Listener>>,
    local_addrs: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds a socket a worker for each address (`SO_REUSEPORT`), then listens on all of them with
    /// a queue of up to `backlog` connections each. With port 0 the system chooses one port an
    /// address. A `[::]` takes no IPv4 (`IPV6_V6ONLY`).
    ///
    /// An address that any other socket listens on is refused, even one of the same user that
    /// would share: two servers on one port, each with a part of the clients, is never wanted.
    ///
    /// # Errors
    /// The first address that can't be listened on, and why.
    pub fn bind(
        addrs: &[SocketAddr],
        workers: usize,
        backlog: u32,
    ) -> Result<Listeners, ListenError> {
        let mut listeners = Listeners {
            workers: (0..workers).map(|_| Vec::with_capacity(addrs.len())).collect(),
            local_addrs: Vec::with_capacity(addrs.len()),
        };
        for &addr in addrs {
            listeners.bind_one(addr).map_err(|source| ListenError { addr, source })?;
        }
        // Nothing arrives anywhere before everything is bound.
        for worker in &listeners.workers {
            for (listener, &addr) in worker.iter().zip(&listeners.local_addrs) {
                sys::listen(listener.fd(), backlog)
                    .map_err(|source| ListenError { addr, source })?;
            }
        }
        Ok(listeners)
    }

    fn bind_one(&mut self, mut addr: SocketAddr) -> io::Result<()> {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let fd = sys::tcp_socket(&addr)?;
            sys::set_reuse_address(fd.as_raw_fd())?;
            if addr.is_ipv6() {
                sys::set_v6_only(fd.as_raw_fd())?;
            }
            if index == 0 {
                // Bound without sharing, so that any other listener is noticed; shared after that.
                sys::bind(fd.as_raw_fd(), &addr)?;
                sys::set_reuse_port(fd.as_raw_fd())?;
                addr = sys::local_addr(fd.as_raw_fd())?;
                self.local_addrs.push(addr);
            } else {
                sys::set_reuse_port(fd.as_raw_fd())?;
                sys::bind(fd.as_raw_fd(), &addr)?;
            }
            worker.push(Listener { fd });
        }
        Ok(())
    }

    /// The addresses, in the order of `bind`, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The sockets of each worker.
    pub fn into_workers(self) -> Vec<Vec<Listener>> {
        self.workers
    }
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// The address as it was asked for.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

impl ListenError {
    fn advice(&self) -> String {
        let port = self.addr.port();
        match self.source.raw_os_error() {
            Some(libc::EADDRINUSE) => format!(
                "another process listens there (`ss -ltnp 'sport = :{port}'` shows which); stop \
                 it or choose another port"
            ),
            Some(libc::EACCES | libc::EPERM) => format!(
                "ports below net.ipv4.ip_unprivileged_port_start (1024) need the capability \
                 CAP_NET_BIND_SERVICE; grant it or choose a port above {}",
                port.max(1023)
            ),
            Some(libc::EADDRNOTAVAIL) => {
                "no interface of this machine has the address (`ip address` lists them)".into()
            }
            Some(libc::EAFNOSUPPORT) => "this machine has no such address family; listen on IPv4 \
                 only, or turn IPv6 on"
                .into(),
            Some(libc::EMFILE | libc::ENFILE) => {
                "descriptors ran out; raise the limit (`ulimit -n`)".into()
            }
            _ => "check the address".into(),
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listening on {} failed: {}; {}", self.addr, self.source, self.advice())
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn all_workers_share_the_port_that_the_first_was_given() {
        let v6 = "[::1]:0".parse().unwrap();
        let listeners = Listeners::bind(&[local(0), v6], 3, 16).unwrap();
        let addrs = listeners.local_addrs().to_vec();
        assert!(addrs.iter().all(|addr| addr.port() != 0));
        let workers = listeners.into_workers();
        assert_eq!(workers.len(), 3);
        for worker in workers {
            let own: Vec<_> = worker.iter().map(|l| sys::local_addr(l.fd()).unwrap()).collect();
            assert_eq!(own, addrs);
        }
    }

    #[test]
    fn the_kernel_spreads_connections_over_the_workers() {
        let listeners = Listeners::bind(&[local(0)], 3, 128).unwrap();
        let addr = listeners.local_addrs()[0];
        let _clients: Vec<_> = (0..90).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let shares: Vec<usize> = listeners
            .into_workers()
            .iter()
            .map(|worker| std::iter::from_fn(|| sys::accept(worker[0].fd()).ok()).count())
            .collect();
        assert_eq!(shares.iter().sum::<usize>(), 90);
        assert!(shares.iter().all(|&share| share >= 10), "{shares:?}");
    }

    #[test]
    fn a_port_in_use_is_said_with_what_to_do() {
        let other = TcpListener::bind(local(0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let error = Listeners::bind(&[local(port)], 2, 16).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
        assert!(text.contains("in use") && text.contains("choose another port"), "{text}");
    }

    #[test]
    fn a_second_server_isnt_let_in_on_the_same_port() {
        let first = Listeners::bind(&[local(0)], 2, 16).unwrap();
        let addr = first.local_addrs()[0];
        let error = Listeners::bind(&[addr], 2, 16).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EADDRINUSE));
        drop(first);
        Listeners::bind(&[addr], 2, 16).unwrap();
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_share_a_port() {
        let v4 = Listeners::bind(&["0.0.0.0:0".parse().unwrap()], 2, 16).unwrap();
        let port = v4.local_addrs()[0].port();
        Listeners::bind(&[format!("[::]:{port}").parse().unwrap()], 2, 16).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_explained() {
        let error = Listeners::bind(&["192.0.2.1:9".parse().unwrap()], 1, 16).unwrap_err();
        assert!(error.to_string().contains("no interface of this machine"), "{error}");
    }
}
