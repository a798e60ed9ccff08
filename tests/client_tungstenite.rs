//! A client from crates.io, with a protocol implementation of its own, against the echo: sizes
//! from 1 byte to 1 MiB both ways, fragments, ping, close and subprotocol.

mod common;

use std::net::TcpStream;

use common::{PATIENCE, TestServer, builder};
use hioload_ws::{Batch, Context, Handler, Opening, Verdict};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, WebSocket};
use tungstenite::{Bytes, Error, Message};

const MIB: usize = 1 << 20;
const SIZES: [usize; 8] = [1, 125, 126, 127, 65_535, 65_536, 65_537, MIB];

fn connect(server: &TestServer, subprotocols: &str) -> (WebSocket<TcpStream>, Response) {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("ws://{}/", server.address()).into_client_request().unwrap();
    if !subprotocols.is_empty() {
        let offered = subprotocols.parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered);
    }
    tungstenite::client(request, stream).expect("a handshake")
}

/// Exactly `size` bytes of UTF-8 with characters of several lengths.
fn text_of(size: usize) -> String {
    let mut text: String = "aé€😀".chars().cycle().take(size / 3).collect();
    while text.len() > size {
        text.pop();
    }
    text.extend(std::iter::repeat_n('x', size - text.len()));
    text
}

fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn messages_of_all_sizes_come_back_as_they_were() {
    let server = TestServer::echo();
    let (mut client, _) = connect(&server, "");
    for size in SIZES {
        for message in [Message::text(text_of(size)), Message::binary(bytes_of(size))] {
            assert_eq!(message.len(), size);
            client.send(message.clone()).unwrap();
            assert!(client.read().unwrap() == message, "{size} bytes");
        }
    }
    client.close(None).unwrap();
    while client.read().is_ok() {}
    drop(client);
    server.serves_and_leaks_nothing();
}

#[test]
fn what_is_sent_ahead_comes_back_in_order() {
    let server = TestServer::echo();
    let (mut client, _) = connect(&server, "");
    let texts: Vec<String> = (0..500).map(|i| format!("{i}:{}", text_of(i))).collect();
    for text in &texts {
        client.write(Message::text(text.as_str())).unwrap();
    }
    client.flush().unwrap();
    for text in &texts {
        assert_eq!(client.read().unwrap().to_text().unwrap(), text);
    }
    drop(client);
    server.serves_and_leaks_nothing();
}

#[test]
fn fragments_with_a_ping_between_them_become_one_message() {
    let server = TestServer::echo();
    let (mut client, _) = connect(&server, "");
    for size in [3, 300, MIB] {
        let whole = bytes_of(size);
        let (first, rest) = whole.split_at(size / 3);
        let (second, third) = rest.split_at(size / 3);
        let part = |bytes: &[u8], data, last| {
            Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), last))
        };
        client.send(part(first, Data::Binary, false)).unwrap();
        client.send(Message::Ping(Bytes::from_static(b"between"))).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(Bytes::from_static(b"between")));
        client.send(part(second, Data::Continue, false)).unwrap();
        client.send(part(third, Data::Continue, true)).unwrap();
        assert!(client.read().unwrap() == Message::binary(whole), "{size} bytes");
    }
    drop(client);
    server.serves_and_leaks_nothing();
}

#[test]
fn a_close_comes_back_with_its_code() {
    let server = TestServer::echo();
    for code in [CloseCode::Normal, CloseCode::Away, CloseCode::Library(4321)] {
        let (mut client, _) = connect(&server, "");
        client.close(Some(CloseFrame { code, reason: "done".into() })).unwrap();
        match client.read().unwrap() {
            Message::Close(Some(answer)) => assert_eq!(answer.code, code),
            other => panic!("expected a Close, got {other:?}"),
        }
        assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    }
    server.serves_and_leaks_nothing();
}

#[test]
fn a_message_above_the_limit_is_closed_with_1009() {
    let server = TestServer::echo();
    let (mut client, _) = connect(&server, "");
    // The server may be gone before all of it is written.
    let _ = client.send(Message::binary(bytes_of(MIB + 1)));
    match client.read() {
        Ok(Message::Close(Some(answer))) => assert_eq!(answer.code, CloseCode::Size),
        other => panic!("expected a Close, got {other:?}"),
    }
    drop(client);
    server.serves_and_leaks_nothing();
}

#[derive(Clone)]
struct Chooser;

impl Handler for Chooser {
    type Session = ();

    fn on_open(&mut self, opening: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        assert!(opening.subprotocol("never.offered").is_err());
        if opening.request().subprotocols().any(|offered| offered == "second") {
            opening.subprotocol("second").unwrap();
        }
        opening.header("X-Served-By", "a test").unwrap();
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            let _ = context.echo(message);
        }
    }
}

#[test]
fn a_subprotocol_is_chosen_of_those_offered() {
    let server = TestServer::start(builder(), Chooser);
    let (client, response) = connect(&server, "first, second");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "second");
    assert_eq!(response.headers()["X-Served-By"], "a test");
    drop(client);
    let (client, response) = connect(&server, "");
    assert!(!response.headers().contains_key("Sec-WebSocket-Protocol"));
    drop(client);
    server.serves_and_leaks_nothing();
}
