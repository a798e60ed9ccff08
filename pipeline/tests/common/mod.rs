//! A worker on the fake, driven by hand: time stands until a test moves it, and every turn is the
//! test's own.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use hioload_core::clock::{Clock, ManualClock, Now};
use hioload_core::pool::{NodePool, PoolConfig};
use hioload_core::wait::Wait;
use hioload_pipeline::admission::Admission;

use hioload_pipeline::counters::WorkerSnapshot;
use hioload_pipeline::fake::{End, Fake, Mode, Net, Peer};
use hioload_pipeline::inbox::{Inbox, inboxes};
use hioload_pipeline::suite::wire::{self, Frame};
use hioload_pipeline::{
    Batch, Closed, ClosedBy, Context, Handler, Kind, Message, Opening, Parts, Remote, SessionId,
    Settings, Verdict, Worker,
};

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use wire::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT};

/// The three modes, with memory small enough to be felt.
pub const MODES: [Mode; 3] = [
    Mode::Readiness,
    Mode::Completion { buffers: 16, hold_turns: 3 },
    Mode::Ring { rx_bytes: 1500, tx_bytes: 700 },
];

/// A turn's worth of work at most, before a test says that it doesn't end.
const MAX_TURNS: usize = 200_000;

/// What a test makes a worker from.
pub struct Plan {
    pub mode: Mode,
    pub settings: Settings,
    pub max_total: usize,
    pub max_per_address: usize,
    pub budget_bytes: u64,
}

impl Plan {
    pub fn new(mode: Mode) -> Self {
        let settings = Settings::default();
        Plan { mode, settings, max_total: 0, max_per_address: 0, budget_bytes: 64 << 20 }
    }

    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub fn start<H: Handler>(&self, handler: H) -> Rig<H> {
        let (_, mut inboxes) = inboxes(1, self.settings.ring);
        let admission = Admission::new(self.max_total, self.max_per_address);
        self.start_on(handler, inboxes.remove(0), admission)
    }

    pub fn start_on<H: Handler>(&self, handler: H, inbox: Inbox, admission: Admission) -> Rig<H> {
        let config = PoolConfig { node: None, budget_bytes: self.budget_bytes, huge: false };
        let node = NodePool::new(config).expect("memory for the pool");
        // A time far from zero, so that a deadline can't be met by accident.
        let clock = ManualClock::new(Now::from_nanos(1_000_000_000_000));
        let fake = Fake::new(self.mode);
        let (net, remote) = (fake.net(), inbox.remote().clone());
        let parts = Parts {
            settings: self.settings.clone(),
            pool: node.share(),
            inbox,
            counters: Arc::default(),
            admission: admission.clone(),
        };
        let worker = Worker::new(fake, handler, parts, clock.now());
        Rig { worker, clock, net, remote, admission, node }
    }
}

/// A worker, its clock and its network.
pub struct Rig<H: Handler> {
    pub worker: Worker<Fake, H>,
    pub clock: ManualClock,
    pub net: Net,
    pub remote: Remote,
    pub admission: Admission,
    pub node: NodePool,
}

impl<H: Handler> Rig<H> {
    /// One turn; false when the worker has ended.
    pub fn turn(&mut self) -> bool {
        self.worker.turn(&self.clock).expect("the fake doesn't fail")
    }

    /// Turns until nothing happens any more; false when the worker has ended.
    pub fn run(&mut self) -> bool {
        for _ in 0..MAX_TURNS {
            let idle = self.worker.backend().is_idle();
            if !self.turn() {
                return false;
            }
            let waits = match self.worker.backend().last_wait() {
                Wait::Poll => false,
                Wait::Until(at) => at.is_none_or(|at| at > self.clock.now()),
            };
            if idle && waits {
                return true;
            }
        }
        panic!("the worker finds no rest: {:#?}", self.counters());
    }

    /// Lets time pass in steps, with turns in between.
    pub fn pass(&mut self, time: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            self.clock.advance(step);
            left -= step;
            if !self.run() {
                return false;
            }
        }
        true
    }

    pub fn connect(&mut self) -> Client {
        Client { peer: self.net.connect(), seen: Vec::new() }
    }

    /// A client with an open WebSocket.
    pub fn open(&mut self) -> Client {
        let mut client = self.connect();
        client.send(&wire::request("/", ""));
        self.run();
        assert_eq!(client.status(), Some(101));
        client
    }

    pub fn counters(&self) -> WorkerSnapshot {
        self.worker.counters().snapshot()
    }

    /// Nothing is left of any connection.
    pub fn assert_clean(&mut self) {
        self.run();
        let c = self.counters();
        let gauges = [
            ("connections_open", c.connections_open),
            ("sessions_open", c.sessions_open),
            ("queues_open", c.queues_open),
            ("queued_bytes", c.queued_bytes),
            ("assemblies_open", c.assemblies_open),
            ("pool_buffers_lent", c.pool_buffers_lent),
            ("pool_bytes_lent", c.pool_bytes_lent),
            ("admitted", self.admission.total() as u64),
            ("sent_after_close", self.worker.backend().sent_after_close()),
            ("pinned", self.worker.backend().pinned() as u64),
        ];
        for (name, value) in gauges {
            assert_eq!(value, 0, "{name}");
        }
    }
}

/// A peer that speaks WebSocket.
pub struct Client {
    pub peer: Peer,
    pub seen: Vec<u8>,
}

impl Client {
    pub fn send(&self, bytes: &[u8]) {
        self.peer.send(bytes);
    }

    pub fn frame(&self, first: u8, payload: &[u8]) {
        self.send(&wire::frame(first, payload));
    }

    /// The status of the response that came, its head taken off.
    pub fn status(&mut self) -> Option<u16> {
        let head = self.head()?;
        wire::status(&head)
    }

    pub fn head(&mut self) -> Option<Vec<u8>> {
        self.peer.take_into(&mut self.seen);
        let len = wire::head_len(&self.seen)?;
        Some(self.seen.drain(..len).collect())
    }

    /// The whole frames that came.
    pub fn frames(&mut self) -> Vec<Frame> {
        self.peer.take_into(&mut self.seen);
        let (mut frames, mut used) = (Vec::new(), 0);
        while let Some((frame, len)) = wire::parse(&self.seen[used..]) {
            used += len;
            frames.push(frame);
        }
        self.seen.drain(..used);
        frames
    }

    /// The payloads of the text and binary messages that came.
    ///
    /// # Panics
    /// When something else came.
    pub fn messages(&mut self) -> Vec<Vec<u8>> {
        let payload = |frame: Frame| {
            assert!(matches!(frame.first, TEXT | BINARY), "{frame:?}");
            frame.payload
        };
        self.frames().into_iter().map(payload).collect()
    }

    /// The code of the close frame that came as the last frame, behind `before` others; the
    /// transport has ended behind it.
    pub fn close_code(&mut self, before: usize) -> u16 {
        let frames = self.frames();
        assert_eq!(frames.len(), before + 1, "{frames:?}");
        assert!(self.seen.is_empty(), "half a frame: {:?}", self.seen);
        frames[before].close().unwrap_or_else(|| panic!("{:?}", frames[before])).0
    }

    pub fn end(&self) -> End {
        self.peer.end()
    }

    /// Closes in order, from this side.
    pub fn leave(&self) {
        self.send(&wire::close(1000, ""));
        self.peer.finish();
    }
}

/// What a [`Probe`] saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Saw {
    Ready(SessionId),
    Message(SessionId, Vec<u8>),
    Batch(usize),
    Writable(SessionId),
    Closed(SessionId, u16, String, ClosedBy),
    Timer(u64),
}

type OnOpen = Box<dyn FnMut(&mut Opening<'_>) -> Verdict<u32>>;
type OnMessage = Box<dyn for<'t> FnMut(Message<'t>, &mut Context<'_, 't, u32>)>;
type OnTimer = Box<dyn FnMut(u64, &mut Context<'_, '_, u32>)>;

/// A handler that notes everything and does what a test says.
pub struct Probe {
    pub saw: Vec<Saw>,
    pub open: OnOpen,
    pub message: OnMessage,
    pub timer: OnTimer,
}

impl Probe {
    /// Accepts everybody and echoes.
    pub fn echo() -> Self {
        Probe {
            saw: Vec::new(),
            open: Box::new(|_| Verdict::Accept(7)),
            message: Box::new(|message, context| {
                let _ = context.echo(message);
            }),
            timer: Box::new(|_, _| {}),
        }
    }

    pub fn on_message(
        message: impl for<'t> FnMut(Message<'t>, &mut Context<'_, 't, u32>) + 'static,
    ) -> Self {
        Probe { message: Box::new(message), ..Self::echo() }
    }

    pub fn on_open(open: impl FnMut(&mut Opening<'_>) -> Verdict<u32> + 'static) -> Self {
        Probe { open: Box::new(open), ..Self::echo() }
    }

    pub fn ready(&self) -> Vec<SessionId> {
        let ready = |saw: &Saw| if let Saw::Ready(id) = saw { Some(*id) } else { None };
        self.saw.iter().filter_map(ready).collect()
    }

    /// The endings, as code and who.
    pub fn endings(&self) -> Vec<(u16, ClosedBy)> {
        let ending = |saw: &Saw| match saw {
            Saw::Closed(_, code, _, by) => Some((*code, *by)),
            _ => None,
        };
        self.saw.iter().filter_map(ending).collect()
    }

    pub fn count(&self, which: impl Fn(&Saw) -> bool) -> usize {
        self.saw.iter().filter(|saw| which(saw)).count()
    }
}

impl Handler for Probe {
    type Session = u32;

    fn on_open(&mut self, opening: &mut Opening<'_>, _: &mut Context<'_, '_, u32>) -> Verdict<u32> {
        (self.open)(opening)
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, u32>) {
        assert_eq!(context.state(session), Some(&mut 7), "the state is the accepted one's");
        self.saw.push(Saw::Ready(session));
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, u32>) {
        self.saw.push(Saw::Batch(batch.len()));
        while let Some((message, context)) = batch.next() {
            self.saw.push(Saw::Message(message.session(), message.payload().to_vec()));
            assert_eq!(message.text().is_some(), message.kind() == Kind::Text);
            (self.message)(message, context);
        }
    }

    fn on_writable(&mut self, session: SessionId, _: &mut Context<'_, '_, u32>) {
        self.saw.push(Saw::Writable(session));
    }

    fn on_close(
        &mut self,
        session: SessionId,
        state: u32,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, u32>,
    ) {
        assert_eq!(state, 7, "the state comes back");
        assert!(context.send_text(session, "too late").is_err(), "nothing reaches it any more");
        let reason = closed.reason.to_string();
        self.saw.push(Saw::Closed(session, closed.code.get(), reason, closed.by));
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, u32>) {
        self.saw.push(Saw::Timer(token));
        (self.timer)(token, context);
    }
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
