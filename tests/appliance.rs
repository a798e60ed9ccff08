//! The program as its operator meets it: options and configuration that are wrong, the start-up
//! report, signals, exit codes.

#![cfg(target_os = "linux")]

mod common;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::process::{APPLIANCE, Process};
use common::raw::{BINARY, CLOSE, Raw, TEXT};
use common::{echoes, eventually};
use rustix::process::Signal;

fn run(args: &[&str]) -> Output {
    Command::new(APPLIANCE).args(args).output().expect("it runs")
}

/// Ends with `code` and says each of `parts` on stderr.
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?} said:\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: {part:?} is missing in:\n{stderr}");
    }
}

/// A file that is removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let name = format!("hioload-ws-test-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).and_then(|mut f| f.write_all(text.as_bytes())).unwrap();
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn wrong_options_end_with_2_and_say_what_is_allowed() {
    fails(&["--no-such-option"], 2, &["--no-such-option", "--help"]);
    fails(&["serve", "--backend", "fibre"], 2, &["`fibre`", "built in: auto, epoll"]);
    #[cfg(not(feature = "dpdk"))]
    fails(&["serve", "--backend", "dpdk"], 2, &["not in this build", "--features dpdk"]);
    fails(&["--max-frame", "1MB"], 2, &["1MB", "64KiB"]);
    fails(&["--ping-after", "5"], 2, &["500ms"]);
    fails(&["--app", "chat"], 2, &["chat", "broadcast"]);
    fails(&["--listen", "localhost"], 2, &["`localhost`", "0.0.0.0:9001"]);
    fails(&["--batch", "65"], 2, &["batch", "1 to 64"]);
    fails(&["--dead-after", "10s"], 2, &["dead-after", "ping-after"]);
    fails(&["--max-message", "2GiB"], 2, &["max-message", "allowed"]);
    fails(&["--memory", "1KiB", "--listen", "127.0.0.1:0"], 1, &["1024 bytes is too small"]);
}

#[test]
fn help_and_version_are_no_errors() {
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert_eq!(help.status.code(), Some(0));
    for option in ["--listen", "--workers", "--max-per-ip", "--drain-limit", "check", "[default:"] {
        assert!(text.contains(option), "{option} is missing in:\n{text}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        concat!("hioload-ws ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let good = File::new("good", "workers = 2\napp = \"broadcast\"\nmax-frame = \"64KiB\"\n");
    let output = run(&["check", "--config", good.path()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("valid"));

    let unknown = File::new("unknown", "workers = 2\nthreads = 4\n");
    fails(
        &["check", "--config", unknown.path()],
        2,
        &[unknown.path(), "line 2", "`threads`", "`workers`"],
    );
    let range = File::new("range", "batch = 1000\n");
    fails(&["check", "--config", range.path()], 2, &[range.path(), "batch", "1 to 64"]);
    fails(&["check", "--config", "no-such-file.toml"], 2, &["no-such-file.toml"]);
    fails(&["--config", unknown.path()], 2, &["`threads`"]);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file = File::new("merge", "listen = [\"127.0.0.1:0\"]\nworkers = 2\nbatch = 7\n");
    let mut server = Process::appliance(&["--config", file.path(), "--workers", "1"]);
    let address = server.address();
    server.after("app ");
    assert!(server.said.contains("workers      1,"), "{}", server.said);
    assert!(server.said.contains("batch 7,"), "{}", server.said);
    echoes(address);
}

#[test]
fn the_report_says_how_it_started() {
    let mut server = Process::appliance(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--listen=127.0.0.1:0",
        "--workers=2",
        "--memory=64MiB",
        "--max-connections=4000000000",
    ]);
    let (first, second) = (server.address(), server.address());
    assert_ne!(first, second);
    server.after("app ");
    for part in [
        concat!("hioload-ws ", env!("CARGO_PKG_VERSION")),
        "backend      epoll (auto",
        "workers      2, ",
        "pages",
        "budget 64 MiB",
        "descriptors",
        "frame 1 MiB",
        "warning      max-connections is 4000000000",
    ] {
        assert!(server.said.contains(part), "{part:?} is missing in:\n{}", server.said);
    }
    echoes(first);
    echoes(second);
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    fails(&["--listen", &address], 1, &[&address, "in use", "another port"]);
}

#[test]
fn a_signal_closes_all_sessions_with_1001_and_it_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Process::appliance(&["--listen=127.0.0.1:0", "--workers=2"]);
        let address = server.address();
        server.after("app ");
        let mut clients: Vec<Raw> = (0..20).map(|_| Raw::open(address)).collect();
        let mut half = Raw::connect(address);
        half.send(b"GET / HT");
        // What is on its way when the drain begins is answered before the Close.
        clients[0].send_text("last words");
        assert_eq!(clients[0].text(), "last words");
        server.signal(signal);
        for client in &mut clients {
            let close = client.frame().expect("a Close");
            assert_eq!((close.first, &close.payload[..2]), (CLOSE, &[0x03, 0xE9][..]));
            client.close(1001);
            client.end();
        }
        assert_eq!(half.refusal(), 503);
        assert_eq!(server.wait().code(), Some(0), "{}", server.said);
        assert!(
            server.said.contains("ended: 20 sessions, 1 messages in, 1 out"),
            "{}",
            server.said
        );
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let args = ["--listen=127.0.0.1:0", "--workers=2", "--drain-limit=1h", "--drain-spread=1h"];
    let mut server = Process::appliance(&args);
    let address = server.address();
    server.after("app ");
    // A client that never answers the Close would be waited for.
    let mut client = Raw::open(address);
    server.signal(Signal::TERM);
    assert_eq!(client.frame().expect("a Close").first, CLOSE);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.said);
    assert!(server.said.contains("1 connections cut off"), "{}", server.said);
}

#[test]
fn the_broadcast_app_reaches_all_but_the_sender_on_all_workers() {
    let mut server =
        Process::appliance(&["--listen=127.0.0.1:0", "--workers=2", "--app=broadcast"]);
    let address = server.address();
    server.after("app ");
    let mut clients: Vec<Raw> = (0..16).map(|_| Raw::open(address)).collect();
    clients[3].send_text("to all, ä");
    clients[3].send_frame(BINARY, &[0, 255, 1]);
    for (index, client) in clients.iter_mut().enumerate().filter(|(index, _)| *index != 3) {
        let (text, binary) = (client.frame().unwrap(), client.frame().unwrap());
        assert_eq!((text.first, &text.payload[..]), (TEXT, "to all, ä".as_bytes()), "{index}");
        assert_eq!((binary.first, &binary.payload[..]), (BINARY, &[0, 255, 1][..]), "{index}");
    }
    // Were the sender reached, this would not be the first that it gets.
    clients[0].send_text("another");
    assert_eq!(clients[3].text(), "another");
}

#[test]
fn sessions_are_logged_when_asked_for() {
    let mut server = Process::appliance(&["--listen=127.0.0.1:0", "--workers=1", "--log=info"]);
    let address = server.address();
    server.after("app ");
    let mut client = Raw::open_at(address, "/chat?room=1");
    client.close(1000);
    client.close_code();
    let accepted = server.after("accepted");
    assert!(accepted.contains("/chat") && accepted.contains("127.0.0.1"), "{accepted}");
    assert!(server.after("ended").contains("1000"));
    eventually("it still serves", || {
        echoes(address);
        true
    });
}
