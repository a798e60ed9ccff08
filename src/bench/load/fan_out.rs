//! Fan-out: what a sender sends reaches every connection but the sender's own, once and in order.
//! Each receiver knows which message of each sender is next, so that what is missing shows as a
//! gap and what comes twice as a number of the past.

use std::sync::atomic::Ordering;

use hioload_ws::{Context, Message};

use super::super::payload::Stamp;
use super::{Conn, Load};

impl Load {
    /// A sender has sent one more.
    pub(super) fn publish(&mut self, sender: u32) {
        if let Some(sent) = self.shared.sent_by.get(sender as usize) {
            // Only this worker writes it; receivers read it once all workers stopped.
            sent.store(sent.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// A message reached one receiver.
    #[inline]
    pub(super) fn delivered(
        &mut self,
        now: u64,
        message: &Message<'_>,
        context: &mut Context<'_, '_, Conn>,
    ) {
        let stamp = self.payloads.stamp(message.payload());
        let right = |stamp: &Stamp| {
            (stamp.sender as usize) < self.plan.senders
                && stamp.at <= now
                && self.payloads.is_right(message.kind(), message.payload(), *stamp)
        };
        let Some(stamp) = stamp.filter(right) else {
            self.tally.errors.corrupt += 1;
            return;
        };
        let Some(conn) = context.state(message.session()) else { return };
        if conn.index == stamp.sender {
            self.tally.errors.unexpected += 1;
            return;
        }
        let Some(expected) = conn.expected.get_mut(stamp.sender as usize) else { return };
        if stamp.number < *expected {
            self.tally.errors.duplicate += 1;
            return;
        }
        self.tally.errors.missing += u64::from(stamp.number - *expected);
        *expected = stamp.number + 1;
        self.arrived(now, stamp.at, message.len());
    }

    /// Deliveries that are still to come here; `None` while some worker may still send.
    pub(super) fn undelivered(&mut self, context: &mut Context<'_, '_, Conn>) -> Option<u64> {
        if self.shared.stopped.load(Ordering::Acquire) < self.workers {
            return None;
        }
        let mut missing = 0;
        for &session in &self.live {
            let Some(conn) = context.state(session) else { continue };
            for (sender, expected) in conn.expected.iter().enumerate() {
                if sender != conn.index as usize {
                    let sent = self.shared.sent_by[sender].load(Ordering::Relaxed);
                    missing += u64::from(sent.saturating_sub(*expected));
                }
            }
        }
        Some(missing)
    }

    /// What did not come counts as missing.
    pub(super) fn count_undelivered(&mut self, context: &mut Context<'_, '_, Conn>) {
        self.tally.errors.missing += self.undelivered(context).unwrap_or(0);
    }
}
