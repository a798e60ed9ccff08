//! A chat room with a page for the browser.
//!
//!     cargo run --release --example chat -- --listen 127.0.0.1:9001
//!
//! It prints the address of the page, which is served on a second port; open it twice. Programs
//! can join too, with the subprotocol `chat.v1` or none:
//!
//!     -> {"type": "name", "name": "Ada"}      takes a name, instead of the guest's
//!     -> {"type": "say", "text": "Hello"}     speaks
//!     <- {"type": "welcome", "name": ...}     first of all; says how one is called
//!     <- {"type": "join" | "leave", "name": ..., "online": ...}
//!     <- {"type": "rename", "from": ..., "name": ...}
//!     <- {"type": "say", "name": ..., "text": ...}
//!     <- {"type": "error", "text": ...}
//!
//! The room spans all workers: what one says is encoded once, and one reference a worker crosses.

mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hioload_ws::{
    Batch, Closed, Context, Error, Handler, Kind, Opening, Server, SessionId, Verdict,
};
use serde_json::{Value, json};

const SUBPROTOCOL: &str = "chat.v1";
/// Characters of a name.
const MAX_NAME: usize = 32;
/// Characters of what is said at once.
const MAX_TEXT: usize = 2_000;

/// The room, as one worker sees it.
#[derive(Clone)]
struct Room {
    /// People in the room, over all workers.
    online: Arc<AtomicUsize>,
}

/// What is kept of a person.
struct Person {
    name: String,
}

type Here<'b, 't> = Context<'b, 't, Person>;

impl Handler for Room {
    type Session = Person;

    fn on_open(&mut self, opening: &mut Opening<'_>, _: &mut Here<'_, '_>) -> Verdict<Person> {
        if opening.request().subprotocols().any(|offered| offered == SUBPROTOCOL) {
            // It was offered a line above, so it can be chosen.
            let _ = opening.subprotocol(SUBPROTOCOL);
        }
        Verdict::Accept(Person { name: format!("guest-{}", opening.session()) })
    }

    fn on_ready(&mut self, session: SessionId, here: &mut Here<'_, '_>) {
        let Some(person) = here.state(session) else { return };
        let name = person.name.clone();
        let online = self.online.fetch_add(1, Ordering::Relaxed) + 1;
        tell_one(here, session, &json!({"type": "welcome", "name": name}));
        tell_all(here, &json!({"type": "join", "name": name, "online": online}));
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Person>) {
        while let Some((message, here)) = batch.next() {
            let session = message.session();
            let request = message.text().and_then(|text| serde_json::from_str(text).ok());
            if let Err(problem) = answer(session, &request.unwrap_or(Value::Null), here) {
                tell_one(here, session, &json!({"type": "error", "text": problem}));
            }
        }
    }

    fn on_close(&mut self, _: SessionId, person: Person, _: Closed<'_>, here: &mut Here<'_, '_>) {
        let online = self.online.fetch_sub(1, Ordering::Relaxed) - 1;
        tell_all(here, &json!({"type": "leave", "name": person.name, "online": online}));
    }
}

/// Does what a person asks for, or says why not.
fn answer(session: SessionId, request: &Value, here: &mut Here<'_, '_>) -> Result<(), String> {
    let Some(person) = here.state(session) else { return Ok(()) };
    match request["type"].as_str() {
        Some("say") => {
            let text = text_of(&request["text"], "text", MAX_TEXT)?;
            let said = json!({"type": "say", "name": person.name, "text": text});
            tell_all(here, &said);
            Ok(())
        }
        Some("name") => {
            let name = text_of(&request["name"], "name", MAX_NAME)?;
            let from = std::mem::replace(&mut person.name, name.into());
            tell_all(here, &json!({"type": "rename", "from": from, "name": name}));
            Ok(())
        }
        _ => Err(r#"expected JSON such as {"type": "say", "text": "Hello"}"#.into()),
    }
}

fn text_of<'v>(value: &'v Value, what: &str, most: usize) -> Result<&'v str, String> {
    let text = value.as_str().map(str::trim).unwrap_or_default();
    match text.chars().count() {
        count if (1..=most).contains(&count) => Ok(text),
        _ => Err(format!("`{what}` must have 1 to {most} characters")),
    }
}

fn tell_one(here: &mut Here<'_, '_>, session: SessionId, what: &Value) {
    // A session that can't be sent to is ending: there is nobody left to tell.
    let _ = here.send_text(session, &what.to_string());
}

fn tell_all(here: &mut Here<'_, '_>, what: &Value) {
    here.broadcast(Kind::Text, what.to_string().as_bytes(), None);
}

fn main() -> Result<(), Error> {
    let listen = std::env::args().skip_while(|arg| arg != "--listen").nth(1);
    let server = Server::builder()
        .listen(listen.as_deref().unwrap_or("127.0.0.1:9001"))
        .handle_signals(true)
        .start(Room { online: Arc::default() })?;
    eprint!("{}", server.report());
    match page::serve(server.addresses()[0]) {
        Ok(address) => eprintln!("  open         http://{address}/"),
        Err(error) => eprintln!("  no page for the browser: {error}"),
    }
    server.join()
}
