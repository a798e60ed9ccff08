/* What bindgen reads: DPDK's headers, the constants that are macros there, and the functions of
 * shim.c, which are static inline or thread-local there. */
#ifndef HIO_DPDK_SHIM_H
#define HIO_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pdump.h>
#include <rte_version.h>

/* RTE_BIT64 and casts vanish in bindgen: spelled as constants they don't. */
#define K(name, value) static const uint64_t HIO_##name = (value)
K(RX_IP_GOOD, RTE_MBUF_F_RX_IP_CKSUM_GOOD);
K(RX_IP_MASK, RTE_MBUF_F_RX_IP_CKSUM_MASK);
K(RX_L4_GOOD, RTE_MBUF_F_RX_L4_CKSUM_GOOD);
K(RX_L4_NONE, RTE_MBUF_F_RX_L4_CKSUM_NONE);
K(RX_L4_MASK, RTE_MBUF_F_RX_L4_CKSUM_MASK);
K(TX_IPV4, RTE_MBUF_F_TX_IPV4);
K(TX_IPV6, RTE_MBUF_F_TX_IPV6);
K(TX_IP_CKSUM, RTE_MBUF_F_TX_IP_CKSUM);
K(TX_TCP_CKSUM, RTE_MBUF_F_TX_TCP_CKSUM);
K(RX_OFFLOAD_IPV4_CKSUM, RTE_ETH_RX_OFFLOAD_IPV4_CKSUM);
K(RX_OFFLOAD_TCP_CKSUM, RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
K(TX_OFFLOAD_IPV4_CKSUM, RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
K(TX_OFFLOAD_TCP_CKSUM, RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
K(TX_OFFLOAD_FAST_FREE, RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE);
K(RSS_IPV4, RTE_ETH_RSS_IPV4);
K(RSS_TCP_V4, RTE_ETH_RSS_NONFRAG_IPV4_TCP);
K(RSS_IPV6, RTE_ETH_RSS_IPV6);
K(RSS_TCP_V6, RTE_ETH_RSS_NONFRAG_IPV6_TCP);
K(MQ_RX_RSS, RTE_ETH_MQ_RX_RSS);
K(MQ_RX_NONE, RTE_ETH_MQ_RX_NONE);
K(DEV_INTR_LSC, RTE_ETH_DEV_INTR_LSC);
K(DEV_INTR_RMV, RTE_ETH_DEV_INTR_RMV);
K(MAX_PORTS, RTE_MAX_ETHPORTS);
K(MAX_LCORES, RTE_MAX_LCORE);
K(HEADROOM_BYTES, RTE_PKTMBUF_HEADROOM);
K(RETA_GROUP, RTE_ETH_RETA_GROUP_SIZE);
#undef K

/* The layout of what Rust reads by itself, as the compiler of the shim sees it; bindgen asserts
 * how clang sees it. */
struct hio_layout {
    uint32_t buf_addr, data_off, refcnt, nb_segs, ol_flags, pkt_len, data_len, buf_len, tx_offload;
    uint32_t mbuf;
    uint32_t rx_burst, rxq, tx_burst, tx_prepare, txq, fp_ops;
};
void hio_layout(struct hio_layout *layout);

/* rte_errno of this thread. */
int hio_errno(void);
/* The EAL's name for this thread; LCORE_ID_ANY where it has none. */
unsigned hio_lcore_id(void);
/* LCORE_ID_ANY. */
unsigned hio_lcore_none(void);
/* rte_pktmbuf_alloc_bulk: all `count` or none. 0 is success. */
int hio_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count);
/* rte_pktmbuf_free_bulk, without a look at the second cache line of mbufs that have one segment and
 * one owner, which are nearly all. */
void hio_free_bulk(struct rte_mbuf **mbufs, unsigned count);
/* rte_eth_rx_burst and rte_eth_tx_burst as they are in C: with the callbacks of the queue, which
 * packet capture is made of. */
uint16_t hio_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t hio_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
/* Sends the log to `sink`, a line or a part of one at a time, at the level of the entry; call it
 * before rte_eal_init. 0 is success. */
typedef void (*hio_log_sink)(int level, const char *text, size_t len);
int hio_log_to(hio_log_sink sink);

#endif
