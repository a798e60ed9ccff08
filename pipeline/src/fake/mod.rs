//! The in-memory backend: no sockets, no unsafe, and three ways to behave, so that everything above
//! the seam is tried on each. It keeps the rules of [`crate::backend`] to the letter and asserts
//! the pipeline's side of them.
//!
//! Bytes pass from a [`Peer`] into the [`Net`] (what stands for the kernel, behind a lock), in
//! `poll` from there into the fake's receive memory, are lent as windows, and output returns by
//! `flush`, or later, where the mode or the peer's window says so. In the readiness mode a warm
//! fake allocates nothing.

mod memory;
mod net;
mod output;
#[cfg(test)]
mod tests;
mod tx;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

pub use memory::FakeRx;
pub use net::{Dial, End, Net, Peer};
pub use tx::FakeTx;

use crate::backend::{
    Accepting, Backend, Capabilities, ConnId, Event, Events, Gone, Now, Wait, Wake,
};
use memory::{Buffers, Memory};
use net::Kernel;
use output::Output;

/// How a fake behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Like epoll: all that is readable is read into one arena a turn; output that the peer's
    /// window doesn't take is copied, and until it has left, more is refused.
    Readiness,
    /// Like provided buffers: input lies in buffers of 512 to 4,096 bytes. A send holds those that
    /// it refers to, at most half of all (beyond that it is a copy), until the kernel has finished
    /// `hold_turns` later; one send a connection is in flight, and more is refused meanwhile.
    Completion {
        /// How many receive buffers there are, for all connections together; at least 2.
        buffers: usize,
        /// For how many turns the kernel works on a send.
        hold_turns: u64,
    },
    /// Like smoltcp: a receive ring a connection, which wraps, and a transmit ring.
    Ring {
        /// Size of a connection's receive ring, at most 64 KiB.
        rx_bytes: usize,
        /// Size of a connection's transmit ring.
        tx_bytes: usize,
    },
}

/// One connection's side of the fake.
#[derive(Default)]
struct Conn {
    generation: u32,
    live: bool,
    /// `Opened` is still to be told.
    fresh: bool,
    eof_told: bool,
    paused: bool,
    closing: bool,
    aborted: bool,
    /// Waits to be looked at by `poll`.
    queued: bool,
    /// Got output in this turn.
    dirty: bool,
    address: Option<SocketAddr>,
    output: Output,
}

/// The backend. See the module.
pub struct Fake {
    mode: Mode,
    net: Net,
    memory: Memory,
    conns: Vec<Conn>,
    /// Slots to be looked at.
    look: VecDeque<u32>,
    batch: Vec<u32>,
    /// Slots with a send in flight.
    flights: VecDeque<u32>,
    dirty: Vec<u32>,
    spares: Vec<Vec<u8>>,
    accepting: Accepting,
    blocking: bool,
    turn: u64,
    last_wait: Wait,
    sent_after_close: u64,
}

impl Fake {
    /// A fake with a network of its own. Its `poll` never blocks: whoever drives it moves time.
    pub fn new(mode: Mode) -> Self {
        Self::on(Net::new(), mode)
    }

    /// A fake on a network that exists already.
    pub fn on(net: Net, mode: Mode) -> Self {
        let memory = match mode {
            Mode::Readiness => Memory::arena(),
            Mode::Completion { buffers, .. } => Memory::buffers(buffers),
            Mode::Ring { rx_bytes, .. } => Memory::rings(rx_bytes),
        };
        Fake {
            mode,
            net,
            memory,
            conns: Vec::new(),
            look: VecDeque::new(),
            batch: Vec::new(),
            flights: VecDeque::new(),
            dirty: Vec::new(),
            spares: Vec::new(),
            accepting: Accepting::Yes,
            blocking: false,
            turn: 0,
            last_wait: Wait::Poll,
            sent_after_close: 0,
        }
    }

    /// Lets `poll` block as it is told to; for a worker with a thread of its own.
    #[must_use]
    pub fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// The network: where peers connect.
    pub fn net(&self) -> Net {
        self.net.clone()
    }

    /// A peer that connects.
    pub fn connect(&self) -> Peer {
        self.net.connect()
    }

    /// Nothing is at hand: the next `poll` finds no event unless a peer does something first.
    pub fn is_idle(&self) -> bool {
        self.is_quiet(&self.net.shared.lock())
    }

    /// What the last `poll` was told about waiting.
    pub fn last_wait(&self) -> Wait {
        self.last_wait
    }

    /// The most receive buffers that output held at once (completion mode).
    pub fn pinned_max(&self) -> usize {
        self.buffers().map_or(0, |buffers| buffers.pinned_max)
    }

    /// Receive buffers that output holds now (completion mode).
    pub fn pinned(&self) -> usize {
        self.buffers().map_or(0, |buffers| buffers.pinned)
    }

    /// Output that came for a connection after `close` or `abort`: it was dropped, and the
    /// pipeline has no reason to make it.
    pub fn sent_after_close(&self) -> u64 {
        self.sent_after_close
    }

    fn buffers(&self) -> Option<&Buffers> {
        match &self.memory.shape {
            memory::Shape::Buffers(buffers) => Some(buffers),
            _ => None,
        }
    }

    fn ring_bytes(&self) -> usize {
        match self.mode {
            Mode::Ring { tx_bytes, .. } => tx_bytes,
            _ => 0,
        }
    }

    fn look_at(&mut self, slot: u32) {
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && conn.live
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.look.push_back(slot);
        }
    }

    fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let found = self.conns.get_mut(conn.slot as usize)?;
        (found.live && found.generation == conn.generation).then_some(found)
    }

    fn accept(&mut self, kernel: &mut Kernel) {
        while let Some(slot) = kernel.arrivals.pop_front() {
            self.begin(slot, kernel);
        }
    }

    /// A new tenant of a slot.
    fn begin(&mut self, slot: u32, kernel: &Kernel) {
        let (at, ring_bytes) = (slot as usize, self.ring_bytes());
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, Conn::default);
        }
        let (link, conn) = (&kernel.links[at], &mut self.conns[at]);
        // The slot may still be queued for its last tenant, and its memory is used again.
        let (output, queued) = (std::mem::take(&mut conn.output), conn.queued);
        *conn = Conn {
            generation: link.generation,
            live: true,
            fresh: true,
            queued,
            address: link.address,
            output,
            ..Conn::default()
        };
        conn.output.begin(ring_bytes);
        self.look_at(slot);
    }

    /// Nothing is at hand, and nothing comes of itself.
    fn is_quiet(&self, kernel: &Kernel) -> bool {
        let arrivals = self.accepting == Accepting::Yes && !kernel.arrivals.is_empty();
        self.look.is_empty()
            && self.flights.is_empty()
            && kernel.touched.is_empty()
            && !arrivals
            && !kernel.woken
    }

    fn wait<'k>(
        &self,
        mut kernel: MutexGuard<'k, Kernel>,
        now: Now,
        wait: Wait,
    ) -> MutexGuard<'k, Kernel>
    where
        Self: 'k,
    {
        let Wait::Until(at) = wait else { return kernel };
        let condvar = &self.net.shared.for_fake;
        let deadline = at.map(|at| Instant::now() + at.since(now));
        while self.is_quiet(&kernel) {
            kernel = match deadline {
                None => condvar.wait(kernel).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    condvar.wait_timeout(kernel, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        kernel
    }

    /// Tells what happened to one connection; at most four events. Says whether its peer has
    /// something new to see.
    fn report(&mut self, slot: u32, kernel: &mut Kernel, events: &mut Events) -> bool {
        let Fake { conns, memory, spares, .. } = self;
        let conn = &mut conns[slot as usize];
        conn.queued = false;
        if !conn.live {
            return false;
        }
        let id = ConnId { slot, generation: conn.generation };
        let link = &mut kernel.links[slot as usize];
        let answered = link.established;
        let unwanted = conn.aborted || conn.closing && !answered;
        if conn.fresh && answered {
            conn.fresh = false;
            events.push(Event::Opened(id));
        }
        let gone = match (unwanted, link.inbound_end) {
            (false, End::Reset) if !answered => Some((Gone::Failed, End::Reset)),
            (true, _) => Some((Gone::Finished, End::Reset)),
            (false, End::Reset) => Some((Gone::Reset, End::Reset)),
            _ => None,
        };
        if gone.is_none() && !answered {
            return false;
        }
        let mut moved = false;
        if gone.is_none() {
            if conn.output.due.is_none() && conn.output.unsent > 0 {
                moved = conn.output.pump(link, memory, spares);
            }
            conn.output.blocked &= conn.output.unsent > 0;
            if conn.output.is_writable() {
                conn.output.refused = None;
                events.push(Event::Writable(id));
            }
        }
        let flushed = conn.closing && conn.output.unsent == 0;
        if flushed && link.outbound_end == End::Open {
            link.outbound_end = End::Fin;
            moved = true;
        }
        let finished = flushed && link.inbound_end == End::Fin;
        if let Some((gone, end)) = gone.or(finished.then_some((Gone::Finished, End::Fin))) {
            conn.live = false;
            conn.output.drop_all(memory, spares);
            events.push(Event::Closed(id, gone));
            kernel.let_go(slot, end);
            return true;
        }
        if conn.closing {
            link.inbound.clear();
            return moved;
        }
        if !conn.paused {
            let had = !link.inbound.is_empty();
            if had && memory.receive(id, &mut link.inbound) {
                events.push(Event::Readable(id));
            }
            if !link.inbound.is_empty() {
                self.look_at(slot);
            } else if link.inbound_end == End::Fin && !std::mem::replace(&mut conn.eof_told, true) {
                events.push(Event::Eof(id));
            }
            return moved || had;
        }
        moved
    }

    fn due_flights(&mut self) {
        for _ in 0..self.flights.len() {
            let Some(slot) = self.flights.pop_front() else { break };
            let output = &mut self.conns[slot as usize].output;
            match output.due {
                Some(due) if due > self.turn => self.flights.push_back(slot),
                Some(_) => {
                    output.due = None;
                    self.look_at(slot);
                }
                None => {}
            }
        }
    }
}

impl Backend for Fake {
    type Rx<'t> = FakeRx<'t>;
    type Tx<'t> = FakeTx<'t>;

    fn poll(&mut self, now: Now, wait: Wait, events: &mut Events) -> io::Result<()> {
        self.turn += 1;
        self.last_wait = wait;
        let shared = Arc::clone(&self.net.shared);
        let mut kernel = shared.lock();
        if self.blocking {
            kernel = self.wait(kernel, now, wait);
        }
        kernel.woken = false;
        if self.accepting == Accepting::Yes {
            self.accept(&mut kernel);
        }
        while let Some(slot) = kernel.touched.pop() {
            kernel.seen(slot);
            self.look_at(slot);
        }
        self.due_flights();
        const EACH: usize = 4;
        let mut batch = std::mem::take(&mut self.batch);
        let count = self.look.len().min(events.room() / EACH);
        batch.extend(self.look.drain(..count));
        if matches!(self.mode, Mode::Ring { .. }) {
            batch.sort_unstable();
        }
        let mut news = false;
        for slot in batch.drain(..) {
            news |= self.report(slot, &mut kernel, events);
        }
        self.batch = batch;
        if news {
            shared.for_peers.notify_all();
        }
        Ok(())
    }

    fn turn(&mut self) -> (FakeRx<'_>, FakeTx<'_>) {
        let addresses = self.memory.addresses();
        let (rx, buffers) = self.memory.split();
        let tx = FakeTx {
            conns: &mut self.conns,
            dirty: &mut self.dirty,
            spares: &mut self.spares,
            sent_after_close: &mut self.sent_after_close,
            buffers,
            addresses,
            ring: matches!(self.mode, Mode::Ring { .. }),
        };
        (rx, tx)
    }

    fn flush(&mut self, _: Now) {
        let shared = Arc::clone(&self.net.shared);
        let mut kernel = shared.lock();
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut news = false;
        for slot in dirty.drain(..) {
            let Fake { conns, memory, spares, .. } = self;
            let conn = &mut conns[slot as usize];
            conn.dirty = false;
            if !conn.live {
                continue;
            }
            let link = &mut kernel.links[slot as usize];
            match self.mode {
                Mode::Readiness => {
                    news |= conn.output.pump(link, memory, spares);
                    conn.output.rescue(memory, spares);
                    conn.output.blocked = conn.output.unsent > 0;
                }
                Mode::Completion { hold_turns, .. } => {
                    if conn.output.unsent > 0 && !conn.output.blocked {
                        conn.output.blocked = true;
                        conn.output.due = Some(self.turn + hold_turns);
                        self.flights.push_back(slot);
                    }
                }
                Mode::Ring { .. } => news |= conn.output.pump(link, memory, spares),
            }
            if conn.output.is_writable() || conn.closing || conn.aborted {
                self.look_at(slot);
            }
        }
        self.dirty = dirty;
        self.memory.end_turn();
        if news {
            shared.for_peers.notify_all();
        }
    }

    fn next_deadline(&self) -> Option<Now> {
        None
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<ConnId> {
        let shared = Arc::clone(&self.net.shared);
        let mut kernel = shared.lock();
        let conn = kernel.dial(to);
        self.begin(conn.slot, &kernel);
        Ok(conn)
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(found) = self.live(conn) {
            found.closing = true;
            self.look_at(conn.slot);
        }
    }

    fn abort(&mut self, conn: ConnId) {
        if let Some(found) = self.live(conn) {
            found.aborted = true;
            self.look_at(conn.slot);
        }
    }

    fn pause_rx(&mut self, conn: ConnId, paused: bool) {
        let Some(found) = self.live(conn) else { return };
        found.paused = paused;
        self.net.shared.lock().links[conn.slot as usize].paused = paused;
        if !paused {
            self.look_at(conn.slot);
        }
    }

    fn set_accepting(&mut self, accepting: Accepting) {
        if self.accepting == Accepting::Closed {
            return;
        }
        self.accepting = accepting;
        if accepting == Accepting::Closed {
            self.net.shared.lock().refuse_all();
            self.net.shared.for_peers.notify_all();
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.net.shared.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "fake", connect: true }
    }
}

impl Drop for Fake {
    /// The process is gone: whoever is connected sees a reset.
    fn drop(&mut self) {
        let mut kernel = self.net.shared.lock();
        kernel.refuse_all();
        for (slot, conn) in self.conns.iter().enumerate() {
            if conn.live {
                kernel.let_go(slot as u32, End::Reset);
            }
        }
        self.net.shared.for_peers.notify_all();
    }
}
