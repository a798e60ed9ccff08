//! What RFC 9293 asks of a connection, from SYN to TIME-WAIT.

use hioload_stack::RxChecksum;

use crate::peer::*;

#[test]
fn a_handshake_offers_mss_and_an_unscaled_window() {
    for v6 in [false, true] {
        let mut script = Script::with(v6, config(1));
        let syn_ack = script.open();
        assert_eq!((syn_ack.flags, syn_ack.ack, syn_ack.window), (SYN | ACK, 1001, 2048));
        let mss: u16 = if v6 { 1440 } else { 1460 };
        assert_eq!(syn_ack.options[..4], [&[2, 4][..], &mss.to_be_bytes()].concat());
    }
}

#[test]
fn a_closed_port_resets_and_a_reset_is_never_answered() {
    let mut script = Script::new();
    script.stack.set_accepting(hioload_stack::Accepting::Closed);
    script.raw(50, 0, SYN, &[], &[]);
    let reset = script.one();
    assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, 51));
    script.raw(50, 77, ACK, &[], b"data");
    let reset = script.one();
    assert_eq!((reset.flags, reset.seq), (RST, 77));
    script.raw(50, 77, RST | ACK, &[], &[]);
    assert_eq!(script.take(), []);
}

#[test]
fn the_acknowledgement_of_a_syn_must_be_exact() {
    let mut script = Script::new();
    script.raw(1000, 0, SYN, MSS_1460, &[]);
    let isn = script.one().seq;
    script.raw(1001, isn.wrapping_add(2), ACK, &[], &[]);
    let reset = script.one();
    assert_eq!((reset.flags, reset.seq), (RST, isn.wrapping_add(2)));
    assert!(script.seen.events.is_empty());
}

#[test]
fn data_in_order_is_delivered_and_acknowledged_within_a_delay() {
    let mut script = Script::new();
    script.open();
    script.send(ACK | PSH, b"hello");
    assert_eq!(script.seen.data, b"hello");
    assert_eq!(script.take(), [], "the acknowledgement may wait for a reply");
    script.wait(ms(20));
    let ack = script.one();
    assert_eq!((ack.flags, ack.ack), (ACK, 1006));
}

#[test]
fn data_out_of_order_waits_and_is_asked_for_at_once() {
    let mut script = Script::new();
    script.open();
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq + 3, ack, ACK, &[], b"def");
    assert_eq!((script.one().ack, &script.seen.data[..]), (seq, &b""[..]));
    script.raw(seq, ack, ACK, &[], b"abc");
    assert_eq!(script.seen.data, b"abcdef");
    assert_eq!(script.take().last().unwrap().ack, seq + 6);
}

#[test]
fn holes_beyond_the_bound_take_no_memory() {
    let mut script = Script::new();
    script.open();
    let (seq, ack) = (script.seq, script.ack);
    for n in 1..200 {
        script.raw(seq + n * 4, ack, ACK, &[], b"x");
    }
    let data: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
    script.raw(seq, ack, ACK, &[], &data);
    // What was kept of the holes fills its place; nothing is lost or doubled.
    assert!(script.seen.data.len() >= 1000 && script.seen.data.len() < 1100);
}

#[test]
fn what_is_old_is_acknowledged_again_and_not_delivered_twice() {
    let mut script = Script::new();
    script.open();
    let (seq, ack) = (script.seq, script.ack);
    script.send(ACK, b"abc");
    script.wait(ms(20));
    script.take();
    script.raw(seq, ack, ACK, &[], b"abc");
    assert_eq!(script.one().ack, seq + 3);
    // Part old, part new: the new part counts.
    script.raw(seq, ack, ACK, &[], b"abcde");
    assert_eq!(script.seen.data, b"abcde");
}

#[test]
fn data_with_an_old_acknowledgement_counts() {
    let mut script = Script::new();
    script.open();
    let old = script.ack;
    script.say(b"some output");
    script.take();
    script.ack += 11;
    script.send(ACK, b"first");
    let seq = script.seq;
    script.raw(seq, old, ACK, &[], b"second");
    assert_eq!(script.seen.data, b"firstsecond");
}

#[test]
fn data_beyond_the_window_is_cut() {
    let mut script = Script::new();
    script.seen.deaf = true;
    script.open();
    let data = vec![7; 1400];
    script.send(ACK, &data);
    script.send(ACK, &data);
    script.wait(ms(20));
    let last = script.take().pop().unwrap();
    assert_eq!((last.ack, last.window), (1001 + 2048, 0));
    script.seen.deaf = false;
    script.stack.pause(script.id(), false);
    script.turn();
    script.turn();
    let last = script.take().pop().unwrap();
    assert_eq!((script.seen.data.len(), last.window), (2048, 2048), "the window opens again");
}

#[test]
fn the_peers_mss_is_kept_and_536_where_it_tells_none() {
    for (options, most) in [(&[2u8, 4, 2, 88][..], 600), (&[], 536), (&[2, 4, 0, 1], 48)] {
        let mut script = Script::new();
        script.raw(1000, 0, SYN, options, &[]);
        script.seq = 1001;
        script.ack = script.one().seq.wrapping_add(1);
        script.send(ACK, &[]);
        script.say(&[1; 1800]);
        let sent = script.take();
        assert!(!sent.is_empty() && sent.iter().all(|seg| seg.data.len() <= most));
        assert_eq!(sent[0].data.len(), most);
    }
}

#[test]
fn the_peers_window_is_kept_and_a_closed_one_is_probed() {
    let mut script = Script::new();
    script.window = 10;
    script.open();
    script.say(b"0123456789abc");
    assert_eq!(script.one().data, b"0123456789");
    script.window = 0;
    script.ack += 10;
    script.send(ACK, &[]);
    assert_eq!(script.take(), []);
    script.wait(ms(1500));
    assert_eq!(script.one().data, b"a", "a probe");
    script.wait(ms(2500));
    assert_eq!(script.one().data, b"a", "twice as late");
    script.window = 100;
    script.send(ACK, &[]);
    assert_eq!(script.take().last().unwrap().data, b"abc");
}

#[test]
fn the_peer_finishes_first() {
    let mut script = Script::new();
    script.open();
    script.send(ACK | FIN, b"bye");
    assert!(script.seen.events.iter().any(|e| matches!(e, Event::Eof(_))));
    assert_eq!(script.seen.data, b"bye");
    script.say(b"still here");
    let sent = script.take().pop().unwrap();
    assert_eq!((sent.ack, &sent.data[..]), (1005, &b"still here"[..]));
    script.stack.close(script.id());
    script.turn();
    assert_eq!(script.take(), [], "the FIN waits for the last acknowledgement");
    script.ack += 10;
    script.send(ACK, &[]);
    assert_eq!(script.take().pop().unwrap().flags & FIN, FIN);
    script.ack += 1;
    script.send(ACK, &[]);
    assert_eq!(script.closed(), Some(Gone::Finished));
    assert_eq!(script.stack.counters().snapshot().connections, 0);
}

/// We finish first; ends in TIME-WAIT.
fn into_time_wait(time_wait: Duration) -> Script {
    let mut script =
        Script::with(false, StackConfig { time_wait, freeze_after: None, ..config(1) });
    script.open();
    script.stack.close(script.id());
    script.turn();
    assert_eq!(script.one().flags & FIN, FIN);
    script.ack += 1;
    script.send(ACK, &[]);
    script.send(ACK | FIN, &[]);
    assert_eq!(script.one().ack, script.seq);
    assert_eq!(script.closed(), Some(Gone::Finished));
    assert_eq!(script.stack.counters().snapshot().time_wait, 1);
    script
}

#[test]
fn time_wait_answers_a_fin_again_and_ends() {
    let mut script = into_time_wait(Duration::from_secs(30));
    script.wait(ms(20_000));
    let (seq, ack) = (script.seq - 1, script.ack);
    script.raw(seq, ack, ACK | FIN, &[], &[]);
    let again = script.one();
    assert_eq!((again.flags, again.ack), (ACK, script.seq));
    script.wait(ms(29_000));
    assert_eq!(script.stack.counters().snapshot().time_wait, 1, "it began again");
    script.wait(ms(2_000));
    assert_eq!(script.stack.counters().snapshot().connections, 0);
}

#[test]
fn time_wait_survives_a_reset() {
    let mut script = into_time_wait(Duration::from_secs(30));
    let (seq, ack) = (script.seq, script.ack);
    script.raw(seq, ack, RST, &[], &[]);
    assert_eq!(script.stack.counters().snapshot().time_wait, 1);
}

#[test]
fn time_wait_gives_way_to_a_later_syn_only() {
    let mut script = into_time_wait(Duration::from_secs(30));
    let (seq, old) = (script.seq, script.ack);
    script.raw(seq - 1, 0, SYN, MSS_1460, &[]);
    assert_eq!(script.one().flags, ACK);
    script.raw(seq + 1, 0, SYN, MSS_1460, &[]);
    let syn_ack = script.one();
    assert_eq!(syn_ack.flags, SYN | ACK);
    assert!(syn_ack.seq.wrapping_sub(old) < 1 << 31, "beyond the old connection");
    assert_eq!(script.stack.counters().snapshot().time_wait_reused_total, 1);
}

#[test]
fn aborting_resets_and_the_slot_is_free() {
    let mut script = Script::new();
    script.open();
    script.stack.abort(script.id());
    script.turn();
    assert_eq!(script.one().flags & RST, RST);
    assert_eq!(script.closed(), Some(Gone::Finished));
    assert_eq!(script.stack.counters().snapshot().connections, 0);
}

#[test]
fn a_bad_checksum_is_dropped() {
    let mut script = Script::new();
    script.open();
    script.ip(&wrongly_summed(&script));
    script.turn();
    assert_eq!(script.seen.data, b"");
    assert_eq!(script.stack.counters().snapshot().drop_checksum_total, 1);
}

#[test]
fn a_checksum_that_the_link_answers_for_is_not_looked_at_and_the_other_one_is() {
    for verdict in [RxChecksum::Good, RxChecksum::TcpGood] {
        let mut script = Script::new();
        script.open();
        script.wire.borrow_mut().verdict = verdict;
        let mut packet = wrongly_summed(&script);
        script.ip(&packet);
        script.turn();
        assert_eq!(script.seen.data, b"y", "{verdict:?}");
        // An IPv4 header that nobody vouches for: it says another identification than was summed.
        script.seq = script.seq.wrapping_add(1);
        packet = wrongly_summed(&script);
        packet[4] ^= 1;
        script.ip(&packet);
        script.turn();
        let (data, drops) = match verdict {
            RxChecksum::Good => (&b"yy"[..], 0),
            _ => (&b"y"[..], 1),
        };
        assert_eq!(script.seen.data, data, "{verdict:?}");
        assert_eq!(script.stack.counters().snapshot().drop_checksum_total, drops, "{verdict:?}");
    }
}

/// The next segment, with one byte of data that was another one when the sum was made.
fn wrongly_summed(script: &Script) -> Vec<u8> {
    let mut tcp = vec![0x13, 0x88, 0, 80];
    tcp.extend(script.seq.to_be_bytes());
    tcp.extend(script.ack.to_be_bytes());
    tcp.extend([0x50, ACK, 1, 0, 0, 0, 0, 0, b'x']);
    let mut packet = packet(ip(false, 0), ip(false, 1), 6, 64, &tcp, 16);
    *packet.last_mut().unwrap() = b'y';
    packet
}

#[test]
fn a_connection_of_ours_is_refused_by_a_reset() {
    let mut script = Script::new();
    let id = script.stack.connect(SocketAddr::new(ip(false, 0), 80)).unwrap();
    script.turn();
    let frames = script.take_frames();
    let syn = frames.last().unwrap();
    let (port, seq) = (u16::from_be_bytes([syn[34], syn[35]]), &syn[38..42]);
    assert!(port >= 1024, "not a well-known port");
    let acked = u32::from_be_bytes(seq.try_into().unwrap()).wrapping_add(1);
    let mut tcp = vec![0, 80];
    tcp.extend(port.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(acked.to_be_bytes());
    tcp.extend([0x50, RST | ACK, 0, 0, 0, 0, 0, 0]);
    let packet = packet(ip(false, 0), ip(false, 1), 6, 64, &tcp, 16);
    script.ip(&packet);
    script.turn();
    assert_eq!(script.seen.events, [Event::Closed(id, Gone::Reset)]);
}

#[test]
fn a_peer_is_asked_where_it_is_without_a_byte_of_garbage() {
    let mut script = Script::new();
    script.open();
    script.say(&[7; 1800]);
    let sent = script.take();
    assert_eq!(sent.len(), 2);
    // The window closes over what is in flight, and opens as far as that reaches: smoltcp is left
    // without a timer, and with SND.NXT beyond what the peer has.
    script.ack += 1460;
    script.window = 0;
    script.send(ACK, &[]);
    script.window = 340;
    script.send(ACK, &[]);
    let asked = script.one();
    assert_eq!((asked.flags, asked.seq, asked.data.len()), (ACK, script.ack - 1, 0));
    for _ in 0..3 {
        script.send(ACK, &[]);
    }
    let again = script.take().pop().unwrap();
    assert_eq!((again.seq, again.data.len()), (script.ack, 340));
}

/// Who finished before the window closes for a moment.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Finished {
    Nobody,
    Peer,
    Us,
    PeerThenUs,
    UsThenPeer,
}

#[test]
fn a_window_that_closes_for_a_moment_holds_nothing_up() {
    use Finished::*;
    for finished in [Nobody, Peer, Us, PeerThenUs, UsThenPeer] {
        for together in [false, true] {
            let mut script = Script::with(true, StackConfig { freeze_after: None, ..config(1) });
            script.open();
            script.window = 1000;
            let peer_first = matches!(finished, Peer | PeerThenUs);
            script.send(if peer_first { ACK | FIN } else { ACK }, b"");
            script.say(&[7; 1500]);
            if !matches!(finished, Nobody | Peer) {
                let id = script.id();
                script.stack.close(id);
                script.turn();
            }
            if finished == UsThenPeer {
                script.send(ACK | FIN, b"");
            }
            let sent: usize = script.take().iter().map(|segment| segment.data.len()).sum();
            assert_eq!(sent, 1000);
            // It has no room for the last 32 bytes, throws them away, and then has room for all.
            let (seq, ack) = (script.seq, script.ack + 968);
            script.window = 0;
            match together {
                true => script.put(seq, ack, ACK, &[], b""),
                false => script.raw(seq, ack, ACK, &[], b""),
            }
            script.window = 3000;
            script.raw(seq, ack, ACK, &[], b"");
            script.wait(ms(5000));
            let mut came = vec![false; 532];
            for segment in script.take() {
                let at = segment.seq.wrapping_sub(ack) as usize;
                (at..at + segment.data.len()).for_each(|n| came[n] = true);
            }
            assert!(came.iter().all(|&came| came), "{finished:?}, together: {together}");
            // All of it is there: now our FIN comes, if we have finished.
            script.raw(seq, ack + 532, ACK, &[], b"");
            script.wait(ms(5000));
            let fins = script.take().iter().filter(|segment| segment.flags & FIN != 0).count();
            assert_eq!(fins > 0, !matches!(finished, Nobody | Peer), "{finished:?}");
        }
    }
}
