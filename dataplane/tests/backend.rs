//! The backend by itself, turn by turn, with another stack as its peer: output larger than any ring,
//! what is refused meanwhile, ends in the middle of it, wake-ups.
#![cfg(target_os = "linux")]

#[path = "common/pair.rs"]
// The peer here is driven by hand, not by a host on a thread.
#[allow(dead_code)]
mod pair;

use std::time::{Duration, Instant};

use hioload_core::Now;
use hioload_core::frame::Frame;
use hioload_core::local::LocalFrames;
use hioload_core::pool::{NodePool, Pool, PoolBuf, PoolConfig};
use hioload_core::wait::Wait;
use hioload_dataplane::{Frames, Stack};
use hioload_pipeline::backend::{Backend, ConnId, Event, Events, Gone, Out, TxHalf};
use hioload_stack as stack;
use pair::{PORT, SocketLink, ip};

/// The backend, a peer that reads when it is told to, and the time that both live in.
struct Rig {
    server: Frames<SocketLink>,
    client: Stack<SocketLink>,
    peer: stack::ConnId,
    now: Now,
    /// What the backend said.
    said: Vec<Event>,
    /// What the peer read, and how its connection stands.
    received: Vec<u8>,
    eof: bool,
    gone: Option<stack::Gone>,
}

impl Rig {
    /// With one connection.
    fn open() -> (Rig, ConnId) {
        let [client, server] = pair::links();
        let mut client = Stack::new(client, &pair::config(1), Now::ZERO).expect("a good config");
        client.poll(Now::ZERO);
        let peer = client.connect((ip(false, 2), PORT).into()).expect("a route");
        let mut rig = Rig {
            server: pair::server(server),
            client,
            peer,
            now: Now::ZERO,
            said: Vec::new(),
            received: Vec::new(),
            eof: false,
            gone: None,
        };
        rig.until(|rig| !rig.said.is_empty());
        let Event::Opened(conn) = rig.said[0] else { panic!("{:?}", rig.said) };
        rig.said.clear();
        (rig, conn)
    }

    /// With one connection, to which [`LARGE`] bytes were sent.
    fn owing() -> (Rig, ConnId, Pool) {
        let (mut rig, conn) = Rig::open();
        let pool = pool();
        let sent = rig.server.turn().1.send(conn, Out::Owned(buffer(&pool, &pattern(LARGE))));
        assert!(sent.is_ok(), "the first is always taken");
        (rig, conn, pool)
    }

    fn turn(&mut self) {
        self.now = self.now.after(Duration::from_millis(1));
        self.client.poll(self.now);
        while let Some(event) = self.client.next_event() {
            match event {
                stack::Event::Readable(id) => {
                    if let Some(window) = self.client.turn().0.take(id) {
                        self.received.extend_from_slice(window);
                    }
                }
                stack::Event::Eof(_) => self.eof = true,
                stack::Event::Closed(_, gone) => self.gone = Some(gone),
                stack::Event::Opened(_) | stack::Event::Writable(_) => {}
            }
        }
        self.client.flush(self.now);
        let mut events = Events::with_limit(16);
        self.server.poll(self.now, Wait::Poll, &mut events).expect("the link is there");
        self.said.extend_from_slice(events.as_slice());
        self.server.flush(self.now);
    }

    fn until(&mut self, done: impl Fn(&Rig) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("it never came: {:?}, {} bytes received", self.said, self.received.len());
    }

    fn turns(&mut self, count: u32) {
        (0..count).for_each(|_| self.turn());
    }

    fn unsent(&mut self, conn: ConnId) -> usize {
        self.server.turn().1.unsent(conn)
    }
}

fn pool() -> Pool {
    let config = PoolConfig { node: None, budget_bytes: 64 << 20, huge: false };
    NodePool::new(config).expect("memory").share()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn buffer(pool: &Pool, bytes: &[u8]) -> PoolBuf {
    let mut buf = pool.alloc(bytes.len()).expect("room in the pool");
    assert_eq!(buf.append(bytes), bytes.len());
    buf
}

const LARGE: usize = 300_000;

#[test]
fn output_larger_than_any_ring_leaves_in_pieces_and_fin_follows_the_last() {
    for shared in [false, true] {
        let (mut rig, conn) = Rig::open();
        let (pool, frames) = (pool(), LocalFrames::new());
        let bytes = pattern(LARGE);
        let out = match shared {
            true => Out::Shared(frames.adopt(Frame::from_slice(&bytes))),
            false => Out::Owned(buffer(&pool, &bytes)),
        };
        assert!(rig.server.turn().1.send(conn, out).is_ok(), "the first is always taken");
        assert_eq!(rig.unsent(conn), LARGE);
        rig.server.close(conn);
        rig.until(|rig| rig.eof);
        assert!(rig.received == bytes, "{} bytes, or others", rig.received.len());
        rig.client.close(rig.peer);
        rig.until(|rig| rig.said.contains(&Event::Closed(conn, Gone::Finished)));
        assert_eq!(rig.said.len(), 1, "no Writable for what is closing: {:?}", rig.said);
        assert_eq!(pool.stats().lent, 0);
    }
}

#[test]
fn what_is_refused_while_something_is_owed_comes_back_and_writable_follows() {
    let (mut rig, conn, pool) = Rig::owing();
    let (first, second) = (pattern(LARGE), pattern(1000));
    match rig.server.turn().1.send(conn, Out::Owned(buffer(&pool, &second))) {
        Err(Out::Owned(buf)) => assert_eq!(buf.data(), second),
        _ => panic!("it was taken"),
    }
    let built = rig.server.turn().1.build(conn, 10, &mut |_| panic!("it goes before the debt"));
    assert!(!built);
    assert_eq!(rig.said, []);
    rig.until(|rig| rig.said.contains(&Event::Writable(conn)));
    assert!(rig.unsent(conn) < LARGE);
    assert!(rig.server.turn().1.send(conn, Out::Owned(buffer(&pool, &second))).is_ok());
    rig.until(|rig| rig.received.len() == LARGE + 1000);
    assert!(rig.received == [first, second].concat());
    rig.turns(50);
    assert_eq!(rig.said, [Event::Writable(conn)], "once");
}

#[test]
fn an_abort_forgets_what_is_owed() {
    let (mut rig, conn, pool) = Rig::owing();
    rig.turns(3);
    assert_eq!(pool.stats().lent, 1);
    rig.server.abort(conn);
    assert_eq!(pool.stats().lent, 0);
    rig.until(|rig| rig.gone.is_some());
    assert_eq!(rig.gone, Some(stack::Gone::Reset));
    rig.until(|rig| !rig.said.is_empty());
    assert!(matches!(rig.said[..], [Event::Closed(id, _)] if id == conn), "{:?}", rig.said);
    assert_eq!(rig.unsent(conn), 0);
}

#[test]
fn a_peer_that_resets_in_the_middle_of_it_frees_what_it_was_owed() {
    let (mut rig, conn, pool) = Rig::owing();
    rig.turns(3);
    rig.client.abort(rig.peer);
    rig.until(|rig| rig.said.contains(&Event::Closed(conn, Gone::Reset)));
    assert_eq!(pool.stats().lent, 0);
    // Output for a dead connection is taken and dropped.
    assert!(rig.server.turn().1.send(conn, Out::Owned(buffer(&pool, b"late"))).is_ok());
    assert_eq!(pool.stats().lent, 0);
}

#[test]
fn what_arrives_while_fin_waits_is_thrown_away_unseen() {
    let (mut rig, conn, _pool) = Rig::owing();
    // More than two rings: were it left there, the peer's window would close.
    rig.server.close(conn);
    let mut chatter = 0;
    while !rig.eof {
        chatter += rig.client.turn().1.send_some(rig.peer, &[7; 2000]);
        rig.turn();
    }
    assert!(chatter > 2 * 16_384, "{chatter}");
    assert_eq!((rig.received.len(), &rig.said[..]), (LARGE, &[][..]));
}

#[test]
fn a_wake_up_ends_a_wait_also_one_that_came_before() {
    let (mut rig, _) = Rig::open();
    rig.turns(100);
    let waker = rig.server.waker();
    let far = rig.now.after(Duration::from_secs(3600));
    waker.wake();
    waker.wake();
    let mut events = Events::with_limit(16);
    for round in 0..3 {
        let began = Instant::now();
        let waker = (round > 0).then(|| waker.clone());
        let ringer = waker.map(|waker| std::thread::spawn(move || waker.wake()));
        rig.server.poll(rig.now, Wait::Until(Some(far)), &mut events).expect("the link is there");
        assert!(began.elapsed() < Duration::from_secs(60), "it slept on");
        if let Some(ringer) = ringer {
            ringer.join().expect("it only rings");
        }
    }
}
