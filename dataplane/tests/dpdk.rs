//! DPDK devices with Linux's TCP as the client: the pipeline's backend suite on af_packet, tap and
//! af_xdp, IPv4 and IPv6 in turn, one queue a worker's device and two queues of one device.
#![cfg(target_os = "linux")]

mod common;

use std::io;

use common::dpdk::{Driver, Site};
use common::turns::Turns;
use hioload_core::pool::Pool;
use hioload_dataplane::Frames;
use hioload_dataplane::dpdk::Queue;
use hioload_pipeline::suite::{Lab, Stream, tcp};

/// Devices of a server.
struct Sites {
    all: Vec<Site>,
    turns: Turns,
}

impl Sites {
    /// A device for each worker.
    fn apart(driver: Driver, workers: usize) -> Sites {
        Sites::of((0..workers).map(|_| Site::new(driver, 1)).collect())
    }

    /// One device for all.
    fn together(driver: Driver, workers: usize) -> Sites {
        Sites::of(vec![Site::new(driver, workers as u16)])
    }

    fn of(all: Vec<Site>) -> Sites {
        Sites { all, turns: Turns::default() }
    }

    fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let (site, v6) = self.turns.next(self.all.len());
        tcp::dial(self.all[site].server(v6))
    }

    fn backend(&self, worker: usize) -> Frames<Queue> {
        match &self.all[..] {
            [site] => site.backend(worker),
            sites => sites[worker].backend(0),
        }
    }
}

/// The suite on one kind of device.
macro_rules! suite_on {
    ($module:ident: $make:expr) => {
        mod $module {
            use super::*;

            struct Here;

            impl Lab for Here {
                type Backend = Frames<Queue>;
                type Site = Sites;

                fn site(workers: usize) -> Sites {
                    $make(workers)
                }

                fn backend(sites: &Sites, worker: usize, _: &Pool) -> Frames<Queue> {
                    sites.backend(worker)
                }

                fn connect(sites: &Sites) -> io::Result<Box<dyn Stream>> {
                    sites.dial()
                }
            }

            hioload_pipeline::backend_suite!(Here);
        }
    };
}

suite_on!(af_packet: |workers| Sites::apart(Driver::AfPacket, workers));
suite_on!(af_packet_queues: |workers| Sites::together(Driver::AfPacket, workers));
suite_on!(tap: |workers| Sites::apart(Driver::Tap, workers));
suite_on!(tap_queues: |workers| Sites::together(Driver::Tap, workers));
suite_on!(af_xdp: |workers| Sites::apart(Driver::AfXdp, workers));
