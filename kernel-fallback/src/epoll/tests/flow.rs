//! Receiving: shares of the arena, pausing, waking, accepting, connecting.

use super::*;
use hioload_pipeline::backend::Accepting;
use std::collections::HashMap;
use std::net::TcpListener;
use std::thread;

#[test]
fn ipv6_works_like_ipv4() {
    let mut rig = Rig::on("[::1]:0", |_| {});
    let (mut client, id) = rig.client();
    let peer = rig.turn(|_, tx| tx.peer(id));
    assert_eq!(peer, Some(client.local_addr().unwrap()));
    assert!(rig.send(id, b"six"));
    assert_eq!(read_exact(&mut client, 3), b"six");
}

#[test]
fn connections_dont_delay_small_segments() {
    let mut rig = Rig::new();
    let (_client, id) = rig.client();
    let fd = rig.epoll.table.live(id).unwrap().fd();
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let value_at = std::ptr::from_mut(&mut value).cast();
    // SAFETY: writes at most `len` bytes to `value`; both live.
    let rc =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, value_at, &mut len) };
    assert_eq!((rc, value != 0), (0, true));
}

#[test]
fn a_turn_receives_up_to_256_kib_of_a_connection_at_once() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    let sent = pattern(16 << 20);
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            client.write_all(&sent).unwrap();
            client
        }
    });
    let (mut got, mut most) = (Vec::new(), 0);
    while got.len() < sent.len() {
        rig.readable(id);
        rig.turn(|rx, _| {
            let window = rx.take(id).expect("it is readable");
            most = most.max(window.bytes().len());
            got.extend_from_slice(window.bytes());
            assert!(rx.take(id).is_none());
        });
    }
    assert!(got == sent);
    assert!(most > 64 << 10 && most <= 256 << 10, "{most}");
    writer.join().unwrap();
}

#[test]
fn nobody_starves_when_all_together_have_more_than_the_arena_holds() {
    let mut rig = Rig::with(|config| config.arena_bytes = 64 << 10);
    let mut clients: Vec<_> = (0..8).map(|_| rig.client()).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = clients
        .drain(..)
        .map(|(mut client, id)| {
            let stop = Arc::clone(&stop);
            client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            let writer = thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = client.write(&[1; 65_536]);
                }
            });
            (id, writer)
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    let mut shares: HashMap<ConnId, usize> = HashMap::new();
    let mut left = Vec::new();
    for _ in 0..200 {
        if left.is_empty() {
            left = rig.poll(Duration::from_millis(100));
        }
        // As the pipeline does: where the arena is full, the next turn goes on.
        rig.turn(|rx, _| {
            let full = left.iter().position(|event| {
                if let Event::Readable(id) = *event {
                    if rx.is_full() {
                        return true;
                    }
                    if let Some(window) = rx.take(id) {
                        *shares.entry(id).or_default() += usize::from(!window.bytes().is_empty());
                    }
                }
                false
            });
            left.drain(..full.unwrap_or(left.len()));
        });
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(rig.counts().arena_full_total > 0, "the arena was too large for this test");
    for (id, writer) in writers {
        let share = shares.get(&id).copied().unwrap_or(0);
        assert!(share >= 5, "{id:?} got {share} of 200 turns: {shares:?}");
        rig.epoll.abort(id);
        writer.join().unwrap();
    }
}

#[test]
fn a_paused_connection_is_silent_until_it_is_resumed() {
    let mut rig = Rig::new();
    let (mut client, id) = rig.client();
    rig.epoll.pause_rx(id, true);
    client.write_all(b"wait").unwrap();
    assert_eq!(rig.poll(Duration::from_millis(30)), []);
    let watched = rig.counts().watch_calls_total;
    rig.epoll.pause_rx(id, true);
    assert_eq!(rig.counts().watch_calls_total, watched, "no call where nothing changes");
    rig.epoll.pause_rx(id, false);
    rig.readable(id);
    rig.turn(|rx, _| assert_eq!(rx.take(id).unwrap().bytes(), b"wait"));
}

#[test]
fn a_paused_connection_that_is_reset_is_closed_and_doesnt_spin() {
    let mut rig = Rig::new();
    let (client, id) = rig.client();
    rig.epoll.pause_rx(id, true);
    reset(client);
    assert_eq!(rig.closed(id), Gone::Reset);
    let waits = rig.counts().wait_calls_total;
    assert_eq!(rig.poll(Duration::from_millis(20)), []);
    assert_eq!(rig.counts().wait_calls_total, waits + 1);
    rig.assert_clean();
}

#[test]
fn another_thread_wakes_a_waiting_worker_and_one_about_to_wait() {
    let mut rig = Rig::new();
    for _ in 0..3 {
        let waker = rig.epoll.waker();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        let start = Instant::now();
        assert_eq!(rig.poll(PATIENCE), []);
        assert!(start.elapsed() < PATIENCE / 2);
        thread.join().unwrap();
    }
    rig.epoll.waker().wake();
    rig.epoll.waker().wake();
    let start = Instant::now();
    rig.poll(PATIENCE);
    assert!(start.elapsed() < PATIENCE / 2);
    // Both are used up: the next one waits, and not shorter than it was told.
    let start = Instant::now();
    rig.poll(Duration::from_millis(20));
    assert!(start.elapsed() >= Duration::from_millis(20));
}

/// Long waits end by the alarm, and each of them, though it is never read.
#[test]
fn a_wait_of_seconds_ends_when_it_should_and_so_does_the_next() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        let wait = Duration::from_millis(1_050);
        let start = Instant::now();
        assert_eq!(rig.poll(wait), []);
        assert!(start.elapsed() >= wait && start.elapsed() < PATIENCE);
    }
}

#[test]
fn accepting_stops_and_goes_on_as_told() {
    let mut rig = Rig::new();
    rig.epoll.set_accepting(Accepting::Paused);
    let client = TcpStream::connect_timeout(&rig.addr, PATIENCE).unwrap();
    assert_eq!(rig.poll(Duration::from_millis(30)), []);
    rig.epoll.set_accepting(Accepting::Yes);
    assert!(matches!(rig.poll(PATIENCE)[..], [Event::Opened(_)]));
    rig.epoll.set_accepting(Accepting::Closed);
    assert!(TcpStream::connect_timeout(&rig.addr, PATIENCE).is_err());
    rig.epoll.set_accepting(Accepting::Yes);
    assert!(TcpStream::connect_timeout(&rig.addr, PATIENCE).is_err());
    drop(client);
}

#[test]
fn a_burst_of_connections_is_taken_in_bounded_turns() {
    let mut rig = Rig::with(|config| config.accept_burst = 4);
    let clients: Vec<_> =
        (0..10).map(|_| TcpStream::connect_timeout(&rig.addr, PATIENCE).unwrap()).collect();
    let mut opened = 0;
    for _ in 0..10 {
        let events = rig.poll(Duration::from_millis(100));
        assert!(events.len() <= 4);
        opened += events.len();
    }
    assert_eq!(opened, clients.len());
}

#[test]
fn a_full_event_list_loses_nothing() {
    let mut rig = Rig::new();
    rig.events = Events::with_limit(2);
    let mut clients: Vec<_> = (0..7).map(|_| rig.client()).collect();
    for (client, _) in &mut clients {
        client.write_all(b"x").unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..100 {
        let events = rig.poll(Duration::from_millis(20));
        assert!(events.len() <= 2);
        rig.turn(|rx, _| {
            for event in events {
                if let Event::Readable(id) = event
                    && rx.take(id).is_some()
                {
                    seen.push(id);
                }
            }
        });
        if seen.len() == clients.len() {
            break;
        }
    }
    seen.sort_by_key(|id| id.slot);
    assert_eq!(seen, clients.iter().map(|(_, id)| *id).collect::<Vec<_>>());
}

#[test]
fn an_outgoing_connection_opens_and_talks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::new();
    let id = rig.epoll.connect(listener.local_addr().unwrap()).unwrap();
    // Before it is established, output waits.
    assert!(rig.send(id, b"early "));
    rig.until(|event| (*event == Event::Opened(id)).then_some(()));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    rig.poll(Duration::from_millis(100));
    assert!(rig.send(id, b"late"));
    assert_eq!(read_exact(&mut server, 10), b"early late");
    server.write_all(b"back").unwrap();
    rig.readable(id);
    rig.turn(|rx, _| assert_eq!(rx.take(id).unwrap().bytes(), b"back"));
    assert_eq!(rig.counts().connections_open, 1);
}

#[test]
fn an_outgoing_connection_that_is_refused_is_closed_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut rig = Rig::new();
    let id = rig.epoll.connect(nobody).unwrap();
    assert_eq!(rig.closed(id), Gone::Failed);
    assert_eq!(rig.poll(Duration::from_millis(20)), []);
    rig.assert_clean();
}
