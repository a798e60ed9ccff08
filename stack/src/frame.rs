//! Frames taken apart and put together: Ethernet, 802.1Q, IPv4, IPv6, the fixed part of TCP.
//! Views over bytes; nothing that a stranger can send makes them panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::Sum;
use crate::config::{is_host_v4, is_host_v6};

pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;

pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_FRAGMENT: u8 = 44;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Why a frame goes no further.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Drop {
    Malformed,
    Checksum,
    NotOurs,
    Fragment,
    Protocol,
}

/// A frame without its Ethernet header.
#[derive(Copy, Clone, Debug)]
pub(crate) struct L2<'a> {
    pub(crate) ethertype: u16,
    pub(crate) payload: &'a [u8],
    /// Sent to a group, not to us alone.
    pub(crate) group: bool,
}

/// Takes the Ethernet and VLAN headers off. With `vlan`, only tagged frames of that id are ours;
/// without, only untagged ones and those with priority only (id 0).
#[inline(always)]
pub(crate) fn ethernet(frame: &[u8], mac: [u8; 6], vlan: Option<u16>) -> Result<L2<'_>, Drop> {
    let (head, mut payload) = frame.split_first_chunk::<14>().ok_or(Drop::Malformed)?;
    let group = head[0] & 1 == 1;
    if !group && head[..6] != mac {
        return Err(Drop::NotOurs);
    }
    let mut ethertype = u16::from_be_bytes([head[12], head[13]]);
    let mut id = 0;
    if ethertype == ETHERTYPE_VLAN {
        let (tag, rest) = payload.split_first_chunk::<4>().ok_or(Drop::Malformed)?;
        id = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        payload = rest;
    }
    if id != vlan.unwrap_or(0) {
        return Err(Drop::NotOurs);
    }
    Ok(L2 { ethertype, payload, group })
}

/// Writes the Ethernet and VLAN headers.
#[inline(always)]
pub(crate) fn write_ethernet(
    frame: &mut [u8],
    to: [u8; 6],
    from: [u8; 6],
    vlan: Option<u16>,
    ethertype: u16,
) {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    match vlan {
        Some(id) => {
            frame[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            frame[14..16].copy_from_slice(&id.to_be_bytes());
            frame[16..18].copy_from_slice(&ethertype.to_be_bytes());
        }
        None => frame[12..14].copy_from_slice(&ethertype.to_be_bytes()),
    }
}

/// A whole IP packet, padding cut off.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ip<'a> {
    pub(crate) packet: &'a [u8],
    pub(crate) header: usize,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
}

impl<'a> Ip<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.packet[self.header..]
    }

    /// Whether the upper layer's checksum over pseudo-header and payload is right.
    pub(crate) fn upper_checksum_good(&self) -> bool {
        let payload = self.payload();
        let len = payload.len() as u16;
        Sum::pseudo(self.src, self.dst, self.protocol, len).add(payload).is_good()
    }
}

/// RFC 791, RFC 1122 §3.2.1. Fragments are refused: TCP avoids them (DF, MSS), others attack.
#[inline(always)]
pub(crate) fn ipv4(bytes: &[u8], checksum_known_good: bool) -> Result<Ip<'_>, Drop> {
    let fixed = bytes.first_chunk::<20>().ok_or(Drop::Malformed)?;
    let header = usize::from(fixed[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header < 20 || total < header {
        return Err(Drop::Malformed);
    }
    let packet = bytes.get(..total).ok_or(Drop::Malformed)?;
    if !checksum_known_good && !Sum::default().add(&packet[..header]).is_good() {
        return Err(Drop::Checksum);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0 {
        return Err(Drop::Fragment);
    }
    let at = |n: usize| Ipv4Addr::new(fixed[n], fixed[n + 1], fixed[n + 2], fixed[n + 3]);
    let src = at(12);
    if !is_host_v4(src) || src.is_loopback() {
        return Err(Drop::Malformed);
    }
    Ok(Ip {
        packet,
        header,
        src: src.into(),
        dst: at(16).into(),
        protocol: fixed[9],
        hop_limit: fixed[8],
    })
}

/// Where the payload begins behind a hop-by-hop header that says "router alert" (RFC 2711) and no
/// more, and its protocol: the queries of multicast listener discovery have one.
fn behind_router_alert(packet: &[u8]) -> Option<(usize, u8)> {
    let [protocol, 0, options @ ..] = *packet.get(40..)?.first_chunk::<8>()? else { return None };
    let known = matches!(options, [5, 2, 0, 0, 1, 0] | [1, 0, 5, 2, 0, 0]);
    known.then_some((48, protocol))
}

/// RFC 8200. Extension headers are not walked, but for what [`behind_router_alert`] knows.
pub(crate) fn ipv6(bytes: &[u8]) -> Result<Ip<'_>, Drop> {
    let header = bytes.get(..40).ok_or(Drop::Malformed)?;
    let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let packet = bytes.get(..total).ok_or(Drop::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(Drop::Malformed);
    }
    if header[6] == IPV6_FRAGMENT {
        return Err(Drop::Fragment);
    }
    let at = |n: usize| {
        let mut ip = [0u8; 16];
        ip.copy_from_slice(&header[n..n + 16]);
        Ipv6Addr::from(ip)
    };
    let src = at(8);
    let (start, protocol) = match header[6] {
        IPV6_HOP_BY_HOP => behind_router_alert(packet)
            .filter(|&(_, protocol)| protocol == ICMPV6)
            .ok_or(Drop::Protocol)?,
        protocol => (40, protocol),
    };
    // Unspecified is a peer that tests whether its address is taken (RFC 4862): ICMPv6 only.
    let allowed = is_host_v6(src) || (src.is_unspecified() && protocol == ICMPV6);
    if !allowed || src.is_loopback() {
        return Err(Drop::Malformed);
    }
    Ok(Ip {
        packet,
        header: start,
        src: src.into(),
        dst: at(24).into(),
        protocol,
        hop_limit: header[7],
    })
}

/// A TCP segment's fixed part.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) ip: Ip<'a>,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) data_len: u32,
    pub(crate) options: &'a [u8],
}

/// What a SYN's options say (RFC 9293 §3.2, RFC 7323 §2, RFC 2018 §2).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct SynOptions {
    /// 0 where there is none.
    pub(crate) mss: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
}

impl<'a> Segment<'a> {
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    pub(crate) fn data(&self) -> &'a [u8] {
        &self.ip.packet[self.ip.packet.len() - self.data_len as usize..]
    }

    /// Length in sequence space.
    pub(crate) fn len(&self) -> u32 {
        self.data_len + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// Whether it says what arrived behind a hole (RFC 2018 §3).
    pub(crate) fn has_sack_blocks(&self) -> bool {
        let mut rest = self.options;
        // At most 40 bytes; each turn takes one at least.
        while let [kind, tail @ ..] = rest {
            match (kind, tail.first()) {
                (0, _) => return false,
                (1, _) => rest = tail,
                (5, Some(&len)) => return usize::from(len) >= 10 && rest.len() >= usize::from(len),
                (_, Some(&len)) if len >= 2 => rest = rest.get(usize::from(len)..).unwrap_or(&[]),
                _ => return false,
            }
        }
        false
    }

    pub(crate) fn syn_options(&self) -> SynOptions {
        let mut found = SynOptions::default();
        let mut rest = self.options;
        // At most 40 bytes; each turn takes one at least.
        while let [kind, tail @ ..] = rest {
            match kind {
                0 => break,
                1 => rest = tail,
                _ => {
                    let Some(&len) = tail.first() else { break };
                    let Some(body) = rest.get(2..usize::from(len)) else { break };
                    match (kind, body) {
                        (2, &[a, b]) => found.mss = u16::from_be_bytes([a, b]),
                        (3, &[scale]) => found.scale = Some(scale.min(14)),
                        (4, &[]) => found.sack = true,
                        _ => {}
                    }
                    rest = &rest[usize::from(len)..];
                }
            }
        }
        found
    }
}

/// RFC 9293 §3.1. Impossible flags are refused, as is a segment that has neither SYN, RST nor ACK.
#[inline(always)]
pub(crate) fn tcp(ip: Ip<'_>, checksum_known_good: bool) -> Result<Segment<'_>, Drop> {
    let bytes = ip.payload();
    let fixed = bytes.first_chunk::<20>().ok_or(Drop::Malformed)?;
    let header = usize::from(fixed[12] >> 4) * 4;
    let options = bytes.get(20..header).ok_or(Drop::Malformed)?;
    let flags = fixed[13] & (FIN | SYN | RST | PSH | ACK);
    let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
    let (src_port, dst_port) = (half(0), half(2));
    let both = |mask: u8| flags & mask == mask;
    let sane =
        !both(SYN | FIN) && !both(SYN | RST) && !both(RST | FIN) && flags & (SYN | RST | ACK) != 0;
    if src_port == 0 || dst_port == 0 || !sane {
        return Err(Drop::Malformed);
    }
    if !checksum_known_good && !ip.upper_checksum_good() {
        return Err(Drop::Checksum);
    }
    Ok(Segment {
        ip,
        src_port,
        dst_port,
        seq: word(4),
        ack: word(8),
        flags,
        window: half(14),
        data_len: (bytes.len() - header) as u32,
        options,
    })
}

/// A segment without data that we make ourselves.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Bare {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Sent where it isn't 0.
    pub(crate) mss: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
}

/// The most that [`write_bare`] writes.
pub(crate) const BARE_MAX: usize = 40 + 20 + 12;

impl Bare {
    fn options_len(&self) -> usize {
        let mss = if self.mss != 0 { 4 } else { 0 };
        let scale = if self.scale.is_some() { 4 } else { 0 };
        mss + scale + if self.sack { 4 } else { 0 }
    }

    /// Bytes of the IP packet.
    pub(crate) fn packet_len(&self, v6: bool) -> usize {
        (if v6 { 40 } else { 20 }) + 20 + self.options_len()
    }
}

/// Writes an IP header. `packet` is the whole packet; the IPv4 checksum is filled in.
pub(crate) fn write_ip(
    packet: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    hops: u8,
) -> usize {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = packet.len() as u16;
            let header = &mut packet[..20];
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[6] = 0x40; // don't fragment
            header[8] = hops;
            header[9] = protocol;
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            let sum = Sum::default().add(header).finish();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            20
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let payload = (packet.len() - 40) as u16;
            let header = &mut packet[..40];
            header.fill(0);
            header[0] = 0x60;
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            header[6] = protocol;
            header[7] = hops;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
            40
        }
        _ => unreachable!("both ends of a packet are of one family"),
    }
}

/// Writes a whole packet of [`Bare::packet_len`] bytes, checksums done.
pub(crate) fn write_bare(packet: &mut [u8], src: IpAddr, dst: IpAddr, bare: &Bare) {
    write_segment(packet, src, dst, bare, &[], true);
}

/// Writes a whole packet of [`Bare::packet_len`] bytes and those of `data`, checksums done; the
/// TCP checksum only with `sum`.
#[inline]
pub(crate) fn write_segment(
    packet: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    bare: &Bare,
    data: &[u8],
    sum: bool,
) {
    let at = write_ip(packet, src, dst, TCP, 64);
    let tcp = &mut packet[at..];
    tcp[..2].copy_from_slice(&bare.src_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&bare.dst_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&bare.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&bare.ack.to_be_bytes());
    tcp[12] = ((20 + bare.options_len()) as u8 / 4) << 4;
    tcp[13] = bare.flags;
    tcp[14..16].copy_from_slice(&bare.window.to_be_bytes());
    tcp[16..20].fill(0);
    let mut end = 20;
    let mut option = |bytes: [u8; 4]| {
        tcp[end..end + 4].copy_from_slice(&bytes);
        end += 4;
    };
    if bare.mss != 0 {
        let [a, b] = bare.mss.to_be_bytes();
        option([2, 4, a, b]);
    }
    if let Some(scale) = bare.scale {
        option([1, 3, 3, scale]);
    }
    if bare.sack {
        option([1, 1, 4, 2]);
    }
    tcp[end..].copy_from_slice(data);
    if !sum {
        return;
    }
    let sum = Sum::pseudo(src, dst, TCP, tcp.len() as u16).add(tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ips(v6: bool) -> (IpAddr, IpAddr) {
        let of = |v4: &str, six: &str| if v6 { six.parse().unwrap() } else { v4.parse().unwrap() };
        (of("192.0.2.1", "2001:db8::1"), of("192.0.2.2", "2001:db8::2"))
    }

    #[test]
    fn what_is_written_is_read_back_and_one_flipped_bit_is_noticed() {
        for v6 in [false, true] {
            let (src, dst) = ips(v6);
            let bare = Bare {
                src_port: 1,
                dst_port: 2,
                seq: 3,
                ack: 4,
                flags: SYN | ACK,
                window: 5,
                mss: 1460,
                scale: Some(3),
                sack: true,
            };
            let mut packet = vec![0; bare.packet_len(v6)];
            assert!(packet.len() <= BARE_MAX);
            write_bare(&mut packet, src, dst, &bare);
            let parse = |packet: &[u8]| {
                let ip = if v6 { ipv6(packet) } else { ipv4(packet, false) };
                ip.and_then(|ip| {
                    tcp(ip, false).map(|s| (s.seq, s.ack, s.flags, s.syn_options(), ip.src, ip.dst))
                })
            };
            let options = SynOptions { mss: 1460, scale: Some(3), sack: true };
            assert_eq!(parse(&packet), Ok((3, 4, SYN | ACK, options, src, dst)));
            for bit in 0..packet.len() * 8 {
                packet[bit / 8] ^= 1 << (bit % 8);
                // Not covered by a checksum in IPv6: traffic class, flow label, hop limit.
                let uncovered = v6 && (bit < 4 || (8..32).contains(&bit) || bit / 8 == 7);
                assert!(uncovered || parse(&packet).is_err(), "bit {bit}");
                packet[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = ethernet(&bytes, [0; 6], Some(5));
            for ip in [ipv4(&bytes, true), ipv6(&bytes)].into_iter().flatten() {
                if let Ok(segment) = tcp(ip, true) {
                    segment.syn_options();
                }
            }
        }
    }
}
