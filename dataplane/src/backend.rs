//! The pipeline's `Backend` over a stack on a link: waiting, events, and the two halves of a turn.
//!
//! What fits is sent by copying it into the connection's send ring. Output of the pool that finds
//! less room than it needs is taken all the same where nothing else waits, and leaves in pieces
//! (`owed.rs`); so a message may be larger than any ring. The rest is refused until there is room.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hioload_core::Now;
use hioload_core::wait::Wait;
use hioload_pipeline::backend::{
    Accepting, Ahead, Backend, Capabilities, ConnId, Event, Events, Gone, Out, RxHalf, TxHalf,
    Wake, Window,
};
use hioload_stack::{self as stack, BURST, RxTurn, Stack, StackCounters, StackError, TxTurn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bell::Bell;
use crate::link::{Attention, IdlePolicy, Port};
use crate::meter::{LoopCounters, Meter};
use crate::owed::{Memory, Owed, Paid};
use crate::probe::{Desk, Probe};

/// How often a link is looked at that may be gone.
const DOUBT: Duration = Duration::from_secs(1);

/// A worker's connections over its own TCP/IP stack. It owns the link.
pub struct Frames<L: Port> {
    stack: Stack<L>,
    owed: Owed,
    bell: Arc<Bell>,
    desk: Arc<Desk>,
    name: &'static str,
    counters: Arc<StackCounters>,
    meter: Meter,
    /// The last burst was a full one: more frames may wait.
    more: bool,
    /// Bursts in a row that were empty.
    empty: u32,
    /// The link's interrupt is on.
    armed: bool,
}

impl<L: Port> Frames<L> {
    /// A backend on a stack that listens already, or is a client's.
    ///
    /// # Errors
    /// No descriptor is to be had for waking it.
    pub fn new(mut stack: Stack<L>) -> io::Result<Self> {
        let name = stack.link_mut().name();
        let bell = Arc::new(Bell::new()?);
        stack.link_mut().wake_by(Arc::clone(&bell) as Arc<dyn Wake>);
        let (counters, meter) = (stack.counters(), Meter::new());
        let (owed, desk) = (Owed::default(), Arc::default());
        Ok(Frames {
            stack,
            owed,
            bell,
            desk,
            name,
            counters,
            meter,
            more: false,
            empty: 0,
            armed: false,
        })
    }

    /// What the stack counts.
    pub fn stack_counters(&self) -> Arc<StackCounters> {
        Arc::clone(&self.counters)
    }

    /// Asks this worker about its connections, from any thread.
    pub fn probe(&self) -> Probe {
        Probe::new(Arc::clone(&self.desk), self.waker())
    }

    /// Where the worker's cycles went.
    pub fn loop_counters(&self) -> Arc<LoopCounters> {
        Arc::clone(&self.meter.counters)
    }

    /// Waits for a frame, a wake-up or the time, as the link allows, and says how late it is then.
    fn wait(&mut self, now: Now, until: Option<Now>) -> io::Result<Now> {
        let at_most = match self.stack.link_mut().attention() {
            Attention::Descriptor(_) => None,
            Attention::Polling(IdlePolicy::Busy) => return Ok(now),
            Attention::Polling(IdlePolicy::Adaptive { spins, sleep }) => {
                if self.empty < spins.max(1) {
                    self.disarm(false);
                    std::hint::spin_loop();
                    return Ok(now);
                }
                let link = self.stack.link_mut();
                // Nothing tells of room for what is unsent.
                let by_interrupt = !link.has_unsent();
                if by_interrupt && !self.armed && link.arm() {
                    // Slept for in the next turn, if this one finds nothing either.
                    self.armed = true;
                    return Ok(now);
                }
                (!(by_interrupt && self.armed)).then(|| now.after(sleep))
            }
        };
        let doubt = self.stack.link_mut().is_in_doubt().then(|| now.after(DOUBT));
        let until = [until, self.stack.next_deadline(), doubt, at_most];
        let until = until.into_iter().flatten().min();
        let timeout = until.map(|at| timespec(at.since(now)));
        if !self.bell.sleep() {
            self.bell.awake(false);
            return Ok(now);
        }
        let began = Instant::now();
        let link = self.stack.link_mut();
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, link.has_unsent());
        let armed = self.armed;
        let mut fds = ArrayVec::<PollFd<'_>, 2>::new();
        fds.push(PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN));
        if let Attention::Descriptor(fd) = link.attention() {
            fds.push(PollFd::from_borrowed_fd(fd, wanted));
        } else if let Some(fd) = link.interrupt().filter(|_| armed) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let woken = poll(&mut fds, timeout.as_ref());
        self.bell.awake(!fds[0].revents().is_empty());
        let fired = armed && fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if fired {
            // Looks for a while, even if the frame isn't to be seen yet.
            self.empty = 0;
        }
        self.disarm(fired);
        match woken {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.meter.waited();
        Ok(now.after(began.elapsed()))
    }

    /// Frames are looked for again.
    fn disarm(&mut self, fired: bool) {
        if std::mem::take(&mut self.armed) {
            self.stack.link_mut().disarm(fired);
        }
    }

    /// Gives what happened, as far as there is room for it.
    fn give(&mut self, events: &mut Events) {
        while events.room() > 0
            && let Some(event) = self.stack.next_event()
        {
            let event = match event {
                stack::Event::Opened(id) => Some(Event::Opened(theirs(id))),
                stack::Event::Readable(id) => self.readable(id),
                stack::Event::Writable(id) => self.writable(id),
                stack::Event::Eof(id) => (!self.is_closing(id)).then_some(Event::Eof(theirs(id))),
                stack::Event::Closed(id, gone) => {
                    self.owed.forget(id);
                    let gone = match gone {
                        stack::Gone::Finished => Gone::Finished,
                        stack::Gone::Reset => Gone::Reset,
                        stack::Gone::Failed => Gone::Failed,
                    };
                    Some(Event::Closed(theirs(id), gone))
                }
            };
            if let Some(event) = event {
                events.push(event);
            }
        }
    }

    /// Whether FIN waits until what is owed has left.
    fn is_closing(&mut self, id: stack::ConnId) -> bool {
        self.owed.get_mut(id).is_some_and(|debt| debt.closing)
    }

    fn readable(&mut self, id: stack::ConnId) -> Option<Event> {
        if self.is_closing(id) {
            // Nobody reads it any more, and the peer may not read either until it is taken.
            let (mut rx, _) = self.stack.turn();
            let _ = rx.take(id);
            return None;
        }
        Some(Event::Readable(theirs(id)))
    }

    fn writable(&mut self, id: stack::ConnId) -> Option<Event> {
        let (_, mut tx) = self.stack.turn();
        match self.owed.pay(id, &mut tx) {
            None | Some(Paid::All { refused: true, closing: false }) => {
                Some(Event::Writable(theirs(id)))
            }
            Some(Paid::All { closing: true, .. }) => {
                self.stack.close(id);
                None
            }
            Some(Paid::Part | Paid::All { refused: false, closing: false }) => None,
        }
    }
}

impl<L: Port> Backend for Frames<L> {
    type Rx<'t>
        = FramesRx<'t>
    where
        L: 't;
    type Tx<'t>
        = FramesTx<'t>
    where
        L: 't;

    fn poll(&mut self, now: Now, wait: Wait, events: &mut Events) -> io::Result<()> {
        self.meter.turn(self.counters.frames_out_total.get());
        self.give(events);
        let idle = events.as_slice().is_empty() && !self.more;
        let (now, armed) = match wait {
            Wait::Until(until) if idle => (self.wait(now, until)?, self.armed),
            _ => (now, false),
        };
        let frames = self.stack.poll(now);
        self.more = self.desk.answer(&mut self.stack) || frames == BURST;
        self.empty = if frames > 0 { 0 } else { self.empty.saturating_add(1) };
        if let Some(fault) = self.stack.link_mut().take_fault() {
            return Err(fault);
        }
        self.give(events);
        if frames > 0 || !events.as_slice().is_empty() {
            self.meter.work();
            if armed {
                self.disarm(false);
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> (FramesRx<'_>, FramesTx<'_>) {
        let (rx, tx) = self.stack.turn();
        (FramesRx(rx), FramesTx { turn: tx, owed: &mut self.owed })
    }

    fn flush(&mut self, now: Now) {
        self.stack.flush(now);
    }

    fn next_deadline(&self) -> Option<Now> {
        self.stack.next_deadline()
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<ConnId> {
        self.stack.connect(to).map(theirs).map_err(|error| {
            let kind = match error {
                StackError::Unreachable(_) => io::ErrorKind::NetworkUnreachable,
                StackError::NoPort => io::ErrorKind::AddrNotAvailable,
                StackError::NoMemory => io::ErrorKind::OutOfMemory,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })
    }

    fn close(&mut self, conn: ConnId) {
        let id = ours(conn);
        match self.owed.get_mut(id) {
            Some(debt) => {
                debt.closing = true;
                self.stack.pause(id, false);
            }
            None => self.stack.close(id),
        }
    }

    fn abort(&mut self, conn: ConnId) {
        self.owed.forget(ours(conn));
        self.stack.abort(ours(conn));
    }

    fn pause_rx(&mut self, conn: ConnId, paused: bool) {
        if !self.is_closing(ours(conn)) {
            self.stack.pause(ours(conn), paused);
        }
    }

    fn set_accepting(&mut self, accepting: Accepting) {
        self.stack.set_accepting(match accepting {
            Accepting::Yes => stack::Accepting::Yes,
            Accepting::Paused => stack::Accepting::Paused,
            Accepting::Closed => stack::Accepting::Closed,
        });
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: self.name, connect: true }
    }
}

/// The receive half of a turn: windows into receive rings.
pub struct FramesRx<'t>(RxTurn<'t>);

impl<'t> RxHalf<'t> for FramesRx<'t> {
    fn take(&mut self, conn: ConnId) -> Option<Window<'t>> {
        self.0.take(ours(conn)).map(Window::mint)
    }
}

/// The transmit half of a turn: output into send rings.
pub struct FramesTx<'t> {
    turn: TxTurn<'t>,
    owed: &'t mut Owed,
}

impl<'t> TxHalf<'t> for FramesTx<'t> {
    fn send(&mut self, conn: ConnId, out: Out<'t>) -> Result<(), Out<'t>> {
        let (id, FramesTx { turn, owed }) = (ours(conn), self);
        if owed.refuse(id) {
            return Err(out);
        }
        let memory = match out {
            Out::Window(window) => {
                // What came in a window fits in a ring of the same size.
                return match turn.send(id, window.bytes()) {
                    true => Ok(()),
                    false => Err(Out::Window(window)),
                };
            }
            Out::Owned(buf) => Memory::Owned(buf),
            Out::Shared(frame) => Memory::Shared(frame),
        };
        let sent = turn.send_some(id, memory.bytes());
        if sent < memory.bytes().len() {
            owed.add(id, memory, sent);
        }
        Ok(())
    }

    fn build(&mut self, conn: ConnId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> bool {
        !self.owed.contains(ours(conn)) && self.turn.build(ours(conn), len, fill)
    }

    fn unsent(&self, conn: ConnId) -> usize {
        self.turn.unsent(ours(conn)) + self.owed.bytes(ours(conn))
    }

    fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        self.turn.peer(ours(conn))
    }

    #[inline]
    fn prefetch(&self, conn: ConnId, ahead: Ahead) {
        match ahead {
            Ahead::Far => self.turn.prefetch_entry(ours(conn)),
            Ahead::Near => self.turn.prefetch_socket(ours(conn)),
        }
    }
}

fn ours(conn: ConnId) -> stack::ConnId {
    stack::ConnId { slot: conn.slot, generation: conn.generation }
}

fn theirs(id: stack::ConnId) -> ConnId {
    ConnId { slot: id.slot, generation: id.generation }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
