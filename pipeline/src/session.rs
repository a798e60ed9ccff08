//! What the pipeline keeps for a session: one small record while it is idle, and beside it, only
//! while they are needed, an assembly of unfinished input and a queue of unsent output.

use arrayvec::ArrayString;
use hioload_core::clock::Now;
use hioload_core::pool::PoolBuf;
use hioload_core::wheel::TimerKey;
use hioload_ws_proto::Decoder;
use hioload_ws_proto::handshake::{ClientHandshake, ClientRequest, ResponseHead, Scanner};
use hioload_ws_proto::{CloseCode, MAX_REASON_BYTES};

use crate::backend::ConnId;
use crate::handler::ClosedBy;

/// An index that may be absent, in four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Index(u32);

impl Index {
    pub(crate) const NONE: Index = Index(u32::MAX);

    pub(crate) fn some(slot: u32) -> Self {
        debug_assert!(slot != u32::MAX);
        Index(slot)
    }

    #[inline]
    pub(crate) fn get(self) -> Option<u32> {
        (self.0 != u32::MAX).then_some(self.0)
    }
}

/// A time in units of 2^26 ns (67 ms), good for nine years of uptime: idle times need no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Coarse(u32);

impl Coarse {
    const SHIFT: u32 = 26;

    /// The unit that `now` lies in.
    #[inline]
    pub(crate) fn of(now: Now) -> Self {
        Coarse((now.as_nanos() >> Self::SHIFT) as u32)
    }

    /// The end of the unit, so that what is counted from here never comes early.
    pub(crate) fn end(self) -> Now {
        Now::from_nanos((u64::from(self.0) + 1) << Self::SHIFT)
    }
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// As a client: the transport is being connected.
    Connecting,
    /// As a client: the request is out, its answer is arriving.
    Asking,
    /// As a server: the request's head is arriving.
    Handshake,
    /// The handler deferred its verdict.
    Deferred,
    /// Messages flow.
    Open,
    /// We sent Close and wait for the peer's; its messages are discarded.
    Closing,
    /// All is said. What is queued leaves, then the transport closes.
    Flushing,
    /// The backend was told to close or abort; its `Closed` is awaited.
    Leaving,
}

/// The record of a session. With the link by connection it stays within the 64 bytes of the
/// design.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    /// Index of its [`Assembly`].
    pub(crate) assembly: Index,
    /// Index of its output queue.
    pub(crate) queue: Index,
    pub(crate) timer: Option<TimerKey>,
    /// When something last came from the peer.
    pub(crate) heard: Coarse,
    /// When the phase began.
    pub(crate) since: Coarse,
    /// Bytes of output that waited before the last ping: fewer by its deadline show that
    /// the peer is alive, though it is busy reading.
    pub(crate) unsent_at_ping: u32,
    /// The close code that we sent, for `on_close`.
    pub(crate) sent_code: Option<CloseCode>,
    pub(crate) phase: Phase,
    /// A ping went out and nothing came since.
    pub(crate) pinged: bool,
    /// Receiving is paused because output waits.
    pub(crate) paused: bool,
    /// The transport has room: `send` hasn't refused since the last `Writable`.
    pub(crate) writable: bool,
    /// The handler was told of this session and is owed an `on_close`.
    pub(crate) announced: bool,
    /// We opened it: we mask, and the peer closes the transport.
    pub(crate) client: bool,
    /// The peer has finished sending.
    pub(crate) eof: bool,
}

/// The connection's side of the 64 bytes: which session its slot carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) generation: u32,
    pub(crate) session: Index,
}

const _: () = assert!(size_of::<Session>() + size_of::<Link>() <= 64);

impl Session {
    pub(crate) fn new(conn: ConnId, now: Now) -> Self {
        Session {
            conn,
            assembly: Index::NONE,
            queue: Index::NONE,
            timer: None,
            heard: Coarse::of(now),
            since: Coarse::of(now),
            unsent_at_ping: 0,
            sent_code: None,
            phase: Phase::Handshake,
            pinged: false,
            paused: false,
            writable: true,
            announced: false,
            client: false,
            eof: false,
        }
    }

    /// One that this side opens; its transport isn't there yet.
    pub(crate) fn connecting(now: Now) -> Self {
        let phase = Phase::Connecting;
        Session { phase, announced: true, client: true, ..Session::new(ConnId::NONE, now) }
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: Now) {
        self.phase = phase;
        self.since = Coarse::of(now);
    }
}

/// Input that is not whole yet: of a request's head, or of a message.
pub(crate) struct Assembly {
    pub(crate) decoder: Decoder,
    pub(crate) scanner: Scanner,
    /// The head so far, or headroom and payload so far.
    pub(crate) buf: Option<PoolBuf>,
    /// What a deferred handshake answers if it is accepted.
    pub(crate) response: Option<Box<ResponseHead>>,
    /// The opening handshake of a client.
    pub(crate) client: Option<Box<ClientOpening>>,
}

/// How far a client's opening handshake is.
pub(crate) enum ClientOpening {
    /// To be sent once the transport is there.
    Request(ClientRequest),
    /// What the answer is checked against.
    Answer(ClientHandshake),
}

impl Assembly {
    pub(crate) fn new() -> Self {
        Assembly {
            decoder: Decoder::new(),
            scanner: Scanner::new(),
            buf: None,
            response: None,
            client: None,
        }
    }
}

/// How a session ended, by value.
pub(crate) struct Ending {
    pub(crate) code: CloseCode,
    pub(crate) reason: ArrayString<MAX_REASON_BYTES>,
    pub(crate) by: ClosedBy,
}

impl Ending {
    pub(crate) fn new(code: CloseCode, by: ClosedBy) -> Self {
        Ending { code, reason: ArrayString::new(), by }
    }

    /// With a reason, cut at a character's boundary where it is too long for a Close.
    pub(crate) fn with_reason(code: CloseCode, reason: &str, by: ClosedBy) -> Self {
        let cut = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
        let mut ending = Self::new(code, by);
        ending.reason.push_str(cut);
        ending
    }
}
