//! Messages through a worker: whole, in parts, in batches, with control frames between, and what
//! happens to a peer that breaks the protocol.

mod common;

use common::*;
use hioload_pipeline::fake::{End, Mode};
use hioload_pipeline::suite::wire;
use hioload_pipeline::{ClosedBy, Verdict};
use proptest::prelude::*;

fn echo(mode: Mode) -> (Rig<Probe>, Client) {
    let mut rig = Plan::new(mode).start(Probe::echo());
    let client = rig.open();
    (rig, client)
}

/// Sends `bytes` in parts that end at `cuts` (taken in turn), with turns in between.
fn send_in_parts(rig: &mut Rig<Probe>, client: &Client, mut bytes: &[u8], cuts: &[usize]) {
    for cut in cuts.iter().cycle().take(500) {
        if bytes.is_empty() {
            return;
        }
        let (now, later) = bytes.split_at(bytes.len().min(*cut));
        client.send(now);
        rig.turn();
        bytes = later;
    }
    client.send(bytes);
    rig.run();
}

#[derive(Clone, Debug)]
struct Sent {
    text: bool,
    len: usize,
    fragments: Vec<usize>,
    ping: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let len = prop_oneof![4 => 0usize..300, 3 => 100usize..5000, 1 => 60_000usize..200 * 1024];
    let fragments = proptest::collection::vec(0usize..40_000, 0..4);
    (any::<bool>(), len, fragments, any::<bool>()).prop_map(|(text, len, fragments, ping)| Sent {
        text,
        len,
        fragments,
        ping,
    })
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Readiness),
        (4usize..40, 0u64..5)
            .prop_map(|(buffers, hold_turns)| Mode::Completion { buffers, hold_turns }),
        (1usize..5000, 1usize..5000)
            .prop_map(|(rx_bytes, tx_bytes)| Mode::Ring { rx_bytes, tx_bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_message_comes_back_right_and_in_order_however_it_is_split(
        mode in any_mode(),
        list in proptest::collection::vec(sent(), 1..12),
        cuts in proptest::collection::vec(1usize..70_000, 1..6),
        window in prop_oneof![Just(usize::MAX), 200usize..20_000],
    ) {
        let (mut rig, mut client) = echo(mode);
        let (mut bytes, mut want, mut pings) = (Vec::new(), Vec::new(), 0);
        for (nth, sent) in list.iter().enumerate() {
            let payload = wire::pattern(sent.len, nth);
            let opcode = if sent.text { TEXT } else { BINARY };
            let (mut rest, mut opening) = (&payload[..], opcode & !FIN);
            for at in &sent.fragments {
                let (part, behind) = rest.split_at(rest.len().min(*at));
                wire::put_frame(&mut bytes, opening, part);
                if sent.ping {
                    wire::put_frame(&mut bytes, PING, &[nth as u8; 20]);
                    pings += 1;
                }
                (rest, opening) = (behind, CONTINUATION);
            }
            wire::put_frame(&mut bytes, opening | FIN, rest);
            want.push((opcode, payload));
        }
        client.peer.set_window(window);
        send_in_parts(&mut rig, &client, &bytes, &cuts);
        let mut got = Vec::new();
        for _ in 0..100_000 {
            rig.run();
            let frames = client.frames();
            if frames.is_empty() && client.peer.waiting() == 0 && got.len() == want.len() + pings {
                break;
            }
            got.extend(frames);
        }
        let (pongs, echoes): (Vec<_>, Vec<_>) = got.into_iter().partition(|f| f.first == PONG);
        prop_assert_eq!(pongs.len(), pings);
        prop_assert_eq!(echoes.len(), want.len());
        for (got, want) in echoes.iter().zip(&want) {
            prop_assert_eq!((got.first, got.payload.len()), (want.0, want.1.len()));
            prop_assert!(got.payload == want.1, "the bytes are the same");
        }
        if let Mode::Completion { buffers, .. } = mode {
            prop_assert!(rig.worker.backend().pinned_max() <= buffers / 2);
        }
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn pipelined_messages_come_in_full_batches() {
    for mode in MODES {
        let (mut rig, mut client) = echo(mode);
        let message = |i: usize| wire::pattern(i % 9, i);
        let mut bytes = Vec::new();
        (0..100).for_each(|i| wire::put_frame(&mut bytes, BINARY, &message(i)));
        client.send(&bytes);
        rig.run();
        assert!(client.messages() == (0..100).map(message).collect::<Vec<_>>());
        let saw = &rig.worker.handler().saw;
        let batches: Vec<_> = saw
            .iter()
            .filter_map(|s| if let Saw::Batch(n) = s { Some(*n) } else { None })
            .collect();
        assert_eq!(batches.iter().sum::<usize>(), 100);
        assert_eq!(batches[0], 32, "{batches:?}");
        assert!(batches.iter().all(|n| *n <= 32), "{batches:?}");
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_batch_spans_connections() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::echo());
        let mut clients: Vec<_> = (0..20).map(|_| rig.open()).collect();
        rig.worker.handler().saw.clear();
        for client in &clients {
            client.frame(TEXT, b"both in one");
        }
        rig.run();
        let batches = rig.worker.handler().count(|saw| matches!(saw, Saw::Batch(_)));
        assert!(batches < 20, "{batches} batches for 20 messages");
        for client in &mut clients {
            assert_eq!(client.messages(), [b"both in one"]);
            client.leave();
        }
        rig.assert_clean();
    }
}

#[test]
fn a_ping_between_fragments_is_answered_before_the_message_is_whole() {
    for mode in MODES {
        let (mut rig, mut client) = echo(mode);
        client.frame(TEXT & !FIN, b"one ");
        for nth in 0..5 {
            client.frame(PING, &[nth; 125]);
            rig.run();
            let frames = client.frames();
            assert_eq!(frames.len(), 1);
            assert_eq!((frames[0].first, &frames[0].payload[..]), (PONG, &[nth; 125][..]));
            client.frame(CONTINUATION, b"more ");
        }
        client.frame(PONG, b"unasked");
        client.frame(CONTINUATION | FIN, b"end");
        rig.run();
        assert_eq!(client.messages(), [b"one more more more more more end"]);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_close_code_and_its_reason_are_echoed_and_told() {
    for mode in MODES {
        for (payload, code) in [
            (wire::close(1000, "bye"), 1000),
            (wire::close(3999, "bye"), 3999),
            (wire::frame(CLOSE, b""), 1005),
        ] {
            let (mut rig, mut client) = echo(mode);
            client.send(&[&wire::frame(TEXT, b"before")[..], &payload].concat());
            // RFC 6455 §5.5.1: nothing behind a Close is looked at.
            client.frame(TEXT, b"after");
            rig.run();
            let frames = client.frames();
            assert_eq!(frames.len(), 2, "{frames:?}");
            assert_eq!(frames[0].payload, b"before");
            assert_eq!(frames[1].close().map(|c| c.0), (code != 1005).then_some(code));
            assert_eq!(client.end(), End::Fin, "the server closes first (RFC 6455 §7.1.1)");
            assert_eq!(rig.worker.handler().endings(), [(code, ClosedBy::Peer)]);
            client.peer.finish();
            rig.assert_clean();
        }
    }
}

#[test]
fn whoever_breaks_the_protocol_is_told_why_and_nothing_follows() {
    let unmasked = vec![TEXT, 5, b'h', b'e', b'l', b'l', b'o'];
    let not_minimal = vec![BINARY, 0x80 | 126, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5];
    let mut top_bit = vec![BINARY, 0x80 | 127];
    top_bit.extend((1u64 << 63).to_be_bytes());
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no mask", unmasked, 1002),
        ("reserved bit", wire::frame(TEXT | 0x40, b"x"), 1002),
        ("reserved opcode", wire::frame(FIN | 3, b"x"), 1002),
        ("reserved control opcode", wire::frame(FIN | 11, b"x"), 1002),
        ("fragmented ping", wire::frame(PING & !FIN, b"x"), 1002),
        ("long ping", wire::frame(PING, &[0; 126]), 1002),
        ("continuation of nothing", wire::frame(CONTINUATION | FIN, b"x"), 1002),
        ("length not minimal", not_minimal, 1002),
        ("length with top bit", top_bit, 1002),
        ("half a close code", wire::frame(CLOSE, &[3]), 1002),
        ("a code that never travels", wire::close(1006, ""), 1002),
        ("text", wire::frame(TEXT, b"\xC0\xAF"), 1007),
        ("text that ends early", wire::frame(TEXT, b"\xE2\x82"), 1007),
        ("a reason", [&[CLOSE, 0x84][..], &[0; 4], &[3, 232, 0xFF, 0xFE]].concat(), 1007),
    ];
    for mode in MODES {
        for (what, bytes, code) in &cases {
            for cut in [bytes.len(), 1, 2] {
                let (mut rig, mut client) = echo(mode);
                client.frame(TEXT, b"before");
                client.send(&bytes[..cut]);
                rig.run();
                client.send(&bytes[cut..]);
                client.frame(TEXT, b"after");
                rig.run();
                assert_eq!(client.close_code(1), *code, "{what}");
                assert_eq!(client.end(), End::Fin, "{what}");
                assert_eq!(rig.worker.handler().endings(), [(*code, ClosedBy::Us)], "{what}");
                assert_eq!(rig.counters().protocol_errors_total, 1, "{what}");
                client.peer.finish();
                rig.assert_clean();
            }
        }
    }
}

#[test]
fn text_is_judged_where_a_fragment_ends_in_a_character() {
    for mode in MODES {
        let (mut rig, mut client) = echo(mode);
        let euro = "€".as_bytes();
        client.frame(TEXT & !FIN, &euro[..1]);
        client.frame(CONTINUATION, &euro[1..2]);
        client.frame(CONTINUATION | FIN, &euro[2..]);
        rig.run();
        assert_eq!(client.messages(), [euro]);
        client.frame(TEXT & !FIN, &euro[..2]);
        client.frame(CONTINUATION & !FIN, b"x");
        rig.run();
        assert_eq!(client.close_code(0), 1007, "it fails early, not at the message's end");
        client.peer.finish();
        rig.assert_clean();
    }
}

#[test]
fn a_message_above_the_limit_is_refused_on_its_header() {
    for mode in MODES {
        let limited = |mode| {
            Plan::new(mode).settings(|s| {
                s.limits.max_frame = 1000;
                s.limits.max_message = 1500;
            })
        };
        let mut rig = limited(mode).start(Probe::echo());
        let mut client = rig.open();
        client.frame(BINARY, &[1; 1000]);
        client.frame(BINARY & !FIN, &[2; 1000]);
        client.frame(CONTINUATION | FIN, &[2; 500]);
        rig.run();
        let lengths: Vec<_> = client.messages().iter().map(Vec::len).collect();
        assert_eq!(lengths, [1000, 1500]);
        // The header alone, no payload.
        client.send(&wire::frame(BINARY, &[3; 1001])[..8]);
        rig.run();
        assert_eq!(client.close_code(0), 1009);
        client.peer.finish();
        rig.assert_clean();

        let mut rig = limited(mode).start(Probe::echo());
        let mut client = rig.open();
        client.frame(BINARY & !FIN, &[4; 1000]);
        client.send(&wire::frame(CONTINUATION | FIN, &[4; 501])[..8]);
        rig.run();
        assert_eq!(client.close_code(0), 1009);
        assert!(rig.counters().messages_in_total == 0);
        client.peer.finish();
        rig.assert_clean();
    }
}

#[test]
fn a_claimed_length_takes_no_memory() {
    for mode in MODES {
        let (mut rig, client) = echo(mode);
        client.send(&wire::frame(BINARY, &vec![0; 1 << 20])[..20]);
        rig.run();
        let lent = rig.counters().pool_bytes_lent;
        assert!(lent <= 1024, "{lent} bytes for six bytes of payload");
        client.peer.reset();
        rig.assert_clean();
    }
}

#[test]
fn a_reply_is_built_where_it_leaves_from() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::on_message(|mut message, context| {
            message.payload_mut().make_ascii_uppercase();
            let (session, len) = (message.session(), message.len());
            let built = context.build(session, hioload_pipeline::Kind::Text, len + 3, |room| {
                assert_eq!(room.len(), len + 3);
                room[..3].copy_from_slice(b"<- ");
                room[3..].copy_from_slice(message.payload());
            });
            built.expect("the session is open");
        }));
        let mut client = rig.open();
        for len in [0, 10, 123, 124, 1000, 70_000] {
            let payload = wire::pattern(len, len);
            client.frame(BINARY, &payload);
            rig.run();
            let want = [b"<- ".to_vec(), payload.to_ascii_uppercase()].concat();
            assert!(client.messages() == [want], "{len}");
        }
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn an_idle_session_holds_no_buffer() {
    for mode in MODES {
        let (mut rig, mut client) = echo(mode);
        client.frame(BINARY, &wire::pattern(100_000, 1));
        rig.run();
        assert_eq!(client.messages().len(), 1);
        rig.run();
        let c = rig.counters();
        assert_eq!((c.sessions_open, c.pool_buffers_lent, c.assemblies_open), (1, 0, 0));
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn many_sessions_live_and_die_without_a_trace() {
    for mode in MODES {
        let mut rig = Plan::new(mode).start(Probe::on_open(|_| Verdict::Accept(7)));
        for round in 0..5 {
            let mut clients: Vec<_> = (0..60).map(|_| rig.open()).collect();
            for (i, client) in clients.iter().enumerate() {
                client.frame(BINARY, &wire::pattern(10 * i, round));
            }
            rig.run();
            for (i, client) in clients.iter_mut().enumerate() {
                assert!(client.messages() == [wire::pattern(10 * i, round)]);
                match i % 3 {
                    0 => client.leave(),
                    1 => client.peer.reset(),
                    _ => client.peer.finish(),
                }
            }
            rig.assert_clean();
        }
        let mut endings = rig.worker.handler().endings();
        endings.sort_by_key(|e| e.0);
        assert_eq!(endings.len(), 300, "on_close comes exactly once");
        assert_eq!(endings.iter().filter(|e| **e == (1000, ClosedBy::Peer)).count(), 100);
        assert_eq!(endings.iter().filter(|e| **e == (1006, ClosedBy::Transport)).count(), 200);
    }
}
