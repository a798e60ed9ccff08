//! The input of the target `encode_roundtrip`.

use arbitrary::Arbitrary;

use crate::Bytes;

/// A message, a length to announce, and a reason to close.
#[derive(Arbitrary, Clone, PartialEq, Debug)]
pub struct Input {
    pub key: Option<[u8; 4]>,
    pub payload: Vec<u8>,
    pub repeat: u16,
    pub room: u16,
    pub announced: u64,
    pub close: u16,
    pub reason: String,
}

impl Bytes for Input {
    fn put(&self, out: &mut Vec<u8>) {
        let Input { key, payload, repeat, room, announced, close, reason } = self;
        key.put(out);
        payload.put(out);
        (*repeat, *room).put(out);
        (*announced, *close).put(out);
        // Last, so it takes all that is left.
        out.extend(reason.as_bytes());
    }
}
