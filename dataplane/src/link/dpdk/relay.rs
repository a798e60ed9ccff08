//! What every worker must hear though the device shows it to one: who has which station address, and
//! what the network says about packets. A device hashes such a frame, if at all, not as the
//! connection that it is about. Copies of it go to the other queues' workers over bounded rings.
//!
//! Questions (ARP requests, neighbour solicitations, pings) aren't copied: one answer is enough.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use hioload_pipeline::backend::Wake;

/// Frames that wait for one worker.
const SLOTS: usize = 256;
/// Bytes of a frame that are copied: an ICMP error and what it quotes are shorter (RFC 4443 §3).
const BYTES_MAX: usize = 1514;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A worker's end.
#[derive(Clone)]
pub(super) struct Relay {
    desks: Arc<[Desk]>,
    own: usize,
}

/// What one worker is to hear, and how it is woken if it sleeps.
struct Desk {
    ring: ArrayQueue<Box<[u8]>>,
    waker: Mutex<Option<Arc<dyn Wake>>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Relay {
    /// The ends of so many workers.
    pub(super) fn new(workers: u16) -> Vec<Relay> {
        let desk = |_| Desk { ring: ArrayQueue::new(SLOTS), waker: Mutex::default() };
        let desks: Arc<[_]> = (0..workers).map(desk).collect();
        (0..workers.into()).map(|own| Relay { desks: Arc::clone(&desks), own }).collect()
    }

    /// Who is woken when there is something for this worker.
    pub(super) fn wake_by(&self, waker: Arc<dyn Wake>) {
        let desk = &self.desks[self.own];
        *desk.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// A frame that another worker received.
    #[inline]
    pub(super) fn take(&self) -> Option<Box<[u8]>> {
        self.desks[self.own].ring.pop()
    }

    /// Gives copies of a frame to the others. Returns how many of them had no room.
    #[cold]
    pub(super) fn tell(&self, frame: &[u8]) -> u64 {
        let frame = &frame[..frame.len().min(BYTES_MAX)];
        let others = self.desks.iter().enumerate().filter(|(index, _)| *index != self.own);
        let refused = others.filter(|(_, desk)| {
            let refused = desk.ring.push(frame.into()).is_err();
            let waker = desk.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = &*waker {
                waker.wake();
            }
            refused
        });
        refused.count() as u64
    }
}

/// Whether all workers must hear of a frame.
#[inline]
pub(super) fn concerns_all(frame: &[u8]) -> bool {
    let Some((&ethertype, rest)) = frame.get(12..).and_then(|rest| rest.split_first_chunk()) else {
        return false;
    };
    match ethertype {
        ETHERTYPE_VLAN => match rest.get(2..).and_then(|rest| rest.split_first_chunk()) {
            Some((&inner, packet)) => is_news(inner, packet),
            None => false,
        },
        _ => is_news(ethertype, rest),
    }
}

#[inline]
fn is_news(ethertype: [u8; 2], packet: &[u8]) -> bool {
    match ethertype {
        ETHERTYPE_IPV4 if packet.get(9) == Some(&ICMP) => {
            let header = usize::from(packet[0] & 15) * 4;
            // RFC 792: unreachable, time exceeded, parameter problem.
            matches!(packet.get(header), Some(3 | 11 | 12))
        }
        // RFC 4443: errors; RFC 4861: neighbour advertisement.
        ETHERTYPE_IPV6 if packet.get(6) == Some(&ICMPV6) => {
            matches!(packet.get(40), Some(1..=4 | 136))
        }
        // RFC 826: a reply, or anything else that isn't a request.
        ETHERTYPE_ARP => packet.get(6..8).is_some_and(|op| op != [0, 1]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: [u8; 2], len: usize, bytes: &[(usize, u8)], tagged: bool) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if tagged {
            frame.extend([0x81, 0x00, 0, 5]);
        }
        frame.extend(ethertype);
        let start = frame.len();
        frame.resize(start + len, 0);
        for (at, byte) in bytes {
            frame[start + at] = *byte;
        }
        frame
    }

    #[test]
    fn answers_and_errors_concern_all_and_questions_and_segments_do_not() {
        for tagged in [false, true] {
            for (ethertype, len, bytes, wanted) in [
                (ETHERTYPE_ARP, 28, &[(7, 1)][..], false),
                (ETHERTYPE_ARP, 28, &[(7, 2)], true),
                (ETHERTYPE_IPV4, 60, &[(0, 0x45), (9, 6)], false),
                (ETHERTYPE_IPV4, 60, &[(0, 0x45), (9, ICMP), (20, 8)], false),
                (ETHERTYPE_IPV4, 60, &[(0, 0x45), (9, ICMP), (20, 3)], true),
                (ETHERTYPE_IPV4, 60, &[(0, 0x46), (9, ICMP), (24, 11)], true),
                (ETHERTYPE_IPV6, 60, &[(6, 6)], false),
                (ETHERTYPE_IPV6, 60, &[(6, ICMPV6), (40, 135)], false),
                (ETHERTYPE_IPV6, 60, &[(6, ICMPV6), (40, 136)], true),
                (ETHERTYPE_IPV6, 60, &[(6, ICMPV6), (40, 2)], true),
                ([0x88, 0xcc], 60, &[], false),
            ] {
                let frame = frame(ethertype, len, bytes, tagged);
                assert_eq!(concerns_all(&frame), wanted, "{frame:?}");
            }
        }
    }

    #[test]
    fn no_cut_frame_is_looked_at_beyond_its_end() {
        for (ethertype, bytes) in [
            (ETHERTYPE_IPV4, &[(0, 0x4f), (9, ICMP)][..]),
            (ETHERTYPE_IPV6, &[(6, ICMPV6)]),
            (ETHERTYPE_ARP, &[]),
        ] {
            let whole = frame(ethertype, 41, bytes, true);
            for len in 0..whole.len() {
                concerns_all(&whole[..len]);
            }
        }
    }

    #[test]
    fn all_others_hear_it_and_a_full_ring_is_counted() {
        let workers = Relay::new(3);
        assert_eq!(workers[1].tell(&[7; 60]), 0);
        assert!(workers[1].take().is_none());
        assert_eq!(workers[0].take().as_deref(), Some(&[7; 60][..]));
        for _ in 1..SLOTS {
            assert_eq!(workers[1].tell(&[7; 60]), 0);
        }
        assert_eq!(workers[1].tell(&[8; 2000]), 1, "worker 2 has taken none");
        assert_eq!(workers[1].tell(&[9; 60]), 2, "both are full");
    }
}
