//! Connections begin: listening, SYNs of strangers, connecting; and bringing a fresh socket to where
//! a connection stands, by a handshake that never left this machine.

use std::net::{IpAddr, SocketAddr};

use hioload_core::Now;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::{Core, Tcp, instant};
use crate::Accepting;
use crate::config::StackError;
use crate::conn::{ConnId, NO_SCALE, Record, Table, Tuple};
use crate::device::{Capture, Wire};
use crate::frame::{ACK, Bare, RST, SYN, Segment, write_bare};
use crate::link::LinkTx;
use crate::live::Live;
use crate::net::{Net, Out};
use crate::seed::seeded;

/// Ephemeral ports: all but the well-known ones (RFC 6056 §3.2).
const PORT_FIRST: u16 = 1024;
const PORTS: u32 = 65_536 - PORT_FIRST as u32;
/// How many of them one `connect` tries, of each address.
const PORT_TRIES: u32 = 256;
/// And how many it passes over, as their segments would find another worker's stack.
const PORT_STEPS: u32 = 4096;

impl Tcp {
    pub(crate) fn is_listening(&self, port: u16) -> bool {
        self.core.listening[usize::from(port) / 64] & 1 << (port % 64) != 0
    }

    pub(crate) fn listen(&mut self, port: u16) -> Result<(), StackError> {
        if port == 0 || self.is_listening(port) {
            return Err(StackError::PortTaken(port));
        }
        self.core.listening[usize::from(port) / 64] |= 1 << (port % 64);
        Ok(())
    }

    /// Closes all listeners.
    pub(crate) fn stop_listening(&mut self) {
        self.core.listening.fill(0);
    }

    /// A segment that belongs to no connection.
    pub(super) fn stranger<T: LinkTx>(
        &mut self,
        tuple: Tuple,
        hash: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        if segment.has(RST) {
            return;
        }
        let listening = self.is_listening(segment.dst_port);
        if listening && segment.has(SYN) && !segment.has(ACK) {
            if self.core.accepting == Accepting::Yes {
                let isn = self.core.secret.isn(&tuple, out.now);
                self.open_passive(tuple, hash, isn, segment, out);
            }
            return;
        }
        if listening && !segment.has(SYN) && self.take_cookie(tuple, hash, segment, out) {
            return;
        }
        self.reset(segment, out);
    }

    /// RFC 9293 §3.10.7.2: a SYN for a port that we listen on.
    pub(super) fn open_passive<T: LinkTx>(
        &mut self,
        tuple: Tuple,
        hash: u32,
        isn: u32,
        segment: &Segment<'_>,
        out: &mut Out<'_, T>,
    ) {
        if self.table.conns.is_full() {
            return self.core.counters.drop_no_memory_total.inc();
        }
        if !(self.core.admits)(segment.ip.src) {
            return self.core.counters.drop_at_limit_total.inc();
        }
        if self.core.half_open >= self.core.config.half_open_max {
            if self.core.isn_known {
                self.send_cookie(&tuple, segment, out);
            } else {
                self.core.counters.drop_rate_limited_total.inc();
            }
            return;
        }
        let options = segment.syn_options();
        let class = self.core.config.ring_class;
        let rcv_nxt = segment.seq.wrapping_add(1);
        let live = Live {
            rcv_nxt,
            rcv_first: rcv_nxt,
            rcv_seen: rcv_nxt,
            rcv_edge: rcv_nxt.wrapping_add(u32::from(Tcp::ring_window(class))),
            snd_una: isn,
            snd_nxt: isn,
            snd_max: isn,
            active: out.now,
            progress: out.now,
            began: out.now,
            peer_window: segment.window,
            peer_mss: options.mss,
            peer_scale: options.scale.unwrap_or(NO_SCALE),
            peer_sack: options.sack,
            wish_class: class,
            half_open: true,
            ..Live::default()
        };
        let Some(slot) = self.table.slots.insert(class, live) else {
            return self.core.counters.drop_no_memory_total.inc();
        };
        let local = out.net.local_ip(tuple.local);
        let mut interface = seeded(isn, &mut Capture::new(usize::from(out.net.info.mtu)));
        let now = out.now;
        let capabilities = &self.core.paths[0].capabilities;
        let taken = self.table.slots.with_set(slot, |set, _| {
            let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
            prepare(socket);
            let listening = socket
                .listen(IpListenEndpoint { addr: Some(local.into()), port: tuple.local_port });
            let mut wire = Wire { packet: Some(segment.ip.packet), out, capabilities };
            interface.poll_ingress_single(instant(now), &mut wire, set);
            let socket = set.get::<tcp::Socket<'_>>(SocketHandle::default());
            listening.is_ok() && socket.state() == tcp::State::SynReceived
        });
        // smoltcp refuses what we let pass: a malformed option.
        let entered = if taken { self.enter(tuple, hash, slot) } else { None };
        let Some(index) = entered else {
            self.table.slots.remove(slot);
            return self.core.counters.drop_malformed_total.inc();
        };
        self.table.slots.live_mut(slot).conn = index;
        self.core.half_open += 1;
        self.core.counters.half_open.set(u64::from(self.core.half_open));
        self.mark_dirty(index);
    }

    /// Opens a connection from an ephemeral port (RFC 6056 §3.3.3).
    pub(crate) fn connect(
        &mut self,
        net: &Net,
        to: SocketAddr,
        now: Now,
        leads_here: impl Fn(SocketAddr, SocketAddr) -> bool,
    ) -> Result<ConnId, StackError> {
        let unreachable = StackError::Unreachable(to.ip());
        let good = match to.ip() {
            IpAddr::V4(ip) => crate::config::is_host_v4(ip) && !ip.is_loopback(),
            IpAddr::V6(ip) => crate::config::is_host_v6(ip) && !ip.is_loopback(),
        };
        let local = net.source_for(to.ip()).filter(|_| good && to.port() != 0);
        let Some(local) = local.filter(|_| net.next_hop(to.ip()).is_some()) else {
            return Err(unreachable);
        };
        if net.local_index(to.ip()).is_some() {
            return Err(unreachable);
        }
        if self.table.conns.is_full() {
            return Err(StackError::NoMemory);
        }
        let free = net.sources_like(local).find_map(|local| {
            let ip = net.local_ip(local);
            self.free_tuple(local, to, |port| leads_here(SocketAddr::new(ip, port), to))
        });
        let Some((tuple, hash)) = free else { return Err(StackError::NoPort) };
        let isn = self.core.secret.isn(&tuple, now);
        let class = self.core.config.ring_class;
        let live = Live {
            snd_una: isn,
            snd_nxt: isn,
            snd_max: isn,
            active: now,
            progress: now,
            began: now,
            wish_class: class,
            half_open: true,
            outgoing: true,
            ..Live::default()
        };
        let slot = self.table.slots.insert(class, live).ok_or(StackError::NoMemory)?;
        let local_ip = net.local_ip(tuple.local);
        let mut interface = seeded(isn, &mut Capture::new(usize::from(net.info.mtu)));
        let connected = self.table.slots.with(slot, |socket, _| {
            prepare(socket);
            let remote = IpEndpoint::new(to.ip().into(), to.port());
            let local = IpListenEndpoint { addr: Some(local_ip.into()), port: tuple.local_port };
            socket.connect(interface.context(), remote, local)
        });
        let entered = connected.ok().and_then(|()| self.enter(tuple, hash, slot));
        let Some(index) = entered else {
            self.table.slots.remove(slot);
            return Err(unreachable);
        };
        self.table.slots.live_mut(slot).conn = index;
        self.core.half_open += 1;
        self.core.counters.half_open.set(u64::from(self.core.half_open));
        self.mark_dirty(index);
        Ok(self.table.conns.id(index))
    }

    /// A tuple from this address of ours to that destination that nobody has and whose segments find
    /// this stack, and its hash.
    fn free_tuple(
        &mut self,
        local: u8,
        to: SocketAddr,
        leads_here: impl Fn(u16) -> bool,
    ) -> Option<(Tuple, u32)> {
        let mut tuple = Tuple::new(local, 0, to.ip(), to.port());
        // Where to begin depends on the destination. The count makes it move on, so that a burst of
        // connections doesn't walk over those that it has just made.
        let base = self.core.secret.port(&tuple).wrapping_add(self.core.ports_tried);
        let mut tries = 0;
        for step in 0..PORT_STEPS {
            tuple.local_port = PORT_FIRST + (base.wrapping_add(step) % PORTS) as u16;
            if !leads_here(tuple.local_port) {
                continue;
            }
            tries += 1;
            if tries > PORT_TRIES {
                break;
            }
            let hash = self.hash(&tuple);
            let listened = self.is_listening(tuple.local_port);
            if !listened && self.find(hash, &tuple).is_none() {
                self.core.ports_tried = self.core.ports_tried.wrapping_add(step + 1);
                return Some((tuple, hash));
            }
        }
        self.core.ports_tried = self.core.ports_tried.wrapping_add(PORT_TRIES);
        None
    }
}

fn prepare(socket: &mut tcp::Socket<'_>) {
    // Replies are whole messages, sent once a turn: waiting for more only adds a round trip.
    socket.set_nagle_enabled(false);
}

impl Core {
    /// Makes a socket that stands where the record says: Established, queues empty. The segments
    /// that bring it there are made here and go nowhere. `None` where there is no memory.
    pub(super) fn revive(
        &mut self,
        table: &mut Table,
        tuple: &Tuple,
        local: IpAddr,
        record: &Record,
        now: Now,
    ) -> Option<u32> {
        let live = Live {
            rcv_nxt: record.rcv_nxt,
            rcv_first: record.rcv_nxt,
            rcv_seen: record.rcv_nxt,
            acked: record.rcv_nxt,
            rcv_edge: record.rcv_edge,
            snd_una: record.snd_nxt,
            snd_nxt: record.snd_nxt,
            snd_max: record.snd_nxt,
            active: now,
            progress: now,
            began: now,
            peer_window: record.peer_window,
            peer_mss: record.peer_mss,
            peer_scale: record.peer_scale,
            peer_sack: record.peer_sack,
            cookie: record.cookie,
            mtu_class: record.mtu_class,
            mtu_until: now.after(super::PATH_MTU_AGE),
            wish_class: record.ring_class,
            ..Live::default()
        };
        let slot = table.slots.insert(record.ring_class, live)?;
        let remote = tuple.remote_ip();
        let isn = record.snd_nxt.wrapping_sub(1);
        let syn = Bare {
            src_port: tuple.remote_port,
            dst_port: tuple.local_port,
            seq: record.rcv_nxt.wrapping_sub(1),
            flags: SYN,
            window: record.peer_window,
            mss: record.peer_mss,
            scale: (record.peer_scale != NO_SCALE).then_some(record.peer_scale),
            sack: record.peer_sack,
            ..Bare::default()
        };
        let ack = Bare {
            seq: record.rcv_nxt,
            ack: record.snd_nxt,
            flags: ACK,
            mss: 0,
            scale: None,
            sack: false,
            ..syn
        };
        let mut device = Capture::new(usize::from(self.paths[0].mtu));
        let mut interface = seeded(isn, &mut device);
        let at = instant(now);
        let established = table.slots.with_set(slot, |set, _| {
            let socket = set.get_mut::<tcp::Socket<'_>>(SocketHandle::default());
            prepare(socket);
            socket
                .listen(IpListenEndpoint { addr: Some(local.into()), port: tuple.local_port })
                .ok()?;
            device.give(syn.packet_len(tuple.v6), |p| write_bare(p, remote, local, &syn));
            interface.poll_ingress_single(at, &mut device, set);
            // The SYN-ACK: smoltcp must believe that it told a window.
            interface.poll_egress(at, &mut device, set);
            device.give(ack.packet_len(tuple.v6), |p| write_bare(p, remote, local, &ack));
            interface.poll_ingress_single(at, &mut device, set);
            let socket = set.get::<tcp::Socket<'_>>(SocketHandle::default());
            (socket.state() == tcp::State::Established).then_some(())
        });
        if established.is_none() {
            debug_assert!(false, "the self-test said that this works");
            table.slots.remove(slot);
            return None;
        }
        Some(slot)
    }
}
