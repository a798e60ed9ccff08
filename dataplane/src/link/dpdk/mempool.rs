//! The memory of one queue pair's frames: a mempool on the node of its port, made for what the queue
//! and its worker can hold at once.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayVec;
use hioload_dpdk_sys as sys;

use super::explain::{self, DpdkError};
use super::mbuf::Mbuf;

/// Mbufs that a thread which DPDK knows keeps at hand; it may keep half as many again.
const CACHE: u32 = 256;
/// `SOCKET_ID_ANY`.
const ANY_NODE: i32 = -1;

/// A mempool. It ends when it is dropped, when all mbufs are home.
#[derive(Debug)]
pub(super) struct Mempool(NonNull<sys::rte_mempool>);

// SAFETY: its operations are those for several threads.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// How many mbufs a queue pair needs: what its descriptors hold both ways, what its worker does, and
/// what a cache may keep from it. One below a power of two, which wastes no memory in its ring.
pub(super) fn mbufs_for(rx_descriptors: u16, tx_descriptors: u16, held: usize) -> u32 {
    let held = u32::try_from(held).unwrap_or(u32::MAX / 4);
    let needed = u32::from(rx_descriptors) + u32::from(tx_descriptors) + held + CACHE * 3 / 2;
    (needed + 1).next_power_of_two() - 1
}

impl Mempool {
    /// `count` mbufs with room for `frame_bytes` each.
    pub(super) fn new(
        node: Option<u32>,
        count: u32,
        frame_bytes: u16,
    ) -> Result<Mempool, DpdkError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("hioload{number}")).expect("no zero in it");
        let room = frame_bytes.saturating_add(sys::HIO_HEADROOM_BYTES as u16);
        let socket = node.map_or(ANY_NODE, |node| node as i32);
        // Caches must be smaller than two thirds of the pool.
        let cache = CACHE.min(count / 4);
        explain::forget();
        // SAFETY: the EAL runs, as a port that needs this exists.
        let pool =
            unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), count, cache, 0, room, socket) };
        NonNull::new(pool).map(Mempool).ok_or_else(|| {
            // SAFETY: reads a number of this thread.
            let number = unsafe { sys::hio_errno() };
            let megabytes = u64::from(count) * u64::from(room + 256) / (1 << 20) + 1;
            let place = node.map_or(String::new(), |node| format!(" on node {node}"));
            DpdkError::new(
                format!("no memory for {count} mbufs, {megabytes} MiB{place}"),
                "reserve more hugepages there, raise `-m` or `--socket-mem`, or use fewer \
                 descriptors or workers",
            )
            .because(number)
        })
    }

    pub(super) fn raw(&self) -> *mut sys::rte_mempool {
        self.0.as_ptr()
    }

    /// Mbufs that are free, those in caches included. Walks the caches.
    pub(super) fn free_count(&self) -> u32 {
        // SAFETY: the pool exists.
        unsafe { sys::rte_mempool_avail_count(self.raw()) }
    }

    /// Fills up with fresh mbufs; where there are fewer, with one. False where there is none.
    #[inline]
    pub(super) fn fill<const N: usize>(&self, mbufs: &mut ArrayVec<Mbuf, N>) -> bool {
        let len = mbufs.len();
        for count in [N - len, 1] {
            // SAFETY: an `Mbuf` is a pointer, there is room for `count`, all or none are filled in.
            unsafe {
                let free = mbufs.as_mut_ptr().add(len).cast();
                if sys::hio_alloc_bulk(self.raw(), free, count as u32) == 0 {
                    mbufs.set_len(len + count);
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // SAFETY: its device is closed and its queue gone, so no mbuf of it is anywhere.
        unsafe { sys::rte_mempool_free(self.raw()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_holds_what_queue_worker_and_cache_may_hold_at_once() {
        assert_eq!(mbufs_for(512, 512, 96), 2047);
        assert_eq!(mbufs_for(1024, 1024, 160), 4095);
    }
}
