//! Bytes that break HTTP or RFC 6455, connections reset at every point of a message, and a
//! handler that panics: each ends what it concerns, and nothing else.

#![cfg(target_os = "linux")]

mod common;

use common::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, TEXT, frame, request};
use common::{TestServer, builder, echoes, eventually};
use hioload_ws::{Batch, Closed, Context, Handler, Opening, SessionId, Verdict};

fn replaced(from: &str, to: &str) -> Vec<u8> {
    let whole = String::from_utf8(request("/", "")).unwrap();
    assert!(whole.contains(from), "{from:?} isn't in the request");
    whole.replace(from, to).into_bytes()
}

#[test]
fn bad_requests_are_refused_and_accepting_goes_on() {
    let server = TestServer::echo();
    let cases = [
        (replaced("GET", "POST"), 405),
        (replaced("HTTP/1.1", "HTTP/1.0"), 400),
        (replaced("Version: 13", "Version: 8"), 426),
        (replaced("Upgrade: websocket\r\n", ""), 426),
        (replaced("Host: localhost\r\n", ""), 400),
        (replaced("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (replaced("Connection: Upgrade", "Connection: close"), 426),
        (replaced("Host: local", "Host: \0local"), 400),
        (replaced("GET / ", "GET "), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, TLS\r\n\r\n".to_vec(), 400),
        (b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n".to_vec(), 400),
        (request("/", &format!("X-Long: {}\r\n", "x".repeat(9_000))), 431),
        (request("/", &"X: y\r\n".repeat(200)), 431),
    ];
    let refused = cases.len() as u64;
    for (bytes, status) in cases {
        let mut client = Raw::connect(server.address());
        client.send(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let got = client.refusal();
        // Where several rules are broken at once, which one is named is a matter of taste.
        let same_class = got / 100 == status / 100 && status != 431;
        assert!(got == status || same_class, "{shown:?}: expected {status}, got {got}");
        echoes(server.address());
    }
    assert_eq!(server.monitor().total().handshakes_refused_total, refused);
    server.serves_and_leaks_nothing();
}

#[test]
fn a_request_that_arrives_byte_by_byte_with_frames_behind_it_is_served() {
    let server = TestServer::echo();
    let mut bytes = request("/path?query", "");
    bytes.extend(frame(TEXT & !FIN, b"in "));
    bytes.extend(frame(FIN | CONTINUATION, b"parts"));
    let mut client = Raw::connect(server.address());
    for byte in bytes {
        client.send(&[byte]);
    }
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.text(), "in parts");
    drop(client);

    let mut client = Raw::connect(server.address());
    let mut bytes = request("/", "");
    bytes.extend(frame(TEXT, b"all at once"));
    client.send(&bytes);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.text(), "all at once");
    drop(client);
    server.serves_and_leaks_nothing();
}

#[test]
fn violations_are_answered_with_their_close_code() {
    let server = TestServer::echo();
    let length = |bits: u64| {
        let mut bytes = vec![BINARY, 0x80 | 127];
        bytes.extend_from_slice(&bits.to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    };
    let mut two_texts = frame(TEXT & !FIN, b"begun");
    two_texts.extend(frame(TEXT, b"and begun again"));
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a length of 2^63", length(1 << 63), 1002),
        ("the largest 64-bit length", length(u64::MAX), 1002),
        ("a length of 2^62", length(1 << 62), 1009),
        ("a length of 4 GiB", length(1 << 32), 1009),
        ("a length longer than needed", length(5), 1002),
        ("no mask", vec![TEXT, 1, b'x'], 1002),
        ("a reserved bit", vec![0x40 | TEXT, 0x80, 0, 0, 0, 0], 1002),
        ("a reserved opcode", frame(FIN | 3, b""), 1002),
        ("a control frame in fragments", frame(PING & !FIN, b""), 1002),
        ("a long control frame", frame(PING, &[0; 126]), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message inside a message", two_texts, 1002),
        ("text that isn't UTF-8", frame(TEXT, b"\xC3\x28"), 1007),
        ("a close code that never travels", frame(CLOSE, &[3, 238]), 1002),
        ("half a close code", frame(CLOSE, &[3]), 1002),
        ("a frame above the limit", frame(BINARY, &vec![0; (1 << 20) + 1])[..64].into(), 1009),
    ];
    let errors = cases.len() as u64;
    let mapped = server.monitor().pool().mapped_bytes;
    for (what, bytes, code) in cases {
        let mut client = Raw::open(server.address());
        client.send(&bytes);
        assert_eq!(client.close_code(), Some(code), "{what}");
    }
    assert_eq!(server.monitor().total().protocol_errors_total, errors);
    assert_eq!(
        server.monitor().pool().mapped_bytes,
        mapped,
        "no memory for what is only announced"
    );
    server.serves_and_leaks_nothing();
}

#[test]
fn a_reset_at_every_byte_of_a_handshake_and_a_message_leaks_nothing() {
    let server = TestServer::echo();
    let mut script = request("/", "");
    script.extend(frame(TEXT & !FIN, b"a first part"));
    script.extend(frame(PING, b"ping"));
    script.extend(frame(FIN | CONTINUATION, b"a second"));
    script.extend(frame(CLOSE, &1000_u16.to_be_bytes()));
    let received = || server.monitor().sockets().recv_bytes_total;
    for sent in 0..=script.len() {
        let before = received();
        let mut client = Raw::connect(server.address());
        client.send(&script[..sent]);
        // A reset throws away what wasn't read yet: only so the server is where it should be.
        eventually("the bytes were read", || received() >= before + sent as u64);
        client.reset();
    }
    for sent in 0..=script.len() {
        // And once more with whatever was read by then.
        let mut client = Raw::connect(server.address());
        client.send(&script[..sent]);
        client.reset();
    }
    server.serves_and_leaks_nothing();
}

#[test]
fn a_reset_with_output_waiting_leaks_nothing() {
    let server = TestServer::echo();
    for _ in 0..20 {
        let mut client = Raw::open(server.address());
        for _ in 0..8 {
            client.send_frame(BINARY, &[7; 100_000]);
        }
        client.reset();
    }
    server.serves_and_leaks_nothing();
}

/// Panics when told to.
#[derive(Clone)]
struct Fragile;

impl Handler for Fragile {
    type Session = bool;

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        _: &mut Context<'_, '_, bool>,
    ) -> Verdict<bool> {
        assert_ne!(opening.request().path(), "/panic", "told to panic in on_open");
        Verdict::Accept(opening.request().path() == "/panic-at-the-end")
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, bool>) {
        while let Some((message, context)) = batch.next() {
            assert_ne!(message.text(), Some("panic"), "told to panic in on_batch");
            let _ = context.echo(message);
        }
    }

    fn on_close(
        &mut self,
        _: SessionId,
        panics: bool,
        _: Closed<'_>,
        _: &mut Context<'_, '_, bool>,
    ) {
        assert!(!panics, "told to panic in on_close");
    }
}

#[test]
fn a_panic_of_the_handler_ends_only_the_session_that_it_was_about() {
    let server = TestServer::start(builder().workers(1), Fragile);
    let panics = || server.monitor().total().handler_panics_total;
    let mut others: Vec<Raw> = (0..20).map(|_| Raw::open(server.address())).collect();

    for round in 0..5 {
        let mut victim = Raw::open(server.address());
        // All at once, so that most are handed over in the same batches as the one that panics.
        for (index, other) in others.iter_mut().enumerate() {
            other.send_text(&format!("{round} {index}"));
            if index == 10 {
                victim.send_text("before");
                victim.send_text("panic");
                victim.send_text("after");
            }
        }
        for (index, other) in others.iter_mut().enumerate() {
            assert_eq!(other.text(), format!("{round} {index}"));
        }
        assert_eq!(victim.text(), "before");
        assert_eq!(victim.close_code(), Some(1011));
        assert_eq!(panics(), round + 1);
    }

    let mut refused = Raw::connect(server.address());
    refused.send(&request("/panic", ""));
    assert_eq!(refused.refusal(), 500);
    let mut last_words = Raw::open_at(server.address(), "/panic-at-the-end");
    last_words.close(1000);
    last_words.close_code();
    eventually("both panics are counted", || panics() == 7);

    for other in &mut others {
        other.send_frame(PING, b"still here");
        assert_eq!(other.frame().unwrap().first, PONG);
    }
    drop((others, refused, last_words));
    server.serves_and_leaks_nothing();
}
