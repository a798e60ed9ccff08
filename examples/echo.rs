//! Sends each message back to its sender: the least that a server can be.
//!
//!     cargo run --release --example echo -- --listen 127.0.0.1:9001
//!
//! The echo leaves from the memory in which the message arrived; nothing is copied. Any client
//! will do, such as `websocat ws://127.0.0.1:9001`. Ctrl-C closes all sessions in order.

use hioload_ws::{Error, Server, on_message};

fn main() -> Result<(), Error> {
    let listen = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let server = Server::builder()
        .listen(listen.as_deref().unwrap_or("127.0.0.1:9001"))
        .handle_signals(true)
        .start(on_message(|message, context| {
            // A session that can't be sent to is ending: there is nobody left to tell.
            let _ = context.echo(message);
        }))?;
    eprint!("{}", server.report());
    server.join()
}
