//! Each message goes back to its sender, from the memory in which it arrived.

use hioload_ws::{Batch, Context, Handler, Opening, Verdict};

/// See the module.
#[derive(Clone, Debug)]
pub struct Echo;

impl Handler for Echo {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            // What can't be sent any more is counted; there's nobody else to tell.
            let _ = context.echo(message);
        }
    }
}
