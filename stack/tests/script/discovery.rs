//! Who is where on the link: gateways, several addresses, claims on ours (RFC 5227, RFC 4862), the
//! groups that we listen to (RFC 3810).

use std::net::{IpAddr, Ipv6Addr};

use crate::peer::*;
use hioload_stack::Address;

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 77];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 88];

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn upper(frame: &[u8]) -> &[u8] {
    &frame[14 + if frame[12] == 0x86 { 40 } else { 20 }..]
}

/// An ARP packet for the stack.
fn arp(op: u8, from: ([u8; 6], IpAddr), to: ([u8; 6], IpAddr)) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, op];
    for (mac, ip) in [from, to] {
        arp.extend(mac);
        arp.extend(octets(ip));
    }
    arp
}

/// A neighbour discovery packet: `option` is the link-layer address option's kind.
fn ndp(kind: u8, from: IpAddr, to: IpAddr, target: IpAddr, option: u8, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, if kind == 136 { 0x60 } else { 0 }, 0, 0, 0];
    message.extend(octets(target));
    message.extend([option, 1]);
    message.extend(mac);
    packet(from, to, 58, 255, &message, 2)
}

fn syn(script: &mut Script, from: IpAddr, to: IpAddr) {
    let mut tcp = vec![0x13, 0x88, 0, 80, 0, 0, 3, 232, 0, 0, 0, 0, 0x50, SYN, 20, 0, 0, 0, 0, 0];
    tcp[1] = 0x88;
    let packet = packet(from, to, 6, 60, &tcp, 16);
    script.frame(if from.is_ipv6() { 0x86dd } else { 0x0800 }, &packet);
    script.turn();
}

#[test]
fn what_is_not_on_the_link_goes_by_the_gateway() {
    for v6 in [false, true] {
        let (far, gateway, us) = match v6 {
            true => (addr("2001:db8:9::5"), addr("2001:db8::fe"), ip(true, 1)),
            false => (addr("198.51.100.7"), addr("10.0.0.254"), ip(false, 1)),
        };
        let mut gated = config(1);
        match gateway {
            IpAddr::V4(ip) => gated.gateway_v4 = Some(ip),
            IpAddr::V6(ip) => gated.gateway_v6 = Some(ip),
        }
        let mut script = Script::with(v6, gated);
        syn(&mut script, far, us);
        let asked = script.take_frames();
        assert_eq!(asked.len(), 1, "the gateway is asked for, and nobody else");
        let target = if v6 { &upper(&asked[0])[8..24] } else { &asked[0][38..42] };
        assert_eq!(target, octets(gateway));
        match v6 {
            true => {
                let answer = ndp(136, gateway, us, gateway, 2, GATEWAY);
                script.frame(0x86dd, &answer);
            }
            false => script.frame(0x0806, &arp(2, (GATEWAY, gateway), ([2, 0, 0, 0, 0, 2], us))),
        }
        script.turn();
        let sent = script.take_frames();
        assert_eq!((sent.len(), &sent[0][..6]), (1, &GATEWAY[..]));
        assert_eq!(upper(&sent[0])[13], SYN | ACK);

        // Without a gateway there is no way.
        let mut script = Script::with(v6, config(1));
        syn(&mut script, far, us);
        assert_eq!(script.take_frames(), Vec::<Vec<u8>>::new());
        assert!(script.stack.counters().snapshot().drop_no_route_total > 0);
        assert!(script.stack.connect(SocketAddr::new(far, 80)).is_err());
    }
}

#[test]
fn each_of_several_addresses_answers_for_itself() {
    let more = ["192.0.2.9/24", "2001:db8:7::9/64"].map(|text| {
        let (ip, prefix) = text.split_once('/').unwrap();
        Address { ip: addr(ip), prefix: prefix.parse().unwrap() }
    });
    let mut several = config(1);
    several.addresses.extend(more);
    for (from, to) in [
        (addr("192.0.2.1"), more[0].ip),
        (ip(false, 0), ip(false, 1)),
        (addr("2001:db8:7::1"), more[1].ip),
        (ip(true, 0), ip(true, 1)),
    ] {
        let mut script = Script::with(false, several.clone());
        let question = match from.is_ipv6() {
            true => {
                script.frame(0x86dd, &ndp(135, from, to, to, 1, OTHER));
                &[136, 0]
            }
            false => {
                script.frame(0x0806, &arp(1, (OTHER, from), ([0; 6], to)));
                &[0, 2]
            }
        };
        script.turn();
        let answer = script.take_frames().remove(0);
        assert_eq!(answer[..6], OTHER);
        match from.is_ipv6() {
            true => assert_eq!(&upper(&answer)[..2], question),
            false => {
                assert_eq!((&answer[20..22], &answer[28..32]), (&question[..], &octets(to)[..]))
            }
        }
        syn(&mut script, from, to);
        let sent = script.take_frames().remove(0);
        let source = if from.is_ipv6() { &sent[22..38] } else { &sent[26..30] };
        assert_eq!((source, upper(&sent)[13]), (&octets(to)[..], SYN | ACK));
        // What we open to a network comes from our address there.
        script.stack.connect(SocketAddr::new(from, 443)).unwrap();
        script.turn();
        let sent = script.take_frames().remove(0);
        let source = if from.is_ipv6() { &sent[22..38] } else { &sent[26..30] };
        assert_eq!((source, upper(&sent)[13]), (&octets(to)[..], SYN));
    }
}

/// All that a stack says before anybody spoke to it.
fn first_words(config: StackConfig) -> (Script, Vec<Vec<u8>>) {
    let wire = Wire::new(1, Faults::default());
    wire.borrow_mut().log = Some(Vec::new());
    let mut script = Script::on(wire, false, config);
    script.turn();
    let said = script.take_frames();
    (script, said)
}

#[test]
fn addresses_are_tested_and_announced_and_groups_reported_at_the_start() {
    let (_, said) = first_words(config(1));
    let kinds: Vec<(u8, u8)> = said
        .iter()
        .map(|frame| match frame[12..14] {
            [8, 6] => (frame[21], frame[31]),
            _ if frame[20] == 0 => (0, frame[62]),
            _ => (upper(frame)[0], frame[37]),
        })
        .collect();
    // MLD report; ARP probe (from 0.0.0.0) and announcement; solicitation from ::, advertisement.
    assert_eq!(kinds, [(0, 143), (1, 0), (1, 2), (135, 0), (136, 2)]);
    let report = &said[0];
    assert_eq!(report[..6], [0x33, 0x33, 0, 0, 0, 0x16]);
    assert_eq!(report[54..62], [58, 0, 5, 2, 0, 0, 1, 0], "router alert");
    let group: Ipv6Addr = "ff02::1:ff00:2".parse().unwrap();
    assert_eq!(
        (&report[62 + 8..62 + 12], &report[74..90]),
        (&[4, 0, 0, 0][..], &group.octets()[..])
    );
    let sum = upper_sum(addr("::"), addr("ff02::16"), 58, &report[62..]);
    assert_eq!(sum, 0xffff);
}

#[test]
fn a_routers_query_is_answered_with_our_groups() {
    let mut script = Script::with(true, config(1));
    let query = |from: &str, hops: u8| {
        let mut message = vec![130, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0; 20]);
        let plain = packet(addr(from), addr("ff02::1"), 58, hops, &message, 2);
        // The hop-by-hop header goes between; the checksum doesn't cover it.
        let mut packet = plain[..40].to_vec();
        packet[5] += 8;
        packet[6] = 0;
        packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        packet.extend(&plain[40..]);
        packet
    };
    for (from, hops) in [("2001:db8::1", 1), ("fe80::1", 64)] {
        script.ip(&query(from, hops));
        script.turn();
        assert_eq!(script.take_frames(), Vec::<Vec<u8>>::new(), "it isn't from this link");
    }
    script.ip(&query("fe80::1", 1));
    script.turn();
    let report = script.take_frames().remove(0);
    assert_eq!((report[62], report[70]), (143, 2));
}

#[test]
fn a_claim_on_our_address_is_counted_and_answered_once_in_ten_seconds() {
    let mut script = Script::new();
    let us = ip(false, 1);
    let claim_v4 = arp(1, (OTHER, us), ([0; 6], us));
    let claim_v6 = ndp(136, ip(true, 1), addr("ff02::1"), ip(true, 1), 2, OTHER);
    let claims = |script: &mut Script| {
        script.frame(0x0806, &claim_v4);
        script.frame(0x86dd, &claim_v6);
        script.turn();
        script.take_frames().len()
    };
    assert_eq!(claims(&mut script), 0, "who was there before us isn't chased away");
    script.wait(Duration::from_secs(11));
    script.take_frames();
    assert_eq!((claims(&mut script), claims(&mut script)), (1, 0));
    script.wait(Duration::from_secs(11));
    assert_eq!(claims(&mut script), 1);
    assert_eq!(script.stack.counters().snapshot().address_conflicts_total, 8);
    // Our own words, reflected, are no claim.
    script.frame(0x0806, &arp(1, ([2, 0, 0, 0, 0, 2], us), ([0; 6], us)));
    script.turn();
    assert_eq!(script.stack.counters().snapshot().address_conflicts_total, 8);
}

#[test]
fn a_test_for_our_address_is_told_that_it_is_taken() {
    let mut script = Script::new();
    script.frame(0x0806, &arp(1, (OTHER, addr("0.0.0.0")), ([0; 6], ip(false, 1))));
    script.turn();
    let told = script.take_frames().remove(0);
    assert_eq!((&told[..6], told[21]), (&OTHER[..], 2));
    let group = addr("ff02::1:ff00:2");
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(octets(ip(true, 1)));
    script.frame(0x86dd, &packet(addr("::"), group, 58, 255, &message, 2));
    script.turn();
    let told = script.take_frames().remove(0);
    assert_eq!((upper(&told)[0], &told[..6]), (136, &[0x33, 0x33, 0, 0, 0, 1][..]));
}

#[test]
fn discovery_from_beyond_the_link_is_not_believed() {
    let mut script = Script::new();
    let (peer, us) = (ip(true, 0), ip(true, 1));
    let mut far = ndp(135, peer, us, us, 1, OTHER);
    far[7] = 254;
    script.frame(0x86dd, &far);
    script.turn();
    assert_eq!(script.take_frames(), Vec::<Vec<u8>>::new());
    assert_eq!(script.stack.counters().snapshot().drop_malformed_total, 1);
}
