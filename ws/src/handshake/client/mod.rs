//! The client's side of the opening handshake (RFC 6455 §4.1 and §4.2.2's answer to it).
//!
//! A [`WsUrl`] says where to connect and what to ask for; a [`ClientRequest`] is what many
//! connections ask alike. [`ClientRequest::start`] writes the request of one connection and leaves
//! a [`ClientHandshake`], which finds the end of the server's head while it arrives and checks it:
//! the outcome is a [`Response`] or a [`HandshakeError`] that says what the server did.

mod error;
mod request;
mod response;
mod url;

pub use error::HandshakeError;
pub use request::{ClientRequest, RequestError};
pub use response::{ClientHandshake, Response};
pub use url::{UrlError, WsUrl};
