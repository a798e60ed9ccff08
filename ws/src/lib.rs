//! RFC 6455 without I/O and without a clock: what a WebSocket endpoint knows of the protocol,
//! and nothing of sockets, buffer pools or sessions.
//!
//! Bytes come in as windows of the caller's memory. [`handshake`] reads the opening request and
//! writes the answer, or the other way round for a client; after that [`Decoder`] cuts windows into
//! [`Item`]s, unmasked in place, and [`encode`] writes headers, either in front of a payload that
//! already lies where it shall leave from or into a send window. Nothing here allocates per
//! message. Which end of the connection we are is a value, [`Role`], so that one decoder serves
//! both. The one thing asked of the operating system is randomness, for a client's
//! [`MaskKeys`](mask::MaskKeys).

#![deny(unsafe_code)]

mod close;
mod decode;
pub mod encode;
mod error;
pub mod ext;
mod frame;
pub mod handshake;
pub mod mask;
mod utf8;

pub use close::{CloseCode, MAX_REASON_BYTES, parse_close, write_close};
pub use decode::{ControlPayload, Decoder, Item};
pub use error::ProtocolError;
pub use frame::{FrameHeader, Limits, MAX_CONTROL_BYTES, Opcode, Role, Rules, parse_header};
pub use utf8::{InvalidUtf8, Utf8Stream};
