//! Many at once, and too many: half-made handshakes by the thousand, descriptors that run out and
//! come back, connection limits, clients killed in the middle of their work.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::process::{APPLIANCE, Process};
use common::raw::{Raw, request};
use common::{TestServer, builder, descriptors_of, echo, echoes, eventually};

/// The soft limit of this process, once raised to the hard one.
fn descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

#[test]
fn five_thousand_half_made_handshakes_are_held_and_given_up() {
    // Both ends are in this process: two descriptors each.
    let crowd = 5_000.min(descriptor_limit().saturating_sub(200) / 2);
    let server = TestServer::start(builder().handshake_timeout(Duration::from_secs(10)), echo());
    let whole = request("/", "");
    let clients: Vec<Raw> = (0..crowd)
        .map(|index| {
            let mut client = Raw::connect(server.address());
            // Each stops at another place.
            client.send(&whole[..1 + index % (whole.len() - 1)]);
            client
        })
        .collect();
    let total = || server.monitor().total();
    eventually("all of them are held", || total().connections_open == crowd as u64);
    echoes(server.address());
    // Half of them leave, half of them are given up.
    let mut leaving = clients;
    let staying = leaving.split_off(crowd / 2);
    drop(leaving);
    echoes(server.address());
    eventually("all are gone", || total().connections_open == 0);
    assert!(total().handshakes_timed_out_total >= staying.len() as u64);
    drop(staying);
    server.serves_and_leaks_nothing();
}

#[test]
fn connections_beyond_a_limit_are_refused_with_503() {
    let server = TestServer::start(builder().max_per_address(3).max_connections(100), echo());
    let held: Vec<Raw> = (0..3).map(|_| Raw::open(server.address())).collect();
    for _ in 0..5 {
        let mut refused = Raw::connect(server.address());
        assert_eq!(refused.refusal(), 503);
    }
    assert_eq!(server.monitor().total().refused_by_limit_total, 5);
    drop(held);
    eventually("there is room again", || server.monitor().connections() == 0);
    server.serves_and_leaks_nothing();
}

#[test]
fn descriptors_that_run_out_and_are_freed_are_survived() {
    const LIMIT: usize = 64;
    const CLIENTS: usize = 100;
    // The shell lowers the limit for the server alone.
    let script = format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"");
    let mut server = Process::start(Command::new("sh").args([
        "-c",
        &script,
        APPLIANCE,
        "--listen",
        "127.0.0.1:0",
        "--workers=1",
    ]));
    let address = server.address();
    server.after("app ");
    let id = server.id().to_string();
    echoes(address);
    eventually("the first clients are gone", || descriptors_of(&id) < 20);
    let idle = descriptors_of(&id);

    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = Raw::connect(address);
            client.send(&request("/", ""));
            client.stream
        })
        .collect();
    eventually("descriptors have run out", || descriptors_of(&id) >= LIMIT - 8);
    // Those that got in are served.
    let mut first = Raw::adopt(clients.remove(0));
    assert!(first.head().unwrap().starts_with("HTTP/1.1 101"));
    first.send_text("in time");
    assert_eq!(first.text(), "in time");
    // The worker waits; trying again and again would use a whole core.
    let before = cpu_time(&id);
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_time(&id) - before;
    assert!(spent < Duration::from_secs(1), "{spent:?} of CPU in 2 s without descriptors");

    // As the first leave, those that wait get in, up to the last.
    let last = clients.split_off(CLIENTS - 6);
    drop(first);
    drop(clients);
    for client in last {
        let mut client = Raw::adopt(client);
        assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
        client.send_text("late");
        assert_eq!(client.text(), "late");
    }
    echoes(address);
    eventually("all descriptors are back", || descriptors_of(&id) == idle);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.said);
}

/// CPU time that a process used, user and system.
fn cpu_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("its statistics");
    // Behind the name, which ends in `)`: state is the first field, utime the 12th, stime the 13th.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    // Linux counts in 1/100 s here, whatever its own tick is.
    Duration::from_millis(ticks * 10)
}

/// Where a test process of this file is to be a client: the server's address.
const CLIENT_OF: &str = "HIOLOAD_TEST_CLIENT_OF";
const SESSIONS_EACH: usize = 8;

/// Not a test of its own: the body of the client processes below.
#[test]
fn client_process() {
    let Ok(address) = std::env::var(CLIENT_OF) else { return };
    let address: SocketAddr = address.parse().unwrap();
    let mut sessions: Vec<Raw> = (0..SESSIONS_EACH).map(|_| Raw::open(address)).collect();
    println!("ready");
    // Each line asks for a round trip; the end of the input for the end.
    for _ in std::io::stdin().lines() {
        for session in &mut sessions {
            session.send_text("alive");
            assert_eq!(session.text(), "alive");
        }
        println!("ready");
    }
}

struct Client {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(address: SocketAddr) -> Client {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "client_process", "--nocapture", "--test-threads=1"])
            .env(CLIENT_OF, address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a client process");
        let (ask, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut client = Client { child, ask, answers: BufReader::new(answers) };
        client.await_ready();
        client
    }

    /// The test harness writes lines of its own around.
    fn await_ready(&mut self) {
        let mut line = String::new();
        while !line.trim_end().ends_with("ready") {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the client failed");
        }
    }

    fn round_trip(&mut self) {
        self.ask.write_all(b"go\n").unwrap();
        self.await_ready();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SIGKILL: no client is asked to say goodbye.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn killing_half_of_the_clients_leaves_the_other_half_served() {
    let server = TestServer::start(builder(), echo());
    let mut doomed: Vec<Client> = (0..3).map(|_| Client::start(server.address())).collect();
    let mut living: Vec<Client> = (0..3).map(|_| Client::start(server.address())).collect();
    let open = || server.monitor().total().sessions_open;
    assert_eq!(open(), 6 * SESSIONS_EACH as u64);
    for client in doomed.iter_mut().chain(&mut living) {
        client.round_trip();
    }
    let abnormal = server.monitor().total().abnormal_closed_total;
    drop(doomed);
    eventually("the sessions of the dead are gone", || open() == 3 * SESSIONS_EACH as u64);
    let lost = server.monitor().total().abnormal_closed_total - abnormal;
    assert_eq!(lost, 3 * SESSIONS_EACH as u64);
    for client in &mut living {
        client.round_trip();
    }
    drop(living);
    server.serves_and_leaks_nothing();
}
