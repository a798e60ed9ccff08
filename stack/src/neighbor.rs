//! Who has which station address: the cache that ARP and NDP fill, bounded in everything.
//!
//! An entry is fresh for a minute; then it is used on while the peer is asked again. Packets for
//! an unknown neighbour wait, a few each; three unanswered questions end them and the entry.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use hioload_core::Now;
use siphasher::sip::SipHasher13;

pub(crate) type Mac = [u8; 6];

const FRESH: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
/// Packets that wait for one neighbour, and for all.
const PENDING_EACH: usize = 4;
const PENDING_ALL: usize = 256;
/// Entries that an eviction compares.
const EVICTION_LOOK: usize = 16;
/// Questions that one tick asks.
pub(crate) const ASKS_MAX: usize = 32;

pub(crate) type Pending = ArrayVec<Box<[u8]>, PENDING_EACH>;

#[derive(Debug, Default)]
struct Entry {
    mac: Option<Mac>,
    fresh_until: Now,
    asked: Now,
    tries: u8,
    pending: Pending,
}

/// What to do with a packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    /// Send it there.
    Known(Mac),
    /// Send it there, and ask whether that is still so.
    Stale(Mac),
    /// Ask, and let it wait.
    Ask,
    /// Asked already; let it wait.
    Wait,
}

/// Hashes by the stack's own secret, not by the process's: a seed of the simulation must give the
/// same order of entries each time.
#[derive(Clone, Debug)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Neighbors {
    entries: HashMap<IpAddr, Entry, Keyed>,
    max: usize,
    pending: usize,
    /// Entries that were asked for and didn't answer yet.
    asking: usize,
    next_tick: Now,
    /// The last answer: mostly all traffic goes to one router.
    memo: Option<(IpAddr, Mac, Now)>,
}

impl Neighbors {
    /// Room for `max` of them; strangers choose addresses, so they must not know the `key`.
    pub(crate) fn new(max: usize, key: SipHasher13) -> Neighbors {
        let entries = HashMap::with_hasher(Keyed(key));
        Neighbors { entries, max, pending: 0, asking: 0, next_tick: Now::ZERO, memo: None }
    }

    #[inline]
    pub(crate) fn lookup(&mut self, ip: IpAddr, now: Now) -> Lookup {
        match self.last(ip, now) {
            Some(mac) => Lookup::Known(mac),
            None => self.lookup_slow(ip, now),
        }
    }

    /// The last answer, where it was for this address and still holds.
    #[inline]
    pub(crate) fn last(&self, ip: IpAddr, now: Now) -> Option<Mac> {
        let (last, mac, until) = self.memo?;
        (last == ip && now < until).then_some(mac)
    }

    fn lookup_slow(&mut self, ip: IpAddr, now: Now) -> Lookup {
        if !self.entries.contains_key(&ip) && self.entries.len() >= self.max {
            self.evict();
        }
        let mut new = false;
        let entry = self.entries.entry(ip).or_insert_with(|| {
            new = true;
            Entry { asked: now, tries: 1, ..Entry::default() }
        });
        if new {
            self.asking += 1;
        }
        match entry.mac {
            Some(mac) if now < entry.fresh_until => {
                self.memo = Some((ip, mac, entry.fresh_until));
                Lookup::Known(mac)
            }
            Some(mac) if entry.tries == 0 => {
                // The tick asks on.
                entry.asked = now;
                entry.tries = 1;
                self.asking += 1;
                Lookup::Stale(mac)
            }
            Some(mac) => Lookup::Known(mac),
            None if new => Lookup::Ask,
            None => Lookup::Wait,
        }
    }

    fn evict(&mut self) {
        let oldest = self.entries.iter().take(EVICTION_LOOK).min_by_key(|(_, e)| e.fresh_until);
        if let Some((&ip, _)) = oldest {
            self.remove(ip);
        }
    }

    fn remove(&mut self, ip: IpAddr) -> usize {
        self.memo = None;
        let Some(entry) = self.entries.remove(&ip) else { return 0 };
        self.pending -= entry.pending.len();
        self.asking -= usize::from(entry.tries > 0);
        entry.pending.len()
    }

    /// Keeps a packet until its neighbour is known. False where it can't.
    pub(crate) fn hold(&mut self, ip: IpAddr, packet: &[u8]) -> bool {
        let Some(entry) = self.entries.get_mut(&ip) else { return false };
        if self.pending >= PENDING_ALL || entry.pending.is_full() {
            return false;
        }
        entry.pending.push(packet.into());
        self.pending += 1;
        true
    }

    /// The peer told its address. One that we didn't ask for makes an entry only with `create`.
    /// Returns what waited.
    pub(crate) fn learn(&mut self, ip: IpAddr, mac: Mac, create: bool, now: Now) -> Pending {
        if mac[0] & 1 == 1 || mac == [0; 6] {
            return Pending::new();
        }
        if !self.entries.contains_key(&ip) {
            if !create {
                return Pending::new();
            }
            if self.entries.len() >= self.max {
                self.evict();
            }
        }
        self.memo = None;
        let entry = self.entries.entry(ip).or_default();
        entry.mac = Some(mac);
        entry.fresh_until = now.after(FRESH);
        self.asking -= usize::from(std::mem::take(&mut entry.tries) > 0);
        let waited = std::mem::take(&mut entry.pending);
        self.pending -= waited.len();
        waited
    }

    /// Once a second: asks again, and gives up. Returns whom to ask, and how many packets were
    /// dropped.
    pub(crate) fn tick(&mut self, now: Now) -> (ArrayVec<IpAddr, ASKS_MAX>, usize) {
        let mut asks = ArrayVec::new();
        if now < self.next_tick {
            return (asks, 0);
        }
        self.next_tick = now.after(ASK_EVERY);
        let mut dead: ArrayVec<IpAddr, ASKS_MAX> = ArrayVec::new();
        // At most `max` entries, once a second.
        for (&ip, entry) in &mut self.entries {
            if entry.tries == 0 || now < entry.asked.after(ASK_EVERY) {
                continue;
            }
            if entry.tries >= TRIES {
                let _full = dead.try_push(ip);
            } else if asks.try_push(ip).is_ok() {
                entry.asked = now;
                entry.tries += 1;
            }
        }
        let lost = dead.into_iter().map(|ip| self.remove(ip)).sum();
        (asks, lost)
    }

    /// When [`Neighbors::tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        (self.asking > 0).then_some(self.next_tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(seconds))
    }

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn packets_wait_for_the_answer_and_come_out_with_it() {
        let mut cache = Neighbors::new(8, SipHasher13::new());
        assert_eq!(cache.lookup(ip(1), at(0)), Lookup::Ask);
        assert!(cache.hold(ip(1), b"one"));
        assert_eq!(cache.lookup(ip(1), at(0)), Lookup::Wait);
        assert!(cache.hold(ip(1), b"two"));
        let waited = cache.learn(ip(1), MAC, false, at(1));
        assert_eq!(waited.iter().map(|p| &p[..]).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(cache.lookup(ip(1), at(1)), Lookup::Known(MAC));
        assert_eq!(cache.next_deadline(), None);
        assert_eq!(cache.lookup(ip(1), at(70)), Lookup::Stale(MAC));
        assert_eq!(cache.lookup(ip(1), at(70)), Lookup::Known(MAC));
        assert!(cache.next_deadline().is_some(), "asked again until it answers");
    }

    #[test]
    fn a_silent_neighbour_is_asked_three_times_and_then_forgotten() {
        let mut cache = Neighbors::new(8, SipHasher13::new());
        assert_eq!(cache.lookup(ip(1), at(0)), Lookup::Ask);
        assert!(cache.hold(ip(1), b"lost"));
        assert_eq!(cache.tick(at(1)).0.len(), 1);
        assert_eq!(cache.tick(at(2)).0.len(), 1);
        assert_eq!(cache.tick(at(3)), (ArrayVec::new(), 1));
        assert_eq!(cache.lookup(ip(1), at(4)), Lookup::Ask);
    }

    #[test]
    fn strangers_fill_neither_table_nor_queue() {
        let mut cache = Neighbors::new(8, SipHasher13::new());
        for n in 0..1000 {
            cache.learn(ip(n), MAC, false, at(0));
            assert!(cache.entries.is_empty());
        }
        for n in 0..1000 {
            cache.lookup(ip(n), at(0));
            cache.hold(ip(n), b"x");
        }
        assert!(cache.entries.len() <= 8 && cache.pending <= 8);
        for _ in 0..100 {
            cache.hold(ip(999), b"x");
        }
        assert!(cache.pending <= 8 * PENDING_EACH);
        assert!(cache.learn(ip(3), [255; 6], true, at(0)).is_empty());
    }
}
