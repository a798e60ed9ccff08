//! Echo on tokio-tungstenite with its default buffers; what a read brought is answered by one
//! write.

use std::process::ExitCode;

use futures_util::SinkExt as _;
use hioload_peers::{MAX_MESSAGE_BYTES, next_or_flush, tokio_main};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

fn main() -> ExitCode {
    tokio_main(|stream| async {
        // An error is the end of this connection and of nothing else.
        let _ = echo(stream).await;
    })
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let mut ws = accept_async_with_config(stream, Some(config)).await?;
    // Pings and the closing handshake are answered by the library while it is read.
    while let Some(message) = next_or_flush::<_, Message>(&mut ws).await? {
        let message = message?;
        if message.is_text() || message.is_binary() {
            ws.feed(message).await?;
        }
    }
    Ok(())
}
