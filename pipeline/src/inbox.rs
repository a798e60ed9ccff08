//! How other threads reach a worker: a bounded ring of commands a worker, and the [`Remote`] that
//! fills it and wakes who sleeps.

use std::sync::{Arc, OnceLock};

use hioload_core::frame::Frame;
use hioload_core::ring::mpsc;
use hioload_core::wake::SleepFlag;
use hioload_ws_proto::CloseCode;
use hioload_ws_proto::encode;
use hioload_ws_proto::handshake::Refusal;

use crate::backend::Wake;
use crate::id::SessionId;
use crate::message::Kind;

/// What a worker is asked to do.
pub(crate) enum Command {
    /// An encoded message (unmasked, as servers send) for one session.
    Send { session: SessionId, frame: Frame },
    /// An encoded message for all sessions of the worker but one.
    Broadcast { frame: Frame, except: Option<SessionId> },
    /// Begin the closing handshake.
    Close { session: SessionId, code: CloseCode, reason: Box<str> },
    /// The verdict on a deferred handshake.
    Accept { session: SessionId },
    /// The verdict on a deferred handshake.
    Refuse { session: SessionId, refusal: Box<Refusal> },
    /// Close every session in order, then end.
    Drain,
    /// End now.
    Stop,
}

/// Why a [`Remote`] could not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteError {
    /// The worker's inbox is full: it lags behind. Try again later, or drop it.
    Full,
    /// The worker has ended.
    Gone,
}

impl std::fmt::Display for RemoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RemoteError::Full => "the worker's inbox is full",
            RemoteError::Gone => "the worker has ended",
        })
    }
}

impl std::error::Error for RemoteError {}

/// One worker's address.
struct Door {
    sender: mpsc::Sender<Command>,
    sleep: Arc<SleepFlag>,
    /// Set once the worker's backend exists; commands pushed before are found at its first turn.
    waker: OnceLock<Arc<dyn Wake>>,
}

/// The worker's end of its inbox.
pub struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) sleep: Arc<SleepFlag>,
    pub(crate) worker: u16,
    pub(crate) remote: Remote,
}

impl Inbox {
    /// Which worker this inbox is for.
    pub fn worker(&self) -> usize {
        usize::from(self.worker)
    }

    /// The remote over all the workers of the group.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn set_waker(&self, waker: Arc<dyn Wake>) {
        // A second worker on one inbox can't be: `Inbox` isn't Clone and a worker consumes it.
        let _ = self.remote.doors[self.worker()].waker.set(waker);
    }
}

/// Reaches the sessions of all workers from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    doors: Arc<[Door]>,
}

/// Makes the inboxes of `workers` workers, with `slots` commands each.
///
/// # Panics
/// When there are more than 65,536 workers.
pub fn inboxes(workers: usize, slots: usize) -> (Remote, Vec<Inbox>) {
    assert!(workers <= 1 << 16, "a session's id has 16 bits for its worker");
    let mut ends = Vec::with_capacity(workers);
    let doors = (0..workers)
        .map(|_| {
            let (sender, commands) = mpsc::channel(slots);
            let sleep = Arc::new(SleepFlag::new());
            ends.push((commands, sleep.clone()));
            Door { sender, sleep, waker: OnceLock::new() }
        })
        .collect();
    let remote = Remote { doors };
    let inboxes = ends
        .into_iter()
        .enumerate()
        .map(|(worker, (commands, sleep))| Inbox {
            commands,
            sleep,
            worker: worker as u16,
            remote: remote.clone(),
        })
        .collect();
    (remote, inboxes)
}

/// What became of a broadcast at the other workers' inboxes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// Workers that will deliver it.
    pub workers: usize,
    /// Workers that lost it because their inbox was full, or that have ended.
    pub missed: usize,
}

impl Remote {
    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.doors.len()
    }

    /// Sends a message to a session. It is encoded here; what the session's own limit does with
    /// it is counted at its worker. A message for a session that has ended is dropped.
    ///
    /// # Errors
    /// The worker lags behind, or has ended.
    pub fn send(&self, session: SessionId, kind: Kind, payload: &[u8]) -> Result<(), RemoteError> {
        let frame = encode_frame(kind, payload);
        self.push(session.worker(), Command::Send { session, frame })
    }

    /// Sends a message to every open session of every worker, but for `except`. It is encoded
    /// once; one reference a worker crosses.
    pub fn broadcast(&self, kind: Kind, payload: &[u8], except: Option<SessionId>) -> Reached {
        self.broadcast_frame(&encode_frame(kind, payload), except, None)
    }

    /// Begins the closing handshake of a session.
    ///
    /// # Errors
    /// The worker lags behind, or has ended.
    pub fn close(
        &self,
        session: SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), RemoteError> {
        self.push(session.worker(), Command::Close { session, code, reason: reason.into() })
    }

    /// Accepts a deferred handshake. Nothing happens where it has ended meanwhile.
    ///
    /// # Errors
    /// The worker lags behind (the handshake still waits), or has ended.
    pub fn accept(&self, session: SessionId) -> Result<(), RemoteError> {
        self.push(session.worker(), Command::Accept { session })
    }

    /// Refuses a deferred handshake with an HTTP response.
    ///
    /// # Errors
    /// The worker lags behind (the handshake still waits), or has ended.
    pub fn refuse(&self, session: SessionId, refusal: Refusal) -> Result<(), RemoteError> {
        let refusal = Box::new(refusal);
        self.push(session.worker(), Command::Refuse { session, refusal })
    }

    /// Asks every worker to close its sessions in order (1001) and then to end.
    pub fn drain(&self) {
        self.insist(|| Command::Drain);
    }

    /// Asks every worker to end now.
    pub fn stop(&self) {
        self.insist(|| Command::Stop);
    }

    /// Gives a command to every worker, waiting for room: a full inbox is being emptied, so the
    /// wait is short. Not for workers themselves.
    fn insist(&self, command: impl Fn() -> Command) {
        for worker in 0..self.doors.len() {
            while self.push(worker, command()) == Err(RemoteError::Full) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    pub(crate) fn push(&self, worker: usize, command: Command) -> Result<(), RemoteError> {
        let door = self.doors.get(worker).ok_or(RemoteError::Gone)?;
        door.sender.try_send(command).map_err(|e| match e {
            mpsc::TrySendError::Full(_) => RemoteError::Full,
            mpsc::TrySendError::Closed(_) => RemoteError::Gone,
        })?;
        if door.sleep.needs_wake()
            && let Some(waker) = door.waker.get()
        {
            waker.wake();
        }
        Ok(())
    }

    /// Gives an encoded message to all workers but `skip`.
    pub(crate) fn broadcast_frame(
        &self,
        frame: &Frame,
        except: Option<SessionId>,
        skip: Option<usize>,
    ) -> Reached {
        let mut reached = Reached::default();
        for worker in (0..self.doors.len()).filter(|w| Some(*w) != skip) {
            match self.push(worker, Command::Broadcast { frame: frame.clone(), except }) {
                Ok(()) => reached.workers += 1,
                Err(_) => reached.missed += 1,
            }
        }
        reached
    }
}

/// Encodes a message as one unmasked frame.
pub(crate) fn encode_frame(kind: Kind, payload: &[u8]) -> Frame {
    let mut bytes = vec![0; encode::header_len(payload.len() as u64, false) + payload.len()];
    let head = bytes.len() - payload.len();
    bytes[head..].copy_from_slice(payload);
    encode::write_header_before(&mut bytes, head, true, false, kind.opcode(), None);
    Frame::from_slice(&bytes)
}
