//! The user's code: one [`Handler`] a worker, batch first.

use std::net::SocketAddr;

use hioload_ws_proto::CloseCode;
use hioload_ws_proto::handshake::{HeaderError, Refusal, Request, Response, ResponseHead};

use crate::batch::Batch;
use crate::context::Context;
use crate::id::SessionId;

/// The answer to an opening handshake.
#[derive(Debug)]
pub enum Verdict<S> {
    /// 101, and the session begins with this state.
    Accept(S),
    /// An HTTP response that refuses, and the connection ends.
    Refuse(Refusal),
    /// Nothing is sent until [`crate::Remote::accept`] or [`crate::Remote::refuse`] is called with
    /// the session's id, from any thread; what the peer sends meanwhile waits. The handshake's
    /// deadline goes on, and ends in 503.
    Defer(S),
}

/// An opening handshake, being judged.
pub struct Opening<'r> {
    pub(crate) session: SessionId,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) request: &'r Request<'r>,
    pub(crate) response: &'r mut ResponseHead,
}

impl<'r> Opening<'r> {
    /// The id that the session will have. Nothing can be sent to it before `on_ready`.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The peer's address, where the transport knows one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The checked request: method, path, query, all headers.
    pub fn request(&self) -> &'r Request<'r> {
        self.request
    }

    /// Chooses a subprotocol.
    ///
    /// # Errors
    /// When the peer didn't offer it (RFC 6455 §4.2.2).
    pub fn subprotocol(&mut self, name: &str) -> Result<(), HeaderError> {
        self.response.subprotocol(name)
    }

    /// Adds a header to the 101 response.
    ///
    /// # Errors
    /// When it isn't a legal header, or one that the handshake itself sets.
    pub fn header(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        self.response.header(name, value)
    }
}

/// Who ended a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClosedBy {
    /// The peer began the closing handshake.
    Peer,
    /// This side did: the handler, a limit, a violation of the protocol, a deadline, a drain.
    Us,
    /// The transport ended without a closing handshake.
    Transport,
}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed<'a> {
    /// The close code; 1005 where the peer gave none, 1006 where there was no Close at all.
    pub code: CloseCode,
    /// The reason that came with it.
    pub reason: &'a str,
    /// Who began.
    pub by: ClosedBy,
}

/// The user's code. Each worker has an instance of its own, so nothing in it is shared and none of
/// its methods needs a lock; they run on the worker's thread and must not block.
pub trait Handler {
    /// The user's state for each session.
    type Session;

    /// The worker begins. Called once, before anything else.
    fn on_start(&mut self, context: &mut Context<'_, '_, Self::Session>) {
        let _ = context;
    }

    /// An opening handshake arrived and is legal. Sets response headers and the subprotocol.
    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, Self::Session>,
    ) -> Verdict<Self::Session>;

    /// The session is open and can be sent to: after `Accept`, or after a deferred verdict.
    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, Self::Session>) {
        let _ = (session, context);
    }

    /// A session that this side opened ([`Context::connect`]) is open and can be sent to.
    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, Self::Session>,
    ) {
        let _ = response;
        self.on_ready(session, context);
    }

    /// Messages, in order for each session. What isn't taken from the batch is dropped.
    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Self::Session>);

    /// A session whose output waited has none left.
    fn on_writable(&mut self, session: SessionId, context: &mut Context<'_, '_, Self::Session>) {
        let _ = (session, context);
    }

    /// The session ended; called once for each one that was accepted, and for each one that this
    /// side opened or failed to open (then the code is 1006 and the reason says why). Nothing can
    /// be sent to it.
    fn on_close(
        &mut self,
        session: SessionId,
        state: Self::Session,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, Self::Session>,
    ) {
        let _ = (session, state, closed, context);
    }

    /// A timer set by [`Context::set_timer`] is due.
    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, Self::Session>) {
        let _ = (token, context);
    }
}

/// A handler made of one closure that gets one message at a time; every handshake is accepted.
pub struct OnMessage<F>(F);

/// Makes a handler from a closure.
///
/// ```
/// let echo = hioload_pipeline::on_message(|message, context| {
///     let _ = context.echo(message);
/// });
/// ```
pub fn on_message<F>(f: F) -> OnMessage<F>
where
    F: for<'b, 't> FnMut(crate::Message<'t>, &mut Context<'b, 't, ()>),
{
    OnMessage(f)
}

impl<F: Clone> Clone for OnMessage<F> {
    fn clone(&self) -> Self {
        OnMessage(self.0.clone())
    }
}

impl<F> Handler for OnMessage<F>
where
    F: for<'b, 't> FnMut(crate::Message<'t>, &mut Context<'b, 't, ()>),
{
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            (self.0)(message, context);
        }
    }
}
