//! ARP, ICMP and ICMPv6: who has our addresses, is anybody there, and what the network says about
//! a segment of ours. TCP hears of the last only, as [`Notice`], and decides whether to believe it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::conn::Tuple;
use crate::frame::{self, Drop, ICMP, ICMPV6, Ip, TCP};
use crate::link::LinkTx;
use crate::neighbor::Mac;
use crate::net::{Net, Out, solicited_node};

/// Record types of a multicast listener report (RFC 3810 §5.2.12): we listen to all sources, and
/// we do so from now on.
pub(crate) const MODE_IS_EXCLUDE: u8 = 2;
pub(crate) const CHANGE_TO_EXCLUDE: u8 = 4;

/// What an ICMP error is about.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// RFC 1191, RFC 8201: nothing larger than this many bytes gets through.
    TooBig(u16),
    /// RFC 792 codes 2 to 4, RFC 4443 codes 1 and 4: nobody answers there.
    Refused,
    /// Anything that may pass.
    Unreachable,
}

/// An ICMP error that quotes a TCP segment of ours.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    pub(crate) tuple: Tuple,
    /// The quoted sequence number.
    pub(crate) seq: u32,
    pub(crate) trouble: Trouble,
}

/// RFC 826, with RFC 5227's care: strangers change no entry that doesn't exist.
pub(crate) fn arp<T: LinkTx>(out: &mut Out<'_, T>, packet: &[u8]) -> Result<(), Drop> {
    let arp = packet.get(..28).ok_or(Drop::Malformed)?;
    if arp[..6] != [0, 1, 8, 0, 6, 4] || arp[6] != 0 {
        return Err(Drop::Malformed);
    }
    let ip = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let mut mac: Mac = [0; 6];
    mac.copy_from_slice(&arp[8..14]);
    let (sender, target) = (ip(14), ip(24));
    let to_us = out.net.local_index(target.into()).is_some();
    if out.net.local_index(sender.into()).is_some() {
        out.conflict(sender.into(), mac);
        return Ok(());
    }
    if !crate::config::is_host_v4(sender) {
        // A test for a taken address (sender 0).
        let asked = sender.is_unspecified() && to_us && arp[7] == 1 && mac != out.net.info.mac;
        if asked && out.net.icmp_rate.take(out.now) {
            out.arp(2, mac, target, mac, sender);
        }
        return Ok(());
    }
    if !out.net.on_link(sender.into()) {
        return Err(Drop::NotOurs);
    }
    let request = arp[7] == 1;
    out.learned(sender.into(), mac, request && to_us);
    if request && to_us && out.net.icmp_rate.take(out.now) {
        out.arp(2, mac, target, mac, sender);
    }
    Ok(())
}

/// A neighbour solicitation (135) or advertisement (136) with one link-layer address option;
/// the checksum is 0.
pub(crate) fn neighbor_message(
    kind: u8,
    flags: u8,
    ip: Ipv6Addr,
    option: u8,
    mac: Mac,
) -> [u8; 32] {
    let mut message = [0; 32];
    message[0] = kind;
    message[4] = flags;
    message[8..24].copy_from_slice(&ip.octets());
    message[24] = option;
    message[25] = 1;
    message[26..32].copy_from_slice(&mac);
    message
}

/// ICMP for IPv4 (RFC 792).
pub(crate) fn icmpv4<T: LinkTx>(out: &mut Out<'_, T>, ip: &Ip<'_>) -> Result<Option<Notice>, Drop> {
    let message = ip.payload();
    if message.len() < 8 {
        return Err(Drop::Malformed);
    }
    if !Sum::default().add(message).is_good() {
        return Err(Drop::Checksum);
    }
    let trouble = match (message[0], message[1]) {
        (8, 0) => {
            echo(out, ip, ICMP, 0);
            return Ok(None);
        }
        (3, 4) => Trouble::TooBig(u16::from_be_bytes([message[6], message[7]])),
        (3, 2 | 3) => Trouble::Refused,
        (3, _) => Trouble::Unreachable,
        _ => return Ok(None),
    };
    Ok(quote_v4(out.net, &message[8..], trouble))
}

/// ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861).
pub(crate) fn icmpv6<T: LinkTx>(out: &mut Out<'_, T>, ip: &Ip<'_>) -> Result<Option<Notice>, Drop> {
    let message = ip.payload();
    if message.len() < 8 {
        return Err(Drop::Malformed);
    }
    if !ip.upper_checksum_good() {
        return Err(Drop::Checksum);
    }
    let trouble = match (message[0], message[1]) {
        (128, 0) => {
            // To a group nothing is answered: no amplification.
            if out.net.local_index(ip.dst).is_some() {
                echo(out, ip, ICMPV6, 129);
            }
            return Ok(None);
        }
        (135 | 136, 0) => return discovery(out, ip, message).map(|()| None),
        (130, 0) => {
            // RFC 3810 §5.1.14: only from this link. Answered at once, not after a random time.
            let IpAddr::V6(src) = ip.src else { return Err(Drop::Malformed) };
            if ip.hop_limit != 1 || !src.is_unicast_link_local() {
                return Err(Drop::Malformed);
            }
            if out.net.icmp_rate.take(out.now) {
                out.report_groups(MODE_IS_EXCLUDE);
            }
            return Ok(None);
        }
        (2, 0) => {
            let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
            Trouble::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX))
        }
        (1, 4) => Trouble::Refused,
        (1, _) => Trouble::Unreachable,
        _ => return Ok(None),
    };
    Ok(quote_v6(out.net, &message[8..], trouble))
}

fn echo<T: LinkTx>(out: &mut Out<'_, T>, ip: &Ip<'_>, protocol: u8, kind: u8) {
    let message = ip.payload();
    let header = if protocol == ICMPV6 { 40 } else { 20 };
    let fits = header + message.len() <= usize::from(out.net.info.mtu);
    if !fits || !out.net.icmp_rate.take(out.now) {
        return out.net.counters.drop_rate_limited_total.inc();
    }
    let (src, dst) = (ip.dst, ip.src);
    if out.net.local_index(src).is_none() {
        return;
    }
    out.packet(header + message.len(), |packet| {
        frame::write_ip(packet, src, dst, protocol, 64);
        let reply = &mut packet[header..];
        reply.copy_from_slice(message);
        reply[0] = kind;
        reply[2..4].fill(0);
        let sum = match protocol {
            ICMPV6 => Sum::pseudo(src, dst, ICMPV6, reply.len() as u16),
            _ => Sum::default(),
        };
        let sum = sum.add(reply).finish();
        reply[2..4].copy_from_slice(&sum.to_be_bytes());
    });
}

/// The link-layer address in the options of a discovery message (RFC 4861 §4.6.1).
fn link_address(mut options: &[u8], wanted: u8) -> Option<Mac> {
    // Each turn takes 8 bytes at least.
    while let [kind, words, ..] = options {
        let len = usize::from(*words) * 8;
        if len == 0 {
            return None;
        }
        let option = options.get(..len)?;
        if *kind == wanted {
            return option.get(2..8)?.try_into().ok();
        }
        options = &options[len..];
    }
    None
}

fn discovery<T: LinkTx>(out: &mut Out<'_, T>, ip: &Ip<'_>, message: &[u8]) -> Result<(), Drop> {
    // RFC 4861 §7.1: 255 hops prove that it comes from this link.
    let target: [u8; 16] = match message.get(8..24).map(TryInto::try_into) {
        Some(Ok(target)) if ip.hop_limit == 255 => target,
        _ => return Err(Drop::Malformed),
    };
    let target = Ipv6Addr::from(target);
    let options = message.get(24..).unwrap_or(&[]);
    let IpAddr::V6(src) = ip.src else { return Err(Drop::Malformed) };
    if message[0] == 136 {
        if let Some(mac) = link_address(options, 2) {
            match out.net.local_index(target.into()) {
                Some(_) => out.conflict(target.into(), mac),
                None => out.learned(target.into(), mac, false),
            }
        }
        return Ok(());
    }
    if out.net.local_index(target.into()).is_none() {
        return Err(Drop::NotOurs);
    }
    let ours = out.net.info.mac;
    if src.is_unspecified() {
        // Somebody tests our address: it is taken (RFC 4862 §5.4.3).
        if out.net.icmp_rate.take(out.now) {
            let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let reply = neighbor_message(136, 0x20, target, 2, ours);
            out.icmpv6(target, all, [0x33, 0x33, 0, 0, 0, 1], reply);
        }
        return Ok(());
    }
    let Some(mac) = link_address(options, 1) else { return Ok(()) };
    if !out.net.on_link(src.into()) {
        return Err(Drop::NotOurs);
    }
    out.learned(src.into(), mac, true);
    if out.net.icmp_rate.take(out.now) {
        // Solicited, override.
        out.icmpv6(target, src, mac, neighbor_message(136, 0x60, target, 2, ours));
    }
    Ok(())
}

/// Whether a group address is one that we listen to.
pub(crate) fn is_our_group(net: &Net, ip: Ipv6Addr) -> bool {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let solicits = |local: IpAddr| matches!(local, IpAddr::V6(own) if solicited_node(own) == ip);
    ip == all_nodes || net.locals.iter().any(|local| solicits(local.ip))
}

fn ports_and_seq(tcp: &[u8]) -> Option<(u16, u16, u32)> {
    let [a, b, c, d, e, f, g, h] = *tcp.first_chunk::<8>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), u32::from_be_bytes([e, f, g, h])))
}

fn quote_v4(net: &Net, quote: &[u8], trouble: Trouble) -> Option<Notice> {
    let header = usize::from(*quote.first()? & 15) * 4;
    if quote[0] >> 4 != 4 || header < 20 || *quote.get(9)? != TCP {
        return None;
    }
    let ip = |at: usize| Some(Ipv4Addr::from(*quote.get(at..)?.first_chunk::<4>()?));
    let (local_port, remote_port, seq) = ports_and_seq(quote.get(header..)?)?;
    let local = net.local_index(ip(12)?.into())?;
    Some(Notice { tuple: Tuple::new(local, local_port, ip(16)?.into(), remote_port), seq, trouble })
}

fn quote_v6(net: &Net, quote: &[u8], trouble: Trouble) -> Option<Notice> {
    if *quote.first()? >> 4 != 6 || *quote.get(6)? != TCP {
        return None;
    }
    let ip = |at: usize| Some(Ipv6Addr::from(*quote.get(at..)?.first_chunk::<16>()?));
    let (local_port, remote_port, seq) = ports_and_seq(quote.get(40..)?)?;
    let local = net.local_index(ip(8)?.into())?;
    Some(Notice { tuple: Tuple::new(local, local_port, ip(24)?.into(), remote_port), seq, trouble })
}
