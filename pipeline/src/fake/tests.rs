//! The fake against the rules of the seam, without a pipeline above it.

use std::net::SocketAddr;

use hioload_core::pool::{NodePool, Pool, PoolConfig};

use super::{End, Fake, Mode, Peer};
use crate::backend::{
    Accepting, Backend, ConnId, Event, Events, Gone, Now, RxHalf, TxHalf, Wait, Window,
};
use crate::window::Out;

const MODES: [Mode; 3] = [
    Mode::Readiness,
    Mode::Completion { buffers: 8, hold_turns: 2 },
    Mode::Ring { rx_bytes: 1000, tx_bytes: 500 },
];

fn pool() -> Pool {
    let config = PoolConfig { node: None, budget_bytes: 16 << 20, huge: false };
    NodePool::new(config).expect("memory").share()
}

fn owned(pool: &Pool, bytes: &[u8]) -> Out<'static> {
    let mut buf = pool.alloc(bytes.len()).expect("memory");
    buf.append(bytes);
    Out::Owned(buf)
}

/// One turn: what happened, and every window, echoed if asked.
fn turn(fake: &mut Fake, echo: bool) -> (Vec<Event>, Vec<Vec<u8>>) {
    let mut events = Events::with_limit(64);
    fake.poll(Now::ZERO, Wait::Poll, &mut events).expect("it polls");
    let mut windows = Vec::new();
    let (mut rx, mut tx) = fake.turn();
    for event in events.as_slice() {
        if let Event::Readable(conn) = *event {
            while let Some(window) = rx.take(conn) {
                windows.push(window.bytes().to_vec());
                if echo {
                    let _ = tx.send(conn, Out::Window(window));
                }
            }
        }
    }
    fake.flush(Now::ZERO);
    (events.as_slice().to_vec(), windows)
}

fn open(mode: Mode) -> (Fake, Peer, ConnId) {
    let mut fake = Fake::new(mode);
    let peer = fake.connect();
    let conn = peer.conn();
    assert_eq!(turn(&mut fake, false).0, [Event::Opened(conn)]);
    (fake, peer, conn)
}

fn send(fake: &mut Fake, conn: ConnId, out: Out<'static>) -> bool {
    let taken = fake.turn().1.send(conn, out).is_ok();
    fake.flush(Now::ZERO);
    taken
}

#[test]
fn bytes_are_lent_once_and_in_order_and_eof_comes_behind_them() {
    for mode in MODES {
        let (mut fake, peer, conn) = open(mode);
        let sent: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        peer.send(&sent);
        peer.finish();
        let mut got = Vec::new();
        for _ in 0..1000 {
            let (events, windows) = turn(&mut fake, false);
            let bytes: usize = windows.iter().map(Vec::len).sum();
            assert!(bytes <= 64 * 1024, "{bytes} bytes in a turn");
            got.extend(windows.concat());
            if events.contains(&Event::Eof(conn)) {
                break;
            }
        }
        assert!(got == sent, "{mode:?}");
        assert!(turn(&mut fake, false).0.is_empty(), "Eof comes once");
    }
}

#[test]
fn a_ring_that_wraps_lends_two_windows() {
    let (mut fake, peer, _) = open(Mode::Ring { rx_bytes: 100, tx_bytes: 100 });
    peer.send(&[1; 70]);
    assert_eq!(turn(&mut fake, true).1, [vec![1; 70]]);
    peer.send(&[2; 60]);
    assert_eq!(turn(&mut fake, true).1, [vec![2; 30], vec![2; 30]]);
    assert_eq!(peer.take(), [vec![1; 70], vec![2; 60]].concat());
}

#[test]
fn refused_output_is_followed_by_writable_and_nothing_is_lost() {
    for mode in MODES {
        let pool = pool();
        let (mut fake, peer, conn) = open(mode);
        peer.set_window(0);
        let mut taken = 0;
        for _ in 0..100 {
            if !send(&mut fake, conn, owned(&pool, &[7; 300])) {
                break;
            }
            taken += 1;
        }
        assert!((1..100).contains(&taken), "{mode:?}: {taken}");
        assert_eq!(fake.turn().1.unsent(conn), 300 * taken);
        fake.flush(Now::ZERO);
        for _ in 0..5 {
            assert!(turn(&mut fake, false).0.is_empty(), "no room yet");
        }
        peer.set_window(usize::MAX);
        let events: Vec<_> = (0..5).flat_map(|_| turn(&mut fake, false).0).collect();
        assert_eq!(events, [Event::Writable(conn)], "{mode:?}");
        assert_eq!(peer.take(), vec![7; 300 * taken]);
        assert_eq!(fake.turn().1.unsent(conn), 0);
        fake.flush(Now::ZERO);
    }
}

#[test]
fn what_is_larger_than_the_ring_leaves_in_pieces_when_nothing_else_waits() {
    let pool = pool();
    let (mut fake, peer, conn) = open(Mode::Ring { rx_bytes: 100, tx_bytes: 100 });
    peer.set_window(40);
    let large: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
    assert!(send(&mut fake, conn, owned(&pool, &[9; 60])));
    assert!(!send(&mut fake, conn, owned(&pool, &large)), "something waits");
    assert_eq!(peer.take(), [9; 40]);
    assert_eq!(turn(&mut fake, false).0, [Event::Writable(conn)]);
    assert!(send(&mut fake, conn, owned(&pool, &large)));
    assert!(!send(&mut fake, conn, owned(&pool, &[1])), "nothing passes it");
    let mut got = Vec::new();
    for _ in 0..100 {
        peer.take_into(&mut got);
        turn(&mut fake, false);
    }
    assert_eq!(got[..20], [9; 20]);
    assert!(got[20..] == large);
}

#[test]
fn at_most_half_of_the_buffers_are_held_by_output() {
    let (mut fake, peer, _) = open(Mode::Completion { buffers: 8, hold_turns: 4 });
    peer.send(&[5; 30_000]);
    for _ in 0..200 {
        turn(&mut fake, true);
        assert!(fake.pinned() <= 4);
    }
    assert_eq!((fake.pinned(), fake.pinned_max()), (0, 4));
}

#[test]
fn a_close_sends_what_was_taken_then_fin_and_ends_with_the_peers() {
    for mode in MODES {
        let pool = pool();
        let (mut fake, peer, conn) = open(mode);
        peer.set_window(100);
        assert!(send(&mut fake, conn, owned(&pool, &[3; 400])));
        fake.close(conn);
        peer.send(b"discarded");
        let mut got = Vec::new();
        for _ in 0..20 {
            assert_eq!(peer.end(), End::Open, "not before the last byte");
            assert!(turn(&mut fake, false).0.is_empty());
            peer.take_into(&mut got);
            if got.len() == 400 {
                break;
            }
        }
        turn(&mut fake, false);
        assert_eq!((got, peer.end()), (vec![3; 400], End::Fin));
        assert!(!peer.is_closed(), "the peer may go on");
        peer.finish();
        assert_eq!(turn(&mut fake, false).0, [Event::Closed(conn, Gone::Finished)]);
        assert!(peer.is_closed());
        assert!(turn(&mut fake, false).0.is_empty(), "once");
    }
}

#[test]
fn a_dead_id_reaches_nobody_and_its_output_is_dropped() {
    for mode in MODES {
        let pool = pool();
        let (mut fake, peer, old) = open(mode);
        peer.reset();
        assert_eq!(turn(&mut fake, false).0, [Event::Closed(old, Gone::Reset)]);
        drop(peer);
        let next = fake.connect();
        assert_eq!(next.conn().slot, old.slot, "the slot has a new tenant");
        assert_eq!(turn(&mut fake, false).0, [Event::Opened(next.conn())]);
        assert!(send(&mut fake, old, owned(&pool, b"stale")));
        fake.close(old);
        fake.abort(old);
        fake.pause_rx(old, true);
        assert!(turn(&mut fake, false).0.is_empty());
        assert_eq!((next.take(), next.end(), next.is_paused()), (vec![], End::Open, false));
    }
}

#[test]
fn an_abort_resets_at_once() {
    for mode in MODES {
        let pool = pool();
        let (mut fake, peer, conn) = open(mode);
        peer.set_window(0);
        send(&mut fake, conn, owned(&pool, &[1; 100]));
        fake.abort(conn);
        assert_eq!(turn(&mut fake, false).0, [Event::Closed(conn, Gone::Finished)]);
        assert_eq!(peer.end(), End::Reset);
    }
}

#[test]
fn a_paused_connection_is_not_read_until_it_is_resumed() {
    for mode in MODES {
        let (mut fake, peer, conn) = open(mode);
        fake.pause_rx(conn, true);
        peer.send(b"later");
        peer.finish();
        assert!(turn(&mut fake, false).0.is_empty());
        assert!(peer.is_paused());
        fake.pause_rx(conn, false);
        let (events, windows) = turn(&mut fake, false);
        assert_eq!(events, [Event::Readable(conn), Event::Eof(conn)]);
        assert_eq!(windows.concat(), b"later");
    }
}

#[test]
fn accepting_pauses_and_ends() {
    for mode in MODES {
        let mut fake = Fake::new(mode);
        fake.set_accepting(Accepting::Paused);
        let waiting = fake.connect();
        assert!(turn(&mut fake, false).0.is_empty());
        fake.set_accepting(Accepting::Yes);
        assert_eq!(turn(&mut fake, false).0, [Event::Opened(waiting.conn())]);
        fake.set_accepting(Accepting::Closed);
        fake.set_accepting(Accepting::Yes);
        assert_eq!(fake.connect().end(), End::Reset, "never again");
        assert_eq!(waiting.end(), End::Open, "who was there stays");
        drop(fake);
        assert_eq!(waiting.end(), End::Reset, "the process is gone");
    }
}

#[test]
fn a_connection_of_ours_opens_when_it_is_answered_and_fails_when_refused() {
    for mode in MODES {
        let to = SocketAddr::from(([192, 0, 2, 1], 80));
        let mut fake = Fake::new(mode);
        let (first, second) = (fake.connect_to(to), fake.connect_to(to));
        assert!(turn(&mut fake, false).0.is_empty());
        let dial = fake.net().next_dial().expect("a connection is asked for");
        assert_eq!(dial.to(), to);
        let peer = dial.accept();
        assert_eq!(turn(&mut fake, false).0, [Event::Opened(first)]);
        peer.send(b"hello");
        assert_eq!(turn(&mut fake, true).1, [b"hello"]);
        drop(fake.net().next_dial());
        let events: Vec<_> = (0..5).flat_map(|_| turn(&mut fake, false).0).collect();
        assert_eq!(events, [Event::Closed(second, Gone::Failed)]);
        assert_eq!(peer.take(), b"hello");
    }
}

impl Fake {
    fn connect_to(&mut self, to: SocketAddr) -> ConnId {
        Backend::connect(self, to).expect("it can")
    }
}

#[test]
#[should_panic(expected = "every window that was offered is taken")]
fn a_window_that_nobody_takes_is_an_error() {
    let (mut fake, peer, _) = open(Mode::Readiness);
    peer.send(b"lost");
    let mut events = Events::with_limit(8);
    fake.poll(Now::ZERO, Wait::Poll, &mut events).expect("it polls");
    fake.flush(Now::ZERO);
}

#[test]
#[should_panic(expected = "lies in the memory that was lent")]
fn a_foreign_window_is_an_error() {
    let (mut fake, _peer, conn) = open(Mode::Readiness);
    let mut foreign = [0; 10];
    let _ = fake.turn().1.send(conn, Out::Window(Window::mint(&mut foreign)));
}

#[test]
#[should_panic(expected = "`fill` writes every byte")]
fn a_fill_that_leaves_bytes_unwritten_is_an_error() {
    let (mut fake, _peer, conn) = open(Mode::Readiness);
    fake.turn().1.build(conn, 100, &mut |room| room[..50].fill(1));
}
