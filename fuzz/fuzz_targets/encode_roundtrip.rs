//! What is encoded in one role is decoded in the other, unchanged.

#![no_main]

use hioload_fuzz::encode_roundtrip::Input;
use hioload_ws_proto::{
    CloseCode, ControlPayload, Decoder, Item, Limits, Opcode, Role, Rules, encode, mask,
    parse_close, parse_header, write_close,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    let role = if input.key.is_some() { Role::Server } else { Role::Client };
    let most = Limits { max_frame: u64::MAX, max_message: u64::MAX };
    let rules = Rules::new(role, most);

    let payload = input.payload.repeat(usize::from(input.repeat) % 1024);
    let mut out = vec![0xEE; payload.len() + usize::from(input.room) % 20];
    match encode::encode_into(&mut out, Opcode::Binary, &payload, input.key) {
        None => {
            assert!(out.iter().all(|&byte| byte == 0xEE), "nothing is written of what won't fit");
            assert!(
                out.len()
                    < encode::header_len(payload.len() as u64, input.key.is_some()) + payload.len()
            );
        }
        Some(len) => {
            let mut window = &mut out[..len];
            let item = Decoder::new().next(&rules, &mut window);
            let Ok(Some(Item::Message { head, room, .. })) = item else {
                panic!("a whole frame is a message");
            };
            assert_eq!(&room[head..], payload);
        }
    }

    let announced = input.announced >> 1;
    let mut head = [0; encode::MAX_HEADER];
    let len = encode::write_header(&mut head, true, false, Opcode::Text, announced, input.key);
    let header = parse_header(&head[..len], &rules).expect("legal").expect("whole");
    assert_eq!((header.payload_len(), header.header_len()), (announced, len));
    assert_eq!(header.mask(), input.key);

    if let Some(code) = CloseCode::new(input.close) {
        let mut payload = ControlPayload::new();
        write_close(&mut payload, code, &input.reason);
        let (read, reason) = parse_close(&payload).expect("legal").expect("a code");
        assert!(read == code && input.reason.starts_with(reason));
    }

    let key = input.key.unwrap_or([1, 2, 3, 4]);
    let phase = usize::from(input.room);
    let mut by_letter = payload.clone();
    for (at, byte) in by_letter.iter_mut().enumerate() {
        *byte ^= key[(at + phase) % 4];
    }
    let mut masked = payload;
    mask::apply(key, phase, &mut masked);
    assert_eq!(masked, by_letter);
});
