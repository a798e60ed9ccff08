//! Any stream, cut anywhere, must read as the reference decoder reads it whole. To get past the
//! headers the input is a list of pieces: raw bytes, or a frame with its header written for it.

#![no_main]

#[path = "../../ws/tests/reference/mod.rs"]
mod reference;

use hioload_fuzz::decode::{Input, Piece};
use hioload_ws_proto::{Limits, Opcode, Role, Rules, encode};
use libfuzzer_sys::fuzz_target;

const OPCODES: [Opcode; 6] =
    [Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping, Opcode::Pong, Opcode::Close];

fuzz_target!(|input: Input| {
    let role = if input.server { Role::Server } else { Role::Client };
    let limits =
        Limits { max_frame: input.max_frame.into(), max_message: input.max_message.into() };
    let rules = Rules { rsv1: input.rsv1, ..Rules::new(role, limits) };
    let mut stream = Vec::new();
    for piece in input.pieces.iter().take(64) {
        match piece {
            Piece::Raw(bytes) => stream.extend_from_slice(bytes),
            Piece::Frame { fin, rsv1, opcode, key, payload, repeat } => {
                let payload = payload.repeat(usize::from(*repeat) % 16);
                let opcode = OPCODES[usize::from(*opcode) % OPCODES.len()];
                let mask = input.server.then_some(*key);
                let mut head = [0; encode::MAX_HEADER];
                let len = payload.len() as u64;
                let len = encode::write_header(&mut head, *fin, *rsv1, opcode, len, mask);
                stream.extend_from_slice(&head[..len]);
                let key = mask.unwrap_or_default();
                stream.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
            }
        }
    }
    reference::assert_same(&stream, [], &rules);
    reference::assert_same(&stream, input.cuts.iter().map(|&cut| cut.into()), &rules);
    reference::assert_same(&stream, std::iter::repeat_n(1, stream.len().min(4096)), &rules);
});
