//! The alerts that fire and the silences that hold, as the history tells.
//!
//! Read from the first record of the topics that is held, and from there on. A topic that is kept for ever is read for ever;
//! `retain` bounds it, and an alert of which nothing is held any more is not shown. Of what is over only the time is kept.

use std::collections::BTreeMap;

use levada_connectors::log::{Log, LogError, Start};
use serde_json::{Value, json};

/// How much is read at once.
const BLOCK_RECORDS: usize = 8192;
const BLOCK_BYTES: usize = 8 << 20;

/// What the states of an alert are called; other rows of its history are events.
const STATES: [&str; 7] = ["pending", "firing", "silenced", "inhibited", "muted", "suppressed", "resolved"];

/// What was over for so long, in milliseconds of the history's time, is forgotten.
const FORGOTTEN_AFTER_MS: i64 = 3_600_000;

/// When a row was told: its time, in milliseconds, and its place in that instant.
type When = (i64, i64);

/// All that the history says.
#[derive(Debug, Default)]
pub struct Board {
    /// How far each partition of each topic was read.
    places: BTreeMap<(String, u32), u64>,
    alerts: BTreeMap<String, Shown>,
    silences: BTreeMap<String, (When, bool, Value)>,
    /// The newest time of a row.
    newest_ms: i64,
}

#[derive(Debug, Default)]
struct Shown {
    /// The last row, which has the alert as it is,
    last: (When, Value),
    /// and the last that tells its state.
    state: (When, Value),
}

impl Shown {
    fn is_over(&self) -> bool {
        self.last.1["alerts"][0]["status"] != "firing"
    }

    /// Forgets what is over, but not when: a row of before may still come.
    fn shrink(&mut self) {
        if self.is_over() {
            (self.last.1, self.state.1) = (Value::Null, Value::Null);
        }
    }
}

impl Board {
    /// Reads the history in some topics on, up to `most` records; how many are left. A topic that is not there yet has none,
    /// and one that was made anew is read anew.
    ///
    /// # Errors
    /// When a topic cannot be read.
    pub fn read_on(&mut self, log: &Log, topics: &[String], most: u64) -> Result<u64, LogError> {
        let (mut room, mut left) = (most, 0);
        for name in topics {
            let topic = match log.topic(name) {
                Err(LogError::NoSuchTopic { .. }) => continue,
                found => found?,
            };
            for partition in 0..topic.partitions() {
                let bounds = topic.bounds(partition)?;
                let place = (name.clone(), partition);
                let next = self.places.get(&place).copied().unwrap_or(bounds.first);
                if next > bounds.next {
                    *self = Board::default();
                    return self.read_on(log, topics, most);
                }
                let mut reader = topic.reader(partition, Start::Offset(next.max(bounds.first)))?;
                while reader.position() < bounds.next && room > 0 {
                    let wanted = room.min(bounds.next - reader.position()).min(BLOCK_RECORDS as u64);
                    let fetched = reader.read(wanted as usize, BLOCK_BYTES)?;
                    if fetched.is_empty() {
                        break;
                    }
                    room -= fetched.len() as u64;
                    for record in &fetched {
                        if let Ok(row) = serde_json::from_slice(record.value) {
                            self.take(row);
                        }
                    }
                }
                left += bounds.next - reader.position();
                self.places.insert(place, reader.position());
            }
        }
        self.alerts.values_mut().for_each(Shown::shrink);
        if left == 0 {
            self.forget();
        }
        Ok(left)
    }

    /// Forgets what has been over for long. That is done where all has been read: of another partition a row of before may
    /// still come.
    fn forget(&mut self) {
        let oldest = self.newest_ms.saturating_sub(FORGOTTEN_AFTER_MS);
        self.alerts.retain(|_, shown| !shown.is_over() || shown.last.0.0 >= oldest);
        self.silences.retain(|_, ((at, _), set, silence)| {
            let ends = time(silence, "ends_at").filter(|_| *set).unwrap_or(*at);
            ends.max(*at) >= oldest
        });
    }

    /// Takes a row in; in whatever order they come, the last one counts.
    fn take(&mut self, row: Value) {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        if text("record") != "history" {
            return;
        }
        let Some(at) = time(&row, "at") else { return };
        self.newest_ms = self.newest_ms.max(at);
        let when = (at, row["sequence"].as_i64().unwrap_or_default());
        let status = text("status");
        if let ("silence_set" | "silence_expired", Some(id)) = (status, row["by"].as_str()) {
            let silence = self.silences.entry(id.to_owned()).or_default();
            if silence.0 <= when {
                *silence = (when, status == "silence_set", row["detail"].clone());
            }
            return;
        }
        let Some(fingerprint) = row["fingerprint"].as_str().filter(|_| status != "dropped") else { return };
        let shown = self.alerts.entry(fingerprint.to_owned()).or_default();
        if STATES.contains(&status) && shown.state.0 <= when {
            shown.state = (when, row.clone());
        }
        if shown.last.0 <= when {
            shown.last = (when, row);
        }
    }

    /// The alerts that fire, by fingerprint: each as it was told, with its `state`, since when that is, what it is `by`, and
    /// its group.
    pub fn alerts(&self) -> Vec<Value> {
        let alert = |shown: &Shown| {
            let (_, last) = &shown.last;
            let (_, state) = &shown.state;
            if shown.is_over() {
                return None;
            }
            let mut alert = last["alerts"].get(0)?.clone();
            alert["state"] = state["status"].clone();
            alert["since"] = state["at"].clone();
            alert["by"] = state["by"].clone();
            for name in ["group", "group_labels", "receiver"] {
                alert[name] = last[name].clone();
            }
            Some(alert)
        };
        self.alerts.values().filter_map(alert).collect()
    }

    /// The silences that have not ended, by id; `pending` if they have yet to begin.
    pub fn silences(&self, now_ms: i64) -> Vec<Value> {
        let ms = |silence: &Value, name: &str| time(silence, name).unwrap_or(i64::MIN);
        let held = self.silences.values().filter(|(_, set, silence)| *set && ms(silence, "ends_at") > now_ms);
        let shown = held.map(|(_, _, silence)| {
            let mut silence = silence.clone();
            let begun = ms(&silence, "starts_at") <= now_ms;
            silence["state"] = json!(if begun { "active" } else { "pending" });
            silence
        });
        shown.collect()
    }
}

fn time(of: &Value, name: &str) -> Option<i64> {
    super::time_ms(of[name].as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: &str, sequence: i64, status: &str, firing: bool, by: Option<&str>) -> Value {
        let state = if firing { "firing" } else { "resolved" };
        json!({
            "record": "history", "at": at, "sequence": sequence, "status": status, "fingerprint": "f", "by": by,
            "group": "g", "group_labels": {}, "receiver": "r",
            "alerts": [{ "fingerprint": "f", "status": state, "acknowledged_by": null }],
        })
    }

    #[test]
    fn the_last_row_counts_in_whatever_order_they_come() {
        let mut rows = [
            row("2026-03-02T09:00:00Z", 0, "pending", true, None),
            row("2026-03-02T09:00:30Z", 0, "firing", true, None),
            row("2026-03-02T09:05:30Z", 0, "silenced", true, Some("s")),
            row("2026-03-02T09:05:30Z", 1, "acknowledged", true, Some("ann")),
        ];
        for _ in 0..rows.len() {
            rows.rotate_left(1);
            let mut board = Board::default();
            rows.iter().cloned().for_each(|row| board.take(row));
            let alerts = board.alerts();
            assert_eq!(alerts.len(), 1);
            assert_eq!((&alerts[0]["state"], &alerts[0]["by"]), (&json!("silenced"), &json!("s")));
            board.take(row("2026-03-02T09:06:00Z", 0, "resolved", false, None));
            assert!(board.alerts().is_empty());
        }
    }

    #[test]
    fn what_comes_within_a_second_comes_in_its_order() {
        let mut board = Board::default();
        board.take(row("2026-03-02T09:00:00Z", 0, "firing", true, None));
        board.take(row("2026-03-02T09:00:00.500Z", 0, "resolved", false, None));
        assert!(board.alerts().is_empty());
    }

    #[test]
    fn what_has_been_over_for_long_is_forgotten() {
        let mut board = Board::default();
        let silence = json!({ "record": "history", "at": "2026-03-02T08:00:00Z", "sequence": 0, "status": "silence_set",
            "by": "s", "detail": { "id": "s", "starts_at": "2026-03-02T08:00:00Z", "ends_at": "2026-03-02T09:00:00Z" } });
        board.take(silence);
        board.take(row("2026-03-02T09:00:00Z", 0, "resolved", false, None));
        board.forget();
        assert_eq!((board.alerts.len(), board.silences.len()), (1, 1));
        let mut later = row("2026-03-02T10:00:00.001Z", 0, "firing", true, None);
        later["fingerprint"] = json!("g");
        board.take(later);
        board.forget();
        assert_eq!((board.alerts.len(), board.silences.len()), (1, 0));
        assert_eq!(board.alerts().len(), 1);
    }

    #[test]
    fn silences_are_shown_until_they_end() {
        let mut board = Board::default();
        let detail =
            json!({ "id": "s", "starts_at": "1970-01-01T00:00:10Z", "ends_at": "1970-01-01T00:00:20Z" });
        let set = json!({ "record": "history", "at": "1970-01-01T00:00:00Z", "sequence": 0, "status": "silence_set", "by": "s", "detail": detail });
        board.take(set.clone());
        let states =
            |board: &Board, now| board.silences(now).iter().map(|s| s["state"].clone()).collect::<Vec<_>>();
        assert_eq!(states(&board, 5_000), ["pending"]);
        assert_eq!(states(&board, 10_000), ["active"]);
        assert!(states(&board, 20_000).is_empty());
        let mut expired = set;
        (expired["status"], expired["at"]) = (json!("silence_expired"), json!("1970-01-01T00:00:01Z"));
        board.take(expired);
        assert!(states(&board, 10_000).is_empty());
    }
}
