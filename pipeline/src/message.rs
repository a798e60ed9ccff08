//! A message as the handler sees it: in place, wherever it lies.

use hioload_core::pool::PoolBuf;
use hioload_ws_proto::Opcode;
use hioload_ws_proto::encode;

use crate::id::SessionId;
use crate::window::{Out, Window};

/// Text or binary (RFC 6455 §5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

impl Kind {
    pub(crate) fn opcode(self) -> Opcode {
        match self {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        }
    }
}

/// Where a message lies. Either way there is room for a header before the payload.
#[derive(Debug)]
pub(crate) enum Room<'t> {
    /// Header and payload in the backend's memory.
    Window(&'t mut [u8]),
    /// Put together from parts; the payload starts at `head`, the buffer's used range is all.
    Assembled(PoolBuf),
}

/// One whole message. It lies in the memory into which it was received, and an echo leaves from
/// there ([`crate::Context::echo`]); the memory is lent for the batch, so what must outlive it is
/// copied by the handler.
#[derive(Debug)]
pub struct Message<'t> {
    pub(crate) session: SessionId,
    pub(crate) kind: Kind,
    pub(crate) room: Room<'t>,
    pub(crate) head: u32,
}

impl<'t> Message<'t> {
    /// Who sent it.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The payload. That of a text message was checked to be UTF-8.
    pub fn payload(&self) -> &[u8] {
        match &self.room {
            Room::Window(room) => &room[self.head as usize..],
            Room::Assembled(buf) => &buf.data()[self.head as usize..],
        }
    }

    /// The payload, to be changed in place. Whoever changes a text message keeps it UTF-8: an
    /// echo of it is sent as it is.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Window(room) => &mut room[self.head as usize..],
            Room::Assembled(buf) => &mut buf.data_mut()[self.head as usize..],
        }
    }

    /// The payload of a text message; `None` for a binary one.
    pub fn text(&self) -> Option<&str> {
        match self.kind {
            Kind::Text => std::str::from_utf8(self.payload()).ok(),
            Kind::Binary => None,
        }
    }

    /// Length of the payload, in bytes.
    pub fn len(&self) -> usize {
        match &self.room {
            Room::Window(room) => room.len() - self.head as usize,
            Room::Assembled(buf) => buf.len() - self.head as usize,
        }
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Turns the message into a frame of the server's side, header in front of the payload, in
    /// the space that the request's longer header (or the assembly's headroom) left.
    pub(crate) fn into_unmasked_frame(self) -> Out<'t> {
        let (opcode, head) = (self.kind.opcode(), self.head as usize);
        match self.room {
            Room::Window(room) => {
                let start = encode::write_header_before(room, head, true, false, opcode, None);
                Out::Window(Window::output(room, start))
            }
            Room::Assembled(mut buf) => {
                let start =
                    encode::write_header_before(buf.data_mut(), head, true, false, opcode, None);
                buf.trim_front(start);
                Out::Owned(buf)
            }
        }
    }
}
