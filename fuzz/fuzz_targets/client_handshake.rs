//! Any answer of a server's, in any pieces: the client finds its end where it would have found it
//! on the whole, and what it takes for a handshake keeps every promise of one.

#![no_main]

use hioload_ws_proto::handshake::{
    ClientHandshake, ClientRequest, ExtensionOffer, HeaderSlots, WsUrl,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 2048;

/// What a fuzzer would take long to find: input that begins with a zero byte is header lines to
/// go behind these.
const PREFIX: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn start() -> ClientHandshake {
    let mut request = ClientRequest::new("a", "/").expect("a host and a target");
    for name in ["a", "chat"] {
        request.subprotocol(name).expect("a token");
        request.extension(name).expect("a token");
    }
    request.start(*b"the sample nonce", &mut Vec::new())
}

fuzz_target!(|data: &[u8]| {
    if let Ok(url) = WsUrl::parse(&String::from_utf8_lossy(data)) {
        assert!(ClientRequest::new(url.authority(), url.target()).is_ok());
        assert_eq!(WsUrl::parse(&url.to_string()), Ok(url));
    }
    let data = match data {
        [0, lines @ ..] => [PREFIX, lines, b"\r\n\r\n"].concat(),
        _ => data.to_vec(),
    };
    let mut slots = HeaderSlots::new();
    // Also what was never fed: it may be refused, it may not do harm.
    let _ = start().check(&data, &mut slots).map(|_| ());

    let mut handshake = start();
    let whole = handshake.feed(&data, LIMIT);
    let mut other = start();
    let pieces = (0..=data.len()).map(|end| other.feed(&data[..end], LIMIT));
    let bytewise = pieces.take(LIMIT + 1).find(|found| *found != Ok(None)).unwrap_or(Ok(None));
    assert_eq!(whole, bytewise);

    let Ok(Some(len)) = whole else { return };
    match handshake.check(&data[..len], &mut slots) {
        Err(error) => {
            let told = error.with_body(&data[len..]).to_string();
            assert!(!told.chars().any(char::is_control));
        }
        Ok(response) => {
            assert!(response.subprotocol().is_none_or(|name| ["a", "chat"].contains(&name)));
            let mut names = Vec::new();
            for extension in response.extensions() {
                assert_eq!(ExtensionOffer::parse(extension.text()), Some(extension));
                assert!(["a", "chat"].contains(&extension.name()));
                assert!(!names.contains(&extension.name()));
                names.push(extension.name());
            }
            let accept = response.header("sec-websocket-accept");
            assert_eq!(accept, Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
        }
    }
});
