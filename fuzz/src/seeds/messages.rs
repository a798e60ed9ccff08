//! Frames in both roles: what the decoder reads, what the encoder writes.

use hioload_fuzz::decode::{Input, Piece};
use hioload_fuzz::{encode_roundtrip, seed};

use crate::Seeds;

/// As the target `decode` numbers them.
const TEXT: u8 = 0;
const BINARY: u8 = 1;
const CONTINUATION: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const CLOSE: u8 = 5;

fn frame(fin: bool, opcode: u8, payload: &[u8], repeat: u8) -> Piece {
    let key = [0x12, 0x34, 0x56, 0x78];
    Piece::Frame { fin, rsv1: false, opcode, key, payload: payload.to_vec(), repeat }
}

fn whole(opcode: u8, payload: &[u8]) -> Piece {
    frame(true, opcode, payload, 1)
}

pub fn decode() -> Seeds {
    let input = |pieces: &[Piece]| Input {
        server: true,
        rsv1: false,
        max_frame: 4096,
        max_message: 4096,
        pieces: pieces.to_vec(),
        cuts: vec![1, 3, 0, 7],
    };
    let streams: [(&'static str, Vec<Piece>); 15] = [
        ("text", vec![whole(TEXT, "hé, wörld ✓".as_bytes())]),
        ("pipelined", vec![whole(TEXT, b"one"), whole(BINARY, &[0, 255]), whole(TEXT, b"")]),
        ("length_16_bits", vec![frame(true, BINARY, b"0123456789", 15)]),
        ("too_large", vec![frame(true, BINARY, &[7; 300], 15)]),
        (
            "ping_between_fragments",
            vec![
                frame(false, TEXT, "a é".as_bytes(), 1),
                whole(PING, b"ping"),
                frame(false, CONTINUATION, b"\xe2\x9c", 1),
                whole(PONG, b""),
                whole(CONTINUATION, b"\x93"),
            ],
        ),
        ("close", vec![whole(CLOSE, b"\x03\xe8done"), whole(TEXT, b"late")]),
        ("close_empty", vec![whole(CLOSE, b"")]),
        ("close_bad_code", vec![whole(CLOSE, b"\x03\xed")]),
        ("close_half_a_code", vec![whole(CLOSE, b"\x03")]),
        ("not_utf8", vec![frame(false, TEXT, b"a\xf0\x9f", 1), whole(CONTINUATION, b"b")]),
        ("ping_too_long", vec![frame(true, PING, b"0123456789", 13)]),
        ("ping_in_fragments", vec![frame(false, PING, b"a", 1)]),
        ("nothing_to_continue", vec![whole(CONTINUATION, b"a")]),
        ("not_continued", vec![frame(false, BINARY, b"a", 1), whole(TEXT, b"b")]),
        ("raw", vec![Piece::Raw(vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4])]),
    ];
    let mut seeds: Seeds =
        streams.iter().map(|(name, pieces)| (*name, seed(&input(pieces)))).collect();
    let client =
        Input { server: false, ..input(&[whole(TEXT, b"to a client"), whole(CLOSE, b"")]) };
    seeds.push(("client", seed(&client)));
    let masked = Piece::Raw(vec![0x81, 0x81, 1, 2, 3, 4, 0x60]);
    seeds.push(("client_masked", seed(&Input { server: false, ..input(&[masked]) })));
    let first = Piece::Frame {
        fin: false,
        rsv1: true,
        opcode: TEXT,
        key: [1, 2, 3, 4],
        payload: vec![0xaa, 0],
        repeat: 3,
    };
    let deflated = [first, whole(CONTINUATION, &[0])];
    seeds.push(("rsv1", seed(&Input { rsv1: true, ..input(&deflated) })));
    seeds.push(("rsv1_unasked", seed(&input(&deflated))));
    seeds
}

pub fn encode_roundtrip() -> Seeds {
    let input = |masked: bool, len: u16, room: u16, announced: u64, close: u16, reason: &str| {
        seed(&encode_roundtrip::Input {
            key: masked.then_some([0x12, 0x34, 0x56, 0x78]),
            payload: b"0123456789abcde"[..15.min(len.into())].to_vec(),
            repeat: len / 15,
            room,
            announced,
            close,
            reason: reason.to_owned(),
        })
    };
    vec![
        ("empty", input(false, 0, 2, 0, 1000, "")),
        ("short", input(true, 120, 6, 125 << 1, 1001, "going away")),
        ("length_7_bits", input(false, 125, 2, 126 << 1, 1009, "too large")),
        ("length_16_bits", input(true, 135, 8, 0xffff << 1, 1011, "é")),
        ("length_64_bits", input(true, 15_000, 14, 0x1_0000 << 1, 3000, "an application's")),
        ("no_room", input(false, 300, 1, u64::MAX, 4999, &"long ✓ ".repeat(20))),
        ("bad_code", input(true, 30, 6, 1 << 62, 1005, "never sent")),
    ]
}
