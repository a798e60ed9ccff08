//! The backend driven by hand, turn by turn, with blocking clients on loopback.

mod ending;
mod flow;
mod output;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_core::clock::{Clock, MonotonicClock};
use hioload_core::pool::{NodePool, Pool, PoolConfig};
use hioload_core::wait::Wait;
use hioload_pipeline::backend::{Backend, ConnId, Event, Events, Gone, Out, RxHalf, TxHalf};

use super::{Epoll, EpollConfig, EpollRx, EpollTx, Listeners, sys};
use crate::counters::{SocketCounters, SocketSnapshot};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A backend with one worker, its clock, and what it counts.
struct Rig {
    epoll: Epoll,
    addr: SocketAddr,
    clock: MonotonicClock,
    pool: Pool,
    events: Events,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut EpollConfig)) -> Rig {
        Rig::on("127.0.0.1:0", change)
    }

    fn on(addr: &str, change: impl FnOnce(&mut EpollConfig)) -> Rig {
        let config = PoolConfig { node: None, budget_bytes: 64 << 20, huge: false };
        let pool = NodePool::new(config).unwrap().share();
        let listeners = Listeners::bind(&[addr.parse().unwrap()], 1, 128).unwrap();
        let addr = listeners.local_addrs()[0];
        let own = listeners.into_workers().remove(0);
        let mut config = EpollConfig::new(own, pool.clone(), Arc::default());
        change(&mut config);
        let epoll = Epoll::new(config).unwrap();
        let clock = MonotonicClock::new();
        Rig { epoll, addr, clock, pool, events: Events::with_limit(64) }
    }

    fn counts(&self) -> SocketSnapshot {
        self.epoll.counters.snapshot()
    }

    /// One poll that waits for at most `wait`.
    fn poll(&mut self, wait: Duration) -> Vec<Event> {
        let now = self.clock.now();
        self.events.clear();
        let wait = Wait::Until(Some(now.after(wait)));
        self.epoll.poll(now, wait, &mut self.events).unwrap();
        self.events.as_slice().to_vec()
    }

    /// The middle of a turn, and its end.
    fn turn<R>(&mut self, work: impl for<'t> FnOnce(&mut EpollRx<'t>, &mut EpollTx<'t>) -> R) -> R {
        let (mut rx, mut tx) = self.epoll.turn();
        let result = work(&mut rx, &mut tx);
        self.epoll.flush(self.clock.now());
        result
    }

    /// Turns that do nothing but take what arrives, until `found` says what it looked for.
    fn until<R>(&mut self, mut found: impl FnMut(&Event) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let events = self.poll(Duration::from_millis(50));
            let result = events.iter().find_map(&mut found);
            self.turn(|rx, _| {
                for event in &events {
                    if let Event::Readable(id) = *event {
                        while rx.take(id).is_some() {}
                    }
                }
            });
            if let Some(result) = result {
                return result;
            }
        }
        panic!("it never happened");
    }

    fn closed(&mut self, wanted: ConnId) -> Gone {
        self.until(|event| match *event {
            Event::Closed(id, gone) if id == wanted => Some(gone),
            _ => None,
        })
    }

    /// A client and the id of its connection.
    fn client(&mut self) -> (TcpStream, ConnId) {
        let client = connect(self.addr);
        let id = self.until(|event| match *event {
            Event::Opened(id) => Some(id),
            _ => None,
        });
        (client, id)
    }

    fn readable(&mut self, wanted: ConnId) {
        let deadline = Instant::now() + PATIENCE;
        while !self.poll(Duration::from_millis(50)).contains(&Event::Readable(wanted)) {
            assert!(Instant::now() < deadline, "never readable");
            self.turn(|_, _| {});
        }
    }

    fn send(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        let mut buf = self.pool.alloc(bytes.len()).unwrap();
        buf.append(bytes);
        self.turn(|_, tx| tx.send(id, Out::Owned(buf)).is_ok())
    }

    /// Nothing is left of any connection.
    fn assert_clean(&self) {
        let counts = self.counts();
        assert_eq!((counts.connections_open, counts.backlog_bytes), (0, 0));
        assert_eq!(self.pool.stats().lent, 0);
        assert!(self.epoll.backlogs.is_empty());
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn read_exact(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Closes a client's end with RST.
fn reset(client: TcpStream) {
    sys::set_reset_on_close(client.as_raw_fd()).unwrap();
}
