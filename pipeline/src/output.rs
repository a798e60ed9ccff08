//! Output of a session: straight to the transport while that has room, into the session's queue
//! when it has none, and what happens when the queue is at its limit.
//!
//! Cost of a reply on the straight path: the session's cache line, one call into the transport; no
//! allocation and no copy where the reply lies in a window.

use std::mem;

use hioload_core::frame::Frame;
use hioload_core::slab::Key;
use hioload_ws_proto::ControlPayload;
use hioload_ws_proto::encode::{self, MAX_HEADER};
use hioload_ws_proto::mask;
use hioload_ws_proto::{CloseCode, write_close};
use hioload_ws_proto::{MAX_CONTROL_BYTES, Opcode};

use crate::backend::{Ahead, TURN_BYTES, TxHalf};
use crate::handler::ClosedBy;
use crate::hub::{Delivery, Hub, MAX_BROADCASTS, Op, Owed};
use crate::id::SessionId;
use crate::inbox::{Reached, RemoteError};
use crate::message::Kind;
use crate::queue::{NoMemory, Queue};
use crate::session::{Coarse, Ending, Index, Phase, Session};
use crate::settings::Overflow;
use crate::window::Out;

/// How many sessions ahead of a broadcast a connection is fetched ([`Ahead`]).
const FAR: u32 = 12;
const NEAR: u32 = 4;

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The session has ended, is closing, or isn't open yet.
    Closed,
    /// The session's unsent output is at its limit and the message was dropped; with
    /// [`Overflow::Close`], the session was closed. Or the inbox of the session's worker is full.
    Full,
    /// The memory budget is spent.
    NoMemory,
    /// As a client: the operating system gave no random bytes for a mask.
    NoRandom,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SendError::Closed => "the session isn't open",
            SendError::Full => "the session's unsent output is at its limit",
            SendError::NoMemory => "the memory budget is spent",
            SendError::NoRandom => "the operating system gave no random bytes for a mask",
        })
    }
}

impl std::error::Error for SendError {}

impl From<RemoteError> for SendError {
    fn from(e: RemoteError) -> Self {
        match e {
            RemoteError::Full => SendError::Full,
            RemoteError::Gone => SendError::Closed,
        }
    }
}

/// Whether a message answers one that the same session sent: such a one may exceed the limit by a
/// message and a turn's input, because reading from the session stops long before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Reply,
    Unasked,
}

/// A frame larger than this isn't built in the transport's send memory.
const BUILD_MAX_BYTES: usize = 64 * 1024;

/// The transmit half as the pipeline passes it around.
pub(crate) type Tx<'t> = dyn TxHalf<'t> + 't;

impl<S> Hub<S> {
    /// Sends a data frame that is encoded as servers send it.
    #[inline]
    pub(crate) fn deliver<'t>(
        &mut self,
        key: Key,
        mut out: Out<'t>,
        payload_len: usize,
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let session = self.sessions.get_mut(key).ok_or(SendError::Closed)?;
        if session.phase == Phase::Open && !session.client {
            match straight(session, out, tx) {
                Ok(()) => {
                    self.count_out(payload_len);
                    return Ok(());
                }
                Err(back) => out = back,
            }
        }
        self.deliver_slow(key, out, payload_len, cause, tx)
    }

    /// What isn't straight: a client's frame, a queue before it, a session that isn't open.
    #[cold]
    fn deliver_slow<'t>(
        &mut self,
        key: Key,
        out: Out<'t>,
        payload_len: usize,
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        if self.sessions.get(key).is_some_and(|session| session.client) {
            return self.deliver_masked(key, out.bytes(), payload_len, cause, tx);
        }
        self.send(key, out, payload_len, cause, tx)
    }

    /// As a client every frame has a mask of its own (RFC 6455 §5.3), so the payload is copied.
    fn deliver_masked<'t>(
        &mut self,
        key: Key,
        frame: &[u8],
        payload_len: usize,
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let text = frame.first().is_some_and(|first| first & 0x0F == Opcode::Text as u8);
        let kind = if text { Kind::Text } else { Kind::Binary };
        let payload = &frame[frame.len() - payload_len..];
        self.build(key, kind, payload_len, &mut |room| room.copy_from_slice(payload), cause, tx)
    }

    /// Sends a data frame that is encoded for this session.
    fn send<'t>(
        &mut self,
        key: Key,
        out: Out<'t>,
        payload_len: usize,
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let session = self.sessions.get_mut(key).ok_or(SendError::Closed)?;
        if session.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        if let Err(back) = straight(session, out, tx) {
            self.enqueue(key, back, cause, tx)?;
        }
        self.count_out(payload_len);
        Ok(())
    }

    /// Encodes a message of `len` bytes, which `fill` writes, and sends it.
    pub(crate) fn build<'t>(
        &mut self,
        key: Key,
        kind: Kind,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let session = self.sessions.get(key).ok_or(SendError::Closed)?;
        if session.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        let mask = self.mask_for(session.client).ok_or(SendError::NoRandom)?;
        let Some(session) = self.sessions.get(key) else { return Err(SendError::Closed) };
        let head = encode::header_len(len as u64, mask.is_some());
        let mut write = |frame: &mut [u8]| {
            fill(&mut frame[head..]);
            if let Some(mask) = mask {
                mask::apply(mask, 0, &mut frame[head..]);
            }
            encode::write_header_before(frame, head, true, false, kind.opcode(), mask);
        };
        if session.writable
            && session.queue == Index::NONE
            && head + len <= BUILD_MAX_BYTES
            && tx.build(session.conn, head + len, &mut write)
        {
            self.count_out(len);
            return Ok(());
        }
        let mut buf = self.pool.alloc(head + len).ok_or(SendError::NoMemory)?;
        buf.set_range(0, head + len);
        write(buf.data_mut());
        self.send(key, Out::Owned(buf), len, cause, tx)
    }

    /// The mask of the next frame: none for a server's. `None`: there is no randomness for one.
    #[inline]
    fn mask_for(&mut self, client: bool) -> Option<Option<[u8; 4]>> {
        if !client {
            return Some(None);
        }
        self.keys.as_mut()?.next_key().ok().map(Some)
    }

    #[inline]
    fn count_out(&self, payload_len: usize) {
        self.counters.messages_out_total.inc();
        self.counters.message_bytes_out_total.add(payload_len as u64);
    }

    /// Puts a data frame behind the session's waiting output, as far as its limit allows.
    #[cold]
    fn enqueue<'t>(
        &mut self,
        key: Key,
        out: Out<'t>,
        cause: Cause,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let Some(session) = self.sessions.get(key) else { return Err(SendError::Closed) };
        let conn = session.conn;
        let limit = self.settings.max_unsent_bytes
            + match cause {
                Cause::Unasked => 0,
                Cause::Reply => self.rules.limits.max_message as usize + TURN_BYTES,
            };
        let len = out.len();
        loop {
            // A transport takes a turn's replies before it refuses any, and reading pauses only
            // then: for replies what it took is beyond the limit, or an echo could be dropped.
            let taken = match cause {
                Cause::Unasked => tx.unsent(conn),
                Cause::Reply => 0,
            };
            let waiting = self.waiting(key) + taken;
            if waiting == 0 || waiting + len <= limit {
                break;
            }
            self.counters.overflow_dropped_total.inc();
            match self.settings.overflow {
                Overflow::DropNewest => {
                    // Though nothing of it waits here, `on_writable` says when there is room.
                    self.with_queue(key, |_, _| ());
                    return Err(SendError::Full);
                }
                Overflow::DropOldest => {
                    // What doesn't fit beside what the transport has taken displaces nothing.
                    let fits = taken == 0 || taken + len <= limit;
                    if !self.with_queue(key, |queue, _| fits && queue.drop_oldest()) {
                        return Err(SendError::Full);
                    }
                }
                Overflow::Close => {
                    self.counters.overflow_closed_total.inc();
                    self.cut(key, CloseCode::TRY_AGAIN_LATER, "too much unsent output", tx);
                    return Err(SendError::Full);
                }
            }
        }
        let mut out = Some(out);
        let pushed = self.with_queue(key, |queue, pool| match out.take() {
            Some(out) => queue.push(out, pool),
            None => Ok(()),
        });
        if let Err(NoMemory) = pushed {
            self.counters.refused_by_memory_total.inc();
            self.cut(key, CloseCode::TRY_AGAIN_LATER, "out of memory", tx);
            return Err(SendError::NoMemory);
        }
        if self.held(key) + tx.unsent(conn) >= self.settings.max_unsent_bytes / 2 {
            self.pause(key);
        }
        Ok(())
    }

    /// Bytes in the session's queue.
    pub(crate) fn waiting(&self, key: Key) -> usize {
        self.queue(key).map_or(0, Queue::bytes)
    }

    /// Memory that the session's queue holds, in bytes.
    fn held(&self, key: Key) -> usize {
        self.queue(key).map_or(0, Queue::held_bytes)
    }

    fn queue(&self, key: Key) -> Option<&Queue> {
        let slot = self.sessions.get(key)?.queue.get()?;
        self.queues.get_slot(slot).map(|(_, queue)| queue)
    }

    /// Works on the session's queue, made if there is none, and keeps the gauges true.
    fn with_queue<R>(
        &mut self,
        key: Key,
        work: impl FnOnce(&mut Queue, &hioload_core::pool::Pool) -> R,
    ) -> R {
        let existing = self.sessions.get(key).and_then(|session| session.queue.get());
        let slot = existing.unwrap_or_else(|| {
            let queue = self.spare_queues.pop().unwrap_or_default();
            let slot = self.queues.insert((key, queue)).slot;
            if let Some(session) = self.sessions.get_mut(key) {
                session.queue = Index::some(slot);
            }
            self.counters.queues_open.add(1);
            slot
        });
        let Some((_, queue)) = self.queues.get_slot_mut(slot) else {
            // The index came from the table a line above.
            unreachable!("a session's queue is in the table")
        };
        let before = queue.bytes() as u64;
        let result = work(queue, &self.pool);
        let after = queue.bytes() as u64;
        if after >= before {
            self.counters.queued_bytes.add(after - before);
        } else {
            self.counters.queued_bytes.sub(before - after);
        }
        result
    }

    /// Sends a control frame of ours. False when memory ran out, and it was not.
    pub(crate) fn control<'t>(
        &mut self,
        key: Key,
        opcode: Opcode,
        payload: &[u8],
        tx: &mut Tx<'t>,
    ) -> bool {
        let mut bytes = [0; MAX_HEADER + MAX_CONTROL_BYTES];
        let client = self.sessions.get(key).is_some_and(|session| session.client);
        let Some(mask) = self.mask_for(client) else { return false };
        let Some(len) = encode::encode_into(&mut bytes, opcode, payload, mask) else {
            return false;
        };
        self.raw(key, &bytes[..len], tx)
    }

    /// Sends bytes that no policy drops: control frames, HTTP responses.
    pub(crate) fn raw<'t>(&mut self, key: Key, bytes: &[u8], tx: &mut Tx<'t>) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        let conn = session.conn;
        if session.writable && session.queue == Index::NONE {
            if tx.build(conn, bytes.len(), &mut |room| room.copy_from_slice(bytes)) {
                return true;
            }
            let Some(mut buf) = self.pool.alloc(bytes.len()) else { return false };
            buf.append(bytes);
            if tx.send(conn, Out::Owned(buf)).is_ok() {
                return true;
            }
            session.writable = false;
        }
        let pushed = self.with_queue(key, |queue, pool| queue.push_control(bytes, pool));
        if self.held(key) + tx.unsent(conn) >= self.settings.max_unsent_bytes / 2 {
            self.pause(key);
        }
        pushed.is_ok()
    }

    /// Stops receiving from a session for now.
    pub(crate) fn pause(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !mem::replace(&mut session.paused, true) {
            self.counters.rx_paused_total.inc();
            self.ops.push(Op::Pause(session.conn));
        }
    }

    /// Lets a paused session receive again.
    pub(crate) fn resume(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if mem::replace(&mut session.paused, false) {
            self.ops.push(Op::Resume(session.conn));
        }
    }

    /// The transport has room again.
    pub(crate) fn writable<'t>(&mut self, key: Key, tx: &mut Tx<'t>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.writable = true;
        // The peer took something, so it is alive, though receiving from it may be paused.
        session.heard = Coarse::of(now);
        let (conn, queued, phase) = (session.conn, session.queue != Index::NONE, session.phase);
        if queued && !self.with_queue(key, |queue, _| queue.drain_into(conn, tx)) {
            // Refused: `Writable` comes again.
            if let Some(session) = self.sessions.get_mut(key) {
                session.writable = false;
            }
            return;
        }
        self.take_queue(key);
        if queued && phase == Phase::Open {
            self.owed.push(Owed::Writable(key));
        }
        // A session is paused only while it has a queue, or until its verdict: so it is never
        // left paused with no event to come.
        if phase != Phase::Deferred {
            self.resume(key);
        }
        self.settle(key);
    }

    /// Begins the closing handshake: Close goes out behind what waits, and the peer's is awaited.
    pub(crate) fn begin_close<'t>(
        &mut self,
        key: Key,
        code: CloseCode,
        reason: &str,
        tx: &mut Tx<'t>,
    ) -> Result<(), SendError> {
        let session = self.sessions.get_mut(key).ok_or(SendError::Closed)?;
        if session.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        session.sent_code = Some(code);
        self.close_frame(key, code, reason, tx);
        self.enter(key, Phase::Closing);
        // The peer's Close must be seen even if output waits.
        self.resume(key);
        Ok(())
    }

    /// Ends the session from this side without waiting for the peer (RFC 6455 §7.1.7): Close goes
    /// out behind what waits, then the transport closes.
    pub(crate) fn fail<'t>(&mut self, key: Key, code: CloseCode, reason: &str, tx: &mut Tx<'t>) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.phase == Phase::Open {
            self.close_frame(key, code, reason, tx);
        }
        self.finish(key, Ending::new(code, ClosedBy::Us));
    }

    /// Like [`Hub::fail`], but what waits is dropped: it would not leave in time.
    pub(crate) fn cut<'t>(&mut self, key: Key, code: CloseCode, reason: &str, tx: &mut Tx<'t>) {
        self.take_queue(key);
        self.fail(key, code, reason, tx);
    }

    pub(crate) fn close_frame<'t>(
        &mut self,
        key: Key,
        code: CloseCode,
        reason: &str,
        tx: &mut Tx<'t>,
    ) {
        let mut payload = ControlPayload::new();
        write_close(&mut payload, code, reason);
        // Without memory for it the peer sees the transport close: it is told no lie.
        self.control(key, Opcode::Close, &payload, tx);
    }

    /// All is said: the handler is owed the end, what is queued leaves, then the transport closes.
    pub(crate) fn finish(&mut self, key: Key, ending: Ending) {
        let phase = self.sessions.get(key).map(|session| session.phase);
        if matches!(phase, None | Some(Phase::Flushing | Phase::Leaving)) {
            return;
        }
        self.announce_end(key, ending);
        self.take_assembly(key);
        self.enter(key, Phase::Flushing);
        self.settle(key);
    }

    /// The handler is told once that a session is over.
    pub(crate) fn announce_end(&mut self, key: Key, ending: Ending) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if mem::replace(&mut session.announced, false) {
            // From here on nothing can be sent to it, by `on_close` neither.
            session.phase = Phase::Leaving;
            self.owed.push(Owed::Ended(key, ending));
        }
    }

    /// Closes the transport of a session that has said and sent all. A client leaves that to the
    /// server (RFC 6455 §7.1.1), within the time that a closing handshake has.
    pub(crate) fn settle(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let ours = !session.client || session.eof;
        if session.phase == Phase::Flushing && session.queue == Index::NONE && ours {
            session.phase = Phase::Leaving;
            self.ops.push(Op::Close(session.conn));
            self.resume(key);
        }
    }

    /// Broadcasts a message from this worker to all sessions of all workers but `except`.
    pub(crate) fn broadcast(
        &mut self,
        kind: Kind,
        payload: &[u8],
        except: Option<SessionId>,
    ) -> Reached {
        let frame = self.encode(kind, payload);
        let reached = self.remote.broadcast_frame(&frame, except, Some(usize::from(self.worker)));
        self.counters.inbox_full_total.add(reached.missed as u64);
        match self.broadcast_here(frame, except) {
            true => Reached { workers: reached.workers + 1, ..reached },
            false => Reached { missed: reached.missed + 1, ..reached },
        }
    }

    /// Encodes a message once for many receivers.
    pub(crate) fn encode(&mut self, kind: Kind, payload: &[u8]) -> Frame {
        let head = encode::header_len(payload.len() as u64, false);
        let Some(mut buf) = self.pool.alloc(head + payload.len()) else {
            // Off the pool's budget it is one allocation, and it ends with its last receiver.
            return crate::inbox::encode_frame(kind, payload);
        };
        buf.set_range(0, head + payload.len());
        buf.data_mut()[head..].copy_from_slice(payload);
        encode::write_header_before(buf.data_mut(), head, true, false, kind.opcode(), None);
        buf.into_frame()
    }

    /// Queues a broadcast for this worker's sessions; false when too many are under way.
    pub(crate) fn broadcast_here(&mut self, frame: Frame, except: Option<SessionId>) -> bool {
        if self.deliveries.len() >= MAX_BROADCASTS {
            self.counters.broadcasts_dropped_total.inc();
            return false;
        }
        self.counters.broadcasts_total.inc();
        let frame = self.frames.adopt(frame);
        let except = except.and_then(|id| self.by_id(id));
        let payload_len = payload_bytes(frame.as_bytes());
        self.deliveries.push_back(Delivery { frame, payload_len, except, next_slot: 0 });
        true
    }

    /// Goes on with the broadcasts under way, up to `budget` sends. True: some are left.
    pub(crate) fn run_deliveries<'t>(&mut self, mut budget: usize, tx: &mut Tx<'t>) -> bool {
        while let Some(mut delivery) = self.deliveries.pop_front() {
            while let Some(key) = self.sessions.next_occupied(delivery.next_slot) {
                if budget == 0 {
                    self.deliveries.push_front(delivery);
                    return true;
                }
                budget -= 1;
                delivery.next_slot = key.slot + 1;
                for (slots, ahead) in [(FAR, Ahead::Far), (NEAR, Ahead::Near)] {
                    if let Some(later) = self.sessions.get_slot(key.slot.saturating_add(slots)) {
                        tx.prefetch(later.conn, ahead);
                    }
                }
                if Some(key) != delivery.except {
                    let out = Out::Shared(delivery.frame.clone());
                    // What a session's limit does with it is counted there.
                    let _ = self.deliver(key, out, delivery.payload_len, Cause::Unasked, tx);
                }
            }
        }
        false
    }
}

/// Hands output to the transport, unless something waits before it. Given back: it is refused.
#[inline(always)]
fn straight<'t>(session: &mut Session, out: Out<'t>, tx: &mut Tx<'t>) -> Result<(), Out<'t>> {
    if !session.writable || session.queue != Index::NONE {
        return Err(out);
    }
    tx.send(session.conn, out).inspect_err(|_| session.writable = false)
}

/// Payload length of one whole unmasked frame.
pub(crate) fn payload_bytes(frame: &[u8]) -> usize {
    let head = match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.len().saturating_sub(head)
}
