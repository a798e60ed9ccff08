//! Counts what the handler does and how long it takes: what the pipeline can't see from outside.

use std::sync::Arc;
use std::time::Instant;

use hioload_ws_proto::handshake::Response;

use crate::batch::Batch;
use crate::context::Context;
use crate::handler::{Closed, Handler, Opening, Verdict};
use crate::id::SessionId;

hioload_core::counters! {
    /// Counters of one worker's handler.
    pub struct HandlerCounters => HandlerSnapshot {
        /// Handshakes that the handler accepted.
        counter handler_accepted_total,
        /// Handshakes that the handler refused.
        counter handler_refused_total,
        /// Handshakes whose verdict the handler deferred.
        counter handler_deferred_total,
        /// Batches handled.
        counter handler_batches_total,
        /// Messages in them.
        counter handler_messages_total,
        /// Time spent in `on_batch`, in nanoseconds.
        counter handler_batch_nanoseconds_total,
        /// Sessions that ended.
        counter handler_closed_total,
    }
}

/// See the module. One instance a worker: its counters have one writer.
#[derive(Debug)]
pub struct Metrics<H> {
    inner: H,
    counters: Arc<HandlerCounters>,
}

impl<H> Metrics<H> {
    /// Wraps `inner` and counts in `counters`, which no other handler writes.
    pub fn new(inner: H, counters: Arc<HandlerCounters>) -> Self {
        Metrics { inner, counters }
    }
}

impl<H: Handler> Handler for Metrics<H> {
    type Session = H::Session;

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) -> Verdict<H::Session> {
        let verdict = self.inner.on_open(opening, context);
        match &verdict {
            Verdict::Accept(_) => self.counters.handler_accepted_total.inc(),
            Verdict::Refuse(_) => self.counters.handler_refused_total.inc(),
            Verdict::Defer(_) => self.counters.handler_deferred_total.inc(),
        }
        verdict
    }

    fn on_start(&mut self, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_start(context);
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.inner.on_connected(session, response, context);
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_ready(session, context);
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, H::Session>) {
        self.counters.handler_batches_total.inc();
        self.counters.handler_messages_total.add(batch.len() as u64);
        let begin = Instant::now();
        self.inner.on_batch(batch);
        let spent = begin.elapsed().as_nanos() as u64;
        self.counters.handler_batch_nanoseconds_total.add(spent);
    }

    fn on_writable(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_writable(session, context);
    }

    fn on_close(
        &mut self,
        session: SessionId,
        state: H::Session,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.counters.handler_closed_total.inc();
        self.inner.on_close(session, state, closed, context);
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_timer(token, context);
    }
}
