//! The client that the Autobahn fuzzing server tests: it asks how many cases there are, echoes
//! through each of them, and has the report written.
//!
//!     cargo run --example autobahn_client -- ws://127.0.0.1:9002 AGENT

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hioload_ws::{Client, Limits, Settings, on_message};

/// Section 9 has messages of 16 MiB.
const MAX_BYTES: u64 = 16 << 20;

fn client(url: String) -> hioload_ws::ClientBuilder {
    let settings = Settings {
        limits: Limits { max_frame: MAX_BYTES, max_message: MAX_BYTES },
        // An echo of the largest message waits here while the server is still sending.
        max_unsent_bytes: 4 * MAX_BYTES as usize,
        ..Settings::default()
    };
    Client::builder().url(url).settings(settings)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let server = args.next().ok_or("the fuzzing server's URL is missing")?;
    let agent = args.next().unwrap_or_else(|| "hioload-ws".into());

    let told = Arc::new(Mutex::new(String::new()));
    let count = Arc::clone(&told);
    client(format!("{server}/getCaseCount")).run(on_message(move |message, _| {
        if let (Some(text), Ok(mut count)) = (message.text(), count.lock()) {
            *count = text.into();
        }
    }))?;
    let cases: usize = told.lock().map_err(|_| "a handler panicked")?.parse()?;

    let echoed = Arc::new(AtomicUsize::new(0));
    for case in 1..=cases {
        let echoed = Arc::clone(&echoed);
        let url = format!("{server}/runCase?case={case}&agent={agent}");
        client(url).run(on_message(move |message, context| {
            // Where the case has ended the session, there is nobody left to answer.
            if context.echo(message).is_ok() {
                echoed.fetch_add(1, Ordering::Relaxed);
            }
        }))?;
    }
    client(format!("{server}/updateReports?agent={agent}")).run(on_message(|_, _| {}))?;
    println!("{cases} cases, {} messages echoed", echoed.load(Ordering::Relaxed));
    Ok(())
}
