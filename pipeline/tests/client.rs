//! Sessions that the worker opens itself, over all modes of the fake: what goes out, what is
//! believed of the answer, and how it ends.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use hioload_pipeline::fake::Peer;
use hioload_pipeline::{
    Batch, Closed, ClosedBy, Context, Handler, Kind, Opening, SessionId, Verdict,
};
use hioload_ws_proto::handshake::{ClientRequest, Response, accept_key};
use hioload_ws_proto::{CloseCode, Decoder, Item, Limits, Role, Rules};

/// Opens one session, greets, and echoes.
#[derive(Default)]
struct Caller {
    connected: Option<(SessionId, Option<String>)>,
    got: Vec<Vec<u8>>,
    ended: Vec<(u16, String, ClosedBy)>,
    close_after_greeting: bool,
}

impl Handler for Caller {
    type Session = ();

    fn on_start(&mut self, context: &mut Context<'_, '_, ()>) {
        let mut request = ClientRequest::new("server.test", "/feed?x=1").expect("legal");
        request.subprotocol("a.v1").expect("a token");
        let to = SocketAddr::from(([192, 0, 2, 1], 9001));
        context.connect(to, request, ()).expect("randomness");
    }

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, ()>,
    ) {
        self.connected = Some((session, response.subprotocol().map(str::to_owned)));
        context.send_text(session, "hello").expect("it is open");
        if self.close_after_greeting {
            context.close(session, CloseCode::NORMAL, "that was all").expect("it is open");
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            self.got.push(message.payload().to_vec());
            context.echo(message).expect("it is open");
        }
    }

    fn on_close(&mut self, _: SessionId, _: (), closed: Closed<'_>, _: &mut Context<'_, '_, ()>) {
        self.ended.push((closed.code.get(), closed.reason.to_owned(), closed.by));
    }
}

/// The server's end, by hand.
struct Server {
    peer: Peer,
    seen: Vec<u8>,
    decoder: Decoder,
}

impl Server {
    /// Answers the call and reads the request; gives its key.
    fn answer(rig: &mut Rig<Caller>) -> (Self, String) {
        rig.run();
        let dial = rig.net.next_dial().expect("the worker calls");
        assert_eq!(dial.to().port(), 9001);
        let mut server = Server { peer: dial.accept(), seen: Vec::new(), decoder: Decoder::new() };
        rig.run();
        server.peer.take_into(&mut server.seen);
        let request = String::from_utf8(std::mem::take(&mut server.seen)).expect("ASCII");
        assert!(request.starts_with("GET /feed?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nHost: server.test\r\n"), "{request}");
        let key = request.split("Sec-WebSocket-Key: ").nth(1).expect("a key");
        (server, key[..24].to_owned())
    }

    fn accept(&self, key: &str, more: &str, behind: &[u8]) {
        let accept = accept_key(key);
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{more}\r\n",
            std::str::from_utf8(&accept).expect("base64")
        )
        .into_bytes();
        bytes.extend_from_slice(behind);
        self.peer.send(&bytes);
    }

    /// What the client sent: opcode and payload. Panics where a frame breaks a client's rules.
    fn frames(&mut self) -> Vec<(u8, Vec<u8>)> {
        self.peer.take_into(&mut self.seen);
        let rules = Rules::new(Role::Server, Limits::default());
        let (mut bytes, mut frames) = (std::mem::take(&mut self.seen), Vec::new());
        let mut window = &mut bytes[..];
        while let Some(item) = self.decoder.next(&rules, &mut window).expect("legal and masked") {
            frames.push(match item {
                Item::Message { opcode, head, room, .. } => (opcode as u8, room[head..].to_vec()),
                Item::Part { opcode, data, .. } => (opcode as u8, data.to_vec()),
                Item::Ping(payload) => (9, payload.to_vec()),
                Item::Pong(payload) => (10, payload.to_vec()),
                Item::Close(given) => {
                    (8, given.map_or(Vec::new(), |(code, _)| code.get().to_be_bytes().to_vec()))
                }
            });
        }
        frames
    }
}

/// A server's frame: unmasked.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, payload.len() as u8];
    assert!(payload.len() < 126);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn a_client_opens_greets_echoes_and_ends_when_the_server_does() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Caller::default());
        let (mut server, key) = Server::answer(&mut rig);
        // Bytes behind the 101 belong to the session.
        let behind = unmasked(FIN | BINARY, b"early");
        server.accept(&key, "Sec-WebSocket-Protocol: a.v1\r\n", &behind);
        rig.run();
        let (_, subprotocol) = rig.worker.handler().connected.clone().expect("connected");
        assert_eq!(subprotocol.as_deref(), Some("a.v1"));
        server.peer.send(&unmasked(FIN | PING, b"there?"));
        server.peer.send(&unmasked(FIN | TEXT, b"late"));
        rig.run();
        let expected = [(1, b"hello".to_vec()), (2, b"early".to_vec())];
        let frames = server.frames();
        assert_eq!(frames[..2], expected);
        assert!(frames.contains(&(10, b"there?".to_vec())), "{frames:?}");
        assert!(frames.contains(&(1, b"late".to_vec())), "{frames:?}");

        server.peer.send(&unmasked(FIN | CLOSE, &1000u16.to_be_bytes()));
        rig.run();
        assert_eq!(server.frames(), [(8, 1000u16.to_be_bytes().to_vec())]);
        assert_eq!(rig.worker.handler().ended, [(1000, String::new(), ClosedBy::Peer)]);
        // RFC 6455 §7.1.1: the server closes the transport; the client waits for it.
        assert!(!server.peer.is_closed());
        server.peer.finish();
        rig.run();
        assert!(server.peer.is_closed());
        rig.assert_clean();
    }
}

#[test]
fn a_server_that_never_ends_the_transport_is_left_after_the_close_timeout() {
    for mode in MODES {
        let caller = Caller { close_after_greeting: true, ..Caller::default() };
        let mut rig = Plan::new(mode).start(caller);
        let (mut server, key) = Server::answer(&mut rig);
        server.accept(&key, "", b"");
        rig.run();
        assert_eq!(server.frames().last(), Some(&(8, 1000u16.to_be_bytes().to_vec())));
        server.peer.send(&unmasked(FIN | CLOSE, &1000u16.to_be_bytes()));
        rig.run();
        assert_eq!(rig.worker.handler().ended, [(1000, String::new(), ClosedBy::Us)]);
        rig.pass(Duration::from_secs(6));
        assert!(server.peer.is_closed());
        rig.assert_clean();
    }
}

#[test]
fn what_the_server_gets_wrong_is_told_as_the_reason() {
    let answers: [(&str, &str); 4] = [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you", "403"),
        ("HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\n", "elsewhere"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            "Accept",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "HTTP"),
    ];
    for mode in MODES {
        for (answer, expected) in answers {
            let mut rig = Plan::new(mode).start(Caller::default());
            let (server, _) = Server::answer(&mut rig);
            for byte in answer.as_bytes().chunks(7) {
                server.peer.send(byte);
                rig.run();
            }
            let ended = &rig.worker.handler().ended;
            assert_eq!(ended.len(), 1, "{answer}");
            assert_eq!((ended[0].0, ended[0].2), (1006, ClosedBy::Transport));
            assert!(ended[0].1.contains(expected), "{:?} lacks {expected}", ended[0].1);
            assert_eq!(rig.counters().connects_failed_total, 1);
            assert!(rig.worker.handler().connected.is_none());
            rig.assert_clean();
        }
    }
}

#[test]
fn a_refused_call_and_one_without_answer_end_with_the_reason() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Caller::default());
        rig.run();
        drop(rig.net.next_dial().expect("the worker calls"));
        rig.run();
        assert_eq!(rig.worker.handler().ended[0].1, "can't connect");
        rig.assert_clean();

        let mut rig = Plan::new(mode).start(Caller::default());
        let (_silent, _) = Server::answer(&mut rig);
        rig.pass(Duration::from_secs(6));
        assert_eq!(rig.worker.handler().ended.len(), 1);
        assert!(rig.worker.handler().ended[0].1.contains("in time"));
        rig.assert_clean();
    }
}

#[test]
fn a_masked_frame_from_a_server_is_a_protocol_error() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Caller::default());
        let (mut server, key) = Server::answer(&mut rig);
        server.accept(&key, "", &hioload_pipeline::suite::wire::frame(FIN | TEXT, b"masked"));
        rig.run();
        assert_eq!(server.frames().last(), Some(&(8, 1002u16.to_be_bytes().to_vec())));
        assert_eq!(rig.worker.handler().ended[0].0, 1002);
        server.peer.finish();
        rig.run();
        rig.assert_clean();
    }
}

#[test]
fn a_call_that_a_drain_overtakes_is_given_up() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Caller::default());
        rig.remote.drain();
        assert!(!rig.run(), "the worker ends");
        let ended = &rig.worker.handler().ended;
        assert_eq!(ended.len(), 1);
        assert!(ended[0].1.contains("going away"), "{:?}", ended[0].1);
    }
}

#[test]
fn many_messages_and_broadcasts_are_masked_one_by_one() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Caller::default());
        let (mut server, key) = Server::answer(&mut rig);
        server.accept(&key, "", b"");
        rig.run();
        let (session, _) = rig.worker.handler().connected.clone().expect("connected");
        rig.remote.send(session, Kind::Binary, &[7; 300]).expect("room");
        rig.remote.broadcast(Kind::Text, b"to all", None);
        rig.run();
        let frames = server.frames();
        assert_eq!(frames[0], (1, b"hello".to_vec()));
        let rest: Vec<u8> =
            frames[1..].iter().filter(|(op, _)| *op == 2).flat_map(|(_, p)| p.clone()).collect();
        assert_eq!(rest, [7; 300]);
        assert_eq!(frames.last(), Some(&(1, b"to all".to_vec())));
        server.peer.reset();
        rig.run();
        assert_eq!(rig.worker.handler().ended[0].0, 1006);
        rig.assert_clean();
    }
}
