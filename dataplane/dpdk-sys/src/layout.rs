//! Whether Rust and the shim's compiler see the same structures. bindgen asserts at compile time what
//! clang sees; the shim may have been compiled by another compiler, with other flags.

use std::mem::{offset_of, size_of};

use crate::{hio_layout, rte_eth_fp_ops, rte_mbuf};

/// Compares the offsets that the fast path depends on.
///
/// # Errors
/// The name of the first that differs, and both of its values (Rust's, C's).
pub fn check_layout() -> Result<(), (&'static str, usize, u32)> {
    // SAFETY: plain numbers.
    let mut c: hio_layout = unsafe { std::mem::zeroed() };
    // SAFETY: it fills in what it is given.
    unsafe { crate::hio_layout(&raw mut c) };
    let pairs = [
        ("rte_mbuf.buf_addr", offset_of!(rte_mbuf, buf_addr), c.buf_addr),
        ("rte_mbuf.data_off", offset_of!(rte_mbuf, data_off), c.data_off),
        ("rte_mbuf.refcnt", offset_of!(rte_mbuf, refcnt), c.refcnt),
        ("rte_mbuf.nb_segs", offset_of!(rte_mbuf, nb_segs), c.nb_segs),
        ("rte_mbuf.ol_flags", offset_of!(rte_mbuf, ol_flags), c.ol_flags),
        ("rte_mbuf.pkt_len", offset_of!(rte_mbuf, pkt_len), c.pkt_len),
        ("rte_mbuf.data_len", offset_of!(rte_mbuf, data_len), c.data_len),
        ("rte_mbuf.buf_len", offset_of!(rte_mbuf, buf_len), c.buf_len),
        ("rte_mbuf.tx_offload", offset_of!(rte_mbuf, __bindgen_anon_3), c.tx_offload),
        ("rte_mbuf", size_of::<rte_mbuf>(), c.mbuf),
        ("rte_eth_fp_ops.rx_pkt_burst", offset_of!(rte_eth_fp_ops, rx_pkt_burst), c.rx_burst),
        ("rte_eth_fp_ops.rxq", offset_of!(rte_eth_fp_ops, rxq), c.rxq),
        ("rte_eth_fp_ops.tx_pkt_burst", offset_of!(rte_eth_fp_ops, tx_pkt_burst), c.tx_burst),
        ("rte_eth_fp_ops.tx_pkt_prepare", offset_of!(rte_eth_fp_ops, tx_pkt_prepare), c.tx_prepare),
        ("rte_eth_fp_ops.txq", offset_of!(rte_eth_fp_ops, txq), c.txq),
        ("rte_eth_fp_ops", size_of::<rte_eth_fp_ops>(), c.fp_ops),
    ];
    match pairs.into_iter().find(|(_, rust, c)| *rust != *c as usize) {
        Some(pair) => Err(pair),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rust_and_c_see_the_same_structures() {
        assert_eq!(super::check_layout(), Ok(()));
    }
}
