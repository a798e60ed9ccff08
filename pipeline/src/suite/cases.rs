//! The cases of the suite. Each leaves a server that serves a fresh client and has leaked nothing.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{self, BINARY, CONTINUATION, FIN, PING, PONG, TEXT};
use super::{Client, Lab, PATIENCE, Server};
use crate::batch::Batch;
use crate::context::Context;
use crate::handler::{Handler, Opening, Verdict, on_message};
use crate::id::SessionId;
use crate::message::Kind;
use crate::settings::{Overflow, Settings};

fn echo<L: Lab>() -> Server<L> {
    echo_with(1, &Settings::default())
}

fn echo_with<L: Lab>(workers: usize, settings: &Settings) -> Server<L> {
    Server::start(workers, settings, |_| {
        on_message(|message, context| {
            let _ = context.echo(message);
        })
    })
}

/// Tells of each session that opens; broadcasts each message to the others.
struct Chat(Sender<SessionId>);

impl Handler for Chat {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_ready(&mut self, session: SessionId, _: &mut Context<'_, '_, ()>) {
        let _ = self.0.send(session);
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            if message.payload() == b"are you there" {
                let _ = context.echo(message);
            } else {
                context.broadcast(message.kind(), message.payload(), Some(message.session()));
            }
        }
    }
}

/// 0 bytes to 1 MiB, at every boundary of the header's length, text and binary.
pub fn echoes_messages_of_every_size<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.open();
    for size in [0, 1, 125, 126, 127, 4096, 65_535, 65_536, 300_000, 1 << 20] {
        for first in [TEXT, BINARY] {
            let payload = wire::pattern(size, size);
            let sender = client.another();
            let frame = wire::frame(first, &payload);
            let sending = thread::spawn(move || Client::new(sender).send(&frame));
            client.expect(first, &payload);
            sending.join().expect("all was sent");
        }
    }
    client.leave();
    server.finish();
}

/// The request and two frames, a byte a write.
pub fn echoes_what_comes_byte_by_byte<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.connect();
    for byte in wire::request("/", "") {
        client.send(&[byte]);
    }
    assert_eq!(client.head().as_deref().and_then(wire::status), Some(101));
    let payload = wire::pattern(130, 1);
    for byte in [wire::frame(TEXT, b"one"), wire::frame(BINARY, &payload)].concat() {
        client.send(&[byte]);
    }
    client.expect(TEXT, b"one");
    client.expect(BINARY, &payload);
    client.leave();
    server.finish();
}

/// A client that doesn't wait for the 101.
pub fn answers_a_handshake_with_frames_behind_it<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.connect();
    let hello = [wire::request("/", ""), wire::frame(TEXT, b"early"), wire::frame(PING, b"p")];
    client.send(&hello.concat());
    assert_eq!(client.head().as_deref().and_then(wire::status), Some(101));
    let mut got = [client.recv(), client.recv()].map(|f| f.expect("a frame").payload);
    got.sort();
    assert_eq!(got, [b"early".to_vec(), b"p".to_vec()]);
    client.leave();
    server.finish();
}

/// 5,000 messages, in order.
pub fn echoes_many_messages_sent_at_once<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.open();
    let message = |i: usize| wire::pattern(i % 300, i);
    let mut bytes = Vec::new();
    (0..5000).for_each(|i| wire::put_frame(&mut bytes, BINARY, &message(i)));
    let sender = client.another();
    let sending = thread::spawn(move || Client::new(sender).send(&bytes));
    for i in 0..5000 {
        client.expect(BINARY, &message(i));
    }
    sending.join().expect("all was sent");
    client.leave();
    server.finish();
}

/// A ping between two fragments is answered before the message is whole.
pub fn echoes_fragments_with_pings_between<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.open();
    let part = wire::pattern(20_000, 3);
    client.frame(BINARY & !FIN, &part);
    for nth in 0..8u8 {
        client.frame(PING, &[nth; 125]);
        client.expect(PONG, &[nth; 125]);
        client.frame(CONTINUATION, &part);
    }
    client.frame(FIN | CONTINUATION, b"");
    client.expect(BINARY, &part.repeat(9));
    client.leave();
    server.finish();
}

/// 200 of them, all with something under way, over two workers.
pub fn serves_many_connections_at_once<L: Lab>() {
    let server = echo_with::<L>(2, &Settings::default());
    let mut clients: Vec<_> = (0..200).map(|_| server.open()).collect();
    assert_eq!(server.counters().sessions_open, 200);
    for round in 0..5 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.frame(BINARY, &wire::pattern(100 * round + i, i));
        }
        for (i, client) in clients.iter_mut().enumerate() {
            client.expect(BINARY, &wire::pattern(100 * round + i, i));
        }
    }
    clients.into_iter().for_each(Client::leave);
    server.finish();
}

/// RFC 6455 §5.5.1, for several codes.
pub fn echoes_the_close_code<L: Lab>() {
    let server = echo::<L>();
    for code in [1000, 1001, 1011, 3000, 4999] {
        let mut client = server.open();
        client.send(&wire::close(code, "as you like"));
        client.expect_close(code);
    }
    server.finish();
}

/// Everyone but the sender gets each message once, on whichever worker it is.
pub fn broadcasts_to_all_but_the_sender_on_two_workers<L: Lab>() {
    let (told, _opened) = channel();
    let server = Server::<L>::start(2, &Settings::default(), move |_| Chat(told.clone()));
    let mut clients = Vec::new();
    // Where the kernel spreads connections, it takes some until both workers have one.
    while (0..2).any(|w| server.worker(w).sessions_open.get() == 0) || clients.len() < 6 {
        assert!(clients.len() < 64, "one worker gets all the connections");
        clients.push(server.open());
    }
    for sender in 0..clients.len() {
        let payload = wire::pattern(2000, sender);
        clients[sender].frame(TEXT, &payload);
        for (i, client) in clients.iter_mut().enumerate() {
            if i != sender {
                client.expect(TEXT, &payload);
            }
        }
    }
    // Nobody has anything besides: the next that each gets is the answer to its close.
    for client in &mut clients {
        client.send(&wire::close(1000, ""));
        assert_eq!(client.recv().and_then(|f| f.close().map(|c| c.0)), Some(1000));
    }
    drop(clients);
    server.finish();
}

/// Within the time of a thread's wake-up, not of a timer.
pub fn sends_from_other_threads_wake_a_sleeping_worker<L: Lab>() {
    let (told, opened) = channel();
    let server = Server::<L>::start(1, &Settings::default(), move |_| Chat(told.clone()));
    let mut client = server.open();
    let session = opened.recv_timeout(PATIENCE).expect("the session is told of");
    for nth in 0..20 {
        thread::sleep(Duration::from_millis(5));
        let begin = Instant::now();
        let payload = wire::pattern(64, nth);
        server.remote().send(session, Kind::Binary, &payload).expect("the inbox has room");
        client.expect(BINARY, &payload);
        assert!(begin.elapsed() < Duration::from_secs(5), "it slept until a timer came");
    }
    server.remote().close(session, hioload_ws_proto::CloseCode::NORMAL, "").expect("room");
    client.expect_close(1000);
    drop(client);
    server.finish();
}

/// 24 MiB of echo to a reader that is always behind: receiving pauses, nothing is lost, nothing
/// overflows.
pub fn a_slow_reader_gets_every_byte<L: Lab>() {
    const MESSAGES: usize = 400;
    let server = echo::<L>();
    let mut client = server.open();
    let sender = client.another();
    let message = |i: usize| wire::pattern(60_000 + i, i);
    let sending = thread::spawn(move || {
        let mut sender = Client::new(sender);
        (0..MESSAGES).for_each(|i| sender.frame(BINARY, &message(i)));
    });
    thread::sleep(Duration::from_millis(300));
    for i in 0..MESSAGES {
        client.expect(BINARY, &message(i));
        if i % 16 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    sending.join().expect("all was sent");
    let counters = server.counters();
    assert_eq!((counters.overflow_dropped_total, counters.overflow_closed_total), (0, 0));
    client.leave();
    server.finish();
}

/// What is sent to it unasked is dropped at the limit, and the others don't notice.
pub fn a_reader_that_never_reads_costs_no_more_than_its_limit<L: Lab>() {
    let settings = Settings {
        max_unsent_bytes: 256 * 1024,
        overflow: Overflow::DropNewest,
        ..Settings::default()
    };
    let (told, opened) = channel();
    let server = Server::<L>::start(1, &settings, move |_| Chat(told.clone()));
    let reader = server.open();
    let session = opened.recv_timeout(PATIENCE).expect("the session is told of");
    let payload = wire::pattern(64 * 1024, 1);
    let deadline = Instant::now() + PATIENCE;
    while server.counters().overflow_dropped_total < 50 {
        assert!(Instant::now() < deadline, "the limit never comes");
        if server.remote().send(session, Kind::Binary, &payload).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(server.counters().queued_bytes <= 256 * 1024, "{:?}", server.counters());
    }
    server.serves();
    reader.into_stream().reset();
    server.finish();
}

/// FIN instead of a Close frame.
pub fn a_half_close_without_close_frame_ends_the_session<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.open();
    client.frame(TEXT, b"last words");
    let mut stream = client.another();
    stream.finish();
    client.expect(TEXT, b"last words");
    assert_eq!(client.recv(), None, "the server ends it, too");
    drop(client);
    drop(stream);
    server.until_clean();
    assert_eq!(server.counters().abnormal_closed_total, 1);
    server.finish();
}

/// One sends nothing, one half a request, one a byte now and then; a fourth is served at once.
pub fn silent_and_slow_clients_delay_nobody<L: Lab>() {
    let server = echo::<L>();
    let silent = server.connect();
    let mut half = server.connect();
    half.send(b"GET / HTTP/1.1\r\nHost: ");
    let mut slow = server.open();
    let mut brisk = server.open();
    for (nth, byte) in wire::frame(TEXT, &wire::pattern(100, 1)).into_iter().enumerate() {
        slow.send(&[byte]);
        let begin = Instant::now();
        brisk.frame(TEXT, &wire::pattern(50, nth));
        brisk.expect(TEXT, &wire::pattern(50, nth));
        assert!(begin.elapsed() < Duration::from_secs(2), "it was delayed");
    }
    slow.expect(TEXT, &wire::pattern(100, 1));
    slow.leave();
    brisk.leave();
    drop((silent, half));
    server.finish();
}

/// 500 requests without an end get 408 when their time is over.
pub fn half_made_handshakes_are_timed_out<L: Lab>() {
    let settings =
        Settings { handshake_timeout: Duration::from_millis(300), ..Settings::default() };
    let server = echo_with::<L>(1, &settings);
    let mut clients: Vec<_> = (0..500).map(|_| server.connect()).collect();
    for client in &mut clients {
        // Where it takes long to get here, the first are timed out already.
        let _ = client.try_send(b"GET / HTTP/1.1\r\nHost: local");
    }
    for client in &mut clients {
        assert_eq!(client.head().as_deref().and_then(wire::status), Some(408));
    }
    drop(clients);
    assert_eq!(server.counters().handshakes_timed_out_total, 500);
    server.finish();
}

/// 1002, at once.
pub fn refuses_a_length_of_two_to_the_63<L: Lab>() {
    let server = echo::<L>();
    let mut client = server.open();
    let mut header = vec![BINARY, 0x80 | 127];
    header.extend((1u64 << 63).to_be_bytes());
    header.extend([1, 2, 3, 4]);
    client.send(&header);
    client.expect_close(1002);
    drop(client);
    server.finish();
}

/// Not HTTP, not a WebSocket, too long: a response each, and accepting goes on.
pub fn refuses_what_is_not_http<L: Lab>() {
    let server = echo::<L>();
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 9000]].concat();
    let cases: [(&[u8], u16); 4] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (&endless, 431),
    ];
    for (bytes, status) in cases {
        let mut client = server.connect();
        client.send(bytes);
        let head = client.head();
        assert_eq!(head.as_deref().and_then(wire::status), Some(status));
    }
    server.finish();
}

/// A reset behind each of the first bytes of a handshake, a message, a close.
pub fn survives_resets_at_every_point<L: Lab>() {
    let server = echo::<L>();
    let hello = wire::request("/", "");
    let message = wire::frame(BINARY, &wire::pattern(200, 1));
    let close = wire::close(1000, "");
    for cut in (0..hello.len()).step_by(29) {
        let mut client = server.connect();
        client.send(&hello[..cut]);
        client.into_stream().reset();
    }
    for cut in (0..message.len()).step_by(7) {
        let mut client = server.open();
        client.send(&message[..cut]);
        client.into_stream().reset();
    }
    for cut in 0..=close.len() {
        let mut client = server.open();
        client.send(&[&message, &close[..cut]].concat());
        client.into_stream().reset();
    }
    server.finish();
}

/// Half of the clients go without a word while messages are under way; the others go on.
pub fn survives_clients_that_vanish<L: Lab>() {
    let server = echo_with::<L>(2, &Settings::default());
    let mut clients: Vec<_> = (0..60).map(|_| server.open()).collect();
    let payload = wire::pattern(30_000, 1);
    for client in &mut clients {
        client.frame(BINARY, &payload);
    }
    let staying = clients.split_off(30);
    drop(clients);
    for mut client in staying {
        client.expect(BINARY, &payload);
        client.leave();
    }
    server.finish();
}

/// Every session hears 1001, nobody new is taken, the workers end.
pub fn drains_with_1001_and_ends<L: Lab>() {
    let server = echo_with::<L>(2, &Settings::default());
    let mut clients: Vec<_> = (0..20).map(|_| server.open()).collect();
    let mut half = server.connect();
    half.send(b"GET / HTTP/1.1\r\n");
    server.until("all have come", |c| c.connections_open == 21);
    server.remote().drain();
    for client in &mut clients {
        client.expect_close(1001);
    }
    assert_eq!(half.head().as_deref().and_then(wire::status), Some(503));
    drop((clients, half));
    server.until("no session is left", |c| c.sessions_open == 0 && c.connections_open == 0);
    let late = server.try_connect().ok().and_then(|mut client| {
        let _ = client.try_send(&wire::request("/", ""));
        client.head()
    });
    assert_ne!(late.as_deref().and_then(wire::status), Some(101), "it takes nobody any more");
    server.join();
}
