//! The worker's loop: poll, decode, hand batches to the handler, inbox, timers, flush. It owns all
//! that it touches; what comes from other threads comes through its inbox.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hioload_core::clock::{Clock, Now};
use hioload_core::counters::Counter;
use hioload_core::local::LocalFrames;
use hioload_core::pool::{Pool, Pressure};
use hioload_core::slab::Slab;
use hioload_core::wait::{Idle, Wait};
use hioload_core::wheel::TimerWheel;
use hioload_ws_proto::{Role, Rules};

use crate::admission::Admission;
use crate::backend::{Accepting, Backend, Event, Events, RxHalf};
use crate::batch::Messages;
use crate::counters::WorkerCounters;
use crate::drain::Drain;
use crate::handler::Handler;
use crate::hub::{Hub, Op};
use crate::inbox::{Command, Inbox};
use crate::session::Phase;
use crate::settings::Settings;
use crate::turn::Turn;

/// Events a turn.
const EVENTS: usize = 512;
/// How many events ahead of its turn a connection's session is fetched, and before that its name.
const SESSIONS_AHEAD: usize = 4;
const LINKS_AHEAD: usize = 8;
/// As many sessions are in the caches anyway.
const SESSIONS_CACHED: usize = 1024;
/// Commands from other threads a turn.
const COMMANDS: usize = 256;
/// Timers a turn.
const TIMERS: usize = 1024;
/// Sends of broadcasts a turn.
const DELIVERIES: usize = 16 * 1024;
/// How often a worker that drains, or that is short of memory, looks again.
const TICK: Duration = Duration::from_millis(10);

/// What a worker is made of, besides its backend and its handler.
pub struct Parts {
    /// Limits, deadlines, policies.
    pub settings: Settings,
    /// The worker's share of its node's buffers.
    pub pool: Pool,
    /// Where other threads reach it.
    pub inbox: Inbox,
    /// Where it counts.
    pub counters: Arc<WorkerCounters>,
    /// The connection limits that it shares with the other workers.
    pub admission: Admission,
}

/// One worker: a backend, a handler, and the sessions between them.
pub struct Worker<B, H: Handler> {
    backend: B,
    handler: H,
    hub: Hub<H::Session>,
    inbox: Inbox,
    events: Events,
    /// The first of them that isn't dealt with.
    next_event: usize,
    idle: Idle,
    /// The last turn left work that needs no event.
    busy: bool,
    worked: bool,
    drain: Option<Drain>,
    stopped: bool,
    /// The handler knows that the worker has begun.
    started: bool,
}

impl<B: Backend, H: Handler> Worker<B, H> {
    /// A worker that hasn't run yet, its clock at `now`.
    pub fn new(backend: B, handler: H, parts: Parts, now: Now) -> Self {
        let Parts { settings, pool, inbox, counters, admission } = parts;
        inbox.set_waker(backend.waker());
        let hub = Hub {
            worker: inbox.worker,
            rules: Rules::new(Role::Server, settings.limits),
            client_rules: Rules::new(Role::Client, settings.limits),
            keys: None,
            unborn: Vec::new(),
            now,
            sessions: Slab::new(),
            states: Vec::new(),
            links: Vec::new(),
            assemblies: Slab::new(),
            assembly_cursor: 0,
            queues: Slab::new(),
            queue_cursor: 0,
            fired: Vec::new(),
            spare_queues: Vec::new(),
            wheel: TimerWheel::new(now),
            handler_timers: Slab::new(),
            pool,
            frames: LocalFrames::new(),
            counters,
            ops: Vec::new(),
            owed: Vec::new(),
            deliveries: Default::default(),
            newest: Default::default(),
            remote: inbox.remote.clone(),
            admission,
            addresses: Default::default(),
            draining: false,
            scratch: Vec::new(),
            settings,
        };
        let idle = Idle::new(hub.settings.spin);
        Worker {
            backend,
            handler,
            hub,
            inbox,
            events: Events::with_limit(EVENTS),
            next_event: 0,
            idle,
            busy: false,
            worked: false,
            drain: None,
            stopped: false,
            started: false,
        }
    }

    /// Runs until the worker was drained or stopped.
    ///
    /// # Errors
    /// What the backend can't go on with.
    pub fn run(&mut self, clock: &impl Clock) -> io::Result<()> {
        while self.turn(clock)? {}
        Ok(())
    }

    /// One turn, waiting for something to do as the settings say. False: the worker has ended.
    ///
    /// # Errors
    /// What the backend can't go on with.
    pub fn turn(&mut self, clock: &impl Clock) -> io::Result<bool> {
        if self.next_event >= self.events.as_slice().len() {
            let wait = self.wait();
            self.events.clear();
            self.next_event = 0;
            let polled = self.backend.poll(self.hub.now, wait, &mut self.events);
            self.inbox.sleep.awake();
            polled?;
        }
        let now = clock.now();
        self.hub.now = now;
        self.hub.counters.turns_total.inc();
        self.busy = false;
        self.worked = !self.events.as_slice().is_empty();

        // Frames that other workers dropped come home.
        self.hub.pool.collect();
        let pressure = self.hub.pool.pressure();
        if pressure > Pressure::None {
            self.hub.pool.trim();
        }
        {
            let Worker { backend, handler, hub, inbox, events, next_event, .. } = self;
            let (mut rx, mut tx) = backend.turn();
            let mut turn =
                Turn { rx: &mut rx, tx: &mut tx, handler, hub, messages: Messages::new() };
            if !std::mem::replace(&mut self.started, true) {
                turn.start();
            }
            turn.bury_unborn();
            // A turn deals with one event at least, whatever the backend says.
            let first = *next_event;
            let events = &events.as_slice()[first..];
            let cold = turn.hub.sessions.len() > SESSIONS_CACHED;
            let ahead = |hub: &Hub<H::Session>, at: usize| {
                if let Some(Event::Readable(conn)) = events.get(at + LINKS_AHEAD) {
                    hub.prefetch_link(*conn);
                }
                if let Some(Event::Readable(conn)) = events.get(at + SESSIONS_AHEAD) {
                    hub.prefetch_session(*conn);
                }
            };
            for (at, event) in events.iter().enumerate() {
                if cold {
                    ahead(turn.hub, at);
                }
                match *event {
                    Event::Readable(_) if *next_event > first && turn.rx.is_full() => break,
                    Event::Opened(conn) => turn.opened(conn, pressure),
                    Event::Readable(conn) => turn.readable(conn),
                    Event::Writable(conn) => turn.writable(conn),
                    Event::Eof(conn) => turn.eof(conn),
                    Event::Closed(conn, gone) => turn.closed(conn, gone),
                }
                *next_event += 1;
            }
            turn.dispatch();
            for _ in 0..COMMANDS {
                let Some(command) = inbox.commands.pop() else { break };
                self.worked = true;
                match command {
                    Command::Drain => {
                        self.drain.get_or_insert_with(|| Drain::new(now, &turn.hub.settings));
                    }
                    Command::Stop => self.stopped = true,
                    other => turn.command(other),
                }
            }
            self.busy |= turn.timers(TIMERS);
            if let Some(drain) = &mut self.drain {
                turn.drain(drain);
            }
            turn.relieve(pressure);
            self.busy |= turn.deliveries(DELIVERIES);
            turn.settle_owed();
            if self.stopped {
                turn.end_all();
            }
        }
        self.apply_ops();
        self.backend.flush(now);
        self.account();
        Ok(!self.ended())
    }

    /// How the next poll waits. Where it may block, the inbox is looked at once more after the
    /// flag is up that makes other threads wake us.
    fn wait(&mut self) -> Wait {
        // A handler that has not begun may be the one who brings the first event about.
        if self.busy || self.stopped || !self.started {
            return Wait::Poll;
        }
        let hub = &self.hub;
        let tick = (self.drain.is_some() || hub.pool.pressure() >= Pressure::CloseSlow)
            .then(|| hub.now.after(TICK));
        let deadline =
            [hub.wheel.next_deadline(), self.backend.next_deadline(), tick].into_iter().flatten();
        let wait = self.idle.next(hub.now, self.worked, deadline.min());
        if matches!(wait, Wait::Until(_)) {
            self.inbox.sleep.prepare_sleep();
            if !self.inbox.commands.is_empty() {
                self.inbox.sleep.cancel_sleep();
                return Wait::Poll;
            }
        }
        wait
    }

    fn apply_ops(&mut self) {
        let mut ops = std::mem::take(&mut self.hub.ops);
        for op in ops.drain(..) {
            match op {
                Op::Connect(key, to) => {
                    // It may have been given up in the turn in which it was begun.
                    if self.hub.sessions.get(key).is_some_and(|s| s.phase == Phase::Connecting) {
                        let begun = self.backend.connect(to);
                        self.hub.connecting(key, begun);
                    } else {
                        self.hub.unborn.push(key);
                    }
                }
                Op::Close(conn) => self.backend.close(conn),
                Op::Abort(conn) => self.backend.abort(conn),
                Op::Pause(conn) => self.backend.pause_rx(conn, true),
                Op::Resume(conn) => self.backend.pause_rx(conn, false),
            }
        }
        // Keeps its memory.
        self.hub.ops = ops;
        self.busy |= !self.hub.unborn.is_empty();
        if self.drain.as_mut().is_some_and(Drain::close_listeners) || self.stopped {
            self.backend.set_accepting(Accepting::Closed);
        }
    }

    /// Shows the pool's own counts where the others are.
    fn account(&self) {
        let (stats, counters) = (self.hub.pool.stats(), &self.hub.counters);
        counters.pool_buffers_lent.set(stats.lent);
        counters.pool_bytes_lent.set(stats.lent_bytes);
        let copy = |to: &Counter, from: u64| to.add(from - to.get());
        copy(&counters.pool_hits_total, stats.hit);
        copy(&counters.pool_misses_total, stats.miss);
        copy(&counters.pool_fallbacks_total, stats.fallback);
        copy(&counters.pool_refused_total, stats.failed);
    }

    fn ended(&self) -> bool {
        self.stopped || (self.drain.is_some() && self.hub.sessions.is_empty())
    }

    /// The handler, for tests and for what wraps a worker.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// The backend, for tests and for what wraps a worker.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// What the worker counts.
    pub fn counters(&self) -> &WorkerCounters {
        &self.hub.counters
    }
}
