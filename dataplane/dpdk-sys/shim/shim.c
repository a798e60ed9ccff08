/* What DPDK has only as static inline functions or thread-local variables. */
#define _GNU_SOURCE
#include "shim.h"

#include <stdio.h>
#include <sys/types.h>

void hio_layout(struct hio_layout *layout)
{
    *layout = (struct hio_layout){
        .buf_addr = offsetof(struct rte_mbuf, buf_addr),
        .data_off = offsetof(struct rte_mbuf, data_off),
        .refcnt = offsetof(struct rte_mbuf, refcnt),
        .nb_segs = offsetof(struct rte_mbuf, nb_segs),
        .ol_flags = offsetof(struct rte_mbuf, ol_flags),
        .pkt_len = offsetof(struct rte_mbuf, pkt_len),
        .data_len = offsetof(struct rte_mbuf, data_len),
        .buf_len = offsetof(struct rte_mbuf, buf_len),
        .tx_offload = offsetof(struct rte_mbuf, tx_offload),
        .mbuf = sizeof(struct rte_mbuf),
        .rx_burst = offsetof(struct rte_eth_fp_ops, rx_pkt_burst),
        .rxq = offsetof(struct rte_eth_fp_ops, rxq),
        .tx_burst = offsetof(struct rte_eth_fp_ops, tx_pkt_burst),
        .tx_prepare = offsetof(struct rte_eth_fp_ops, tx_pkt_prepare),
        .txq = offsetof(struct rte_eth_fp_ops, txq),
        .fp_ops = sizeof(struct rte_eth_fp_ops),
    };
}

int hio_errno(void)
{
    return rte_errno;
}

unsigned hio_lcore_id(void)
{
    return rte_lcore_id();
}

unsigned hio_lcore_none(void)
{
    return LCORE_ID_ANY;
}

int hio_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned count)
{
    return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void hio_free_bulk(struct rte_mbuf **mbufs, unsigned count)
{
    unsigned simple = 0;
    if (count == 0)
        return;
    struct rte_mempool *pool = mbufs[0]->pool;
    for (unsigned i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = mbufs[i];
        /* One segment has no next: that is so of every mbuf that is in use. */
        if (likely(mbuf->nb_segs == 1 && mbuf->pool == pool && RTE_MBUF_DIRECT(mbuf) &&
                   rte_mbuf_refcnt_read(mbuf) == 1))
            mbufs[simple++] = mbuf;
        else
            rte_pktmbuf_free(mbuf);
    }
    if (likely(simple > 0))
        rte_mempool_put_bulk(pool, (void **)mbufs, simple);
}

uint16_t hio_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t hio_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
    return rte_eth_tx_burst(port, queue, mbufs, count);
}

static ssize_t write_log(void *cookie, const char *text, size_t len)
{
    ((hio_log_sink)cookie)(rte_log_cur_msg_loglevel(), text, len);
    return (ssize_t)len;
}

int hio_log_to(hio_log_sink sink)
{
    static const cookie_io_functions_t functions = {.write = write_log};
    FILE *stream = fopencookie((void *)sink, "w", functions);
    if (stream == NULL)
        return -1;
    /* A line is one entry; DPDK flushes after each. */
    setvbuf(stream, NULL, _IOLBF, 0);
    return rte_openlog_stream(stream);
}
