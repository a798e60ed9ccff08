//! The fast path: that it is what is tested, and that each kind of trouble leaves it without a
//! byte lost, doubled or sent at another time than it should be.

use crate::peer::*;

/// A connection that the fast path has, in 64 KiB rings: `ping` came and `pong` is in flight.
fn exchange(v6: bool) -> Script {
    let config = StackConfig { freeze_after: None, ring_class: 2, ..config(1) };
    let mut script = Script::with(v6, config);
    script.open();
    script.send(ACK | PSH, b"ping");
    assert_eq!(script.seen.data, b"ping");
    script.say(b"pong");
    let pong = script.one();
    assert_eq!((pong.flags, pong.ack, &pong.data[..]), (ACK | PSH, script.seq, &b"pong"[..]));
    assert_eq!(passed(&script), (1, 0), "segments taken, times left");
    script
}

fn passed(script: &Script) -> (u64, u64) {
    let counters = script.stack.counters().snapshot();
    (counters.fast_segments_total, counters.fast_left_total)
}

#[test]
fn exchanges_stay_on_the_fast_path() {
    for v6 in [false, true] {
        let mut script = exchange(v6);
        let mut in_flight = 4;
        for round in 2..100u32 {
            script.ack += in_flight;
            script.send(ACK | PSH, b"ping");
            script.say(&[round as u8; 700]);
            in_flight = 700;
            let answer = script.one();
            assert_eq!((answer.seq, answer.ack), (script.ack, script.seq));
            assert_eq!(answer.data, [round as u8; 700]);
            assert_eq!(passed(&script), (u64::from(round), 0));
        }
        let stats = script.stack.stats(script.id()).unwrap();
        assert_eq!((stats.send_queue, stats.recv_queue, stats.in_flight), (700, 0, 700));
    }
}

#[test]
fn the_fast_path_can_be_left_out() {
    let config = StackConfig { fast_path: false, freeze_after: None, ..config(1) };
    let mut script = Script::with(false, config);
    script.open();
    script.send(ACK | PSH, b"ping");
    script.say(b"pong");
    assert_eq!(script.one().data, b"pong");
    assert_eq!(passed(&script), (0, 0));
}

#[test]
fn an_acknowledgement_waits_for_an_answer_and_goes_alone_after_a_while() {
    let mut script = exchange(false);
    script.ack += 4;
    script.send(ACK | PSH, b"more");
    assert_eq!(script.take(), [], "there may be an answer");
    script.wait(ms(11));
    let alone = script.one();
    assert_eq!((alone.flags, alone.ack, alone.data.len()), (ACK, script.seq, 0));
    script.wait(ms(3000));
    assert_eq!((script.take(), passed(&script)), (vec![], (2, 0)));
    // The second full segment is acknowledged at once.
    script.send(ACK, &[1; 1460]);
    assert_eq!(script.take(), []);
    script.send(ACK, &[2; 1460]);
    assert_eq!(script.one().ack, script.seq);
    assert_eq!(passed(&script), (4, 0));
}

#[test]
fn what_is_not_acknowledged_goes_again_a_second_after_it_was_sent() {
    for v6 in [false, true] {
        let mut script = exchange(v6);
        script.wait(ms(980));
        assert_eq!((script.take(), passed(&script)), (vec![], (1, 0)));
        script.wait(ms(40));
        let again = script.one();
        assert_eq!((again.seq, &again.data[..]), (script.ack, &b"pong"[..]));
        assert_eq!(passed(&script), (1, 1));
        script.ack += 4;
        script.send(ACK, &[]);
        // It stays away for a second, and comes back then.
        script.send(ACK | PSH, b"a");
        assert_eq!(passed(&script), (1, 1));
        script.wait(ms(1100));
        script.take();
        script.send(ACK | PSH, b"b");
        assert_eq!((passed(&script), &script.seen.data[..]), ((2, 1), &b"pingab"[..]));
    }
}

#[test]
fn a_hole_is_smoltcps_and_what_the_user_left_comes_along() {
    for v6 in [false, true] {
        let mut script = exchange(v6);
        script.seen.deaf = true;
        script.ack += 4;
        script.send(ACK | PSH, &[b'x'; 1500 - 200]);
        script.send(ACK | PSH, b"yy");
        let seq = script.seq;
        script.raw(seq + 3, script.ack, ACK, &[], b"later");
        assert_eq!(passed(&script), (3, 1));
        let stats = script.stack.stats(script.id()).unwrap();
        assert_eq!((stats.recv_queue, stats.in_flight), (1302, 0));
        let duplicate = script.take();
        assert_eq!(duplicate.last().map(|seg| seg.ack), Some(seq), "the hole is told");
        script.seen.deaf = false;
        script.seen.data.clear();
        script.raw(seq, script.ack, ACK, &[], b"hol");
        let mut whole = vec![b'x'; 1300];
        whole.extend(b"yyhollater");
        script.wait(ms(20));
        assert_eq!(script.seen.data, whole);
        assert_eq!(script.take().last().map(|seg| seg.ack), Some(seq + 8));
    }
}

#[test]
fn a_duplicate_acknowledgement_makes_it_leave_and_the_third_resends() {
    let mut script = exchange(false);
    for _ in 0..3 {
        script.raw(script.seq, script.ack, ACK, &[], &[]);
    }
    assert_eq!(passed(&script).1, 1);
    let again = script.one();
    assert_eq!((again.seq, &again.data[..]), (script.ack, &b"pong"[..]));
}

#[test]
fn output_beyond_a_beginning_flight_is_smoltcps() {
    for v6 in [false, true] {
        let mut script = exchange(v6);
        script.say(&[7; 10_000]);
        assert_eq!(passed(&script), (1, 1));
        let (base, mut received) = (script.ack, b"pong".to_vec());
        for _ in 0..40 {
            for seg in script.take().into_iter().filter(|seg| !seg.data.is_empty()) {
                let at = seg.seq.wrapping_sub(base) as usize;
                assert_eq!(at, received.len(), "in order, and nothing twice");
                received.extend(&seg.data);
            }
            script.ack = base.wrapping_add(received.len() as u32);
            script.raw(script.seq, script.ack, ACK, &[], &[]);
        }
        let mut whole = b"pong".to_vec();
        whole.extend([7; 10_000]);
        assert_eq!(received, whole);
    }
}

#[test]
fn a_closed_window_is_smoltcps_to_probe() {
    let mut script = exchange(false);
    script.ack += 4;
    script.window = 0;
    script.raw(script.seq, script.ack, ACK, &[], &[]);
    assert_eq!(passed(&script).1, 1);
    script.say(b"held");
    assert_eq!(script.take(), []);
    script.wait(ms(1500));
    let probe = script.one();
    assert_eq!((probe.seq, probe.data.len()), (script.ack, 1));
    script.window = 1000;
    script.raw(script.seq, script.ack, ACK, &[], &[]);
    assert_eq!(script.take().last().unwrap().data, b"held");
}

#[test]
fn a_probe_of_our_closed_window_is_answered() {
    let config = StackConfig { freeze_after: None, ..config(1) };
    let mut script = Script::with(false, config);
    script.open();
    script.seen.deaf = true;
    script.send(ACK, &[1; 1024]);
    script.send(ACK, &[2; 1024]);
    let told = script.one();
    assert_eq!((told.ack, told.window), (script.seq, 0));
    script.raw(script.seq, script.ack, ACK, &[], &[3]);
    script.wait(ms(20));
    let answer = script.take().pop().expect("an answer");
    assert_eq!((answer.ack, answer.window), (script.seq, 0));
    // The user takes it all: the window opens, and the peer is told without asking.
    script.seen.deaf = false;
    let id = script.id();
    let taken = script.stack.turn().0.take(id).map_or(0, |window| window.len());
    assert_eq!(taken, 2048);
    script.turn();
    script.wait(ms(20));
    assert_eq!(script.take().pop().expect("a window").window, 2048);
}

#[test]
fn closing_and_aborting_leave_the_fast_path_with_the_right_numbers() {
    for (v6, abort) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut script = exchange(v6);
        let id = script.id();
        match abort {
            true => script.stack.abort(id),
            false => script.stack.close(id),
        }
        script.turn();
        let sent = script.take();
        let last = sent.last().unwrap();
        assert_eq!((last.seq, last.ack), (script.ack + 4, script.seq));
        assert_eq!(last.flags & (FIN | RST), if abort { RST } else { FIN });
        assert!(sent.iter().all(|seg| seg.data.is_empty()), "pong went before: {sent:?}");
    }
}

#[test]
fn a_peer_that_finishes_or_resets_is_understood() {
    for flag in [FIN, RST] {
        let mut script = exchange(false);
        script.ack += 4;
        script.send(ACK | flag, if flag == FIN { b"bye" } else { b"" });
        match flag {
            FIN => {
                assert_eq!(script.seen.data, b"pingbye");
                assert!(matches!(script.seen.events.last(), Some(Event::Eof(_))));
                script.wait(ms(20));
                assert_eq!(script.take().last().unwrap().ack, script.seq);
            }
            _ => assert_eq!(script.closed(), Some(Gone::Reset)),
        }
    }
}

#[test]
fn a_connection_of_the_fast_path_freezes_and_thaws() {
    let config = StackConfig { freeze_after: Some(ms(500)), ..config(1) };
    let mut script = Script::with(true, config);
    script.open();
    for _ in 0..3 {
        script.send(ACK | PSH, b"ping");
        script.say(b"pong");
        assert_eq!(script.take().last().unwrap().data, b"pong");
        script.ack += 4;
        script.raw(script.seq, script.ack, ACK, &[], &[]);
        script.wait(ms(1500));
        assert!(script.stack.stats(script.id()).unwrap().frozen);
    }
    assert_eq!(script.seen.data, b"pingpingping");
    assert_eq!(script.stack.counters().snapshot().freezes_total, 3);
    assert_eq!(passed(&script), (3, 0));
}

#[test]
fn a_peer_with_tiny_segments_gets_as_many_as_a_turn_has() {
    let config = StackConfig { freeze_after: None, ..config(1) };
    let mut script = Script::with(false, config);
    script.raw(script.seq, 0, SYN, &[2, 4, 0, 8], &[]);
    script.seq += 1;
    script.ack = script.one().seq.wrapping_add(1);
    script.send(ACK, &[]);
    script.send(ACK, b"ping");
    script.say(&[9; 1000]);
    let mut sent = Vec::new();
    for _ in 0..200 {
        for seg in script.take() {
            assert!(seg.data.len() <= 48, "{seg:?}");
            assert_eq!(seg.seq, script.ack.wrapping_add(sent.len() as u32));
            sent.extend(seg.data);
        }
        script.turn();
    }
    assert_eq!(sent, [9; 1000]);
}

/// What a scenario comes to, which has to be the same with the fast path and without.
fn both<T: PartialEq + std::fmt::Debug>(scenario: impl Fn(&mut Script) -> T) -> T {
    let [with, without] = [true, false].map(|fast_path| {
        let user_timeout = Duration::from_secs(5);
        let config = StackConfig { fast_path, freeze_after: None, user_timeout, ..config(1) };
        scenario(&mut Script::with(false, config))
    });
    assert_eq!(with, without, "with the fast path, and without");
    with
}

/// A connection on which `ping` came and as many bytes are in flight.
fn answered(script: &mut Script, bytes: usize) {
    script.open();
    script.send(ACK | PSH, b"ping");
    script.say(&vec![5; bytes]);
    assert_eq!(script.one().data.len(), bytes);
}

/// Whether the stack lets its worker rest.
fn rests(script: &mut Script) -> bool {
    let now = script.wire.borrow().now;
    for _ in 0..10 {
        script.turn();
    }
    script.stack.next_deadline().is_none_or(|next| next > now)
}

#[test]
fn a_paused_user_whose_output_was_refused_is_told_when_there_is_room() {
    let told = both(|script| {
        answered(script, 1400);
        let id = script.id();
        script.stack.pause(id, true);
        script.send(ACK | PSH, b"next");
        assert!(!script.stack.turn().1.send(id, &[2; 1000]));
        script.turn();
        script.ack += 1400;
        script.raw(script.seq, script.ack, ACK, &[], &[]);
        script.wait(ms(3000));
        (script.seen.events.contains(&Event::Writable(id)), rests(script))
    });
    assert_eq!(told, (true, true));
}

#[test]
fn the_user_timeout_holds_however_long_round_trips_are() {
    let (closed, rests) = both(|script| {
        answered(script, 4);
        for late in [900, 2600, 3200, 4000] {
            script.wait(ms(late));
            script.ack += 4;
            script.send(ACK | PSH, b"ping");
            script.say(b"pong");
            script.take();
        }
        script.wait(ms(5060));
        (script.closed(), rests(script))
    });
    assert_eq!((closed, rests), (Some(Gone::Failed), true));
}

#[test]
fn a_reset_of_ours_is_where_the_peer_takes_it_also_after_it_shrank_its_window() {
    let rst = both(|script| {
        script.wait(ms(100_000));
        script.introduce();
        answered(script, 1400);
        script.window = 100;
        script.raw(script.seq, script.ack, ACK, &[], &[]);
        script.take();
        let id = script.id();
        script.stack.abort(id);
        script.turn();
        script.wait(ms(5));
        let rst = script.one();
        (rst.flags & RST, rst.seq.wrapping_sub(script.ack), script.closed())
    });
    assert_eq!(rst, (RST, 1400, Some(Gone::Finished)));
}

#[test]
fn a_window_that_opened_is_told_when_it_leaves() {
    let window = both(|script| {
        answered(script, 4);
        script.seen.deaf = true;
        script.send(ACK, &[1; 1024]);
        script.send(ACK, &[2; 1020]);
        script.take();
        let id = script.id();
        let taken = script.stack.turn().0.take(id).map_or(0, |window| window.len());
        // Closing makes it leave in the turn in which all was taken.
        script.stack.close(id);
        script.turn();
        let fin = script.take().pop().expect("a FIN");
        (taken, fin.flags & FIN, fin.ack == script.seq, fin.window)
    });
    assert_eq!(window, (2044, FIN, true, 2048));
}

#[test]
fn an_acknowledgement_owed_while_the_link_is_full_is_sent_when_there_is_room() {
    let mut script = exchange(false);
    script.ack += 4;
    script.wire.borrow_mut().room = 0;
    script.send(ACK | PSH, b"more");
    script.wait(ms(15));
    // Leaves while nothing can be sent: a hole.
    script.raw(script.seq + 5, script.ack, ACK, &[], b"later");
    assert_eq!(passed(&script), (2, 1));
    script.wire.borrow_mut().room = 1024;
    script.wait(ms(1000));
    assert_eq!(script.take().last().map(|seg| seg.ack), Some(script.seq));
}

#[test]
fn a_peer_can_make_nobody_send_small_segments_without_end() {
    let segments = both(|script| {
        script.raw(script.seq, 0, SYN, &[2, 4, 0, 1], &[]);
        script.seq += 1;
        script.ack = script.one().seq.wrapping_add(1);
        script.send(ACK, &[]);
        script.send(ACK, b"ping");
        script.say(&[9; 1920]);
        for _ in 0..50 {
            script.turn();
        }
        script.take().len()
    });
    assert_eq!(segments, 1920 / 48);
}

#[test]
fn blind_segments_and_keep_alives_do_not_make_it_leave() {
    let mut script = exchange(false);
    script.ack += 4;
    for _ in 0..20 {
        script.send(ACK | PSH, b"ping");
        script.raw(script.seq.wrapping_sub(50), script.ack, RST, &[], &[]);
        script.raw(script.seq.wrapping_add(50), script.ack, SYN, &[], &[]);
        script.raw(script.seq, script.ack.wrapping_add(50), ACK, &[], b"blind");
        script.raw(script.seq.wrapping_sub(1), script.ack, ACK, &[], &[]);
        script.wait(ms(600));
        assert!(script.take().iter().all(|seg| seg.ack == script.seq));
    }
    assert_eq!(passed(&script), (21, 0));
    assert_eq!(script.seen.data.len(), 21 * 4);
}

#[test]
fn larger_answers_keep_their_congestion_window_most_of_the_time() {
    let config = StackConfig { freeze_after: None, ring_class: 2, ..config(1) };
    let mut script = Script::with(false, config);
    script.window = 65_535;
    script.open();
    for _ in 0..100 {
        script.introduce();
        script.send(ACK | PSH, b"request");
        script.say(&[7; 6_000]);
        let mut came = 0;
        while came < 6_000 {
            let sent: usize = script.take().iter().map(|seg| seg.data.len()).sum();
            assert!(sent > 0, "each acknowledgement brings more");
            came += sent;
            script.ack = script.ack.wrapping_add(sent as u32);
            script.raw(script.seq, script.ack, ACK, &[], &[]);
        }
        script.wait(ms(1200));
        script.take();
    }
    // After 1, 2, 4 ... 64 s, in two minutes.
    assert_eq!(passed(&script).1, 7);
}
