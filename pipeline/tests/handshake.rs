//! The opening handshake through a worker: every way in, and every way to be refused.

mod common;

use std::time::Duration;

use common::*;
use hioload_pipeline::fake::End;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{ClosedBy, Verdict};
use hioload_ws_proto::handshake::{Refusal, Status};

#[test]
fn a_request_opens_a_session_and_the_handler_sees_what_it_said() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::on_open(|opening| {
            let request = opening.request();
            assert_eq!((request.path(), request.query()), ("/chat", Some("room=7")));
            assert_eq!(request.header("X-Who"), Some(&b"me"[..]));
            assert!(opening.peer().is_some_and(|peer| peer.ip().is_loopback()));
            opening.subprotocol("b").expect("it was offered");
            assert!(opening.subprotocol("c").is_err(), "it was not offered");
            opening.header("X-Answer", "42").expect("a legal header");
            Verdict::Accept(7)
        }));
        let mut client = rig.connect();
        let more = "X-Who: me\r\nSec-WebSocket-Protocol: a, b\r\n";
        client.send(&wire::request("/chat?room=7", more));
        rig.run();
        let head = String::from_utf8(client.head().expect("a response")).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(wire::ACCEPT), "{head}");
        assert!(head.contains("Sec-WebSocket-Protocol: b\r\n"), "{head}");
        assert!(head.contains("X-Answer: 42\r\n"), "{head}");
        assert_eq!(rig.worker.handler().ready().len(), 1);
        client.leave();
        rig.run();
        assert_eq!(rig.worker.handler().endings(), [(1000, ClosedBy::Peer)]);
        rig.assert_clean();
    }
}

#[test]
fn a_request_may_be_cut_anywhere_with_frames_behind_it() {
    for mode in MODES {
        let mut hello = wire::request("/", "");
        let head = hello.len();
        wire::put_frame(&mut hello, TEXT, b"right behind");
        wire::put_frame(&mut hello, BINARY, &wire::pattern(3000, 1));
        let mut rig = Plan::new(mode).start(Probe::echo());
        for cut in (1..head + 40).chain([hello.len()]) {
            let mut client = rig.connect();
            client.send(&hello[..cut]);
            rig.run();
            client.send(&hello[cut..]);
            rig.run();
            assert_eq!(client.status(), Some(101), "cut at {cut}");
            assert!(
                client.messages() == [b"right behind".to_vec(), wire::pattern(3000, 1)],
                "the messages, in order"
            );
            client.leave();
        }
        rig.assert_clean();
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_answered() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut client = rig.connect();
        for byte in [wire::request("/", ""), wire::frame(TEXT, b"hi")].concat() {
            client.send(&[byte]);
            rig.turn();
        }
        rig.run();
        assert_eq!(client.status(), Some(101));
        assert!(client.messages() == [b"hi".to_vec()], "the messages, in order");
        client.leave();
        rig.assert_clean();
    }
}

/// Sends `bytes` and gives back the status; whole, in two parts, and with a frame behind.
fn refused_with(bytes: &[u8], status: u16, plan: &Plan, probe: impl Fn() -> Probe) {
    let behind = [bytes, &wire::frame(TEXT, b"never read")].concat();
    for cut in [bytes.len(), bytes.len() / 2, 1] {
        let mut rig = plan.start(probe());
        let mut client = rig.connect();
        client.send(&behind[..cut]);
        rig.run();
        client.send(&behind[cut..]);
        rig.run();
        assert_eq!(client.status(), Some(status), "{}", String::from_utf8_lossy(bytes));
        assert_eq!(client.end(), End::Fin, "the server finishes");
        client.peer.finish();
        rig.run();
        assert!(rig.worker.handler().saw.is_empty(), "the handler hears of no session");
        let c = rig.counters();
        assert_eq!((c.handshakes_refused_total, c.sessions_total), (1, 0));
        rig.assert_clean();
    }
}

#[test]
fn what_is_not_a_websocket_request_is_refused_each_in_its_way() {
    let no_upgrade = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let text = String::from_utf8(wire::request("/", "")).unwrap();
    let version = text.replace("Version: 13", "Version: 12").into_bytes();
    let method = text.replace("GET", "POST").into_bytes();
    let key = text.replace("dGhlIHNhbXBsZSBub25jZQ==", "short").into_bytes();
    let endless = text.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(9000)));
    for mode in MODES {
        let plan = Plan::new(mode);
        refused_with(&no_upgrade, 426, &plan, Probe::echo);
        refused_with(&version, 426, &plan, Probe::echo);
        refused_with(&method, 405, &plan, Probe::echo);
        refused_with(&key, 400, &plan, Probe::echo);
        refused_with(b"nonsense\r\n\r\n", 400, &plan, Probe::echo);
        refused_with(endless.as_bytes(), 431, &plan, Probe::echo);
    }
}

#[test]
fn the_handler_may_refuse_with_any_status() {
    for mode in MODES {
        for status in [Status::FORBIDDEN, Status::NOT_FOUND, Status::UNAUTHORIZED] {
            let refuse = move || {
                Probe::on_open(move |_| Verdict::Refuse(Refusal::new(status, "not for you")))
            };
            refused_with(&wire::request("/", ""), status.get(), &Plan::new(mode), refuse);
        }
    }
}

#[test]
fn a_request_without_end_is_refused_when_its_time_is_over() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut silent = rig.connect();
        let mut slow = rig.connect();
        slow.send(b"GET / HT");
        rig.run();
        rig.pass(Duration::from_millis(4900));
        slow.send(b"TP/1.1\r\n");
        rig.run();
        assert_eq!((silent.status(), slow.status()), (None, None), "not yet");
        rig.pass(Duration::from_millis(250));
        assert_eq!((silent.status(), slow.status()), (Some(408), Some(408)));
        assert_eq!(rig.counters().handshakes_timed_out_total, 2);
        // They don't even finish their side: the transport is dropped in the end.
        rig.pass(secs(6));
        assert!(silent.peer.is_closed() && slow.peer.is_closed());
        rig.assert_clean();
    }
}

#[test]
fn connections_beyond_the_limit_get_503_until_there_is_room() {
    for mode in MODES {
        let plan = Plan { max_total: 2, ..Plan::new(mode) };
        let mut rig = plan.start(Probe::echo());
        let first = rig.open();
        let second = rig.open();
        let mut third = rig.connect();
        third.send(&wire::request("/", ""));
        rig.run();
        assert_eq!(third.status(), Some(503));
        third.peer.finish();
        first.leave();
        rig.run();
        let fourth = rig.open();
        assert_eq!(rig.counters().refused_by_limit_total, 1);
        second.leave();
        fourth.leave();
        rig.assert_clean();
    }
}

#[test]
fn one_address_gets_no_more_than_its_limit() {
    for mode in MODES {
        let plan = Plan { max_per_address: 1, ..Plan::new(mode) };
        let mut rig = plan.start(Probe::echo());
        let from = |rig: &mut Rig<Probe>, last: u8, port: u16| {
            let peer = rig.net.connect_from(Some(([10, 0, 0, last], port).into()));
            let mut client = Client { peer, seen: Vec::new() };
            client.send(&wire::request("/", ""));
            rig.run();
            let status = client.status();
            (client, status)
        };
        let (a, a_status) = from(&mut rig, 1, 1000);
        let (b, b_status) = from(&mut rig, 2, 1000);
        let (c, c_status) = from(&mut rig, 1, 1001);
        assert_eq!([a_status, b_status, c_status], [Some(101), Some(101), Some(503)]);
        c.peer.finish();
        a.leave();
        rig.run();
        let (d, d_status) = from(&mut rig, 1, 1002);
        assert_eq!(d_status, Some(101), "who left made room");
        b.leave();
        d.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_deferred_handshake_is_accepted_with_what_lies_behind_it() {
    for mode in MODES {
        let (told, ids) = std::sync::mpsc::channel();
        let mut rig = Plan::new(mode).start(Probe::on_open(move |opening| {
            told.send(opening.session()).unwrap();
            Verdict::Defer(7)
        }));
        let mut client = rig.connect();
        let big = wire::pattern(9000, 2);
        let hello = [wire::request("/", ""), wire::frame(TEXT, b"one"), wire::frame(BINARY, &big)];
        let hello = hello.concat();
        let (now, later) = hello.split_at(hello.len() - 8000);
        client.send(now);
        rig.run();
        client.send(later);
        rig.run();
        assert_eq!((client.status(), client.end()), (None, End::Open));
        assert!(rig.worker.handler().saw.is_empty(), "nothing before the verdict");
        let id = ids.recv().unwrap();
        let remote = rig.remote.clone();
        std::thread::spawn(move || remote.accept(id).unwrap()).join().unwrap();
        rig.run();
        assert_eq!(client.status(), Some(101));
        assert!(client.messages() == [b"one".to_vec(), big], "the messages, in order");
        assert_eq!(rig.worker.handler().ready(), [id]);
        // A second verdict, of any kind, changes nothing.
        rig.remote.accept(id).unwrap();
        rig.remote.refuse(id, Refusal::new(Status::FORBIDDEN, "no")).unwrap();
        rig.run();
        client.frame(TEXT, b"still there");
        rig.run();
        assert!(client.messages() == [b"still there".to_vec()], "the messages, in order");
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_deferred_handshake_may_be_refused_time_out_or_lose_its_peer() {
    for mode in MODES {
        let (told, ids) = std::sync::mpsc::channel();
        let mut rig = Plan::new(mode).start(Probe::on_open(move |opening| {
            told.send(opening.session()).unwrap();
            Verdict::Defer(7)
        }));
        let mut clients: Vec<_> = (0..4).map(|_| rig.connect()).collect();
        for client in &clients {
            client.send(&[wire::request("/", ""), wire::frame(TEXT, b"behind")].concat());
            rig.run();
        }
        let ids: Vec<_> = ids.try_iter().collect();
        assert_eq!(ids.len(), 4);
        rig.remote.refuse(ids[0], Refusal::new(Status::FORBIDDEN, "no")).unwrap();
        clients[1].peer.reset();
        clients[3].peer.finish();
        rig.run();
        assert_eq!(clients[0].status(), Some(403));
        rig.remote.accept(ids[1]).unwrap();
        rig.pass(Duration::from_millis(5200));
        assert_eq!(clients[2].status(), Some(503), "no verdict in time");
        for id in &ids {
            rig.remote.accept(*id).unwrap();
        }
        rig.pass(secs(6));
        assert!(rig.worker.handler().saw.is_empty(), "no session came of any of them");
        assert_eq!(rig.counters().sessions_total, 0);
        drop(clients);
        rig.assert_clean();
    }
}
