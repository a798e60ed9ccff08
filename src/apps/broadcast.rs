//! Each message goes to every session of every worker but to its sender: text as text, binary as
//! binary.

use hioload_ws::{Batch, Context, Handler, Opening, Verdict};

/// See the module.
#[derive(Clone, Debug)]
pub struct Broadcast;

impl Handler for Broadcast {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            // Workers that lag too far behind miss it, which is counted.
            context.broadcast(message.kind(), message.payload(), Some(message.session()));
        }
    }
}
