//! What can go wrong with a server or a client, told to its operator: what happened, to whom, what to do.

use std::fmt;
use std::io;

use hioload_core::region::MemoryError;

use hioload_ws_proto::handshake::{RequestError, UrlError};

use super::listen::ListenError;

/// Why a server or a client did not start, or ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A listen address can't be read.
    Address {
        /// What was given.
        given: String,
    },
    /// An address can't be listened on.
    Listen(ListenError),
    /// The interface can't be had.
    #[cfg(target_os = "linux")]
    Interface(hioload_dataplane::LinkError),
    /// A setting is out of its range.
    Setting {
        /// Its name, as on the command line.
        name: &'static str,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// The backend that was asked for isn't built in.
    Backend {
        /// What was asked for.
        asked: String,
    },
    /// DPDK was asked for, and isn't built in.
    NoDpdk,
    /// DPDK can't do what it was asked.
    #[cfg(feature = "dpdk")]
    Dpdk(hioload_dataplane::dpdk::DpdkError),
    /// There is no memory for the buffers.
    Memory(MemoryError),
    /// A worker's thread can't be started.
    Spawn {
        /// Index of the worker.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A worker's backend can't be made.
    Start {
        /// Index of the worker.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A worker's backend can't go on.
    Worker {
        /// Index of the worker.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A worker panicked outside of what the handler's panics are caught around.
    Panic {
        /// Index of the worker.
        worker: usize,
        /// What the panic said.
        message: String,
    },
    /// The signals can't be taken.
    Signals(io::Error),
    /// A client's URL can't be read.
    Url {
        /// What was given.
        given: String,
        /// What is wrong with it.
        error: UrlError,
    },
    /// A client's URL is `wss://`, and there is no TLS yet.
    Tls {
        /// What was given.
        given: String,
    },
    /// What a client is to ask for can't be asked.
    Request(RequestError),
    /// A client's server has no address that can be found.
    Resolve {
        /// The name that was looked up.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// None of a server's addresses takes connections.
    Connect {
        /// The server: host and port.
        server: String,
        /// What the system said of the last address.
        source: io::Error,
    },
    /// None of a client's connections could be opened.
    NotOpened {
        /// Why the first one couldn't.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Address { given } => write!(
                f,
                "cannot listen on `{given}`: it is not an IP address and a port; write it like \
                 0.0.0.0:9001 or [::]:9001"
            ),
            Error::Listen(error) => error.fmt(f),
            #[cfg(target_os = "linux")]
            Error::Interface(error) => error.fmt(f),
            Error::Setting { name, problem } => write!(f, "{name}: {problem}"),
            Error::Backend { asked } => write!(
                f,
                "there is no backend `{asked}` in this build; built in: {}",
                super::backend::built_in()
            ),
            Error::NoDpdk => f.write_str(
                "DPDK is not in this build: scripts/install-dpdk.sh installs what it needs, and \
                 `cargo build --release --features dpdk` builds it in",
            ),
            #[cfg(feature = "dpdk")]
            Error::Dpdk(error) => error.fmt(f),
            Error::Memory(error) => error.fmt(f),
            Error::Spawn { worker, source } => write!(
                f,
                "the thread of worker {worker} could not be started: {source}; use fewer workers, \
                 or raise the limit of threads (ulimit -u, the container's pids limit)"
            ),
            Error::Start { worker, source } => write!(
                f,
                "worker {worker} could not make its backend: {source}; if descriptors ran out, \
                 raise their limit (ulimit -n)"
            ),
            Error::Worker { worker, source } => write!(
                f,
                "worker {worker} could not go on: {source}; the other workers were stopped"
            ),
            Error::Panic { worker, message } => write!(
                f,
                "worker {worker} panicked: {message}; the other workers were stopped. This is a \
                 bug: please report it with RUST_BACKTRACE=1"
            ),
            Error::Signals(source) => {
                write!(f, "SIGINT and SIGTERM could not be taken for the drain: {source}")
            }
            Error::Url { given, error } => write!(f, "cannot connect to `{given}`: {error}"),
            Error::Tls { given } => write!(
                f,
                "cannot connect to `{given}`: there is no TLS in this build; use ws://, or a proxy \
                 that ends TLS"
            ),
            Error::Request(error) => write!(f, "the request cannot be made: {error}"),
            Error::Resolve { host, source } => {
                write!(f, "no address was found for `{host}`: {source}")
            }
            Error::Connect { server, source } => write!(f, "cannot connect to {server}: {source}"),
            Error::NotOpened { why } => write!(f, "no connection could be opened: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Listen(error) => Some(error),
            #[cfg(target_os = "linux")]
            Error::Interface(error) => Some(error),
            #[cfg(feature = "dpdk")]
            Error::Dpdk(error) => Some(error),
            Error::Memory(error) => Some(error),
            Error::Spawn { source, .. }
            | Error::Start { source, .. }
            | Error::Worker { source, .. }
            | Error::Signals(source)
            | Error::Resolve { source, .. }
            | Error::Connect { source, .. } => Some(source),
            Error::Url { error, .. } => Some(error),
            Error::Request(error) => Some(error),
            Error::Address { .. }
            | Error::Setting { .. }
            | Error::Backend { .. }
            | Error::NoDpdk
            | Error::Panic { .. }
            | Error::Tls { .. }
            | Error::NotOpened { .. } => None,
        }
    }
}
