//! The load generator against itself: what it says has to be true, above all when the server is
//! slow, wrong or not there.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::process::APPLIANCE;
use common::{builder, echo};
use hioload_ws::{Batch, Context, Handler, Kind, Opening, Refusal, Status, Verdict};
use serde_json::Value;

/// What a run of the generator left.
struct Outcome {
    code: i32,
    json: Value,
    said: String,
}

impl Outcome {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.json.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer} in {}\n{}", self.json, self.said))
    }
}

/// Runs `hioload-ws bench` with `--json` and these arguments.
fn bench(server: SocketAddr, args: &[&str]) -> Outcome {
    let child = Command::new(APPLIANCE)
        .args(["bench", &format!("ws://{server}/"), "--json"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the generator runs");
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    let json = serde_json::from_slice(&child.stdout).unwrap_or(Value::Null);
    Outcome { code: child.status.code().unwrap_or(-1), json, said }
}

/// Echoes, and stands still for 200 ms each second.
#[derive(Clone)]
struct Stalling;

impl Handler for Stalling {
    type Session = ();

    fn on_start(&mut self, context: &mut Context<'_, '_, ()>) {
        context.set_timer(Duration::from_millis(500), 0);
    }

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            let _ = context.echo(message);
        }
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_, '_, ()>) {
        context.set_timer(Duration::from_millis(1000), 0);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_server_that_stalls_shows_it_in_open_loop() {
    let server = builder().workers(1).start(Stalling).unwrap();
    let address = server.addresses()[0];
    let load = ["--connections", "4", "--duration", "4s"];
    let open = bench(address, &[&load[..], &["--rate", "2000"]].concat());
    assert_eq!(open.code, 0, "{}", open.said);
    // A fifth of the messages is due while the server stands still, evenly.
    assert!(open.number("/latency_us/p99_9") >= 150e3, "{}", open.said);
    assert!(open.number("/latency_us/p90") >= 40e3, "{}", open.said);

    // One message at a time hides it: while the server stands still nothing is sent, so that of
    // tens of thousands of messages a handful waited. This is what must not happen above.
    let closed = bench(address, &load);
    assert_eq!(closed.code, 0, "{}", closed.said);
    assert!(closed.number("/latency_us/p90") < 40e3, "{}", closed.said);
    if closed.number("/messages") >= 40_000.0 {
        assert!(closed.number("/latency_us/p99_9") < 150e3, "{}", closed.said);
    }
    let slow = closed.number("/latency_us/max");
    assert!(slow >= 150e3, "the stall was there: {slow}");
}

#[test]
fn the_rate_is_what_was_asked_for() {
    let server = builder().start(echo()).unwrap();
    for (rate, workers) in [(2_000.0, "1"), (733.0, "2")] {
        let rate_text = rate.to_string();
        let args = ["--rate", &rate_text, "--workers", workers, "--duration", "3s"];
        let outcome = bench(server.addresses()[0], &args);
        assert_eq!(outcome.code, 0, "{}", outcome.said);
        let seconds = outcome.number("/seconds");
        let (sent, got) = (outcome.number("/sent"), outcome.number("/messages"));
        let asked = rate * seconds;
        assert!((sent - asked).abs() <= asked * 0.01, "sent {sent} of {asked}");
        assert!((got - asked).abs() <= asked * 0.02, "answered {got} of {asked}");
        assert_eq!(outcome.number("/latency_us/count"), sent, "every one sent is measured");
    }
}

/// Echoes, but for one bit of each hundredth message.
#[derive(Clone, Default)]
struct Flipping(usize);

impl Handler for Flipping {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((mut message, context)) = batch.next() {
            self.0 += 1;
            if self.0.is_multiple_of(100)
                && let Some(last) = message.payload_mut().last_mut()
            {
                *last ^= 1;
            }
            let _ = context.echo(message);
        }
    }
}

#[test]
fn one_flipped_bit_in_a_message_is_found() {
    let server = builder().workers(1).start(Flipping::default()).unwrap();
    for size in ["1", "20", "5000", "8:1,40000:1"] {
        let args = ["--connections", "3", "--size", size, "--duration", "300ms", "--text"];
        let outcome = bench(server.addresses()[0], &args);
        assert_eq!(outcome.code, 1, "{size}: {}", outcome.said);
        let corrupt = outcome.number("/errors_by_kind/corrupt");
        assert!(corrupt >= 1.0 && corrupt == outcome.number("/errors"), "{}", outcome.said);
        assert!(corrupt <= outcome.number("/messages") / 50.0 + 10.0, "{}", outcome.said);
    }
}

/// Refuses every second handshake.
#[derive(Clone, Default)]
struct Picky(usize);

impl Handler for Picky {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        self.0 += 1;
        match self.0 % 2 {
            0 => Verdict::Refuse(Refusal::new(Status::FORBIDDEN, "not you")),
            _ => Verdict::Accept(()),
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            let _ = context.echo(message);
        }
    }
}

#[test]
fn refused_handshakes_are_counted_and_explained() {
    let server = builder().workers(1).start(Picky::default()).unwrap();
    let args = ["--connections", "20", "--duration", "300ms"];
    let outcome = bench(server.addresses()[0], &args);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.number("/connections"), 10.0);
    assert_eq!(outcome.number("/failed_connections"), 10.0);
    assert!(outcome.number("/messages") > 0.0, "the others are measured");
    assert!(outcome.said.contains("403") && outcome.said.contains("not you"), "{}", outcome.said);
}

#[test]
fn nobody_there_is_said_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begin = Instant::now();
    let outcome = bench(free, &["--duration", "20s", "--connections", "200"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.said.contains("refused"), "{}", outcome.said);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn the_window_is_announced_and_its_time_is_the_durations() {
    let server = builder().start(echo()).unwrap();
    let args = ["--duration", "500ms", "--connections", "2", "--depth", "16", "--size", "0-300"];
    let outcome = bench(server.addresses()[0], &args);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    let lines: Vec<_> = outcome.said.lines().collect();
    let at = |word| lines.iter().position(|line| *line == word).expect("announced");
    assert!(at("measuring") < at("measured"));
    assert!((outcome.number("/seconds") - 0.5).abs() < 1e-6);
    let counted = outcome.number("/messages");
    assert!((outcome.number("/rate") - counted / 0.5).abs() < 1.0);
    assert_eq!(outcome.number("/latency_us/count"), counted);
    for (less, more) in [("min", "p50"), ("p50", "p99"), ("p99", "p99_99"), ("p99_99", "max")] {
        let of = |name: &str| outcome.number(&format!("/latency_us/{name}"));
        assert!(of(less) <= of(more), "{less} {more}");
    }
}

#[test]
fn handshakes_are_measured_by_the_second() {
    let server = builder().start(echo()).unwrap();
    let args = ["--handshake", "--connections", "4", "--duration", "1s"];
    let outcome = bench(server.addresses()[0], &args);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    assert!(outcome.number("/messages") > 20.0, "{}", outcome.said);
    let opened = server.monitor().total().sessions_total as f64;
    assert!(opened >= outcome.number("/messages"), "{opened}");

    let args = ["--handshake", "--rate", "50", "--connections", "20", "--duration", "2s"];
    let outcome = bench(server.addresses()[0], &args);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    assert!((98.0..=102.0).contains(&outcome.number("/sent")), "{}", outcome.said);
}

#[test]
fn idle_connections_are_held_and_a_lost_one_is_an_error() {
    let server = builder().start(echo()).unwrap();
    let address = server.addresses()[0];
    let outcome = bench(address, &["--idle", "--connections", "100", "--duration", "300ms"]);
    assert_eq!((outcome.code, outcome.number("/open_at_end")), (0, 100.0), "{}", outcome.said);

    let other = builder().start(echo()).unwrap();
    let address = other.addresses()[0];
    let run = thread::spawn(move || {
        bench(address, &["--idle", "--connections", "20", "--duration", "4s"])
    });
    common::eventually("they are open", || other.monitor().total().sessions_open == 20);
    thread::sleep(Duration::from_millis(500));
    other.stop();
    let outcome = run.join().unwrap();
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.number("/errors_by_kind/lost_connections"), 20.0, "{}", outcome.said);
}

/// Sends to all others, but misdelivers: what is lost, comes twice.
#[derive(Clone)]
struct Careless {
    lose: bool,
    twice: bool,
    seen: usize,
}

impl Handler for Careless {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            self.seen += 1;
            let odd = self.seen.is_multiple_of(10);
            let times = match odd {
                true if self.lose => 0,
                true if self.twice => 2,
                _ => 1,
            };
            for _ in 0..times {
                context.broadcast(Kind::Binary, message.payload(), Some(message.session()));
            }
        }
    }
}

#[test]
fn fan_out_counts_every_delivery_and_finds_what_is_lost_or_comes_twice() {
    let args = |senders: &'static str| {
        ["--fan-out", "--senders", senders, "--connections", "20", "--rate", "200", "--duration"]
    };
    let run = |lose, twice, senders| {
        let careless = Careless { lose, twice, seen: 0 };
        let server = builder().workers(1).start(careless).unwrap();
        let window = ["1s", "--workers", "2", "--timeout", "1s"];
        bench(server.addresses()[0], &[&args(senders)[..], &window].concat())
    };
    let right = run(false, false, "3");
    assert_eq!(right.code, 0, "{}", right.said);
    assert!((right.number("/sent") - 200.0).abs() <= 2.0, "{}", right.said);
    assert_eq!(right.number("/latency_us/count"), right.number("/sent") * 19.0);

    let lossy = run(true, false, "1");
    assert_eq!(lossy.code, 1);
    // A tenth of some 240 messages (200 ms of them before the window), to 19 receivers each.
    assert!(lossy.number("/errors_by_kind/missing") >= 19.0 * 20.0, "{}", lossy.said);
    assert_eq!(lossy.number("/errors_by_kind/duplicate"), 0.0);

    let doubled = run(false, true, "1");
    assert_eq!(doubled.code, 1);
    assert!(doubled.number("/errors_by_kind/duplicate") >= 19.0 * 20.0, "{}", doubled.said);
    assert_eq!(doubled.number("/errors_by_kind/missing"), 0.0);
}

#[test]
fn a_server_that_swallows_messages_ends_the_run_in_time_with_their_number() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().take(3) {
            kept.push(opened(stream.unwrap()));
        }
        thread::sleep(Duration::from_secs(20));
    });
    let args = ["--connections", "3", "--depth", "4", "--duration", "300ms", "--timeout", "1s"];
    let outcome = bench(address, &args);
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.number("/errors_by_kind/missing"), 12.0, "{}", outcome.said);
}

/// Accepts a handshake by hand, and reads nothing more.
fn opened(mut stream: TcpStream) -> TcpStream {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .unwrap();
    stream
}

#[test]
fn an_interrupt_ends_early_with_what_was_measured() {
    let server = builder().start(echo()).unwrap();
    let url = format!("ws://{}/", server.addresses()[0]);
    let child = Command::new(APPLIANCE)
        .args(["bench", &url, "--json", "--duration", "60s", "--connections", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    common::eventually("it sends", || server.monitor().total().messages_in_total > 100);
    thread::sleep(Duration::from_millis(800));
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["interrupted"], true);
    assert!(json["messages"].as_u64().unwrap() > 0);
    assert!(json["seconds"].as_f64().unwrap() < 30.0);
}

#[test]
fn wrong_options_are_refused_with_code_2() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for args in [
        &["--connections", "0"][..],
        &["--size", "9-1"],
        &["--rate", "-5"],
        &["--rate", "inf"],
        &["--depth", "0"],
        &["--idle", "--rate", "5"],
        &["--fan-out", "--size", "8"],
        &["--fan-out", "--connections", "1"],
        &["--idle", "--handshake"],
        &["--header", "no colon"],
        &["--subprotocol", "a b"],
        &["--duration", "0"],
    ] {
        let outcome = bench(nowhere, args);
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.said);
    }
}
