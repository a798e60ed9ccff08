//! The main thread's part of a run: it starts the workers, follows the ramp, says when the window
//! is, shows progress each second, and puts together what the workers tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder};
use hioload_ws::{Client, Running};

use super::args::{BenchArgs, Mode, Plan};
use super::load::Load;
use super::payload::Payloads;
use super::progress::Progress;
use super::shared::{News, Shared, Window};
use super::summary::{Second, Summary};
use super::tally::{Interval, Tally};

/// Between two looks at what can't wake the main thread: the signal and the ramp.
const LOOK: Duration = Duration::from_millis(20);
/// From the decision to begin until the load begins, so that every worker knows it by then.
const LEAD: Duration = Duration::from_millis(40);
/// Beyond the time for the last answers, what the workers may take to tell the end.
const GRACE: Duration = Duration::from_secs(10);
/// Payloads come from this; the same in every run.
const SEED: u64 = 0x6869_6F6C_6F61_6421;

/// Runs the plan. `interrupted` ends it early.
///
/// # Errors
/// What keeps it from being run at all, for the operator.
pub fn run(args: &BenchArgs, plan: Plan, interrupted: &AtomicBool) -> Result<Summary, String> {
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::new(&plan));
    let (running, news) = start(args, &plan, &shared)?;
    let workers = running.report().pinned.len();
    let mut progress = Progress::new(plan.mode);
    for warning in &running.report().warnings {
        progress.line(&format!("warning: {warning}"));
    }
    let mut serializer = V2DeflateSerializer::new();
    let mut file = args.hdr.as_deref().map(create).transpose()?;
    let log = file.as_mut().map(|file| begin_log(file, &mut serializer)).transpose();
    let log = log.map_err(|error| format!("cannot write the HDR log: {error}"))?;

    let mut books = Books::new(workers, news, log);
    let ramp_began = Instant::now();
    if plan.mode != Mode::Handshake {
        ramp(&plan, &shared, interrupted, &mut books, &mut progress);
    }
    let ramp_seconds = ramp_began.elapsed().as_secs_f64();
    let none = plan.mode != Mode::Handshake && shared.connected.load(Ordering::Relaxed) == 0;
    let ramp_cut = interrupted.load(Ordering::Relaxed);
    let window = match none || ramp_cut {
        true => None,
        false => Some(measure(&plan, &shared, interrupted, &mut books, &mut progress)?),
    };
    running.drain();
    let ended = running.join();
    if window.is_some() {
        ended.map_err(|error| error.to_string())?;
    }
    let Books { tally, mut total, seconds, log_error, .. } = books;
    if let Some(error) = log_error {
        return Err(format!("cannot write the HDR log: {error}"));
    }
    if let Some(file) = &mut file {
        file.flush().map_err(|error| format!("cannot write the HDR log: {error}"))?;
    }
    let mut tally = tally;
    if window.is_none() {
        // The workers had no end to tell.
        total = Interval::new();
        tally.failed = shared.failed.load(Ordering::Relaxed) as u64;
        if none && let Some(why) = why_unreachable(args, &plan, &shared) {
            tally.reasons.add(&why, tally.failed);
        }
    }
    Ok(Summary {
        workers,
        ramp_seconds,
        connected: shared.connected.load(Ordering::Relaxed) as u64,
        window_seconds: window.map_or(0.0, |w| (w.until - w.from) as f64 / 1e9),
        interrupted: interrupted.load(Ordering::Relaxed),
        total,
        tally,
        seconds,
        plan: Arc::unwrap_or_clone(plan),
    })
}

fn start(
    args: &BenchArgs,
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
) -> Result<(Running, Receiver<News>), String> {
    let payloads = Payloads::new(plan.kind, plan.sizes.clone(), SEED);
    let (tell, news) = channel();
    let (plan_of_all, shared) = (Arc::clone(plan), Arc::clone(shared));
    let running = args.client(plan).start_with(move |worker, target| {
        let (plan, shared) = (Arc::clone(&plan_of_all), Arc::clone(&shared));
        Load::new(plan, shared, tell.clone(), payloads.clone(), worker, target)
    });
    Ok((running.map_err(|error| error.to_string())?, news))
}

/// Waits until every connection is open or has failed.
fn ramp(
    plan: &Plan,
    shared: &Shared,
    interrupted: &AtomicBool,
    books: &mut Books<'_, '_>,
    progress: &mut Progress,
) {
    let mut told = Instant::now();
    loop {
        let opened = shared.connected.load(Ordering::Relaxed);
        let failed = shared.failed.load(Ordering::Relaxed);
        if opened + failed >= plan.connections || interrupted.load(Ordering::Relaxed) {
            return;
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            progress.ramp(opened, failed, plan.connections);
        }
        if !books.listen(LOOK, progress) {
            return;
        }
    }
}

/// Begins the load and stays until all is told.
fn measure(
    plan: &Plan,
    shared: &Shared,
    interrupted: &AtomicBool,
    books: &mut Books<'_, '_>,
    progress: &mut Progress,
) -> Result<Window, String> {
    let window = shared.schedule(LEAD, plan);
    let mut cut = false;
    let mut wait_until = |at: fn(&Window) -> u64, books: &mut Books<'_, '_>, progress: &mut _| {
        loop {
            if interrupted.load(Ordering::Relaxed) && !std::mem::replace(&mut cut, true) {
                shared.cut_short();
            }
            let left = at(&shared.window().unwrap_or(window)).saturating_sub(shared.now());
            if left == 0 {
                return Ok(());
            }
            if !books.listen(LOOK.min(Duration::from_nanos(left)), progress) {
                return Err("the workers ended before their time".to_owned());
            }
        }
    };
    wait_until(|window| window.from, books, progress)?;
    progress.line("measuring");
    wait_until(|window| window.until, books, progress)?;
    progress.line("measured");
    let give_up = Instant::now() + plan.timeout + GRACE;
    while books.done < books.workers {
        if Instant::now() > give_up {
            return Err("the workers do not end".into());
        }
        if !books.listen(LOOK, progress) {
            break;
        }
    }
    Ok(shared.window().unwrap_or(window))
}

/// What the system says of the server's address, asked once more by itself; the system can't be
/// asked about a network of our own.
fn why_unreachable(args: &BenchArgs, plan: &Plan, shared: &Shared) -> Option<String> {
    if args.network().is_some() {
        return shared.first_failure.get().cloned();
    }
    let target = Client::builder().url(&args.url).target().ok()?;
    let tried = std::net::TcpStream::connect_timeout(&target.address, plan.timeout);
    tried.err().map(|error| format!("can't connect to {}: {error}", target.address))
}

type Log<'a, 'b> = IntervalLogWriter<'a, 'b, BufWriter<File>, V2DeflateSerializer>;

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path)
        .map(BufWriter::new)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn begin_log<'a, 'b>(
    file: &'a mut BufWriter<File>,
    serializer: &'b mut V2DeflateSerializer,
) -> io::Result<Log<'a, 'b>> {
    IntervalLogWriterBuilder::new()
        .with_start_time(SystemTime::now())
        .with_base_time(SystemTime::now())
        .with_max_value_divisor(1e6)
        .add_comment("hioload-ws bench: latencies in ns, times from the window's begin")
        .begin_log_with(file, serializer)
}

/// What the workers told so far.
struct Books<'a, 'b> {
    workers: usize,
    news: Receiver<News>,
    /// Seconds of which not every worker has told yet.
    partial: BTreeMap<u64, (usize, Interval)>,
    total: Interval,
    seconds: Vec<Second>,
    tally: Tally,
    done: usize,
    log: Option<Log<'a, 'b>>,
    log_error: Option<io::Error>,
}

impl<'a, 'b> Books<'a, 'b> {
    fn new(workers: usize, news: Receiver<News>, log: Option<Log<'a, 'b>>) -> Self {
        Books {
            workers,
            news,
            partial: BTreeMap::new(),
            total: Interval::new(),
            seconds: Vec::new(),
            tally: Tally::new(),
            done: 0,
            log,
            log_error: None,
        }
    }

    /// Takes what is told within a time; false: nobody will tell anything more.
    fn listen(&mut self, wait: Duration, progress: &mut Progress) -> bool {
        match self.news.recv_timeout(wait) {
            Ok(News::Interval(second, interval)) => self.enter(second, &interval, progress),
            Ok(News::Done(tally)) => {
                self.tally.add(&tally);
                self.done += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn enter(&mut self, second: u64, interval: &Interval, progress: &mut Progress) {
        let workers = self.workers;
        let (told, sum) = self.partial.entry(second).or_insert_with(|| (0, Interval::new()));
        sum.add(interval);
        *told += 1;
        if *told < workers {
            return;
        }
        let Some((_, sum)) = self.partial.remove(&second) else { return };
        self.total.add(&sum);
        let brief = Second::of(second, &sum);
        progress.second(&brief);
        self.seconds.push(brief);
        if let Some(log) = &mut self.log
            && let Err(error) = log_second(log, second, &sum)
        {
            self.log_error = Some(error);
            self.log = None;
        }
    }
}

fn log_second(log: &mut Log<'_, '_>, second: u64, interval: &Interval) -> io::Result<()> {
    use hdrhistogram::serialization::interval_log::IntervalLogWriterError as LogError;
    let written = log.write_histogram(
        &interval.latency,
        Duration::from_secs(second),
        Duration::from_secs(1),
        None,
    );
    written.map_err(|error| match error {
        LogError::IoError(error) => error,
        LogError::SerializeError(error) => io::Error::other(format!("{error:?}")),
    })
}
