//! Events to measure with: eight fields, about 130 bytes of JSON, 10,000 a second of event time.
//!
//! One event in eight is late by up to half a second, so a job needs `out_of_order = "500ms"`.

use std::io::{self, Write};

use levada_connectors::codec::timestamp;
use levada_types::ConnectorError;

use super::random::Random;
use super::{APPEND_RECORDS, Destination, Event};

/// 2024-01-01T00:00:00Z.
const BEGIN_MS: i64 = 1_704_067_200_000;
const EVENTS_PER_MS: u64 = 10;
/// The most that an event's time lies behind that of an event before it.
pub const OUT_OF_ORDER_MS: u64 = 500;

const KINDS: [&str; 8] = ["view", "view", "view", "view", "click", "click", "buy", "error"];
const REGIONS: [&str; 5] = ["eu-west", "eu-north", "us-east", "us-west", "ap-south"];

/// Writes `events` lines.
///
/// # Errors
/// When they cannot be written.
pub fn write(out: &mut dyn Write, seed: u64, events: u64, keys: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    for id in 0..events {
        out.write_all(&event(id, keys, &mut random).value)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Fills a topic, keyed by user.
///
/// # Errors
/// When it holds records already, or cannot be written.
pub fn fill(
    to: &Destination,
    topic: &str,
    partitions: u32,
    seed: u64,
    events: u64,
    keys: u64,
) -> Result<(), ConnectorError> {
    let filling = to.fresh_topic(topic, partitions)?;
    let mut random = Random::new(seed);
    let mut id = 0;
    while id < events {
        let end = events.min(id + APPEND_RECORDS as u64);
        let batch: Vec<Event> = (id..end).map(|id| event(id, keys, &mut random)).collect();
        filling.append(&batch)?;
        id = end;
    }
    filling.finish()
}

fn event(id: u64, keys: u64, random: &mut Random) -> Event {
    let late_ms = if random.below(8) == 0 { random.below(OUT_OF_ORDER_MS + 1) } else { 0 };
    let time_ms = BEGIN_MS + (OUT_OF_ORDER_MS + id / EVENTS_PER_MS - late_ms) as i64;
    let user = format!("u{:05}", random.below(keys));
    let kind = KINDS[random.below(KINDS.len() as u64) as usize];
    let region = REGIONS[random.below(REGIONS.len() as u64) as usize];
    let cents = random.below(50_000);
    let latency_ms = 20 + random.below(30) * random.below(30);
    let ok = kind != "error" && latency_ms < 800;
    let mut at = Vec::with_capacity(24);
    timestamp::write(time_ms, &mut at);
    let at = String::from_utf8_lossy(&at);
    let (units, cents) = (cents / 100, cents % 100);
    let value = format!(
        r#"{{"id":{id},"user":"{user}","kind":"{kind}","amount":{units}.{cents:02},"latency_ms":{latency_ms},"region":"{region}","ok":{ok},"at":"{at}"}}"#
    );
    Event { time_ms, key: user.into_bytes(), value: value.into_bytes() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_others() {
        let lines = |seed| {
            let mut out = Vec::new();
            write(&mut out, seed, 2000, 50).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
        let text = lines(7);
        let average = text.len() / 2000;
        assert!((120..140).contains(&average), "{average}");
        let mut newest = 0;
        let mut users = HashSet::new();
        let mut late = 0;
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event.as_object().unwrap().len(), 8);
            users.insert(event["user"].as_str().unwrap().to_owned());
            let at = timestamp::parse(event["at"].as_str().unwrap().as_bytes()).unwrap();
            assert!(at >= newest - OUT_OF_ORDER_MS as i64);
            late += usize::from(at < newest);
            newest = newest.max(at);
        }
        assert_eq!((users.len(), newest), (50, BEGIN_MS + 500 + 199));
        assert!(late > 100, "{late}");
    }
}
