//! The library's client against servers on loopback: it opens what was asked for, tells its
//! handler why a connection could not be opened, and ends when all have ended.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{TestServer, builder, echo, eventually};
use hioload_ws::{
    Batch, Client, CloseCode, Closed, Context, Error, Handler, Kind, Opening, Response, Server,
    SessionId, Settings, Verdict,
};

/// Nothing is left of the client, and others are served.
fn is_left_clean(server: &TestServer) {
    common::echoes(server.address());
    eventually("all is given back", || {
        let total = server.monitor().total();
        total.connections_open == 0 && total.sessions_open == 0 && total.pool_buffers_lent == 0
    });
}

/// Says its number, takes the echo, and leaves; remembers how it went.
#[derive(Clone, Default)]
struct Greeter {
    echoed: Arc<AtomicUsize>,
    ends: Arc<Mutex<Vec<(u16, String)>>>,
    subprotocols: Arc<Mutex<Vec<String>>>,
    stay: bool,
}

impl Handler for Greeter {
    type Session = usize;

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, usize>) -> Verdict<usize> {
        panic!("a client is not opened");
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, usize>,
    ) {
        if let Some(name) = response.subprotocol() {
            self.subprotocols.lock().unwrap().push(name.into());
        }
        let number = context.state(session).copied().unwrap();
        context.send_text(session, &number.to_string()).unwrap();
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, usize>) {
        while let Some((message, context)) = batch.next() {
            let number = context.state(message.session()).copied().unwrap();
            assert_eq!(message.kind(), Kind::Text);
            assert_eq!(message.payload(), number.to_string().as_bytes());
            self.echoed.fetch_add(1, Ordering::Relaxed);
            if !self.stay {
                context.close(message.session(), CloseCode::NORMAL, "bye").unwrap();
            }
        }
    }

    fn on_close(
        &mut self,
        _: SessionId,
        _: usize,
        closed: Closed<'_>,
        _: &mut Context<'_, '_, usize>,
    ) {
        self.ends.lock().unwrap().push((closed.code.get(), closed.reason.into()));
    }
}

#[test]
fn every_connection_is_opened_with_its_state_and_the_client_ends_with_the_last() {
    let server = TestServer::echo();
    let greeter = Greeter::default();
    Client::builder()
        .url(format!("ws://{}/", server.address()))
        .connections(300)
        .workers(2)
        .run_each(greeter.clone(), |number| number)
        .unwrap();
    assert_eq!(greeter.echoed.load(Ordering::Relaxed), 300);
    let ends = greeter.ends.lock().unwrap();
    assert_eq!(ends.len(), 300);
    assert!(ends.iter().all(|(code, reason)| *code == 1000 && reason == "bye"), "{:?}", ends[0]);
    is_left_clean(&server);
}

/// Takes the first subprotocol, where there is the right header.
#[derive(Clone)]
struct Strict;

impl Handler for Strict {
    type Session = ();

    fn on_open(&mut self, opening: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        let key = opening.request().header("x-key");
        if key != Some(b"secret") {
            return Verdict::Refuse(hioload_ws::Refusal::new(
                hioload_ws::Status::FORBIDDEN,
                "not with this key",
            ));
        }
        opening.subprotocol("b").unwrap();
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            let _ = context.echo(message);
        }
    }
}

#[test]
fn headers_and_subprotocols_are_asked_for_and_a_refusal_is_explained() {
    let server = builder().start(Strict).unwrap();
    let url = format!("ws://{}/path", server.addresses()[0]);
    let greeter = Greeter::default();
    let client = Client::builder().url(&url).subprotocol("a").subprotocol("b");
    client.clone().header("X-Key", "secret").run(greeter.clone()).unwrap();
    assert_eq!(*greeter.subprotocols.lock().unwrap(), ["b"]);

    let greeter = Greeter::default();
    let error = client.connections(3).run(greeter.clone()).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, Error::NotOpened { .. }), "{told}");
    assert!(told.contains("403") && told.contains("not with this key"), "{told}");
    assert_eq!(greeter.ends.lock().unwrap().len(), 3, "the handler is told of each");
}

#[test]
fn a_port_where_nobody_listens_ends_the_client_with_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{free}/");
    let told = Client::builder().url(url).run(Greeter::default()).unwrap_err().to_string();
    assert!(told.contains("can't connect"), "{told}");
}

#[test]
fn a_server_that_is_no_websocket_server_is_called_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    });
    let url = format!("ws://{address}/");
    let told = Client::builder().url(url).run(Greeter::default()).unwrap_err().to_string();
    server.join().unwrap();
    assert!(told.contains("200 OK"), "{told}");
}

#[test]
fn a_silent_server_costs_no_more_than_the_handshakes_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let handshake_timeout = std::time::Duration::from_millis(200);
    let settings = Settings { handshake_timeout, ..Settings::default() };
    let client = Client::builder().url(url).settings(settings);
    let told = client.run(Greeter::default()).unwrap_err().to_string();
    assert!(told.contains("in time"), "{told}");
}

#[test]
fn what_cannot_be_connected_to_is_refused_before_anything_is_opened() {
    for (url, part) in [
        ("wss://127.0.0.1/", "no TLS"),
        ("http://127.0.0.1/", "ws://"),
        ("ws://127.0.0.1/a b", "percent-encoded"),
        ("", "begins with ws://"),
    ] {
        let told = Client::builder().url(url).check().unwrap_err().to_string();
        assert!(told.contains(part), "{url}: {told}");
    }
    let client = Client::builder().url("ws://127.0.0.1/");
    let told = client.clone().header("Host", "x").check().unwrap_err().to_string();
    assert!(told.contains("request"), "{told}");
    assert!(client.clone().subprotocol("a b").check().is_err());
    assert!(client.workers(100_000).check().is_err());
}

#[test]
fn of_several_addresses_the_one_that_accepts_is_taken() {
    // `localhost` is ::1 and 127.0.0.1 on most machines; only the second one is listened on.
    let server = Server::builder().listen("127.0.0.1:0").workers(1).start(echo()).unwrap();
    let port = server.addresses()[0].port();
    let target = Client::builder().url(format!("ws://localhost:{port}/")).target().unwrap();
    assert_eq!(target.address, server.addresses()[0]);
}

#[test]
fn a_client_can_be_drained_from_outside() {
    let server = TestServer::echo();
    let greeter = Greeter { stay: true, ..Greeter::default() };
    let url = format!("ws://{}/", server.address());
    let client = Client::builder().url(url).connections(10);
    let running = client.start_each(greeter.clone(), |number| number).unwrap();
    eventually("all have their echo", || greeter.echoed.load(Ordering::Relaxed) == 10);
    running.drain();
    running.join().unwrap();
    let ends = greeter.ends.lock().unwrap();
    assert!(ends.len() == 10 && ends.iter().all(|(code, _)| *code == 1001), "{ends:?}");
    is_left_clean(&server);
}
