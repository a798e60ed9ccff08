//! Programs of this project, run as processes of their own: always ended again, and their stderr
//! read by a thread so that they never wait for us.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::PATIENCE;

pub const APPLIANCE: &str = env!("CARGO_BIN_EXE_hioload-ws");

/// A process that is killed when it goes out of scope.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    /// All that it wrote to stderr so far.
    pub said: String,
}

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let mut child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("its stderr");
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        Process { child, lines, said: String::new() }
    }

    /// The appliance with these arguments.
    pub fn appliance(args: &[&str]) -> Process {
        Process::start(Command::new(APPLIANCE).args(args))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line, if one comes before the program ends or patience does.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.said.push_str(&line);
                self.said.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing more:\n{}", self.said),
        }
    }

    /// The first address that it listens on.
    pub fn address(&mut self) -> SocketAddr {
        let found = self.after("listening on ");
        found.trim().parse().unwrap_or_else(|_| panic!("not an address: {found}"))
    }

    /// What follows `mark` in the next line that has it.
    pub fn after(&mut self, mark: &str) -> String {
        while let Some(line) = self.line() {
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.into();
            }
        }
        panic!("it never said {mark:?}:\n{}", self.said);
    }

    /// Sends a signal to it and to nobody else.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("signalled");
    }

    /// Waits for its end and gives the status; the rest of what it said is in `said`.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child).unwrap_or_else(|| panic!("never ends:\n{}", self.said));
        while self.line().is_some() {}
        status
    }
}

/// Waits for a child's end; `None`: it doesn't end.
pub fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
