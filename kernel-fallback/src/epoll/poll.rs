//! Collecting events: what is owed from the last turn, what epoll reports, what is accepted.
//!
//! Cost of a message on the straight path: its share of one `epoll_wait`, and the `recv` and
//! `send` of its connection.

use std::io;
use std::os::fd::RawFd;

use hioload_core::clock::Now;
use hioload_core::wait::Wait;
use hioload_pipeline::backend::{ConnId, Event, Events, Gone};

use super::accept::LISTENER_SLOTS;
use super::conn::{
    CLOSING, CONNECTING, EOF, NONE, OWED_EOF, OWED_WRITABLE, PAUSED, gone_by, unpack,
};
use super::halves::is_temporary;
use super::{ALARM_SLOT, BELL_SLOT, Epoll, sys};

/// Receives of what is discarded, a connection a turn.
const DISCARDS_MAX: usize = 2;

impl Epoll {
    pub(super) fn collect(&mut self, now: Now, wait: Wait, events: &mut Events) -> io::Result<()> {
        // Nothing of an earlier turn is left, even if its flush was forgotten.
        if !self.pending.is_empty() {
            self.flush_pending();
        }
        self.ready = 0;
        let fd_freed = self.table.take_fd_freed();
        self.acceptor.recover(self.table.ep(), now, fd_freed);
        self.give_owed(events);

        // Each report of a connection becomes one event at most; some room is left for accepting.
        let room = events.room();
        let reports = room - self.acceptor.burst().min(room / 4);
        let reports = reports.min(self.reports.len());
        if reports == 0 {
            return Ok(());
        }
        let timeout = match events.as_slice().is_empty() {
            true => self.alarm.timeout_ms(now, wait),
            false => 0,
        };
        self.counters.wait_calls_total.inc();
        let count = match sys::epoll_wait(self.table.ep(), &mut self.reports[..reports], timeout) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for index in 0..count {
            let report = self.reports[index];
            let (raw, id) = (report.events, unpack(report.u64));
            if id.slot < LISTENER_SLOTS {
                self.reported(id, raw, events);
            } else if id.slot == ALARM_SLOT {
                self.alarm.went_off();
            } else if id.slot != BELL_SLOT {
                self.acceptor.accept(id.slot, now, &mut self.table, events, &self.counters);
            }
        }
        self.give_owed(events);
        Ok(())
    }

    /// Gives the events that earlier work left, oldest first, as far as there is room.
    fn give_owed(&mut self, events: &mut Events) {
        while let Some(id) = self.table.next_owed() {
            if events.room() == 0 {
                return;
            }
            let Some(conn) = self.table.get(id) else {
                self.table.settled();
                continue;
            };
            if let Some(gone) = conn.gone() {
                let backlog = conn.backlog.get();
                let was_open = !conn.is(CONNECTING);
                self.table.settled();
                self.table.remove(id);
                self.drop_backlog(backlog);
                if was_open {
                    self.counters.connections_open.sub(1);
                }
                events.push(Event::Closed(id, gone));
            } else if conn.unset(OWED_EOF) {
                if !conn.is(CLOSING) {
                    events.push(Event::Eof(id));
                }
            } else if conn.unset(OWED_WRITABLE) {
                if !conn.is(CLOSING) {
                    events.push(Event::Writable(id));
                }
            } else {
                self.table.settled();
            }
        }
    }

    /// What epoll reports of a connection. It reports again next time what isn't dealt with.
    fn reported(&mut self, id: ConnId, raw: u32, events: &mut Events) {
        let Some(conn) = self.table.live(id) else { return };
        if conn.is(CONNECTING) {
            return self.connected(id, events);
        }
        if raw & sys::OUT != 0 && conn.backlog.get() != NONE {
            self.send_backlog(id);
        }
        let Some(conn) = self.table.live(id) else { return };
        let lost = raw & (sys::ERR | sys::HUP) != 0;
        if raw & sys::IN == 0 && !lost {
            return;
        }
        if conn.is(CLOSING) {
            self.discard(id, lost);
        } else if !conn.is(PAUSED | EOF) {
            // Also where it is lost: receiving gives what came before, then the reason.
            if events.room() > 0 {
                self.ready += 1;
                events.push(Event::Readable(id));
            }
        } else if lost {
            // Nobody receives, and epoll can't be told to keep silent about this.
            self.table.end(id, conn, self.reason(conn.fd()));
        }
    }

    fn reason(&self, fd: RawFd) -> Gone {
        match sys::take_error(fd) {
            Ok(Some(error)) => gone_by(&error),
            // The error was given to a call before.
            _ => Gone::Reset,
        }
    }

    /// An outgoing connection is established, or failed.
    fn connected(&mut self, id: ConnId, events: &mut Events) {
        if events.room() == 0 {
            return;
        }
        let Some(conn) = self.table.live(id) else { return };
        match sys::take_error(conn.fd()) {
            Ok(None) => {
                conn.clear(CONNECTING);
                self.counters.connected_total.inc();
                self.counters.connections_open.add(1);
                events.push(Event::Opened(id));
                self.table.rewatch(id, conn);
            }
            Ok(Some(error)) | Err(error) => self.table.end(id, conn, gone_by(&error)),
        }
    }

    /// Receives from a connection that is being closed what nobody will read, so that the peer
    /// gets to our last bytes instead of a reset (RFC 9112 §9.6 describes why).
    fn discard(&mut self, id: ConnId, lost: bool) {
        let Some(conn) = self.table.live(id) else { return };
        if conn.is(EOF) {
            if lost {
                self.table.end(id, conn, self.reason(conn.fd()));
            }
            return;
        }
        for _ in 0..DISCARDS_MAX {
            self.counters.recv_calls_total.inc();
            // Between two turns the arena holds nothing that is needed.
            match sys::recv(conn.fd(), self.arena.memory_mut()) {
                Ok(0) => {
                    conn.set(EOF);
                    if conn.all_sent() {
                        self.table.end(id, conn, Gone::Finished);
                    } else {
                        self.table.rewatch(id, conn);
                    }
                    return;
                }
                Ok(count) => self.counters.recv_bytes_total.add(count as u64),
                Err(error) => {
                    if !is_temporary(&error) {
                        self.table.end(id, conn, gone_by(&error));
                    } else if lost {
                        self.table.end(id, conn, self.reason(conn.fd()));
                    }
                    return;
                }
            }
        }
    }
}
