//! The floor: what an echo costs that does nothing but what it must. One level-triggered epoll
//! loop, one receive buffer for all connections, one receive and one send an event, frames
//! rewritten in place without a check. It is no WebSocket server: it believes all that it is told
//! (see `rehead.rs`), answers a ping with a ping, and closes when the client does.

mod rehead;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use sha1::{Digest as _, Sha1};

use rehead::{HEADROOM, Reheader};

/// What one receive may bring. With a quarter of it, 16 messages of 16 KiB in flight cost about a
/// fourth more CPU a message; twice as much gains nothing.
const RECEIVE_BYTES: usize = 256 * 1024;
/// Events a turn, and connections accepted a turn.
const BURST: usize = 1024;
const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// No file descriptor has this number.
const LISTENER: u64 = u64::MAX;

struct Connection {
    stream: TcpStream,
    frames: Reheader,
    /// Before it is open, the request as far as it came; then, what the socket did not take.
    held: Vec<u8>,
    open: bool,
}

/// How an event left a connection.
enum Next {
    Read,
    /// Nothing is read until all that is held has been sent.
    Write,
    Close,
}

fn main() -> ExitCode {
    hioload_peers::main_with(serve)
}

fn serve(listener: TcpListener) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    // By file descriptor. A number that is closed during a turn can only come back through an
    // accept, and no later event of that turn is meant for its old owner: each has one event.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buf = vec![0; HEADROOM + RECEIVE_BYTES];
    let mut events = Vec::with_capacity(BURST);
    loop {
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let id = event.data.u64();
            if id == LISTENER {
                accept(&epoll, &listener, &mut connections)?;
                continue;
            }
            let Some(slot) = connections.get_mut(id as usize) else { continue };
            let Some(connection) = slot else { continue };
            let was_writing = connection.open && !connection.held.is_empty();
            let next = if was_writing { connection.drain() } else { connection.receive(&mut buf) };
            match next.unwrap_or(Next::Close) {
                Next::Read if was_writing => {
                    epoll::modify(&epoll, &connection.stream, event.data, EventFlags::IN)?;
                }
                Next::Write if !was_writing => {
                    epoll::modify(&epoll, &connection.stream, event.data, EventFlags::OUT)?;
                }
                Next::Read | Next::Write => {}
                Next::Close => *slot = None,
            }
        }
    }
}

fn accept(
    epoll: &impl std::os::fd::AsFd,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    for _ in 0..BURST {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd() as usize;
        epoll::add(epoll, &stream, EventData::new_u64(fd as u64), EventFlags::IN)?;
        if connections.len() <= fd {
            connections.resize_with(fd + 1, || None);
        }
        connections[fd] =
            Some(Connection { stream, frames: Reheader::default(), held: Vec::new(), open: false });
    }
    Ok(())
}

impl Connection {
    fn receive(&mut self, buf: &mut [u8]) -> io::Result<Next> {
        let received = match self.stream.read(&mut buf[HEADROOM..]) {
            Ok(0) => return Ok(Next::Close),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Read),
            Err(error) => return Err(error),
        };
        if !self.open {
            return self.request(buf, received);
        }
        let answer = self.frames.rewrite(buf, HEADROOM + received);
        self.send(&buf[answer])
    }

    /// Takes a part of the opening request. Frames that came with its end are answered, too.
    fn request(&mut self, buf: &mut [u8], received: usize) -> io::Result<Next> {
        self.held.extend(&buf[HEADROOM..HEADROOM + received]);
        let Some(end) = self.held.windows(4).position(|end| end == b"\r\n\r\n") else {
            let endless = self.held.len() > MAX_REQUEST_BYTES;
            return Ok(if endless { Next::Close } else { Next::Read });
        };
        let Some(mut answer) = handshake(&self.held[..end]) else { return Ok(Next::Close) };
        let request = std::mem::take(&mut self.held);
        let frames = &request[end + 4..];
        self.open = true;
        // They came with the last read, so they fit where it went.
        buf[HEADROOM..HEADROOM + frames.len()].copy_from_slice(frames);
        let frames = self.frames.rewrite(buf, HEADROOM + frames.len());
        answer.extend(&buf[frames]);
        self.send(&answer)
    }

    /// Sends an answer; what the socket does not take is held.
    fn send(&mut self, answer: &[u8]) -> io::Result<Next> {
        if answer.is_empty() {
            return Ok(Next::Read);
        }
        let sent = match self.stream.write(answer) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent == answer.len() {
            return Ok(Next::Read);
        }
        self.held.extend(&answer[sent..]);
        Ok(Next::Write)
    }

    fn drain(&mut self) -> io::Result<Next> {
        let held = std::mem::take(&mut self.held);
        self.send(&held)
    }
}

/// The answer to a request that names a key (RFC 6455 section 4.2.2).
fn handshake(request: &[u8]) -> Option<Vec<u8>> {
    let key = std::str::from_utf8(request).ok()?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    })?;
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(hash.finalize());
    Some(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
}
