//! A hierarchical timer wheel: insert, cancel and move in constant time, 16 bytes a timer.
//!
//! Six levels of 64 buckets; a bucket of level `n` spans 64^n ticks of 2^20 ns (1.05 ms). A timer
//! lies in the lowest level that reaches its tick from now. When time gets to a bucket of a higher
//! level, its timers cascade to lower ones; at level 0 they fire. A bitmap a level finds the next
//! bucket, so empty time costs nothing, however long. Timers fire never early, and late by at most
//! a tick beyond the caller's own delay.
//!
//! The wheel reaches 2^36 ticks (2.28 years) ahead. A deadline beyond that never fires: "never" is
//! [`Now::MAX`].
//!
//! All timers are entries of one slab, linked by index; a timer's links, tick, token and key
//! generation share its 16 bytes.

use std::num::NonZeroU32;

use crate::clock::Now;

/// log2 of the nanoseconds of a tick.
const TICK_SHIFT: u32 = 20;
const LEVELS: usize = 6;
/// log2 of the buckets of a level.
const LEVEL_SHIFT: u32 = 6;
const BUCKETS: usize = 1 << LEVEL_SHIFT;
/// How far ahead, in ticks, a timer may lie and still fire.
const REACH_TICKS: u64 = 1 << (LEVEL_SHIFT * LEVELS as u32);

const INDEX_BITS: u32 = 27;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// One bit more than the reach, so that a tick modulo this is never ambiguous.
const TICK_BITS: u32 = 37;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
const GENERATION_MASK: u32 = (1 << (32 - INDEX_BITS)) - 1;

/// Ends a list; as `previous`: in no bucket (fires never).
const NIL: u32 = INDEX_MASK;
/// As `previous`: not a timer but a free entry.
const FREE: u32 = INDEX_MASK - 1;
/// As `previous`, from here to `FREE`: first in the bucket of this number.
const BUCKET_BASE: u32 = INDEX_MASK - 511;

const _: () = assert!(LEVELS * BUCKETS < (FREE - BUCKET_BASE) as usize);
const _: () = assert!(REACH_TICKS * 2 == 1 << TICK_BITS);
const _: () = assert!(size_of::<Entry>() == 16);
const _: () = assert!(size_of::<Option<TimerKey>>() == 4);

/// Names a timer that was inserted and has neither fired nor been cancelled.
///
/// Whoever inserts a timer owns its key, and must forget it when the timer fires: a worker does so
/// at the top of whatever it does for a fired token. A key that is used after that is found out by
/// 5 bits of generation: a debug build panics; otherwise the call does nothing, unless the entry
/// was reused an exact multiple of 32 times.
#[derive(PartialEq, Eq, Hash, Debug)]
pub struct TimerKey(NonZeroU32);

impl TimerKey {
    fn new(index: u32, generation: u32) -> TimerKey {
        // At least 1, as an index is below the mask.
        TimerKey(NonZeroU32::MIN.saturating_add(generation << INDEX_BITS | index))
    }

    fn index(&self) -> u32 {
        (self.0.get() - 1) & INDEX_MASK
    }

    fn generation(&self) -> u32 {
        (self.0.get() - 1) >> INDEX_BITS
    }
}

/// 37 bits of tick, 27 of previous; 32 of token, 5 of generation, 27 of next.
#[derive(Copy, Clone, Debug)]
struct Entry {
    tick_previous: u64,
    token_generation_next: u64,
}

impl Entry {
    fn previous(self) -> u32 {
        self.tick_previous as u32 & INDEX_MASK
    }

    fn set_previous(&mut self, previous: u32) {
        self.tick_previous = self.tick_previous & !u64::from(INDEX_MASK) | u64::from(previous);
    }

    /// The tick, modulo 2^37.
    fn tick(self) -> u64 {
        self.tick_previous >> INDEX_BITS
    }

    fn set_tick(&mut self, tick: u64) {
        self.tick_previous = (tick & TICK_MASK) << INDEX_BITS | u64::from(self.previous());
    }

    fn next(self) -> u32 {
        self.token_generation_next as u32 & INDEX_MASK
    }

    fn set_next(&mut self, next: u32) {
        self.token_generation_next =
            self.token_generation_next & !u64::from(INDEX_MASK) | u64::from(next);
    }

    fn generation(self) -> u32 {
        self.token_generation_next as u32 >> INDEX_BITS
    }

    fn token(self) -> u32 {
        (self.token_generation_next >> 32) as u32
    }

    fn set_token_generation(&mut self, token: u32, generation: u32) {
        self.token_generation_next = u64::from(token) << 32
            | u64::from(generation & GENERATION_MASK) << INDEX_BITS
            | u64::from(self.next());
    }
}

/// See the module.
#[derive(Debug)]
pub struct TimerWheel {
    entries: Vec<Entry>,
    free: u32,
    len: usize,
    /// The tick up to which all is done.
    elapsed: u64,
    /// One bit a bucket that is not empty.
    occupied: [u64; LEVELS],
    heads: [u32; LEVELS * BUCKETS],
}

impl TimerWheel {
    /// An empty wheel whose time is `now`.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self::with_capacity(now, 0)
    }

    /// An empty wheel with memory for `timers` timers.
    #[must_use]
    pub fn with_capacity(now: Now, timers: usize) -> Self {
        TimerWheel {
            entries: Vec::with_capacity(timers),
            free: NIL,
            len: 0,
            elapsed: now.as_nanos() >> TICK_SHIFT,
            occupied: [0; LEVELS],
            heads: [NIL; LEVELS * BUCKETS],
        }
    }

    /// How many timers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a timer that hands out `token` at the first [`advance`](Self::advance) after `at`.
    ///
    /// # Panics
    /// At 2^27 timers (2 GiB of them).
    pub fn insert(&mut self, at: Now, token: u32) -> TimerKey {
        let index = match self.free {
            NIL => {
                assert!(self.entries.len() < BUCKET_BASE as usize, "a wheel holds 2^27 timers");
                self.entries.push(Entry { tick_previous: 0, token_generation_next: 0 });
                self.entries.len() as u32 - 1
            }
            index => {
                self.free = self.entry(index).next();
                index
            }
        };
        let generation = self.entry(index).generation();
        self.entry(index).set_token_generation(token, generation);
        self.len += 1;
        self.schedule(index, at);
        TimerKey::new(index, generation)
    }

    /// Takes a timer away. False where the key is stale.
    pub fn cancel(&mut self, key: TimerKey) -> bool {
        let Some(index) = self.live(&key) else { return false };
        self.unlink(index);
        self.release(index);
        true
    }

    /// Moves a timer to another time; its key stays good. False where the key is stale.
    pub fn reschedule(&mut self, key: &TimerKey, at: Now) -> bool {
        let Some(index) = self.live(key) else { return false };
        self.unlink(index);
        self.schedule(index, at);
        true
    }

    /// Moves time on to `now` and calls `fire` with the token of each timer that is due; its key
    /// is dead by then. Stops after `budget` steps (a timer fired, or moved to a lower level) and
    /// returns true where something due is left. Time that goes back is taken for standing still.
    pub fn advance(&mut self, now: Now, budget: usize, fire: &mut impl FnMut(u32)) -> bool {
        let target = (now.as_nanos() >> TICK_SHIFT).max(self.elapsed);
        let mut left = budget;
        // Each turn empties a bucket or ends: at most one turn a bucket a step of `left`.
        while let Some((tick, bucket)) = self.next_bucket()
            && tick <= target
        {
            self.elapsed = tick;
            while let head = self.heads[bucket]
                && head != NIL
            {
                if left == 0 {
                    return true;
                }
                left -= 1;
                self.unlink(head);
                if bucket < BUCKETS {
                    let token = self.entry(head).token();
                    self.release(head);
                    fire(token);
                } else {
                    let ahead = self.ahead(head);
                    self.link(head, tick + ahead);
                }
            }
        }
        self.elapsed = target;
        false
    }

    /// When the wheel wants to be advanced next: never after the earliest timer is due, but
    /// before it by as much as a bucket of its level.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Now> {
        let (tick, _) = self.next_bucket()?;
        Some(Now::from_nanos(tick.saturating_mul(1 << TICK_SHIFT)))
    }

    /// The next bucket that time gets to, and the tick at which it does.
    fn next_bucket(&self) -> Option<(u64, usize)> {
        let mut next: Option<(u64, usize)> = None;
        for (level, &occupied) in self.occupied.iter().enumerate() {
            if occupied == 0 {
                continue;
            }
            let shift = LEVEL_SHIFT * level as u32;
            let here = self.elapsed >> shift;
            let slot = (here % BUCKETS as u64) as u32;
            let distance = u64::from(occupied.rotate_right(slot).trailing_zeros());
            // A bucket that we stand in, half cascaded, began in the past: it is due now.
            let tick = ((here + distance) << shift).max(self.elapsed);
            if next.is_none_or(|(earliest, _)| tick < earliest) {
                let bucket = (here + distance) as usize % BUCKETS;
                next = Some((tick, level * BUCKETS + bucket));
            }
        }
        next
    }

    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// The entry of a key that is good.
    fn live(&self, key: &TimerKey) -> Option<u32> {
        let index = key.index();
        let live = self.entries.get(index as usize).is_some_and(|entry| {
            entry.generation() == key.generation() && entry.previous() != FREE
        });
        debug_assert!(live, "a timer's key was used after it fired or was cancelled");
        live.then_some(index)
    }

    /// Puts an entry that is in no list where `at` belongs.
    fn schedule(&mut self, index: u32, at: Now) {
        // Rounded up: never early.
        let tick = at.as_nanos().div_ceil(1 << TICK_SHIFT).max(self.elapsed);
        if tick - self.elapsed >= REACH_TICKS {
            let entry = self.entry(index);
            entry.set_previous(NIL);
            entry.set_next(NIL);
            return;
        }
        self.entry(index).set_tick(tick);
        self.link(index, tick);
    }

    /// How many ticks ahead a linked timer lies.
    fn ahead(&mut self, index: u32) -> u64 {
        let elapsed = self.elapsed;
        let ahead = self.entry(index).tick().wrapping_sub(elapsed) & TICK_MASK;
        debug_assert!(ahead < REACH_TICKS, "time went past a timer");
        ahead
    }

    fn link(&mut self, index: u32, tick: u64) {
        let (level, position) = self.place(tick);
        let bucket = level * BUCKETS + (position % BUCKETS as u64) as usize;
        let head = std::mem::replace(&mut self.heads[bucket], index);
        self.occupied[level] |= 1 << (bucket % BUCKETS);
        let entry = self.entry(index);
        entry.set_previous(BUCKET_BASE + bucket as u32);
        entry.set_next(head);
        if head != NIL {
            self.entry(head).set_previous(index);
        }
    }

    /// The lowest level that reaches the tick, and the position in it.
    fn place(&self, tick: u64) -> (usize, u64) {
        let reaches = |level: &usize| {
            let shift = LEVEL_SHIFT * *level as u32;
            (tick >> shift) - (self.elapsed >> shift) < BUCKETS as u64
        };
        match (0..LEVELS).find(reaches) {
            Some(level) => (level, tick >> (LEVEL_SHIFT * level as u32)),
            // Just out of reach: the last bucket there is; it cascades into the right one.
            None => {
                let shift = LEVEL_SHIFT * (LEVELS as u32 - 1);
                (LEVELS - 1, (self.elapsed >> shift) + BUCKETS as u64 - 1)
            }
        }
    }

    fn unlink(&mut self, index: u32) {
        let entry = *self.entry(index);
        let (previous, next) = (entry.previous(), entry.next());
        if previous == NIL {
            return;
        }
        if next != NIL {
            self.entry(next).set_previous(previous);
        }
        match previous.checked_sub(BUCKET_BASE) {
            Some(bucket) => {
                let bucket = bucket as usize;
                self.heads[bucket] = next;
                if next == NIL {
                    self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
                }
            }
            None => self.entry(previous).set_next(next),
        }
    }

    /// Frees an entry that is in no list, and makes its key stale.
    fn release(&mut self, index: u32) {
        let free = std::mem::replace(&mut self.free, index);
        let entry = self.entry(index);
        let generation = entry.generation();
        entry.set_token_generation(0, generation.wrapping_add(1));
        entry.set_previous(FREE);
        entry.set_next(free);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const TICK: u64 = 1 << TICK_SHIFT;

    fn fired(wheel: &mut TimerWheel, now: Now) -> Vec<u32> {
        let mut tokens = Vec::new();
        assert!(!wheel.advance(now, usize::MAX, &mut |token| tokens.push(token)));
        tokens
    }

    #[test]
    fn a_timer_fires_in_its_tick_and_not_before() {
        for at in [1, TICK, 10 * TICK + 1, 64 * TICK, 5000 * TICK + 7] {
            let mut wheel = TimerWheel::new(Now::ZERO);
            wheel.insert(Now::from_nanos(at), at as u32);
            assert_eq!(fired(&mut wheel, Now::from_nanos(at - 1)), []);
            let tick = at.next_multiple_of(TICK);
            assert_eq!(fired(&mut wheel, Now::from_nanos(tick - 1)), []);
            assert_eq!(fired(&mut wheel, Now::from_nanos(tick)), [at as u32]);
            assert!(wheel.is_empty());
            assert_eq!(wheel.next_deadline(), None);
        }
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_advance() {
        let now = Now::from_nanos(77 * TICK + 5);
        let mut wheel = TimerWheel::new(now);
        wheel.insert(Now::ZERO, 3);
        assert!(wheel.next_deadline().unwrap() <= now);
        assert_eq!(fired(&mut wheel, now), [3]);
    }

    #[test]
    fn a_budget_is_kept_and_the_rest_comes_later() {
        let mut wheel = TimerWheel::with_capacity(Now::ZERO, 100);
        for token in 0..100 {
            wheel.insert(Now::from_nanos(TICK), token);
        }
        let now = Now::from_nanos(2 * TICK);
        let mut tokens = Vec::new();
        assert!(wheel.advance(now, 60, &mut |token| tokens.push(token)));
        assert_eq!(tokens.len(), 60);
        assert!(wheel.next_deadline().unwrap() <= now);
        assert!(!wheel.advance(now, 60, &mut |token| tokens.push(token)));
        tokens.sort_unstable();
        assert_eq!(tokens, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn never_is_never_and_can_be_moved_to_soon() {
        let mut wheel = TimerWheel::new(Now::ZERO);
        let key = wheel.insert(Now::MAX, 1);
        assert_eq!(wheel.next_deadline(), None);
        assert_eq!(fired(&mut wheel, Now::from_nanos(u64::MAX / 2)), []);
        assert!(wheel.reschedule(&key, Now::from_nanos(u64::MAX / 2 + TICK)));
        assert_eq!(fired(&mut wheel, Now::from_nanos(u64::MAX / 2 + 2 * TICK)), [1]);
        let key = wheel.insert(Now::MAX, 2);
        assert!(wheel.cancel(key));
        assert!(wheel.is_empty());
    }

    #[test]
    fn time_that_goes_back_stands_still() {
        let mut wheel = TimerWheel::new(Now::from_nanos(100 * TICK));
        wheel.insert(Now::from_nanos(101 * TICK), 1);
        assert_eq!(fired(&mut wheel, Now::ZERO), []);
        assert_eq!(fired(&mut wheel, Now::from_nanos(101 * TICK)), [1]);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "after it fired"))]
    fn a_stale_key_does_not_hit_the_next_timer() {
        let mut wheel = TimerWheel::new(Now::ZERO);
        let stale = wheel.insert(Now::ZERO, 1);
        assert_eq!(fired(&mut wheel, Now::ZERO), [1]);
        wheel.insert(Now::from_nanos(TICK), 2);
        assert!(!wheel.cancel(stale));
        assert_eq!(wheel.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Cancel(usize),
        Move(usize, u64),
        Advance(u64, usize),
    }

    /// Times of every magnitude, in nanoseconds; up to half of the wheel's reach.
    fn span() -> impl Strategy<Value = u64> {
        (0u32..55, any::<u64>()).prop_map(|(bits, n)| n & ((1 << bits) - 1))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => span().prop_map(Op::Insert),
            1 => any::<usize>().prop_map(Op::Cancel),
            1 => (any::<usize>(), span()).prop_map(|(n, by)| Op::Move(n, by)),
            3 => (span(), prop_oneof![Just(usize::MAX), 0usize..6])
                .prop_map(|(by, budget)| Op::Advance(by, budget)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(start in any::<u64>(), ops in prop::collection::vec(op(), 1..300)) {
            let mut now = Now::from_nanos(start >> 2);
            let mut wheel = TimerWheel::new(now);
            let mut model: BTreeMap<u32, (Now, TimerKey)> = BTreeMap::new();
            let mut tokens = 0..;
            for op in ops {
                let pick = |n: usize| model.keys().nth(n % model.len().max(1)).copied();
                match op {
                    Op::Insert(by) => {
                        let (at, token) = (now.after(Duration::from_nanos(by)), tokens.next().unwrap());
                        model.insert(token, (at, wheel.insert(at, token)));
                    }
                    Op::Cancel(n) => if let Some(token) = pick(n) {
                        prop_assert!(wheel.cancel(model.remove(&token).unwrap().1));
                    },
                    Op::Move(n, by) => if let Some(token) = pick(n) {
                        let entry = model.get_mut(&token).unwrap();
                        entry.0 = now.after(Duration::from_nanos(by));
                        prop_assert!(wheel.reschedule(&entry.1, entry.0));
                    },
                    Op::Advance(by, budget) => {
                        now = now.after(Duration::from_nanos(by));
                        let mut due = Vec::new();
                        let more = wheel.advance(now, budget, &mut |token| due.push(token));
                        prop_assert!(due.len() <= budget);
                        for token in due {
                            let (at, _) = model.remove(&token).expect("fired once, and not after cancel");
                            prop_assert!(at <= now, "fired early");
                        }
                        let tick = now.as_nanos() >> TICK_SHIFT << TICK_SHIFT;
                        if !more {
                            prop_assert!(model.values().all(|(at, _)| at.as_nanos() > tick), "late");
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let Some(at) = model.values().map(|(at, _)| *at).min() {
                    let at = Now::from_nanos(at.as_nanos().next_multiple_of(TICK)).max(now);
                    prop_assert!(wheel.next_deadline().unwrap() <= at);
                }
            }
            let far = now.after(Duration::from_nanos(1 << 56));
            while wheel.advance(far, 7, &mut |token| { model.remove(&token).unwrap(); }) {}
            prop_assert!(model.is_empty() && wheel.is_empty());
        }

        #[test]
        fn waking_at_each_deadline_fires_each_timer_in_its_tick(spans in prop::collection::vec(span(), 1..50)) {
            let mut wheel = TimerWheel::new(Now::ZERO);
            for (token, &by) in spans.iter().enumerate() {
                wheel.insert(Now::from_nanos(by), token as u32);
            }
            let mut wakes = 0;
            while let Some(at) = wheel.next_deadline() {
                wakes += 1;
                wheel.advance(at, usize::MAX, &mut |token| {
                    assert_eq!(at.as_nanos(), spans[token as usize].next_multiple_of(TICK));
                });
            }
            prop_assert!(wakes <= spans.len() * LEVELS, "woke {wakes} times");
        }
    }
}
