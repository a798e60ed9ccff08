//! Selective acknowledgements (RFC 2018), samples of the round trip (RFC 6298 §3), keep-alives of a
//! live connection (RFC 9293 §3.8.4).

use crate::peer::*;

#[test]
fn a_peer_that_asks_for_it_is_told_what_arrived_out_of_order() {
    for asked in [false, true] {
        let mut script = Script::new();
        let options: &[u8] = if asked { &[2, 4, 5, 180, 1, 1, 4, 2] } else { MSS_1460 };
        script.raw(1000, 0, SYN, options, &[]);
        script.seq = 1001;
        script.ack = script.one().seq.wrapping_add(1);
        script.send(ACK, &[]);
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq + 10, ack, ACK, &[], b"beyond");
        let answer = script.one();
        assert_eq!(answer.ack, seq);
        let sack: Vec<u8> = [seq + 10, seq + 16].iter().flat_map(|n| n.to_be_bytes()).collect();
        let told = answer.options.windows(8).any(|block| block == sack);
        assert_eq!(told, asked, "{:?}", answer.options);
    }
}

#[test]
fn what_was_sent_twice_is_no_sample_of_the_round_trip() {
    let mut script = Script::new();
    script.open();
    let handshake = script.stack.stats(script.id()).unwrap().rtt;
    script.say(b"lost");
    script.wait(ms(1100));
    assert_eq!(script.take().len(), 2);
    script.ack += 4;
    script.send(ACK, &[]);
    let stats = script.stack.stats(script.id()).unwrap();
    assert_eq!((stats.retransmits, stats.rtt), (1, handshake), "Karn");
    script.say(b"more");
    script.wait(ms(30));
    script.ack += 4;
    script.send(ACK, &[]);
    let rtt = script.stack.stats(script.id()).unwrap().rtt.unwrap();
    assert!(rtt >= ms(3) && rtt < ms(5), "an eighth of 30 ms: {rtt:?}");
}

#[test]
fn a_keep_alive_is_answered_by_a_live_connection() {
    let mut script = Script::new();
    script.open();
    script.send(ACK, b"x");
    script.wait(ms(20));
    script.take();
    let (seq, ack) = (script.seq, script.ack);
    for garbage in [&b""[..], b"\0"] {
        script.raw(seq - 1, ack, ACK, &[], garbage);
        script.wait(ms(20));
        let answer = script.one();
        assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, ack, seq));
        script.wait(ms(1000));
    }
    assert_eq!(script.seen.data, b"x");
}

#[test]
fn output_leaves_without_waiting_for_an_acknowledgement() {
    let mut script = Script::new();
    script.open();
    for message in [&b"one"[..], b"two", b"three"] {
        script.say(message);
        assert_eq!(script.one().data, message, "no Nagle");
    }
}
