//! The opening handshake of a session: gathering the head, the handler's verdict, the response,
//! and what already lies behind the head.

use hioload_core::slab::Key;
use hioload_ws_proto::CloseCode;
use hioload_ws_proto::handshake::{
    HeaderSlots, Refusal, Request, ResponseHead, Scanner, parse_request,
};

use crate::backend::RxHalf;
use crate::context::Context;
use crate::handler::{ClosedBy, Handler, Opening, Verdict};
use crate::hub::Owed;
use crate::session::{Assembly, Coarse, Ending, Phase};
use crate::turn::{Turn, unavailable};

impl<'t, Rx: RxHalf<'t>, H: Handler> Turn<'_, 't, Rx, H> {
    /// Takes bytes of the request; gives back what lies behind its head once the session is open.
    pub(crate) fn handshake(&mut self, key: Key, bytes: &'t mut [u8]) -> Option<&'t mut [u8]> {
        let limit = self.hub.settings.max_head_bytes;
        let Some(mut gathered) = self.hub.take_assembly(key) else {
            // Most requests arrive in one piece and are judged where they lie.
            let mut scanner = Scanner::new();
            return match scanner.feed(bytes, limit) {
                Ok(Some(head_len)) => {
                    let (head, rest) = bytes.split_at_mut(head_len);
                    self.judge(key, head, rest)
                }
                Ok(None) => {
                    let Some(mut buf) = self.hub.pool.alloc(bytes.len()) else {
                        self.out_of_memory(key);
                        return None;
                    };
                    buf.append(bytes);
                    let assembly = Assembly { scanner, buf: Some(buf), ..Assembly::new() };
                    self.hub.put_assembly(key, assembly);
                    None
                }
                Err(refusal) => {
                    self.refuse(key, &refusal);
                    None
                }
            };
        };
        let mut buf = gathered.buf.take()?;
        let before = buf.len();
        // The head can't end behind its limit, so more is never looked at.
        let taken = bytes.len().min((limit + 1).saturating_sub(before));
        if buf.tail_room() < taken {
            let Some(mut larger) = self.hub.pool.alloc((before + taken).max(2 * before)) else {
                self.out_of_memory(key);
                return None;
            };
            larger.append(buf.data());
            buf = larger;
        }
        buf.append(&bytes[..taken]);
        match gathered.scanner.feed(buf.data(), limit) {
            Ok(Some(head_len)) => {
                let rest = &mut bytes[head_len.saturating_sub(before)..];
                self.judge(key, &buf.data()[..head_len], rest)
            }
            Ok(None) => {
                gathered.buf = Some(buf);
                self.hub.put_assembly(key, gathered);
                None
            }
            Err(refusal) => {
                self.refuse(key, &refusal);
                None
            }
        }
    }

    /// A whole head: the protocol's checks, then the handler's.
    fn judge(&mut self, key: Key, head: &[u8], rest: &'t mut [u8]) -> Option<&'t mut [u8]> {
        let mut slots = HeaderSlots::new();
        let request = match parse_request(head, &mut slots) {
            Ok(request) => request,
            Err(refusal) => {
                self.refuse(key, &refusal);
                return None;
            }
        };
        if self.hub.draining {
            self.refuse(key, &unavailable("the server is going away"));
            return None;
        }
        let mut response = ResponseHead::new(&request);
        // What the handler does in here can end other sessions: it sees their messages before.
        self.dispatch();
        match self.ask(key, &request, &mut response) {
            Verdict::Accept(state) => {
                self.open(key, state, &response);
                Some(rest)
            }
            Verdict::Refuse(refusal) => {
                self.refuse(key, &refusal);
                None
            }
            Verdict::Defer(state) => {
                self.hub.states[key.slot as usize] = Some(state);
                let assembly = Assembly { response: Some(Box::new(response)), ..Assembly::new() };
                self.hub.put_assembly(key, assembly);
                if let Some(session) = self.hub.sessions.get_mut(key) {
                    // The deadline goes on from where the handshake began.
                    session.phase = Phase::Deferred;
                }
                self.hub.pause(key);
                self.keep_behind(key, rest);
                None
            }
        }
    }

    fn ask(
        &mut self,
        key: Key,
        request: &Request<'_>,
        response: &mut ResponseHead,
    ) -> Verdict<H::Session> {
        let session = self.hub.id(key);
        let peer = self.hub.sessions.get(key).and_then(|s| self.tx.peer(s.conn));
        let mut opening = Opening { session, peer, request, response };
        let Turn { handler, hub, tx, .. } = self;
        handler.on_open(&mut opening, &mut Context { hub, tx: *tx, replying_to: None })
    }

    /// Sends the 101; the session is open.
    fn open(&mut self, key: Key, state: H::Session, response: &ResponseHead) {
        let mut bytes = std::mem::take(&mut self.hub.scratch);
        bytes.clear();
        response.write(&mut bytes);
        let sent = self.hub.raw(key, &bytes, self.tx);
        self.hub.scratch = bytes;
        if !sent {
            return self.out_of_memory(key);
        }
        let now = self.hub.now;
        self.hub.states[key.slot as usize] = Some(state);
        if let Some(session) = self.hub.sessions.get_mut(key) {
            session.announced = true;
            session.heard = Coarse::of(now);
        }
        self.hub.counters.sessions_total.inc();
        self.hub.counters.sessions_open.add(1);
        self.hub.enter(key, Phase::Open);
        self.hub.remember(key);
        self.hub.owed.push(Owed::Ready(key));
        self.settle_owed();
    }

    /// Answers with an HTTP response that refuses, and ends the connection.
    pub(crate) fn refuse(&mut self, key: Key, refusal: &Refusal) {
        self.hub.counters.handshakes_refused_total.inc();
        let mut bytes = std::mem::take(&mut self.hub.scratch);
        bytes.clear();
        refusal.write(&mut bytes);
        // Without memory for it the peer just sees the end.
        self.hub.raw(key, &bytes, self.tx);
        self.hub.scratch = bytes;
        self.hub.states[key.slot as usize] = None;
        // No session was announced, so nobody is told of this ending.
        self.hub.finish(key, Ending::new(CloseCode::ABNORMAL, ClosedBy::Us));
    }

    fn out_of_memory(&mut self, key: Key) {
        self.hub.counters.refused_by_memory_total.inc();
        self.refuse(key, &unavailable("memory is short"));
    }

    /// What comes before a deferred verdict waits, behind a pause of receiving.
    pub(crate) fn keep_behind(&mut self, key: Key, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let kept = self.hub.assembly(key).and_then(|assembly| assembly.buf.take());
        let before = kept.as_ref().map_or(&[][..], |buf| buf.data());
        // Bounded by two turns' input: receiving was paused when the verdict was deferred.
        let Some(mut all) = self.hub.pool.alloc(before.len() + bytes.len()) else {
            return self.out_of_memory(key);
        };
        all.append(before);
        all.append(bytes);
        if let Some(assembly) = self.hub.assembly(key) {
            assembly.buf = Some(all);
        }
    }

    /// The verdict on a deferred handshake is yes.
    pub(crate) fn accept_deferred(&mut self, key: Key) {
        if self.hub.sessions.get(key).is_none_or(|session| session.phase != Phase::Deferred) {
            return;
        }
        let Some(Assembly { buf, response: Some(response), .. }) = self.hub.take_assembly(key)
        else {
            return;
        };
        let Some(state) = self.hub.states[key.slot as usize].take() else { return };
        self.open(key, state, &response);
        self.hub.resume(key);
        if let Some(mut kept) = buf {
            self.kept_frames(key, kept.data_mut());
            // Nobody else hands on what comes outside of the transport's events.
            self.dispatch();
        }
    }
}
