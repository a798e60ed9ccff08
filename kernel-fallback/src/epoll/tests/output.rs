//! What leaves, in how many calls, and what happens when the kernel has no room.

use super::*;
use hioload_core::frame::Frame;
use hioload_core::local::LocalFrames;
use hioload_pipeline::admission::Admission;
use hioload_pipeline::backend::{Now, Window};
use hioload_pipeline::counters::WorkerCounters;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{Handler, Parts, Settings, Worker, inbox, on_message};
use std::thread;

/// Lends what waits on a connection and gives it back whole.
fn echo(rig: &mut Rig, id: ConnId) -> usize {
    rig.turn(|rx, tx| {
        let mut echoed = 0;
        while let Some(window) = rx.take(id) {
            echoed += window.bytes().len();
            tx.send(id, Out::Window(window)).unwrap();
        }
        echoed
    })
}

#[test]
fn an_echo_costs_one_receive_and_one_send() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let before = rig.counts();
    for round in 0..10u8 {
        client.write_all(&[round; 64]).unwrap();
        rig.readable(id);
        assert_eq!(echo(&mut rig, id), 64);
        assert_eq!(read_exact(&mut client, 64), [round; 64]);
    }
    let after = rig.counts();
    assert_eq!(after.recv_calls_total - before.recv_calls_total, 10);
    assert_eq!(after.send_calls_total - before.send_calls_total, 10);
    assert_eq!(after.watch_calls_total, before.watch_calls_total);
    assert_eq!(after.accept_calls_total, before.accept_calls_total);
    assert_eq!(after.recv_bytes_total - before.recv_bytes_total, 640);
    assert_eq!(after.sent_bytes_total - before.sent_bytes_total, 640);
}

#[test]
fn pipelined_messages_leave_as_one_piece_in_one_send() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let sent = pattern(16 * 70);
    client.write_all(&sent).unwrap();
    rig.readable(id);
    let before = rig.counts();
    rig.turn(|rx, tx| {
        let mut rest = rx.take(id).unwrap().into_room();
        assert_eq!(rest.len(), sent.len(), "loopback delivers one write whole");
        while !rest.is_empty() {
            let (message, behind) = rest.split_at_mut(70);
            tx.send(id, Out::Window(Window::mint(message))).unwrap();
            rest = behind;
        }
        assert_eq!(tx.unsent(id), sent.len());
    });
    assert_eq!(read_exact(&mut client, sent.len()), sent);
    let after = rig.counts();
    assert_eq!(after.send_calls_total - before.send_calls_total, 1);
    assert_eq!(after.joined_outputs_total - before.joined_outputs_total, 15);
}

#[test]
fn every_form_of_output_leaves_in_order_in_one_send() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let (mut other, other_id) = rig.client();
    client.write_all(b"from the window").unwrap();
    rig.readable(id);
    let before = rig.counts().send_calls_total;
    let frame = LocalFrames::new().adopt(Frame::from_slice(b" shared"));
    let mut buf = rig.pool.alloc(32).unwrap();
    buf.append(b" owned");
    let mut foreign = *b" foreign";
    let (mut rx, mut tx) = rig.epoll.turn();
    let window = rx.take(id).unwrap();
    tx.send(id, Out::Shared(frame.clone())).unwrap();
    tx.send(other_id, Out::Shared(frame)).unwrap();
    tx.send(id, Out::Window(window)).unwrap();
    assert!(tx.build(id, 6, &mut |room| room.copy_from_slice(b" built")));
    assert!(tx.build(id, 4, &mut |room| room.copy_from_slice(b" too")));
    assert!(tx.build(other_id, 6, &mut |room| room.copy_from_slice(b" built")));
    assert!(tx.build(id, 6, &mut |room| room.copy_from_slice(b" apart")));
    tx.send(id, Out::Owned(buf)).unwrap();
    tx.send(id, Out::Window(Window::mint(&mut foreign))).unwrap();
    rig.epoll.flush(rig.clock.now());
    let expected = b" sharedfrom the window built too apart owned foreign";
    assert_eq!(read_exact(&mut client, expected.len()), expected);
    assert_eq!(read_exact(&mut other, 13), b" shared built");
    assert_eq!(rig.counts().send_calls_total - before, 2);
    assert_eq!(rig.pool.stats().lent, 0);
}

/// A worker that sends each message back.
fn echo_worker(
    epoll: Epoll,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    now: Now,
) -> Worker<Epoll, impl Handler> {
    let (_remote, mut inboxes) = inbox::inboxes(1, 16);
    let parts = Parts {
        settings: Settings::default(),
        pool,
        inbox: inboxes.remove(0),
        counters,
        admission: Admission::new(0, 0),
    };
    let handler = on_message(|message, context| {
        let _ = context.echo(message);
    });
    Worker::new(epoll, handler, parts, now)
}

/// A client whose handshake the worker has answered; `sockets` is what its backend counts.
fn open_websocket(
    worker: &mut Worker<Epoll, impl Handler>,
    sockets: &SocketCounters,
    addr: SocketAddr,
    clock: &MonotonicClock,
) -> TcpStream {
    let mut client = connect(addr);
    let sent = sockets.sent_bytes_total.get();
    client.write_all(&wire::request("/", "")).unwrap();
    while sockets.sent_bytes_total.get() == sent {
        worker.turn(clock).unwrap();
    }
    let mut head = [0; 4096];
    let len = client.read(&mut head).unwrap();
    assert_eq!(wire::head_len(&head[..len]), Some(len));
    client
}

/// The same with real frames: the server's shorter headers leave gaps between the replies.
#[test]
fn pipelined_websocket_echoes_leave_in_one_send() {
    let Rig { epoll, addr, clock, pool, .. } = Rig::new();
    let counters = Arc::clone(&epoll.counters);
    let mut worker = echo_worker(epoll, pool, Arc::default(), clock.now());
    let mut client = open_websocket(&mut worker, &counters, addr, &clock);
    let (mut frames, mut echoes) = (Vec::new(), 0);
    for len in 0..16 {
        wire::put_frame(&mut frames, wire::TEXT, &wire::pattern(len * 20, len));
    }
    let before = counters.snapshot();
    client.write_all(&frames).unwrap();
    let (mut received, mut room) = (Vec::new(), [0; 4096]);
    while echoes < 16 {
        worker.turn(&clock).unwrap();
        if counters.sent_bytes_total.get() == before.sent_bytes_total {
            continue;
        }
        let len = client.read(&mut room).unwrap();
        received.extend_from_slice(&room[..len]);
        while let Some((frame, len)) = wire::parse(&received) {
            assert_eq!(frame.payload, wire::pattern(echoes * 20, echoes));
            echoes += 1;
            received.drain(..len);
        }
    }
    let after = counters.snapshot();
    assert_eq!(after.send_calls_total - before.send_calls_total, 1);
    assert_eq!(after.joined_outputs_total - before.joined_outputs_total, 15);
}

/// More waits than a turn receives: the turns that follow serve it without asking epoll again, and
/// no message is cut because another connection left little of the arena.
#[test]
fn what_a_full_arena_leaves_is_served_next_whole_and_without_another_wait() {
    const CLIENTS: usize = 12;
    const MESSAGE: usize = 16 << 10;
    let Rig { epoll, addr, clock, pool, .. } = Rig::with(|config| config.arena_bytes = 3 * MESSAGE);
    let sockets = Arc::clone(&epoll.counters);
    let counters: Arc<WorkerCounters> = Arc::default();
    let mut worker = echo_worker(epoll, pool, Arc::clone(&counters), clock.now());
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| open_websocket(&mut worker, &sockets, addr, &clock)).collect();
    let before = sockets.snapshot();
    for (n, client) in clients.iter_mut().enumerate() {
        let mut frames = Vec::new();
        wire::put_frame(&mut frames, wire::BINARY, &wire::pattern(MESSAGE, n));
        wire::put_frame(&mut frames, wire::BINARY, &wire::pattern(MESSAGE, n + 1));
        client.write_all(&frames).unwrap();
    }
    while counters.messages_in_total.get() < 2 * CLIENTS as u64 {
        worker.turn(&clock).unwrap();
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let echoes = read_exact(client, 2 * (MESSAGE + 4));
        for (index, echo) in echoes.chunks(MESSAGE + 4).enumerate() {
            let (frame, _) = wire::parse(echo).unwrap();
            assert!(frame.payload == wire::pattern(MESSAGE, n + index), "client {n}");
        }
    }
    let after = sockets.snapshot();
    // Two connections fill the arena. Who wrote was readable before the first turn, so one wait
    // reports all of them.
    assert_eq!(after.wait_calls_total - before.wait_calls_total, 1);
    assert_eq!(after.arena_full_total - before.arena_full_total, CLIENTS as u64 / 2 - 1);
    assert_eq!(after.recv_calls_total - before.recv_calls_total, CLIENTS as u64);
    assert_eq!(counters.messages_assembled_total.get(), 0);
}

#[test]
fn more_pieces_than_one_call_takes_all_leave() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let frames = LocalFrames::new();
    let expected: Vec<u8> = (0..1000u16).flat_map(u16::to_be_bytes).collect();
    rig.turn(|_, tx| {
        for piece in expected.chunks(2) {
            tx.send(id, Out::Shared(frames.adopt(Frame::from_slice(piece)))).unwrap();
        }
    });
    assert_eq!(read_exact(&mut client, expected.len()), expected);
}

#[test]
fn what_a_reader_that_stalls_left_arrives_in_order_when_it_reads() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let frames = LocalFrames::new();
    let mut expected = Vec::new();
    let mut refused = false;
    for round in 0..2000usize {
        let bytes = pattern(20_000 + round);
        let done = rig.turn(|_, tx| {
            let built = tx.build(id, 100, &mut |room| room.fill(round as u8));
            if built {
                expected.extend_from_slice(&[round as u8; 100]);
            }
            match tx.send(id, Out::Shared(frames.adopt(Frame::from_slice(&bytes)))) {
                Ok(()) => expected.extend_from_slice(&bytes),
                Err(_) => refused = true,
            }
            assert!(built || refused);
            refused
        });
        if done {
            break;
        }
    }
    assert!(refused, "loopback's buffers are bounded");
    let counts = rig.counts();
    assert!(counts.backlog_bytes > 0);
    assert!(counts.partial_sends_total > 0);
    rig.turn(|_, tx| {
        assert_eq!(tx.unsent(id), counts.backlog_bytes as usize);
        assert!(!tx.build(id, 1, &mut |_| unreachable!("no room")));
    });
    // Nothing to do while the peer doesn't read: the worker sleeps.
    assert_eq!(rig.poll(Duration::from_millis(20)), []);

    let len = expected.len();
    let reader = thread::spawn(move || (read_exact(&mut client, len), client));
    rig.until(|event| (*event == Event::Writable(id)).then_some(()));
    let (got, _client) = reader.join().unwrap();
    assert!(got == expected, "every byte in order");
    assert_eq!(rig.counts().backlog_bytes, 0);
    assert_eq!(rig.pool.stats().lent, 0);
    assert!(rig.send(id, b"more"));
}

#[test]
fn a_turn_takes_a_bounded_amount_and_says_when_there_is_room() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let frame = LocalFrames::new().adopt(Frame::from_slice(&pattern(300 << 10)));
    rig.turn(|_, tx| {
        tx.send(id, Out::Shared(frame.clone())).unwrap();
        assert!(tx.send(id, Out::Shared(frame.clone())).is_err());
    });
    let reader = thread::spawn(move || read_exact(&mut client, 300 << 10).len());
    rig.until(|event| (*event == Event::Writable(id)).then_some(()));
    assert_eq!(reader.join().unwrap(), 300 << 10);
}

#[test]
fn without_memory_for_the_rest_only_that_connection_fails() {
    let mut rig = Rig::new();
    let (client, id) = rig.client();
    let (mut other, other_id) = rig.client();
    let all: Vec<_> =
        std::iter::from_fn(|| rig.pool.alloc(1 << 20)).chain(rig.pool.alloc(512)).collect();
    let mut more: Vec<_> = std::iter::from_fn(|| rig.pool.alloc(512)).collect();
    more.extend(all);
    for _ in 0..10_000 {
        rig.turn(|_, tx| {
            tx.build(id, 60_000, &mut |room| room.fill(1));
        });
        if rig.counts().memory_failures_total > 0 {
            break;
        }
    }
    assert_eq!(rig.counts().memory_failures_total, 1);
    assert_eq!(rig.closed(id), Gone::Failed);
    drop((more, client));
    assert!(rig.send(other_id, b"still here"));
    assert_eq!(read_exact(&mut other, 10), b"still here");
    assert_eq!(rig.counts().backlog_bytes, 0);
}

#[test]
fn messages_of_many_connections_are_lent_side_by_side() {
    let mut rig = Rig::new();
    let mut clients: Vec<_> = (0..10).map(|_| rig.client()).collect();
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        client.write_all(&[n as u8; 1000]).unwrap();
    }
    thread::sleep(Duration::from_millis(20));
    rig.poll(Duration::ZERO);
    let ids: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
    rig.turn(|rx, tx| {
        let windows: Vec<_> = ids.iter().map(|id| rx.take(*id).unwrap()).collect();
        for (n, (window, id)) in windows.into_iter().zip(&ids).enumerate().rev() {
            assert_eq!(window.bytes(), [n as u8; 1000]);
            tx.send(*id, Out::Window(window)).unwrap();
        }
    });
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        assert_eq!(read_exact(client, 1000), [n as u8; 1000]);
    }
}
