//! Blind attacks (RFC 5961).

use crate::peer::*;

#[test]
fn only_an_exact_reset_resets() {
    let mut script = Script::new();
    script.open();
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq + 1, ack, RST, &[], &[]);
    let challenge = script.one();
    assert_eq!((challenge.flags, challenge.seq, challenge.ack), (ACK, ack, seq));
    script.raw(seq + 5000, ack, RST, &[], &[]);
    script.raw(seq - 1, ack, RST, &[], &[]);
    assert_eq!((script.take(), script.closed()), (vec![], None));
    script.raw(seq, ack, RST, &[], &[]);
    assert_eq!((script.take(), script.closed()), (vec![], Some(Gone::Reset)));
}

#[test]
fn a_syn_is_challenged_and_a_peer_that_restarted_can_reset() {
    for freeze_after in [None, Some(ms(0))] {
        let mut script = Script::with(false, StackConfig { freeze_after, ..config(1) });
        script.open();
        script.wait(ms(10));
        let frozen = script.stack.counters().snapshot().frozen;
        assert_eq!(frozen, u64::from(freeze_after.is_some()));
        script.raw(99_999, 0, SYN, MSS_1460, &[]);
        let challenge = script.one();
        assert_eq!((challenge.flags, challenge.ack), (ACK, script.seq));
        assert_eq!(script.closed(), None);
        script.raw(challenge.ack, 0, RST, &[], &[]);
        assert_eq!(script.closed(), Some(Gone::Reset));
        let after = script.stack.counters().snapshot();
        assert_eq!((after.connections, after.frozen), (0, 0));
    }
}

#[test]
fn challenges_are_rate_limited() {
    let mut script = Script::new();
    script.open();
    for n in 0..100 {
        script.raw(n * 1000, 0, SYN, &[], &[]);
    }
    assert_eq!(script.take().len(), 1);
    script.wait(ms(600));
    script.raw(5, 0, SYN, &[], &[]);
    assert_eq!(script.take().len(), 1);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_challenged_and_its_data_dropped() {
    let mut script = Script::new();
    script.open();
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq, ack + 1, ACK, &[], b"evil");
    assert_eq!(script.one().ack, seq);
    script.wait(ms(600));
    script.raw(seq, ack.wrapping_sub(100_000), ACK, &[], b"evil");
    assert_eq!(script.one().ack, seq);
    assert_eq!(script.seen.data, b"");
}
