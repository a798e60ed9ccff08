//! Echo on yawc over hyper's upgrade; what a read brought is answered by one write. Buffers of
//! 64 KiB instead of its 8 KiB, towards what its own published benchmark sets: with 8 KiB, large
//! payloads cost it twice as much. An idle connection does not touch them, so they add nothing to
//! its resident memory.

use std::convert::Infallible;
use std::process::ExitCode;

use futures_util::SinkExt as _;
use hioload_peers::{MAX_MESSAGE_BYTES, next_or_flush, tokio_main};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use yawc::{Frame, HttpWebSocket, OpCode, Options, UpgradeFut, WebSocketError};

const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    tokio_main(|stream| async {
        // An error here is a client that went away or spoke no HTTP: its connection is over.
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(open))
            .with_upgrades()
            .await;
    })
}

async fn open(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    // Its limits are exclusive.
    let options = Options::default()
        .without_compression()
        .with_utf8()
        .with_limits(MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES + 1)
        .with_read_buffer_capacity(BUFFER_BYTES)
        .with_backpressure_boundary(BUFFER_BYTES);
    let Ok((response, upgraded)) = HttpWebSocket::upgrade_with_options(&mut request, options)
    else {
        let mut refusal = Response::new(Empty::new());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    tokio::spawn(tokio::task::unconstrained(async {
        // An error is the end of this connection and of nothing else.
        let _ = echo(upgraded).await;
    }));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut ws = upgraded.await?;
    // Pings and the closing handshake are answered by the library while it is read.
    while let Some(frame) = next_or_flush::<_, Frame>(&mut ws).await? {
        if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
            ws.feed(frame).await?;
        }
    }
    Ok(())
}
