//! The opening handshake (RFC 6455 §4) over httparse: the server's side here, the client's in its
//! own module ([`ClientRequest`]).
//!
//! Bytes gather in a buffer of the caller's; a [`Scanner`] says, at a cost linear in what arrives,
//! when the head of the request is whole. [`parse_request`] turns it into a [`Request`] that is a
//! correct WebSocket handshake, or into a [`Refusal`], which writes itself as an HTTP response.
//! The answer is a [`ResponseHead`]. Bytes behind the head are the first frames: not read here.

mod client;
mod headers;
mod lists;
mod refusal;
mod request;
mod response;
mod scan;
mod status;

pub use client::{
    ClientHandshake, ClientRequest, HandshakeError, RequestError, Response, UrlError, WsUrl,
};
pub use headers::{HeaderSlots, MAX_HEADERS};
pub use lists::{ExtensionOffer, Extensions, Params, Subprotocols};
pub use refusal::Refusal;
pub use request::{Request, parse_request};
pub use response::{HeaderError, ResponseHead};
pub use scan::Scanner;
pub use status::Status;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// RFC 6455 §1.3: proves to the client that the server understood the handshake.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` for a value of `Sec-WebSocket-Key` (RFC 6455 §4.2.2), in
/// ASCII.
pub fn accept_key(key: &str) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let mut accept = [b'='; 28];
    // 20 bytes are 28 characters: the slice is exactly long enough.
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(28));
    accept
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_key_of_the_rfc_gives_its_accept_value() {
        assert_eq!(&super::accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
