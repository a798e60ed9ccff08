//! What the echo servers share, so that they differ in nothing but the library under test: the
//! command line, the listening socket, and for those on tokio the accept loop on one thread.
//!
//! They answer text and binary messages of up to [`MAX_MESSAGE_BYTES`] with themselves, negotiate
//! no extension, and set `TCP_NODELAY`. They are instruments: no limits, no timeouts, no drain.

use std::future::Future;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use futures_util::{FutureExt as _, Sink, SinkExt as _, Stream, StreamExt as _};

/// The largest message that is echoed, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Handshakes that may wait to be accepted; a ramp of thousands must not lose any SYN.
const BACKLOG: i32 = 4096;

/// Runs `serve` on the socket that `--listen` names; its error, if any, goes to stderr.
pub fn main_with(serve: impl FnOnce(TcpListener) -> io::Result<()>) -> ExitCode {
    match address().and_then(|address| listen(address).and_then(serve).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// [`main_with`] for a library on tokio: one thread, one task a connection.
pub fn tokio_main<F, Fut>(connection: F) -> ExitCode
where
    F: Fn(tokio::net::TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    main_with(|listener| {
        tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        stream.set_nodelay(true)?;
                        // Unconstrained, as fastwebsockets' own echo server runs: no library pays
                        // for tokio's budget between tasks.
                        tokio::spawn(tokio::task::unconstrained(connection(stream)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return Err(error),
                }
            }
        })
    })
}

/// The next message of `ws`; what was fed into it is flushed first where none is there yet. So a
/// burst of messages is answered by one write, as far as the library's buffers go.
///
/// # Errors
/// The sink's, where flushing fails.
pub async fn next_or_flush<S, M>(ws: &mut S) -> Result<Option<S::Item>, S::Error>
where
    S: Stream + Sink<M> + Unpin,
{
    if let Some(ready) = ws.next().now_or_never() {
        return Ok(ready);
    }
    ws.flush().await?;
    Ok(ws.next().await)
}

fn address() -> Result<SocketAddr, String> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("--listen"), Some(address), None) => {
            address.parse().map_err(|_| format!("--listen {address}: not IP:PORT"))
        }
        _ => Err("usage: --listen IP:PORT".into()),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))?;
    // std's own backlog is 128; listening once more only raises it.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}
