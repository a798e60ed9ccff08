//! Below TCP: our addresses, routes and neighbours, and the way out.
//!
//! [`Out`] is what everything that sends holds: the link's transmit half and the network state.
//! A packet is written in the link's own memory behind room for the Ethernet header; when its
//! destination is known, the header is written in front and the frame is committed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use hioload_core::Now;

use crate::checksum::Sum;
use crate::config::{ADDRESSES_MAX, Address, StackConfig};
use crate::counters::StackCounters;
use crate::frame::{self, Bare, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TCP};
use crate::icmp::CHANGE_TO_EXCLUDE;
use crate::link::{LinkInfo, LinkTx, TxMeta};
use crate::live::{Flight, Live, Sent};
use crate::neighbor::{Lookup, Mac, Neighbors};
use crate::rate::Bucket;
use crate::secret::Secret;
use crate::trace::Trace;

/// RFC 4291 §2.7.1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 5227 §1.1, DEFEND_INTERVAL.
const DEFEND_EVERY: Duration = Duration::from_secs(10);

/// The state below TCP.
pub(crate) struct Net {
    pub(crate) info: LinkInfo,
    pub(crate) locals: ArrayVec<Address, ADDRESSES_MAX>,
    gateway_v4: Option<Ipv4Addr>,
    gateway_v6: Option<Ipv6Addr>,
    pub(crate) vlan: Option<u16>,
    pub(crate) neighbors: Neighbors,
    pub(crate) counters: Arc<StackCounters>,
    pub(crate) icmp_rate: Bucket,
    pub(crate) reset_rate: Bucket,
    pub(crate) trace: Option<Trace>,
    /// Until when no address is defended again.
    defended_until: Option<Now>,
    /// Where a packet goes for which the link has no room.
    nowhere: Box<[u8]>,
}

impl Net {
    pub(crate) fn new(
        config: &StackConfig,
        info: LinkInfo,
        secret: &Secret,
        counters: Arc<StackCounters>,
    ) -> Net {
        Net {
            info,
            locals: config.addresses.iter().copied().take(ADDRESSES_MAX).collect(),
            gateway_v4: config.gateway_v4,
            gateway_v6: config.gateway_v6,
            vlan: config.vlan,
            neighbors: Neighbors::new(config, secret.neighbor(), Arc::clone(&counters)),
            counters,
            icmp_rate: Bucket::new(config.icmp_per_second),
            reset_rate: Bucket::new(config.resets_per_second),
            trace: None,
            defended_until: None,
            nowhere: vec![0; usize::from(info.mtu)].into(),
        }
    }

    /// Bytes of the Ethernet and VLAN headers.
    #[inline]
    pub(crate) fn l2_len(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    /// Which of our addresses this is.
    #[inline]
    pub(crate) fn local_index(&self, ip: IpAddr) -> Option<u8> {
        self.locals.iter().position(|local| local.ip == ip).map(|index| index as u8)
    }

    pub(crate) fn local_ip(&self, index: u8) -> IpAddr {
        self.locals[usize::from(index)].ip
    }

    /// Whether an address is on the link.
    #[inline]
    pub(crate) fn on_link(&self, ip: IpAddr) -> bool {
        if let IpAddr::V6(ip) = ip
            && ip.is_unicast_link_local()
        {
            return true;
        }
        self.locals.iter().any(|local| same_network(local, ip))
    }

    /// The address to speak from to `ip`.
    pub(crate) fn source_for(&self, ip: IpAddr) -> Option<u8> {
        let locals = &self.locals;
        let near = locals.iter().position(|local| same_network(local, ip));
        near.or_else(|| locals.iter().position(|local| local.ip.is_ipv6() == ip.is_ipv6()))
            .map(|index| index as u8)
    }

    /// An address of ours, and the others that are on its network: connections that have no port left
    /// on the first come from these.
    pub(crate) fn sources_like(&self, local: u8) -> impl Iterator<Item = u8> + '_ {
        let first = self.locals[usize::from(local)];
        let others = self.locals.iter().enumerate().filter(move |(index, other)| {
            *index != usize::from(local)
                && other.prefix == first.prefix
                && same_network(&first, other.ip)
        });
        std::iter::once(local).chain(others.map(|(index, _)| index as u8))
    }

    /// Who on the link takes a packet for `ip`.
    #[inline]
    pub(crate) fn next_hop(&self, ip: IpAddr) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(ip) => self.next_hop_v4(ip).map(IpAddr::V4),
            IpAddr::V6(_) if self.on_link(ip) => Some(ip),
            IpAddr::V6(_) => self.gateway_v6.map(IpAddr::V6),
        }
    }

    #[inline]
    fn next_hop_v4(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.on_link(IpAddr::V4(ip)) { Some(ip) } else { self.gateway_v4 }
    }
}

#[inline]
fn same_network(local: &Address, ip: IpAddr) -> bool {
    let prefix = u32::from(local.prefix);
    match (local.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differ = a.to_bits() ^ b.to_bits();
            differ.leading_zeros() >= prefix
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differ = a.to_bits() ^ b.to_bits();
            differ.leading_zeros() >= prefix
        }
        _ => false,
    }
}

/// The address of all who solicit `ip` (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    let low = u16::from(b) << 8 | u16::from(c);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

fn multicast_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The way out, for the length of a turn.
pub(crate) struct Out<'a, T: LinkTx> {
    pub(crate) tx: &'a mut T,
    pub(crate) net: &'a mut Net,
    pub(crate) now: Now,
    /// What the current call into smoltcp sent.
    pub(crate) sent: Sent,
    /// Of the connection that smoltcp speaks for.
    flight: Option<Flight>,
}

impl<'a, T: LinkTx> Out<'a, T> {
    pub(crate) fn new(tx: &'a mut T, net: &'a mut Net, now: Now) -> Out<'a, T> {
        Out { tx, net, now, sent: Sent::default(), flight: None }
    }

    /// A call into smoltcp for a connection follows.
    #[inline]
    pub(crate) fn begin(&mut self, live: &Live) {
        self.sent = Sent::default();
        self.flight = Some(live.flight());
    }

    /// Writes an IP packet of `len` bytes and sends it.
    #[inline]
    pub(crate) fn packet<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let l2 = self.net.l2_len();
        let Some(frame) = self.tx.next(l2 + len) else {
            self.net.counters.drop_link_full_total.inc();
            if self.net.nowhere.len() < len {
                self.net.nowhere = vec![0; len].into();
            }
            return fill(&mut self.net.nowhere[..len]);
        };
        let (header, packet) = frame.split_at_mut(l2);
        let result = fill(packet);
        // The packet is written: look at it, address it, commit it. Nearly all are IPv4 without
        // options and go where the one before went.
        if let Some(head) = packet.first_chunk::<40>()
            && head[0] == 0x45
            && head[9] == TCP
            && self.net.trace.is_none()
            && let dst = Ipv4Addr::new(head[16], head[17], head[18], head[19])
            && let Some(hop) = self.net.next_hop_v4(dst)
            && let Some(mac) = self.net.neighbors.last(IpAddr::V4(hop), self.now)
        {
            let mut meta = TxMeta { l2_len: l2 as u8, l3_len: 20, ..TxMeta::default() };
            look(packet, false, &mut meta, self.net, &mut self.sent, self.flight.as_ref());
            let Net { info, vlan, .. } = &*self.net;
            frame::write_ethernet(header, mac, info.mac, *vlan, ETHERTYPE_IPV4);
            self.tx.commit(meta);
            self.net.counters.frames_out_total.inc();
        } else {
            self.depart(len);
        }
        result
    }

    /// Sends the IP packet that is in the link's memory.
    #[inline(never)]
    fn depart(&mut self, len: usize) {
        let l2 = self.net.l2_len();
        let Some(frame) = self.tx.next(l2 + len) else { return };
        let (header, packet) = frame.split_at_mut(l2);
        let v6 = packet[0] >> 4 == 6;
        let (dst, protocol) = whither(packet, v6);
        let mut meta =
            TxMeta { l2_len: l2 as u8, l3_len: if v6 { 40 } else { 20 }, ..TxMeta::default() };
        if protocol == TCP {
            look(packet, v6, &mut meta, self.net, &mut self.sent, self.flight.as_ref());
            if let Some(trace) = &mut self.net.trace {
                trace.packet(packet, dst, self.now);
            }
        }
        let ethertype = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let hop = match dst {
            IpAddr::V6(to) if to.is_multicast() => {
                return self.commit(l2 + len, multicast_mac(to), ethertype, meta);
            }
            _ => self.net.next_hop(dst),
        };
        let Some(hop) = hop else {
            return self.net.counters.drop_no_route_total.inc();
        };
        match self.net.neighbors.lookup(hop, self.now) {
            Lookup::Known(mac) => {
                frame::write_ethernet(header, mac, self.net.info.mac, self.net.vlan, ethertype);
                self.tx.commit(meta);
                self.net.counters.frames_out_total.inc();
            }
            other => self.unsure(other, hop, len, ethertype, meta),
        }
    }

    /// A packet is written whose neighbour isn't known, or not for sure.
    #[cold]
    fn unsure(&mut self, found: Lookup, hop: IpAddr, len: usize, ethertype: u16, meta: TxMeta) {
        let l2 = self.net.l2_len();
        match found {
            Lookup::Known(mac) => self.commit(l2 + len, mac, ethertype, meta),
            Lookup::Stale(mac) => {
                self.commit(l2 + len, mac, ethertype, meta);
                self.ask(hop);
            }
            Lookup::Ask | Lookup::Wait => {
                self.hold(hop, len, meta);
                if found == Lookup::Ask {
                    self.ask(hop);
                }
            }
        }
    }

    /// Keeps the packet that is in the link's memory until its neighbour answers.
    fn hold(&mut self, hop: IpAddr, len: usize, meta: TxMeta) {
        let l2 = self.net.l2_len();
        let Some(frame) = self.tx.next(l2 + len) else { return };
        let packet = &mut frame[l2..];
        if meta.tcp_checksum || meta.ip_checksum {
            complete_checksums(packet, usize::from(meta.l3_len), meta);
        }
        if !self.net.neighbors.hold(hop, packet) {
            self.net.counters.drop_neighbor_total.inc();
        }
    }

    fn commit(&mut self, len: usize, to: Mac, ethertype: u16, meta: TxMeta) {
        let Some(frame) = self.tx.next(len) else { return };
        frame::write_ethernet(frame, to, self.net.info.mac, self.net.vlan, ethertype);
        self.tx.commit(meta);
        self.net.counters.frames_out_total.inc();
    }

    /// Sends a frame to one station.
    pub(crate) fn frame(&mut self, to: Mac, type_: u16, len: usize, fill: impl FnOnce(&mut [u8])) {
        let l2 = self.net.l2_len();
        match self.tx.next(l2 + len) {
            Some(frame) => {
                fill(&mut frame[l2..]);
                self.commit(l2 + len, to, type_, TxMeta { l2_len: l2 as u8, ..TxMeta::default() });
            }
            None => self.net.counters.drop_link_full_total.inc(),
        }
    }

    /// Sends a segment of ours that no socket makes.
    pub(crate) fn bare(&mut self, src: IpAddr, dst: IpAddr, bare: &Bare) {
        let len = bare.packet_len(src.is_ipv6());
        self.flight = None;
        self.packet(len, |packet| frame::write_bare(packet, src, dst, bare));
    }

    /// The neighbour is known: what waited for it leaves.
    pub(crate) fn learned(&mut self, ip: IpAddr, mac: Mac, create: bool) {
        let now = self.now;
        for packet in self.net.neighbors.learn(ip, mac, create, now) {
            let ethertype = if packet[0] >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            self.frame(mac, ethertype, packet.len(), |payload| payload.copy_from_slice(&packet));
        }
    }

    /// Asks who has this address.
    pub(crate) fn ask(&mut self, ip: IpAddr) {
        let mac = self.net.info.mac;
        let Some(source) = self.net.source_for(ip) else { return };
        match (self.net.local_ip(source), ip) {
            (IpAddr::V4(from), IpAddr::V4(ip)) => self.arp(1, [255; 6], from, [0; 6], ip),
            (IpAddr::V6(from), IpAddr::V6(ip)) => {
                let to = solicited_node(ip);
                // RFC 4861 §4.3, with the source link-layer address option.
                let message = crate::icmp::neighbor_message(135, 0, ip, 1, mac);
                self.icmpv6(from, to, multicast_mac(to), message);
            }
            _ => {}
        }
    }

    /// RFC 826.
    pub(crate) fn arp(&mut self, op: u8, to: Mac, from: Ipv4Addr, target: Mac, ip: Ipv4Addr) {
        let mac = self.net.info.mac;
        self.frame(to, ETHERTYPE_ARP, 28, |arp| {
            arp[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, op]);
            arp[8..14].copy_from_slice(&mac);
            arp[14..18].copy_from_slice(&from.octets());
            arp[18..24].copy_from_slice(&target);
            arp[24..28].copy_from_slice(&ip.octets());
        });
    }

    /// Sends a neighbour discovery message.
    pub(crate) fn icmpv6<const N: usize>(
        &mut self,
        from: Ipv6Addr,
        to: Ipv6Addr,
        mac: Mac,
        message: [u8; N],
    ) {
        self.frame(mac, ETHERTYPE_IPV6, 40 + N, |packet| {
            frame::write_ip(packet, from.into(), to.into(), frame::ICMPV6, 255);
            packet[40..].copy_from_slice(&message);
            let sum = Sum::pseudo(from.into(), to.into(), frame::ICMPV6, N as u16);
            let sum = sum.add(&packet[40..]);
            packet[42..44].copy_from_slice(&sum.finish().to_be_bytes());
        });
    }

    /// The first words: whether anybody has our addresses already, which groups we listen to, and
    /// where our addresses are. Nobody waits for an answer: the addresses are the operator's word,
    /// and who contradicts is counted ([`Out::conflict`]).
    pub(crate) fn announce(&mut self) {
        self.net.defended_until = Some(self.now.after(DEFEND_EVERY));
        self.report_groups(CHANGE_TO_EXCLUDE);
        for index in 0..self.net.locals.len() {
            let ip = self.net.local_ip(index as u8);
            match ip {
                // RFC 5227 §2.1.1: a probe is from nobody.
                IpAddr::V4(ip) => self.arp(1, [255; 6], Ipv4Addr::UNSPECIFIED, [0; 6], ip),
                IpAddr::V6(ip) => self.probe(ip),
            }
            self.announce_one(ip);
        }
    }

    /// RFC 4862 §5.4.2: a solicitation from nobody, without the link-layer address option.
    fn probe(&mut self, ip: Ipv6Addr) {
        let to = solicited_node(ip);
        let mut message = [0u8; 24];
        message[0] = 135;
        message[8..].copy_from_slice(&ip.octets());
        self.icmpv6(Ipv6Addr::UNSPECIFIED, to, multicast_mac(to), message);
    }

    /// Tells everybody on the link where an address of ours is (RFC 5227 §3, RFC 4861 §7.2.6).
    fn announce_one(&mut self, ip: IpAddr) {
        let mac = self.net.info.mac;
        match ip {
            IpAddr::V4(ip) => self.arp(1, [255; 6], ip, [0; 6], ip),
            IpAddr::V6(ip) => {
                // Override, unsolicited, with the target link-layer address option.
                let message = crate::icmp::neighbor_message(136, 0x20, ip, 2, mac);
                self.icmpv6(ip, ALL_NODES, multicast_mac(ALL_NODES), message);
            }
        }
    }

    /// Another station says that it has an address of ours. It is counted, and the address defended
    /// by announcing it again (RFC 5227 §2.4), once in 10 s at most, and not in the first 10 s:
    /// who was there before us isn't chased away.
    pub(crate) fn conflict(&mut self, ip: IpAddr, mac: Mac) {
        if mac == self.net.info.mac {
            return;
        }
        self.net.counters.address_conflicts_total.inc();
        if self.net.defended_until.is_some_and(|until| self.now >= until) {
            self.net.defended_until = Some(self.now.after(DEFEND_EVERY));
            self.announce_one(ip);
        }
    }

    /// Tells switches and routers to which solicited-node groups we listen (RFC 3810 §5.2): from a
    /// link-local address where there is one, else from nobody, which snooping switches understand.
    pub(crate) fn report_groups(&mut self, record: u8) {
        let v6 = |local: &Address| match local.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        };
        let own: ArrayVec<Ipv6Addr, ADDRESSES_MAX> =
            self.net.locals.iter().filter_map(v6).collect();
        if own.is_empty() {
            return;
        }
        let from = own.iter().copied().find(Ipv6Addr::is_unicast_link_local);
        let from = from.unwrap_or(Ipv6Addr::UNSPECIFIED);
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
        let len = 40 + 8 + 8 + 20 * own.len();
        self.frame(multicast_mac(to), ETHERTYPE_IPV6, len, |packet| {
            frame::write_ip(packet, from.into(), to.into(), 0, 1);
            // Router alert (RFC 2711), padded.
            packet[40..48].copy_from_slice(&[frame::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
            let message = &mut packet[48..];
            message.fill(0);
            message[0] = 143;
            message[7] = own.len() as u8;
            for (entry, ip) in message[8..].as_chunks_mut::<20>().0.iter_mut().zip(&own) {
                entry[0] = record;
                entry[4..].copy_from_slice(&solicited_node(*ip).octets());
            }
            let sum = Sum::pseudo(from.into(), to.into(), frame::ICMPV6, message.len() as u16);
            let sum = sum.add(message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        });
    }
}

/// Where a packet of ours goes, and what is in it.
#[inline]
fn whither(packet: &[u8], v6: bool) -> (IpAddr, u8) {
    match (v6, packet.first_chunk::<20>(), packet.first_chunk::<40>()) {
        (false, Some(header), _) => {
            (IpAddr::from([header[16], header[17], header[18], header[19]]), header[9])
        }
        (true, _, Some(header)) => {
            let mut dst = [0u8; 16];
            dst.copy_from_slice(&header[24..40]);
            (IpAddr::V6(dst.into()), header[6])
        }
        _ => unreachable!("our own packets have whole headers"),
    }
}

/// An outgoing TCP segment: mends what smoltcp gets wrong, takes note of it, and prepares what is
/// left to the device.
#[inline(always)]
fn look(
    packet: &mut [u8],
    v6: bool,
    meta: &mut TxMeta,
    net: &Net,
    sent: &mut Sent,
    flight: Option<&Flight>,
) {
    let offloads = net.info.offloads;
    let l3 = if v6 { 40 } else { 20 };
    let len = packet.len() - l3;
    let (ip, tcp) = packet.split_at_mut(l3);
    let Some(fixed) = tcp.first_chunk::<20>() else { return };
    let header = usize::from(fixed[12] >> 4) * 4;
    let flags = fixed[13];
    let seq = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    if len == header
        && flags & !frame::PSH == frame::ACK
        && let Some(right) = flight.map(Flight::pure_seq)
        && seq != right
    {
        // smoltcp takes its SND.NXT back when it retransmits; a peer that has what was sent before
        // would drop a pure ACK with it as old.
        tcp[4..8].copy_from_slice(&right.to_be_bytes());
        if !offloads.tx_tcp_checksum {
            tcp[16..18].fill(0);
            let sum = pseudo(ip, v6, len).add(tcp).finish();
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let Some(fixed) = tcp.first_chunk_mut::<20>() else { return };
    let control = u32::from(flags & frame::SYN != 0) + u32::from(flags & frame::FIN != 0);
    let occupied = (len - header) as u32 + control;
    sent.segments += 1;
    sent.ack = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    sent.window = u16::from_be_bytes([fixed[14], fixed[15]]);
    sent.has_ack = flags & frame::ACK != 0;
    if occupied > 0 && sent.data.is_none() {
        sent.data = Some((seq, occupied));
    }
    net.counters.segments_out_total.inc();
    if offloads.tx_ip_checksum && ip.len() == 20 {
        meta.ip_checksum = true;
        ip[10..12].fill(0);
    }
    if offloads.tx_tcp_checksum {
        meta.tcp_checksum = true;
        let sum = pseudo(ip, v6, len).fold();
        [fixed[16], fixed[17]] = sum.to_be_bytes();
    }
}

/// The sum of what a TCP checksum covers beside the segment: both addresses, protocol and length
/// (RFC 9293 §3.1, RFC 8200 §8.1).
#[inline(always)]
fn pseudo(header: &[u8], v6: bool, len: usize) -> Sum {
    let sum = Sum::default().add_u16(u16::from(TCP)).add_u16(len as u16);
    // Of a constant length each, the sums have no loop.
    if v6 { sum.add(&header[8..40]) } else { sum.add(&header[12..20]) }
}

/// Does in software what was left to the device.
fn complete_checksums(packet: &mut [u8], l3: usize, meta: TxMeta) {
    if meta.ip_checksum {
        let sum = Sum::default().add(&packet[..l3]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if meta.tcp_checksum {
        // The pseudo-header's sum is in the field.
        let sum = Sum::default().add(&packet[l3..]).finish();
        packet[l3 + 16..l3 + 18].copy_from_slice(&sum.to_be_bytes());
    }
}
