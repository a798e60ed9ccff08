//! What a device can do and was asked to do, brought together: queues, hashing, offloads, MTU. Pure
//! functions over what the device says of itself.

use hioload_dpdk_sys as sys;
use hioload_stack::Offloads;

use super::device::DeviceConfig;
use super::explain::DpdkError;

/// Ethernet header, one VLAN tag, FCS.
const FRAME_EXTRA: u32 = 22;
/// Drivers that offer to make checksums and do so in software, two bytes at a time: the stack is
/// quicker. Theirs of what comes in stay with them all the same, see `PEER_IN_MEMORY`.
const MADE_BY_HAND: [&str; 1] = ["net_vhost"];
/// Drivers whose peer is on this host and may leave checksums out, by virtio's rules: what comes so
/// never was on a wire. Where such a driver isn't asked to tell, it makes up for each sum left out,
/// by hand.
const PEER_IN_MEMORY: [&str; 2] = ["net_vhost", "net_virtio"];
/// The buffer size that drivers are fastest with; larger only for larger frames.
const FRAME_BYTES: u32 = 2048;
const HASHED: u64 =
    sys::HIO_RSS_IPV4 | sys::HIO_RSS_TCP_V4 | sys::HIO_RSS_IPV6 | sys::HIO_RSS_TCP_V6;
const RX_CHECKSUMS: u64 = sys::HIO_RX_OFFLOAD_IPV4_CKSUM | sys::HIO_RX_OFFLOAD_TCP_CKSUM;

/// Devices on which whoever is at the other end answers on the queue that he was asked on, by the
/// beginning of their drivers' names. What they say of RSS, if anything, isn't about that.
const KEPT_BY_PEER: [&str; 5] = ["net_tap", "net_vhost", "net_virtio", "net_memif", "net_ring"];

/// Devices of the kernel's, whose driver or fanout keeps a flow on a queue that nobody here can
/// foresee.
const KEPT_BY_KERNEL: [&str; 2] = ["net_af_packet", "net_af_xdp"];

/// Who sees to it that a flow's frames meet one queue.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Keeper {
    /// The device, told by us how; or there is one queue only.
    Device,
    Peer,
    Kernel,
}

/// Frames that af_xdp keeps in its fill ring, whatever the number of descriptors.
const AF_XDP_FILLS: u16 = 2048;

/// Whose word counts for the checksums of frames that came.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum RxChecks {
    /// Nobody's: they are verified in software.
    None,
    ByDevice,
    /// The device's, and it also says which were never made.
    OfPeerInMemory,
}

/// How a device is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    pub(super) queues: u16,
    /// `RTE_ETH_RSS_*`; 0 where RSS isn't used.
    pub(super) hashed: u64,
    pub(super) key_bytes: u8,
    pub(super) keeper: Keeper,
    pub(super) rx_offloads: u64,
    pub(super) tx_offloads: u64,
    pub(super) rx_checks: RxChecks,
    /// 0: as the device has it.
    pub(super) mtu: u16,
    /// Room that an mbuf needs.
    pub(super) frame_bytes: u16,
    /// Mbufs that a receive queue takes at least.
    pub(super) rx_takes: u16,
    /// What the operator should know.
    pub(super) warnings: Vec<String>,
}

impl Terms {
    pub(super) fn offloads(&self) -> Offloads {
        Offloads {
            tx_ip_checksum: self.tx_offloads & sys::HIO_TX_OFFLOAD_IPV4_CKSUM != 0,
            tx_tcp_checksum: self.tx_offloads & sys::HIO_TX_OFFLOAD_TCP_CKSUM != 0,
        }
    }
}

/// Agrees with a device; `mtu` is what it has now.
pub(super) fn agree(
    name: &str,
    driver: &str,
    info: &sys::rte_eth_dev_info,
    mtu: u16,
    config: &DeviceConfig,
) -> Result<Terms, DpdkError> {
    let mut warnings = Vec::new();
    if config.queues == 0 {
        return Err(DpdkError::new(format!("`{name}` with no queue"), "give it one at least"));
    }
    let offered = info.max_rx_queues.min(info.max_tx_queues).max(1);
    let mut queues = config.queues.min(offered);
    if queues < config.queues {
        warnings.push(format!(
            "`{name}` has {offered} queue pairs, not {}: as many workers can be on it",
            config.queues
        ));
    }
    let is_one_of = |drivers: &[&str]| drivers.iter().any(|one| driver.starts_with(one));
    let keeper = match () {
        () if is_one_of(&KEPT_BY_PEER) => Keeper::Peer,
        () if is_one_of(&KEPT_BY_KERNEL) => Keeper::Kernel,
        () => Keeper::Device,
    };
    let mut hashed = 0;
    if queues > 1 && keeper == Keeper::Device {
        hashed = info.flow_type_rss_offloads & HASHED;
        if hashed == 0 {
            queues = 1;
            warnings.push(format!(
                "`{name}` ({driver}) has no RSS over TCP/IP, which keeps a connection on its \
                 queue: one queue is used"
            ));
        }
    }
    let mut rx_offloads = 0;
    let mut tx_offloads = info.tx_offload_capa & sys::HIO_TX_OFFLOAD_FAST_FREE;
    if config.offloads {
        rx_offloads = info.rx_offload_capa & RX_CHECKSUMS;
        if !is_one_of(&MADE_BY_HAND) {
            let checksums = sys::HIO_TX_OFFLOAD_IPV4_CKSUM | sys::HIO_TX_OFFLOAD_TCP_CKSUM;
            tx_offloads |= info.tx_offload_capa & checksums;
        }
    }
    let rx_checks = match rx_offloads & sys::HIO_RX_OFFLOAD_TCP_CKSUM != 0 {
        false => RxChecks::None,
        true if is_one_of(&PEER_IN_MEMORY) => RxChecks::OfPeerInMemory,
        true => RxChecks::ByDevice,
    };
    let wanted = config.mtu.unwrap_or(mtu);
    if info.max_mtu > 0 && wanted > info.max_mtu {
        return Err(DpdkError::new(
            format!("`{name}` can't have an MTU of {wanted}"),
            format!("its limit is {}", info.max_mtu),
        ));
    }
    let frame = (u32::from(wanted) + FRAME_EXTRA).max(info.min_rx_bufsize).max(FRAME_BYTES);
    // The data room of an mbuf, its headroom included, is 16 bits.
    let limit = u32::from(u16::MAX) - sys::HIO_HEADROOM_BYTES as u32;
    let frame_bytes = frame.next_multiple_of(64);
    if frame_bytes > limit {
        return Err(DpdkError::new(
            format!("`{name}` with frames of {frame_bytes} bytes"),
            format!("an mbuf holds {limit}: set a smaller MTU"),
        ));
    }
    Ok(Terms {
        queues,
        hashed,
        key_bytes: if info.hash_key_size == 0 { 40 } else { info.hash_key_size },
        keeper,
        rx_offloads,
        tx_offloads,
        rx_checks,
        mtu: config.mtu.unwrap_or(0),
        frame_bytes: frame_bytes as u16,
        rx_takes: if driver == "net_af_xdp" { AF_XDP_FILLS } else { 0 },
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> sys::rte_eth_dev_info {
        // SAFETY: plain numbers and pointers, for which zero is a value.
        let mut info: sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        info.max_rx_queues = 16;
        info.max_tx_queues = 8;
        info.max_mtu = 9000;
        info.hash_key_size = 52;
        info.flow_type_rss_offloads = HASHED | 1 << 60;
        info.rx_offload_capa = u64::MAX;
        info.tx_offload_capa = u64::MAX;
        info
    }

    fn terms(info: &sys::rte_eth_dev_info, driver: &str, config: &DeviceConfig) -> Terms {
        agree("dev0", driver, info, 1500, config).expect("terms")
    }

    #[test]
    fn a_good_nic_hashes_checks_and_fills_in_and_nothing_else() {
        let terms =
            terms(&nic(), "net_ice", &DeviceConfig { queues: 4, ..DeviceConfig::default() });
        assert_eq!((terms.queues, terms.hashed, terms.key_bytes), (4, HASHED, 52));
        assert_eq!(terms.rx_offloads, RX_CHECKSUMS);
        assert_eq!(terms.rx_checks, RxChecks::ByDevice);
        assert!(terms.offloads().tx_ip_checksum && terms.offloads().tx_tcp_checksum);
        assert_eq!(terms.tx_offloads.count_ones(), 3, "no TSO, no VLAN");
        assert_eq!((terms.mtu, terms.frame_bytes), (0, 2048));
        assert_eq!(terms.warnings, Vec::<String>::new());
    }

    #[test]
    fn checksums_that_a_driver_makes_by_hand_stay_here_and_those_left_out_are_told() {
        let tcp = sys::HIO_RX_OFFLOAD_TCP_CKSUM;
        let info = sys::rte_eth_dev_info { rx_offload_capa: tcp, ..nic() };
        let vhost = terms(&info, "net_vhost", &DeviceConfig::default());
        assert_eq!((vhost.rx_offloads, vhost.rx_checks), (tcp, RxChecks::OfPeerInMemory));
        assert!(!vhost.offloads().tx_ip_checksum && !vhost.offloads().tx_tcp_checksum);
        let guest = terms(&info, "net_virtio_user", &DeviceConfig::default());
        assert_eq!((guest.rx_offloads, guest.rx_checks), (tcp, RxChecks::OfPeerInMemory));
        assert!(guest.offloads().tx_tcp_checksum);
        let deaf = sys::rte_eth_dev_info { rx_offload_capa: 0, ..nic() };
        assert_eq!(terms(&deaf, "net_virtio", &DeviceConfig::default()).rx_checks, RxChecks::None);
    }

    #[test]
    fn queues_are_as_many_as_both_directions_have() {
        let config = DeviceConfig { queues: 12, ..DeviceConfig::default() };
        let terms = terms(&nic(), "net_ice", &config);
        assert_eq!((terms.queues, terms.warnings.len()), (8, 1));
    }

    #[test]
    fn without_rss_there_is_one_queue_unless_the_peer_keeps_flows() {
        let info = sys::rte_eth_dev_info { flow_type_rss_offloads: 0, ..nic() };
        let config = DeviceConfig { queues: 2, ..DeviceConfig::default() };
        let plain = terms(&info, "net_dull", &config);
        assert_eq!((plain.queues, plain.warnings.len()), (1, 1));
        let kept = terms(&info, "net_af_packet", &config);
        assert_eq!((kept.queues, kept.keeper, kept.hashed), (2, Keeper::Kernel, 0));
    }

    #[test]
    fn offloads_can_be_left_out() {
        let config = DeviceConfig { offloads: false, ..DeviceConfig::default() };
        let terms = terms(&nic(), "net_ice", &config);
        assert_eq!((terms.rx_checks, terms.offloads()), (RxChecks::None, Offloads::default()));
    }

    #[test]
    fn a_large_mtu_gets_large_mbufs_and_one_too_large_is_told() {
        let config = |mtu| DeviceConfig { mtu: Some(mtu), ..DeviceConfig::default() };
        assert_eq!(terms(&nic(), "net_ice", &config(9000)).frame_bytes, 9024);
        let error = agree("dev0", "net_ice", &nic(), 1500, &config(9001)).unwrap_err();
        assert!(error.to_string().contains("9000"), "{error}");
    }
}
