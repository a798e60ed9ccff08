//! The header of a frame (RFC 6455 §5.2): a checked type that cannot hold an illegal one, and the
//! parser that makes it. It sees one header and the rules of the connection; what depends on the
//! frames before it (continuations, the size of a message) is the decoder's business.

use crate::error::ProtocolError;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A message of UTF-8 text, or its first fragment.
    Text = 1,
    /// A message of bytes, or its first fragment.
    Binary = 2,
    /// The sender will send no more.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or is a one-way heartbeat.
    Pong = 10,
}

impl Opcode {
    /// Whether this is a control frame: never fragmented, at most 125 bytes.
    #[inline]
    pub const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }

    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// Which end of the connection we are. A client's frames are masked, a server's are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We accepted the connection: what arrives must be masked.
    Server,
    /// We opened the connection: what arrives must not be masked.
    Client,
}

/// How much payload a peer may send, in bytes. Checked on headers, before any payload is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The payload of one data frame.
    pub max_frame: u64,
    /// The payloads of all fragments of a message together, before any extension's transform.
    pub max_message: u64,
}

impl Default for Limits {
    /// 1 MiB each.
    fn default() -> Self {
        Self { max_frame: 1 << 20, max_message: 1 << 20 }
    }
}

/// What holds for every frame that arrives on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Our end.
    pub role: Role,
    /// How much the peer may send.
    pub limits: Limits,
    /// Whether a negotiated extension owns RSV1 (RFC 7692 does).
    pub rsv1: bool,
}

impl Rules {
    /// The rules of a connection with no extension.
    pub const fn new(role: Role, limits: Limits) -> Self {
        Self { role, limits, rsv1: false }
    }
}

/// A header that obeys [`Rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    first: FirstByte,
    mask: Option<[u8; 4]>,
    payload_len: u64,
    header_len: u8,
}

impl FrameHeader {
    /// Whether this is the last frame of its message.
    #[inline]
    pub const fn fin(&self) -> bool {
        self.first.fin
    }

    /// Whether an extension marked the message (RFC 7692: it is compressed).
    #[inline]
    pub const fn rsv1(&self) -> bool {
        self.first.rsv1
    }

    /// What the frame is.
    #[inline]
    pub const fn opcode(&self) -> Opcode {
        self.first.opcode
    }

    /// The masking key; present exactly when we are the server.
    #[inline]
    pub const fn mask(&self) -> Option<[u8; 4]> {
        self.mask
    }

    /// Bytes of payload that follow the header; at most `i64::MAX`.
    #[inline]
    pub const fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// Bytes of the header itself, 2 to 14.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.header_len as usize
    }
}

/// The first byte of a header, judged. On its own because it comes alone over a slow line, and
/// what it breaks shall be told without waiting for the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstByte {
    pub(crate) fin: bool,
    pub(crate) rsv1: bool,
    pub(crate) opcode: Opcode,
}

impl FirstByte {
    #[inline]
    pub(crate) fn parse(byte: u8, rules: &Rules) -> Result<Self, ProtocolError> {
        let (fin, rsv1) = (byte & 0x80 != 0, byte & 0x40 != 0);
        if byte & 0x30 != 0 || (rsv1 && !rules.rsv1) {
            return Err(ProtocolError::ReservedBit);
        }
        let bits = byte & 0x0F;
        let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::ReservedOpcode(bits))?;
        // RFC 7692 §6: RSV1 marks a message, so it stands on the first data frame alone.
        if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(ProtocolError::ReservedBit);
        }
        // RFC 6455 §5.5: control frames must not be fragmented.
        if opcode.is_control() && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        Ok(Self { fin, rsv1, opcode })
    }
}

/// Reads a frame header from the front of `bytes`. `None`: the header is not whole yet, and
/// nothing in what came so far is wrong.
///
/// # Errors
/// As early as the offending byte is there, so that what is refused does not depend on how the
/// stream was split. [`Limits::max_frame`] holds for data frames; [`Limits::max_message`] is the
/// decoder's, which knows the fragments before this one.
#[inline]
pub fn parse_header(bytes: &[u8], rules: &Rules) -> Result<Option<FrameHeader>, ProtocolError> {
    let Some(&byte) = bytes.first() else { return Ok(None) };
    parse_after_first(FirstByte::parse(byte, rules)?, bytes, rules)
}

/// The rest of [`parse_header`]; `bytes` still begins with the first byte.
#[inline]
pub(crate) fn parse_after_first(
    first: FirstByte,
    bytes: &[u8],
    rules: &Rules,
) -> Result<Option<FrameHeader>, ProtocolError> {
    let Some(&byte) = bytes.get(1) else { return Ok(None) };
    let masked = byte & 0x80 != 0;
    // RFC 6455 §5.1: a client masks every frame, a server none.
    match rules.role {
        Role::Server if !masked => return Err(ProtocolError::MaskMissing),
        Role::Client if masked => return Err(ProtocolError::MaskForbidden),
        _ => {}
    }
    let short = byte & 0x7F;
    if first.opcode.is_control() && short as usize > MAX_CONTROL_BYTES {
        return Err(ProtocolError::ControlTooLong);
    }
    let (payload_len, mask_at) = match short {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => {
                let len = u16::from_be_bytes([high, low]);
                if len < 126 {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (u64::from(len), 4)
            }
            _ => {
                judge_partial_length(&bytes[2..], 2, rules)?;
                return Ok(None);
            }
        },
        127 => match bytes.get(2..10).and_then(|len| <[u8; 8]>::try_from(len).ok()) {
            Some(len) => {
                let len = u64::from_be_bytes(len);
                if len >> 63 != 0 {
                    return Err(ProtocolError::LengthTopBit);
                }
                if len <= 0xFFFF {
                    return Err(ProtocolError::LengthNotMinimal);
                }
                (len, 10)
            }
            None => {
                judge_partial_length(&bytes[2..], 8, rules)?;
                return Ok(None);
            }
        },
        short => (u64::from(short), 2),
    };
    if payload_len > rules.limits.max_frame && !first.opcode.is_control() {
        return Err(ProtocolError::FrameTooBig);
    }
    let (mask, header_len) = if masked {
        match bytes.get(mask_at..mask_at + 4) {
            Some(&[a, b, c, d]) => (Some([a, b, c, d]), mask_at + 4),
            _ => return Ok(None),
        }
    } else {
        (None, mask_at)
    };
    Ok(Some(FrameHeader { first, mask, payload_len, header_len: header_len as u8 }))
}

/// Judges an extended length of which only the first bytes are there, by the least and the most
/// that it can still become.
#[cold]
fn judge_partial_length(seen: &[u8], width: usize, rules: &Rules) -> Result<(), ProtocolError> {
    let missing_bits = 8 * (width - seen.len()) as u32;
    let prefix = seen.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let least = prefix.checked_shl(missing_bits).unwrap_or(0);
    let most = least | 1u64.checked_shl(missing_bits).map_or(u64::MAX, |bit| bit - 1);
    if least >> 63 != 0 {
        Err(ProtocolError::LengthTopBit)
    } else if most < if width == 2 { 126 } else { 1 << 16 } {
        Err(ProtocolError::LengthNotMinimal)
    } else if least > rules.limits.max_frame {
        Err(ProtocolError::FrameTooBig)
    } else {
        Ok(())
    }
}
