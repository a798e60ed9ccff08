//! Sends each message to everybody but its sender, over all workers, in upper case if it is text.
//!
//!     cargo run --release --example broadcast -- --listen 127.0.0.1:9001
//!
//! It shows the batch: a worker hands over what many sessions sent in one call, and the handler
//! may look at all of it before it takes message by message. A broadcast is encoded once, however
//! many receive it.

use hioload_ws::{Batch, Context, Error, Handler, Kind, Opening, Server, Verdict};

#[derive(Clone)]
struct Shout;

impl Handler for Shout {
    /// What is kept for each session: nothing.
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        for message in batch.iter_mut().filter(|message| message.kind() == Kind::Text) {
            // In place, and only ASCII letters: what was UTF-8 stays UTF-8.
            message.payload_mut().make_ascii_uppercase();
        }
        while let Some((message, context)) = batch.next() {
            let reached =
                context.broadcast(message.kind(), message.payload(), Some(message.session()));
            if reached.missed > 0 {
                eprintln!("{} workers lag behind and missed a message", reached.missed);
            }
        }
    }
}

fn main() -> Result<(), Error> {
    let listen = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let server = Server::builder()
        .listen(listen.as_deref().unwrap_or("127.0.0.1:9001"))
        .handle_signals(true)
        .start(Shout)?;
    eprint!("{}", server.report());
    server.join()
}
