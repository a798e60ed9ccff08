//! Keeps a handler's panic from ending its worker: the session that it concerned is closed with
//! 1011, and the rest of the batch is offered again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hioload_ws_proto::CloseCode;
use hioload_ws_proto::handshake::{Refusal, Response, Status};

use crate::batch::Batch;
use crate::context::Context;
use crate::handler::{Closed, Handler, Opening, Verdict};
use crate::id::SessionId;

/// See the module. The handler itself lives on, in whatever state its panic left it: one that
/// keeps invariants across sessions has to restore them.
#[derive(Clone, Debug)]
pub struct Recover<H>(H);

impl<H> Recover<H> {
    /// Wraps `inner`.
    pub fn new(inner: H) -> Self {
        Recover(inner)
    }
}

/// Closes a session whose handling panicked.
fn blame<S>(session: Option<SessionId>, context: &mut Context<'_, '_, S>) {
    context.hub.counters.handler_panics_total.inc();
    tracing::error!(session = session.map(tracing::field::display), "the handler panicked");
    if let Some(key) = session.and_then(|id| context.hub.by_id(id)) {
        context.hub.fail(key, CloseCode::INTERNAL_ERROR, "internal error", context.tx);
    }
}

impl<H: Handler> Recover<H> {
    /// Calls the handler about one session.
    fn guard<'b, 't>(
        &mut self,
        session: Option<SessionId>,
        context: &mut Context<'b, 't, H::Session>,
        call: impl FnOnce(&mut H, &mut Context<'b, 't, H::Session>),
    ) {
        if catch_unwind(AssertUnwindSafe(|| call(&mut self.0, context))).is_err() {
            blame(session, context);
        }
    }
}

impl<H: Handler> Handler for Recover<H> {
    type Session = H::Session;

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) -> Verdict<H::Session> {
        let asked = catch_unwind(AssertUnwindSafe(|| self.0.on_open(opening, context)));
        asked.unwrap_or_else(|_| {
            context.hub.counters.handler_panics_total.inc();
            tracing::error!(session = %opening.session(), "the handler panicked on a handshake");
            Verdict::Refuse(Refusal::new(Status::INTERNAL_ERROR, "internal error"))
        })
    }

    fn on_start(&mut self, context: &mut Context<'_, '_, H::Session>) {
        self.guard(None, context, |inner, context| inner.on_start(context));
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.guard(Some(session), context, |inner, context| {
            inner.on_connected(session, response, context);
        });
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.guard(Some(session), context, |inner, context| inner.on_ready(session, context));
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, H::Session>) {
        // Each round takes at least one message off the batch, so this ends.
        while catch_unwind(AssertUnwindSafe(|| self.0.on_batch(batch))).is_err() {
            let session = batch.blame();
            blame(session, &mut batch.context);
            if batch.is_empty() {
                break;
            }
        }
    }

    fn on_writable(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.guard(Some(session), context, |inner, context| inner.on_writable(session, context));
    }

    fn on_close(
        &mut self,
        session: SessionId,
        state: H::Session,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.guard(Some(session), context, |inner, context| {
            inner.on_close(session, state, closed, context);
        });
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, H::Session>) {
        self.guard(None, context, |inner, context| inner.on_timer(token, context));
    }
}
