//! Questions of other threads to the worker that owns a stack: what its connections are doing, and
//! that one of them be traced. Asked for by an operator now and then, answered between two turns, a
//! bounded step a turn, so that no message waits for them. The congestion window alone is dear
//! ([`Stack::congestion_window`]), and read only where a peer is named.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hioload_pipeline::backend::Wake;
use hioload_stack::{ConnId, ConnStats, Link, Stack};

/// Questions that may wait.
const QUESTIONS_MAX: usize = 16;
/// Places of the connection table that one turn looks at.
const LOOK: u32 = 1024;
/// Congestion windows of one answer. The connections beyond have none.
const WINDOWS_MAX: usize = 256;
/// Bytes of rings that one turn has printed for congestion windows, if one connection alone hasn't
/// more: one with rings of 16 KiB, eight with the smallest.
const PRINTED_BYTES: usize = 32 << 10;
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
        seen: Seen,
        to: Answer<Vec<ConnStats>>,
    },
    /// A survey's second half: the congestion windows of those that were seen, from `next` on.
    Windows {
        seen: Seen,
        next: usize,
        to: Answer<Vec<ConnStats>>,
    },
    Trace {
        remote: SocketAddr,
        packets: u32,
        file: Box<dyn Write + Send>,
        to: Answer<io::Result<()>>,
    },
}

type Seen = Vec<(ConnId, ConnStats)>;
type Answer<T> = SyncSender<T>;

impl Probe {
    pub(crate) fn new(desk: Arc<Desk>, bell: Arc<dyn Wake>) -> Probe {
        Probe { desk, bell }
    }

    /// What is known of the open connections, or of those `of` one peer, `max` of them at most. The
    /// congestion window is there where a peer is named, for the first 256; reading one takes the
    /// worker up to 0.4 ms of a turn, 1.7 ms with rings of 64 KiB.
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
        let unfinished = match question {
            Question::Survey { of, max, at, mut seen, to } => {
                let next = stack.survey(at, LOOK, &mut |id, stats| {
                    if seen.len() < max && of.is_none_or(|ip| ip == stats.peer.ip()) {
                        seen.push((id, stats));
                    }
                });
                match next.filter(|_| seen.len() < max) {
                    Some(at) => Some(Question::Survey { of, max, at, seen, to }),
                    None if of.is_some() => Some(Question::Windows { seen, next: 0, to }),
                    None => finish(seen, &to),
                }
            }
            Question::Windows { mut seen, mut next, to } => {
                let end = seen.len().min(WINDOWS_MAX);
                let mut printed = 0;
                while next < end && (printed == 0 || printed + cost(&seen[next]) <= PRINTED_BYTES) {
                    printed += cost(&seen[next]);
                    let (id, stats) = &mut seen[next];
                    stats.congestion_window = stack.congestion_window(*id);
                    next += 1;
                }
                if next < end {
                    Some(Question::Windows { seen, next, to })
                } else {
                    finish(seen, &to)
                }
            }
            Question::Trace { remote, packets, file, to } => {
                // Who asked may have given up: then nobody has the answer.
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

/// Bytes of rings that asking for a congestion window prints.
fn cost((_, stats): &(ConnId, ConnStats)) -> usize {
    2 * stats.ring_bytes
}

/// Gives the answer. Who asked may have given up.
fn finish(seen: Seen, to: &Answer<Vec<ConnStats>>) -> Option<Question> {
    let _ = to.send(seen.into_iter().map(|(_, stats)| stats).collect());
    None
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
            let windows = |seen: &[ConnStats]| -> Vec<_> {
                seen.iter().map(|stats| stats.congestion_window).collect()
            };
            (windows(&of_one), windows(&few))
        });
        while !asks.is_finished() {
            probe.desk.answer(&mut stack);
            thread::yield_now();
        }
        let read = vec![Some(2048); 2];
        assert_eq!(asks.join().expect("no panic"), (read, vec![None; 2]), "where a peer is named");
        assert!(!probe.desk.answer(&mut stack), "nothing is left to do");
    }

    #[test]
    fn a_turn_reads_as_many_congestion_windows_as_it_has_time_for() {
        let probe = probe();
        let (to, answer) = sync_channel(1);
        let mut stack = stack();
        // 1,000 connections with rings of 2 KiB: 256 of them are read, 8 a turn.
        for _ in 0..998 {
            stack.connect(([10, 0, 0, 2], 80).into()).expect("on the link");
        }
        let of = Some([10, 0, 0, 2].into());
        probe.ask(Question::Survey { of, max: 5000, at: 0, seen: Vec::new(), to }).expect("room");
        let turns = (1..1000).find(|_| !probe.desk.answer(&mut stack)).expect("it ends");
        assert_eq!(turns, 1 + WINDOWS_MAX / 8);
        let seen = answer.try_recv().expect("an answer");
        let read = seen.iter().filter(|stats| stats.congestion_window.is_some()).count();
        assert_eq!((seen.len(), read), (1000, WINDOWS_MAX));
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
