//! The resumable decoder: windows of received bytes in, [`Item`]s out, unmasked where they lie.
//!
//! A window may end anywhere. A header that it cuts is stashed (14 bytes at most), and so is a
//! control frame (125 at most); the payload of a data frame never is: what is here is handed out
//! as a [`Item::Part`] and the caller gathers. The common case, an idle decoder and a whole small
//! frame, is [`Decoder::next`] itself, inlined; everything else is one call away.

use crate::close::{CloseCode, MAX_REASON_BYTES, parse_close};
use crate::encode::MAX_HEADER;
use crate::error::ProtocolError;
use crate::frame::{
    FirstByte, FrameHeader, MAX_CONTROL_BYTES, Opcode, Rules, parse_after_first, parse_header,
};
use crate::mask;
use crate::utf8::Utf8Stream;
use arrayvec::{ArrayString, ArrayVec};
use std::mem;

/// The payload of a control frame, by value: it outlives the window that it came in.
pub type ControlPayload = ArrayVec<u8, MAX_CONTROL_BYTES>;

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'w> {
    /// An unfragmented data message that lies in this window whole.
    Message {
        /// Text or Binary. Text is UTF-8 unless `rsv1` is set.
        opcode: Opcode,
        /// An extension transformed the payload.
        rsv1: bool,
        /// Where the payload begins in `room`.
        head: usize,
        /// Exactly this frame: its header, which a reply's header may overwrite (it is at least
        /// four bytes longer than a server's header for as much payload), and the payload,
        /// unmasked.
        room: &'w mut [u8],
    },
    /// Payload of a data message that is not whole in this window, unmasked. To be appended to
    /// what came before.
    Part {
        /// Text or Binary, of the message. Text is UTF-8 so far unless `rsv1` is set.
        opcode: Opcode,
        /// An extension transformed the message.
        rsv1: bool,
        /// The message begins with this part.
        first: bool,
        /// The message is complete with this part.
        last: bool,
        /// The bytes; empty only if `last`.
        data: &'w mut [u8],
        /// Payload that this frame still owes, in bytes: a hint for the size of the buffer.
        frame_left: u64,
    },
    /// To be answered with a pong of the same payload.
    Ping(ControlPayload),
    /// An answer, or a one-way heartbeat.
    Pong(ControlPayload),
    /// The peer ends the connection, with a code and a reason if it gave one. Whatever follows is
    /// discarded.
    Close(Option<(CloseCode, ArrayString<MAX_REASON_BYTES>)>),
}

/// Where in the stream the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Between two messages, and nothing is stashed.
    Idle,
    /// Before a header inside a message, or inside a header that is stashed.
    Header,
    /// In the payload of a data frame.
    Data,
    /// In the payload of a control frame.
    Control,
    /// Behind a close frame: everything is discarded (RFC 6455 §1.4).
    Closed,
    /// Behind an error, which is repeated.
    Dead(ProtocolError),
}

/// One direction of one connection. Cheap to make, and holds no heap memory; a caller with many
/// connections may drop it whenever [`Decoder::is_idle`].
#[derive(Debug)]
pub struct Decoder {
    step: Step,
    /// Payload that the current frame still owes.
    left: u64,
    /// Payload that the open message's frames announced so far.
    message_len: u64,
    /// The current frame's key, turned so that its first byte meets the next payload byte.
    key: Option<[u8; 4]>,
    utf8: Utf8Stream,
    /// The open message's opcode; `None` between messages.
    message: Option<Opcode>,
    rsv1: bool,
    /// No part of the open message was handed out yet.
    first: bool,
    /// The current data frame ends its message.
    fin: bool,
    /// The opcode of the control frame being gathered.
    control_opcode: Opcode,
    head: ArrayVec<u8, MAX_HEADER>,
    control: ControlPayload,
}

const _: () = assert!(size_of::<Decoder>() <= 200);

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a stream of frames.
    #[inline]
    pub const fn new() -> Self {
        Self {
            step: Step::Idle,
            left: 0,
            message_len: 0,
            key: None,
            utf8: Utf8Stream::new(),
            message: None,
            rsv1: false,
            first: false,
            fin: false,
            control_opcode: Opcode::Ping,
            head: ArrayVec::new_const(),
            control: ArrayVec::new_const(),
        }
    }

    /// Whether the stream stands between two messages with nothing stashed, so that a new decoder
    /// would go on just as well.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    /// Takes the next item off the front of `window`. `None`: the window is used up.
    ///
    /// Text is checked as UTF-8, part by part, and fails with the first byte that cannot be
    /// right. A message with RSV1 is not: the check belongs behind the extension's transform, and
    /// [`Utf8Stream`] is there for it.
    ///
    /// # Errors
    /// What the peer did wrong. The decoder is dead then and repeats the error.
    #[inline]
    pub fn next<'w>(
        &mut self,
        rules: &Rules,
        window: &mut &'w mut [u8],
    ) -> Result<Option<Item<'w>>, ProtocolError> {
        if self.is_idle()
            && let Ok(Some(header)) = parse_header(window, rules)
            && is_whole_message(&header, window.len(), rules)
        {
            return self.take_message(&header, window).map(Some);
        }
        self.next_slow(rules, window)
    }

    /// `header` starts the window, and its payload ends in it.
    #[inline]
    fn take_message<'w>(
        &mut self,
        header: &FrameHeader,
        window: &mut &'w mut [u8],
    ) -> Result<Item<'w>, ProtocolError> {
        let head = header.header_len();
        let room = take(window, head + header.payload_len() as usize);
        let payload = &mut room[head..];
        let ascii = header.mask().is_some_and(|key| mask::apply_and_see_ascii(key, 0, payload));
        let (opcode, rsv1) = (header.opcode(), header.rsv1());
        if opcode == Opcode::Text && !rsv1 && !ascii && simdutf8::basic::from_utf8(payload).is_err()
        {
            return Err(self.die(ProtocolError::InvalidUtf8));
        }
        Ok(Item::Message { opcode, rsv1, head, room })
    }

    #[cold]
    fn die(&mut self, error: ProtocolError) -> ProtocolError {
        self.step = Step::Dead(error);
        error
    }

    #[inline(never)]
    fn next_slow<'w>(
        &mut self,
        rules: &Rules,
        window: &mut &'w mut [u8],
    ) -> Result<Option<Item<'w>>, ProtocolError> {
        self.walk(rules, window).map_err(|error| self.die(error))
    }

    /// Every turn of the loop but the last uses up at least the two bytes of a header.
    fn walk<'w>(
        &mut self,
        rules: &Rules,
        window: &mut &'w mut [u8],
    ) -> Result<Option<Item<'w>>, ProtocolError> {
        loop {
            match self.step {
                Step::Idle | Step::Header => {
                    let Some(header) = self.header(rules, window)? else { return Ok(None) };
                    self.begin(&header, rules)?;
                }
                Step::Data => {
                    if window.is_empty() && self.left != 0 {
                        return Ok(None);
                    }
                    if let Some(part) = self.part(window)? {
                        return Ok(Some(part));
                    }
                }
                Step::Control => {
                    let here = self.left.min(window.len() as u64) as usize;
                    self.control.extend(take(window, here).iter().copied());
                    self.left -= here as u64;
                    return if self.left == 0 { self.control().map(Some) } else { Ok(None) };
                }
                Step::Closed => {
                    *window = &mut [];
                    return Ok(None);
                }
                Step::Dead(error) => return Err(error),
            }
        }
    }

    /// Takes a header off the window, together with what is stashed of it.
    fn header(
        &mut self,
        rules: &Rules,
        window: &mut &mut [u8],
    ) -> Result<Option<FrameHeader>, ProtocolError> {
        if self.head.is_empty()
            && let Some(header) = self.judge(window, rules)?
        {
            take(window, header.header_len());
            return Ok(Some(header));
        }
        // Byte by byte, so that no byte behind the header is stashed. A header is whole with
        // MAX_HEADER bytes at the latest, so the stash has room.
        while !window.is_empty() && !self.head.is_full() {
            self.step = Step::Header;
            self.head.push(take(window, 1)[0]);
            if let Some(header) = self.judge(&self.head, rules)? {
                self.head.clear();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// [`parse_header`], and between its first and second byte what depends on the open message,
    /// so that the error does not depend on how the stream was split.
    fn judge(&self, bytes: &[u8], rules: &Rules) -> Result<Option<FrameHeader>, ProtocolError> {
        let Some(&byte) = bytes.first() else { return Ok(None) };
        let first = FirstByte::parse(byte, rules)?;
        // RFC 6455 §5.4: the fragments of one message may not be mixed with another's.
        match (first.opcode, self.message) {
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(ProtocolError::ExpectedContinuation);
            }
            _ => {}
        }
        parse_after_first(first, bytes, rules)
    }

    fn begin(&mut self, header: &FrameHeader, rules: &Rules) -> Result<(), ProtocolError> {
        self.key = header.mask();
        self.left = header.payload_len();
        let opcode = header.opcode();
        if opcode.is_control() {
            self.control_opcode = opcode;
            self.step = Step::Control;
            return Ok(());
        }
        if opcode != Opcode::Continuation {
            self.message = Some(opcode);
            self.message_len = 0;
            self.rsv1 = header.rsv1();
            self.first = true;
        }
        self.message_len = self.message_len.saturating_add(self.left);
        if self.message_len > rules.limits.max_message {
            return Err(ProtocolError::MessageTooBig);
        }
        self.fin = header.fin();
        self.step = Step::Data;
        Ok(())
    }

    /// Hands out what the window holds of the current data frame. `None`: an empty fragment that
    /// ends nothing, which nobody needs to hear of.
    fn part<'w>(&mut self, window: &mut &'w mut [u8]) -> Result<Option<Item<'w>>, ProtocolError> {
        let here = self.left.min(window.len() as u64) as usize;
        let data = take(window, here);
        self.left -= here as u64;
        let ascii = self.key.as_mut().is_some_and(|key| {
            let ascii = mask::apply_and_see_ascii(*key, 0, data);
            key.rotate_left(here % 4);
            ascii
        });
        let last = self.left == 0 && self.fin;
        let (opcode, rsv1, first) = (self.message.unwrap_or(Opcode::Binary), self.rsv1, self.first);
        if opcode == Opcode::Text && !rsv1 {
            if !(ascii && self.utf8.is_between_characters()) {
                self.utf8.push(data).map_err(|_| ProtocolError::InvalidUtf8)?;
            }
            if last {
                self.utf8.finish().map_err(|_| ProtocolError::InvalidUtf8)?;
            }
        }
        if last {
            self.message = None;
        }
        if self.left == 0 {
            self.end_frame();
        }
        if data.is_empty() && !last {
            return Ok(None);
        }
        self.first = false;
        Ok(Some(Item::Part { opcode, rsv1, first, last, data, frame_left: self.left }))
    }

    fn end_frame(&mut self) {
        self.step = if self.message.is_none() { Step::Idle } else { Step::Header };
    }

    /// The control frame is gathered: unmasks and judges it.
    fn control<'w>(&mut self) -> Result<Item<'w>, ProtocolError> {
        let mut payload = mem::take(&mut self.control);
        if let Some(key) = self.key {
            mask::apply(key, 0, &mut payload);
        }
        self.end_frame();
        Ok(match self.control_opcode {
            Opcode::Ping => Item::Ping(payload),
            Opcode::Pong => Item::Pong(payload),
            _ => {
                self.step = Step::Closed;
                // The payload is at most 125 bytes, two of them the code: the reason always fits.
                Item::Close(
                    parse_close(&payload)?.map(|(code, reason)| {
                        (code, ArrayString::from(reason).unwrap_or_default())
                    }),
                )
            }
        })
    }
}

/// Whether the frame is a message of its own and lies whole in a window of `window_len` bytes
/// that it starts.
#[inline]
fn is_whole_message(header: &FrameHeader, window_len: usize, rules: &Rules) -> bool {
    header.fin()
        && matches!(header.opcode(), Opcode::Text | Opcode::Binary)
        && header.payload_len() <= (window_len - header.header_len()) as u64
        && header.payload_len() <= rules.limits.max_message
}

/// Splits `len` bytes off the front of the window.
#[inline]
fn take<'w>(window: &mut &'w mut [u8], len: usize) -> &'w mut [u8] {
    let (front, rest) = mem::take(window).split_at_mut(len);
    *window = rest;
    front
}
