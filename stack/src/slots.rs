//! The memory of live connections, and the stack's only unsafe room: a slab of smoltcp sockets
//! with their rings, on hugepages where there are any.
//!
//! A slot is a header (our state and the `SocketStorage`), the receive ring and the send ring in
//! one stretch of memory. Slots of one ring class lie in chunks of at least 2 MiB; a chunk that
//! nobody uses goes back to the system, except one that is kept. smoltcp's rings borrow the slot's
//! own memory for as long as the socket is in it.
//!
//! Invariants: a chunk's memory stays where it is until the chunk is dropped, which happens only
//! when all its slots are vacant or with the slab. A header with `occupied` set holds a
//! socket; its rings are reached through that socket alone, except for the one window at a time
//! that [`Lending::lend`] gives away. Once the fast path has taken a slot they are reached through
//! [`Fast`] alone instead, until the slot is vacant again.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use hioload_core::prefetch_at;
use hioload_core::region::Region;
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp;

use crate::config::RING_BYTES;
use crate::conn::Table;
use crate::live::Live;

const CHUNK_BYTES: usize = 2 << 20;
const CLASSES: usize = RING_BYTES.len();
/// A slot's number: class in the top two bits, then whether the fast path has it, then its chunk,
/// then its place there.
const CLASS_SHIFT: u32 = 30;
const FAST: u32 = 1 << 29;
const PLACE_BITS: u32 = 9;
const CHUNKS_MAX: usize = FAST as usize >> PLACE_BITS;
const _: () = assert!(CHUNK_BYTES / (HEAD_BYTES + 2 * RING_BYTES[0]) <= 1 << PLACE_BITS);
const _: () = assert!(CLASSES <= 3, "a number of ones is none");
const NONE: u32 = u32::MAX;

#[repr(C, align(64))]
struct Head {
    /// 0 in fresh memory.
    occupied: u32,
    /// The next vacant slot of the chunk, while vacant.
    next: u32,
    live: MaybeUninit<Live>,
    storage: MaybeUninit<[SocketStorage<'static>; 1]>,
}

/// Bytes of a live connection beside its rings and its entry in the table.
pub const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES <= 704);
/// Those of them that are ours.
const STATE_BYTES: usize = std::mem::offset_of!(Head, storage);

struct Chunk {
    region: Region,
    free: u32,
    /// Slots from here on were never used.
    fresh: u32,
    used: u32,
    in_partial: bool,
}

/// Where a chunk's slots are: all that finding one takes.
struct Mapped {
    base: NonNull<u8>,
    stride: u32,
    ring: u16,
    /// 0 where the chunk isn't mapped.
    slots: u16,
}

struct Class {
    ring: usize,
    stride: usize,
    /// Slots a chunk.
    slots: u32,
    /// Chunks with room, the one to use last.
    partial: Vec<u32>,
    /// A chunk that is empty and kept.
    spare: u32,
}

/// See the module.
pub(crate) struct Slots {
    classes: [Class; CLASSES],
    chunks: Vec<Option<Chunk>>,
    mapped: Vec<Mapped>,
    /// Numbers of chunks that aren't mapped any more.
    vacant: Vec<u32>,
    huge: bool,
    node: Option<u32>,
    bytes: usize,
    /// Most bytes that may be mapped.
    max_bytes: u64,
}

impl Class {
    fn new(ring: usize) -> Class {
        let stride = (HEAD_BYTES + 2 * ring).next_multiple_of(64);
        let slots = (CHUNK_BYTES / stride) as u32;
        Class { ring, stride, slots, partial: Vec::new(), spare: NONE }
    }
}

fn number(class: usize, chunk: u32, place: u32) -> u32 {
    (class as u32) << CLASS_SHIFT | chunk << PLACE_BITS | place
}

/// A slot's chunk, and its place there.
#[inline(always)]
fn split(slot: u32) -> (u32, u32) {
    let chunk = slot >> PLACE_BITS & (CHUNKS_MAX as u32 - 1);
    (chunk, slot & ((1 << PLACE_BITS) - 1))
}

impl Slots {
    pub(crate) fn new(huge: bool, node: Option<u32>, max_bytes: u64) -> Slots {
        Slots {
            classes: RING_BYTES.map(Class::new),
            chunks: Vec::new(),
            mapped: Vec::new(),
            vacant: Vec::new(),
            huge,
            node,
            bytes: 0,
            max_bytes,
        }
    }

    /// Bytes mapped.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The header of a slot, and the bytes of each of its rings.
    #[inline(always)]
    fn head(&self, slot: u32) -> (NonNull<Head>, usize) {
        let (chunk, place) = split(slot);
        let mapped = &self.mapped[chunk as usize];
        assert!(place < u32::from(mapped.slots), "the slot's chunk is mapped, and has that place");
        // SAFETY: that many slots of that stride lie in the chunk's memory, which is mapped.
        let head = unsafe { mapped.base.add(place as usize * mapped.stride as usize) };
        (head.cast(), usize::from(mapped.ring))
    }

    /// Puts a fresh, closed socket and its state into a vacant slot; `None` where the system has
    /// no memory.
    pub(crate) fn insert(&mut self, class: u8, live: Live) -> Option<u32> {
        let class_index = usize::from(class);
        let chunk_index = match self.classes[class_index].partial.last() {
            Some(&chunk) => chunk,
            None => self.map_chunk(class_index)?,
        };
        let chunk = self.chunks[chunk_index as usize].as_mut().expect("a partial chunk is mapped");
        let place = match chunk.free {
            NONE => {
                chunk.fresh += 1;
                chunk.fresh - 1
            }
            place => place,
        };
        let taken_from_list = place == chunk.free;
        chunk.used += 1;
        let slot = number(class_index, chunk_index, place);
        let (head, ring) = self.head(slot);
        // SAFETY: the slot is vacant and within its chunk, so nothing else points into it. Fresh
        // memory is zero, a valid `occupied` and `next`; a vacant slot's were written on removal.
        // The rings follow the header inside the slot's stride, don't overlap, and are bytes,
        // zeroed or written before. They are reached only through the socket from now on, or
        // only past it (see `Fast`).
        let next = unsafe {
            let head = head.as_ptr();
            let next = (*head).next;
            let rings = head.cast::<u8>().add(HEAD_BYTES);
            let rx: &'static mut [u8] = std::slice::from_raw_parts_mut(rings, ring);
            let tx: &'static mut [u8] = std::slice::from_raw_parts_mut(rings.add(ring), ring);
            let socket = tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx));
            (*head).live.write(live);
            let storage = (*head).storage.write([SocketStorage::EMPTY]);
            // The set borrows the slot for this statement only.
            SocketSet::new(&mut storage[..]).add(socket);
            (*head).occupied = 1;
            next
        };
        let chunk = self.chunks[chunk_index as usize].as_mut().expect("mapped above");
        if taken_from_list {
            chunk.free = next;
        }
        let class = &mut self.classes[class_index];
        if chunk.used == class.slots {
            chunk.in_partial = false;
            class.partial.pop();
        }
        if class.spare == chunk_index {
            class.spare = NONE;
        }
        self.prefetch_vacant(class_index);
        Some(slot)
    }

    /// Asks for the slot that the next socket of a class will be put into: where connections thaw one
    /// after the other, each would wait for memory that nobody has touched for long.
    fn prefetch_vacant(&self, class: usize) {
        let Some(&index) = self.classes[class].partial.last() else { return };
        let Some(chunk) = &self.chunks[index as usize] else { return };
        let place = if chunk.free == NONE { chunk.fresh } else { chunk.free };
        self.prefetch(number(class, index, place));
    }

    fn map_chunk(&mut self, class: usize) -> Option<u32> {
        let class = &mut self.classes[class];
        if self.vacant.is_empty() && self.chunks.len() >= CHUNKS_MAX {
            return None;
        }
        if (self.bytes + CHUNK_BYTES) as u64 > self.max_bytes {
            return None;
        }
        let region = Region::map(CHUNK_BYTES, self.huge, self.node).ok()?;
        self.bytes += region.len();
        let mapped = Mapped {
            base: region.base(),
            stride: class.stride as u32,
            ring: class.ring as u16,
            slots: class.slots as u16,
        };
        let chunk = Some(Chunk { region, free: NONE, fresh: 0, used: 0, in_partial: true });
        let index = match self.vacant.pop() {
            Some(index) => {
                self.chunks[index as usize] = chunk;
                self.mapped[index as usize] = mapped;
                index
            }
            None => {
                self.chunks.push(chunk);
                self.mapped.push(mapped);
                self.chunks.len() as u32 - 1
            }
        };
        class.partial.push(index);
        Some(index)
    }

    /// Drops a slot's socket.
    pub(crate) fn remove(&mut self, slot: u32) {
        let head = self.occupied(slot).0;
        let (chunk_index, place) = split(slot);
        let chunk = self.chunks[chunk_index as usize].as_mut().expect("checked by `occupied`");
        // SAFETY: occupied, so both are initialised; `&mut self` proves that no window or set of
        // this slab is alive. The socket's ring borrows end here, before the memory is reused.
        unsafe {
            let head = head.as_ptr();
            (*head).storage.assume_init_drop();
            (*head).live.assume_init_drop();
            (*head).occupied = 0;
            (*head).next = chunk.free;
        }
        chunk.free = place;
        chunk.used -= 1;
        let class = &mut self.classes[usize::from(Slots::class(slot))];
        if !chunk.in_partial {
            chunk.in_partial = true;
            class.partial.push(chunk_index);
        }
        if chunk.used > 0 {
            return;
        }
        if class.spare == NONE {
            class.spare = chunk_index;
            return;
        }
        self.bytes -= chunk.region.len();
        self.chunks[chunk_index as usize] = None;
        self.mapped[chunk_index as usize].slots = 0;
        self.vacant.push(chunk_index);
        // As many as there are chunks with room: a rare walk, once for hundreds of connections.
        class.partial.retain(|&index| index != chunk_index);
    }

    /// [`Slots::head`] of a slot that has a socket.
    #[inline(always)]
    fn occupied(&self, slot: u32) -> (NonNull<Head>, usize) {
        let (head, ring) = self.head(slot);
        // SAFETY: mapped, and `occupied` is initialised in every slot (zero in fresh memory).
        assert!(unsafe { (*head.as_ptr()).occupied } == 1, "the slot is vacant");
        (head, ring)
    }

    /// The ring class of a slot.
    pub(crate) fn class(slot: u32) -> u8 {
        (slot >> CLASS_SHIFT) as u8
    }

    /// A number of the same slot that says that the fast path has it, for [`Slots::prefetch`].
    pub(crate) fn on_fast_path(slot: u32) -> u32 {
        slot | FAST
    }

    /// Asks for the lines that a segment's processing reads first. On the fast path these are our
    /// state alone, and both rings' beginnings.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let fast = slot & FAST != 0;
        let (head, ring) = self.head(slot);
        let head = head.as_ptr().cast::<u8>();
        let lines = if fast { STATE_BYTES.div_ceil(64) } else { HEAD_BYTES / 64 };
        for line in 0..lines {
            prefetch_at(head.wrapping_add(line * 64));
        }
        if fast {
            prefetch_at(head.wrapping_add(HEAD_BYTES));
            prefetch_at(head.wrapping_add(HEAD_BYTES + 64));
        }
        // Where a ring starts: right for the send ring, which rewinds when it is empty.
        prefetch_at(head.wrapping_add(HEAD_BYTES + ring));
    }

    /// Asks for the line of the receive ring that the next byte goes to. Reads the slot's state.
    #[inline]
    pub(crate) fn prefetch_ring(&self, slot: u32) {
        if slot & FAST != 0 {
            return;
        }
        let (head, ring) = self.occupied(slot);
        let head = head.as_ptr();
        // SAFETY: occupied, so initialised; borrowed as `self` is.
        let live = unsafe { (*head).live.assume_init_ref() };
        // A division of 32 bits takes half the time of one of 64.
        let at = live.rcv_nxt.wrapping_sub(live.rcv_first) % ring as u32;
        let next = head.cast::<u8>().wrapping_add(HEAD_BYTES + at as usize);
        prefetch_at(next);
        prefetch_at(next.wrapping_add(64));
    }

    /// A slot's state.
    #[inline]
    pub(crate) fn live(&self, slot: u32) -> &Live {
        // SAFETY: occupied, so initialised; borrowed as `self` is.
        unsafe { (*self.occupied(slot).0.as_ptr()).live.assume_init_ref() }
    }

    /// A slot's state, to change.
    #[inline]
    pub(crate) fn live_mut(&mut self, slot: u32) -> &mut Live {
        // SAFETY: occupied, so initialised; `&mut self` makes it the only borrow.
        unsafe { (*self.occupied(slot).0.as_ptr()).live.assume_init_mut() }
    }

    /// The queues of a connection that the fast path has; `None` for others.
    #[inline]
    pub(crate) fn fast(&mut self, slot: u32) -> Option<Fast<'_>> {
        let (head, ring) = self.occupied(slot);
        let head = head.as_ptr();
        // SAFETY: occupied, so initialised; `&mut self` makes it the only borrow.
        let live = unsafe { (*head).live.assume_init_mut() };
        // The rings lie behind the header. See `Fast` for why they may be reached from here.
        let rx = NonNull::new(head.cast::<u8>().wrapping_add(HEAD_BYTES))?;
        live.fast.then_some(Fast { live, rx, ring })
    }

    /// A slot's socket as a set of its own, which is how smoltcp's `Interface` wants it.
    #[inline]
    pub(crate) fn with_set<R>(
        &mut self,
        slot: u32,
        f: impl for<'s> FnOnce(&mut SocketSet<'s>, &mut Live) -> R,
    ) -> R {
        let head = self.occupied(slot).0.as_ptr();
        // SAFETY: occupied, so both are initialised, and `&mut self` makes these the only borrows;
        // they are different fields. The set lives for this call only: `f` works for any lifetime,
        // so it can keep nothing of it.
        let (storage, live) =
            unsafe { ((*head).storage.assume_init_mut(), (*head).live.assume_init_mut()) };
        debug_assert!(!live.fast, "its socket is out of date");
        f(&mut SocketSet::new(&mut storage[..]), live)
    }

    /// A slot's socket.
    #[inline]
    pub(crate) fn with<R>(
        &mut self,
        slot: u32,
        f: impl for<'s> FnOnce(&mut tcp::Socket<'s>, &mut Live) -> R,
    ) -> R {
        self.with_set(slot, |set, live| f(set.get_mut(SocketHandle::default()), live))
    }
}

/// The queues of a connection that the fast path has, in the memory of its rings: what arrived lies
/// at the beginning of the receive ring's, what was sent or waits at that of the send ring's.
///
/// While `Live::fast` is set, nobody calls a function of the slot's socket that looks into its
/// rings, and the flag is never taken back: leaving the fast path makes a new socket. So the memory
/// is reached from here alone, but for the window that was lent to the user, which is the first
/// `rx_len` bytes: nothing here touches those before the turn has ended.
pub(crate) struct Fast<'s> {
    pub(crate) live: &'s mut Live,
    rx: NonNull<u8>,
    ring: usize,
}

impl Fast<'_> {
    /// Bytes of each ring.
    pub(crate) fn ring(&self) -> usize {
        self.ring
    }

    /// Bytes received that the user hasn't consumed.
    #[inline]
    pub(crate) fn received(&self) -> usize {
        usize::from(self.live.rx_len)
    }

    /// After the turn: takes what was lent for consumed. That is all, as a turn lends all there is.
    #[inline]
    pub(crate) fn consume(&mut self) {
        if std::mem::take(&mut self.live.lent) > 0 {
            self.live.rx_len = 0;
        }
    }

    /// After [`Fast::consume`]: puts what arrived behind the rest. False, and nothing is taken, where
    /// there isn't the room.
    #[inline]
    pub(crate) fn receive(&mut self, data: &[u8]) -> bool {
        assert!(self.live.lent == 0, "what was lent was consumed");
        let end = self.received();
        if end + data.len() > self.ring {
            return false;
        }
        // SAFETY: the receive ring is `ring` bytes at `rx`, initialised, reached from here alone as
        // nothing is lent (see the type); the range was just looked at.
        let room = unsafe { std::slice::from_raw_parts_mut(self.rx.as_ptr().add(end), data.len()) };
        room.copy_from_slice(data);
        self.live.rx_len += data.len() as u16;
        true
    }

    /// After [`Fast::consume`]: what the user hasn't consumed.
    pub(crate) fn held(&self) -> &[u8] {
        assert!(self.live.lent == 0, "what was lent was consumed");
        assert!(self.received() <= self.ring, "within the ring");
        // SAFETY: as in `receive`; the length was just looked at.
        unsafe { std::slice::from_raw_parts(self.rx.as_ptr(), self.received()) }
    }

    /// The send ring's memory. Nothing of it is ever lent.
    #[inline]
    fn tx(&mut self) -> &mut [u8] {
        // SAFETY: the send ring is `ring` bytes behind the receive ring, initialised, reached from
        // here alone (see the type); the borrow of `self` makes this the only one.
        unsafe { std::slice::from_raw_parts_mut(self.rx.as_ptr().add(self.ring), self.ring) }
    }

    /// Bytes that were taken for output and aren't acknowledged.
    #[inline]
    pub(crate) fn unacknowledged(&self) -> usize {
        usize::from(self.live.tx_len) - self.acknowledged()
    }

    /// Bytes at the send ring's beginning that are acknowledged.
    #[inline]
    fn acknowledged(&self) -> usize {
        let bytes = self.live.snd_una.wrapping_sub(self.live.tx_first) as usize;
        assert!(bytes <= usize::from(self.live.tx_len), "no more than was sent is acknowledged");
        bytes
    }

    /// What was taken for output and isn't acknowledged, and where in it that begins which was never
    /// sent.
    #[inline]
    pub(crate) fn output(&self) -> (&[u8], usize) {
        let (from, to) = (self.acknowledged(), usize::from(self.live.tx_len));
        assert!(to <= self.ring, "within the ring");
        let sent = self.live.snd_nxt.wrapping_sub(self.live.snd_una) as usize;
        // SAFETY: as in `tx`; the range was just looked at (`acknowledged` looks at its beginning).
        let output = unsafe {
            std::slice::from_raw_parts(self.rx.as_ptr().add(self.ring + from), to - from)
        };
        (output, sent)
    }

    /// Room for `len` more bytes of output, which the caller will write all; `None` where there
    /// isn't as much.
    #[inline]
    pub(crate) fn send(&mut self, len: usize) -> Option<&mut [u8]> {
        let (gone, end) = (self.acknowledged(), usize::from(self.live.tx_len));
        if end - gone + len > self.ring {
            return None;
        }
        if gone == end || end + len > self.ring {
            if gone < end {
                self.tx().copy_within(gone..end, 0);
            }
            self.live.tx_first = self.live.snd_una;
            self.live.tx_len = (end - gone) as u16;
        }
        let end = usize::from(self.live.tx_len);
        self.live.tx_len += len as u16;
        Some(&mut self.tx()[end..end + len])
    }
}

/// A turn's two faces of the table: one lends windows of receive rings, the other fills send
/// rings. Both are alive at once, which a `&mut Table` can't express.
pub(crate) struct Lending<'t> {
    table: NonNull<Table>,
    _turn: PhantomData<&'t mut Table>,
}

impl<'t> Lending<'t> {
    /// Starts a turn: two faces of one table.
    pub(crate) fn pair(table: &'t mut Table) -> (Lending<'t>, Lending<'t>) {
        let table = NonNull::from(table);
        (Lending { table, _turn: PhantomData }, Lending { table, _turn: PhantomData })
    }

    /// The table, for what touches no lent ring: entries, state, send rings, new slots.
    ///
    /// `f` must not call a receiving function of a socket, nor remove a slot: the callers in
    /// [`crate::turn`] don't, and `f` can't reach the other face.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        // SAFETY: made from a `&mut Table` that is borrowed for `'t`. All use of it goes through
        // the two faces, which stay on one thread (`NonNull` isn't `Send`), one call at a time: `f`
        // gets the table for the call only, and no caller's `f` holds a face, so calls don't nest.
        // What is lent is ring memory, which is in none of the table's own structures.
        f(unsafe { &mut *self.table.as_ptr() })
    }

    /// Lends the contiguous part of what a connection received, once a turn. Tells whether it is
    /// the first that the turn touches.
    #[inline]
    pub(crate) fn lend(&mut self, slot: u32) -> Option<(&'t mut [u8], bool)> {
        let (at, len, first) = self.with(|table| {
            if let Some(fast) = table.slots.fast(slot) {
                let len = fast.received();
                if fast.live.lent > 0 || len == 0 {
                    return None;
                }
                fast.live.lent = len as u32;
                let first = !std::mem::replace(&mut fast.live.touched, true);
                return Some((fast.rx.as_ptr(), len, first));
            }
            table.slots.with(slot, |socket, live| {
                if live.lent > 0 {
                    return None;
                }
                let window = socket.recv(|bytes| (0, (bytes.as_mut_ptr(), bytes.len()))).ok()?;
                live.lent = window.1 as u32;
                let first = window.1 > 0 && !std::mem::replace(&mut live.touched, true);
                Some((window.0, window.1, first))
            })
        })?;
        if len == 0 {
            return None;
        }
        // SAFETY: the bytes are the front of the slot's receive ring, which stays mapped for `'t`
        // as no slot is removed meanwhile. `lent` makes sure that they are given out once; until
        // it is reset, after the turn, nobody calls a receiving function of the socket or of `Fast`.
        Some((unsafe { std::slice::from_raw_parts_mut(at, len) }, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(conn: u32) -> Live {
        Live { conn, ..Live::default() }
    }

    #[test]
    fn slots_are_reused_and_chunks_go_back() {
        let mut slots = Slots::new(false, None, u64::MAX);
        for class in 0..3 {
            let before = slots.bytes();
            let taken: Vec<u32> =
                (0..1200).map(|n| slots.insert(class, live(n)).unwrap()).collect();
            for (n, &slot) in taken.iter().enumerate() {
                assert_eq!(slots.live(slot).conn, n as u32);
                assert_eq!(Slots::class(slot), class);
                let ring =
                    slots.with(slot, |socket, _| (socket.recv_capacity(), socket.send_capacity()));
                assert_eq!(ring, (RING_BYTES[class as usize], RING_BYTES[class as usize]));
            }
            assert!(slots.bytes() > before + CHUNK_BYTES);
            for slot in taken.into_iter().rev() {
                slots.remove(slot);
            }
            assert_eq!(slots.bytes(), before + CHUNK_BYTES, "one chunk is kept");
        }
    }

    #[test]
    #[should_panic(expected = "vacant")]
    fn a_vacant_slot_is_not_reached() {
        let mut slots = Slots::new(false, None, u64::MAX);
        let slot = slots.insert(0, live(0)).unwrap();
        let _other = slots.insert(0, live(1)).unwrap();
        slots.remove(slot);
        slots.live(slot);
    }
}
