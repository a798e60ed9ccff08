//! The input of the target `decode`: a stream as a list of pieces.

use arbitrary::Arbitrary;

use crate::{Bytes, variant};

/// A stream, who reads it, and where it is cut.
#[derive(Arbitrary, Clone, PartialEq, Debug)]
pub struct Input {
    pub server: bool,
    pub rsv1: bool,
    pub max_frame: u16,
    pub max_message: u16,
    pub pieces: Vec<Piece>,
    pub cuts: Vec<u8>,
}

/// A part of a stream.
#[derive(Arbitrary, Clone, PartialEq, Debug)]
pub enum Piece {
    /// Any bytes at all.
    Raw(Vec<u8>),
    /// A frame whose header is written for it; the payload is there `repeat` times.
    Frame { fin: bool, rsv1: bool, opcode: u8, key: [u8; 4], payload: Vec<u8>, repeat: u8 },
}

impl Bytes for Input {
    fn put(&self, out: &mut Vec<u8>) {
        let Input { server, rsv1, max_frame, max_message, pieces, cuts } = self;
        (*server, *rsv1).put(out);
        (*max_frame, *max_message).put(out);
        pieces.put(out);
        cuts.put(out);
    }
}

impl Bytes for Piece {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Piece::Raw(bytes) => {
                variant(0, 2, out);
                bytes.put(out);
            }
            Piece::Frame { fin, rsv1, opcode, key, payload, repeat } => {
                variant(1, 2, out);
                (*fin, *rsv1).put(out);
                (*opcode, *key).put(out);
                payload.put(out);
                repeat.put(out);
            }
        }
    }
}
