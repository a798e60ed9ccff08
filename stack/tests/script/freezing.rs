//! Connections without memory: nobody else can tell.

use crate::peer::*;

fn frozen() -> Script {
    let freeze_after = Some(Duration::from_secs(1));
    let mut script = Script::with(false, StackConfig { freeze_after, ..config(1) });
    script.open();
    script.send(ACK, b"before");
    script.say(b"answer");
    script.ack += 6;
    script.send(ACK, &[]);
    script.wait(ms(1500));
    let counters = script.stack.counters().snapshot();
    assert_eq!((counters.frozen, counters.connections), (1, 1));
    script.take();
    script
}

#[test]
fn data_thaws_and_goes_on_where_it_was() {
    let mut script = frozen();
    script.send(ACK, b" after");
    assert_eq!(script.seen.data, b"before after");
    script.say(b"more");
    let sent = script.take().pop().unwrap();
    assert_eq!((sent.seq, sent.ack, &sent.data[..]), (script.ack, script.seq, &b"more"[..]));
    assert_eq!(script.stack.counters().snapshot().frozen, 0);
}

#[test]
fn output_thaws() {
    let mut script = frozen();
    script.say(b"push");
    let sent = script.one();
    assert_eq!((sent.seq, &sent.data[..]), (script.ack, &b"push"[..]));
}

#[test]
fn a_keep_alive_is_answered_without_thawing() {
    let mut script = frozen();
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq - 1, ack, ACK, &[], b"\0");
    let answer = script.one();
    assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, ack, seq));
    assert_eq!(script.stack.counters().snapshot().frozen, 1);
}

#[test]
fn it_finishes_like_any_other() {
    let mut script = frozen();
    script.send(ACK | FIN, &[]);
    assert!(matches!(script.seen.events.last(), Some(Event::Eof(_))));
    let mut script = frozen();
    script.stack.close(script.id());
    script.turn();
    assert_eq!(script.one().flags & FIN, FIN);
    let mut script = frozen();
    script.stack.abort(script.id());
    script.turn();
    assert_eq!(script.one().flags & RST, RST);
    assert_eq!(script.closed(), Some(Gone::Finished));
}

#[test]
fn another_process_goes_on_with_a_frozen_connection() {
    for v6 in [false, true] {
        let config = StackConfig { freeze_after: Some(ms(100)), ..config(1) };
        let mut script = Script::with(v6, config.clone());
        script.open();
        let id = script.id();
        assert_eq!(script.stack.hand_over(id), None, "it isn't frozen");
        script.wait(ms(200));
        let record = script.stack.hand_over(id).unwrap();
        assert_eq!(script.stack.counters().snapshot().connections, 0);
        assert_eq!(script.stack.peer(id), None);
        // A new process, with secrets of its own.
        let mut other = Script::with(v6, StackConfig { secret: Some([99; 32]), ..config });
        let id = other.stack.adopt(&record).unwrap();
        assert_eq!(other.stack.peer(id), Some(SocketAddr::new(ip(v6, 0), 5000)));
        assert!(other.stack.adopt(&record).is_err(), "once");
        (other.seq, other.ack) = (script.seq, script.ack);
        other.send(ACK, b"go on");
        assert_eq!(other.seen.data, b"go on");
        assert!(other.stack.turn().1.send(id, b"yes"));
        other.turn();
        let sent = other.take().pop().unwrap();
        assert_eq!((sent.seq, sent.ack, &sent.data[..]), (script.ack, other.seq, &b"yes"[..]));
    }
}

#[test]
fn a_damaged_record_is_refused() {
    let mut script = frozen();
    let id = script.id();
    let record = script.stack.hand_over(id).unwrap();
    for (at, value) in [(0, 2), (2, 99), (3, 3), (4, 77), (36, 0), (37, 0)] {
        let mut bad = record.clone();
        bad.0[at] = value;
        if at >= 36 {
            bad.0[36] = 0;
            bad.0[37] = 0;
        }
        assert!(script.stack.adopt(&bad).is_err(), "byte {at}");
    }
    assert!(script.stack.adopt(&record).is_ok());
}

#[test]
fn a_thawed_connection_starts_slowly() {
    let freeze_after = Some(Duration::from_secs(1));
    let mut script = Script::with(false, StackConfig { freeze_after, ring_class: 2, ..config(1) });
    script.open();
    // The congestion window grows to more than it began with.
    for _ in 0..6 {
        script.say(&[1; 8000]);
        for _ in 0..10 {
            let sent: usize = script.take().iter().map(|seg| seg.data.len()).sum();
            script.ack = script.ack.wrapping_add(sent as u32);
            script.send(ACK, &[]);
        }
    }
    script.say(&[1; 8000]);
    let grown: usize = script.take().iter().map(|seg| seg.data.len()).sum();
    assert!(grown > 4096, "{grown}");
    script.ack = script.ack.wrapping_add(8000);
    script.send(ACK, &[]);
    script.wait(ms(1500));
    assert_eq!(script.stack.counters().snapshot().frozen, 1);
    script.introduce();
    script.say(&[1; 8000]);
    let first: usize = script.take().iter().map(|seg| seg.data.len()).sum();
    assert_eq!(first, 2048);
}
