//! What a stack is told at its start, with defaults, and what can be wrong with it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Most addresses of a stack.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of the receive ring, and of the send ring, of each class. Below 65,536 so that no
/// window is ever scaled.
pub const RING_BYTES: [usize; 3] = [2048, 16_384, 65_535];

/// An address of ours and the prefix of its network.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of its network: what is on the link.
    pub prefix: u8,
}

/// How a stack behaves. Times are durations, sizes are bytes, rates are a second.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Our addresses, up to [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// The IPv4 router.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The IPv6 router.
    pub gateway_v6: Option<Ipv6Addr>,
    /// 802.1Q VLAN id (1 to 4094): all frames carry it, in and out.
    pub vlan: Option<u16>,
    /// 32 secret bytes; `None` takes them from the operating system.
    pub secret: Option<[u8; 32]>,
    /// Connections at once, frozen and TIME_WAIT included. Past it a SYN isn't answered.
    pub connections_max: u32,
    /// Class of the rings of a new connection: an index into [`RING_BYTES`].
    pub ring_class: u8,
    /// Half-open connections with memory of their own. Past it SYN cookies are sent.
    pub half_open_max: u32,
    /// How long a handshake may take, either way.
    pub handshake_timeout: Duration,
    /// How long data or FIN may stay unacknowledged before a connection is given up
    /// (RFC 9293 §3.8.3, R2).
    pub user_timeout: Duration,
    /// How long the peer may take to finish after our FIN was acknowledged.
    pub fin_timeout: Duration,
    /// How long a closed tuple is remembered. RFC 9293 says 2 MSL, 4 minutes; Linux 60 s.
    pub time_wait: Duration,
    /// TIME_WAIT records at most; past it none is kept.
    pub time_wait_max: u32,
    /// Small exchanges on a good path are served without smoltcp, which takes over at the first sign
    /// of trouble. Off, it does all.
    pub fast_path: bool,
    /// Idle time after which a connection gives up its memory; `None`: never.
    pub freeze_after: Option<Duration>,
    /// Resets to segments of no connection, a second.
    pub resets_per_second: u32,
    /// ICMP and ICMPv6 replies, a second.
    pub icmp_per_second: u32,
    /// Neighbours (ARP and NDP) at most.
    pub neighbors_max: usize,
    /// Unknown neighbours that are asked for, a second, where it is a stranger's packet that is
    /// answered: he chose the address. Routers, neighbours that answered before, and those that we
    /// open connections to are asked for in any case, each once a second at most.
    pub asks_per_second: u32,
    /// Back memory by hugepages where there are any.
    pub hugepages: bool,
    /// Most bytes that sockets and rings of connections may take. Past it a SYN isn't answered, and
    /// connections don't thaw.
    pub memory_max_bytes: u64,
    /// NUMA node for the memory.
    pub node: Option<u32>,
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            addresses: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            vlan: None,
            secret: None,
            connections_max: 1 << 20,
            ring_class: 0,
            half_open_max: 4096,
            handshake_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(60),
            fin_timeout: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            time_wait_max: 1 << 17,
            fast_path: true,
            freeze_after: Some(Duration::from_secs(5)),
            resets_per_second: 1000,
            icmp_per_second: 1000,
            neighbors_max: 512,
            asks_per_second: 100,
            hugepages: true,
            memory_max_bytes: u64::MAX,
            node: None,
        }
    }
}

/// Why a stack can't do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StackError {
    /// No address, or more than [`ADDRESSES_MAX`].
    Addresses(usize),
    /// An address that no host may have, or a prefix that is too long.
    BadAddress(IpAddr),
    /// A VLAN id out of 1 to 4094.
    BadVlan(u16),
    /// The link's MTU is below 1,280 bytes (RFC 8200 §5).
    MtuTooSmall(u16),
    /// Limits that make no sense together.
    BadLimit(&'static str),
    /// The port is listened on, or is 0.
    PortTaken(u16),
    /// There is no address of that family here, or no route.
    Unreachable(IpAddr),
    /// All ephemeral ports to that destination that were tried are taken.
    NoPort,
    /// The connection table or the memory is full.
    NoMemory,
    /// A handed-over connection is of another version, damaged, or here already.
    BadRecord,
    /// The operating system gave no random bytes.
    NoRandom,
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StackError::Addresses(n) => {
                write!(f, "{n} addresses configured; a stack takes 1 to {ADDRESSES_MAX}")
            }
            StackError::BadAddress(ip) => write!(f, "{ip} can't be an address of this host"),
            StackError::BadVlan(id) => write!(f, "VLAN {id} does not exist; ids are 1 to 4094"),
            StackError::MtuTooSmall(mtu) => {
                write!(f, "the link's MTU is {mtu}; IPv6 needs 1280 at least")
            }
            StackError::BadLimit(what) => f.write_str(what),
            StackError::PortTaken(port) => write!(f, "port {port} can't be listened on again"),
            StackError::Unreachable(ip) => {
                write!(f, "no address or route leads to {ip}; set an address or a gateway")
            }
            StackError::NoPort => f.write_str("no ephemeral port is free to that destination"),
            StackError::NoMemory => f.write_str("the connection table or the memory is full"),
            StackError::BadRecord => {
                f.write_str("the record of a connection is unknown, damaged or used already")
            }
            StackError::NoRandom => f.write_str("the operating system gave no random bytes"),
        }
    }
}

impl std::error::Error for StackError {}

impl StackConfig {
    /// Checks what can be checked before there is a link.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), StackError> {
        if self.addresses.is_empty() || self.addresses.len() > ADDRESSES_MAX {
            return Err(StackError::Addresses(self.addresses.len()));
        }
        for address in &self.addresses {
            let (good, bits) = match address.ip {
                IpAddr::V4(ip) => (is_host_v4(ip), 32),
                IpAddr::V6(ip) => (is_host_v6(ip), 128),
            };
            if !good || address.prefix > bits {
                return Err(StackError::BadAddress(address.ip));
            }
        }
        if let Some(id) = self.vlan.filter(|id| !(1..=4094).contains(id)) {
            return Err(StackError::BadVlan(id));
        }
        if usize::from(self.ring_class) >= RING_BYTES.len() {
            return Err(StackError::BadLimit("the ring class must be 0, 1 or 2"));
        }
        if self.connections_max == 0 || self.connections_max > 1 << 27 {
            return Err(StackError::BadLimit("connections_max must be 1 to 134,217,728"));
        }
        if self.neighbors_max == 0 {
            return Err(StackError::BadLimit("neighbors_max must be 1 at least"));
        }
        Ok(())
    }
}

/// Whether a host may have this address.
pub(crate) fn is_host_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.octets()[0] == 0)
}

/// Whether a host may have this address. One that maps IPv4 never travels (RFC 4291 §2.5.5).
pub(crate) fn is_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some())
}
