//! Output that doesn't leave: limits and their policies, pauses, and what a reader who is slow or
//! gone may cost.

mod common;

use common::*;
use hioload_pipeline::fake::{End, Mode};
use hioload_pipeline::suite::wire;
use hioload_pipeline::{ClosedBy, Kind, Overflow, SendError, SessionId};
use hioload_ws_proto::CloseCode;

const LIMIT: usize = 20_000;

fn limited(mode: Mode, overflow: Overflow) -> Plan {
    Plan::new(mode).settings(|s| {
        s.max_unsent_bytes = LIMIT;
        s.overflow = overflow;
        s.limits.max_message = 8000;
    })
}

/// A session that reads nothing, and one that makes the handler send to it.
fn stuck(plan: &Plan) -> (Rig<Probe>, Client, SessionId, Client) {
    let mut target: Option<SessionId> = None;
    let mut results = std::collections::BTreeMap::new();
    let mut rig = plan.start(Probe::on_message(move |message, context| {
        let target = *target.get_or_insert(message.session());
        if message.session() == target {
            return;
        }
        let sent = context.send(target, Kind::Binary, message.payload());
        *results.entry(format!("{sent:?}")).or_insert(0) += 1;
        let _ = context.send_text(message.session(), &format!("{sent:?}"));
    }));
    let reader = rig.open();
    let sender = rig.open();
    // The first message says who the reader is.
    reader.frame(TEXT, b"me");
    rig.run();
    let session = rig.worker.handler().ready()[0];
    reader.peer.set_window(0);
    (rig, reader, session, sender)
}

/// Sends `count` messages through `sender`; what the handler was told for each.
fn flood(rig: &mut Rig<Probe>, sender: &mut Client, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for nth in 0..count {
        sender.frame(BINARY, &wire::pattern(1000, nth));
        rig.run();
        told.extend(sender.messages().into_iter().map(|m| String::from_utf8(m).unwrap()));
    }
    told
}

/// Everything that a session gets once it reads.
fn read_all(rig: &mut Rig<Probe>, reader: &mut Client) -> Vec<wire::Frame> {
    reader.peer.set_window(usize::MAX);
    rig.run();
    reader.frames()
}

#[test]
fn drop_newest_keeps_what_came_first() {
    for mode in MODES {
        let (mut rig, mut reader, _, mut sender) = stuck(&limited(mode, Overflow::DropNewest));
        let told = flood(&mut rig, &mut sender, 40);
        let kept = told.iter().filter(|t| *t == "Ok(())").count();
        assert!((18..=20).contains(&kept), "{kept} of 1 KB in a limit of 20 KB");
        assert_eq!(told.iter().filter(|t| *t == "Err(Full)").count(), 40 - kept);
        assert_eq!(rig.counters().overflow_dropped_total, 40 - kept as u64);
        let got: Vec<_> = read_all(&mut rig, &mut reader).into_iter().map(|f| f.payload).collect();
        assert!(got == (0..kept).map(|n| wire::pattern(1000, n)).collect::<Vec<_>>());
        reader.leave();
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn drop_oldest_keeps_what_came_last_and_never_cuts_a_message() {
    for mode in MODES {
        let (mut rig, mut reader, _, mut sender) = stuck(&limited(mode, Overflow::DropOldest));
        let told = flood(&mut rig, &mut sender, 60);
        assert!(told.iter().all(|t| t == "Ok(())"), "{told:?}");
        let got: Vec<_> = read_all(&mut rig, &mut reader).into_iter().map(|f| f.payload).collect();
        assert!((18..=20).contains(&got.len()), "{}", got.len());
        assert_eq!(got.len() as u64 + rig.counters().overflow_dropped_total, 60);
        let order: Vec<_> = got
            .iter()
            .map(|m| (0..60).position(|n| *m == wire::pattern(1000, n)).expect("a whole message"))
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(order.last(), Some(&59), "the newest is there");
        reader.leave();
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn close_ends_the_session_with_1013() {
    for mode in MODES {
        let (mut rig, mut reader, session, mut sender) = stuck(&limited(mode, Overflow::Close));
        let told = flood(&mut rig, &mut sender, 30);
        assert!(told.iter().any(|t| t == "Err(Full)"), "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some("Err(Closed)"));
        assert_eq!(rig.counters().overflow_closed_total, 1);
        let endings = rig.worker.handler().endings();
        assert_eq!(endings, [(1013, ClosedBy::Us)]);
        let last = read_all(&mut rig, &mut reader).pop().expect("frames");
        assert_eq!(last.close().map(|c| c.0), Some(1013));
        assert_eq!(reader.end(), End::Fin);
        assert!(rig.remote.send(session, Kind::Text, b"too late").is_ok());
        reader.peer.finish();
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_session_that_never_reads_its_close_is_dropped_in_the_end() {
    for mode in MODES {
        let (mut rig, reader, _, mut sender) = stuck(&limited(mode, Overflow::Close));
        flood(&mut rig, &mut sender, 30);
        assert!(!reader.peer.is_closed(), "its last bytes may still leave");
        rig.pass(secs(6));
        assert!(reader.peer.is_closed());
        assert_eq!(reader.end(), End::Reset);
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn an_echo_never_overflows_however_slow_the_reader_is() {
    for mode in MODES {
        for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Close] {
            let mut rig = limited(mode, overflow).start(Probe::echo());
            let mut client = rig.open();
            client.peer.set_window(3000);
            let mut bytes = Vec::new();
            (0..400).for_each(|n| wire::put_frame(&mut bytes, BINARY, &wire::pattern(1500, n)));
            client.send(&bytes);
            rig.run();
            assert!(client.peer.is_paused(), "receiving pauses at half of the limit");
            let most = (LIMIT + 8000 + 64 * 1024) as u64;
            assert!(rig.counters().queued_bytes <= most);
            let mut got = Vec::new();
            for _ in 0..10_000 {
                // A look at the client's own 900 bytes at a time, with turns in between.
                client.peer.take_at_most(900, &mut client.seen);
                rig.run();
                got.extend(client.frames());
                if got.len() == 400 {
                    break;
                }
                assert!(rig.counters().queued_bytes <= most);
            }
            assert_eq!(got.len(), 400, "{mode:?} {overflow:?} {:#?}", rig.counters());
            assert!(got.iter().enumerate().all(|(n, f)| f.payload == wire::pattern(1500, n)));
            let c = rig.counters();
            assert_eq!((c.overflow_dropped_total, c.overflow_closed_total), (0, 0));
            assert!(!client.peer.is_paused(), "it goes on once there is room");
            client.leave();
            rig.assert_clean();
        }
    }
}

#[test]
fn a_handler_that_sent_too_much_hears_when_there_is_room() {
    for mode in MODES {
        let (mut rig, mut reader, session, mut sender) =
            stuck(&limited(mode, Overflow::DropNewest));
        flood(&mut rig, &mut sender, 25);
        let writable =
            |rig: &mut Rig<Probe>| rig.worker.handler().count(|saw| *saw == Saw::Writable(session));
        assert_eq!(writable(&mut rig), 0, "nothing has left");
        read_all(&mut rig, &mut reader);
        assert_eq!(writable(&mut rig), 1);
        let told = flood(&mut rig, &mut sender, 2);
        assert_eq!(told, ["Ok(())", "Ok(())"]);
        reader.leave();
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn pings_of_a_peer_that_reads_nothing_cost_bounded_memory() {
    for mode in MODES {
        let mut rig = limited(mode, Overflow::DropNewest).start(Probe::echo());
        let mut client = rig.open();
        client.peer.set_window(0);
        let mut bytes = Vec::new();
        (0..5000).for_each(|n: u32| wire::put_frame(&mut bytes, PING, &n.to_be_bytes().repeat(30)));
        client.send(&bytes);
        rig.run();
        assert!(client.peer.is_paused());
        assert!(rig.counters().queued_bytes <= (LIMIT + 64 * 1024) as u64);
        client.peer.set_window(usize::MAX);
        let mut pongs = Vec::new();
        for _ in 0..100 {
            rig.run();
            pongs.extend(client.frames());
        }
        assert_eq!(pongs.len(), 5000);
        assert!(
            pongs.iter().enumerate().all(|(n, f)| f.payload == (n as u32).to_be_bytes().repeat(30))
        );
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_message_larger_than_the_limit_goes_when_nothing_else_waits() {
    for mode in MODES {
        let plan = limited(mode, Overflow::Close);
        let mut rig = plan.start(Probe::on_message(|message, context| {
            let sent = context.send_binary(message.session(), &wire::pattern(3 * LIMIT, 1));
            assert_eq!(sent, Ok(()));
        }));
        let mut client = rig.open();
        client.peer.set_window(500);
        client.frame(TEXT, b"go");
        let mut got = Vec::new();
        for _ in 0..1000 {
            rig.run();
            got.extend(client.messages());
        }
        assert!(got == [wire::pattern(3 * LIMIT, 1)]);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn a_peer_that_resets_while_output_waits_frees_it() {
    for mode in MODES {
        let (mut rig, reader, session, mut sender) = stuck(&limited(mode, Overflow::DropNewest));
        flood(&mut rig, &mut sender, 25);
        assert!(rig.counters().queues_open >= 1);
        reader.peer.reset();
        rig.run();
        assert_eq!(rig.counters().queued_bytes, 0);
        assert_eq!(rig.worker.handler().endings(), [(1006, ClosedBy::Transport)]);
        assert_eq!(flood(&mut rig, &mut sender, 1), ["Err(Closed)"]);
        rig.remote.close(session, CloseCode::NORMAL, "").expect("room");
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn unsent_counts_what_waits_anywhere() {
    for mode in MODES {
        let plan = limited(mode, Overflow::DropNewest);
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let note = seen.clone();
        let mut rig = plan.start(Probe::on_message(move |message, context| {
            let session = message.session();
            assert_eq!(context.send_binary(session, &[1; 5000]), Ok(()));
            note.borrow_mut().push(context.unsent(session));
        }));
        let mut client = rig.open();
        client.peer.set_window(0);
        client.frame(TEXT, b"1");
        rig.run();
        client.frame(TEXT, b"2");
        rig.run();
        assert_eq!(*seen.borrow(), [5004, 10_008]);
        client.peer.set_window(usize::MAX);
        rig.run();
        assert_eq!(client.messages().len(), 2);
        client.leave();
        rig.assert_clean();
    }
}

#[test]
fn sending_to_a_stale_id_reaches_nobody() {
    for mode in MODES {
        let mut first: Option<SessionId> = None;
        let mut rig = Plan::new(mode).start(Probe::on_message(move |message, context| {
            let old = *first.get_or_insert(message.session());
            if old != message.session() {
                assert_eq!(context.send_text(old, "who"), Err(SendError::Closed));
                assert_eq!(context.close(old, CloseCode::NORMAL, ""), Err(SendError::Closed));
                assert_eq!(context.state(old), None);
                assert_eq!(context.unsent(old), 0);
            }
            let _ = context.echo(message);
        }));
        let mut one = rig.open();
        one.frame(TEXT, b"1");
        rig.run();
        assert_eq!(one.messages(), [b"1"]);
        one.leave();
        rig.run();
        drop(one);
        let old = rig.worker.handler().ready()[0];
        // The next tenant of the same slots.
        let mut two = rig.open();
        let new = rig.worker.handler().ready()[1];
        assert_ne!(old, new);
        two.frame(TEXT, b"2");
        rig.remote.send(old, Kind::Text, b"stale").expect("room");
        rig.remote.close(old, CloseCode::NORMAL, "").expect("room");
        rig.remote.accept(old).expect("room");
        rig.run();
        assert_eq!(two.messages(), [b"2"]);
        two.leave();
        rig.assert_clean();
    }
}

#[test]
fn small_messages_that_share_a_buffer_are_dropped_one_by_one() {
    for mode in MODES {
        let (mut rig, mut reader, _, mut sender) = stuck(&limited(mode, Overflow::DropOldest));
        let mut bytes = Vec::new();
        (0..400u32).for_each(|n| wire::put_frame(&mut bytes, BINARY, &n.to_be_bytes().repeat(25)));
        // The transport takes a turn's worth, and no more while that hasn't left.
        sender.send(&bytes[..1000]);
        rig.run();
        sender.send(&bytes[1000..]);
        rig.run();
        assert_eq!(sender.messages().len(), 400);
        let got = read_all(&mut rig, &mut reader);
        let dropped = rig.counters().overflow_dropped_total;
        assert_eq!(got.len() as u64 + dropped, 400, "each that was dropped is counted");
        assert!(got.len() >= LIMIT / 102 - 1, "no more are dropped than have to be");
        let number = |f: &wire::Frame| u32::from_be_bytes(*f.payload.first_chunk().unwrap());
        assert!(got.iter().all(|f| f.payload == number(f).to_be_bytes().repeat(25)));
        // What the transport took stays; from what waits the oldest went.
        let numbers: Vec<_> = got.iter().map(number).collect();
        let gaps = numbers.windows(2).filter(|two| two[1] != two[0] + 1).count();
        assert!(numbers.is_sorted() && gaps <= 1, "{mode:?} {numbers:?}");
        assert_eq!(numbers.last(), Some(&399));
        reader.leave();
        sender.leave();
        rig.assert_clean();
    }
}

#[test]
fn the_answer_to_our_close_is_seen_though_receiving_was_paused() {
    for mode in MODES {
        let mut rig = limited(mode, Overflow::Close).start(Probe::echo());
        let client = rig.open();
        client.peer.set_window(0);
        let mut bytes = Vec::new();
        (0..100).for_each(|n| wire::put_frame(&mut bytes, BINARY, &wire::pattern(3000, n)));
        client.send(&bytes);
        rig.run();
        assert!(client.peer.is_paused());
        let session = rig.worker.handler().ready()[0];
        rig.remote.close(session, CloseCode::NORMAL, "").expect("room");
        client.send(&wire::close(1000, "seen"));
        rig.run();
        let closed = Saw::Closed(session, 1000, "seen".into(), ClosedBy::Us);
        assert_eq!(rig.worker.handler().saw.last(), Some(&closed), "no deadline was needed");
        client.peer.reset();
        rig.assert_clean();
    }
}

#[test]
fn short_frames_for_one_who_reads_nothing_hold_little_memory() {
    let ping = wire::frame(PING, b"");
    let both = [ping.clone(), wire::frame(BINARY, b"a")].concat();
    for mode in MODES {
        // Echoes are split from pongs by the batch, so one message a call alternates most.
        for (input, batch) in [(ping.repeat(5000), 32), (both.repeat(2500), 1)] {
            let mut rig = Plan::new(mode).settings(|s| s.batch = batch).start(Probe::echo());
            let reader = rig.open();
            reader.peer.set_window(0);
            reader.frame(BINARY, &[0; 1000]);
            rig.run();
            for _ in 0..8 {
                reader.send(&input);
                rig.run();
            }
            let held = rig.counters().pool_bytes_lent;
            assert!(held < 4 << 20, "{mode:?}: {held} bytes held, within a limit of 1 MiB");
            reader.peer.set_window(usize::MAX);
            reader.leave();
            rig.assert_clean();
        }
    }
}

#[test]
fn short_broadcasts_to_one_who_reads_nothing_hold_little_memory() {
    let (mut rig, _reader, _, _sender) = stuck(&Plan::new(Mode::Readiness));
    for nth in 0..20_000u32 {
        rig.remote.broadcast(Kind::Binary, &nth.to_be_bytes(), None);
        if nth % 500 == 0 {
            rig.run();
        }
    }
    rig.run();
    let c = rig.counters();
    assert!(c.pool_bytes_lent < 4 * c.queued_bytes, "{c:#?}");
}

#[test]
fn who_was_told_full_is_told_when_there_is_room() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let (mut rig, mut reader, session, mut sender) = stuck(
            &Plan::new(Mode::Readiness)
                .settings(|s| (s.max_unsent_bytes, s.overflow) = (LIMIT, overflow)),
        );
        // The transport takes the first one whole, and is at the limit with it.
        sender.frame(BINARY, &[1; LIMIT]);
        rig.run();
        assert_eq!(flood(&mut rig, &mut sender, 1), ["Ok(())", "Err(Full)"]);
        assert_eq!(read_all(&mut rig, &mut reader).len(), 1);
        let writable = rig.worker.handler().count(|saw| *saw == Saw::Writable(session));
        assert_eq!(writable, 1, "{overflow:?}");
    }
}

#[test]
fn drop_oldest_drops_nothing_for_a_message_that_does_not_fit_anyway() {
    let (mut rig, mut reader, _, sender) = stuck(&limited(Mode::Readiness, Overflow::DropOldest));
    sender.frame(BINARY, &[1; 7900]);
    rig.run();
    sender.frame(BINARY, &[1; 7900]);
    sender.frame(BINARY, &[2; 3000]);
    rig.run();
    let before = rig.counters();
    let held = before.queued_bytes;
    assert!(held > 0, "{before:#?}");
    let id = rig.worker.handler().ready()[0];
    rig.remote.send(id, Kind::Binary, &[3; 15_000]).unwrap();
    rig.run();
    assert_eq!(rig.counters().queued_bytes, held);
    assert_eq!(rig.counters().overflow_dropped_total, before.overflow_dropped_total + 1);
    assert_eq!(read_all(&mut rig, &mut reader).len(), 3);
}
