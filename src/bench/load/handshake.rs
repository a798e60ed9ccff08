//! Handshakes: connect, 101, close, and again. Closed loop: each connection is opened anew once it
//! has ended. Open loop: one is begun when it is due, as long as there are not too many.

use hioload_ws::Context;

use super::schedule::RESOLUTION_NS;
use super::{Conn, Load, Phase};

impl Load {
    /// Opens what is due by the schedule, and again what failed since the last look.
    pub(super) fn open_due(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        if let Some(mut schedule) = self.schedule {
            let due = |schedule: &super::Schedule| {
                Some(schedule.next()).filter(|&due| due <= now && due < self.window.until)
            };
            let mut open = self.opening + self.live.len();
            let mut begun = Vec::new();
            while open < self.share()
                && let Some(due) = due(&schedule)
            {
                schedule.advance();
                open += 1;
                begun.push(due);
            }
            for due in begun {
                let late = now - due;
                let on_time = late <= RESOLUTION_NS;
                if !on_time && due >= self.window.from {
                    self.tally.late += 1;
                    self.tally.latest_ns = self.tally.latest_ns.max(late);
                }
                self.begin_one(if on_time { now } else { due }, context);
            }
            self.schedule = Some(schedule);
        } else {
            // Those that fail at once are tried at the next look.
            for _ in 0..std::mem::take(&mut self.retry) {
                if !self.begin_one(now, context) {
                    self.retry += 1;
                }
            }
        }
    }

    /// A connection has ended as it should.
    pub(super) fn reopen(&mut self, _: u32, context: &mut Context<'_, '_, Conn>) {
        let now = self.shared.now();
        if self.phase == Phase::Run
            && self.schedule.is_none()
            && now < self.window.until
            && !self.begin_one(now, context)
        {
            self.retry += 1;
        }
    }

    fn begin_one(&mut self, due: u64, context: &mut Context<'_, '_, Conn>) -> bool {
        if (self.window.from..self.window.until).contains(&due) {
            self.tally.sent += 1;
        }
        self.open_one(0, due, context)
    }
}
