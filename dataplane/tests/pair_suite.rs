//! The pipeline's backend suite over a stack, with another stack as the client, and no network
//! between them: what needs no privileges runs everywhere, also under AddressSanitizer. IPv4 and
//! IPv6 in turn.
#![cfg(target_os = "linux")]

#[path = "common/pair.rs"]
mod pair;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hioload_core::Now;
use hioload_core::pool::Pool;
use hioload_dataplane::{Frames, Stack};
use hioload_pipeline::suite::{Lab, Stream};
use pair::{Host, PORT, SocketLink};

struct OnPair;

struct Site {
    servers: Vec<Mutex<Option<SocketLink>>>,
    hosts: Vec<Host>,
    turn: AtomicUsize,
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
        Site { servers, hosts, turn: AtomicUsize::new(0) }
    }

    fn backend(site: &Site, worker: usize, _: &Pool) -> Frames<SocketLink> {
        let link = site.servers[worker].lock().expect("not poisoned").take().expect("asked once");
        let mut stack = Stack::new(link, &pair::config(2), Now::ZERO).expect("a good config");
        stack.listen(PORT).expect("the first listener");
        Frames::new(stack).expect("descriptors")
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        let turn = site.turn.fetch_add(1, Ordering::Relaxed);
        let (worker, v6) = (turn % site.hosts.len(), turn / site.hosts.len() % 2 == 1);
        site.hosts[worker].connect(v6)
    }
}

// All of the suite's cases but that of the half-close, which a client on this stack can't do; the
// lab's suite tries it with Linux as the client.
hioload_pipeline::backend_suite!(@each OnPair:
    echoes_messages_of_every_size,
    echoes_what_comes_byte_by_byte,
    answers_a_handshake_with_frames_behind_it,
    echoes_many_messages_sent_at_once,
    echoes_fragments_with_pings_between,
    serves_many_connections_at_once,
    echoes_the_close_code,
    broadcasts_to_all_but_the_sender_on_two_workers,
    sends_from_other_threads_wake_a_sleeping_worker,
    a_slow_reader_gets_every_byte,
    a_reader_that_never_reads_costs_no_more_than_its_limit,
    silent_and_slow_clients_delay_nobody,
    half_made_handshakes_are_timed_out,
    refuses_a_length_of_two_to_the_63,
    refuses_what_is_not_http,
    survives_resets_at_every_point,
    survives_clients_that_vanish,
    drains_with_1001_and_ends,
);
