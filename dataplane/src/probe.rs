//! Questions of other threads to the worker that owns a stack: what its connections are doing, and
//! that one of them be traced. Asked for by an operator now and then, answered between two turns, a
//! bounded step a turn, so that no message waits for them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hioload_pipeline::backend::Wake;
use hioload_stack::{ConnStats, Link, Stack};

/// Questions that may wait.
const QUESTIONS_MAX: usize = 16;
/// Places of the connection table that one turn looks at.
const LOOK: u32 = 1024;
/// How long the worker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the worker of a stack, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Probe {
    desk: Arc<Desk>,
    bell: Arc<dyn Wake>,
}

/// Where questions wait.
#[derive(Default)]
pub(crate) struct Desk {
    /// Whether there are any: all that a turn without questions looks at.
    asked: AtomicBool,
    questions: Mutex<VecDeque<Question>>,
}

enum Question {
    Survey {
        of: Option<IpAddr>,
        max: usize,
        at: u32,
        seen: Vec<ConnStats>,
        to: Answer<Vec<ConnStats>>,
    },
    Trace {
        remote: SocketAddr,
        packets: u32,
        file: Box<dyn Write + Send>,
        to: Answer<io::Result<()>>,
    },
}

type Answer<T> = SyncSender<T>;

impl Probe {
    pub(crate) fn new(desk: Arc<Desk>, bell: Arc<dyn Wake>) -> Probe {
        Probe { desk, bell }
    }

    /// What is known of the open connections, or of those `of` one peer, `max` of them at most.
    ///
    /// # Errors
    /// Too many questions wait, or the worker doesn't answer.
    pub fn connections(&self, of: Option<IpAddr>, max: usize) -> io::Result<Vec<ConnStats>> {
        let (to, answer) = sync_channel(1);
        self.ask(Question::Survey { of, max, at: 0, seen: Vec::new(), to })?;
        wait(&answer)
    }

    /// Has packets to and from `remote` written to `file` in pcapng format, `packets` of them at most;
    /// port 0 is every port of that address. Replaces the trace before.
    ///
    /// # Errors
    /// What writing the file's header says; too many questions wait, or the worker doesn't answer.
    pub fn trace(
        &self,
        remote: SocketAddr,
        packets: u32,
        file: Box<dyn Write + Send>,
    ) -> io::Result<()> {
        let (to, answer) = sync_channel(1);
        self.ask(Question::Trace { remote, packets, file, to })?;
        wait(&answer)?
    }

    fn ask(&self, question: Question) -> io::Result<()> {
        {
            let mut questions = self.desk.lock();
            if questions.len() >= QUESTIONS_MAX {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            questions.push_back(question);
            self.desk.asked.store(true, Ordering::Release);
        }
        self.bell.wake();
        Ok(())
    }
}

fn wait<T>(answer: &Receiver<T>) -> io::Result<T> {
    answer.recv_timeout(PATIENCE).map_err(|_| io::ErrorKind::TimedOut.into())
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a step of the oldest question. True: there is more to do.
    #[inline]
    pub(crate) fn answer<L: Link>(&self, stack: &mut Stack<L>) -> bool {
        self.asked.load(Ordering::Acquire) && self.step(stack)
    }

    #[cold]
    fn step<L: Link>(&self, stack: &mut Stack<L>) -> bool {
        let Some(question) = self.lock().pop_front() else { return false };
        // Who asked may have given up: then nobody has the answer.
        let unfinished = match question {
            Question::Survey { of, max, at, mut seen, to } => {
                let next = stack.survey(at, LOOK, &mut |stats| {
                    if seen.len() < max && of.is_none_or(|ip| ip == stats.peer.ip()) {
                        seen.push(stats);
                    }
                });
                match next.filter(|_| seen.len() < max) {
                    Some(at) => Some(Question::Survey { of, max, at, seen, to }),
                    None => {
                        let _ = to.send(seen);
                        None
                    }
                }
            }
            Question::Trace { remote, packets, file, to } => {
                let _ = to.send(stack.trace(remote, packets, file));
                None
            }
        };
        let mut questions = self.lock();
        questions.extend(unfinished);
        self.asked.store(!questions.is_empty(), Ordering::Release);
        !questions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use hioload_core::Now;
    use hioload_stack::sim::{Faults, SimLink, Wire};
    use hioload_stack::{Address, Offloads, StackConfig};

    use super::*;

    struct Silent;

    impl Wake for Silent {
        fn wake(&self) {}
    }

    /// A stack that has begun to open three connections, to two peers.
    fn stack() -> Stack<SimLink> {
        let wire = Wire::new(1, Faults::default());
        let link = SimLink::new(&wire, 0, 1500, Offloads::default());
        let address = Address { ip: [10, 0, 0, 1].into(), prefix: 24 };
        let config =
            StackConfig { addresses: vec![address], hugepages: false, ..StackConfig::default() };
        let mut stack = Stack::new(link, &config, Now::ZERO).expect("a good config");
        for peer in [2, 2, 3] {
            stack.connect(([10, 0, 0, peer], 80).into()).expect("on the link");
        }
        stack
    }

    fn probe() -> Probe {
        Probe::new(Arc::default(), Arc::new(Silent))
    }

    #[test]
    fn questions_of_another_thread_are_answered_between_two_turns() {
        let (mut stack, probe) = (stack(), probe());
        let asker = probe.clone();
        let asks = thread::spawn(move || {
            let of_one = asker.connections(Some([10, 0, 0, 2].into()), 9).expect("an answer");
            let few = asker.connections(None, 2).expect("an answer");
            let file = Box::new(io::sink());
            asker.trace(([10, 0, 0, 2], 0).into(), 5, file).expect("an answer");
            (of_one.len(), few.len())
        });
        while !asks.is_finished() {
            probe.desk.answer(&mut stack);
            thread::yield_now();
        }
        assert_eq!(asks.join().expect("no panic"), (2, 2));
        assert!(!probe.desk.answer(&mut stack), "nothing is left to do");
    }

    #[test]
    fn more_questions_than_may_wait_are_refused() {
        let probe = probe();
        let (to, _answer) = sync_channel(1);
        let ask = || {
            let seen = Vec::new();
            probe.ask(Question::Survey { of: None, max: 1, at: 0, seen, to: to.clone() })
        };
        for _ in 0..QUESTIONS_MAX {
            ask().expect("there is room");
        }
        assert_eq!(ask().expect_err("there is none").kind(), io::ErrorKind::ResourceBusy);
    }
}
