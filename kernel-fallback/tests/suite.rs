//! The backend suite over epoll: real sockets on loopback, a thread a worker.
#![cfg(target_os = "linux")]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hioload_core::pool::Pool;
use hioload_pipeline::suite::{Lab, Stream, tcp};
use hioload_sockets::epoll::{Epoll, EpollConfig, Listener, Listeners};

struct OnEpoll;

struct Site {
    addr: SocketAddr,
    listeners: Mutex<Vec<Vec<Listener>>>,
}

impl Lab for OnEpoll {
    type Backend = Epoll;
    type Site = Site;

    fn site(workers: usize) -> Site {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(&[any], workers, 1024).expect("loopback");
        let addr = listeners.local_addrs()[0];
        let listeners = listeners.into_workers();
        Site { addr, listeners: Mutex::new(listeners) }
    }

    fn backend(site: &Site, worker: usize, pool: &Pool) -> Epoll {
        let listeners = std::mem::take(&mut site.listeners.lock().expect("no panic")[worker]);
        let config = EpollConfig::new(listeners, pool.clone(), Arc::default());
        Epoll::new(config).expect("descriptors and memory")
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        tcp::dial(site.addr)
    }
}

hioload_pipeline::backend_suite!(OnEpoll);
