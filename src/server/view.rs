//! What an operator sees of this program's own TCP/IP: counters of the stack, of its link and of the
//! worker's loop, the connections themselves, and a trace. The worker that owns the stack leaves
//! here, once, what lets other threads look.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hioload_dataplane::{
    ConnStats, Frames, LinkCounters, LinkSnapshot, LoopCounters, LoopSnapshot, Port, Probe,
    StackCounters, StackSnapshot,
};

use super::monitor::Monitor;

/// Where a worker leaves its view; empty on kernel sockets.
pub(crate) type Slot = Arc<OnceLock<View>>;

/// A worker's own TCP/IP, as other threads see it.
pub(crate) struct View {
    stack: Arc<StackCounters>,
    link: Arc<LinkCounters>,
    turns: Arc<LoopCounters>,
    probe: Probe,
}

impl View {
    pub(crate) fn of<L: Port>(frames: &Frames<L>, link: Arc<LinkCounters>) -> View {
        View {
            stack: frames.stack_counters(),
            link,
            turns: frames.loop_counters(),
            probe: frames.probe(),
        }
    }
}

impl Monitor {
    fn sum<T: Default + std::ops::AddAssign>(&self, of: impl Fn(&View) -> T) -> Option<T> {
        let mut views = self.views.iter().filter_map(|slot| slot.get()).peekable();
        views.peek()?;
        let mut sum = T::default();
        views.for_each(|view| sum += of(view));
        Some(sum)
    }

    /// What each worker's own TCP/IP counted; nothing on kernel sockets.
    pub fn worker_stacks(&self) -> impl Iterator<Item = StackSnapshot> + '_ {
        self.views.iter().filter_map(|slot| slot.get()).map(|view| view.stack.snapshot())
    }

    /// What this program's own TCP/IP counted, all workers together; `None` on kernel sockets.
    #[must_use]
    pub fn stack(&self) -> Option<StackSnapshot> {
        self.sum(|view| view.stack.snapshot())
    }

    /// What the links below it counted; `None` on kernel sockets.
    #[must_use]
    pub fn link(&self) -> Option<LinkSnapshot> {
        self.sum(|view| view.link.snapshot())
    }

    /// Where the cycles of the workers above it went; `None` on kernel sockets.
    #[must_use]
    pub fn turns(&self) -> Option<LoopSnapshot> {
        self.sum(|view| view.turns.snapshot())
    }

    /// What this program's own TCP knows of its connections, or of those `of` one peer, at most `max`
    /// a worker. The congestion window is among it where a peer is named, for the first 256 of each
    /// worker: reading one takes up to 0.4 ms of a turn, 1.7 ms with rings of 64 KiB. Empty on kernel
    /// sockets. It waits for the workers, so don't call it on one.
    ///
    /// # Errors
    /// A worker that has ended, or doesn't answer within 5 s.
    pub fn tcp_connections(&self, of: Option<IpAddr>, max: usize) -> io::Result<Vec<ConnStats>> {
        let mut all = Vec::new();
        for view in self.views.iter().filter_map(|slot| slot.get()) {
            all.extend(view.probe.connections(of, max)?);
        }
        Ok(all)
    }

    /// Has this program's own TCP/IP write packets to and from `peer` to a file in pcapng format,
    /// `packets` of them at most, beginning now; port 0 is every port of that address. Each worker
    /// gets a file of its own from `open`, which is told the worker's index. It ends a trace before.
    ///
    /// # Errors
    /// What `open` or the file says; a worker that has ended, or doesn't answer within 5 s.
    pub fn trace(
        &self,
        peer: SocketAddr,
        packets: u32,
        mut open: impl FnMut(usize) -> io::Result<Box<dyn Write + Send>>,
    ) -> io::Result<()> {
        for (worker, slot) in self.views.iter().enumerate() {
            if let Some(view) = slot.get() {
                view.probe.trace(peer, packets, open(worker)?)?;
            }
        }
        Ok(())
    }
}
