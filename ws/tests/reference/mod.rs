//! A second reading of RFC 6455 to hold the decoder against: it sees the whole stream at once,
//! keeps everything and hurries nowhere. Written from the RFC, not from the decoder; the tests
//! and the fuzz target share it, and the way in which they drive the decoder.

use hioload_ws_proto::{Decoder, Item, Opcode, ProtocolError, Role, Rules, encode};

/// What a stream of frames says, however it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Message {
        opcode: u8,
        rsv1: bool,
        payload: Vec<u8>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    /// The stream ends inside a message of which this much arrived.
    Unfinished {
        opcode: u8,
        rsv1: bool,
        payload: Vec<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All bytes were used, and none was wrong.
    Clean,
    /// The stream ends inside a header; what is there of it may be wrong already.
    InsideHeader,
    Error(ProtocolError),
}

/// Reads a whole stream by the letter.
pub fn read_all(stream: &[u8], rules: &Rules) -> (Vec<Event>, End) {
    let mut events = Vec::new();
    let mut open: Option<(u8, bool, Vec<u8>, u64)> = None;
    let mut rest = stream;
    let end = loop {
        if rest.is_empty() {
            break End::Clean;
        }
        match read_frame(&mut rest, rules, &mut open, &mut events) {
            Ok(true) if matches!(events.last(), Some(Event::Close(_))) => break End::Clean,
            Ok(true) => {}
            Ok(false) => break if rest.is_empty() { End::Clean } else { End::InsideHeader },
            Err(error) => break End::Error(error),
        }
    };
    if let Some((opcode, rsv1, payload, _)) = open
        && !payload.is_empty()
        && !matches!(end, End::Error(_))
        && !matches!(events.last(), Some(Event::Close(_)))
    {
        events.push(Event::Unfinished { opcode, rsv1, payload });
    }
    (events, end)
}

type Open = Option<(u8, bool, Vec<u8>, u64)>;

/// `false`: the stream ends inside the frame; `rest` is empty if its header was whole.
fn read_frame(
    rest: &mut &[u8],
    rules: &Rules,
    open: &mut Open,
    events: &mut Vec<Event>,
) -> Result<bool, ProtocolError> {
    let bytes = *rest;
    let extended = match bytes.get(1).map(|second| second & 127) {
        Some(126) => 2,
        Some(127) => 8,
        _ => 0,
    };
    let key_bytes = if rules.role == Role::Server { 4 } else { 0 };
    let head = 2 + extended + key_bytes;
    let masked = bytes.get(1).map(|second| *second >= 128);
    if masked.is_none() || (masked == Some(key_bytes != 0) && bytes.len() < head) {
        return Ok(false);
    }

    let [fin, rsv1, rsv2, rsv3] = [128, 64, 32, 16].map(|bit| bytes[0] & bit != 0);
    let opcode = bytes[0] % 16;
    let control = opcode > 7;
    if rsv2 || rsv3 || (rsv1 && !rules.rsv1) {
        return Err(ProtocolError::ReservedBit);
    }
    if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
        return Err(ProtocolError::ReservedOpcode(opcode));
    }
    if rsv1 && opcode != 1 && opcode != 2 {
        return Err(ProtocolError::ReservedBit);
    }
    if control && !fin {
        return Err(ProtocolError::FragmentedControl);
    }
    if opcode == 0 && open.is_none() {
        return Err(ProtocolError::UnexpectedContinuation);
    }
    if (opcode == 1 || opcode == 2) && open.is_some() {
        return Err(ProtocolError::ExpectedContinuation);
    }
    match (rules.role, masked) {
        (Role::Server, Some(false)) => return Err(ProtocolError::MaskMissing),
        (Role::Client, Some(true)) => return Err(ProtocolError::MaskForbidden),
        _ => {}
    }
    if control && extended != 0 {
        return Err(ProtocolError::ControlTooLong);
    }
    let mut len = u128::from(bytes[1] & 127);
    if extended != 0 {
        len = bytes[2..2 + extended].iter().fold(0, |sum, byte| sum * 256 + u128::from(*byte));
        if len >= 1 << 63 {
            return Err(ProtocolError::LengthTopBit);
        }
        if len < if extended == 2 { 126 } else { 65_536 } {
            return Err(ProtocolError::LengthNotMinimal);
        }
    }
    if !control && len > u128::from(rules.limits.max_frame) {
        return Err(ProtocolError::FrameTooBig);
    }
    if !control {
        if opcode != 0 {
            *open = Some((opcode, rsv1, Vec::new(), 0));
        }
        let (.., sum) = open.as_mut().expect("a continuation was refused above");
        *sum = sum.saturating_add(len as u64);
        if *sum > rules.limits.max_message {
            return Err(ProtocolError::MessageTooBig);
        }
    }

    let key = &bytes[head - key_bytes..head];
    let here = &bytes[head..];
    let whole = here.len() as u128 >= len;
    let here = if whole { &here[..len as usize] } else { here };
    let payload: Vec<u8> = if key.is_empty() {
        here.to_vec()
    } else {
        here.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    };
    *rest = &bytes[head + here.len()..];

    if control {
        if whole {
            events.push(read_control(opcode, payload)?);
        }
        return Ok(whole);
    }
    let (opcode, rsv1, text, _) = open.as_mut().expect("opened above");
    text.extend(payload);
    if *opcode == 1
        && !*rsv1
        && let Err(error) = std::str::from_utf8(text)
        && (error.error_len().is_some() || (whole && fin))
    {
        return Err(ProtocolError::InvalidUtf8);
    }
    if whole && fin {
        let (opcode, rsv1, payload, _) = open.take().expect("opened above");
        events.push(Event::Message { opcode, rsv1, payload });
    }
    Ok(whole)
}

fn read_control(opcode: u8, payload: Vec<u8>) -> Result<Event, ProtocolError> {
    match (opcode, payload.len()) {
        (9, _) => Ok(Event::Ping(payload)),
        (10, _) => Ok(Event::Pong(payload)),
        (_, 0) => Ok(Event::Close(None)),
        (_, 1) => Err(ProtocolError::CloseTooShort),
        _ => {
            let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
            let assigned = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
            if !assigned.contains(&code) && !(3000..5000).contains(&code) {
                return Err(ProtocolError::BadCloseCode(code));
            }
            let reason =
                String::from_utf8(payload[2..].to_vec()).map_err(|_| ProtocolError::InvalidUtf8)?;
            Ok(Event::Close(Some((code, reason))))
        }
    }
}

/// Feeds the decoder `stream` in pieces whose sizes are `cuts`, then what is left in one, and
/// joins the parts of messages. Checks on the way what holds for every item.
pub fn decode(
    stream: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    rules: &Rules,
) -> (Vec<Event>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    let mut open: Option<(u8, bool, Vec<u8>)> = None;
    let mut rest = stream;
    let mut cuts = cuts.into_iter();
    while !rest.is_empty() {
        let cut = cuts.next().unwrap_or(rest.len()).min(rest.len());
        let mut piece = rest[..cut].to_vec();
        rest = &rest[cut..];
        let mut window = &mut piece[..];
        // Each item takes at least one byte; one more call finds the window empty.
        for _ in 0..=cut {
            match decoder.next(rules, &mut window) {
                Ok(Some(item)) => take_item(item, rules, &mut open, &mut events),
                Ok(None) => break,
                Err(error) => {
                    let mut legal = [0x81, 0x80, 0, 0, 0, 0];
                    let again = decoder.next(rules, &mut &mut legal[..]);
                    assert_eq!(again, Err(error), "a dead decoder repeats its error");
                    return (events, Err(error));
                }
            }
        }
        assert!(window.is_empty(), "None means that the window is used up");
        assert!(!decoder.is_idle() || open.is_none());
    }
    if let Some((opcode, rsv1, payload)) = open
        && !matches!(events.last(), Some(Event::Close(_)))
    {
        events.push(Event::Unfinished { opcode, rsv1, payload });
    }
    (events, Ok(()))
}

fn take_item(
    item: Item<'_>,
    rules: &Rules,
    open: &mut Option<(u8, bool, Vec<u8>)>,
    events: &mut Vec<Event>,
) {
    match item {
        Item::Message { opcode, rsv1, head, room } => {
            assert!(open.is_none());
            let masked = rules.role == Role::Server;
            assert_eq!(head, encode::header_len((room.len() - head) as u64, masked));
            let payload = room[head..].to_vec();
            events.push(Event::Message { opcode: opcode as u8, rsv1, payload });
        }
        Item::Part { opcode, rsv1, first, last, data, frame_left } => {
            assert!(matches!(opcode, Opcode::Text | Opcode::Binary));
            assert_eq!(first, open.is_none());
            assert!(last || !data.is_empty());
            assert!(!last || frame_left == 0);
            let message = open.get_or_insert_with(|| (opcode as u8, rsv1, Vec::new()));
            assert_eq!((message.0, message.1), (opcode as u8, rsv1));
            message.2.extend_from_slice(data);
            if last && let Some((opcode, rsv1, payload)) = open.take() {
                events.push(Event::Message { opcode, rsv1, payload });
            }
        }
        Item::Ping(payload) => events.push(Event::Ping(payload.to_vec())),
        Item::Pong(payload) => events.push(Event::Pong(payload.to_vec())),
        Item::Close(close) => {
            events.push(Event::Close(close.map(|(code, why)| (code.get(), why.to_string()))));
        }
    }
}

/// Asserts that the decoder reads `stream`, cut at `cuts`, as the reference does.
pub fn assert_same(stream: &[u8], cuts: impl IntoIterator<Item = usize>, rules: &Rules) {
    let (expected, end) = read_all(stream, rules);
    let (got, result) = decode(stream, cuts, rules);
    match end {
        End::Clean => assert_eq!((&got, result), (&expected, Ok(()))),
        End::Error(error) => {
            // What the decoder had handed out of the broken message is not compared.
            assert_eq!(result, Err(error));
            assert_eq!(got, expected);
        }
        End::InsideHeader if result.is_ok() => assert_eq!(got, expected),
        End::InsideHeader => {
            let finished = expected.iter().filter(|e| !matches!(e, Event::Unfinished { .. }));
            assert!(got.iter().eq(finished));
        }
    }
}
