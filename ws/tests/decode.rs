//! The decoder against the RFC's examples, rule by rule, and against the reference decoder on
//! streams cut in every way.

mod reference;

use hioload_ws_proto::{
    CloseCode, Decoder, Item, Limits, Opcode, ProtocolError, Role, Rules, encode, parse_header,
};
use proptest::prelude::*;
use reference::{Event, assert_same, decode};

const LIMITS: Limits = Limits { max_frame: 70_000, max_message: 100_000 };
const SERVER: Rules = Rules::new(Role::Server, LIMITS);
const CLIENT: Rules = Rules::new(Role::Client, LIMITS);

/// A frame as the peer of `rules.role` writes it.
fn frame(rules: &Rules, fin: bool, rsv1: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask = (rules.role == Role::Server).then_some([0x37, 0xFA, 0x21, 0x3D]);
    let mut out = [0; encode::MAX_HEADER];
    let len = encode::write_header(&mut out, fin, rsv1, opcode, payload.len() as u64, mask);
    let key = mask.unwrap_or_default();
    let body = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    out[..len].iter().copied().chain(body).collect()
}

fn text(payload: &[u8]) -> Event {
    Event::Message { opcode: 1, rsv1: false, payload: payload.to_vec() }
}

/// The error that `stream` ends in, which must be the same byte by byte and all at once.
fn refused(rules: &Rules, stream: &[u8]) -> ProtocolError {
    let (_, whole) = decode(stream, [], rules);
    let (_, bytewise) = decode(stream, std::iter::repeat_n(1, stream.len()), rules);
    assert_eq!(whole, bytewise);
    whole.expect_err("the stream is illegal")
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 6455 §5.7.
    let hello = b"\x81\x05Hello";
    let masked_hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let fragmented = b"\x01\x03Hel\x80\x02lo";
    let ping = b"\x89\x05Hello";
    let masked_pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(decode(hello, [], &CLIENT), (vec![text(b"Hello")], Ok(())));
    assert_eq!(decode(masked_hello, [], &SERVER), (vec![text(b"Hello")], Ok(())));
    assert_eq!(decode(fragmented, [], &CLIENT), (vec![text(b"Hello")], Ok(())));
    assert_eq!(decode(ping, [], &CLIENT), (vec![Event::Ping(b"Hello".to_vec())], Ok(())));
    assert_eq!(decode(masked_pong, [], &SERVER), (vec![Event::Pong(b"Hello".to_vec())], Ok(())));
    for (head, len) in [(&b"\x82\x7e\x01\x00"[..], 256), (b"\x82\x7f\0\0\0\0\0\x01\0\0", 65_536)] {
        let header = parse_header(head, &CLIENT).unwrap().unwrap();
        assert_eq!((header.payload_len(), header.header_len()), (len, head.len()));
    }
}

#[test]
fn a_whole_message_comes_with_its_header_for_the_reply_to_overwrite() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let mut bytes = frame(&SERVER, true, false, Opcode::Binary, &vec![7; len]);
        bytes.extend(frame(&SERVER, true, false, Opcode::Ping, b"next"));
        let mut window = &mut bytes[..];
        let mut decoder = Decoder::new();
        let Ok(Some(Item::Message { head, room, .. })) = decoder.next(&SERVER, &mut window) else {
            panic!("a whole frame is a message");
        };
        let start = encode::write_header_before(room, head, true, false, Opcode::Binary, None);
        assert_eq!(start, 4);
        let reply = parse_header(&room[start..], &CLIENT).unwrap().unwrap();
        assert_eq!(reply.payload_len(), len as u64);
        assert!(room[head..].iter().all(|&byte| byte == 7));
        assert!(decoder.is_idle());
        assert!(matches!(decoder.next(&SERVER, &mut window), Ok(Some(Item::Ping(_)))));
        assert_eq!(decoder.next(&SERVER, &mut window), Ok(None));
    }
}

#[test]
fn ping_between_fragments_comes_out_when_it_arrives() {
    let mut bytes = frame(&SERVER, false, false, Opcode::Text, b"Hel");
    bytes.extend(frame(&SERVER, true, false, Opcode::Ping, b"?"));
    bytes.extend(frame(&SERVER, true, false, Opcode::Continuation, b"lo"));
    let mut window = &mut bytes[..];
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    while let Some(item) = decoder.next(&SERVER, &mut window).unwrap() {
        seen.push(match item {
            Item::Part { first, last, data, .. } => format!("{first} {last} {}", data.len()),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["true false 3", "Ping([63])", "false true 2"]);
}

#[test]
fn a_part_says_how_much_its_frame_still_owes() {
    let mut bytes = frame(&SERVER, true, false, Opcode::Binary, &[1; 1000]);
    let mut decoder = Decoder::new();
    let mut window = &mut bytes[..108];
    let Ok(Some(Item::Part { first, last, data, frame_left, .. })) =
        decoder.next(&SERVER, &mut window)
    else {
        panic!("half a frame is a part");
    };
    assert_eq!((first, last, data.len(), frame_left), (true, false, 100, 900));
    assert!(!decoder.is_idle());
}

#[test]
fn reserved_bits_are_refused_unless_an_extension_owns_them() {
    for bits in 1..8u8 {
        let first = 0x81 | bits << 4;
        assert_eq!(refused(&SERVER, &[first]), ProtocolError::ReservedBit);
        let owned = Rules { rsv1: true, ..SERVER };
        if bits == 4 {
            assert_eq!(parse_header(&[first], &owned), Ok(None));
        } else {
            assert_eq!(refused(&owned, &[first]), ProtocolError::ReservedBit);
        }
    }
    let owned = Rules { rsv1: true, ..SERVER };
    for first in [0xC0, 0xC8, 0xC9, 0xCA] {
        assert_eq!(refused(&owned, &[first]), ProtocolError::ReservedBit);
    }
}

#[test]
fn reserved_opcodes_and_fragmented_controls_are_refused_on_the_first_byte() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(refused(&SERVER, &[0x80 | opcode]), ProtocolError::ReservedOpcode(opcode));
    }
    for opcode in [8, 9, 10] {
        assert_eq!(refused(&SERVER, &[opcode]), ProtocolError::FragmentedControl);
    }
}

#[test]
fn a_mask_is_required_of_clients_and_forbidden_to_servers() {
    assert_eq!(refused(&SERVER, &[0x81, 0x05]), ProtocolError::MaskMissing);
    assert_eq!(refused(&CLIENT, &[0x81, 0x85]), ProtocolError::MaskForbidden);
}

#[test]
fn a_control_frame_above_125_bytes_is_refused_on_its_second_byte() {
    for length in [126, 127] {
        assert_eq!(refused(&SERVER, &[0x89, 0x80 | length]), ProtocolError::ControlTooLong);
    }
    let longest = frame(&SERVER, true, false, Opcode::Ping, &[9; 125]);
    assert_eq!(decode(&longest, [], &SERVER), (vec![Event::Ping(vec![9; 125])], Ok(())));
}

#[test]
fn a_length_in_a_longer_form_than_it_needs_is_refused() {
    for bytes in [&b"\x82\xfe\0\x7d"[..], b"\x82\xff\0\0\0\0\0\0"] {
        assert_eq!(refused(&SERVER, bytes), ProtocolError::LengthNotMinimal);
        let all_but_one = &bytes[..bytes.len() - 1];
        assert_eq!(parse_header(all_but_one, &SERVER), Ok(None));
    }
    assert_eq!(parse_header(b"\x82\xfe\0\x7e", &SERVER), Ok(None));
}

#[test]
fn a_length_with_its_top_bit_is_refused_on_that_bit() {
    assert_eq!(refused(&SERVER, b"\x82\xff\x80"), ProtocolError::LengthTopBit);
    let most = Rules::new(Role::Server, Limits { max_frame: u64::MAX, max_message: u64::MAX });
    let header = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
    assert_eq!(parse_header(header, &most).unwrap().unwrap().payload_len(), i64::MAX as u64);
    // Two of them: the sum must not wrap.
    let twice = [&b"\x02\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"[..], b"x"].concat();
    assert!(decode(&twice, [], &most).1.is_ok());
}

#[test]
fn a_frame_above_its_limit_is_refused_before_its_payload() {
    let limit = Rules::new(Role::Server, Limits { max_frame: 300, max_message: 1000 });
    assert_eq!(refused(&limit, b"\x82\xfe\x01\x2d"), ProtocolError::FrameTooBig);
    assert_eq!(refused(&limit, b"\x82\xfe\x02"), ProtocolError::FrameTooBig);
    assert_eq!(refused(&limit, b"\x82\xff\0\0\0\0\0\x01"), ProtocolError::FrameTooBig);
    assert_eq!(parse_header(b"\x82\xfe\x01\x2c", &limit), Ok(None));
    let none = Rules::new(Role::Server, Limits { max_frame: 0, max_message: 0 });
    assert_eq!(refused(&none, b"\x82\x81"), ProtocolError::FrameTooBig);
    assert!(parse_header(b"\x89\x85\0\0\0\0", &none).unwrap().is_some(), "controls have no limit");
}

#[test]
fn a_message_above_its_limit_is_refused_on_the_header_that_exceeds_it() {
    let limit = Rules::new(Role::Server, Limits { max_frame: 100, max_message: 150 });
    let mut bytes = frame(&limit, false, false, Opcode::Binary, &[0; 100]);
    bytes.extend(frame(&limit, false, false, Opcode::Continuation, &[0; 50]));
    assert!(decode(&bytes, [], &limit).1.is_ok());
    bytes.extend([0x80, 0x81, 0, 0, 0, 0]);
    assert_eq!(refused(&limit, &bytes), ProtocolError::MessageTooBig);
    let single = Rules::new(Role::Server, Limits { max_frame: 100, max_message: 50 });
    let bytes = frame(&single, true, false, Opcode::Binary, &[0; 51]);
    assert_eq!(refused(&single, &bytes), ProtocolError::MessageTooBig);
}

#[test]
fn continuations_are_only_for_open_messages() {
    assert_eq!(refused(&SERVER, &[0x80]), ProtocolError::UnexpectedContinuation);
    let mut open = frame(&SERVER, false, false, Opcode::Text, b"");
    open.push(0x81);
    assert_eq!(refused(&SERVER, &open), ProtocolError::ExpectedContinuation);
    let mut done = frame(&SERVER, false, false, Opcode::Text, b"a");
    done.extend(frame(&SERVER, true, false, Opcode::Continuation, b""));
    assert_eq!(decode(&done, [], &SERVER), (vec![text(b"a")], Ok(())));
    done.push(0x00);
    assert_eq!(refused(&SERVER, &done), ProtocolError::UnexpectedContinuation);
}

#[test]
fn text_fails_with_the_first_impossible_byte_and_binary_never() {
    let bytes = frame(&SERVER, false, false, Opcode::Text, b"ok \xf4\x90\x80\x80");
    let at = bytes.len() - 2;
    assert!(decode(&bytes[..at - 1], [], &SERVER).1.is_ok());
    assert_eq!(refused(&SERVER, &bytes[..at]), ProtocolError::InvalidUtf8);
    let unfinished = frame(&SERVER, true, false, Opcode::Text, b"\xe2\x82");
    assert_eq!(refused(&SERVER, &unfinished), ProtocolError::InvalidUtf8);
    let binary = frame(&SERVER, true, false, Opcode::Binary, b"\xe2\x82");
    assert!(decode(&binary, [], &SERVER).1.is_ok());
}

#[test]
fn plain_letters_inside_an_unfinished_character_fail_at_once() {
    let mut bytes = frame(&SERVER, false, false, Opcode::Text, b"\xe2\x82");
    bytes.extend(frame(&SERVER, false, false, Opcode::Continuation, b"plain"));
    assert_eq!(refused(&SERVER, &bytes), ProtocolError::InvalidUtf8);
}

#[test]
fn text_under_an_extension_is_left_to_it() {
    let owned = Rules { rsv1: true, ..SERVER };
    let bytes = frame(&owned, true, true, Opcode::Text, b"\xff");
    let message = Event::Message { opcode: 1, rsv1: true, payload: vec![0xFF] };
    assert_eq!(decode(&bytes, [], &owned), (vec![message], Ok(())));
    assert_same(&bytes, [7], &owned);
}

#[test]
fn a_character_may_straddle_fragments() {
    let mut bytes = frame(&SERVER, false, false, Opcode::Text, b"\xf0\x9f");
    bytes.extend(frame(&SERVER, false, false, Opcode::Continuation, b""));
    bytes.extend(frame(&SERVER, true, false, Opcode::Continuation, b"\xa6\x80"));
    assert_eq!(decode(&bytes, [], &SERVER), (vec![text("🦀".as_bytes())], Ok(())));
}

#[test]
fn what_follows_a_close_is_discarded() {
    let mut bytes = frame(&SERVER, true, false, Opcode::Close, b"\x03\xe8bye");
    bytes.extend([0xFF; 100]);
    let close = Event::Close(Some((CloseCode::NORMAL.get(), "bye".into())));
    assert_eq!(decode(&bytes, [], &SERVER), (vec![close], Ok(())));
}

#[test]
fn bad_closes_are_refused_with_the_code_that_fits() {
    for (payload, error, code) in [
        (&b"\x03"[..], ProtocolError::CloseTooShort, CloseCode::PROTOCOL_ERROR),
        (b"\x03\xed", ProtocolError::BadCloseCode(1005), CloseCode::PROTOCOL_ERROR),
        (b"\x03\xe8\xff", ProtocolError::InvalidUtf8, CloseCode::INVALID_DATA),
    ] {
        let bytes = frame(&SERVER, true, false, Opcode::Close, payload);
        assert_eq!(refused(&SERVER, &bytes), error);
        assert_eq!(error.close_code(), code);
    }
    assert_eq!(ProtocolError::MessageTooBig.close_code(), CloseCode::TOO_BIG);
}

/// A partial header is refused exactly when nothing that could follow makes it legal.
#[test]
fn a_partial_header_is_refused_exactly_when_it_is_lost() {
    let rules = Rules::new(Role::Client, Limits { max_frame: 0x0001_23FF, max_message: u64::MAX });
    let interesting = [0x00, 0x01, 0x02, 0x23, 0x24, 0x7D, 0x7E, 0x7F, 0x80, 0xFF];
    let mut partials: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for first in [0x82, 0x02, 0x89] {
        for second in [0, 125, 126, 127, 128, 255] {
            partials.push(vec![first, second]);
        }
        for length in interesting {
            partials.push(vec![first, 126, length]);
            for at in 2..9 {
                for next in interesting {
                    let mut partial = vec![first, 127];
                    partial.resize(at, 0);
                    partial.extend([length, next]);
                    partial.truncate(9);
                    partials.push(partial);
                }
            }
        }
    }
    for partial in partials {
        let Ok(None) = parse_header(&partial, &rules) else {
            let whole = parse_header(&partial, &rules);
            assert!(whole.is_ok() || !can_be_completed(&partial, &rules), "{partial:x?}");
            continue;
        };
        assert!(can_be_completed(&partial, &rules), "{partial:x?} is lost, and waited for");
    }
}

fn can_be_completed(partial: &[u8], rules: &Rules) -> bool {
    // Nothing, everything, and one byte that counts: one of them is legal if anything is.
    let one_byte = (0..9).flat_map(|at| {
        [0x01, 0x7D, 0x7E, 0x7F, 0x80, 0xFF].map(|byte| {
            let mut tail = [0; 9];
            tail[at] = byte;
            tail
        })
    });
    let tails = [[0x00; 9], [0xFF; 9]].into_iter().chain(one_byte);
    let seconds: &[u8] = if partial.len() == 1 { &[0, 126, 127] } else { &[] };
    let starts = seconds.iter().map(|&second| vec![partial[0], second]).chain([partial.to_vec()]);
    starts
        .flat_map(|start| tails.clone().map(move |tail| [&start[..], &tail].concat()))
        .any(|bytes| matches!(parse_header(&bytes, rules), Ok(Some(_))))
}

#[test]
fn a_stream_reads_the_same_cut_at_every_two_places() {
    let mut bytes = frame(&SERVER, false, false, Opcode::Text, "Grüße".as_bytes());
    bytes.extend(frame(&SERVER, true, false, Opcode::Ping, b"ping"));
    bytes.extend(frame(&SERVER, false, false, Opcode::Continuation, b""));
    bytes.extend(frame(&SERVER, true, false, Opcode::Continuation, "🦀".as_bytes()));
    bytes.extend(frame(&SERVER, true, false, Opcode::Binary, &[1; 130]));
    bytes.extend(frame(&SERVER, true, false, Opcode::Text, b""));
    bytes.extend(frame(&SERVER, true, false, Opcode::Close, b"\x03\xe8done"));
    for first in 0..=bytes.len() {
        for second in (0..=bytes.len() - first).step_by(if first % 5 == 0 { 1 } else { 13 }) {
            assert_same(&bytes, [first, second], &SERVER);
        }
    }
    assert_same(&bytes, std::iter::repeat_n(1, bytes.len()), &SERVER);
}

/// Frames, most of them legal, as a peer may send them.
fn streams() -> impl Strategy<Value = (Rules, Vec<u8>)> {
    let payload = prop_oneof![
        6 => "[a-zü€🦀]{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => (120usize..132, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => (65_530usize..65_540, 0..128u8).prop_map(|(len, byte)| vec![byte; len]),
    ];
    let opcode = prop_oneof![
        3 => Just(Opcode::Text),
        3 => Just(Opcode::Binary),
        5 => Just(Opcode::Continuation),
        2 => Just(Opcode::Ping),
        1 => Just(Opcode::Pong),
        1 => Just(Opcode::Close),
    ];
    let frames = proptest::collection::vec((any::<bool>(), any::<bool>(), opcode, payload), 1..12);
    (any::<bool>(), any::<bool>(), frames, any::<prop::sample::Index>(), 0..40u8).prop_map(
        |(server, rsv1, frames, victim, damage)| {
            let rules = Rules { rsv1, ..if server { SERVER } else { CLIENT } };
            let mut bytes = Vec::new();
            let mut open = false;
            for (fin, mark, mut opcode, mut payload) in frames {
                let mut fin = fin;
                if opcode.is_control() {
                    (fin, payload) = (true, payload.into_iter().take(125).collect());
                    if opcode == Opcode::Close && payload.len() > 1 {
                        payload[..2].copy_from_slice(&1000u16.to_be_bytes());
                    }
                } else {
                    opcode = match (open, opcode) {
                        (true, _) => Opcode::Continuation,
                        (false, Opcode::Continuation) => Opcode::Binary,
                        (false, other) => other,
                    };
                    open = !fin;
                }
                let mark = mark && rsv1 && matches!(opcode, Opcode::Text | Opcode::Binary);
                bytes.extend(frame(&rules, fin, mark, opcode, &payload));
            }
            // One stream in four has one bit turned somewhere.
            if damage < 10
                && let Some(byte) = bytes.get_mut(victim.index(usize::MAX) % 400)
            {
                *byte ^= 1 << (damage % 8);
            }
            (rules, bytes)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_split_of_every_stream_reads_as_the_reference_does(
        (rules, bytes) in streams(),
        cuts in proptest::collection::vec(prop_oneof![0usize..20, 0usize..3000], 0..60),
    ) {
        assert_same(&bytes, [], &rules);
        assert_same(&bytes, cuts, &rules);
        assert_same(&bytes, std::iter::repeat_n(1, bytes.len().min(3000)), &rules);
    }

    #[test]
    fn no_bytes_do_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(0usize..20, 0..30),
        server: bool,
    ) {
        assert_same(&bytes, cuts, if server { &SERVER } else { &CLIENT });
    }
}
