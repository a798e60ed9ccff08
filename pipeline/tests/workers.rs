//! Several workers in one group, driven by one thread in turns, and what other threads ask of them.

mod common;

use common::*;
use hioload_pipeline::admission::Admission;
use hioload_pipeline::fake::Mode;
use hioload_pipeline::inbox::inboxes;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{ClosedBy, Kind, Reached, RemoteError, SessionId};
use hioload_ws_proto::CloseCode;

/// Two workers of one group; `slots` in each inbox.
fn two(mode: Mode, slots: usize, probe: impl Fn() -> Probe) -> [Rig<Probe>; 2] {
    let (_, inboxes) = inboxes(2, slots);
    let admission = Admission::new(0, 0);
    let start = |inbox| Plan::new(mode).start_on(probe(), inbox, admission.clone());
    let rigs: Vec<_> = inboxes.into_iter().map(start).collect();
    rigs.try_into().unwrap_or_else(|_| unreachable!("two inboxes make two workers"))
}

fn run(rigs: &mut [Rig<Probe>; 2]) {
    // What one worker asks of the other, and that of the first again.
    for _ in 0..3 {
        rigs.iter_mut().for_each(|rig| assert!(rig.run()));
    }
}

fn clean(rigs: &mut [Rig<Probe>; 2]) {
    run(rigs);
    rigs.iter_mut().for_each(Rig::assert_clean);
}

fn broadcaster() -> Probe {
    Probe::on_message(|message, context| {
        let except = Some(message.session());
        let reached = context.broadcast(message.kind(), message.payload(), except);
        assert_eq!(reached, Reached { workers: 2, missed: 0 });
    })
}

#[test]
fn a_broadcast_reaches_everyone_but_its_sender_once() {
    for mode in MODES {
        let mut rigs = two(mode, 64, broadcaster);
        let mut clients: Vec<_> = (0..10).map(|i| rigs[i % 2].open()).collect();
        for sender in 0..clients.len() {
            let payload = wire::pattern(100 * sender, sender);
            clients[sender].frame(BINARY, &payload);
            run(&mut rigs);
            for (i, client) in clients.iter_mut().enumerate() {
                let want = if i == sender { vec![] } else { vec![payload.clone()] };
                assert!(client.messages() == want, "{i} of {sender}");
            }
        }
        let count = |rig: &Rig<Probe>| rig.counters().broadcasts_total;
        assert_eq!(rigs.iter().map(count).sum::<u64>(), 20, "one a worker");
        clients.iter().for_each(Client::leave);
        clean(&mut rigs);
    }
}

#[test]
fn a_broadcast_is_encoded_once() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::on_message(|message, context| {
            context.broadcast(Kind::Binary, message.payload(), None);
        }));
        let mut clients: Vec<_> = (0..50).map(|_| rig.open()).collect();
        clients.iter().for_each(|client| client.peer.set_window(0));
        clients[0].frame(BINARY, &wire::pattern(1200, 1));
        rig.run();
        let lent = rig.counters().pool_bytes_lent;
        assert!(lent <= 4096, "{lent} bytes for 50 receivers of 1,200 bytes");
        clients.iter().for_each(|client| client.peer.set_window(usize::MAX));
        rig.run();
        for client in &mut clients {
            assert!(client.messages() == [wire::pattern(1200, 1)]);
            client.leave();
        }
        rig.assert_clean();
    }
}

#[test]
fn a_broadcast_goes_to_open_sessions_only() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut half = rig.connect();
        half.send(b"GET / HTTP/1.1\r\n");
        let mut closing = rig.open();
        let mut open = rig.open();
        let session = rig.worker.handler().ready()[0];
        rig.remote.close(session, CloseCode::NORMAL, "").expect("room");
        rig.run();
        rig.remote.broadcast(Kind::Text, b"news", None);
        rig.run();
        assert_eq!(open.messages(), [b"news"]);
        assert_eq!(closing.close_code(0), 1000);
        assert!(half.peer.take().is_empty());
        assert_eq!(half.status(), None);
        for client in [half, closing, open] {
            client.leave();
        }
        rig.pass(secs(12));
        rig.assert_clean();
    }
}

#[test]
fn a_slow_receiver_of_broadcasts_holds_up_nobody() {
    for mode in MODES {
        let plan = Plan::new(mode).settings(|s| s.max_unsent_bytes = 10_000);
        let mut rig = plan.start(Probe::echo());
        let slow = rig.open();
        let mut brisk = rig.open();
        slow.peer.set_window(100);
        for nth in 0..40 {
            rig.remote.broadcast(Kind::Binary, &wire::pattern(1000, nth), None);
            rig.run();
            assert!(brisk.messages() == [wire::pattern(1000, nth)]);
        }
        assert_eq!(rig.worker.handler().endings(), [(1013, ClosedBy::Us)]);
        slow.peer.reset();
        brisk.leave();
        rig.assert_clean();
    }
}

#[test]
fn sends_and_closes_come_from_any_thread() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        let session = rig.worker.handler().ready()[0];
        let remote = rig.remote.clone();
        let sending = std::thread::spawn(move || {
            for nth in 0..100 {
                remote.send(session, Kind::Text, format!("{nth}").as_bytes()).expect("room");
            }
            remote.close(session, CloseCode::GOING_AWAY, "done").expect("room");
        });
        sending.join().expect("all was sent");
        rig.run();
        let frames = client.frames();
        assert_eq!(frames.len(), 101);
        assert!((0..100).all(|n| frames[n].payload == n.to_string().as_bytes()));
        assert_eq!(frames[100].close(), Some((1001, "done")));
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_full_inbox_is_reported_and_a_worker_that_ended_too() {
    for mode in MODES {
        let mut rigs = two(mode, 8, Probe::echo);
        let mut client = rigs[1].open();
        let session = rigs[1].worker.handler().ready()[0];
        let remote = rigs[0].remote.clone();
        let results: Vec<_> = (0..20).map(|_| remote.send(session, Kind::Text, b"x")).collect();
        let taken = results.iter().filter(|r| r.is_ok()).count();
        assert!((8..20).contains(&taken), "{taken}");
        assert!(results[taken..].iter().all(|r| *r == Err(RemoteError::Full)));
        let reached = remote.broadcast(Kind::Text, b"y", None);
        assert_eq!(reached, Reached { workers: 1, missed: 1 });
        run(&mut rigs);
        assert_eq!(client.messages(), vec![b"x"; taken]);
        assert_eq!(remote.send(session, Kind::Text, b"z"), Ok(()));
        run(&mut rigs);
        assert_eq!(client.messages(), [b"z"]);
        client.leave();
        clean(&mut rigs);
        let [first, second] = rigs;
        drop(second);
        assert_eq!(remote.send(session, Kind::Text, b"x"), Err(RemoteError::Gone));
        assert_eq!(remote.broadcast(Kind::Text, b"y", None), Reached { workers: 1, missed: 1 });
        drop(first);
    }
}

#[test]
fn a_handler_reaches_sessions_of_other_workers() {
    for mode in MODES {
        let there = std::rc::Rc::new(std::cell::Cell::new(None::<SessionId>));
        let target = there.clone();
        let mut rigs = two(mode, 64, move || {
            let target = target.clone();
            Probe::on_message(move |message, context| {
                let Some(target) = target.get() else { return };
                if message.payload() == b"close" {
                    context.close(target, CloseCode::NORMAL, "from afar").expect("room");
                } else {
                    context.send(target, message.kind(), message.payload()).expect("room");
                }
            })
        });
        let here = rigs[0].open();
        let mut other = rigs[1].open();
        let session = rigs[1].worker.handler().ready()[0];
        assert_eq!(session.worker(), 1);
        there.set(Some(session));
        here.frame(TEXT, b"hello over there");
        run(&mut rigs);
        assert_eq!(other.messages(), [b"hello over there"]);
        here.frame(TEXT, b"close");
        run(&mut rigs);
        assert_eq!(other.frames()[0].close(), Some((1000, "from afar")));
        here.leave();
        other.leave();
        clean(&mut rigs);
    }
}

#[test]
fn a_group_drains_together() {
    for mode in MODES {
        let mut rigs = two(mode, 64, Probe::echo);
        let mut clients: Vec<_> = (0..6).map(|i| rigs[i % 2].open()).collect();
        rigs[0].remote.drain();
        rigs.iter_mut().for_each(|rig| assert!(rig.pass(std::time::Duration::from_millis(100))));
        for client in &mut clients {
            assert_eq!(client.close_code(0), 1001);
            client.send(&wire::close(1001, ""));
            client.peer.finish();
        }
        rigs.iter_mut().for_each(|rig| assert!(!rig.pass(secs(1)), "it ends"));
    }
}
