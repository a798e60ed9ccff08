//! How sessions end, by whom, and when: deadlines, the closing handshake, the transport, a drain.
//! The clock is moved by hand.

mod common;

use std::time::Duration;

use common::*;
use hioload_pipeline::fake::End;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{ClosedBy, TimerId};
use hioload_ws_proto::CloseCode;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn an_idle_session_is_pinged_and_lives_while_it_answers() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        rig.pass(ms(29_800));
        assert!(client.frames().is_empty(), "not yet");
        for round in 1..=4 {
            rig.pass(ms(if round == 1 { 500 } else { 30_300 }));
            let frames = client.frames();
            assert_eq!(frames.len(), 1, "one ping: {frames:?}");
            assert_eq!(frames[0].first, PING);
            client.frame(PONG, &frames[0].payload);
            rig.run();
            assert_eq!(rig.counters().pings_out_total, round);
        }
        assert_eq!(rig.counters().idle_closed_total, 0);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_session_that_answers_no_ping_is_closed_with_1001() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        rig.pass(ms(59_900));
        assert_eq!(client.frames().len(), 1, "pinged once");
        assert!(rig.worker.handler().endings().is_empty(), "still there");
        rig.pass(ms(300));
        assert_eq!(client.close_code(0), 1001);
        assert_eq!(rig.worker.handler().endings(), [(1001, ClosedBy::Us)]);
        assert_eq!(rig.counters().idle_closed_total, 1);
        // It doesn't finish its side either.
        rig.pass(ms(5300));
        assert!(client.peer.is_closed());
        rig.assert_clean();
    }
}

#[test]
fn whoever_sends_now_and_then_is_never_pinged() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        for _ in 0..10 {
            rig.pass(ms(20_000));
            client.frame(TEXT, b"here");
            rig.run();
            assert_eq!(client.messages(), [b"here"]);
        }
        assert_eq!(rig.counters().pings_out_total, 0);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn without_idle_times_nobody_is_disturbed() {
    for mode in MODES {
        let plan = Plan::new(mode).settings(|s| {
            (s.ping_after, s.dead_after) = (Duration::ZERO, Duration::ZERO);
        });
        let mut rig = plan.start(Probe::echo());
        let mut client = rig.open();
        rig.clock.advance(secs(100_000));
        rig.run();
        assert!(client.frames().is_empty());
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_close_of_ours_waits_for_the_answer() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::on_message(|message, context| {
            let session = message.session();
            if message.payload() != b"1" {
                // It came in the same batch.
                return assert!(context.echo(message).is_err());
            }
            assert_eq!(context.send_text(session, "last"), Ok(()));
            let code = CloseCode::new(4001).expect("a code");
            assert_eq!(context.close(session, code, "enough"), Ok(()));
            assert!(context.send_text(session, "too late").is_err());
            assert!(context.close(session, code, "again").is_err());
        }));
        let mut client = rig.open();
        client.frame(TEXT, b"1");
        client.frame(TEXT, b"2");
        rig.run();
        let frames = client.frames();
        assert_eq!(frames.len(), 2, "{frames:?}");
        assert_eq!(frames[1].close(), Some((4001, "enough")));
        assert_eq!(client.end(), End::Open, "the answer is awaited");
        assert!(rig.worker.handler().endings().is_empty());
        // What comes before the answer is discarded (RFC 6455 §1.4).
        client.frame(TEXT, b"ignored");
        client.frame(PING, b"ignored");
        client.send(&wire::close(4001, "fine"));
        rig.run();
        assert!(client.frames().is_empty());
        assert_eq!(client.end(), End::Fin);
        let messages = rig.worker.handler().count(|saw| matches!(saw, Saw::Message(..)));
        assert!(messages <= 2, "{messages}");
        let last = rig.worker.handler().saw.last().cloned();
        let session = rig.worker.handler().ready()[0];
        assert_eq!(last, Some(Saw::Closed(session, 4001, "fine".into(), ClosedBy::Us)));
        client.peer.finish();
        rig.assert_clean();
    }
}

#[test]
fn a_close_that_is_never_answered_ends_by_the_deadline() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        let session = rig.worker.handler().ready()[0];
        rig.remote.close(session, CloseCode::NORMAL, "bye").expect("room");
        rig.run();
        assert_eq!(client.frames().len(), 1);
        // It goes on talking; that is no answer.
        for _ in 0..48 {
            client.frame(TEXT, b"still talking");
            rig.pass(ms(100));
        }
        assert!(rig.worker.handler().endings().is_empty());
        rig.pass(ms(400));
        assert_eq!(rig.worker.handler().endings(), [(1000, ClosedBy::Us)]);
        assert_eq!(client.end(), End::Fin);
        rig.pass(ms(5300));
        assert!(client.peer.is_closed(), "a peer that never finishes is dropped");
        rig.assert_clean();
    }
}

#[test]
fn both_sides_closing_at_once_is_an_end_in_order() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.open();
        let session = rig.worker.handler().ready()[0];
        rig.remote.close(session, CloseCode::NORMAL, "").expect("room");
        client.send(&wire::close(1001, ""));
        rig.run();
        let frames = client.frames();
        assert_eq!(frames.len(), 1, "one Close each: {frames:?}");
        assert_eq!(rig.worker.handler().endings().len(), 1);
        assert_eq!(client.end(), End::Fin);
        client.peer.finish();
        rig.assert_clean();
    }
}

#[test]
fn on_close_comes_once_however_a_session_ends() {
    type End = fn(&Client);
    let ways: [(End, u16, ClosedBy); 5] = [
        (|c| c.leave(), 1000, ClosedBy::Peer),
        (|c| c.peer.finish(), 1006, ClosedBy::Transport),
        (|c| c.peer.reset(), 1006, ClosedBy::Transport),
        (|c| c.send(&[0xFF; 4]), 1002, ClosedBy::Us),
        (
            |c| {
                c.send(&wire::close(3000, "x")[..5]);
                c.peer.finish();
            },
            1006,
            ClosedBy::Transport,
        ),
    ];
    for mode in MODES {
        for (end, code, by) in ways {
            let mut rig = Plan::new(mode).start(Probe::echo());
            let client = rig.open();
            client.frame(TEXT, b"hello");
            end(&client);
            rig.run();
            assert_eq!(rig.worker.handler().endings(), [(code, by)]);
            client.peer.finish();
            rig.pass(secs(12));
            assert_eq!(rig.worker.handler().endings().len(), 1);
            rig.assert_clean();
        }
    }
}

#[test]
fn half_a_message_at_the_end_is_forgotten() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        for cut in [1, 3, 7, 100, 5000] {
            let client = rig.open();
            client.send(&wire::frame(BINARY, &wire::pattern(9000, 1))[..cut]);
            rig.run();
            client.peer.finish();
            rig.run();
        }
        assert_eq!(rig.counters().messages_in_total, 0);
        assert_eq!(rig.counters().abnormal_closed_total, 5);
        rig.assert_clean();
    }
}

#[test]
fn a_drain_tells_everybody_refuses_the_new_and_ends() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut clients: Vec<_> = (0..10).map(|_| rig.open()).collect();
        let mut half = rig.connect();
        half.send(b"GET / HTTP/1.1\r\n");
        rig.run();
        rig.remote.drain();
        assert!(rig.pass(ms(200)), "it doesn't end while sessions are open");
        assert_eq!(half.status(), Some(503));
        let late = rig.net.connect();
        assert_eq!(late.end(), End::Reset, "nobody listens");
        for client in &mut clients {
            assert_eq!(client.frames()[0].close(), Some((1001, "going away")));
            client.send(&wire::close(1001, ""));
            client.peer.finish();
        }
        half.peer.finish();
        assert!(!rig.pass(secs(1)), "all have gone: it ends");
        assert_eq!(rig.worker.handler().endings(), [(1001, ClosedBy::Us); 10]);
        let c = rig.counters();
        assert_eq!((c.connections_open, c.sessions_open, c.pool_buffers_lent), (0, 0, 0));
    }
}

#[test]
fn a_large_drain_is_spread_over_its_time() {
    let mode = MODES[0];
    let plan = Plan::new(mode).settings(|s| s.drain_spread = ms(200));
    let mut rig = plan.start(Probe::echo());
    let mut clients: Vec<_> = (0..1000).map(|_| rig.open()).collect();
    rig.remote.drain();
    rig.run();
    let told = |clients: &mut [Client]| {
        clients.iter_mut().map(|client| client.frames().len()).sum::<usize>()
    };
    let mut sum = told(&mut clients);
    assert!(sum < 200, "{sum} at once");
    rig.pass(ms(100));
    sum += told(&mut clients);
    assert!((300..700).contains(&sum), "{sum} at half of the time");
    rig.pass(ms(150));
    assert_eq!(sum + told(&mut clients), 1000);
    drop(clients);
    assert!(!rig.run());
}

#[test]
fn a_drain_stops_hard_at_its_limit() {
    for mode in MODES {
        let plan = Plan::new(mode).settings(|s| {
            s.drain_limit = secs(3);
            s.close_timeout = secs(60);
        });
        let mut rig = plan.start(Probe::echo());
        let deaf = rig.open();
        let stuck = rig.open();
        stuck.peer.set_window(0);
        stuck.frame(BINARY, &wire::pattern(30_000, 1));
        rig.run();
        rig.remote.drain();
        assert!(rig.pass(ms(2900)));
        assert!(!rig.pass(ms(300)), "it ends at its limit");
        assert_eq!((deaf.end(), stuck.end()), (End::Reset, End::Reset));
        assert_eq!(rig.worker.handler().endings(), [(1001, ClosedBy::Us); 2]);
        let c = rig.counters();
        assert_eq!((c.connections_open, c.sessions_open, c.pool_buffers_lent), (0, 0, 0));
    }
}

#[test]
fn a_stop_ends_at_once_and_tells_the_handler() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let client = rig.open();
        rig.remote.stop();
        assert!(!rig.run());
        assert_eq!(rig.worker.handler().endings().len(), 1);
        let Rig { worker, .. } = rig;
        drop(worker);
        assert_ne!(client.end(), End::Open);
    }
}

#[test]
fn handler_timers_fire_once_in_order_and_not_when_cancelled() {
    for mode in MODES {
        let set = std::rc::Rc::new(std::cell::RefCell::new(Vec::<TimerId>::new()));
        let timers = set.clone();
        let mut probe = Probe::on_message(move |message, context| {
            if message.payload() == b"set" {
                for (after, token) in [(300, 3), (100, 1), (200, 2), (400, 4)] {
                    timers.borrow_mut().push(context.set_timer(ms(after), token));
                }
            } else {
                let cancelled = timers.borrow()[2];
                assert!(context.cancel_timer(cancelled), "it hasn't fired");
                assert!(!context.cancel_timer(cancelled), "it was taken back already");
                assert!(!context.cancel_timer(timers.borrow()[1]), "it has fired");
            }
        });
        let (again, mut left) = (set.clone(), 3);
        probe.timer = Box::new(move |token, context| {
            if token == 4 && left > 0 {
                // A timer that sets itself again is a timer of its own.
                left -= 1;
                again.borrow_mut().push(context.set_timer(ms(50), 4));
            }
        });
        let mut rig = Plan::new(mode).start(probe);
        let client = rig.open();
        client.frame(TEXT, b"set");
        rig.run();
        rig.pass(ms(50));
        let fired = |rig: &mut Rig<Probe>| -> Vec<u64> {
            let saw = &rig.worker.handler().saw;
            saw.iter().filter_map(|s| if let Saw::Timer(t) = s { Some(*t) } else { None }).collect()
        };
        assert!(fired(&mut rig).is_empty());
        rig.pass(ms(70));
        assert_eq!(fired(&mut rig), [1]);
        client.frame(TEXT, b"cancel");
        rig.run();
        rig.pass(secs(2));
        assert_eq!(fired(&mut rig), [1, 3, 4, 4, 4, 4]);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn of_two_timers_due_at_once_the_first_can_cancel_the_second() {
    let set = std::rc::Rc::new(std::cell::RefCell::new(Vec::<TimerId>::new()));
    let timers = set.clone();
    let mut probe = Probe::on_message(move |_, context| {
        timers.borrow_mut().extend([0, 1].map(|token| context.set_timer(secs(1), token)));
    });
    probe.timer = Box::new(move |token, context| {
        let other = set.borrow()[1 - token as usize];
        assert!(context.cancel_timer(other), "it hasn't been told");
    });
    let mut rig = Plan::new(MODES[0]).start(probe);
    let client = rig.open();
    client.frame(TEXT, b"set");
    rig.run();
    rig.pass(secs(2));
    assert_eq!(rig.worker.handler().count(|saw| matches!(saw, Saw::Timer(_))), 1);
}

#[test]
fn a_reader_that_is_slow_but_reads_is_not_taken_for_dead() {
    let mut rig = Plan::new(hioload_pipeline::fake::Mode::Readiness).start(Probe::echo());
    let client = rig.open();
    client.peer.set_window(1000);
    for _ in 0..40 {
        client.frame(BINARY | FIN, &wire::pattern(20_000, 1));
    }
    rig.run();
    // 800 KB wait; it takes a little every ten seconds and sends nothing.
    let mut got = Vec::new();
    for _ in 0..30 {
        rig.pass(ms(10_000));
        client.peer.take_at_most(900, &mut got);
    }
    assert_eq!(rig.counters().idle_closed_total, 0);
    // Once it takes nothing any more, its time runs out.
    rig.pass(ms(130_000));
    assert_eq!(rig.counters().idle_closed_total, 1);
    client.peer.reset();
    rig.assert_clean();
}
