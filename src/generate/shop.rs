//! A small shop's web requests, with outages: 10 requests a second, so 72,000 are two hours.
//!
//! A request is a line of some 110 bytes: host, path, status, latency, the user if one has logged in, and
//! when. It comes up to three seconds late. Every forty minutes some host is out for four to seven
//! minutes: its requests take long, and half of them fail; [`outages`] says when. Apart from that one request
//! in 500 fails, so that nobody is to be paged for it.

use std::io::{self, Write};

use levada_connectors::codec::timestamp;
use levada_types::ConnectorError;

use super::random::Random;
use super::{APPEND_RECORDS, BEGIN_MS, Destination, Event};

const EVENT_EVERY_MS: u64 = 100;
const LATE_MS: u64 = 3000;
/// An outage begins once in each span of this length, but not in its first third.
const OUTAGE_EVERY_MS: u64 = 40 * 60_000;

/// Each host, its share of a hundred requests, its usual latency in milliseconds, and its paths.
const HOSTS: [(&str, u64, u64, &[&str]); 7] = [
    ("web-1", 24, 40, &["/", "/p/12", "/p/40", "/p/77"]),
    ("web-2", 24, 45, &["/", "/p/12", "/p/40", "/p/77"]),
    ("search-1", 16, 70, &["/search"]),
    ("cart-1", 12, 60, &["/cart", "/cart/add"]),
    ("cart-2", 12, 65, &["/cart", "/cart/add"]),
    ("pay-1", 8, 110, &["/pay", "/pay/confirm"]),
    ("mail-1", 4, 90, &["/mail"]),
];

/// A time in which a host is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The host.
    pub host: &'static str,
    /// When it begins, in milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// When it ends.
    pub to_ms: i64,
}

/// The outages of a stream of this seed that are over when it ends.
pub fn outages(seed: u64, events: u64) -> Vec<Outage> {
    let mut random = Random::new(seed ^ 0x6f75_7461_6765);
    let length_ms = events * EVENT_EVERY_MS;
    let spans = (0..=length_ms / OUTAGE_EVERY_MS).map(|span| {
        let begin = span * OUTAGE_EVERY_MS + OUTAGE_EVERY_MS / 3 + random.below(OUTAGE_EVERY_MS / 2);
        let end = begin + 4 * 60_000 + random.below(3 * 60_000);
        let (host, ..) = HOSTS[random.below(HOSTS.len() as u64 - 1) as usize];
        (end <= length_ms).then(|| Outage {
            host,
            from_ms: BEGIN_MS + begin as i64,
            to_ms: BEGIN_MS + end as i64,
        })
    });
    spans.flatten().collect()
}

/// Writes `events` lines.
///
/// # Errors
/// When they cannot be written.
pub fn write(out: &mut dyn Write, seed: u64, events: u64) -> io::Result<()> {
    for request in Requests::new(seed, events) {
        out.write_all(&request.value)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Fills a topic, keyed by host.
///
/// # Errors
/// When it holds records already, or cannot be written.
pub fn fill(
    to: &Destination,
    topic: &str,
    partitions: u32,
    seed: u64,
    events: u64,
) -> Result<(), ConnectorError> {
    let filling = to.fresh_topic(topic, partitions)?;
    let mut requests = Requests::new(seed, events);
    loop {
        let batch: Vec<Event> = requests.by_ref().take(APPEND_RECORDS).collect();
        if batch.is_empty() {
            return filling.finish();
        }
        filling.append(&batch)?;
    }
}

struct Requests {
    random: Random,
    outages: Vec<Outage>,
    next: u64,
    events: u64,
}

impl Requests {
    fn new(seed: u64, events: u64) -> Requests {
        Requests { random: Random::new(seed), outages: outages(seed, events), next: 0, events }
    }
}

impl Iterator for Requests {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.next == self.events {
            return None;
        }
        let random = &mut self.random;
        let late_ms = if random.below(6) == 0 { random.below(LATE_MS) } else { 0 };
        let time_ms = BEGIN_MS + (LATE_MS + self.next * EVENT_EVERY_MS - late_ms) as i64;
        self.next += 1;
        let mut share = random.below(HOSTS.iter().map(|(_, share, ..)| share).sum());
        let (host, _, usual_ms, paths) = *HOSTS.iter().find(|(_, of, ..)| {
            let found = share < *of;
            share = share.saturating_sub(*of);
            found
        })?;
        let out = self
            .outages
            .iter()
            .any(|outage| outage.host == host && (outage.from_ms..outage.to_ms).contains(&time_ms));
        let path = paths[random.below(paths.len() as u64) as usize];
        // Most requests are quick, and some take several times as long.
        let tenths = usual_ms * (6 + random.below(6) + random.below(4) * random.below(4));
        let tenths = if out { tenths * (6 + random.below(6)) } else { tenths };
        let status = match (out, random.below(1000)) {
            (true, 0..550) => 503,
            (false, 0..2) => 500,
            (_, 2..30) => 404,
            _ => 200,
        };
        let user = match random.below(10) {
            0..4 => String::new(),
            _ => format!(r#""user":"u{:03}","#, random.below(400)),
        };
        let mut at = Vec::with_capacity(24);
        timestamp::write(time_ms, &mut at);
        let at = String::from_utf8_lossy(&at);
        let (whole, tenth) = (tenths / 10, tenths % 10);
        let value = format!(
            r#"{{"host":"{host}","path":"{path}","status":{status},"latency_ms":{whole}.{tenth},{user}"at":"{at}"}}"#
        );
        Some(Event { time_ms, key: host.into(), value: value.into_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_an_outage_is_in_them() {
        let lines = |seed| {
            let mut out = Vec::new();
            write(&mut out, seed, 40_000).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
        let outages = outages(7, 40_000);
        assert!(!outages.is_empty(), "{outages:?}");
        let (mut failed_out, mut failed_else) = ([0, 0], [0, 0]);
        for line in lines(7).lines() {
            let request: serde_json::Value = serde_json::from_str(line).unwrap();
            let at = timestamp::parse(request["at"].as_str().unwrap().as_bytes()).unwrap();
            let out = outages
                .iter()
                .any(|outage| request["host"] == outage.host && (outage.from_ms..outage.to_ms).contains(&at));
            let counts = if out { &mut failed_out } else { &mut failed_else };
            counts[usize::from(request["status"].as_u64() >= Some(500))] += 1;
        }
        assert!(failed_out[1] > failed_out[0], "{failed_out:?}");
        assert!(failed_else[1] * 300 < failed_else[0], "{failed_else:?}");
    }
}
