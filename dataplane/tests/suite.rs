//! The pipeline's backend suite over TAP devices, with Linux's TCP as the client: a device a
//! worker, IPv4 and IPv6 in turn.
#![cfg(target_os = "linux")]

mod common;

use std::io;

use common::Net;
use common::turns::Turns;
use hioload_core::pool::Pool;
use hioload_dataplane::{Frames, Tap};
use hioload_pipeline::suite::{Lab, Stream, tcp};

struct OnTap;

struct Site {
    nets: Vec<Net>,
    turns: Turns,
}

impl Lab for OnTap {
    type Backend = Frames<Tap>;
    type Site = Site;

    fn site(workers: usize) -> Site {
        Site { nets: (0..workers).map(|_| Net::new()).collect(), turns: Turns::default() }
    }

    fn backend(site: &Site, worker: usize, _: &Pool) -> Frames<Tap> {
        let net = &site.nets[worker];
        net.backend(net.tap())
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        let (worker, v6) = site.turns.next(site.nets.len());
        tcp::dial(site.nets[worker].server(v6))
    }
}

hioload_pipeline::backend_suite!(OnTap);
