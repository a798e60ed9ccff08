//! The examples do what their first lines say.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use common::process::Process;
use common::raw::{Raw, request};
use common::{PATIENCE, echoes};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Examples are built beside the tests, where tests are built.
fn example(name: &str) -> Process {
    let mut path: PathBuf = std::env::current_exe().expect("our own path");
    path.pop();
    path.set_file_name("examples");
    path.push(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples`", path.display());
    Process::start(Command::new(path).args(["--listen", "127.0.0.1:0"]))
}

fn ends_in_order(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.said);
}

/// Opens a session with more header lines; gives the response's head too.
fn open_with(address: SocketAddr, path: &str, more: &str) -> (Raw, String) {
    let mut client = Raw::connect(address);
    client.send(&request(path, more));
    let head = client.head().expect("a response");
    (client, head)
}

fn json_of(client: &mut Raw) -> Value {
    serde_json::from_str(&client.text()).expect("JSON")
}

#[test]
fn echo_echoes() {
    let mut process = example("echo");
    echoes(process.address());
    ends_in_order(process);
}

#[test]
fn broadcast_shouts_to_the_others() {
    let mut process = example("broadcast");
    let address = process.address();
    let (mut one, mut two) = (Raw::open(address), Raw::open(address));
    one.send_text("hello");
    assert_eq!(two.text(), "HELLO");
    two.send_text("yes?");
    assert_eq!(one.text(), "YES?");
    drop((one, two));
    ends_in_order(process);
}

#[test]
fn json_requests_are_routed_by_path() {
    let mut process = example("json_paths");
    let address = process.address();
    let mut add = Raw::open_at(address, "/add");
    add.send_text(r#"{"id": 1, "values": [1, 2.5]}"#);
    assert_eq!(json_of(&mut add), json!({"id": 1, "result": 3.5}));
    add.send_text(r#"{"id": 2, "values": ["a"]}"#);
    assert_eq!(json_of(&mut add)["id"], 2);
    add.send_text("nonsense");
    assert!(json_of(&mut add)["error"].as_str().is_some_and(|e| e.contains("not JSON")));
    let mut words = Raw::open_at(address, "/words?x=y");
    words.send_text(r#"{"id": "w", "text": "one two"}"#);
    assert_eq!(json_of(&mut words), json!({"id": "w", "result": 2}));
    let mut nowhere = Raw::connect(address);
    nowhere.send(&request("/nowhere", ""));
    assert_eq!(nowhere.refusal(), 404);
    drop((add, words));
    ends_in_order(process);
}

#[test]
fn a_deferred_handshake_is_accepted_or_refused_by_its_token() {
    let mut process = example("deferred_auth");
    let address = process.address();
    let (mut good, head) = open_with(address, "/?token=open-sesame", "");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    good.send_text("let in");
    assert_eq!(good.text(), "let in");
    let (_, head) = open_with(address, "/", "Authorization: Bearer open-sesame\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for path in ["/?token=guess", "/"] {
        let (_, head) = open_with(address, path, "");
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        assert!(head.contains("WWW-Authenticate: Bearer"), "{head}");
    }
    drop(good);
    ends_in_order(process);
}

#[test]
fn the_chat_has_a_room_and_a_page() {
    let mut process = example("chat");
    let address = process.address();
    let page = process.after("open         http://");

    let offer = "Sec-WebSocket-Protocol: other, chat.v1\r\n";
    let (mut ada, head) = open_with(address, "/", offer);
    assert!(head.contains("Sec-WebSocket-Protocol: chat.v1\r\n"), "{head}");
    let guest = json_of(&mut ada);
    assert_eq!(guest["type"], "welcome");
    assert_eq!(json_of(&mut ada), json!({"type": "join", "name": guest["name"], "online": 1}));
    ada.send_text(r#"{"type": "name", "name": " Ada "}"#);
    let renamed = json!({"type": "rename", "from": guest["name"], "name": "Ada"});
    assert_eq!(json_of(&mut ada), renamed);

    let mut bob = Raw::open(address);
    let bobs = json_of(&mut bob)["name"].clone();
    let joined = json!({"type": "join", "name": bobs, "online": 2});
    assert_eq!((json_of(&mut bob), json_of(&mut ada)), (joined.clone(), joined));
    ada.send_text(r#"{"type": "say", "text": "Hello"}"#);
    let said = json!({"type": "say", "name": "Ada", "text": "Hello"});
    assert_eq!((json_of(&mut bob), json_of(&mut ada)), (said.clone(), said));
    bob.send_text("what?");
    assert_eq!(json_of(&mut bob)["type"], "error");
    drop(ada);
    assert_eq!(json_of(&mut bob), json!({"type": "leave", "name": "Ada", "online": 1}));

    let page: SocketAddr = page.trim_end_matches('/').parse().expect("the page's address");
    let mut browser = TcpStream::connect(page).expect("the page");
    browser.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    browser.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    let mut html = String::new();
    browser.read_to_string(&mut html).expect("a page");
    assert!(html.starts_with("HTTP/1.1 200 OK") && html.ends_with("</html>\n"), "{html}");
    assert!(html.contains(&format!(":{}/", address.port())), "it knows the port of the chat");
    drop(bob);
    ends_in_order(process);
}
