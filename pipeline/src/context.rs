//! What a handler can do: send, publish, close, set timers, reach its sessions' state.

use std::net::SocketAddr;
use std::time::Duration;

use hioload_core::clock::Now;
use hioload_core::local::LocalFrame;
use hioload_core::slab::Key;
use hioload_ws_proto::CloseCode;
use hioload_ws_proto::handshake::ClientRequest;

use crate::client::ConnectError;
use crate::counters::WorkerCounters;
use crate::hub::{Hub, Timer};
use crate::id::SessionId;
use crate::inbox::{Command, Reached, Remote};
use crate::message::{Kind, Message};
use crate::output::{Cause, SendError, Tx};
use crate::window::Out;

/// A message encoded once, to be sent to many sessions of this worker.
#[derive(Clone)]
pub struct Encoded {
    frame: LocalFrame,
    payload_len: usize,
}

/// Names a timer of the handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId(pub(crate) Key);

/// The worker, as its handler sees it.
pub struct Context<'b, 't, S> {
    pub(crate) hub: &'b mut Hub<S>,
    pub(crate) tx: &'b mut Tx<'t>,
    /// Whose message is being handled.
    pub(crate) replying_to: Option<SessionId>,
}

impl<'t, S> Context<'_, 't, S> {
    /// Sends a message back as it is, from the memory in which it lies: no copy.
    ///
    /// # Errors
    /// When the session can't be sent to; the message is dropped.
    #[inline]
    pub fn echo(&mut self, message: Message<'t>) -> Result<(), SendError> {
        let (session, len) = (message.session(), message.len());
        let out = message.into_unmasked_frame();
        self.hub.deliver(session.key(), out, len, Cause::Reply, self.tx)
    }

    /// Sends text to a session of any worker.
    ///
    /// # Errors
    /// When the session can't be sent to. Where another worker has the session, only that
    /// worker's full inbox shows here.
    pub fn send_text(&mut self, session: SessionId, text: &str) -> Result<(), SendError> {
        self.send(session, Kind::Text, text.as_bytes())
    }

    /// Sends bytes to a session of any worker.
    ///
    /// # Errors
    /// As for [`Context::send_text`].
    pub fn send_binary(&mut self, session: SessionId, bytes: &[u8]) -> Result<(), SendError> {
        self.send(session, Kind::Binary, bytes)
    }

    /// Sends a message to a session of any worker. A text payload must be UTF-8.
    ///
    /// # Errors
    /// As for [`Context::send_text`].
    pub fn send(
        &mut self,
        session: SessionId,
        kind: Kind,
        payload: &[u8],
    ) -> Result<(), SendError> {
        if session.worker() != usize::from(self.hub.worker) {
            return Ok(self.hub.remote.send(session, kind, payload)?);
        }
        self.build(session, kind, payload.len(), |room| room.copy_from_slice(payload))
    }

    /// Sends a message of `len` bytes that `fill` writes where it will leave from. `fill` gets
    /// exactly `len` bytes of unspecified content and writes them all.
    ///
    /// # Errors
    /// As for [`Context::send_text`]; the session must be one of this worker.
    pub fn build(
        &mut self,
        session: SessionId,
        kind: Kind,
        len: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), SendError> {
        let key = self.hub.by_id(session).ok_or(SendError::Closed)?;
        self.hub.build(key, kind, len, &mut fill, self.cause(session), self.tx)
    }

    /// Encodes a message for [`Context::send_encoded`].
    pub fn encode(&mut self, kind: Kind, payload: &[u8]) -> Encoded {
        let frame = self.hub.encode(kind, payload);
        Encoded { frame: self.hub.frames.adopt(frame), payload_len: payload.len() }
    }

    /// Sends an encoded message to a session of this worker; only a reference is taken.
    ///
    /// # Errors
    /// As for [`Context::send_text`]; the session must be one of this worker.
    pub fn send_encoded(&mut self, session: SessionId, message: &Encoded) -> Result<(), SendError> {
        let key = self.hub.by_id(session).ok_or(SendError::Closed)?;
        let out = Out::Shared(message.frame.clone());
        let cause = self.cause(session);
        self.hub.deliver(key, out, message.payload_len, cause, self.tx)
    }

    /// Sends a message to every open session of every worker, but for `except`. It is encoded
    /// once, and delivered after the handler returns.
    pub fn broadcast(&mut self, kind: Kind, payload: &[u8], except: Option<SessionId>) -> Reached {
        self.hub.broadcast(kind, payload, except)
    }

    /// Begins the closing handshake of a session of any worker.
    ///
    /// # Errors
    /// When the session isn't open, or its worker's inbox is full.
    pub fn close(
        &mut self,
        session: SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), SendError> {
        if session.worker() != usize::from(self.hub.worker) {
            let reason = reason.into();
            let command = Command::Close { session, code, reason };
            return Ok(self.hub.remote.push(session.worker(), command)?);
        }
        let key = self.hub.by_id(session).ok_or(SendError::Closed)?;
        self.hub.begin_close(key, code, reason, self.tx)
    }

    /// Opens a session to a server: `on_connected` follows, or `on_close` with the reason why it
    /// could not be opened. `state` is the handler's state for it.
    ///
    /// # Errors
    /// When it can't even be begun.
    pub fn connect(
        &mut self,
        to: SocketAddr,
        request: ClientRequest,
        state: S,
    ) -> Result<SessionId, ConnectError> {
        self.hub.connect(to, request, state)
    }

    /// The handler's state of a session of this worker.
    pub fn state(&mut self, session: SessionId) -> Option<&mut S> {
        let key = self.hub.by_id(session)?;
        self.hub.states[key.slot as usize].as_mut()
    }

    /// Bytes that wait for a session of this worker, in its queue and in the transport's hands.
    pub fn unsent(&self, session: SessionId) -> usize {
        let Some(key) = self.hub.by_id(session) else { return 0 };
        let Some(record) = self.hub.sessions.get(key) else { return 0 };
        self.hub.waiting(key) + self.tx.unsent(record.conn)
    }

    /// Calls `on_timer` with `token` once, not before `after` has passed.
    pub fn set_timer(&mut self, after: Duration, token: u64) -> TimerId {
        let hub = &mut *self.hub;
        let key = hub.handler_timers.insert((token, None));
        let at = hub.now.after(after);
        let timer = hub.wheel.insert(at, Timer::Handler(key.slot).token());
        if let Some(entry) = hub.handler_timers.get_mut(key) {
            entry.1 = Some(timer);
        }
        TimerId(key)
    }

    /// Takes a timer back: true when `on_timer` will not be called for it any more, false when it
    /// was.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let Some((_, key)) = self.hub.handler_timers.remove(timer.0) else { return false };
        // Without a key it is due in this very turn, but not told yet.
        if let Some(key) = key {
            self.hub.wheel.cancel(key);
        }
        true
    }

    /// The time of this turn.
    pub fn now(&self) -> Now {
        self.hub.now
    }

    /// Index of this worker.
    pub fn worker(&self) -> usize {
        usize::from(self.hub.worker)
    }

    /// Reaches all sessions from any thread.
    pub fn remote(&self) -> &Remote {
        &self.hub.remote
    }

    /// The worker's counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.hub.counters
    }

    fn cause(&self, session: SessionId) -> Cause {
        match self.replying_to == Some(session) {
            true => Cause::Reply,
            false => Cause::Unasked,
        }
    }
}
