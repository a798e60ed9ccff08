//! Says what sessions do, through `tracing`: opened and ended at info, batches at trace.

use hioload_ws_proto::handshake::Response;

use crate::batch::Batch;
use crate::context::Context;
use crate::handler::{Closed, Handler, Opening, Verdict};
use crate::id::SessionId;

/// See the module.
#[derive(Clone, Debug)]
pub struct Logging<H>(H);

impl<H> Logging<H> {
    /// Wraps `inner`.
    pub fn new(inner: H) -> Self {
        Logging(inner)
    }
}

impl<H: Handler> Handler for Logging<H> {
    type Session = H::Session;

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) -> Verdict<H::Session> {
        let verdict = self.0.on_open(opening, context);
        let answer = match &verdict {
            Verdict::Accept(_) => "accepted",
            Verdict::Refuse(_) => "refused",
            Verdict::Defer(_) => "deferred",
        };
        let peer = opening.peer().map(tracing::field::display);
        // The peer writes the path: Debug escapes what it put there.
        let path = opening.request().path();
        tracing::info!(session = %opening.session(), peer, ?path, "{answer}");
        verdict
    }

    fn on_start(&mut self, context: &mut Context<'_, '_, H::Session>) {
        self.0.on_start(context);
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.0.on_connected(session, response, context);
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.0.on_ready(session, context);
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, H::Session>) {
        tracing::trace!(messages = batch.len(), "batch");
        self.0.on_batch(batch);
    }

    fn on_writable(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.0.on_writable(session, context);
    }

    fn on_close(
        &mut self,
        session: SessionId,
        state: H::Session,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        let (code, reason, by) = (closed.code.get(), closed.reason, closed.by);
        tracing::info!(%session, code, ?reason, ?by, "ended");
        self.0.on_close(session, state, closed, context);
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, H::Session>) {
        self.0.on_timer(token, context);
    }
}
