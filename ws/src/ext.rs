//! The seam into which message extensions go (RFC 6455 §9; permessage-deflate of RFC 7692 is the
//! one in mind): they read an offer of the client's, mark messages with RSV1 and transform them.
//!
//! The decoder hands a marked message out as it lies on the wire, part by part; the caller runs
//! the parts through [`Extension::inbound`] and checks text behind it with
//! [`Utf8Stream`](crate::Utf8Stream). [`Rules::rsv1`](crate::Rules::rsv1) must be set then.

use crate::error::ProtocolError;
use crate::handshake::{ExtensionOffer, HeaderError, Request, ResponseHead};

/// Makes extensions out of what clients offer; one for a whole server.
pub trait Negotiator {
    /// The extension of one connection.
    type Extension: Extension;

    /// Judges one offer. `Some`: the text for `Sec-WebSocket-Extensions`, the name included, and
    /// the extension that keeps to it. `None`: the offer is not for us or not acceptable; the
    /// client's next one may be.
    fn accept(&self, offer: ExtensionOffer<'_>) -> Option<(String, Self::Extension)>;
}

/// One connection's extension, which owns RSV1.
pub trait Extension {
    /// Undoes the transform of the next part of a message with RSV1 and appends the outcome to
    /// `out`; `last` ends the message.
    ///
    /// # Errors
    /// [`ProtocolError::BadExtensionData`], or [`ProtocolError::MessageTooBig`] as soon as `out`
    /// would exceed `limit` bytes.
    fn inbound(
        &mut self,
        part: &[u8],
        last: bool,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ProtocolError>;

    /// Transforms a whole message and appends the outcome to `out`: it is then sent with RSV1.
    /// `false`: it is better sent as it is, and `out` is as it was.
    fn outbound(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool;
}

/// Takes the first of the client's offers that `negotiator` accepts, and puts it into the
/// response.
///
/// # Errors
/// The negotiator answered with something malformed or with a name that was not offered.
pub fn negotiate<N: Negotiator>(
    negotiator: &N,
    request: &Request<'_>,
    response: &mut ResponseHead,
) -> Result<Option<N::Extension>, HeaderError> {
    match request.extensions().find_map(|offer| negotiator.accept(offer)) {
        None => Ok(None),
        Some((accepted, extension)) => {
            response.extension(&accepted)?;
            Ok(Some(extension))
        }
    }
}
