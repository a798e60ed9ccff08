//! JSON requests, routed by the path of the connection; a path that doesn't exist is refused with
//! 404 before there is a session.
//!
//!     cargo run --release --example json_paths -- --listen 127.0.0.1:9001
//!
//!     ws://127.0.0.1:9001/add    {"id": 1, "values": [1, 2.5]}    ->  {"id": 1, "result": 3.5}
//!     ws://127.0.0.1:9001/words  {"id": 2, "text": "one two"}     ->  {"id": 2, "result": 2}
//!
//! The route is the session's state, so it is looked up once a connection, not once a message.

use hioload_ws::{
    Batch, CloseCode, Context, Error, Handler, Message, Opening, Refusal, Server, Status, Verdict,
};
use serde_json::{Value, json};

/// What a path means.
#[derive(Clone, Copy)]
enum Route {
    Add,
    Words,
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        match path {
            "/add" => Some(Route::Add),
            "/words" => Some(Route::Words),
            _ => None,
        }
    }

    fn answer(self, request: &Value) -> Result<Value, &'static str> {
        match self {
            Route::Add => {
                let values = request["values"].as_array().ok_or("`values` must be an array")?;
                let numbers: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
                Ok(json!(numbers.ok_or("`values` must hold numbers")?.iter().sum::<f64>()))
            }
            Route::Words => {
                let text = request["text"].as_str().ok_or("`text` must be a string")?;
                Ok(json!(text.split_whitespace().count()))
            }
        }
    }
}

#[derive(Clone)]
struct Api;

impl Handler for Api {
    type Session = Route;

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        _: &mut Context<'_, '_, Route>,
    ) -> Verdict<Route> {
        match Route::of(opening.request().path()) {
            Some(route) => Verdict::Accept(route),
            None => Verdict::Refuse(Refusal::new(Status::NOT_FOUND, "there is /add and /words")),
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Route>) {
        while let Some((message, context)) = batch.next() {
            let session = message.session();
            let Some(&mut route) = context.state(session) else { continue };
            // What can't be sent any more is for a session that is ending.
            let _ = match reply(route, &message) {
                Some(reply) => context.send_text(session, &reply),
                None => context.close(session, CloseCode::UNSUPPORTED, "only text is taken"),
            };
        }
    }
}

/// The answer to a message; `None` where it isn't text.
fn reply(route: Route, message: &Message<'_>) -> Option<String> {
    let text = message.text()?;
    let reply = match serde_json::from_str::<Value>(text) {
        Err(error) => json!({"error": format!("not JSON: {error}")}),
        Ok(request) => match route.answer(&request) {
            Ok(result) => json!({"id": request["id"], "result": result}),
            Err(problem) => json!({"id": request["id"], "error": problem}),
        },
    };
    Some(reply.to_string())
}

fn main() -> Result<(), Error> {
    let listen = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let server = Server::builder()
        .listen(listen.as_deref().unwrap_or("127.0.0.1:9001"))
        .handle_signals(true)
        .start(Api)?;
    eprint!("{}", server.report());
    server.join()
}
