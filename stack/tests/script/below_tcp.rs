//! ICMP, fragments, VLAN: what lies below TCP.

use crate::peer::*;

#[test]
fn pings_are_answered_and_rate_limited() {
    for v6 in [false, true] {
        let mut script = Script::with(v6, StackConfig { icmp_per_second: 5, ..config(1) });
        let (kind, reply, protocol) = if v6 { (128, 129, 58) } else { (8, 0, 1) };
        let ping = [kind, 0, 0, 0, 1, 2, 3, 4, b'p', b'i', b'n', b'g'];
        let (us, it) = (ip(v6, 0), ip(v6, 1));
        for _ in 0..20 {
            script.ip(&packet(us, it, protocol, 64, &ping, 2));
        }
        script.turn();
        let frames = script.take_frames();
        assert!((4..=5).contains(&frames.len()), "{}", frames.len());
        let body = &frames[0][14 + if v6 { 40 } else { 20 }..];
        assert_eq!((body[0], &body[4..]), (reply, &ping[4..]));
    }
}

#[test]
fn fragments_are_refused() {
    let mut script = Script::new();
    let mut fragment = packet(ip(false, 0), ip(false, 1), 6, 64, &[0; 20], 16);
    fragment[6] = 0x20;
    fragment[10..12].fill(0);
    let sum = !upper_sum_plain(&fragment[..20]);
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    script.ip(&fragment);
    script.turn();
    assert_eq!(script.stack.counters().snapshot().drop_fragment_total, 1);
}

#[test]
fn fragments_and_extension_headers_of_ipv6_are_refused() {
    let mut script = Script::with(true, config(1));
    let mut segment = vec![0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 9, 0, 0, 0, 0, 0];
    segment[16..18].fill(0);
    for (kind, header) in [
        (44, [6, 0, 0, 1, 0, 0, 0, 9]),
        (0, [6, 0, 5, 2, 0, 0, 1, 0]),
        (0, [6, 0, 1, 4, 0, 0, 0, 0]),
        (43, [6, 0, 0, 0, 0, 0, 0, 0]),
        (60, [6, 0, 1, 4, 0, 0, 0, 0]),
    ] {
        let plain = packet(ip(true, 0), ip(true, 1), 6, 64, &segment, 16);
        let mut packet = plain[..40].to_vec();
        packet[5] += 8;
        packet[6] = kind;
        packet.extend(header);
        packet.extend(&plain[40..]);
        script.ip(&packet);
        script.turn();
    }
    assert_eq!(script.take(), []);
    let counters = script.stack.counters().snapshot();
    assert_eq!((counters.drop_fragment_total, counters.drop_protocol_total), (1, 4));
}

/// A router says that packets of ours are too big.
fn too_big(script: &mut Script, seq: u32, mtu: u16) {
    let mut quoted = vec![0, 80];
    quoted.extend(script.port.to_be_bytes());
    quoted.extend(seq.to_be_bytes());
    quoted.extend([0; 12]);
    let inner = packet(ip(script.v6, 1), ip(script.v6, 0), 6, 64, &quoted, 16);
    let mut message = match script.v6 {
        true => [&[2, 0, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat(),
        false => [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes()].concat(),
    };
    message.extend(inner);
    let protocol = if script.v6 { 58 } else { 1 };
    let packet = packet(ip(script.v6, 0), ip(script.v6, 1), protocol, 64, &message, 2);
    script.ip(&packet);
    script.turn();
}

#[test]
fn a_lower_path_mtu_is_believed_where_it_quotes_what_is_in_flight() {
    for v6 in [false, true] {
        let mut script = Script::with(v6, StackConfig { freeze_after: None, ..config(1) });
        script.open();
        script.say(&[5; 1800]);
        let first = script.take().remove(0);
        too_big(&mut script, first.seq.wrapping_sub(5000), 1300);
        assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, 1500);
        too_big(&mut script, first.seq, 1300);
        assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, 1280);
        script.wait(ms(1100));
        let again = script.take();
        let most = 1280 - if v6 { 60 } else { 40 };
        assert!(!again.is_empty() && again.iter().all(|seg| seg.data.len() <= most));
        // One from a liar that would stop all traffic.
        too_big(&mut script, first.seq, 68);
        let floor = if v6 { 1280 } else { 576 };
        assert_eq!(script.stack.stats(script.id()).unwrap().path_mtu, floor);
    }
}

#[test]
fn a_larger_path_mtu_is_tried_again_after_ten_minutes() {
    let mut script = Script::with(false, StackConfig { freeze_after: None, ..config(1) });
    script.open();
    let full = |script: &mut Script| {
        script.say(&[5; 1800]);
        let sent = script.take();
        script.ack = script.ack.wrapping_add(1800);
        script.send(ACK, &[]);
        // Whatever the congestion window left for later.
        script.take();
        (sent[0].seq, sent[0].data.len())
    };
    assert_eq!(full(&mut script).1, 1460);
    script.say(&[5; 1800]);
    let first = script.take().remove(0);
    too_big(&mut script, first.seq, 1280);
    script.wait(ms(1100));
    script.take();
    script.ack = script.ack.wrapping_add(1800);
    script.send(ACK, &[]);
    script.take();
    script.wait(Duration::from_secs(590));
    assert_eq!(full(&mut script).1, 1240);
    script.wait(Duration::from_secs(11));
    script.introduce();
    assert_eq!(full(&mut script).1, 1460);
}

#[test]
fn frames_of_another_vlan_are_not_ours() {
    let mut script = Script::with(false, StackConfig { vlan: Some(7), ..config(1) });
    script.raw(1000, 0, SYN, MSS_1460, &[]);
    assert_eq!(script.take_frames(), Vec::<Vec<u8>>::new());
    let counters = script.stack.counters().snapshot();
    assert_eq!((counters.connections, counters.drop_not_ours_total), (0, 2));
}

#[test]
fn a_packet_from_our_own_address_goes_nowhere() {
    let mut script = Script::new();
    let mut tcp = vec![0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 1, 0, 0, 0, 0, 0];
    tcp[3] = 80;
    let land = packet(ip(false, 1), ip(false, 1), 6, 64, &tcp, 16);
    script.ip(&land);
    script.turn();
    assert_eq!(script.take(), []);
    assert_eq!(script.stack.counters().snapshot().connections, 0);
}
