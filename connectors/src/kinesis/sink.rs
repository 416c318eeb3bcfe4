//! A stream as a sink: an epoch's rows become records, which a thread puts.

use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Epoch, Existing, Output, Sink, SinkFactory, WhenDurable};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::KinesisSinkConfig;
use super::client::{Client, now_ms};
use super::sender::{Outgoing, RECORD_BYTES, Sender, Target};
use super::sign::hex;
use crate::delivered::{Kept, Place, Remembered, note, write_place};
use crate::published::{RowEncoder, Rows};

/// The longest partition key, in characters.
const KEY_CHARS: usize = 256;

/// A stream of Kinesis as a sink. Nothing is asked before it is written.
#[derive(Clone, Debug)]
pub struct KinesisSink {
    job: String,
    name: String,
    config: KinesisSinkConfig,
    kept: Kept,
}

impl KinesisSink {
    /// Puts what sink `name` of `job` writes; its two topics are in `data_dir`.
    ///
    /// # Errors
    /// When the configuration is wrong: with which field, and why.
    pub fn new(
        data_dir: impl Into<std::path::PathBuf>,
        job: &str,
        name: &str,
        config: KinesisSinkConfig,
        existing: Existing,
    ) -> Result<KinesisSink, (Option<&'static str>, String)> {
        config.check()?;
        let kept = Kept::new(data_dir, job, name, existing);
        Ok(KinesisSink { job: job.into(), name: name.into(), config, kept })
    }
}

impl SinkFactory for KinesisSink {
    fn describe(&self) -> String {
        format!("stream {} of Kinesis", self.config.stream)
    }

    fn outputs(&self) -> Vec<&dyn Output> {
        self.kept.outputs()
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let what = format!("write {}", self.describe());
        let encoder = RowEncoder::new(&self.describe(), &self.config.key, &schema)?;
        let KinesisSinkConfig { stream, region, endpoint, credentials, .. } = &self.config;
        let client = Client::new(stream, region.as_deref(), endpoint.as_deref(), credentials.as_ref());
        let client = client.map_err(|failure| failure.error(&what))?;
        let Remembered { delivered, undelivered, generation, done } =
            self.kept.open(&self.describe(), place)?;
        let sender = Sender::after(done);
        let target = Arc::new(Target { client, what, delivered, undelivered });
        let thread = {
            let (sender, target) = (Arc::clone(&sender), Arc::clone(&target));
            let thread = std::thread::Builder::new().name("levada-kinesis".to_owned());
            thread.spawn(move || sender.run(&target)).map_err(|error| {
                ConnectorError::outage(format!("start the thread of sink {}: {error}", self.name))
            })?
        };
        Ok(Box::new(OpenStream {
            encoder,
            rows: Rows::default(),
            id_field: json!(self.config.id_field()).to_string(),
            identity: format!("{}/{}/{generation:x}", self.job, self.name),
            sender,
            target,
            thread: Some(thread),
            generation,
            done,
        }))
    }
}

struct OpenStream {
    encoder: RowEncoder,
    rows: Rows,
    /// As JSON.
    id_field: String,
    /// What all identities begin with.
    identity: String,
    sender: Arc<Sender>,
    target: Arc<Target>,
    thread: Option<JoinHandle<()>>,
    generation: i64,
    /// What an earlier run has delivered.
    done: Option<Place>,
}

impl Sink for OpenStream {
    fn publish(&mut self, Epoch(epoch): Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        self.encoder.encode(rows, &mut self.rows)?;
        let mut records = Vec::new();
        for (number, row) in (0..).zip(self.rows.iter()) {
            let place = (epoch, number);
            if self.done.is_some_and(|done| place <= done) {
                continue;
            }
            let id = format!("{}/{epoch}/{number}", self.identity);
            let data = identified(&self.id_field, &id, row.value);
            let partition_key = partition_key(row.key.unwrap_or(id.as_bytes()));
            let bytes = data.len() + partition_key.len();
            if bytes > RECORD_BYTES {
                let reason = format!("it has {bytes} bytes with its key, and Kinesis takes {RECORD_BYTES}");
                tracing::warn!("failed to {}: a record was set aside: {reason}", self.target.what);
                let data = String::from_utf8_lossy(&data);
                let letter = json!({ "reason": reason, "partition_key": partition_key, "data": data });
                note(&self.target.undelivered, place, now_ms() as i64, &letter.to_string(), true)?;
                continue;
            }
            records.push(Outgoing { place, partition_key, data });
        }
        self.sender.push(records.into_iter())
    }

    fn place(&self) -> Vec<u8> {
        write_place(self.generation, self.sender.place())
    }

    fn when_durable(&mut self, then: WhenDurable) {
        self.sender.when_done(then);
    }

    fn check(&mut self) -> Result<(), ConnectorError> {
        self.sender.check()
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        self.sender.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(ConnectorError::outage(format!("{}: its thread has panicked", self.target.what)));
        }
        self.sender.check()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        // A job that has failed does not wait: what is queued comes again when it goes on.
        self.sender.close();
    }
}

/// A row, a JSON object, with its identity as the first field.
fn identified(field: &str, id: &str, row: &[u8]) -> Vec<u8> {
    let rest = row.strip_prefix(b"{").unwrap_or(b"}");
    let comma: &[u8] = if rest == b"}" { b"" } else { b"," };
    [b"{", field.as_bytes(), b":", json!(id).to_string().as_bytes(), comma, rest].concat()
}

/// A key as Kinesis takes it: 1 to 256 characters. Another one is the SHA-256 of itself.
fn partition_key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if (1..=KEY_CHARS).contains(&text.chars().count()) => text.into(),
        _ => hex(&Sha256::digest(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_row_with_its_identity() {
        let text = |row: &str| String::from_utf8(identified("\"_id\"", "j/s/1/2/3", row.as_bytes())).unwrap();
        assert_eq!(text(r#"{"n":1}"#), r#"{"_id":"j/s/1/2/3","n":1}"#);
        assert_eq!(text("{}"), r#"{"_id":"j/s/1/2/3"}"#);
    }

    #[test]
    fn a_key_that_kinesis_would_not_take_is_its_hash() {
        assert_eq!(partition_key(b"press"), "press");
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(partition_key(b""), of_nothing);
        assert_eq!(partition_key("ü".repeat(256).as_bytes()), "ü".repeat(256));
        assert_eq!(partition_key("ü".repeat(257).as_bytes()).len(), 64);
    }
}
