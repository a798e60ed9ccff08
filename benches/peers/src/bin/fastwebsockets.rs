//! Echo on fastwebsockets, as its own echo server does it: hyper's upgrade, fragments collected,
//! one write a message (the library has no way to hold several back).

use std::convert::Infallible;
use std::process::ExitCode;

use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use hioload_peers::{MAX_MESSAGE_BYTES, tokio_main};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

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
    let Ok((response, upgraded)) = upgrade(&mut request) else {
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
    // Its limit is exclusive.
    ws.set_max_message_size(MAX_MESSAGE_BYTES + 1);
    let mut ws = FragmentCollector::new(ws);
    loop {
        let frame = ws.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => ws.write_frame(frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
