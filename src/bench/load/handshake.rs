//! Handshakes: connect, 101, close, and again. Closed loop: each connection is opened anew once it
//! has ended. Open loop: one is begun when it is due, as long as there are not too many.

use hioload_ws::Context;

use super::{Conn, Load, Phase};

impl Load {
    /// Opens what is due by the schedule, and again what failed since the last look.
    pub(super) fn open_due(&mut self, now: u64, context: &mut Context<'_, '_, Conn>) {
        if let Some(mut schedule) = self.schedule {
            while self.opening + self.live.len() < self.share() {
                let due = schedule.next();
                if due > now || due >= self.window.until {
                    break;
                }
                schedule.advance();
                let counts_from = self.on_schedule(now, due);
                if !self.begin_one(counts_from, context) {
                    break;
                }
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
    pub(super) fn reopen(&mut self, context: &mut Context<'_, '_, Conn>) {
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
