//! Sessions that this side opens: connect, ask, check the answer. From then on they are sessions
//! like any other, but that their frames are masked and that the server closes the transport.

use std::net::SocketAddr;

use hioload_core::slab::Key;
use hioload_ws_proto::CloseCode;
use hioload_ws_proto::handshake::{ClientRequest, HandshakeError, HeaderSlots};
use hioload_ws_proto::mask::{MaskKeys, RandomError};

use crate::backend::{ConnId, RxHalf};
use crate::context::Context;
use crate::handler::{ClosedBy, Handler};
use crate::hub::{Hub, Op};
use crate::id::SessionId;
use crate::session::{Assembly, ClientOpening, Coarse, Ending, Phase, Session};
use crate::turn::Turn;

/// Why a connection could not even be begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// The operating system gave no random bytes for masks.
    NoRandom(RandomError),
    /// The worker is draining.
    Draining,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectError::NoRandom(error) => error.fmt(f),
            ConnectError::Draining => f.write_str("the worker is draining"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl<S> Hub<S> {
    /// Begins to open a session.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddr,
        request: ClientRequest,
        state: S,
    ) -> Result<SessionId, ConnectError> {
        if self.draining {
            return Err(ConnectError::Draining);
        }
        if self.keys.is_none() {
            self.keys = Some(MaskKeys::new().map_err(ConnectError::NoRandom)?);
        }
        let key = self.insert(Session::connecting(self.now));
        self.states[key.slot as usize] = Some(state);
        self.counters.sessions_open.add(1);
        let opening = Some(Box::new(ClientOpening::Request(request)));
        self.put_assembly(key, Assembly { client: opening, ..Assembly::new() });
        self.arm(key);
        self.ops.push(Op::Connect(key, to));
        Ok(self.id(key))
    }

    /// The backend has begun to connect, or says that it can't.
    pub(crate) fn connecting(&mut self, key: Key, begun: std::io::Result<ConnId>) {
        match begun {
            Ok(conn) => {
                self.link(conn, crate::session::Index::some(key.slot));
                if let Some(session) = self.sessions.get_mut(key) {
                    session.conn = conn;
                }
            }
            Err(error) => {
                self.counters.connects_failed_total.inc();
                self.announce_end(key, unopened(&format!("can't connect: {error}")));
                self.unborn.push(key);
            }
        }
    }
}

/// A session that never opened.
fn unopened(why: &str) -> Ending {
    Ending::with_reason(CloseCode::ABNORMAL, why, ClosedBy::Transport)
}

impl<'t, Rx: RxHalf<'t>, H: Handler> Turn<'_, 't, Rx, H> {
    /// The transport of a session that we open is there: the request goes out.
    pub(crate) fn established(&mut self, key: Key) {
        let Some(mut assembly) = self.hub.take_assembly(key) else { return };
        let Some(ClientOpening::Request(request)) = assembly.client.as_deref() else { return };
        let Some(Ok(nonce)) = self.hub.keys.as_mut().map(MaskKeys::nonce) else {
            return self.not_opened(key, "no random bytes for the key");
        };
        let mut bytes = std::mem::take(&mut self.hub.scratch);
        bytes.clear();
        let answer = request.start(nonce, &mut bytes);
        let sent = self.hub.raw(key, &bytes, self.tx);
        self.hub.scratch = bytes;
        if !sent {
            return self.not_opened(key, "out of memory");
        }
        assembly.client = Some(Box::new(ClientOpening::Answer(answer)));
        self.hub.put_assembly(key, assembly);
        if let Some(session) = self.hub.sessions.get_mut(key) {
            // The deadline goes on from where the connection began.
            session.phase = Phase::Asking;
        }
    }

    /// Takes bytes of the answer; gives back what lies behind its head once the session is open.
    pub(crate) fn answered(&mut self, key: Key, bytes: &'t mut [u8]) -> Option<&'t mut [u8]> {
        let mut assembly = self.hub.take_assembly(key)?;
        let Some(ClientOpening::Answer(answer)) = assembly.client.as_deref_mut() else {
            return None;
        };
        let limit = self.hub.settings.max_head_bytes;
        let before = assembly.buf.as_ref().map_or(0, |buf| buf.len());
        // The head can't end behind its limit, so more is never looked at.
        let taken = bytes.len().min((limit + 1).saturating_sub(before));
        let Some(mut buf) = self.hub.pool.alloc(before + taken) else {
            self.not_opened(key, "out of memory");
            return None;
        };
        buf.append(assembly.buf.as_ref().map_or(&[], |buf| buf.data()));
        buf.append(&bytes[..taken]);
        let head_len = match answer.feed(buf.data(), limit) {
            Ok(Some(head_len)) => head_len,
            Ok(None) => {
                assembly.buf = Some(buf);
                self.hub.put_assembly(key, assembly);
                return None;
            }
            Err(error) => {
                self.refused(key, &error);
                return None;
            }
        };
        let (head, behind) = buf.data().split_at(head_len);
        let mut slots = HeaderSlots::new();
        match answer.check(head, &mut slots) {
            Ok(response) => {
                // What the handler does in here can end other sessions: it sees their messages before.
                self.dispatch();
                let now = self.hub.now;
                if let Some(session) = self.hub.sessions.get_mut(key) {
                    session.heard = Coarse::of(now);
                }
                self.hub.counters.sessions_total.inc();
                self.hub.enter(key, Phase::Open);
                self.hub.remember(key);
                let id = self.hub.id(key);
                let Turn { handler, hub, tx, .. } = self;
                let mut context = Context { hub, tx: *tx, replying_to: None };
                handler.on_connected(id, &response, &mut context);
                self.settle_owed();
                Some(&mut bytes[head_len.saturating_sub(before)..])
            }
            Err(error) => {
                let error = error.with_body(behind);
                self.refused(key, &error);
                None
            }
        }
    }

    fn refused(&mut self, key: Key, error: &HandshakeError) {
        self.not_opened(key, &error.to_string());
    }

    /// Gives up a session that isn't open yet.
    pub(crate) fn not_opened(&mut self, key: Key, why: &str) {
        self.hub.counters.connects_failed_total.inc();
        self.hub.announce_end(key, unopened(why));
        if let Some(session) = self.hub.sessions.get(key) {
            self.hub.ops.push(Op::Abort(session.conn));
        }
        self.hub.take_assembly(key);
        self.hub.enter(key, Phase::Leaving);
        self.settle_owed();
    }

    /// Forgets the sessions whose transport never came to be.
    pub(crate) fn bury_unborn(&mut self) {
        self.settle_owed();
        while let Some(key) = self.hub.unborn.pop() {
            self.hub.forget(key);
        }
    }
}
