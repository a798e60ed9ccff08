//! How many connections, and how many of one address, all workers together take. Consulted when a
//! connection opens and when it ends, never for a message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Which limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtLimit {
    /// The limit of all connections.
    Total,
    /// The limit of one address.
    Address,
}

struct Shared {
    max_total: usize,
    max_per_address: usize,
    total: AtomicUsize,
    per_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The connection limits of a group of workers.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

impl Admission {
    /// Limits; 0 means none.
    pub fn new(max_total: usize, max_per_address: usize) -> Self {
        Admission(Arc::new(Shared {
            max_total,
            max_per_address,
            total: AtomicUsize::new(0),
            per_address: Mutex::new(HashMap::new()),
        }))
    }

    /// Connections that are counted now.
    pub fn total(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Whether a connection of that peer would be within the limits now. Takes nothing: what is true
    /// of one may not be of two that ask at the same time.
    pub fn admits(&self, peer: IpAddr) -> bool {
        let shared = &*self.0;
        if shared.max_total > 0 && self.total() >= shared.max_total {
            return false;
        }
        if shared.max_per_address == 0 {
            return true;
        }
        let map = shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&peer.to_canonical()).is_none_or(|count| *count < shared.max_per_address)
    }

    /// Counts a connection, within the limits or not: [`Admission::leave`] is owed either way. One
    /// beyond the limit of its address takes nothing of the total while it is being refused, or a
    /// single address could keep all others out.
    pub(crate) fn enter(&self, peer: Option<IpAddr>) -> Result<(), AtLimit> {
        let shared = &*self.0;
        if shared.max_per_address > 0
            && let Some(ip) = peer
        {
            let mut map = shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = map.entry(ip.to_canonical()).or_insert(0);
            *count += 1;
            if *count > shared.max_per_address {
                return Err(AtLimit::Address);
            }
        }
        let before = shared.total.fetch_add(1, Ordering::Relaxed);
        if shared.max_total > 0 && before >= shared.max_total {
            return Err(AtLimit::Total);
        }
        Ok(())
    }

    /// Takes a connection off the count.
    pub(crate) fn leave(&self, peer: Option<IpAddr>) {
        let shared = &*self.0;
        if shared.max_per_address > 0
            && let Some(ip) = peer
        {
            let ip = ip.to_canonical();
            let mut map = shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = map.get_mut(&ip) {
                *count -= 1;
                // Those of an address are alike: the first to go are those beyond its limit.
                if *count >= shared.max_per_address {
                    return;
                }
                if *count == 0 {
                    map.remove(&ip);
                }
            }
        }
        shared.total.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether addresses need to be known.
    pub(crate) fn by_address(&self) -> bool {
        self.0.max_per_address > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_what_leaves_makes_room() {
        let ip = |last| Some(IpAddr::from([127, 0, 0, last]));
        let a = Admission::new(3, 2);
        assert_eq!(a.enter(ip(1)), Ok(()));
        assert_eq!(a.enter(ip(1)), Ok(()));
        let admits = |last| a.admits(IpAddr::from([127, 0, 0, last]));
        assert_eq!((admits(1), admits(2)), (false, true));
        assert_eq!(a.enter(ip(1)), Err(AtLimit::Address));
        a.leave(ip(1));
        assert_eq!(a.enter(ip(2)), Ok(()));
        assert!(!admits(3), "the total is reached");
        assert_eq!(a.enter(ip(3)), Err(AtLimit::Total));
        a.leave(ip(3));
        a.leave(ip(2));
        a.leave(ip(1));
        a.leave(ip(1));
        assert_eq!(a.total(), 0);
        assert!(a.0.per_address.lock().unwrap().is_empty(), "no address is kept for nothing");
    }

    #[test]
    fn those_beyond_the_limit_of_an_address_keep_no_other_out() {
        let ip = |last| Some(IpAddr::from([127, 0, 0, last]));
        let a = Admission::new(2, 1);
        assert_eq!(a.enter(ip(1)), Ok(()));
        for _ in 0..5 {
            assert_eq!(a.enter(ip(1)), Err(AtLimit::Address));
        }
        assert_eq!((a.total(), a.enter(ip(2))), (1, Ok(())));
        (0..6).for_each(|_| a.leave(ip(1)));
        assert_eq!(a.total(), 1);
        a.leave(ip(2));
        assert_eq!(a.total(), 0);
    }
}
