//! SYN cookies (RFC 4987 §3.6).

use crate::peer::*;

fn cookies() -> Script {
    let config = StackConfig { half_open_max: 0, freeze_after: None, ..config(1) };
    Script::with(false, config)
}

#[test]
fn a_cookie_makes_a_connection_from_nothing() {
    let mut script = cookies();
    script.raw(1000, 0, SYN, &[2, 4, 5, 120, 1, 1, 4, 2], &[]);
    let syn_ack = script.one();
    assert_eq!(script.stack.counters().snapshot().connections, 0, "nothing is kept");
    assert_eq!(syn_ack.options, [2, 4, 5, 180, 1, 1, 4, 2], "no window scale");
    script.seq = 1001;
    script.ack = syn_ack.seq.wrapping_add(1);
    script.send(ACK, b"request");
    assert_eq!(script.seen.data, b"request");
    script.say(&[9; 1800]);
    let sent = script.take();
    assert_eq!(sent[0].data.len(), 1400, "1400 is the MSS in eight that 1400 allows");
}

#[test]
fn a_cookie_is_good_for_its_tuple_and_its_time_only() {
    let mut script = cookies();
    script.raw(1000, 0, SYN, MSS_1460, &[]);
    let good = script.one().seq.wrapping_add(1);
    for (seq, ack, port) in [(1002, good, 5000), (1001, good + 1, 5000), (1001, good, 5001)] {
        script.port = port;
        script.raw(seq, ack, ACK, &[], &[]);
        assert!(script.seen.events.is_empty());
    }
    script.port = 5000;
    script.wait(Duration::from_secs(200));
    script.take();
    script.raw(1001, good, ACK, &[], &[]);
    assert_eq!(script.one().flags, RST);
    assert!(script.seen.events.is_empty());
}

#[test]
fn without_a_cookie_under_way_none_is_taken() {
    let mut script = Script::new();
    script.raw(1001, 12345, ACK, &[], &[]);
    assert_eq!(script.one().flags, RST);
    assert_eq!(script.stack.counters().snapshot().cookies_bad_total, 0);
}

#[test]
fn a_cookie_that_comes_again_makes_no_second_connection() {
    let mut script = cookies();
    script.raw(1000, 0, SYN, MSS_1460, &[]);
    script.seq = 1001;
    script.ack = script.one().seq.wrapping_add(1);
    script.send(ACK, b"once");
    script.stack.abort(script.id());
    script.turn();
    script.take();
    let ack = script.ack;
    script.raw(1001, ack, ACK, &[], b"once");
    assert_eq!(script.seen.data, b"once");
    assert_eq!(script.stack.counters().snapshot().accepted_total, 1);
}
