//! Congestion control (RFC 5681), as far as smoltcp has it.

use crate::peer::*;

#[test]
fn three_duplicate_acknowledgements_bring_the_lost_segment() {
    let mut script = Script::new();
    script.open();
    script.say(&[3; 2000]);
    let first = script.take().remove(0);
    for _ in 0..4 {
        script.send(ACK, &[]);
    }
    let again = script.take();
    assert_eq!(again[0].seq, first.seq);
    assert_eq!(script.stack.stats(script.id()).unwrap().retransmits, 1);
}

#[test]
fn a_duplicate_with_a_sack_block_counts_though_the_window_grows() {
    // As Linux sends them: its window grows with what arrives behind the hole.
    let mut script = Script::new();
    script.open();
    script.say(&[3; 2000]);
    let first = script.take().remove(0);
    let (seq, ack) = (script.seq, script.ack);
    let mut block = vec![1, 1, 5, 10];
    block.extend((ack + 1460).to_be_bytes());
    block.extend((ack + 2000).to_be_bytes());
    for _ in 0..4 {
        script.window += 1000;
        script.raw(seq, ack, ACK, &block, &[]);
    }
    let again = script.take();
    assert_eq!(again[0].seq, first.seq);
    assert_eq!(script.stack.stats(script.id()).unwrap().retransmits, 1);
}

#[test]
fn the_first_flight_is_bounded() {
    let mut script =
        Script::with(false, StackConfig { ring_class: 2, freeze_after: None, ..config(1) });
    script.open();
    script.say(&[3; 20_000]);
    let sent: usize = script.take().iter().map(|seg| seg.data.len()).sum();
    assert_eq!(sent, 2048);
}

#[test]
fn the_congestion_window_is_told_to_who_asks_and_grows_with_what_is_acknowledged() {
    let mut script =
        Script::with(false, StackConfig { ring_class: 1, freeze_after: None, ..config(1) });
    script.open();
    let id = script.id();
    assert_eq!(script.stack.stats(id).unwrap().congestion_window, None, "nobody asked");
    assert_eq!(script.stack.congestion_window(id), Some(2048));
    script.say(&[3; 8000]);
    for (sent, grown) in [(2048, 2048 + 1460), (3508, 2048 + 2 * 1460)] {
        let flight: usize = script.take().iter().map(|seg| seg.data.len()).sum();
        assert_eq!(flight, sent, "as much leaves as the window says");
        script.ack = script.ack.wrapping_add(flight as u32);
        script.send(ACK, &[]);
        assert_eq!(script.stack.congestion_window(id), Some(grown));
    }
    // RFC 5681 §3.1: one segment after a timeout.
    script.wait(ms(3000));
    assert_eq!(script.stack.congestion_window(id), Some(1460));
    script.stack.abort(id);
    script.turn();
    assert_eq!(script.stack.congestion_window(id), None, "it is dead");
}

#[test]
fn duplicate_acknowledgements_do_not_stop_a_lost_fin() {
    let mut script = Script::new();
    script.open();
    script.say(b"end");
    script.ack += 3;
    script.send(ACK, &[]);
    script.stack.close(script.id());
    script.turn();
    assert_eq!(script.take().pop().unwrap().flags & FIN, FIN);
    for _ in 0..5 {
        script.send(ACK, &[]);
    }
    script.take();
    script.wait(ms(1100));
    assert_eq!(script.one().flags & FIN, FIN);
}
