//! What a peer can do wrong once the connection is a WebSocket, and the close code that answers
//! it. Refusals of the opening handshake are HTTP responses: see [`crate::handshake::Refusal`].

use crate::close::CloseCode;
use std::fmt;

/// The peer broke the protocol or went past a limit. The connection must be closed with
/// [`close_code`](ProtocolError::close_code); nothing that it sends afterwards may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set that no negotiated extension owns, or RSV1 on a frame that cannot
    /// carry it: a control frame or a continuation (RFC 6455 §5.2, RFC 7692 §6).
    ReservedBit,
    /// The opcode is one of 3-7 or 11-15 (RFC 6455 §5.2).
    ReservedOpcode(u8),
    /// A control frame without FIN (RFC 6455 §5.4).
    FragmentedControl,
    /// A control frame that announces more than 125 bytes (RFC 6455 §5.5).
    ControlTooLong,
    /// A client's frame without a mask (RFC 6455 §5.1).
    MaskMissing,
    /// A server's frame with a mask (RFC 6455 §5.1).
    MaskForbidden,
    /// A length that is not in its shortest form (RFC 6455 §5.2).
    LengthNotMinimal,
    /// A 64-bit length whose top bit is set (RFC 6455 §5.2).
    LengthTopBit,
    /// A continuation frame with no message to continue (RFC 6455 §5.4).
    UnexpectedContinuation,
    /// A text or binary frame inside an unfinished message (RFC 6455 §5.4).
    ExpectedContinuation,
    /// A frame announces more payload than [`Limits::max_frame`](crate::Limits::max_frame).
    FrameTooBig,
    /// A message grows past [`Limits::max_message`](crate::Limits::max_message).
    MessageTooBig,
    /// Text, or the reason of a close, is not UTF-8 (RFC 6455 §8.1).
    InvalidUtf8,
    /// A close frame with a payload of one byte: half a code (RFC 6455 §5.5.1).
    CloseTooShort,
    /// A close code that never travels or that nobody assigned (RFC 6455 §7.4).
    BadCloseCode(u16),
    /// An extension could not undo its transform (RFC 7692 §7.2.2).
    BadExtensionData,
}

impl ProtocolError {
    /// The code of the close frame that answers this (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::BadExtensionData => CloseCode::INVALID_DATA,
            Self::FrameTooBig | Self::MessageTooBig => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedBit => "the peer set a reserved bit that no extension owns here",
            Self::ReservedOpcode(code) => {
                return write!(f, "the peer used the reserved opcode {code}");
            }
            Self::FragmentedControl => "the peer fragmented a control frame",
            Self::ControlTooLong => "the peer sent a control frame of more than 125 bytes",
            Self::MaskMissing => "the peer, a client, sent a frame without a mask",
            Self::MaskForbidden => "the peer, a server, sent a masked frame",
            Self::LengthNotMinimal => "the peer wrote a length in a longer form than it needs",
            Self::LengthTopBit => "the peer sent a 64-bit length with its top bit set",
            Self::UnexpectedContinuation => "the peer continued a message that it never began",
            Self::ExpectedContinuation => "the peer began a message inside an unfinished one",
            Self::FrameTooBig => "the peer announced a frame above the frame limit",
            Self::MessageTooBig => "the peer's message exceeds the message limit",
            Self::InvalidUtf8 => "the peer sent text that is not UTF-8",
            Self::CloseTooShort => "the peer sent a close frame with half a code",
            Self::BadCloseCode(code) => {
                return write!(f, "the peer closed with {code}, which must not be sent");
            }
            Self::BadExtensionData => "the peer sent data that its extension cannot decode",
        })
    }
}

impl std::error::Error for ProtocolError {}
