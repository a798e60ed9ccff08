//! The seam for message extensions, proved by an extension of a few lines: it turns every byte
//! over and marks the message with RSV1.

use hioload_ws_proto::ext::{Extension, Negotiator, negotiate};
use hioload_ws_proto::handshake::{ExtensionOffer, HeaderSlots, ResponseHead, parse_request};
use hioload_ws_proto::{
    Decoder, Item, Limits, Opcode, ProtocolError, Role, Rules, Utf8Stream, encode,
};

struct Inverting {
    most: u8,
}

struct Inverted {
    by: u8,
}

impl Negotiator for Inverting {
    type Extension = Inverted;

    fn accept(&self, offer: ExtensionOffer<'_>) -> Option<(String, Inverted)> {
        let (name, value) = offer.params().next()?;
        let by = value?.parse().ok().filter(|by| *by <= self.most)?;
        (offer.name() == "x-invert" && name == "by")
            .then(|| (format!("x-invert; by={by}"), Inverted { by }))
    }
}

impl Extension for Inverted {
    fn inbound(
        &mut self,
        part: &[u8],
        _last: bool,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ProtocolError> {
        if out.len() + part.len() > limit {
            return Err(ProtocolError::MessageTooBig);
        }
        out.extend(part.iter().map(|byte| byte ^ self.by));
        Ok(())
    }

    fn outbound(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        out.extend(message.iter().map(|byte| byte ^ self.by));
        true
    }
}

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: other, x-invert; by=200, x-invert; by=90\r\n\r\n";

#[test]
fn the_first_acceptable_offer_is_taken_and_answered() {
    let mut slots = HeaderSlots::new();
    let request = parse_request(HEAD, &mut slots).unwrap();
    let mut response = ResponseHead::new(&request);
    let extension = negotiate(&Inverting { most: 100 }, &request, &mut response).unwrap();
    assert_eq!(extension.map(|extension| extension.by), Some(90));
    let mut out = Vec::new();
    response.write(&mut out);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("\r\nSec-WebSocket-Extensions: x-invert; by=90\r\n"), "{out}");

    let mut response = ResponseHead::new(&request);
    assert!(negotiate(&Inverting { most: 1 }, &request, &mut response).unwrap().is_none());
}

#[test]
fn a_marked_message_is_transformed_both_ways_whole_or_in_parts() {
    let rules = Rules { rsv1: true, ..Rules::new(Role::Server, Limits::default()) };
    let mut extension = Inverted { by: 0x9A };
    let text = "Grüße".as_bytes();
    let mut payload = Vec::new();
    assert!(extension.outbound(text, &mut payload));

    let mut frame = vec![0; encode::MAX_HEADER];
    let len = payload.len() as u64;
    let head = encode::write_header(&mut frame, true, true, Opcode::Text, len, Some([0, 0, 0, 0]));
    frame.truncate(head);
    frame.extend(payload);

    for cut in 0..frame.len() {
        let mut bytes = frame.clone();
        let (front, back) = bytes.split_at_mut(cut);
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        let mut done = false;
        for mut window in [front, back] {
            while let Some(item) = decoder.next(&rules, &mut window).unwrap() {
                let (data, last) = match item {
                    Item::Message { rsv1: true, head, room, .. } => (&room[head..], true),
                    Item::Part { rsv1: true, data, last, .. } => (&*data, last),
                    other => panic!("not a marked message: {other:?}"),
                };
                extension.inbound(data, last, &mut out, 64).unwrap();
                done |= last;
            }
        }
        assert!(done);
        assert_eq!(out, text);
        assert_eq!(Utf8Stream::new().push(&out), Ok(()));
    }
    assert_eq!(
        extension.inbound(&[0; 65], true, &mut Vec::new(), 64),
        Err(ProtocolError::MessageTooBig)
    );
}
