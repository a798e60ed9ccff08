//! Descriptors run out and come back. One test in a process of its own, whose limit it lowers.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_core::clock::{Clock, MonotonicClock};
use hioload_core::pool::{NodePool, PoolConfig};
use hioload_core::wait::Wait;
use hioload_pipeline::backend::{Backend, ConnId, Event, Events, RxHalf};
use hioload_sockets::SocketCounters;
use hioload_sockets::epoll::{Epoll, EpollConfig, Listeners};

const LIMIT: u64 = 96;

struct Worker {
    epoll: Epoll,
    clock: MonotonicClock,
    counters: Arc<SocketCounters>,
    open: Vec<ConnId>,
}

impl Worker {
    /// Runs as a worker would for at most `time`, or until `enough` connections are open.
    fn run(&mut self, time: Duration, enough: usize) {
        let end = self.clock.now().after(time);
        let mut events = Events::with_limit(64);
        while self.clock.now() < end && self.open.len() < enough {
            let now = self.clock.now();
            let until = self.epoll.next_deadline().map_or(end, |deadline| deadline.min(end));
            events.clear();
            self.epoll.poll(now, Wait::Until(Some(until)), &mut events).unwrap();
            let (mut rx, _) = self.epoll.turn();
            for event in events.as_slice() {
                match *event {
                    Event::Opened(id) => self.open.push(id),
                    Event::Closed(id, _) => self.open.retain(|open| *open != id),
                    Event::Readable(id) => assert!(rx.take(id).is_none(), "nobody sends"),
                    Event::Eof(_) | Event::Writable(_) => {}
                }
            }
            self.epoll.flush(now);
        }
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap()
}

fn lower_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes `limit`, which lives.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = LIMIT;
    // SAFETY: reads `limit`, which lives.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// Takes every descriptor there is.
fn exhaust() -> Vec<File> {
    let all: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(all.len() < LIMIT as usize);
    all
}

#[test]
fn accepting_survives_that_descriptors_run_out_and_goes_on_when_there_are_some() {
    lower_limit();
    let config = PoolConfig { node: None, budget_bytes: 16 << 20, huge: false };
    let pool = NodePool::new(config).unwrap().share();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = Listeners::bind(&[any], 1, 128).unwrap();
    let addr = listeners.local_addrs()[0];
    let own = listeners.into_workers().remove(0);
    let counters = Arc::<SocketCounters>::default();
    let epoll = Epoll::new(EpollConfig::new(own, pool, counters.clone())).unwrap();
    let mut worker = Worker { epoll, clock: MonotonicClock::new(), counters, open: Vec::new() };
    let patience = Duration::from_secs(5);

    let mut clients = vec![connect(addr), connect(addr)];
    let mut taken = exhaust();

    // Nothing can be accepted, and that costs next to nothing.
    worker.run(Duration::from_millis(450), 1);
    assert_eq!(worker.open.len(), 0);
    let counts = worker.counters.snapshot();
    assert!(counts.accept_paused_total >= 1);
    assert!(counts.accept_calls_total <= 8, "{counts:#?}");
    assert!(counts.wait_calls_total <= 16, "{counts:#?}");

    // They come back without any word from us: it tries again after a while.
    taken.clear();
    let start = Instant::now();
    worker.run(patience, 2);
    assert_eq!(worker.open.len(), 2);
    assert!(start.elapsed() < Duration::from_secs(1));

    // Connections end a little before the limit: the rest of the process can still open files.
    let before = worker.counters.snapshot();
    for _ in 0..LIMIT / 2 - 4 {
        clients.push(connect(addr));
    }
    worker.run(Duration::from_millis(400), usize::MAX);
    let spare = exhaust();
    assert!(spare.len() >= 4, "only {} descriptors are left for others", spare.len());
    assert!(worker.open.len() + 3 <= clients.len(), "all found room");
    let after = worker.counters.snapshot();
    assert!(after.accept_paused_total > before.accept_paused_total);
    assert!(after.wait_calls_total - before.wait_calls_total < 200, "{after:#?}");
    drop(spare);

    // One of ours that ends makes room at once.
    let waiting = worker.open.len();
    let ended: Vec<_> = worker.open.drain(waiting - 5..).collect();
    for id in ended {
        worker.epoll.abort(id);
    }
    let start = Instant::now();
    worker.run(patience, waiting - 5 + 3);
    assert!(worker.open.len() >= waiting - 5 + 3);
    assert!(start.elapsed() < Duration::from_millis(90), "{:?}", start.elapsed());

    // A fresh client is served once there is room for all.
    drop(clients);
    worker.run(Duration::from_millis(50), usize::MAX);
    for id in std::mem::take(&mut worker.open) {
        worker.epoll.abort(id);
    }
    worker.run(Duration::from_millis(300), usize::MAX);
    for id in std::mem::take(&mut worker.open) {
        worker.epoll.abort(id);
    }
    worker.run(Duration::from_millis(50), usize::MAX);
    assert_eq!(worker.counters.connections_open.get(), 0);
    let _fresh = connect(addr);
    worker.run(patience, 1);
    assert_eq!(worker.open.len(), 1);
}
