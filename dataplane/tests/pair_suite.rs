//! The pipeline's backend suite over a stack, with another stack as the client, and no network
//! between them: what needs no privileges runs everywhere, also under AddressSanitizer. IPv4 and
//! IPv6 in turn.
#![cfg(target_os = "linux")]

#[path = "common/pair.rs"]
mod pair;
#[path = "common/turns.rs"]
mod turns;

use std::io;
use std::sync::Mutex;

use hioload_core::pool::Pool;
use hioload_dataplane::Frames;
use hioload_pipeline::suite::{Lab, Stream};
use pair::{Host, SocketLink};
use turns::Turns;

struct OnPair;

struct Site {
    servers: Vec<Mutex<Option<SocketLink>>>,
    hosts: Vec<Host>,
    turns: Turns,
}

impl Lab for OnPair {
    type Backend = Frames<SocketLink>;
    type Site = Site;

    fn site(workers: usize) -> Site {
        let pairs = (0..workers).map(|_| pair::links().map(Some));
        let (hosts, servers) = pairs
            .map(|[mut client, server]| {
                let client = client.take().expect("it was just made");
                (Host::start(client), Mutex::new(server))
            })
            .unzip();
        Site { servers, hosts, turns: Turns::default() }
    }

    fn backend(site: &Site, worker: usize, _: &Pool) -> Frames<SocketLink> {
        let link = site.servers[worker].lock().expect("not poisoned").take().expect("asked once");
        pair::server(link)
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        let (worker, v6) = site.turns.next(site.hosts.len());
        site.hosts[worker].connect(v6)
    }
}

// A client on this stack can't close by halves; the lab's suite tries that with Linux as the client.
hioload_pipeline::backend_suite!(OnPair, without half_close);
