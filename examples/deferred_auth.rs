//! Authorisation that takes its time: the worker doesn't wait for it. The handshake is deferred,
//! threads outside of the workers check the token, and their verdict comes back through `Remote`.
//!
//!     cargo run --release --example deferred_auth -- --listen 127.0.0.1:9001
//!
//!     ws://127.0.0.1:9001/?token=open-sesame    is accepted, and echoes
//!     ws://127.0.0.1:9001/?token=anything-else  is refused with 401
//!
//! Also as `Authorization: Bearer TOKEN`, which browsers can't send with a WebSocket.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hioload_ws::{
    Batch, Context, Error, Handler, Opening, Refusal, Remote, RemoteError, Request, Server,
    SessionId, Status, Verdict,
};

/// Threads that check tokens.
const CHECKERS: usize = 4;
/// Checks that may wait; more handshakes are refused with 503.
const QUEUE: usize = 1_024;

/// A token to be checked, and whose it is.
struct Check {
    session: SessionId,
    token: String,
    remote: Remote,
}

#[derive(Clone)]
struct Guarded {
    checks: SyncSender<Check>,
}

impl Handler for Guarded {
    type Session = ();

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, ()>,
    ) -> Verdict<()> {
        let Some(token) = token(opening.request()) else {
            return Verdict::Refuse(unauthorized("a token is needed"));
        };
        let session = opening.session();
        let check = Check { session, token: token.into(), remote: context.remote().clone() };
        match self.checks.try_send(check) {
            Ok(()) => Verdict::Defer(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Verdict::Refuse(Refusal::new(Status::UNAVAILABLE, "too many wait to be checked"))
            }
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            // A session that can't be sent to is ending: there is nobody left to tell.
            let _ = context.echo(message);
        }
    }
}

fn token<'r>(request: &Request<'r>) -> Option<&'r str> {
    let header = request.header("authorization").and_then(|value| str::from_utf8(value).ok());
    let bearer = header.and_then(|value| value.strip_prefix("Bearer "));
    let query = request.query().unwrap_or_default();
    bearer.or_else(|| query.split('&').find_map(|pair| pair.strip_prefix("token=")))
}

fn unauthorized(reason: &'static str) -> Refusal {
    let mut refusal = Refusal::new(Status::UNAUTHORIZED, reason);
    // A legal header by its looks.
    let _ = refusal.header("WWW-Authenticate", "Bearer");
    refusal
}

/// What stands for a call to another service here.
fn is_valid(token: &str) -> bool {
    std::thread::sleep(Duration::from_millis(50));
    token == "open-sesame"
}

/// Checks tokens until the server has ended.
fn check_tokens(checks: &Mutex<Receiver<Check>>) {
    loop {
        let next = checks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Check { session, token, remote }) = next else { return };
        let valid = is_valid(&token);
        let tell = || match valid {
            true => remote.accept(session),
            false => remote.refuse(session, unauthorized("the token isn't valid")),
        };
        // A worker that lags behind frees its inbox again; the handshake's deadline is the bound.
        for _ in 0..100 {
            match tell() {
                Err(RemoteError::Full) => std::thread::sleep(Duration::from_millis(10)),
                Ok(()) | Err(RemoteError::Gone) => break,
            }
        }
    }
}

fn main() -> Result<(), Error> {
    let listen = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let (checks, waiting) = sync_channel(QUEUE);
    let waiting = Arc::new(Mutex::new(waiting));
    for _ in 0..CHECKERS {
        let waiting = Arc::clone(&waiting);
        std::thread::spawn(move || check_tokens(&waiting));
    }
    let server = Server::builder()
        .listen(listen.as_deref().unwrap_or("127.0.0.1:9001"))
        .handle_signals(true)
        .start(Guarded { checks })?;
    eprint!("{}", server.report());
    server.join()
}
