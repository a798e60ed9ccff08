//! How connections end: in order, by reset, half first, and what stale ids do.

use super::*;
use std::thread;

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    client.write_all(b"last words").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    rig.readable(id);
    rig.turn(|rx, _| assert_eq!(rx.take(id).unwrap().bytes(), b"last words"));
    rig.until(|event| (*event == Event::Eof(id)).then_some(()));
    // It is said once, and costs nothing from then on.
    assert_eq!(rig.poll(Duration::from_millis(20)), []);
    assert!(rig.send(id, b"answer"));
    rig.epoll.close(id);
    assert_eq!(read_to_end(&mut client), b"answer");
    assert_eq!(rig.closed(id), Gone::Finished);
    rig.assert_clean();
}

#[test]
fn a_reset_is_told_exactly_once() {
    let mut rig = Rig::new();
    let (client, id) = rig.client();
    reset(client);
    assert_eq!(rig.closed(id), Gone::Reset);
    for _ in 0..3 {
        assert_eq!(rig.poll(Duration::from_millis(5)), []);
    }
    assert_eq!(rig.counts().resets_total, 1);
    rig.assert_clean();
}

#[test]
fn a_reset_noticed_while_sending_is_told_exactly_once() {
    let mut rig = Rig::new();
    let (client, id) = rig.client();
    reset(client);
    thread::sleep(Duration::from_millis(20));
    assert!(rig.send(id, b"nobody reads this"));
    let events = rig.poll(PATIENCE);
    assert_eq!(events, [Event::Closed(id, Gone::Reset)]);
    assert_eq!(rig.poll(Duration::from_millis(5)), []);
    rig.assert_clean();
}

#[test]
fn a_peer_that_still_sends_gets_our_last_bytes_when_we_close() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let mut sender = client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..200 {
            sender.write_all(&[9; 8192]).unwrap();
        }
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    rig.readable(id);
    let last = pattern(50_000);
    let built = rig.turn(|_, tx| tx.build(id, last.len(), &mut |room| room.copy_from_slice(&last)));
    assert!(built);
    rig.epoll.close(id);
    assert_eq!(rig.closed(id), Gone::Finished);
    writer.join().unwrap();
    assert!(read_to_end(&mut client) == last, "a reset would have taken it back");
    rig.assert_clean();
}

#[test]
fn closing_sends_the_backlog_first() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let mut expected = Vec::new();
    while rig.counts().backlog_bytes == 0 {
        let bytes = pattern(60_000 + expected.len() % 1000);
        assert!(rig.send(id, &bytes));
        expected.extend_from_slice(&bytes);
    }
    rig.epoll.close(id);
    // What comes after `close` is taken and dropped.
    assert!(rig.send(id, b"too late"));
    let reader = thread::spawn(move || read_to_end(&mut client));
    assert_eq!(rig.closed(id), Gone::Finished);
    assert!(reader.join().unwrap() == expected);
    rig.assert_clean();
}

#[test]
fn closing_in_the_turn_of_the_last_output_sends_it() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let (_, mut tx) = rig.epoll.turn();
    assert!(tx.build(id, 3, &mut |room| room.copy_from_slice(b"bye")));
    rig.epoll.close(id);
    rig.epoll.flush(rig.clock.now());
    assert_eq!(read_to_end(&mut client), b"bye");
    drop(client);
    assert_eq!(rig.closed(id), Gone::Finished);
    rig.assert_clean();
}

#[test]
fn an_abort_resets_and_drops_what_waits() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let (_, mut tx) = rig.epoll.turn();
    assert!(tx.build(id, 3, &mut |room| room.copy_from_slice(b"bye")));
    rig.epoll.abort(id);
    rig.epoll.flush(rig.clock.now());
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(rig.poll(PATIENCE), [Event::Closed(id, Gone::Finished)]);
    rig.assert_clean();
}

#[test]
fn an_abort_ends_a_close_that_takes_too_long() {
    let mut rig = Rig::new();
    let (_client, id) = rig.client();
    while rig.counts().backlog_bytes == 0 {
        assert!(rig.send(id, &[0; 60_000]));
    }
    rig.epoll.close(id);
    assert_eq!(rig.poll(Duration::from_millis(20)), []);
    rig.epoll.abort(id);
    assert_eq!(rig.closed(id), Gone::Finished);
    rig.assert_clean();
}

#[test]
fn stale_ids_reach_nobody() {
    let mut rig = Rig::new();
    let (first, old) = rig.client();
    drop(first);
    rig.until(|event| (*event == Event::Eof(old)).then_some(()));
    rig.epoll.abort(old);
    assert_eq!(rig.closed(old), Gone::Finished);

    let (mut second, new) = rig.client();
    assert_eq!(new.slot, old.slot, "slots are reused, so that they stay dense");
    assert_ne!(new.generation, old.generation);
    for id in [old, ConnId { slot: u32::MAX, generation: 0 }, ConnId { slot: 999, ..new }] {
        rig.epoll.close(id);
        rig.epoll.abort(id);
        rig.epoll.pause_rx(id, true);
        assert!(rig.send(id, b"to nobody"));
        rig.turn(|rx, tx| {
            assert!(rx.take(id).is_none());
            assert!(!tx.build(id, 1, &mut |_| unreachable!("nobody there")));
            assert_eq!(tx.unsent(id), 0);
            assert_eq!(tx.peer(id), None);
        });
    }
    second.write_all(b"hi").unwrap();
    rig.readable(new);
    rig.turn(|rx, _| assert_eq!(rx.take(new).unwrap().bytes(), b"hi"));
    assert!(rig.send(new, b"to you"));
    assert_eq!(read_exact(&mut second, 6), b"to you");
}

#[test]
fn dropping_the_backend_closes_its_connections() {
    let mut rig = Rig::new();
    let (mut client, _) = rig.client();
    drop(rig);
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn connections_come_and_go_without_a_trace() {
    let mut rig = Rig::new();
    for round in 0..200 {
        let (client, id) = rig.client();
        match round % 3 {
            0 => reset(client),
            1 => rig.epoll.abort(id),
            _ => {
                rig.epoll.close(id);
                drop(client);
            }
        }
        rig.closed(id);
    }
    rig.assert_clean();
    let counts = rig.counts();
    assert_eq!((counts.accepted_total, rig.epoll.table.slots()), (200, 1));
}
