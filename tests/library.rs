//! The library as a program uses it: starting, failing to start, handlers a worker, and ending.

mod common;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::raw::{CLOSE, Raw, TEXT, frame, request};
use common::{builder, echo, echoes, eventually};
use hioload_ws::{
    Batch, CloseCode, Closed, ClosedBy, Context, Error, Handler, Kind, Opening, RemoteError,
    Server, SessionId, Settings, Verdict,
};

#[test]
fn a_factory_makes_a_handler_for_each_worker_on_its_thread() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let running = {
        let seen = Arc::clone(&seen);
        let server = builder().workers(3).start_with(move |worker| {
            let name = std::thread::current().name().map(String::from);
            assert_eq!((worker.workers(), worker.remote().workers()), (3, 3));
            seen.lock().unwrap().push((worker.index(), name));
            echo()
        });
        server.unwrap()
    };
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    let expected = [0, 1, 2].map(|index| (index, Some(format!("worker-{index}"))));
    assert_eq!(seen, expected);
    echoes(running.addresses()[0]);
    assert_eq!(running.monitor().workers().len(), 3);
    running.drain();
    running.join().unwrap();
}

#[test]
fn a_worker_that_panics_takes_the_others_with_it() {
    let result = builder().workers(3).start_with(|worker| {
        assert_ne!(worker.index(), 1, "this one can't");
        echo()
    });
    match result {
        Err(Error::Panic { worker: 1, message }) => assert!(message.contains("this one can't")),
        other => panic!("expected the panic of worker 1, got {other:?}"),
    }
}

#[test]
fn what_is_out_of_range_is_refused_before_anything_starts() {
    let names = |builder: hioload_ws::Builder| match builder.start(echo()) {
        Err(Error::Setting { name, .. }) => name,
        other => panic!("expected a setting to be refused, got {other:?}"),
    };
    assert_eq!(names(builder().batch(0)), "batch");
    assert_eq!(names(builder().ring(1)), "ring");
    assert_eq!(names(builder().workers(100_000)), "workers");
    assert_eq!(names(builder().max_unsent_bytes(10)), "max-unsent");
    assert_eq!(names(builder().handshake_timeout(Duration::ZERO)), "handshake-timeout");
    assert!(matches!(
        Server::builder().listen("nowhere:1").start(echo()),
        Err(Error::Address { given }) if given == "nowhere:1"
    ));
}

#[test]
fn a_port_can_be_served_by_one_server_only() {
    let running = builder().start(echo()).unwrap();
    let address = running.addresses()[0];
    let second = Server::builder().listen(address).workers(1).start(echo());
    assert!(matches!(second, Err(Error::Listen(_))), "{second:?}");
    echoes(address);
    drop(running);
    let again = Server::builder().listen(address).workers(1).start(echo()).unwrap();
    echoes(again.addresses()[0]);
}

#[test]
fn dropping_the_handle_stops_the_server() {
    let running = builder().start(echo()).unwrap();
    let address = running.addresses()[0];
    let (remote, monitor) = (running.remote().clone(), running.monitor().clone());
    let mut client = Raw::open(address);
    drop(running);
    client.end();
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(remote.broadcast(Kind::Text, b"anybody?", None).missed, 2);
    assert_eq!(monitor.total().sessions_total, 1);
}

#[test]
fn more_workers_than_cores_run_unpinned_and_the_report_says_so() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let running = builder().workers(cores + 1).start(echo()).unwrap();
    assert!(running.report().pinned.iter().all(Option::is_none));
    assert!(running.report().to_string().contains("not pinned: "));
    echoes(running.addresses()[0]);
}

#[test]
fn ipv6_is_served_where_there_is_any() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    let running = builder().listen("[::1]:0").start(echo()).unwrap();
    assert_eq!(running.addresses().len(), 2);
    assert!(running.addresses()[1].is_ipv6());
    echoes(running.addresses()[1]);
}

/// Notes what it hears of its sessions, and defers those that ask for it.
#[derive(Clone, Default)]
struct Journal {
    ready: Arc<Mutex<Vec<SessionId>>>,
    deferred: Arc<Mutex<Vec<SessionId>>>,
    ended: Arc<Mutex<Vec<(SessionId, u16, ClosedBy)>>>,
}

impl Handler for Journal {
    type Session = ();

    fn on_open(&mut self, opening: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        assert!(opening.peer().is_some_and(|peer| peer.ip().is_loopback()));
        if opening.request().path() == "/defer" {
            self.deferred.lock().unwrap().push(opening.session());
            return Verdict::Defer(());
        }
        Verdict::Accept(())
    }

    fn on_ready(&mut self, session: SessionId, _: &mut Context<'_, '_, ()>) {
        self.ready.lock().unwrap().push(session);
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            let _ = context.echo(message);
        }
    }

    fn on_close(
        &mut self,
        session: SessionId,
        (): (),
        closed: Closed<'_>,
        _: &mut Context<'_, '_, ()>,
    ) {
        self.ended.lock().unwrap().push((session, closed.code.get(), closed.by));
    }
}

#[test]
fn a_remote_sends_and_closes_from_any_thread() {
    let journal = Journal::default();
    let running = builder().start(journal.clone()).unwrap();
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::open(running.addresses()[0])).collect();
    eventually("all are ready", || journal.ready.lock().unwrap().len() == 8);
    let sessions = journal.ready.lock().unwrap().clone();
    let remote = running.remote().clone();
    std::thread::spawn(move || {
        for session in sessions {
            remote.send(session, Kind::Text, session.to_string().as_bytes()).unwrap();
            remote.close(session, CloseCode::POLICY, "enough").unwrap();
        }
    })
    .join()
    .unwrap();
    let mut told: Vec<String> = clients.iter_mut().map(Raw::text).collect();
    let ready = journal.ready.lock().unwrap().clone();
    let mut expected: Vec<String> = ready.iter().map(SessionId::to_string).collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected, "each got its own");
    for client in &mut clients {
        let close = client.frame().unwrap();
        assert_eq!((close.first, &close.payload[..]), (CLOSE, &b"\x03\xF0enough"[..]));
        client.close(1008);
        client.end();
    }
    eventually("all have ended", || journal.ended.lock().unwrap().len() == 8);
    assert!(journal.ended.lock().unwrap().iter().all(|end| (end.1, end.2) == (1008, ClosedBy::Us)));
}

#[test]
fn a_deferred_handshake_waits_for_its_verdict_and_loses_nothing() {
    let journal = Journal::default();
    let running = builder().start(journal.clone()).unwrap();
    let mut client = Raw::connect(running.addresses()[0]);
    let mut bytes = request("/defer", "");
    bytes.extend(frame(TEXT, b"sent ahead"));
    client.send(&bytes);
    eventually("it is deferred", || journal.deferred.lock().unwrap().len() == 1);
    assert!(journal.ready.lock().unwrap().is_empty());
    let session = journal.deferred.lock().unwrap()[0];
    running.remote().accept(session).unwrap();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.text(), "sent ahead");
    // A second verdict reaches nobody.
    running.remote().accept(session).unwrap();
    client.send_text("goes on");
    assert_eq!(client.text(), "goes on");
}

#[test]
fn a_handshake_without_a_verdict_ends_with_503() {
    let settings =
        Settings { handshake_timeout: Duration::from_millis(300), ..Settings::default() };
    let running = builder().settings(settings).start(Journal::default()).unwrap();
    let mut client = Raw::connect(running.addresses()[0]);
    client.send(&request("/defer", ""));
    assert_eq!(client.refusal(), 503);
}

#[test]
fn after_the_end_a_remote_says_that_nobody_is_there() {
    let journal = Journal::default();
    let running = builder().start(journal.clone()).unwrap();
    let mut client = Raw::open(running.addresses()[0]);
    eventually("it is ready", || journal.ready.lock().unwrap().len() == 1);
    let session = journal.ready.lock().unwrap()[0];
    let remote = running.remote().clone();
    remote.drain();
    assert_eq!(client.frame().unwrap().first, CLOSE);
    client.close(1001);
    client.end();
    drop(client);
    running.join().unwrap();
    assert_eq!(remote.send(session, Kind::Text, b"late"), Err(RemoteError::Gone));
    let ended = journal.ended.lock().unwrap();
    assert_eq!(ended.len(), 1, "each session is told its end once");
    assert_eq!((ended[0].0, ended[0].1), (session, 1001));
}
