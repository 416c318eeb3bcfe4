//! How much a client may send: a bucket of tokens for each address.
//!
//! A bucket holds what a second allows and fills evenly. A request that needs more than a full bucket is let in when
//! it is full, and is paid off before the next one. A client of IPv6 is its /64, which one household has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most clients that are told apart; further ones share what one may send.
const MAX_CLIENTS: usize = 10_000;

/// The rates, and where each client stands.
#[derive(Debug)]
pub struct Rates {
    requests: Rate,
    records: Rate,
}

impl Rates {
    /// So many requests and records a second; `None` is as many as one likes.
    pub fn new(requests: Option<u32>, records: Option<u32>) -> Rates {
        Rates { requests: Rate::new(requests), records: Rate::new(records) }
    }

    /// Counts a request; how long to wait first, if there have been too many.
    pub fn request(&self, client: IpAddr) -> Result<(), Duration> {
        self.requests.take(client, 1, Instant::now())
    }

    /// Counts the records of a request; how long to wait first, if there have been too many.
    pub fn records(&self, client: IpAddr, records: usize) -> Result<(), Duration> {
        self.records.take(client, records, Instant::now())
    }
}

#[derive(Debug)]
struct Rate {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<Option<IpAddr>, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, per_second: f64, now: Instant) -> Bucket {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        Bucket { tokens: (self.tokens + more).min(per_second), at: now }
    }
}

impl Rate {
    fn new(per_second: Option<u32>) -> Rate {
        let per_second = per_second.map(|rate| f64::from(rate.max(1)));
        Rate { per_second, buckets: Mutex::new(HashMap::new()) }
    }

    fn take(&self, client: IpAddr, amount: usize, now: Instant) -> Result<(), Duration> {
        let Some(per_second) = self.per_second else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = Some(network(client));
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| bucket.filled(per_second, now).tokens < per_second);
            if buckets.len() >= MAX_CLIENTS {
                client = None;
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { tokens: per_second, at: now });
        *bucket = bucket.filled(per_second, now);
        let needed = (amount as f64).min(per_second);
        if bucket.tokens < needed {
            return Err(Duration::from_secs_f64((needed - bucket.tokens) / per_second));
        }
        bucket.tokens -= amount as f64;
        Ok(())
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((address.to_bits() & (u128::MAX << 64)).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_what_the_rate_says_and_debts_are_paid_first() {
        let rate = Rate::new(Some(10));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for _ in 0..10 {
            assert_eq!(rate.take(one, 1, start), Ok(()));
        }
        assert_eq!(rate.take(one, 1, start), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(other, 1, start), Ok(()));
        assert_eq!(rate.take(one, 1, after(101)), Ok(()));
        assert_eq!(rate.take(one, 30, after(2_000)), Ok(()));
        assert_eq!(rate.take(one, 1, after(4_000)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(one, 1, after(4_200)), Ok(()));
    }

    #[test]
    fn clients_beyond_the_most_share_a_bucket() {
        let rate = Rate::new(Some(1));
        let now = Instant::now();
        for client in 0..MAX_CLIENTS as u32 {
            assert_eq!(rate.take(IpAddr::from(client.to_be_bytes()), 1, now), Ok(()));
        }
        assert_eq!(rate.take(IpAddr::from([200, 0, 0, 1]), 1, now), Ok(()));
        assert!(rate.take(IpAddr::from([200, 0, 0, 2]), 1, now).is_err());
        let later = now + Duration::from_secs(2);
        assert_eq!(rate.take(IpAddr::from([200, 0, 0, 2]), 1, later), Ok(()));
        assert_eq!(rate.buckets.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_household_is_one_client() {
        let [a, b] = ["2001:db8::1", "2001:db8::ffff:1"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(network(a), network(b));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
