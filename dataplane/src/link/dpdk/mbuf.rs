//! An mbuf that is ours: it is freed once, when it is dropped, or handed to the device.

use std::ptr::NonNull;
use std::slice;

use arrayvec::ArrayVec;
use hioload_core::{prefetch_at, prefetch_to_write};
use hioload_dpdk_sys as sys;

/// An mbuf and all segments that hang on it. It may cross threads: mempools may be freed to from
/// anywhere.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: it is owned, and its mempool's operations are those for several threads.
unsafe impl Send for Mbuf {}

impl Mbuf {
    #[inline]
    fn at(&self) -> *mut sys::rte_mbuf {
        self.0.as_ptr()
    }

    /// The frame, or its first part where it has several segments.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: it is valid while it is ours, and its data lies in its buffer.
        unsafe { slice::from_raw_parts(sys::data(self.at()), usize::from((*self.at()).data_len)) }
    }

    #[inline]
    pub(super) fn is_one_segment(&self) -> bool {
        // SAFETY: it is valid while it is ours.
        unsafe { (*self.at()).nb_segs == 1 }
    }

    /// `RTE_MBUF_F_*`.
    #[inline]
    pub(super) fn flags(&self) -> u64 {
        // SAFETY: it is valid while it is ours.
        unsafe { (*self.at()).ol_flags }
    }

    /// Bytes of the whole frame.
    #[inline]
    pub(super) fn frame_len(&self) -> u32 {
        // SAFETY: it is valid while it is ours.
        unsafe { (*self.at()).pkt_len }
    }

    /// Bytes that a frame may have.
    #[inline]
    pub(super) fn room(&self) -> usize {
        // SAFETY: it is valid while it is ours.
        unsafe { usize::from((*self.at()).buf_len).saturating_sub((*self.at()).data_off.into()) }
    }

    /// Memory for a frame of `len` bytes, [`Mbuf::room`] at most.
    #[inline]
    pub(super) fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.room() {
            return None;
        }
        // SAFETY: it is ours alone, fresh from its pool, and there is as much room behind its data's
        // start. The memory was mapped filled with zeroes, or written by earlier tenants.
        Some(unsafe { slice::from_raw_parts_mut(sys::data(self.at()), len) })
    }

    /// The frame has `len` bytes, and the device is to do with its headers as `flags` say.
    #[inline]
    pub(super) fn finish(&mut self, len: usize, flags: u64, l2_len: u8, l3_len: u8) {
        debug_assert!(len <= self.room());
        // SAFETY: it is ours alone.
        unsafe {
            (*self.at()).data_len = len as u16;
            (*self.at()).pkt_len = len as u32;
            if flags != 0 {
                (*self.at()).ol_flags |= flags;
                sys::set_tx_lens(self.at(), l2_len, l3_len);
            }
        }
    }

    /// Asks the processor for the lines where the frame begins: headers, and all of a small message.
    /// Of a larger one the processor notices by itself that they are read in turn.
    #[inline]
    pub(super) fn prefetch(&self) {
        // SAFETY: the mbuf is valid.
        let frame = unsafe { sys::data(self.at()) };
        prefetch_at(frame);
        if self.frame_len() > 64 {
            prefetch_at(frame.wrapping_add(64));
        }
    }

    /// Asks the processor for the first lines of the frame that will be written here.
    #[inline]
    pub(super) fn prefetch_space(&self) {
        // SAFETY: the mbuf is valid.
        let frame = unsafe { sys::data(self.at()) };
        prefetch_to_write(frame);
        prefetch_to_write(frame.wrapping_add(64));
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        let mut mbuf = self.at();
        // SAFETY: it was ours, and nobody has it any more.
        unsafe { sys::rte_pktmbuf_free_bulk(&raw mut mbuf, 1) };
    }
}

/// How bursts are received and sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Bursts {
    /// In Rust, straight to the driver.
    Bare,
    /// In C, with the callbacks that packet capture hangs on a queue.
    WithCallbacks,
}

/// Gives many back at once.
#[inline]
pub(super) fn free_all<const N: usize>(mbufs: &mut ArrayVec<Mbuf, N>) {
    let count = mbufs.len();
    if count == 0 {
        return;
    }
    // SAFETY: the first `count` are valid and ours; forgotten first, so that none is freed twice.
    unsafe {
        mbufs.set_len(0);
        sys::hio_free_bulk(mbufs.as_mut_ptr().cast(), count as u32);
    }
}

/// Adds a burst of `max` frames at most and says how many there were.
///
/// # Safety
/// The port is started and has that queue, which no other thread uses.
#[inline]
pub(super) unsafe fn receive<const N: usize>(
    bursts: Bursts,
    (port, queue): (u16, u16),
    mbufs: &mut ArrayVec<Mbuf, N>,
    max: usize,
) -> usize {
    let len = mbufs.len();
    let max = max.min(N - len);
    // SAFETY: an `Mbuf` is a pointer; the device fills in the first `count`, which are ours then.
    unsafe {
        let free = mbufs.as_mut_ptr().add(len).cast::<*mut sys::rte_mbuf>();
        let count = match bursts {
            Bursts::Bare => sys::rx_burst(port, queue, slice::from_raw_parts_mut(free, max)),
            Bursts::WithCallbacks => sys::hio_rx_burst(port, queue, free, max as u16),
        };
        let count = usize::from(count);
        mbufs.set_len(len + count);
        count
    }
}

/// Hands frames to the device, the first first, and says how many it took.
///
/// # Safety
/// The port is started and has that queue, which no other thread uses. With `prepare` the device
/// looks at their headers first, which it may want for offloads; a frame that it can't send is
/// dropped, and counted in what is returned second.
#[inline]
pub(super) unsafe fn send<const N: usize>(
    bursts: Bursts,
    (port, queue): (u16, u16),
    mbufs: &mut ArrayVec<Mbuf, N>,
    prepare: bool,
) -> (usize, usize) {
    let count = mbufs.len();
    let raw = mbufs.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
    // SAFETY: an `Mbuf` is a pointer, all `count` of them are ours.
    let all = unsafe { slice::from_raw_parts_mut(raw, count) };
    let mut good = count;
    if prepare {
        // SAFETY: as the caller says.
        good = usize::from(unsafe { sys::tx_prepare(port, queue, all) });
    }
    // SAFETY: as the caller says; there are `good` at least.
    let sent = usize::from(unsafe {
        match bursts {
            Bursts::Bare => sys::tx_burst(port, queue, &mut all[..good]),
            Bursts::WithCallbacks => sys::hio_tx_burst(port, queue, raw, good as u16),
        }
    });
    // SAFETY: the first `sent` are the device's now; the others move to the front, each once.
    unsafe {
        mbufs.set_len(0);
        std::ptr::copy(raw.add(sent), raw, count - sent);
        mbufs.set_len(count - sent);
    }
    if good < count && sent == good {
        // The first that is left is the one that it can't send.
        mbufs.remove(0);
        return (sent, 1);
    }
    (sent, 0)
}
