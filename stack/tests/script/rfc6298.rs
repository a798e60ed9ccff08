//! The retransmission timer (RFC 6298).

use crate::peer::*;

#[test]
fn the_timer_starts_at_a_second_and_doubles_until_the_user_timeout() {
    let config =
        StackConfig { user_timeout: Duration::from_secs(20), freeze_after: None, ..config(1) };
    let mut script = Script::with(false, config);
    script.open();
    script.say(b"lost");
    assert_eq!(script.one().data, b"lost");
    let mut waits = Vec::new();
    let mut waited = 0;
    while script.closed().is_none() && waited < 30_000 {
        script.wait(ms(10));
        waited += 10;
        for seg in script.take() {
            waits.push((waited + 500) / 1000);
            assert!(seg.data == b"lost" || seg.flags & RST != 0);
        }
    }
    assert_eq!(waits, [1, 3, 7, 15, 20], "1, 2, 4 and 8 s apart; then a reset");
    assert_eq!(script.closed(), Some(Gone::Failed));
    assert_eq!(script.stack.counters().snapshot().user_timeouts_total, 1);
}

#[test]
fn an_acknowledgement_stops_the_timer() {
    let mut script = Script::new();
    script.open();
    script.say(b"data");
    script.take();
    script.ack += 4;
    script.send(ACK, &[]);
    script.wait(ms(5000));
    assert_eq!(script.take(), []);
}

#[test]
fn a_syn_ack_is_sent_again() {
    let mut script = Script::new();
    script.raw(1000, 0, SYN, MSS_1460, &[]);
    let first = script.one();
    script.wait(ms(1100));
    assert_eq!(script.one(), first);
}
