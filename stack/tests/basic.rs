//! What works on a good wire.

mod common;

use common::*;
use hioload_stack::Offloads;
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn server(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(v6, 1), 80)
}

#[test]
fn bytes_come_back_in_order_over_both_families() {
    for v6 in [false, true] {
        for total in [0, 1, 100, 5_000, 200_000] {
            let mut pair = Pair::plain();
            pair.stacks[1].listen(80).unwrap();
            let (mut client, mut echo) = (Client::new(), Echo::default());
            client.open(&mut pair.stacks[0], server(v6), 9, total);
            let done = pair.run([&mut client, &mut echo], MINUTE, |_| false);
            assert!(!done);
            assert_eq!((client.finished, client.broken), (1, 0), "{total} bytes, v6 {v6}");
            assert_eq!(echo.bytes, total);
            assert_eq!(echo.closed, [hioload_stack::Gone::Finished]);
        }
    }
}

#[test]
fn a_million_bytes_pass_with_every_offload() {
    for seed in [0, 16, 32, 48] {
        let mut pair = Pair::new(seed, Faults::default(), 1500, [config(0), config(1)]);
        pair.stacks[1].listen(80).unwrap();
        let (mut client, mut echo) = (Client::new(), Echo::default());
        client.open(&mut pair.stacks[0], server(true), 1, 500_000);
        client.open(&mut pair.stacks[0], server(false), 2, 500_000);
        pair.run([&mut client, &mut echo], MINUTE, |_| false);
        assert_eq!((client.finished, client.broken), (2, 0));
        let counters = pair.stacks[1].counters().snapshot();
        assert_eq!(counters.drop_checksum_total, 0);
    }
}

#[test]
fn rings_grow_for_those_who_need_it_and_the_round_trip_is_known() {
    let faults = Faults { delay_us: 10_000, ..Faults::default() };
    let mut pair = Pair::new(1, faults, 1500, [config(0), config(1)]);
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    let id = client.open(&mut pair.stacks[0], server(false), 9, 100_000);
    let conn = client.conns.get_mut(&key(id)).unwrap();
    (conn.lockstep, conn.piece) = (true, 8_000);
    pair.run([&mut client, &mut echo], Duration::from_millis(300), |_| false);
    let stats = pair.stacks[0].stats(id).unwrap();
    assert_eq!(stats.ring_bytes, 16_384, "{stats:?}");
    let rtt = stats.rtt.unwrap();
    assert!(rtt >= Duration::from_millis(20) && rtt < Duration::from_millis(60), "{rtt:?}");
    pair.run([&mut client, &mut echo], MINUTE, |_| false);
    assert_eq!((client.finished, client.broken), (1, 0));
}

#[derive(Clone, Default)]
struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_is_a_capture_of_one_peers_packets_and_states() {
    let mut pair = Pair::plain();
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    let file = Shared::default();
    let every_port = SocketAddr::new(ip(false, 1), 0);
    pair.stacks[0].trace(every_port, 20, Box::new(file.clone())).unwrap();
    client.open(&mut pair.stacks[0], server(true), 9, 100);
    client.open(&mut pair.stacks[0], server(false), 9, 5000);
    pair.run([&mut client, &mut echo], MINUTE, |_| false);
    let file = file.0.lock().unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut kinds, mut packets, mut states) = (0, Vec::new(), 0, Vec::new());
    while at < file.len() {
        let (kind, len) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + len - 4) as usize, len, "a block ends as it begins");
        kinds.push(kind);
        match kind {
            6 => {
                let time_us = u64::from(word(at + 12)) << 32 | u64::from(word(at + 16));
                assert!(time_us > 1_700_000_000_000_000, "the time of day");
                assert_eq!(file[at + 28] >> 4, 4, "of the IPv4 connection only");
                packets += 1;
            }
            9 => states.push(String::from_utf8(file[at + 8..at + len - 4].to_vec()).unwrap()),
            _ => {}
        }
        at += len;
    }
    assert_eq!(kinds[..2], [0x0a0d_0d0a, 1]);
    assert_eq!(packets + states.len(), 20, "as many records as were wanted");
    let state =
        |text: &str| text.lines().find_map(|line| Some(line.split_once(": ")?.1.to_owned()));
    let states: Vec<_> = states.iter().filter_map(|entry| state(entry)).collect();
    assert_eq!(states, ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "TIME-WAIT"]);
}

#[test]
fn connections_opened_in_one_moment_each_get_a_port() {
    let mut pair = Pair::plain();
    for v6 in [false, true] {
        for number in 0..1_500 {
            let opened = pair.stacks[0].connect(server(v6));
            assert!(opened.is_ok(), "connection {number}, v6 {v6}: {opened:?}");
        }
    }
}

#[test]
fn at_a_limit_of_connections_a_syn_waits_for_room_also_where_cookies_are_sent() {
    for half_open_max in [4096, 0] {
        let server_config = hioload_stack::StackConfig { half_open_max, ..config(1) };
        let mut pair = Pair::new(1, Faults::default(), 1500, [config(0), server_config]);
        pair.stacks[1].listen(80).unwrap();
        let room = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = room.clone();
        pair.stacks[1].admit_by(move |peer| {
            assert_eq!(peer, ip(false, 0));
            asked.load(std::sync::atomic::Ordering::Relaxed)
        });
        let (mut client, mut echo) = (Client::new(), Echo::default());
        client.open(&mut pair.stacks[0], server(false), 9, 1000);
        pair.pass([&mut client, &mut echo], Duration::from_secs(2));
        let counted = pair.stacks[1].counters().snapshot();
        assert!(counted.drop_at_limit_total >= 1, "{counted:?}");
        assert_eq!((counted.connections, counted.segments_out_total), (0, 0));
        room.store(true, std::sync::atomic::Ordering::Relaxed);
        pair.run([&mut client, &mut echo], MINUTE, |_| false);
        assert_eq!((client.finished, client.broken), (1, 0));
    }
}

#[test]
fn a_survey_sees_each_open_connection_once_frozen_or_not() {
    let mut pair = Pair::plain();
    pair.stacks[1].listen(80).unwrap();
    let (mut client, mut echo) = (Client::new(), Echo::default());
    for salt in 0..10 {
        let id = client.open(&mut pair.stacks[0], server(salt % 2 == 0), salt, 100);
        client.conns.get_mut(&key(id)).unwrap().hold = true;
    }
    let opened = |pair: &Pair| pair.stacks[1].counters().snapshot().accepted_total == 10;
    assert!(pair.run([&mut client, &mut echo], MINUTE, opened));
    pair.pass([&mut client, &mut echo], MINUTE);
    let (mut peers, mut at) = (std::collections::BTreeSet::new(), Some(0));
    while let Some(from) = at {
        at = pair.stacks[1].survey(from, 3, &mut |_, stats| {
            assert!(stats.frozen && peers.insert(stats.peer), "{stats:?}");
        });
    }
    assert_eq!(peers.len(), 10);
}

#[test]
fn what_is_configured_wrong_is_said() {
    let wire = Wire::new(1, Faults::default());
    let try_with = |change: &dyn Fn(&mut hioload_stack::StackConfig), mtu: u16| {
        let mut config = config(1);
        change(&mut config);
        let link = SimLink::new(&wire, 1, mtu, Offloads::default());
        hioload_stack::Stack::new(link, &config, hioload_core::Now::ZERO)
            .err()
            .map(|e| e.to_string())
    };
    assert_eq!(try_with(&|_| (), 1500), None);
    assert!(try_with(&|c| c.addresses.clear(), 1500).unwrap().contains("0 addresses"));
    assert!(try_with(&|c| c.addresses[0].prefix = 33, 1500).unwrap().contains("10.0.0.2"));
    assert!(try_with(&|c| c.vlan = Some(4095), 1500).unwrap().contains("4095"));
    assert!(try_with(&|_| (), 1279).unwrap().contains("1279"));
    assert!(try_with(&|c| c.ring_class = 3, 1500).unwrap().contains("ring class"));
}
