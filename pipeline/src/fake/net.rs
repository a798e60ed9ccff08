//! What stands for the kernel and the wire: byte queues between the fake and its peers, under one
//! lock, and the handles by which a test plays the peers. It knows nothing of the pipeline.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::{ConnId, Wake};

/// How far one direction of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// More may come.
    Open,
    /// Finished in order.
    Fin,
    /// Torn down.
    Reset,
}

/// One connection, as the wire sees it.
pub(super) struct Link {
    pub(super) generation: u32,
    pub(super) address: Option<SocketAddr>,
    /// From the peer, not yet taken by the fake.
    pub(super) inbound: VecDeque<u8>,
    pub(super) inbound_end: End,
    /// From the fake, not yet taken by the peer.
    pub(super) outbound: VecDeque<u8>,
    pub(super) outbound_end: End,
    /// How many bytes `outbound` may hold.
    pub(super) window: usize,
    pub(super) paused: bool,
    /// The peer is there; false while a connection of the fake's own waits for its answer.
    pub(super) established: bool,
    touched: bool,
    held_by_peer: bool,
    pub(super) held_by_fake: bool,
}

/// Everything under the lock.
pub(super) struct Kernel {
    pub(super) links: Vec<Link>,
    free: Vec<u32>,
    /// Connections that wait to be accepted.
    pub(super) arrivals: VecDeque<u32>,
    /// Connections that the fake opens, not answered yet.
    dials: VecDeque<(u32, SocketAddr)>,
    /// Links at which a peer did something.
    pub(super) touched: Vec<u32>,
    pub(super) woken: bool,
    refusing: bool,
}

impl Kernel {
    /// A link that both ends hold.
    fn open(&mut self, address: Option<SocketAddr>) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.links.push(Link {
                generation: 0,
                address: None,
                inbound: VecDeque::new(),
                inbound_end: End::Open,
                outbound: VecDeque::new(),
                outbound_end: End::Open,
                window: usize::MAX,
                paused: false,
                established: true,
                touched: false,
                held_by_peer: true,
                held_by_fake: true,
            });
            self.links.len() as u32 - 1
        });
        let link = &mut self.links[slot as usize];
        link.address = address;
        (link.inbound_end, link.outbound_end) = (End::Open, End::Open);
        link.window = usize::MAX;
        (link.paused, link.established, link.touched) = (false, true, false);
        (link.held_by_peer, link.held_by_fake) = (true, true);
        ConnId { slot, generation: link.generation }
    }

    /// The fake opens a connection, which waits for [`Net::next_dial`].
    pub(super) fn dial(&mut self, to: SocketAddr) -> ConnId {
        let conn = self.open(Some(to));
        self.links[conn.slot as usize].established = false;
        self.dials.push_back((conn.slot, to));
        conn
    }

    fn touch(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if link.held_by_fake && !std::mem::replace(&mut link.touched, true) {
            self.touched.push(slot);
        }
    }

    /// Takes the notice of a touch off a link.
    pub(super) fn seen(&mut self, slot: u32) {
        self.links[slot as usize].touched = false;
    }

    /// The fake is done with a link.
    pub(super) fn let_go(&mut self, slot: u32, end: End) {
        let link = &mut self.links[slot as usize];
        link.held_by_fake = false;
        if link.outbound_end == End::Open {
            link.outbound_end = end;
        }
        self.reuse(slot);
    }

    fn reuse(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if !link.held_by_fake && !link.held_by_peer {
            link.inbound.clear();
            link.outbound.clear();
            link.generation += 1;
            self.free.push(slot);
        }
    }

    /// Nobody listens any more: who waits is turned away.
    pub(super) fn refuse_all(&mut self) {
        self.refusing = true;
        while let Some(slot) = self.arrivals.pop_front() {
            self.let_go(slot, End::Reset);
        }
    }
}

pub(super) struct Shared {
    kernel: Mutex<Kernel>,
    pub(super) for_fake: Condvar,
    pub(super) for_peers: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Kernel> {
        // A test that panicked elsewhere is reported there.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Shared {
    fn wake(&self) {
        let mut kernel = self.lock();
        kernel.woken = true;
        self.for_fake.notify_all();
    }
}

/// The network of one [`super::Fake`]: opens connections to it, from any thread.
#[derive(Clone)]
pub struct Net {
    pub(super) shared: Arc<Shared>,
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Net {
    /// A network without connections.
    pub fn new() -> Self {
        let kernel = Kernel {
            links: Vec::new(),
            free: Vec::new(),
            arrivals: VecDeque::new(),
            dials: VecDeque::new(),
            touched: Vec::new(),
            woken: false,
            refusing: false,
        };
        let (for_fake, for_peers) = (Condvar::new(), Condvar::new());
        Net { shared: Arc::new(Shared { kernel: Mutex::new(kernel), for_fake, for_peers }) }
    }

    /// A peer that connects, from 127.0.0.1.
    pub fn connect(&self) -> Peer {
        self.connect_from(Some(SocketAddr::from(([127, 0, 0, 1], 40_000))))
    }

    /// A peer that connects from an address, or from none.
    pub fn connect_from(&self, address: Option<SocketAddr>) -> Peer {
        let mut kernel = self.shared.lock();
        let conn = kernel.open(address);
        if kernel.refusing {
            kernel.let_go(conn.slot, End::Reset);
        } else {
            kernel.arrivals.push_back(conn.slot);
        }
        self.shared.for_fake.notify_all();
        Peer { shared: self.shared.clone(), conn }
    }

    /// The oldest connection that the fake opened and that nobody answered yet.
    pub fn next_dial(&self) -> Option<Dial> {
        let mut kernel = self.shared.lock();
        let (slot, to) = kernel.dials.pop_front()?;
        let conn = ConnId { slot, generation: kernel.links[slot as usize].generation };
        Some(Dial { to, peer: Peer { shared: self.shared.clone(), conn } })
    }
}

/// A connection that the fake opens. Dropped without an answer, it is refused.
pub struct Dial {
    to: SocketAddr,
    peer: Peer,
}

impl Dial {
    /// The address that is called.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Answers: the connection is established.
    pub fn accept(self) -> Peer {
        self.peer.act(|link| link.established = true);
        self.peer
    }
}

/// The other end of a connection. Dropped while the connection is open, it resets it.
pub struct Peer {
    shared: Arc<Shared>,
    conn: ConnId,
}

impl Peer {
    /// The connection's id at the fake.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    fn with<R>(&self, work: impl FnOnce(&mut Link) -> R) -> R {
        work(&mut self.shared.lock().links[self.conn.slot as usize])
    }

    /// Does something that the fake is to look at.
    fn act<R>(&self, work: impl FnOnce(&mut Link) -> R) -> R {
        let mut kernel = self.shared.lock();
        let result = work(&mut kernel.links[self.conn.slot as usize]);
        kernel.touch(self.conn.slot);
        self.shared.for_fake.notify_all();
        result
    }

    /// Sends bytes; however many, they wait at the fake.
    pub fn send(&self, bytes: &[u8]) {
        self.act(|link| {
            if link.held_by_fake && link.inbound_end == End::Open {
                link.inbound.extend(bytes);
            }
        });
    }

    /// Sends no more (FIN). The other direction stays open.
    pub fn finish(&self) {
        self.act(|link| {
            if link.inbound_end == End::Open {
                link.inbound_end = End::Fin;
            }
        });
    }

    /// Tears the connection down (RST), unread bytes included.
    pub fn reset(&self) {
        self.act(|link| {
            link.inbound_end = End::Reset;
            link.inbound.clear();
        });
        self.shared.for_peers.notify_all();
    }

    /// From now on at most this many bytes wait for [`Peer::take`]; the rest stays with the fake.
    pub fn set_window(&self, bytes: usize) {
        self.act(|link| link.window = bytes);
    }

    /// Takes what came.
    pub fn take(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.take_into(&mut out);
        out
    }

    /// Appends what came to `out`; says how many bytes. Allocates only where `out` has no room.
    pub fn take_into(&self, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        self.take_at_most(usize::MAX, out);
        out.len() - before
    }

    /// Takes up to `limit` bytes.
    pub fn take_at_most(&self, limit: usize, out: &mut Vec<u8>) {
        self.act(|link| {
            let count = limit.min(link.outbound.len());
            let (front, back) = link.outbound.as_slices();
            let in_front = count.min(front.len());
            out.extend_from_slice(&front[..in_front]);
            out.extend_from_slice(&back[..count - in_front]);
            link.outbound.drain(..count);
        });
    }

    /// How many bytes wait to be taken.
    pub fn waiting(&self) -> usize {
        self.with(|link| link.outbound.len())
    }

    /// How many of the bytes that were sent the fake hasn't read.
    pub fn unread(&self) -> usize {
        self.with(|link| link.inbound.len())
    }

    /// The pipeline paused receiving from this peer.
    pub fn is_paused(&self) -> bool {
        self.with(|link| link.paused)
    }

    /// How the fake's direction is: `Fin` comes behind the last byte, which may still wait.
    pub fn end(&self) -> End {
        self.with(|link| link.outbound_end)
    }

    /// `Closed` was given to the pipeline (or the connection was refused).
    pub fn is_closed(&self) -> bool {
        self.with(|link| !link.held_by_fake)
    }

    /// Waits for bytes, as a socket does: 0 is the end.
    ///
    /// # Errors
    /// `TimedOut`, or `ConnectionReset`.
    pub fn read(&self, buf: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut kernel = self.shared.lock();
        loop {
            let link = &mut kernel.links[self.conn.slot as usize];
            if link.inbound_end == End::Reset || link.outbound_end == End::Reset {
                return Err(ErrorKind::ConnectionReset.into());
            }
            let count = buf.len().min(link.outbound.len());
            if count > 0 || buf.is_empty() || link.outbound_end == End::Fin {
                for (to, from) in buf.iter_mut().zip(link.outbound.drain(..count)) {
                    *to = from;
                }
                kernel.touch(self.conn.slot);
                self.shared.for_fake.notify_all();
                return Ok(count);
            }
            kernel = self.wait(kernel, deadline)?;
        }
    }

    /// Sends what fits while at most `room` bytes wait at the fake, as a socket's buffer does.
    ///
    /// # Errors
    /// `TimedOut`, `ConnectionReset`, or `BrokenPipe` after [`Peer::finish`].
    pub fn write(&self, bytes: &[u8], room: usize, timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut kernel = self.shared.lock();
        loop {
            let link = &mut kernel.links[self.conn.slot as usize];
            if link.inbound_end == End::Fin {
                return Err(ErrorKind::BrokenPipe.into());
            }
            if link.inbound_end == End::Reset || !link.held_by_fake {
                return Err(ErrorKind::ConnectionReset.into());
            }
            let count = bytes.len().min(room.saturating_sub(link.inbound.len()));
            if count > 0 || bytes.is_empty() {
                link.inbound.extend(&bytes[..count]);
                kernel.touch(self.conn.slot);
                self.shared.for_fake.notify_all();
                return Ok(count);
            }
            kernel = self.wait(kernel, deadline)?;
        }
    }

    fn wait<'k>(
        &self,
        kernel: MutexGuard<'k, Kernel>,
        deadline: Instant,
    ) -> io::Result<MutexGuard<'k, Kernel>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let waited = self.shared.for_peers.wait_timeout(kernel, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut kernel = self.shared.lock();
        let link = &mut kernel.links[self.conn.slot as usize];
        link.held_by_peer = false;
        let in_order = link.inbound_end == End::Fin && link.outbound_end == End::Fin;
        if !in_order {
            link.inbound_end = End::Reset;
        }
        // What still comes is nobody's.
        link.window = usize::MAX;
        kernel.touch(self.conn.slot);
        kernel.reuse(self.conn.slot);
        self.shared.for_fake.notify_all();
    }
}
