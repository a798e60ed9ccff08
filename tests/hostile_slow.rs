//! Clients that take their time: those that say nothing or a byte a second must not delay others,
//! and those that never read must not cost more memory than their limit.

#![cfg(target_os = "linux")]

mod common;

use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::raw::{BINARY, PING, Raw, TEXT, frame, request};
use common::{PATIENCE, TestServer, builder, echo, eventually};
use hioload_ws::{Handler, Kind, Limits, Overflow, Settings, on_message};

const KIB: usize = 1024;

#[test]
fn silent_and_byte_a_second_clients_delay_nobody() {
    // One worker, so that all of them meet.
    let server = TestServer::start(builder().workers(1), echo());
    let silent = Raw::connect(server.address());
    let silent_session = Raw::open(server.address());
    let mut half_request = Raw::connect(server.address());
    let mut half_frame = Raw::open(server.address());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = request("/", "");
            let frame = frame(TEXT, b"a message that takes its time");
            for (of_request, of_frame) in request.iter().zip(frame.iter().cycle()) {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                // The server may have had enough of it.
                let _ = half_request.stream.write_all(&[*of_request]);
                let _ = half_frame.stream.write_all(&[*of_frame]);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let begin = Instant::now();
        let mut clients: Vec<Raw> = (0..10).map(|_| Raw::open(server.address())).collect();
        for round in 0..200 {
            for client in &mut clients {
                client.send_text("quick");
                assert_eq!(client.text(), "quick", "round {round}");
            }
        }
        // Two thousand round trips: a tenth of a second lost in each would be minutes.
        assert!(begin.elapsed() < PATIENCE);
        done.store(true, Ordering::Relaxed);
    });
    drop((silent, silent_session, half_request, half_frame));
    server.serves_and_leaks_nothing();
}

#[test]
fn handshakes_that_take_too_long_end_with_408() {
    let server = TestServer::start(builder().handshake_timeout(Duration::from_millis(300)), echo());
    let mut silent = Raw::connect(server.address());
    let mut half = Raw::connect(server.address());
    half.send(b"GET / HTTP/1.1\r\nHost: lo");
    assert_eq!(half.refusal(), 408);
    assert_eq!(silent.refusal(), 408);
    assert_eq!(server.monitor().total().handshakes_timed_out_total, 2);
    drop((silent, half));
    server.serves_and_leaks_nothing();
}

#[test]
fn an_idle_session_is_pinged_and_then_closed() {
    let settings = Settings {
        ping_after: Duration::from_millis(300),
        dead_after: Duration::from_millis(900),
        ..Settings::default()
    };
    let server = TestServer::start(builder().settings(settings), echo());
    let mut client = Raw::open(server.address());
    assert_eq!(client.frame().unwrap().first, PING);
    // Without an answer to the ping:
    assert_eq!(client.close_code(), Some(1001));
    assert_eq!(server.monitor().total().idle_closed_total, 1);
    drop(client);
    server.serves_and_leaks_nothing();
}

/// Unsent bytes that a session may have in these tests.
const MAX_UNSENT: usize = 256 * KIB;
const MESSAGE: usize = 16 * KIB;

/// Sends each message to all others.
fn broadcast() -> impl Handler + Clone + Send + 'static {
    on_message(|message, context| {
        context.broadcast(message.kind(), message.payload(), Some(message.session()));
    })
}

/// Output held for sessions: in their queues, in the backend, and as pool buffers.
fn held(server: &TestServer) -> (u64, u64) {
    let (total, sockets) = (server.monitor().total(), server.monitor().sockets());
    (total.queued_bytes + sockets.backlog_bytes, total.pool_bytes_lent)
}

/// Sends `count` broadcasts while nobody reads, and checks at each what the server holds.
fn flood(server: &TestServer, readers: usize, count: usize) {
    let payload = vec![0x55; MESSAGE];
    // Each may exceed its limit by a message; the pool rounds up to its size classes.
    let most = (readers * (MAX_UNSENT + 2 * MESSAGE)) as u64;
    let (_, pool_before) = held(server);
    let begin = Instant::now();
    for _ in 0..count {
        while server.running.remote().broadcast(Kind::Binary, &payload, None).missed > 0 {
            assert!(begin.elapsed() < PATIENCE, "the workers' inboxes stay full");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (bytes, pool) = held(server);
        assert!(bytes <= most, "{bytes} bytes wait; the limit allows {most}");
        let grown = pool.saturating_sub(pool_before);
        assert!(grown <= 4 * most, "{grown} bytes of the pool are lent, for a limit of {most}");
    }
}

fn never_reading(server: &TestServer) -> Vec<Raw> {
    (0..4).map(|_| Raw::open(server.address())).collect()
}

/// Two fresh sessions hear from each other.
fn hears(address: std::net::SocketAddr) {
    let mut listener = Raw::open(address);
    let mut speaker = Raw::open(address);
    // The listener's session is open when its handshake is answered.
    speaker.send_text("hear me");
    assert_eq!(listener.text(), "hear me");
}

#[test]
fn readers_that_never_read_are_bounded_where_the_newest_is_dropped() {
    let limits = builder().max_unsent_bytes(MAX_UNSENT).overflow(Overflow::DropNewest);
    let server = TestServer::start(limits, broadcast());
    let readers = never_reading(&server);
    flood(&server, readers.len(), 1_500);
    let total = server.monitor().total();
    assert!(total.overflow_dropped_total > 0);
    assert_eq!(total.overflow_closed_total, 0);
    assert_eq!(total.sessions_open, 4, "they are slow, not closed");
    drop(readers);
    server.serves_and_leaks_nothing_by(hears);
}

#[test]
fn readers_that_never_read_are_bounded_where_the_oldest_is_dropped() {
    let limits = builder().max_unsent_bytes(MAX_UNSENT).overflow(Overflow::DropOldest);
    let server = TestServer::start(limits, broadcast());
    let mut readers = never_reading(&server);
    flood(&server, readers.len(), 1_500);
    assert!(server.monitor().total().overflow_dropped_total > 0);
    // The newest is what such a session gets in the end, and whole messages only.
    let last = b"the last one";
    let reached = server.running.remote().broadcast(Kind::Binary, last, None);
    assert_eq!(reached.missed, 0);
    let reader = &mut readers[0];
    loop {
        let frame = reader.frame().unwrap();
        assert!(frame.first == BINARY);
        if frame.payload == last {
            break;
        }
        assert!(frame.payload.len() == MESSAGE && frame.payload.iter().all(|byte| *byte == 0x55));
    }
    drop(readers);
    server.serves_and_leaks_nothing_by(hears);
}

#[test]
fn readers_that_never_read_are_closed_where_the_policy_says_so() {
    let settings = Settings {
        max_unsent_bytes: MAX_UNSENT,
        overflow: Overflow::Close,
        close_timeout: Duration::from_millis(500),
        ..Settings::default()
    };
    let server = TestServer::start(builder().settings(settings), broadcast());
    let readers = never_reading(&server);
    flood(&server, readers.len(), 1_500);
    eventually("all are closed", || server.monitor().total().overflow_closed_total == 4);
    // The clients are still there and still don't read; the server waits no longer for them.
    eventually("all are dropped", || server.monitor().total().connections_open == 0);
    drop(readers);
    server.serves_and_leaks_nothing_by(hears);
}

#[test]
fn a_client_that_sends_and_never_reads_is_read_no_further() {
    let limits = Limits { max_frame: 64 * KIB as u64, max_message: 64 * KIB as u64 };
    let bounded = builder().workers(1).max_unsent_bytes(MAX_UNSENT).limits(limits);
    let server = TestServer::start(bounded, echo());
    let mut client = Raw::open(server.address());
    client.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let message = frame(BINARY, &[1; 32 * KIB]);
    // Replies may exceed the limit by a message and a turn's input, 256 KiB.
    let most = (MAX_UNSENT + 64 * KIB + 256 * KIB + 2 * 32 * KIB) as u64;
    let mut stuck = false;
    for _ in 0..4_000 {
        match client.stream.write_all(&message) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stuck = true;
                break;
            }
            Err(error) => panic!("the session must stay: {error}"),
        }
        let (bytes, _) = held(&server);
        assert!(bytes <= most, "{bytes} bytes wait; allowed are {most}");
    }
    assert!(stuck, "the server took 128 MB without an end");
    assert!(server.monitor().total().rx_paused_total > 0);
    // Others are served meanwhile.
    common::echoes(server.address());
    drop(client);
    server.serves_and_leaks_nothing();
}
