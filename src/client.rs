//! A client: sessions that this side opens to a server, on worker threads like a server's, with
//! the same [`Handler`]. What is set ([`ClientBuilder`]) is checked, the server's address found,
//! and the workers open their shares of the connections.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hioload_pipeline::{Batch, Closed, Context, Handler, Opening, SessionId, Settings, Verdict};
use hioload_ws_proto::handshake::{ClientRequest, Response, WsUrl};

use crate::server::launch::{Launch, Pinning};
use crate::server::{BackendChoice, Error, Network, Running, WorkerContext};

/// Handshakes that a worker has under way at a time.
const OPENING_MAX: usize = 64;
/// How long an address of several may take to show that it accepts.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A WebSocket client; see [`Client::builder`].
#[derive(Debug)]
pub struct Client;

impl Client {
    /// A client with the defaults: one connection, one worker.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            url: String::new(),
            connections: 1,
            subprotocols: Vec::new(),
            headers: Vec::new(),
            launch: Launch::new(1, Pinning::Last),
        }
    }
}

/// What a client is to be. Nothing is looked up, opened or started before [`ClientBuilder::start`]
/// and its like.
///
/// ```no_run
/// use hioload_ws::{Client, on_message};
///
/// fn main() -> Result<(), hioload_ws::Error> {
///     Client::builder().url("ws://127.0.0.1:9001/").run(on_message(|message, _| {
///         println!("{} bytes", message.len());
///     }))
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a client starts with `run` or `start`"]
pub struct ClientBuilder {
    url: String,
    connections: usize,
    subprotocols: Vec<String>,
    headers: Vec<(String, String)>,
    launch: Launch,
}

/// Where a client connects, and what it asks for there: what [`Context::connect`] takes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address that the URL's host has.
    pub address: SocketAddr,
    /// The request, the same for every connection.
    pub request: ClientRequest,
}

impl ClientBuilder {
    /// The server, as `ws://host:port/path?query`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Connections in all; the workers share them out.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Worker threads; 0: one for each core that this process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.launch.workers = workers;
        self
    }

    /// Offers a subprotocol, after those that are wanted more.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Adds a header to the request, such as `Origin` or `Authorization`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// All limits, deadlines and policies of the workers at once.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.launch.settings = settings;
        self
    }

    /// Which backend moves the bytes.
    pub fn backend(mut self, backend: BackendChoice) -> Self {
        self.launch.backend = backend;
        self
    }

    /// Takes an interface, and opens the connections from this program's own TCP/IP there: backends
    /// `tap` and `af-packet`, and `auto` chooses between these. With one worker, the only one there
    /// can be on such a link. The server's name is still looked up by the system; one that is this
    /// host itself can't be reached from its own interface (but from a TAP device or the other end
    /// of a veth pair).
    pub fn network(mut self, network: Network) -> Self {
        self.launch.network = Some(network);
        self
    }

    /// The most memory for buffers, in bytes, at least 2 MiB; a quarter of the machine's unless
    /// set.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.launch.memory_budget = Some(bytes);
        self
    }

    /// Takes SIGINT and SIGTERM as [`Builder::handle_signals`](crate::Builder::handle_signals)
    /// does. Off unless set.
    pub fn handle_signals(mut self, handle: bool) -> Self {
        self.launch.handle_signals = handle;
        self
    }

    /// Whether each worker is pinned to a core of its own, the last core first, so that a server
    /// on the same machine keeps the first ones. On unless set.
    pub fn pin(mut self, pin: bool) -> Self {
        self.launch.pinning = if pin { Pinning::Last } else { Pinning::No };
        self
    }

    /// Checks all that can be checked without looking anything up.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Tls`], [`Error::Request`], [`Error::Setting`], [`Error::Backend`].
    pub fn check(&self) -> Result<(), Error> {
        self.request()?;
        self.launch.check(None)
    }

    fn parsed(&self) -> Result<WsUrl, Error> {
        let given = || self.url.clone();
        let url = WsUrl::parse(&self.url).map_err(|error| Error::Url { given: given(), error })?;
        // Falling back to plain text would give away what was to be kept.
        if url.is_secure() { Err(Error::Tls { given: given() }) } else { Ok(url) }
    }

    fn request(&self) -> Result<ClientRequest, Error> {
        let url = self.parsed()?;
        let mut request =
            ClientRequest::new(url.authority(), url.target()).map_err(Error::Request)?;
        for (name, value) in &self.headers {
            request.header(name, value).map_err(Error::Request)?;
        }
        for name in &self.subprotocols {
            request.subprotocol(name).map_err(Error::Request)?;
        }
        Ok(request)
    }

    /// Looks the server up. Where its name has several addresses, they are tried in the system's
    /// order, and the first that accepts a TCP connection is taken for all connections; on a network
    /// of one's own, the first of a family that it has an address of.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Tls`], [`Error::Request`], [`Error::Resolve`], [`Error::Connect`],
    /// [`Error::Setting`].
    pub fn target(&self) -> Result<Target, Error> {
        let (url, request) = (self.parsed()?, self.request()?);
        let (host, port) = (url.host(), url.port());
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "it has none");
        let unresolved = |source| Error::Resolve { host: host.into(), source };
        let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
        if let Some(network) = &self.launch.network {
            let first = found.into_iter().find(|found| network.speaks(found.ip()));
            let address = first.ok_or_else(|| {
                let problem = format!(
                    "none of the family (IPv4, IPv6) that {host} has; give this side one of it"
                );
                Error::Setting { name: "address", problem }
            })?;
            return Ok(Target { address, request });
        }
        let address = match found[..] {
            [] => return Err(unresolved(none())),
            [only] => only,
            _ => first_that_accepts(&found)
                .map_err(|source| Error::Connect { server: format!("{host}:{port}"), source })?,
        };
        Ok(Target { address, request })
    }

    /// Opens the connections with a clone of `handler` on each worker, and waits until all of them
    /// have ended. A connection that can't be opened is the handler's to know
    /// ([`Handler::on_close`]).
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NotOpened`] where not one connection could be opened.
    pub fn run<H>(self, handler: H) -> Result<(), Error>
    where
        H: Handler<Session: Default> + Clone + Send + 'static,
    {
        self.run_each(handler, |_| H::Session::default())
    }

    /// Like [`ClientBuilder::run`], with the session state that `state` makes of the connection's
    /// number, from 0.
    ///
    /// # Errors
    /// As for [`ClientBuilder::run`].
    pub fn run_each<H, F>(self, handler: H, state: F) -> Result<(), Error>
    where
        H: Handler + Clone + Send + 'static,
        F: Fn(usize) -> H::Session + Send + Sync + 'static,
    {
        let (running, group) = self.open(handler, state)?;
        running.join()?;
        match group.failure() {
            Some(why) if group.opened.load(Ordering::Relaxed) == 0 => Err(Error::NotOpened { why }),
            _ => Ok(()),
        }
    }

    /// Like [`ClientBuilder::run`], but returns once the workers run. They end by themselves when
    /// all connections have ended.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotOpened`].
    pub fn start<H>(self, handler: H) -> Result<Running, Error>
    where
        H: Handler<Session: Default> + Clone + Send + 'static,
    {
        self.start_each(handler, |_| H::Session::default())
    }

    /// Like [`ClientBuilder::start`], with the session state that `state` makes of the
    /// connection's number, from 0.
    ///
    /// # Errors
    /// As for [`ClientBuilder::start`].
    pub fn start_each<H, F>(self, handler: H, state: F) -> Result<Running, Error>
    where
        H: Handler + Clone + Send + 'static,
        F: Fn(usize) -> H::Session + Send + Sync + 'static,
    {
        self.open(handler, state).map(|(running, _)| running)
    }

    /// Starts workers that open nothing by themselves: each handler, made by `make` on its
    /// worker's thread, opens what it wants with [`Context::connect`], and the workers run until
    /// they are told to end.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotOpened`].
    pub fn start_with<H, F>(self, make: F) -> Result<Running, Error>
    where
        H: Handler + 'static,
        F: Fn(&WorkerContext, &Target) -> H + Send + Sync + 'static,
    {
        self.check()?;
        let target = Arc::new(self.target()?);
        let make = Arc::new(make);
        let wanted = ("connections", self.connections);
        self.launch.start(None, wanted, &mut || {
            let (make, target) = (Arc::clone(&make), Arc::clone(&target));
            Box::new(move |worker: &WorkerContext| make(worker, &target))
        })
    }

    fn open<H, F>(self, handler: H, state: F) -> Result<(Running, Arc<Group>), Error>
    where
        H: Handler + Clone + Send + 'static,
        F: Fn(usize) -> H::Session + Send + Sync + 'static,
    {
        let group = Arc::new(Group::default());
        let (of_all, connections, state) = (Arc::clone(&group), self.connections, Arc::new(state));
        // The handler is cloned on the threads of the workers, which `Clone + Send` allows one
        // at a time.
        let handler = Mutex::new(handler);
        let running = self.start_with(move |worker, target| {
            let inner = handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Connector {
                inner,
                state: Arc::clone(&state),
                target: target.clone(),
                next: worker.index(),
                step: worker.workers(),
                connections,
                opening: Vec::with_capacity(OPENING_MAX),
                group: Arc::clone(&of_all),
                ended: false,
            }
        })?;
        Ok((running, group))
    }
}

fn first_that_accepts(addresses: &[SocketAddr]) -> std::io::Result<SocketAddr> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(address, PROBE_TIMEOUT) {
            Ok(_) => return Ok(*address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the workers of one client know together.
#[derive(Default)]
struct Group {
    opened: AtomicUsize,
    /// Workers that have nothing left.
    ended: AtomicUsize,
    failure: Mutex<Option<String>>,
}

impl Group {
    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, why: &str) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| why.into());
    }
}

/// Opens a worker's share of the connections around the user's handler, a bounded number at a
/// time, and ends the workers once nothing is left.
struct Connector<H, F> {
    inner: H,
    state: Arc<F>,
    target: Target,
    /// The number of the next connection of this worker.
    next: usize,
    step: usize,
    connections: usize,
    /// Those whose handshake is under way.
    opening: Vec<SessionId>,
    group: Arc<Group>,
    ended: bool,
}

impl<H: Handler, F: Fn(usize) -> H::Session> Connector<H, F> {
    fn go_on(&mut self, context: &mut Context<'_, '_, H::Session>) {
        while self.next < self.connections && self.opening.len() < OPENING_MAX {
            let state = (self.state)(self.next);
            self.next += self.step;
            match context.connect(self.target.address, self.target.request.clone(), state) {
                Ok(session) => self.opening.push(session),
                Err(error) => self.group.failed(&error.to_string()),
            }
        }
        let over = self.next >= self.connections && context.counters().sessions_open.get() == 0;
        if over && !std::mem::replace(&mut self.ended, true) {
            let workers = context.remote().workers();
            if self.group.ended.fetch_add(1, Ordering::Relaxed) + 1 == workers {
                let remote = context.remote().clone();
                // It may wait for a full inbox, perhaps this worker's own.
                let told = thread::Builder::new().name("end".into()).spawn(move || remote.drain());
                if let Err(error) = told {
                    tracing::error!(%error, "no thread to end the client's workers with");
                }
            }
        }
    }

    /// True: its handshake was under way until now.
    fn settled(&mut self, session: SessionId) -> bool {
        let at = self.opening.iter().position(|opening| *opening == session);
        at.map(|at| self.opening.swap_remove(at)).is_some()
    }
}

impl<H: Handler, F: Fn(usize) -> H::Session> Handler for Connector<H, F> {
    type Session = H::Session;

    fn on_start(&mut self, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_start(context);
        self.go_on(context);
    }

    fn on_open(
        &mut self,
        opening: &mut Opening<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) -> Verdict<H::Session> {
        self.inner.on_open(opening, context)
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_ready(session, context);
    }

    fn on_connected(
        &mut self,
        session: SessionId,
        response: &Response<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        self.group.opened.fetch_add(1, Ordering::Relaxed);
        self.settled(session);
        self.inner.on_connected(session, response, context);
        self.go_on(context);
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, H::Session>) {
        self.inner.on_batch(batch);
    }

    fn on_writable(&mut self, session: SessionId, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_writable(session, context);
    }

    fn on_close(
        &mut self,
        session: SessionId,
        state: H::Session,
        closed: Closed<'_>,
        context: &mut Context<'_, '_, H::Session>,
    ) {
        if self.settled(session) {
            self.group.failed(closed.reason);
        }
        self.inner.on_close(session, state, closed, context);
        self.go_on(context);
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_, '_, H::Session>) {
        self.inner.on_timer(token, context);
        self.go_on(context);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn client(url: &str) -> ClientBuilder {
        Client::builder().url(url).network(Network::on("v0").address("10.9.0.3/24"))
    }

    #[test]
    fn a_client_of_its_own_network_is_checked_like_a_server() {
        assert!(client("ws://10.9.0.2:9001/").check().is_ok());
        for (client, part) in [
            (client("ws://10.9.0.2:9001/").workers(2), "workers"),
            (client("ws://10.9.0.2:9001/").backend(BackendChoice::Epoll), "epoll"),
            (Client::builder().url("ws://10.9.0.2/").network(Network::on("v0")), "address"),
        ] {
            let message = client.check().unwrap_err().to_string();
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn its_server_has_to_speak_a_family_that_it_has() {
        let target = client("ws://192.0.2.7:80/").target().unwrap();
        assert_eq!(target.address, "192.0.2.7:80".parse().unwrap());
        let message = client("ws://[fd00::2]:80/").target().unwrap_err().to_string();
        assert!(message.contains("family"), "{message}");
    }
}
