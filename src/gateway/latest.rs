//! The latest record of every key: a topic read as a table.
//!
//! A view is made when it is first asked for, reads its topic from the first record, and keeps the last record
//! of every value of one field. Each request first reads on to the end that the topic had when it came in; a
//! request reads at most [`STEP_RECORDS`] records, answers 503 when that was not enough, and the next one
//! goes on from there. Bounds: [`MAX_VIEWS`] views, of each [`MAX_KEYS`] keys and [`MAX_VALUE_BYTES`] bytes;
//! records beyond are counted in `refused`. Cost: about 1 µs a record, for its JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use levada_connectors::log::{Log, LogError, Reader, RecordRef, Start, Topic};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Shared;
use super::envelope::write_envelope;
use super::events::blocking;
use super::problem::Problem;

/// The most views; the one that was asked for longest ago leaves.
const MAX_VIEWS: usize = 32;
/// The most keys of a view.
const MAX_KEYS: usize = 10_000;
/// The most bytes of a view's records.
const MAX_VALUE_BYTES: usize = 32 << 20;
/// The most records that one request reads.
const STEP_RECORDS: usize = 500_000;
const READ_RECORDS: usize = 8192;
const READ_BYTES: usize = 4 << 20;

/// The views that were asked for.
#[derive(Debug, Default)]
pub struct Views {
    views: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    count: u64,
    views: HashMap<(String, String), (u64, Arc<Mutex<Option<View>>>)>,
}

/// The latest record of each key of a topic.
#[derive(Debug)]
struct View {
    topic: Topic,
    field: String,
    readers: Vec<Reader>,
    rows: BTreeMap<String, Row>,
    bytes: usize,
    /// Whether any record has the field, whatever its value.
    has_field: bool,
    /// Records without the field, or where it is no key.
    without_key: u64,
    /// Records that there was no room for.
    refused: u64,
}

#[derive(Debug)]
struct Row {
    partition: u32,
    timestamp_ms: i64,
    envelope: Vec<u8>,
}

/// `GET /v1/topics/{topic}/latest?key=FIELD`
pub async fn latest(shared: Arc<Shared>, topic: String, field: String) -> Result<Vec<u8>, Problem> {
    let view = shared.views.get(&topic, &field).await;
    let mut held = Arc::clone(&view).lock_owned().await;
    let log = shared.log.clone();
    blocking(move || {
        let mut view = match held.take() {
            Some(view) => view,
            None => View::open(&log, &topic, field)?,
        };
        let left = view.read_on()?;
        let body = match left {
            0 if view.is_unknown() => Err(view.no_such_field()),
            0 => Ok(view.to_json()),
            left => {
                let problem = Problem::unavailable("the topic is still being read; ask again");
                Err(problem.with("records_left", left))
            }
        };
        // After an error the view is not put back: the next request makes a new one.
        *held = Some(view);
        Ok(body)
    })
    .await?
}

impl Views {
    async fn get(&self, topic: &str, field: &str) -> Arc<Mutex<Option<View>>> {
        let mut asked = self.views.lock().await;
        asked.count += 1;
        let (now, name) = (asked.count, (topic.to_owned(), field.to_owned()));
        if !asked.views.contains_key(&name)
            && asked.views.len() >= MAX_VIEWS
            && let Some(oldest) =
                asked.views.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone())
        {
            asked.views.remove(&oldest);
        }
        let (at, view) = asked.views.entry(name).or_default();
        *at = now;
        Arc::clone(view)
    }
}

impl View {
    fn open(log: &Log, topic: &str, field: String) -> Result<View, LogError> {
        let topic = log.topic(topic)?;
        let readers = (0..topic.partitions())
            .map(|partition| topic.reader(partition, Start::Beginning))
            .collect::<Result<_, _>>()?;
        Ok(View {
            topic,
            field,
            readers,
            rows: BTreeMap::new(),
            bytes: 0,
            has_field: false,
            without_key: 0,
            refused: 0,
        })
    }

    /// Reads to where the topic ends now; how many records are left when that is too many.
    fn read_on(&mut self) -> Result<u64, LogError> {
        let (mut room, mut left) = (STEP_RECORDS, 0);
        for partition in 0..self.topic.partitions() {
            let end = self.topic.bounds(partition)?.next;
            while let Some(reader) = self.readers.get_mut(partition as usize) {
                let missing = end.saturating_sub(reader.position());
                if missing == 0 || room == 0 {
                    left += missing;
                    break;
                }
                let most = usize::try_from(missing).unwrap_or(usize::MAX).min(room).min(READ_RECORDS);
                let fetched = reader.read(most, READ_BYTES)?;
                if fetched.is_empty() {
                    break;
                }
                room -= fetched.len();
                for record in &fetched {
                    self.take(partition, &record);
                }
            }
        }
        Ok(left)
    }

    fn take(&mut self, partition: u32, record: &RecordRef<'_>) {
        let value: Option<Value> = serde_json::from_slice(record.value).ok();
        let found = value.as_ref().and_then(|value| value.get(&self.field));
        self.has_field |= found.is_some();
        let key = match found {
            Some(Value::String(text)) => text.clone(),
            Some(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
            _ => {
                self.without_key += 1;
                return;
            }
        };
        let held = self.rows.get(&key);
        // Within a partition the later record counts; across partitions, the one with the later time.
        if held.is_some_and(|row| row.partition != partition && row.timestamp_ms > record.timestamp_ms) {
            return;
        }
        let mut envelope = Vec::with_capacity(record.value.len() + 128);
        write_envelope(&mut envelope, self.topic.name(), partition, record);
        let (new, freed) = held.map_or((true, 0), |row| (false, row.envelope.len()));
        let bytes = self.bytes - freed + envelope.len();
        if (new && self.rows.len() >= MAX_KEYS) || bytes > MAX_VALUE_BYTES {
            self.refused += 1;
            return;
        }
        self.bytes = bytes;
        self.rows.insert(key, Row { partition, timestamp_ms: record.timestamp_ms, envelope });
    }

    /// Whether there are records, and none has the field, not even with null.
    fn is_unknown(&self) -> bool {
        self.without_key > 0 && !self.has_field
    }

    fn no_such_field(&self) -> Problem {
        let (field, topic) = (&self.field, self.topic.name());
        let records = match self.without_key {
            1 => "the one record".to_owned(),
            n => format!("any of the {n} records"),
        };
        let detail = format!("parameter key: there is no field {field:?} in {records} of {topic:?}");
        Problem::bad_request(detail).with("parameter", "key")
    }

    fn to_json(&self) -> Vec<u8> {
        let next: Vec<u64> = self.readers.iter().map(Reader::position).collect();
        let head = json!({
            "topic": self.topic.name(), "key": self.field, "keys": self.rows.len(), "next": next,
            "without_key": self.without_key, "refused": self.refused,
        });
        let mut body = head.to_string().into_bytes();
        body.pop();
        body.extend_from_slice(b",\"latest\":{");
        for (index, (key, row)) in self.rows.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(Value::from(key.as_str()).to_string().as_bytes());
            body.push(b':');
            body.extend_from_slice(&row.envelope);
        }
        body.extend_from_slice(b"}}");
        body
    }
}
