//! The load, as a worker's handler: it opens its share of the connections, begins and ends with the
//! window, and keeps the books. What is sent and expected is in a file for each mode (`echo.rs`,
//! `fan_out.rs`, `handshake.rs`); an idle connection is neither.

mod echo;
mod fan_out;
mod handshake;
mod schedule;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use hioload_ws::{
    Batch, CloseCode, Closed, ClosedBy, Context, Handler, Opening, Refusal, Response, SessionId,
    Status, Target, Verdict, WorkerContext,
};

use super::args::{Mode, Plan};
use super::idle::Reading;
use super::payload::Payloads;
use super::shared::{News, Shared, Window};
use super::tally::{Interval, Tally};
use schedule::Schedule;

/// Handshakes that a worker has under way at a time, while it ramps up.
const OPENING_MAX: usize = 64;
/// Between two looks at the clock where nothing has to be sent at a time.
const LOOK: Duration = Duration::from_millis(10);
/// A second, in ns.
const SECOND: u64 = 1_000_000_000;

/// What is known of a connection.
pub struct Conn {
    /// Its number among all of the run.
    index: u32,
    /// Where it stands in [`Load::live`].
    place: u32,
    /// When it was begun to be opened.
    begun: u64,
    open: bool,
    sent: u32,
    answered: u32,
    /// When each message in flight was due to be sent, the oldest first; at most the depth.
    in_flight: VecDeque<u64>,
    /// In fan-out: the number of the next message of each sender.
    expected: Box<[u32]>,
}

/// How far a worker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Connections are opened; what the window is isn't known.
    Ramp,
    /// The load runs.
    Run,
    /// Nothing is sent any more, answers may still come.
    Settle,
    /// All is told.
    Done,
}

/// See the module.
pub struct Load {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    news: Sender<News>,
    target: Target,
    payloads: Payloads,
    worker: usize,
    workers: usize,
    phase: Phase,
    window: Window,
    schedule: Option<Schedule>,
    /// The ramp began.
    started: u64,
    /// Connections begun, of this worker's share.
    begun: usize,
    opening: usize,
    /// Those that are open.
    live: Vec<SessionId>,
    /// The connection whose turn it is in open loop.
    turn: usize,
    interval: Box<Interval>,
    /// Number of the interval, and when it ends.
    second: u64,
    second_ends: u64,
    tally: Tally,
    at_from: Option<Reading>,
    at_until: Option<Reading>,
    /// Messages in flight on open connections.
    in_flight: u64,
    /// Closed loop: connections that have got their first messages.
    filled: usize,
    /// Handshake mode: connections to be opened at the next tick.
    retry: usize,
}

impl Load {
    pub fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        news: Sender<News>,
        payloads: Payloads,
        worker: &WorkerContext,
        target: &Target,
    ) -> Self {
        let never = Window { go: u64::MAX, from: u64::MAX, until: u64::MAX };
        Load {
            plan,
            shared,
            news,
            target: target.clone(),
            payloads,
            worker: worker.index(),
            workers: worker.workers(),
            phase: Phase::Ramp,
            window: never,
            schedule: None,
            started: 0,
            begun: 0,
            opening: 0,
            live: Vec::new(),
            turn: 0,
            interval: Box::new(Interval::new()),
            second: 0,
            second_ends: u64::MAX,
            tally: Tally::new(),
            at_from: None,
            at_until: None,
            in_flight: 0,
            filled: 0,
            retry: 0,
        }
    }

    /// Connections of this worker.
    fn share(&self) -> usize {
        (self.plan.connections + self.workers - 1 - self.worker) / self.workers
    }

    /// Opens connections, as far as the ramp and the bound allow.
    fn ramp_up(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        let share = self.share();
        let allowed = match self.plan.ramp {
            None => share,
            Some(rate) => {
                let seconds = (now - self.started) as f64 / SECOND as f64;
                // The first one at once, also where the rate is low.
                share.min((seconds * rate / self.workers as f64) as usize + 1)
            }
        };
        while self.begun < allowed && self.opening < OPENING_MAX {
            let index = (self.worker + self.begun * self.workers) as u32;
            self.begun += 1;
            self.open_one(index, now, context);
        }
    }

    /// Begins to open a connection; false when that failed at once.
    fn open_one(&mut self, index: u32, begun: u64, context: &mut Context<'_, '_, Conn>) -> bool {
        let conn = Conn {
            index,
            place: 0,
            begun,
            open: false,
            sent: 0,
            answered: 0,
            in_flight: VecDeque::new(),
            expected: vec![0; self.plan.senders].into(),
        };
        match context.connect(self.target.address, self.target.request.clone(), conn) {
            Ok(_) => {
                self.opening += 1;
                true
            }
            Err(error) => {
                self.not_opened(&error.to_string());
                false
            }
        }
    }

    fn not_opened(&mut self, why: &str) {
        self.tally.failed += 1;
        self.shared.first_failure.get_or_init(|| why.into());
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.tally.reasons.add(why, 1);
    }

    /// What time has brought about.
    fn tick(&mut self, context: &mut Context<'_, '_, Conn>) {
        let now = self.shared.now();
        if self.phase == Phase::Ramp {
            if self.plan.mode != Mode::Handshake {
                self.ramp_up(now, context);
            }
            if let Some(window) = self.shared.window()
                && now >= window.go
            {
                self.begin(window);
            }
        }
        if self.phase == Phase::Run {
            self.look_at_window(now);
        }
        // What was due within the window is sent though it is over: a stall at its end must show.
        if self.phase == Phase::Run || (self.phase == Phase::Settle && self.is_behind()) {
            self.due(now, context);
        }
        if self.phase == Phase::Settle {
            self.rotate(now);
            let late = now >= self.window.until.saturating_add(self.plan.timeout.as_nanos() as u64);
            if late || self.is_settled(context) {
                self.finish(context);
            }
        }
        if self.phase != Phase::Done {
            let filling =
                self.plan.mode == Mode::Echo && self.plan.rate.is_none() && !self.is_full();
            let exact = self.is_behind()
                || self.phase == Phase::Run && (self.schedule.is_some() || filling);
            context.set_timer(if exact { Duration::ZERO } else { LOOK }, 0);
        }
    }

    fn begin(&mut self, window: Window) {
        self.phase = Phase::Run;
        self.window = window;
        self.second_ends = window.from + SECOND;
        // Senders are the first connections, so they are the first workers'.
        let sending = match self.plan.mode {
            Mode::FanOut => self.workers.min(self.plan.senders),
            _ => self.workers,
        };
        let rate = self.plan.rate.filter(|_| self.worker < sending);
        self.schedule = rate.map(|rate| Schedule::new(rate, self.worker, sending, window.go));
        if self.plan.mode == Mode::Handshake && self.plan.rate.is_none() {
            self.retry = self.share();
        }
    }

    /// Takes readings at both ends of the window, which a signal may have moved.
    fn look_at_window(&mut self, now: u64) {
        if let Some(window) = self.shared.window() {
            self.window = window;
        }
        self.rotate(now);
        if now >= self.window.from && self.at_from.is_none() {
            self.at_from = Some(Reading::take());
        }
        if now >= self.window.until {
            self.at_until = Some(Reading::take());
            self.phase = Phase::Settle;
            self.shared.stopped.fetch_add(1, Ordering::Release);
        }
    }

    /// Sends, or opens, what is due.
    fn due(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        match self.plan.mode {
            Mode::Echo if self.plan.rate.is_none() => self.fill_some(now, context),
            Mode::Echo | Mode::FanOut => self.send_due(now, context),
            Mode::Handshake => self.open_due(now, context),
            Mode::Idle => {}
        }
    }

    /// Open loop: the schedule has something for the window that wasn't sent yet.
    fn is_behind(&self) -> bool {
        self.schedule.is_some_and(|schedule| schedule.next() < self.window.until)
    }

    fn is_settled(&mut self, context: &mut Context<'_, '_, Conn>) -> bool {
        !self.is_behind() && self.has_answers(context)
    }

    fn has_answers(&mut self, context: &mut Context<'_, '_, Conn>) -> bool {
        match self.plan.mode {
            Mode::Echo => self.in_flight == 0,
            Mode::FanOut => self.undelivered(context) == Some(0),
            Mode::Handshake => self.opening == 0,
            Mode::Idle => true,
        }
    }

    /// Hands on the seconds that are over.
    #[inline]
    fn rotate(&mut self, now: u64) {
        if now >= self.second_ends {
            self.hand_on(now);
        }
    }

    #[cold]
    fn hand_on(&mut self, now: u64) {
        // The last interval stays open for the answers that come behind the window.
        while now >= self.second_ends && self.second_ends < self.window.until {
            let full = std::mem::replace(&mut self.interval, Box::new(Interval::new()));
            // Without a listener the run has been given up.
            let _ = self.news.send(News::Interval(self.second, full));
            self.second += 1;
            self.second_ends += SECOND;
        }
    }

    /// Counts a message that arrived at `now` and was due to be sent at `due`.
    #[inline]
    fn arrived(&mut self, now: u64, due: u64, bytes: usize) {
        let Window { from, until, .. } = self.window;
        let inside = (from..until).contains(&now);
        if inside {
            self.interval.messages += 1;
            self.interval.bytes += bytes as u64;
        }
        // In open loop the schedule says what belongs to the window: an answer that comes late
        // must count all the more.
        let counts = if self.plan.rate.is_some() { (from..until).contains(&due) } else { inside };
        if counts {
            self.interval.latency.saturating_record(now.saturating_sub(due));
        }
    }

    /// Keeps the books of a send that was due at `due`, and gives the time from which it counts.
    fn on_schedule(&mut self, now: u64, due: u64) -> u64 {
        let late = now.saturating_sub(due);
        if late <= schedule::RESOLUTION_NS {
            return now;
        }
        if due >= self.window.from {
            self.tally.late += 1;
            self.tally.latest_ns = self.tally.latest_ns.max(late);
        }
        due
    }

    fn finish(&mut self, context: &mut Context<'_, '_, Conn>) {
        self.phase = Phase::Done;
        let now = self.shared.now();
        match self.plan.mode {
            Mode::Echo => self.count_unanswered(now, context),
            Mode::FanOut => self.count_undelivered(context),
            Mode::Handshake => self.tally.errors.missing += self.opening as u64,
            Mode::Idle => {}
        }
        self.tally.open = self.live.len() as u64;
        self.tally.idle_share = match (&self.at_from, &self.at_until) {
            (Some(from), Some(until)) => until.idle_share_since(from),
            _ => None,
        };
        let last = std::mem::replace(&mut self.interval, Box::new(Interval::new()));
        let tally = std::mem::replace(&mut self.tally, Tally::new());
        // Without a listener the run has been given up.
        let _ = self.news.send(News::Interval(self.second, last));
        let _ = self.news.send(News::Done(Box::new(tally)));
    }

    fn enlist(&mut self, session: SessionId, context: &mut Context<'_, '_, Conn>) {
        let place = self.live.len() as u32;
        self.live.push(session);
        if let Some(conn) = context.state(session) {
            conn.place = place;
            conn.open = true;
        }
    }

    fn delist(&mut self, place: u32, context: &mut Context<'_, '_, Conn>) {
        self.live.swap_remove(place as usize);
        if let Some(&moved) = self.live.get(place as usize)
            && let Some(conn) = context.state(moved)
        {
            conn.place = place;
        }
    }

    /// An open connection ended, and not by us.
    fn lost(&mut self, conn: &Conn, closed: Closed<'_>) {
        let told = match (closed.by, closed.reason) {
            (ClosedBy::Transport, "") => "the connection ended without a close".into(),
            (ClosedBy::Transport, why) => format!("the connection ended: {why}"),
            (_, "") => format!("closed with {}", closed.code.get()),
            (_, why) => format!("closed with {}: {why}", closed.code.get()),
        };
        self.tally.reasons.add(&told, 1);
        self.tally.errors.lost += 1;
        self.tally.errors.missing += conn.in_flight.len() as u64;
        self.in_flight -= conn.in_flight.len() as u64;
    }
}

impl Handler for Load {
    type Session = Conn;

    fn on_start(&mut self, context: &mut Context<'_, '_, Conn>) {
        self.started = self.shared.now();
        self.tick(context);
    }

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, Conn>) -> Verdict<Conn> {
        // It listens nowhere.
        Verdict::Refuse(Refusal::new(Status::NOT_FOUND, "a client"))
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        _: &Response<'_>,
        context: &mut Context<'_, '_, Conn>,
    ) {
        let now = self.shared.now();
        self.opening -= 1;
        let Some(conn) = context.state(session) else { return };
        let begun = conn.begun;
        self.tally.handshakes.saturating_record(now.saturating_sub(begun));
        self.enlist(session, context);
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        if self.plan.mode == Mode::Handshake {
            self.rotate(now);
            self.arrived(now, begun, 0);
            // It is open, so this can't be refused.
            let _ = context.close(session, CloseCode::NORMAL, "");
        } else if self.phase == Phase::Ramp {
            self.ramp_up(now, context);
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Conn>) {
        let now = self.shared.now();
        self.rotate(now);
        while let Some((message, context)) = batch.next() {
            match self.plan.mode {
                Mode::Echo => self.echoed(now, &message, context),
                Mode::FanOut => self.delivered(now, &message, context),
                Mode::Handshake | Mode::Idle => self.tally.errors.unexpected += 1,
            }
        }
    }

    fn on_close(
        &mut self,
        _: SessionId,
        conn: Conn,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, Conn>,
    ) {
        if conn.open {
            self.delist(conn.place, context);
            let ours = self.phase == Phase::Done
                || (self.plan.mode == Mode::Handshake && closed.by == ClosedBy::Us);
            if !ours {
                self.lost(&conn, closed);
            }
            if self.plan.mode == Mode::Handshake {
                self.reopen(context);
            }
        } else {
            self.opening -= 1;
            self.not_opened(closed.reason);
            match self.plan.mode {
                // Not at once: where nobody listens this would turn at the speed of the machine.
                Mode::Handshake => self.retry += 1,
                _ if self.phase == Phase::Ramp => {
                    let now = self.shared.now();
                    self.ramp_up(now, context);
                }
                _ => {}
            }
        }
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_, '_, Conn>) {
        self.tick(context);
    }
}
