//! Any request, in any pieces: the scanner ends where it would have ended on the whole, and what
//! is parsed keeps its promises.

#![no_main]

use hioload_ws_proto::handshake::{
    ExtensionOffer, HeaderSlots, ResponseHead, Scanner, parse_request,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 2048;

/// What a fuzzer would take long to find: input that begins with a zero byte is header lines to
/// go behind these.
const PREFIX: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fuzz_target!(|data: &[u8]| {
    let data = match data {
        [0, lines @ ..] => [PREFIX, lines, b"\r\n\r\n"].concat(),
        _ => data.to_vec(),
    };
    let whole = Scanner::new().feed(&data, LIMIT);
    let mut scanner = Scanner::new();
    let pieces = (0..=data.len()).map(|end| scanner.feed(&data[..end], LIMIT));
    let bytewise = pieces.take(LIMIT + 1).find(|found| *found != Ok(None)).unwrap_or(Ok(None));
    assert_eq!(whole, bytewise);

    let mut slots = HeaderSlots::new();
    // Also what no scanner cut: it may be refused, it may not do harm.
    let _ = parse_request(&data, &mut slots).map(|_| ());
    let Ok(Some(len)) = whole else { return };
    match parse_request(&data[..len], &mut slots) {
        Err(refusal) => {
            let mut out = Vec::new();
            refusal.write(&mut out);
            assert!(out.starts_with(b"HTTP/1.1 "));
        }
        Ok(request) => {
            assert!(request.path().starts_with('/'));
            assert!(!request.host().is_empty());
            let mut response = ResponseHead::new(&request);
            for name in request.subprotocols() {
                assert_eq!(response.subprotocol(name), Ok(()));
            }
            for offer in request.extensions() {
                assert_eq!(ExtensionOffer::parse(offer.text()), Some(offer));
                assert!(offer.params().count() <= offer.text().len());
                assert_eq!(response.extension(offer.text()), Ok(()));
            }
            let mut out = Vec::new();
            response.write(&mut out);
            assert!(out.ends_with(b"\r\n\r\n"));
            let end = out.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            assert_eq!(end, Some(out.len() - 4), "no value can end the head early");
        }
    }
});
