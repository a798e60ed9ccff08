//! The worker threads: each is pinned to its core, makes what must be made there (its share of
//! the pool, its backend, its handler), says that it is ready, and runs to its end. One that fails
//! takes the others with it.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use hioload_core::clock::{Clock, MonotonicClock};
use hioload_core::pool::NodePool;
use hioload_pipeline::admission::Admission;
use hioload_pipeline::backend::Backend;
use hioload_pipeline::counters::WorkerCounters;
use hioload_pipeline::inbox::Inbox;
use hioload_pipeline::middleware::Recover;
use hioload_pipeline::{Handler, Parts, Remote, Settings, Worker};
use hioload_sockets::SocketCounters;
use hioload_sockets::epoll::{Epoll, EpollConfig, Listener};

use super::error::Error;
use super::host;
use crate::topology::Topology;

/// What a handler may know of the worker that it is made for.
#[derive(Clone)]
pub struct WorkerContext {
    index: usize,
    workers: usize,
    cpu: Option<usize>,
    remote: Remote,
}

impl WorkerContext {
    /// Index of the worker, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The core that the worker is pinned to; `None`: it isn't.
    #[must_use]
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Reaches all sessions from any thread.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

/// Makes a worker's handler on its thread.
pub(crate) type Make<H> = Box<dyn FnOnce(&WorkerContext) -> H + Send>;

/// What all workers have in common.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) admission: Admission,
    pub(crate) clock: MonotonicClock,
    pub(crate) remote: Remote,
}

/// What a worker's connections come through.
pub(crate) enum Transport {
    /// Listening sockets; none for a client.
    Sockets(Vec<Listener>),
    /// An interface of its own.
    #[cfg(target_os = "linux")]
    Network(Box<super::network::Ready>),
}

impl Transport {
    /// The device that it takes frames from, for messages.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Transport::Sockets(_) => None,
            #[cfg(target_os = "linux")]
            Transport::Network(network) => Some(network.interface()),
        }
    }

    /// The NUMA node of that device.
    pub(crate) fn near(&self, topology: &Topology) -> Option<u32> {
        let node = match self {
            Transport::Sockets(_) => None,
            #[cfg(target_os = "linux")]
            Transport::Network(network) => network.node(),
        };
        node.or_else(|| self.device().and_then(|device| topology.node_of_nic(device)))
    }

    /// The core that its worker has to be on; `None`: any.
    pub(crate) fn cpu(&self) -> Option<usize> {
        match self {
            Transport::Sockets(_) => None,
            #[cfg(target_os = "linux")]
            Transport::Network(network) => network.cpu(),
        }
    }
}

/// What one worker has for itself.
pub(crate) struct Seat {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) cpu: Option<usize>,
    pub(crate) pool: NodePool,
    pub(crate) inbox: Inbox,
    pub(crate) transport: Transport,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) sockets: Arc<SocketCounters>,
    /// Left for those who look at its own TCP/IP.
    #[cfg(target_os = "linux")]
    pub(crate) view: super::view::Slot,
}

/// The core that a worker was pinned to, or why it wasn't.
type Pinned = Option<Result<usize, (usize, std::io::Error)>>;

/// The worker threads.
pub(crate) struct Team {
    threads: Vec<JoinHandle<Result<(), Error>>>,
    pinned: Vec<Pinned>,
}

impl Team {
    /// Starts a thread for each seat and waits until all of them are ready. If one can't be, the
    /// others are stopped again.
    pub(crate) fn start<H: Handler + 'static>(
        plan: &Plan,
        seats: impl Iterator<Item = Seat>,
        maker: &mut impl FnMut() -> Make<H>,
    ) -> Result<Team, Error> {
        let mut team = Team { threads: Vec::new(), pinned: Vec::new() };
        let (ready, all_ready) = channel();
        for seat in seats {
            let index = seat.index;
            let spawned = spawn(plan, seat, maker(), ready.clone());
            match spawned {
                Ok(thread) => team.threads.push(thread),
                Err(source) => {
                    plan.remote.stop();
                    // What they say matters less than why the next one couldn't begin.
                    let _ = team.join();
                    return Err(Error::Spawn { worker: index, source });
                }
            }
        }
        drop(ready);
        match team.await_ready(&all_ready) {
            true => Ok(team),
            false => {
                plan.remote.stop();
                match team.join() {
                    Err(error) => Err(error),
                    // A worker that ends before it was ready has an error to say why.
                    Ok(()) => unreachable!("a worker ended before it began"),
                }
            }
        }
    }

    /// False when a worker ended without being ready.
    fn await_ready(&mut self, ready: &Receiver<(usize, Pinned)>) -> bool {
        let mut told: Vec<_> = ready.iter().collect();
        told.sort_by_key(|(index, _)| *index);
        self.pinned = told.into_iter().map(|(_, pinned)| pinned).collect();
        self.pinned.len() == self.threads.len()
    }

    /// The core of each worker; a core that refused is a warning.
    pub(crate) fn pinned(&mut self, warnings: &mut Vec<String>) -> Vec<Option<usize>> {
        let mut cpus = Vec::with_capacity(self.pinned.len());
        for (worker, pinned) in self.pinned.drain(..).enumerate() {
            match pinned {
                Some(Ok(cpu)) => cpus.push(Some(cpu)),
                None => cpus.push(None),
                Some(Err((cpu, error))) => {
                    warnings.push(format!(
                        "worker {worker} could not be pinned to core {cpu}: {error}; it runs where \
                         the scheduler puts it"
                    ));
                    cpus.push(None);
                }
            }
        }
        cpus
    }

    /// Waits for all threads and gives the first error.
    pub(crate) fn join(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for (worker, thread) in self.threads.drain(..).enumerate() {
            let ended = thread.join().unwrap_or_else(|panic| {
                Err(Error::Panic { worker, message: panic_message(&*panic) })
            });
            result = result.and(ended);
        }
        result
    }
}

fn spawn<H: Handler + 'static>(
    plan: &Plan,
    seat: Seat,
    make: Make<H>,
    ready: Sender<(usize, Pinned)>,
) -> std::io::Result<JoinHandle<Result<(), Error>>> {
    let Plan { settings, admission, clock, remote } = plan;
    let (settings, admission) = (settings.clone(), admission.clone());
    let (clock, remote) = (clock.clone(), remote.clone());
    thread::Builder::new().name(format!("worker-{}", seat.index)).spawn(move || {
        // First made, last dropped: by then this worker's own inbox is closed, so that stopping
        // the others can't wait for it.
        let guard = StopOthers { remote: remote.clone(), armed: true };
        let Seat { index, workers, cpu, pool, inbox, transport, counters, sockets, .. } = seat;
        #[cfg(target_os = "linux")]
        let view = seat.view;
        let pinned = cpu.map(|cpu| host::pin(cpu).map(|()| cpu).map_err(|error| (cpu, error)));
        let cpu = pinned.as_ref().and_then(|pinned| pinned.as_ref().ok().copied());
        // The workers of a node have as much again for the connections of their own TCP/IP.
        #[cfg(target_os = "linux")]
        let memory_bytes = pool.budget_bytes() / workers as u64;
        let pool = pool.share();
        let max_unsent_bytes = settings.max_unsent_bytes;
        let parts = Parts { settings, pool: pool.clone(), inbox, counters, admission };
        let context = WorkerContext { index, workers, cpu, remote };
        let work = Work { parts, context, make, pinned, ready, clock };
        let cannot_start = |source| Error::Start { worker: index, source };
        match transport {
            Transport::Sockets(listeners) => {
                let mut config = EpollConfig::new(listeners, pool, sockets);
                config.pending_max_bytes = config.pending_max_bytes.min(max_unsent_bytes);
                work.on(Epoll::new(config).map_err(cannot_start)?)?;
            }
            #[cfg(target_os = "linux")]
            Transport::Network(network) => {
                let now = work.clock.now();
                let admission = work.parts.admission.clone();
                let shared = super::network::Shared { admission, memory_bytes, view: &view };
                network.with(now, shared, work).map_err(cannot_start)??;
            }
        }
        guard.disarm();
        Ok(())
    })
}

/// What a worker does once it has a backend.
struct Work<H> {
    parts: Parts,
    context: WorkerContext,
    make: Make<H>,
    pinned: Pinned,
    ready: Sender<(usize, Pinned)>,
    clock: MonotonicClock,
}

impl<H: Handler> Work<H> {
    fn on<B: Backend>(self, backend: B) -> Result<(), Error> {
        let Work { parts, context, make, pinned, ready, clock } = self;
        let index = context.index;
        let handler = Recover::new(make(&context));
        let mut worker = Worker::new(backend, handler, parts, clock.now());
        // Who waits for this may have given up on another worker already.
        let _ = ready.send((index, pinned));
        drop(ready);
        worker.run(&clock).map_err(|source| Error::Worker { worker: index, source })
    }
}

#[cfg(target_os = "linux")]
impl<H: Handler> super::network::Run<Result<(), Error>> for Work<H> {
    fn on<L: hioload_dataplane::Port>(
        self,
        backend: hioload_dataplane::Frames<L>,
    ) -> Result<(), Error> {
        Work::on(self, backend)
    }
}

/// Stops all workers unless disarmed: a worker that ends by an error or a panic leaves sessions
/// without an owner and listeners that nobody accepts from.
struct StopOthers {
    remote: Remote,
    armed: bool,
}

impl StopOthers {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for StopOthers {
    fn drop(&mut self) {
        if self.armed {
            self.remote.stop();
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).into(),
        (_, Some(text)) => text.clone(),
        _ => "without a message".into(),
    }
}
