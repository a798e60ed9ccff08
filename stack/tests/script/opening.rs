//! Connections that the stack opens, both sides at once included (RFC 9293 §3.5), and what the
//! network may say to them (RFC 5461, RFC 5927).

use crate::peer::*;

fn script(v6: bool) -> Script {
    Script::with(v6, StackConfig { freeze_after: None, ..config(1) })
}

/// After the handshake, bytes pass both ways.
fn speaks(script: &mut Script) {
    assert!(matches!(script.seen.events[..], [Event::Opened(_)]), "{:?}", script.seen.events);
    script.take();
    script.send(ACK, b"hello");
    assert_eq!(script.seen.data, b"hello");
    script.say(b"world");
    let sent = script.take().pop().unwrap();
    assert_eq!((sent.seq, sent.ack, &sent.data[..]), (script.ack, script.seq, &b"world"[..]));
}

#[test]
fn a_connection_of_ours_is_established_by_the_peers_syn_ack() {
    for v6 in [false, true] {
        let mut script = script(v6);
        let syn = script.connect();
        assert_eq!((syn.flags, syn.ack), (SYN, 0));
        script.send(SYN | ACK, &[]);
        assert_eq!(script.one().flags, ACK);
        speaks(&mut script);
    }
}

#[test]
fn both_sides_may_open_at_once() {
    for v6 in [false, true] {
        let mut script = script(v6);
        let syn = script.connect();
        // RFC 9293 figure 8: the SYNs cross; each side answers the other's by SYN-ACK.
        let (seq, ack) = (script.seq, script.ack);
        script.raw(seq, 0, SYN, MSS_1460, &[]);
        script.seq += 1;
        let answer = script.one();
        assert_eq!((answer.flags, answer.seq, answer.ack), (SYN | ACK, syn.seq, script.seq));
        script.raw(seq, ack, SYN | ACK, MSS_1460, &[]);
        speaks(&mut script);
    }
}

#[test]
fn a_syn_ack_that_acknowledges_another_syn_is_reset() {
    let mut script = script(false);
    script.connect();
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq, ack.wrapping_add(7), SYN | ACK, MSS_1460, &[]);
    let reset = script.one();
    assert_eq!((reset.flags & RST, reset.seq), (RST, ack.wrapping_add(7)));
    assert_eq!(script.seen.events, []);
    script.send(SYN | ACK, &[]);
    assert_eq!(script.take().pop().unwrap().flags, ACK);
    speaks(&mut script);
}

/// Somebody says that a segment of the stack's got nowhere.
fn unreachable(script: &mut Script, seq: u32) {
    let mut quoted = script.local.to_be_bytes().to_vec();
    quoted.extend(script.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    quoted.extend([0; 12]);
    let inner = packet(ip(script.v6, 1), ip(script.v6, 0), 6, 64, &quoted, 16);
    let (kind, protocol) = if script.v6 { ([1, 4], 58) } else { ([3, 3], 1) };
    let message = [&kind[..], &[0; 6], &inner].concat();
    let packet = packet(ip(script.v6, 0), ip(script.v6, 1), protocol, 64, &message, 2);
    script.ip(&packet);
    script.turn();
}

#[test]
fn a_hard_error_ends_a_handshake_of_ours_and_nothing_else() {
    for v6 in [false, true] {
        let mut script = script(v6);
        let syn = script.connect();
        unreachable(&mut script, syn.seq.wrapping_add(9));
        assert_eq!(script.closed(), None, "it quotes what was never sent");
        unreachable(&mut script, syn.seq);
        assert_eq!(script.closed(), Some(Gone::Failed));
        assert_eq!(script.stack.counters().snapshot().connections, 0);

        let mut script = self::script(v6);
        script.open();
        script.say(b"in flight");
        let sent = script.one();
        unreachable(&mut script, sent.seq);
        assert_eq!(script.closed(), None, "an open connection outlives it");
        script.ack += 9;
        script.send(ACK, b"still here");
        assert_eq!(script.seen.data, b"still here");
    }
}

#[test]
fn resets_to_strangers_are_rate_limited() {
    let mut script = Script::with(false, StackConfig { resets_per_second: 10, ..config(1) });
    for port in 0..100 {
        script.port = 2000 + port;
        script.raw(1, 1, ACK, &[], &[]);
    }
    assert_eq!(script.take().len(), 10);
    let counters = script.stack.counters().snapshot();
    assert_eq!((counters.resets_out_total, counters.drop_rate_limited_total), (10, 90));
}
