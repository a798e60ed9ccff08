//! Accepting: in bounded bursts, and what to do when descriptors run out. The listeners are then
//! left alone until one of our own descriptors was closed or a while has passed, so that a full
//! table costs no spinning; those who connect wait in the kernel's queue.
//!
//! A few descriptors below the limit are left to the rest of the process (logs, the admin port).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use hioload_core::clock::Now;
use hioload_pipeline::backend::{Accepting, Event, Events};

use super::conn::Table;
use super::listener::Listener;
use super::sys;
use crate::counters::SocketCounters;

/// How long until accepting is tried again after descriptors ran out.
const RETRY: Duration = Duration::from_millis(100);
/// How long nothing more is logged about it.
const QUIET: Duration = Duration::from_secs(10);
/// Descriptors left to the rest of the process, at most an eighth of what it may have.
const RESERVE: u64 = 32;

/// Slots from this one on name listeners (and the bell) in what epoll carries. A connection has a
/// descriptor, so its slot stays below 2^31.
pub(super) const LISTENER_SLOTS: u32 = 1 << 31;

/// A worker's listeners.
pub(super) struct Acceptor {
    listeners: Vec<Listener>,
    burst: usize,
    mode: Accepting,
    /// Descriptors ran out: when to look again.
    starved_until: Option<Now>,
    /// When that was last logged.
    logged: Option<Now>,
    /// Whether epoll watches the listeners.
    watched: bool,
}

/// Descriptors or kernel memory ran out.
enum Starved {
    /// The system says so.
    Refused(io::Error),
    /// What is left is kept in reserve.
    Reserve,
}

impl fmt::Display for Starved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Starved::Refused(error) => error.fmt(f),
            Starved::Reserve => f.write_str("the last descriptors are kept in reserve"),
        }
    }
}

impl Acceptor {
    pub(super) fn new(ep: RawFd, listeners: Vec<Listener>, burst: usize) -> io::Result<Self> {
        for (index, listener) in listeners.iter().enumerate() {
            sys::watch(ep, listener.fd(), sys::IN, data(index))?;
        }
        Ok(Acceptor {
            listeners,
            burst: burst.max(1),
            mode: Accepting::Yes,
            starved_until: None,
            logged: None,
            watched: true,
        })
    }

    pub(super) fn burst(&self) -> usize {
        self.burst
    }

    /// When accepting is to be tried again.
    pub(super) fn deadline(&self) -> Option<Now> {
        self.starved_until.filter(|_| self.mode == Accepting::Yes)
    }

    pub(super) fn set_mode(&mut self, ep: RawFd, mode: Accepting) {
        match (self.mode, mode) {
            (Accepting::Closed, _) => return,
            (_, Accepting::Closed) => {
                self.listeners.clear();
                self.starved_until = None;
            }
            _ => {}
        }
        self.mode = mode;
        self.update(ep);
    }

    /// Goes on accepting if descriptors had run out and there may be some again.
    pub(super) fn recover(&mut self, ep: RawFd, now: Now, fd_freed: bool) {
        let Some(at) = self.starved_until else { return };
        if now < at && !fd_freed {
            return;
        }
        self.starved_until = match sys::next_descriptor(ep) {
            Ok(next) if next < ceiling() => None,
            _ => Some(now.after(RETRY)),
        };
        self.update(ep);
    }

    /// Watches the listeners or leaves them alone, as things are.
    fn update(&mut self, ep: RawFd) {
        let watched = self.mode == Accepting::Yes && self.starved_until.is_none();
        if watched == self.watched {
            return;
        }
        self.watched = watched;
        for (index, listener) in self.listeners.iter().enumerate() {
            let events = if watched { sys::IN } else { 0 };
            if let Err(error) = sys::rewatch(ep, listener.fd(), events, data(index)) {
                tracing::error!(%error, "a listening socket can't be watched");
            }
        }
    }

    /// Accepts a burst from the listener that epoll names by `slot`.
    pub(super) fn accept(
        &mut self,
        slot: u32,
        now: Now,
        table: &mut Table,
        events: &mut Events,
        counters: &SocketCounters,
    ) {
        if !self.watched {
            return;
        }
        let Some(listener) = self.listeners.get((slot - LISTENER_SLOTS) as usize) else { return };
        let budget = self.burst.min(events.room());
        if let Err(starved) = burst(listener.fd(), budget, table, events, counters) {
            counters.accept_paused_total.inc();
            if self.logged.is_none_or(|at| at.after(QUIET) <= now) {
                self.logged = Some(now);
                tracing::warn!(
                    "accepting is interrupted: {starved}; `ulimit -n` (LimitNOFILE) sets how many \
                     descriptors there may be"
                );
            }
            self.starved_until = Some(now.after(RETRY));
            self.update(table.ep());
        }
    }
}

fn data(index: usize) -> u64 {
    u64::from(LISTENER_SLOTS) + index as u64
}

/// The first descriptor that isn't for connections. The limit is read anew each time: it can be
/// raised while we run (prlimit).
fn ceiling() -> RawFd {
    let limit = sys::descriptor_limit().unwrap_or(u64::MAX);
    RawFd::try_from(limit - RESERVE.min(limit / 8)).unwrap_or(RawFd::MAX)
}

/// Accepts up to `budget` connections.
fn burst(
    listener: RawFd,
    budget: usize,
    table: &mut Table,
    events: &mut Events,
    counters: &SocketCounters,
) -> Result<(), Starved> {
    let mut ceiling_seen = None;
    for _ in 0..budget {
        counters.accept_calls_total.inc();
        let fd = match sys::accept(listener) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if concerns_one_connection(&error) => {
                counters.accept_errors_total.inc();
                continue;
            }
            Err(error) => return Err(Starved::Refused(error)),
        };
        let number = fd.as_raw_fd();
        // It works without, only later.
        let _ = sys::set_no_delay(number);
        match table.insert(fd, 0) {
            Ok(id) => {
                counters.accepted_total.inc();
                counters.connections_open.add(1);
                events.push(Event::Opened(id));
            }
            Err(error) => {
                counters.accept_errors_total.inc();
                return Err(Starved::Refused(error));
            }
        }
        if number >= *ceiling_seen.get_or_insert_with(ceiling) {
            return Err(Starved::Reserve);
        }
    }
    Ok(())
}

/// Errors of the connection that was accepted, not of accepting (accept(2): Linux passes pending
/// network errors on).
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}
