//! Who has which station address: the cache that ARP and NDP fill, bounded in everything.
//!
//! An entry is fresh for a minute; then it is used on while the peer is asked again. Packets for
//! an unknown neighbour wait, a few each; three unanswered questions end them.
//!
//! Whoever can send us a packet can have us ask for its source address, one multicast frame each: how
//! many new addresses are asked for a second is limited, and they give way to all others where the
//! cache is full (RFC 6583 §7). Not so for neighbours that are trusted: routers, those that answered
//! before, and those that we open connections to. A silent one keeps its entry, and is asked once a
//! second at most.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use hioload_core::Now;
use siphasher::sip::SipHasher13;

use crate::config::StackConfig;
use crate::counters::StackCounters;
use crate::rate::Bucket;

pub(crate) type Mac = [u8; 6];

const FRESH: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
/// Packets that wait for one neighbour, for all, and up to which strangers' may.
const PENDING_EACH: usize = 4;
const PENDING_ALL: usize = 256;
const PENDING_STRANGERS: usize = PENDING_ALL / 2;
/// Entries that an eviction compares where strangers can cause any number of them.
const EVICTION_LOOK: usize = 16;
/// Questions that one tick asks again.
pub(crate) const ASKS_MAX: usize = 32;

pub(crate) type Pending = ArrayVec<Box<[u8]>, PENDING_EACH>;

#[derive(Debug, Default)]
struct Entry {
    mac: Option<Mac>,
    fresh_until: Now,
    /// When it was last asked; `None`: never.
    asked: Option<Now>,
    /// Questions that it hasn't answered. 0: it isn't being asked.
    tries: u8,
    /// It isn't just an address that a stranger wrote: see the module.
    trusted: bool,
    pending: Pending,
}

impl Entry {
    /// Who gives way first in a full cache: the unknown, those that went silent, the oldest answers.
    fn worth(&self) -> (bool, bool, Now) {
        (self.trusted, self.mac.is_some(), self.fresh_until)
    }

    /// Whether a second has passed since the last question.
    fn is_due(&self, now: Now) -> bool {
        self.asked.is_none_or(|asked| now >= asked.after(ASK_EVERY))
    }

    fn ask(&mut self, now: Now) {
        self.asked = Some(now);
        self.tries += 1;
    }
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
    /// Don't ask; let it wait, if [`Neighbors::hold`] takes it.
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
    routers: [Option<IpAddr>; 2],
    /// For unknown addresses that strangers chose.
    ask_rate: Bucket,
    counters: Arc<StackCounters>,
    pending: usize,
    /// Entries that were asked for and didn't answer yet.
    asking: usize,
    next_tick: Now,
    /// The last answer: mostly all traffic goes to one router.
    memo: Option<(IpAddr, Mac, Now)>,
}

impl Neighbors {
    /// Strangers choose addresses, so they must not know the `key`.
    pub(crate) fn new(
        config: &StackConfig,
        key: SipHasher13,
        counters: Arc<StackCounters>,
    ) -> Neighbors {
        Neighbors {
            entries: HashMap::with_hasher(Keyed(key)),
            max: config.neighbors_max,
            routers: [config.gateway_v4.map(IpAddr::V4), config.gateway_v6.map(IpAddr::V6)],
            ask_rate: Bucket::new(config.asks_per_second),
            counters,
            pending: 0,
            asking: 0,
            next_tick: Now::ZERO,
            memo: None,
        }
    }

    /// A connection to this neighbour is being opened: a packet for it is no stranger's doing.
    pub(crate) fn expect(&mut self, ip: IpAddr, now: Now) {
        if self.last(ip, now).is_none() {
            self.entry(ip, EVICTION_LOOK).trusted = true;
        }
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
        if !self.entries.contains_key(&ip) {
            let trusted = self.routers.contains(&Some(ip));
            if !trusted && !self.ask_rate.take(now) {
                self.counters.asks_withheld_total.inc();
                return Lookup::Wait;
            }
            // As seldom as the rate allows, so it may look at all of them: the unknown go first.
            let look = self.max;
            self.entry(ip, look).trusted = trusted;
        }
        let Some(entry) = self.entries.get_mut(&ip) else { return Lookup::Wait };
        match entry.mac {
            Some(mac) if now < entry.fresh_until => {
                self.memo = Some((ip, mac, entry.fresh_until));
                Lookup::Known(mac)
            }
            // Once it is being asked, the tick asks on.
            known if entry.tries == 0 && entry.is_due(now) => {
                entry.ask(now);
                self.asking += 1;
                known.map_or(Lookup::Ask, Lookup::Stale)
            }
            known => known.map_or(Lookup::Wait, Lookup::Known),
        }
    }

    /// The entry of an address; a new one takes the place of one among `look`, if there is no other.
    fn entry(&mut self, ip: IpAddr, look: usize) -> &mut Entry {
        if !self.entries.contains_key(&ip) && self.entries.len() >= self.max {
            let least = self.entries.iter().take(look).min_by_key(|(_, entry)| entry.worth());
            if let Some((&least, _)) = least {
                let lost = self.remove(least);
                self.counters.drop_neighbor_total.add(lost as u64);
            }
        }
        self.entries.entry(ip).or_default()
    }

    fn remove(&mut self, ip: IpAddr) -> usize {
        self.memo = None;
        let Some(entry) = self.entries.remove(&ip) else { return 0 };
        self.pending -= entry.pending.len();
        self.asking -= usize::from(entry.tries > 0);
        entry.pending.len()
    }

    /// Keeps a packet until its neighbour is known. False where it can't, or nobody asks for it.
    pub(crate) fn hold(&mut self, ip: IpAddr, packet: &[u8]) -> bool {
        let Some(entry) = self.entries.get_mut(&ip) else { return false };
        let most = if entry.trusted { PENDING_ALL } else { PENDING_STRANGERS };
        if entry.tries == 0 || self.pending >= most || entry.pending.is_full() {
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
        if !create && !self.entries.contains_key(&ip) {
            return Pending::new();
        }
        self.memo = None;
        let entry = self.entry(ip, EVICTION_LOOK);
        entry.mac = Some(mac);
        entry.fresh_until = now.after(FRESH);
        entry.trusted = true;
        let (tries, waited) =
            (std::mem::take(&mut entry.tries), std::mem::take(&mut entry.pending));
        self.asking -= usize::from(tries > 0);
        self.pending -= waited.len();
        waited
    }

    /// Once a second: asks again, trusted neighbours first, and gives up. Returns whom to ask, and how
    /// many packets were dropped.
    pub(crate) fn tick(&mut self, now: Now) -> (ArrayVec<IpAddr, ASKS_MAX>, usize) {
        let mut asks = ArrayVec::new();
        if now < self.next_tick {
            return (asks, 0);
        }
        self.next_tick = now.after(ASK_EVERY);
        // At most `max` entries, once a second.
        let (mut lost, mut silent) = (0, 0);
        for whom in [true, false] {
            self.entries.retain(|&ip, entry| {
                if entry.trusted != whom || entry.tries == 0 || !entry.is_due(now) {
                    return true;
                }
                if entry.tries < TRIES {
                    // A stranger's time runs, whether there is room for his question or not.
                    if asks.try_push(ip).is_ok() || !entry.trusted {
                        entry.ask(now);
                    }
                    return true;
                }
                silent += 1;
                lost += entry.pending.len();
                entry.pending.clear();
                (entry.mac, entry.tries) = (None, 0);
                entry.trusted
            });
        }
        if silent > 0 {
            self.memo = None;
            self.asking -= silent;
            self.pending -= lost;
        }
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

    /// Room for `neighbors_max`; 10.0.255.254 is the router.
    fn cache(neighbors_max: usize, asks_per_second: u32) -> Neighbors {
        let gateway_v4 = Some([10, 0, 255, 254].into());
        let config =
            StackConfig { neighbors_max, asks_per_second, gateway_v4, ..StackConfig::default() };
        Neighbors::new(&config, SipHasher13::new(), Arc::default())
    }

    #[test]
    fn packets_wait_for_the_answer_and_come_out_with_it() {
        let mut cache = cache(8, 100);
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
        let mut cache = cache(8, 100);
        assert_eq!(cache.lookup(ip(1), at(0)), Lookup::Ask);
        assert!(cache.hold(ip(1), b"lost"));
        assert_eq!(cache.tick(at(1)).0.len(), 1);
        assert_eq!(cache.tick(at(2)).0.len(), 1);
        assert_eq!(cache.tick(at(3)), (ArrayVec::new(), 1));
        assert_eq!(cache.lookup(ip(1), at(4)), Lookup::Ask);
    }

    #[test]
    fn strangers_fill_neither_table_nor_queue() {
        let mut cache = cache(8, 100);
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
            cache.hold(ip(99), b"x");
        }
        assert!(cache.pending <= 8 * PENDING_EACH);
        assert!(cache.learn(ip(3), [255; 6], true, at(0)).is_empty());
    }

    /// Packets to 1,000 addresses that nobody has: how many of them are asked for.
    fn flood(cache: &mut Neighbors, now: Now) -> usize {
        let first = (now.as_nanos() / 1_000_000_000) as u32 * 1000;
        (first..first + 1000)
            .filter(|&n| {
                let found = cache.lookup(ip(0x1_0000 + n), now);
                cache.hold(ip(0x1_0000 + n), b"spoofed");
                found == Lookup::Ask
            })
            .count()
    }

    #[test]
    fn strangers_have_so_many_asked_for_a_second_and_no_more() {
        let mut cache = cache(512, 100);
        for second in 0..10 {
            assert_eq!(flood(&mut cache, at(second)), 100);
            assert!(cache.tick(at(second)).0.len() <= ASKS_MAX);
            assert!(cache.entries.len() <= 400 && cache.pending <= PENDING_STRANGERS);
        }
        assert_eq!(cache.counters.snapshot().asks_withheld_total, 10 * 900);
        for second in 10..20 {
            cache.tick(at(second));
        }
        assert_eq!((cache.entries.len(), cache.pending, cache.asking), (0, 0, 0));
    }

    #[test]
    fn real_neighbours_are_kept_and_found_while_a_flood_runs() {
        let mut cache = cache(64, 100);
        let router = IpAddr::from([10, 0, 255, 254]);
        let (known, wanted) = (ip(1), ip(2));
        cache.learn(known, MAC, true, at(0));
        for second in 0..70 {
            flood(&mut cache, at(second));
            cache.tick(at(second));
        }
        assert_eq!(cache.lookup(router, at(70)), Lookup::Ask);
        assert!(cache.hold(router, b"out"));
        cache.expect(wanted, at(70));
        flood(&mut cache, at(70));
        assert_eq!(cache.lookup(wanted, at(70)), Lookup::Ask);
        assert_eq!(cache.lookup(known, at(70)), Lookup::Stale(MAC), "it is in its place");
        flood(&mut cache, at(71));
        let asked = cache.tick(at(71)).0;
        assert!(
            [router, wanted, known].iter().all(|ip| asked.contains(ip)),
            "before the strangers"
        );
        assert_eq!(cache.learn(router, MAC, false, at(71)).len(), 1, "what waited for it leaves");
        // The known one is silent: forgotten is where it was, but not that it is real.
        for second in 72..80 {
            flood(&mut cache, at(second));
            cache.tick(at(second));
        }
        flood(&mut cache, at(80));
        assert_eq!(cache.lookup(known, at(80)), Lookup::Ask);
        assert!(cache.entries.len() <= 64);
    }

    #[test]
    fn a_silent_router_is_asked_once_a_second_and_keeps_no_packet_without_a_question() {
        let mut cache = cache(8, 0);
        let router = IpAddr::from([10, 0, 255, 254]);
        let mut asked = 0;
        for tenth in 0..100 {
            let now = Now::from_nanos(tenth * 100_000_000);
            asked += cache.tick(now).0.len();
            asked += usize::from(cache.lookup(router, now) == Lookup::Ask);
            assert!(!cache.hold(router, b"x") || cache.asking == 1);
        }
        assert!((9..=11).contains(&asked), "{asked}");
        assert!(cache.pending <= PENDING_EACH);
    }
}
