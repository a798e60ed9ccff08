//! Receiving and sending bursts, and the bytes of an mbuf, over DPDK's fast-path table
//! (`rte_eth_fp_ops`). Callbacks of queues, which packet capture is made of, are not run: who wants
//! them calls `hio_rx_burst` and `hio_tx_burst`, the same in C.

use crate::{rte_eth_fp_ops, rte_mbuf};

/// `rte_eth_rx_burst`: fills the first `n` of `mbufs` and returns `n`.
///
/// # Safety
/// `port` is started and has a receive queue `queue`, which no other thread polls now.
#[inline]
pub unsafe fn rx_burst(port: u16, queue: u16, mbufs: &mut [*mut rte_mbuf]) -> u16 {
    // SAFETY: the port exists, so that its entry of the table and its queue's are filled in.
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let queue = *(*ops).rxq.data.add(usize::from(queue));
        match (*ops).rx_pkt_burst {
            Some(burst) => burst(queue, mbufs.as_mut_ptr(), mbufs.len() as u16),
            None => 0,
        }
    }
}

/// `rte_eth_tx_burst`: the device owns the first `n` of `mbufs` from now on, `n` is returned.
///
/// # Safety
/// `port` is started and has a transmit queue `queue`, which no other thread uses now. The mbufs
/// are ours, whole, and each is there once.
#[inline]
pub unsafe fn tx_burst(port: u16, queue: u16, mbufs: &mut [*mut rte_mbuf]) -> u16 {
    // SAFETY: as in `rx_burst`; the mbufs are the caller's to give away.
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let queue = *(*ops).txq.data.add(usize::from(queue));
        match (*ops).tx_pkt_burst {
            Some(burst) => burst(queue, mbufs.as_mut_ptr(), mbufs.len() as u16),
            None => 0,
        }
    }
}

/// `rte_eth_tx_prepare`: how many of `mbufs`, from the first on, the device can send as they are.
///
/// # Safety
/// As [`tx_burst`].
#[inline]
pub unsafe fn tx_prepare(port: u16, queue: u16, mbufs: &mut [*mut rte_mbuf]) -> u16 {
    // SAFETY: as in `tx_burst`.
    unsafe {
        let ops = (&raw const rte_eth_fp_ops).cast::<rte_eth_fp_ops>().add(usize::from(port));
        let queue = *(*ops).txq.data.add(usize::from(queue));
        match (*ops).tx_pkt_prepare {
            Some(prepare) => prepare(queue, mbufs.as_mut_ptr(), mbufs.len() as u16),
            None => mbufs.len() as u16,
        }
    }
}

/// `rte_pktmbuf_mtod`: where the data of an mbuf's first segment begins.
///
/// # Safety
/// `mbuf` is valid.
#[inline]
pub unsafe fn data(mbuf: *const rte_mbuf) -> *mut u8 {
    // SAFETY: the buffer begins at buf_addr and is longer than data_off.
    unsafe { (*mbuf).buf_addr.cast::<u8>().add(usize::from((*mbuf).data_off)) }
}

/// Where the headers of a frame to be sent end, for a device that fills in checksums: the lengths
/// of the link layer's and of the IP header, in bytes.
///
/// # Safety
/// `mbuf` is valid and ours alone.
#[inline]
pub unsafe fn set_tx_lens(mbuf: *mut rte_mbuf, l2_len: u8, l3_len: u8) {
    // `l2_len:7, l3_len:9` in the low bits (RTE_MBUF_L2_LEN_BITS, RTE_MBUF_L3_LEN_BITS).
    let lens = u64::from(l2_len & 0x7f) | u64::from(l3_len) << 7;
    // SAFETY: the union is that of `tx_offload`, whole.
    unsafe { (*mbuf).__bindgen_anon_3.tx_offload = lens }
}
