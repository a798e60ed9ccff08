//! Two stacks without a network: a link over a pair of connected sockets that keep the bounds of
//! frames, and a client's host at its other end, on a thread of its own, with blocking streams.
//! Needs no privileges.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hioload_core::Now;
use hioload_dataplane::{Attention, Frames, Port};
use hioload_pipeline::suite::{PATIENCE, Stream};
use hioload_stack::sim::fill_in_checksums;
use hioload_stack::{
    Address, ConnId, Event, Gone, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame,
    Stack, StackConfig, TxMeta,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The port of the server.
pub const PORT: u16 = 9001;
/// Largest IP packet.
const MTU: u16 = 1500;
/// Frames that wait for room in the socket.
const QUEUE: usize = 256;
/// Bytes that a stream holds for its user each way, before it waits.
const BUFFER: usize = 256 * 1024;

/// One end of the pair.
pub struct SocketLink {
    info: LinkInfo,
    rx: SocketRx,
    tx: SocketTx,
}

pub struct SocketRx {
    socket: Arc<OwnedFd>,
    burst: Vec<Vec<u8>>,
}

pub struct SocketTx {
    socket: Arc<OwnedFd>,
    next: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
}

/// Both ends.
pub fn links() -> [SocketLink; 2] {
    let (family, type_) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (a, b) = rustix::net::socketpair(family, type_, flags, None).expect("a pair of sockets");
    [a, b].map(Arc::new).map(|socket| {
        // Each end needs a station address of its own.
        static NUMBER: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Every second one leaves checksums to its device.
        let by_device = number.is_multiple_of(2);
        let offloads = Offloads { tx_ip_checksum: by_device, tx_tcp_checksum: by_device };
        SocketLink {
            info: LinkInfo { mac: [2, 0, 0, 0, 1, number], mtu: MTU, offloads },
            rx: SocketRx { socket: Arc::clone(&socket), burst: Vec::new() },
            tx: SocketTx { socket, next: Vec::new(), waiting: VecDeque::new() },
        }
    })
}

impl Link for SocketLink {
    type Rx = SocketRx;
    type Tx = SocketTx;

    fn info(&self) -> LinkInfo {
        self.info
    }

    fn split(&mut self) -> (&mut SocketRx, &mut SocketTx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for SocketRx {
    fn receive(&mut self, max: usize) -> usize {
        self.burst.clear();
        while self.burst.len() < max {
            let mut frame = vec![0; usize::from(MTU) + 18];
            match rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::empty()) {
                Ok((len, _)) if len > 0 => frame.truncate(len),
                _ => break,
            }
            self.burst.push(frame);
        }
        self.burst.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        RxFrame { bytes: &self.burst[index], checksum: RxChecksum::Unknown }
    }
}

impl LinkTx for SocketTx {
    fn room(&self) -> usize {
        QUEUE - self.waiting.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next.resize(len, 0xee);
        (self.waiting.len() < QUEUE).then_some(&mut self.next)
    }

    fn commit(&mut self, meta: TxMeta) {
        let mut frame = self.next.clone();
        fill_in_checksums(&mut frame, meta);
        self.waiting.push_back(frame);
    }

    fn flush(&mut self) {
        while let Some(frame) = self.waiting.front() {
            let sent = rustix::net::send(&self.socket, frame, SendFlags::NOSIGNAL);
            if matches!(sent, Err(rustix::io::Errno::AGAIN)) {
                return;
            }
            // Sent, or nobody is there any more.
            self.waiting.pop_front();
        }
    }
}

impl Port for SocketLink {
    fn name(&self) -> &'static str {
        "pair"
    }

    fn attention(&self) -> Attention<'_> {
        Attention::Descriptor(self.rx.socket.as_fd())
    }

    fn has_unsent(&self) -> bool {
        !self.tx.waiting.is_empty()
    }

    fn is_in_doubt(&self) -> bool {
        false
    }

    fn take_fault(&mut self) -> Option<io::Error> {
        None
    }
}

/// The address of a host on the pair: 1 is the client's, 2 the server's.
pub fn ip(v6: bool, host: u8) -> IpAddr {
    match v6 {
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
        false => IpAddr::from([10, 0, 0, host]),
    }
}

pub fn config(host: u8) -> StackConfig {
    StackConfig {
        addresses: vec![
            Address { ip: ip(false, host), prefix: 24 },
            Address { ip: ip(true, host), prefix: 64 },
        ],
        connections_max: 1 << 12,
        ring_class: 1,
        handshake_timeout: Duration::from_secs(5),
        hugepages: false,
        ..StackConfig::default()
    }
}

/// The backend of the server, host 2. It listens.
pub fn server(link: SocketLink) -> Frames<SocketLink> {
    let mut stack = Stack::new(link, &config(2), Now::ZERO).expect("a good configuration");
    stack.listen(PORT).expect("the first listener");
    Frames::new(stack).expect("descriptors")
}

/// A stream as its user and the host's thread see it.
#[derive(Default)]
struct Conn {
    id: Option<ConnId>,
    to_connect: Option<SocketAddr>,
    opened: bool,
    eof: bool,
    gone: Option<Gone>,
    received: VecDeque<u8>,
    to_send: VecDeque<u8>,
    paused: bool,
    reset: bool,
    /// Handles that its user has; without one it is closed.
    handles: usize,
    closing: bool,
}

#[derive(Default)]
struct State {
    conns: HashMap<u64, Conn>,
    ids: HashMap<ConnId, u64>,
    next: u64,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    bell: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no user of the host panicked inside")
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Waits until `done` says something of a stream, for [`PATIENCE`] at most.
    fn wait<R>(&self, key: u64, mut done: impl FnMut(&mut Conn) -> Option<R>) -> io::Result<R> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            let conn = state.conns.get_mut(&key).expect("a stream of this host");
            if let Some(result) = done(conn) {
                return Ok(result);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = self.changed.wait_timeout(state, left).expect("as above").0;
        }
    }
}

/// A client's host.
pub struct Host {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    pub fn start(link: SocketLink) -> Host {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), bell });
        let on_thread = Arc::clone(&shared);
        let run = move || {
            let stack = Stack::new(link, &config(1), Now::ZERO).expect("a good configuration");
            run(&on_thread, stack);
        };
        Host { shared, thread: Some(std::thread::spawn(run)) }
    }

    /// Connects to the server.
    pub fn connect(&self, v6: bool) -> io::Result<Box<dyn Stream>> {
        let to_connect = Some(SocketAddr::new(ip(v6, 2), PORT));
        let mut state = self.shared.lock();
        let key = state.next;
        state.next += 1;
        state.conns.insert(key, Conn { to_connect, handles: 1, ..Conn::default() });
        drop(state);
        let client = Client { shared: Arc::clone(&self.shared), key };
        self.shared.ring();
        let opened = self.shared.wait(key, |conn| match conn.gone {
            Some(_) if !conn.opened => Some(false),
            _ => conn.opened.then_some(true),
        })?;
        match opened {
            true => Ok(Box::new(client)),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.ring();
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the host's thread panicked");
    }
}

fn run(shared: &Shared, mut stack: Stack<SocketLink>) {
    let began = Instant::now();
    let now = || Now::ZERO.after(began.elapsed());
    loop {
        let until = stack.next_deadline().map(|at| at.since(now()));
        let until = until.unwrap_or(PATIENCE).min(PATIENCE);
        let timeout =
            Timespec { tv_sec: until.as_secs() as i64, tv_nsec: i64::from(until.subsec_nanos()) };
        let link = stack.link_mut();
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, link.has_unsent());
        let mut fds = [
            PollFd::from_borrowed_fd(link.rx.socket.as_fd(), wanted),
            PollFd::new(&shared.bell, PollFlags::IN),
        ];
        let _ = poll(&mut fds, Some(&timeout));
        if fds[0].revents().contains(PollFlags::HUP) {
            // The server is gone: time alone goes on.
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = rustix::io::read(&shared.bell, &mut [0u8; 8]);
        stack.poll(now());
        let mut state = shared.lock();
        if state.stop {
            return;
        }
        while let Some(event) = stack.next_event() {
            happened(&mut state, &mut stack, event);
        }
        let State { conns, ids, .. } = &mut *state;
        conns.retain(|&key, conn| {
            serve(conn, &mut stack);
            if let Some(id) = conn.id {
                ids.insert(id, key);
            }
            conn.handles > 0 || (conn.to_connect.is_none() && conn.gone.is_none())
        });
        drop(state);
        shared.changed.notify_all();
        stack.flush(now());
    }
}

fn happened(state: &mut State, stack: &mut Stack<SocketLink>, event: Event) {
    let (Event::Opened(id)
    | Event::Readable(id)
    | Event::Writable(id)
    | Event::Eof(id)
    | Event::Closed(id, _)) = event;
    let Some(conn) = state.ids.get(&id).and_then(|key| state.conns.get_mut(key)) else { return };
    match event {
        Event::Opened(_) => conn.opened = true,
        Event::Readable(_) => {
            if let Some(window) = stack.turn().0.take(id) {
                conn.received.extend(&*window);
            }
        }
        Event::Writable(_) => {}
        Event::Eof(_) => conn.eof = true,
        Event::Closed(_, gone) => {
            conn.gone = Some(gone);
            state.ids.remove(&id);
        }
    }
}

/// Does what the user of a stream wants.
fn serve(conn: &mut Conn, stack: &mut Stack<SocketLink>) {
    if let Some(to) = conn.to_connect.take() {
        match stack.connect(to) {
            Ok(id) => conn.id = Some(id),
            Err(_) => conn.gone = Some(Gone::Failed),
        }
    }
    let Some(id) = conn.id.filter(|_| conn.gone.is_none()) else { return };
    if conn.reset {
        return stack.abort(id);
    }
    if conn.opened && !conn.to_send.is_empty() {
        let sent = stack.turn().1.send_some(id, conn.to_send.make_contiguous());
        conn.to_send.drain(..sent);
    }
    let full = conn.received.len() >= BUFFER;
    if full != std::mem::replace(&mut conn.paused, full) {
        stack.pause(id, full);
    }
    if conn.handles == 0 && conn.to_send.is_empty() && !std::mem::replace(&mut conn.closing, true) {
        stack.close(id);
    }
}

/// A client's stream.
struct Client {
    shared: Arc<Shared>,
    key: u64,
}

impl Read for Client {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (count, was_full) = self.shared.wait(self.key, |conn| {
            let was_full = conn.received.len() >= BUFFER;
            match conn.received.read(buf) {
                Ok(0) if conn.gone == Some(Gone::Reset) => Some((None, false)),
                Ok(0) if conn.eof || conn.gone.is_some() => Some((Some(0), false)),
                Ok(0) => None,
                Ok(count) => Some((Some(count), was_full)),
                Err(_) => None,
            }
        })?;
        if was_full {
            self.shared.ring();
        }
        count.ok_or(io::ErrorKind::ConnectionReset.into())
    }
}

impl Write for Client {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let sent = self.shared.wait(self.key, |conn| {
            if conn.gone.is_some() {
                return Some(None);
            }
            let room = BUFFER.saturating_sub(conn.to_send.len()).min(buf.len());
            conn.to_send.extend(&buf[..room]);
            (room > 0 || buf.is_empty()).then_some(Some(room))
        })?;
        self.shared.ring();
        sent.ok_or(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Client {
    fn finish(&mut self) {
        unreachable!("the stack has no half-close of its own: the lab's suite tries that one");
    }

    fn reset(self: Box<Self>) {
        let _ = self.shared.wait(self.key, |conn| {
            conn.reset = true;
            Some(())
        });
        self.shared.ring();
    }

    fn another(&self) -> Box<dyn Stream> {
        let _ = self.shared.wait(self.key, |conn| {
            conn.handles += 1;
            Some(())
        });
        Box::new(Client { shared: Arc::clone(&self.shared), key: self.key })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(conn) = self.shared.lock().conns.get_mut(&self.key) {
            conn.handles -= 1;
        }
        self.shared.ring();
    }
}
