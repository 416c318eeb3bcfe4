//! The sink: an epoch's rows become requests, which a thread sends.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Epoch, Existing, Output, Sink, SinkFactory, WhenDurable};

use super::WebhookSinkConfig;
use super::body::Bodies;
use super::config::WHOSE;
use super::delivery::{Delivery, Place, Request, Target};
use crate::https::{agent, shown};
use crate::log::{Log, TopicConfig, WriterOptions};
use crate::topic::{EPOCH_HEADER, LogSink, LogSinkConfig, POSITION_HEADER};

/// What was delivered is needed only to go on behind it, so the newest of it is enough.
const DELIVERED_SEGMENT_BYTES: u64 = 4 << 20;
const DELIVERED_RETAIN_BYTES: u64 = 16 << 20;

/// A webhook as a sink. Nothing is opened before it is written.
#[derive(Clone, Debug)]
pub struct WebhookSink {
    data_dir: PathBuf,
    job: String,
    name: String,
    config: WebhookSinkConfig,
    existing: Existing,
    /// The topics of what was acknowledged and of what was refused, as a run looks after them.
    kept: [LogSink; 2],
}

impl WebhookSink {
    /// Sends what sink `name` of `job` writes; its two topics are in `data_dir`.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        job: &str,
        name: &str,
        config: WebhookSinkConfig,
        existing: Existing,
    ) -> WebhookSink {
        let data_dir = data_dir.into();
        let kept = [WebhookSinkConfig::delivered(job, name), WebhookSinkConfig::undelivered(job, name)];
        let kept = kept.map(|topic| {
            LogSink::new(&data_dir, LogSinkConfig { topic, ..LogSinkConfig::default() }, existing)
        });
        WebhookSink { data_dir, job: job.into(), name: name.into(), config, existing, kept }
    }

    fn target(&self, media_type: &'static str) -> Result<Target, ConnectorError> {
        let authorization = match &self.config.bearer {
            None => None,
            Some(bearer) => Some(String::from_utf8(bearer.read(WHOSE)?).map_err(|_| {
                ConnectorError::configuration(format!(
                    "use the `bearer` of webhook {}: it is not UTF-8",
                    self.name
                ))
            })?),
        };
        let url = self.config.address()?;
        let (first_wait, longest_wait) = self.config.waits();
        let agent = agent(WHOSE, self.config.ca.as_deref(), self.config.timeout())?;
        Ok(Target {
            sink: self.name.clone(),
            shown: shown(&url),
            url,
            media_type,
            secret: self.config.secret.as_ref().map(|secret| secret.read(WHOSE)).transpose()?,
            authorization: authorization.map(|token| format!("Bearer {token}")),
            first_wait,
            longest_wait,
            agent,
        })
    }
}

impl SinkFactory for WebhookSink {
    fn describe(&self) -> String {
        match &self.config.url {
            Some(url) => format!("webhook {}", shown(url)),
            None => format!("webhook {}", self.name),
        }
    }

    /// What was sent cannot be taken back, but what is kept of it can be deleted.
    fn outputs(&self) -> Vec<&dyn Output> {
        self.kept.iter().flat_map(|topic| topic.outputs()).collect()
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let bodies = Bodies::new(&self.config, &schema, &self.job, &self.name)?;
        let target = self.target(bodies.media_type())?;
        let log = Log::open(&self.data_dir)?;
        let kept = TopicConfig {
            segment_bytes: DELIVERED_SEGMENT_BYTES,
            retain_bytes: Some(DELIVERED_RETAIN_BYTES),
            ..TopicConfig::default()
        };
        let name = WebhookSinkConfig::delivered(&self.job, &self.name);
        let delivered = log.ensure_topic(&name, kept)?;
        let undelivered = WebhookSinkConfig::undelivered(&self.job, &self.name);
        let undelivered = log.ensure_topic(&undelivered, TopicConfig::default())?;
        let last = delivered.last_record(0)?;
        if last.is_some() && self.existing == Existing::Refuse {
            return Err(ConnectorError::configuration(format!(
                "send to webhook {}: topic {name} says that an earlier run did; go on with --append, or delete it \
                 first with `levada topics delete {name} --data {}`",
                self.name,
                self.data_dir.display()
            )));
        }
        let number = |name: &str| {
            let header = last.as_ref()?.headers.iter().find(|(known, _)| known == name)?;
            Some(u64::from_le_bytes(header.1.as_ref().try_into().ok()?))
        };
        let noted = number(EPOCH_HEADER).zip(number(POSITION_HEADER));
        // What begins afresh has other keys than what was sent before.
        let (generation, done) = match (self.existing, place) {
            (_, Some(place)) => {
                let (generation, kept) = read_place(place).ok_or_else(|| {
                    ConnectorError::configuration(format!(
                        "go on with webhook {}: the checkpoint does not tell where",
                        self.name
                    ))
                })?;
                (generation, kept.max(noted))
            }
            (Existing::Resume, None) => (delivered.created_ms(), noted),
            (Existing::Refuse, None) => (delivered.created_ms(), None),
            (Existing::Append, None) => (delivered.created_ms() + delivered.bounds(0)?.next as i64, None),
        };
        let delivered = delivered.writer(0, WriterOptions::default())?;
        let undelivered = undelivered.writer(0, WriterOptions::default())?;
        let delivery = Delivery::after(done);
        let thread = {
            let delivery = Arc::clone(&delivery);
            let thread = std::thread::Builder::new().name("levada-webhook".to_owned());
            thread.spawn(move || delivery.run(&target, &delivered, &undelivered)).map_err(|error| {
                ConnectorError::outage(format!("start the thread of webhook {}: {error}", self.name))
            })?
        };
        let key = format!("{}/{}/{generation:x}", self.job, self.name);
        Ok(Box::new(OpenWebhook { bodies, delivery, thread: Some(thread), key, generation, done }))
    }
}

struct OpenWebhook {
    bodies: Bodies,
    delivery: Arc<Delivery>,
    thread: Option<JoinHandle<()>>,
    /// What all keys begin with.
    key: String,
    generation: i64,
    /// What an earlier run has delivered.
    done: Option<Place>,
}

impl Sink for OpenWebhook {
    fn publish(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        let key = |place: u64| format!("{}/{}/{place}", self.key, epoch.0);
        for (first, last, body) in self.bodies.of(rows, key)? {
            let last_place = (epoch.0, last);
            if self.done.is_some_and(|done| last_place <= done) {
                continue;
            }
            let request = Request { key: key(first), last: last_place, rows: last - first + 1, body };
            self.delivery.push(request)?;
        }
        Ok(())
    }

    /// Of what is done with: generation, whether there is a place, epoch, place in it.
    fn place(&self) -> Vec<u8> {
        let place = self.delivery.place();
        let (epoch, row) = place.unwrap_or_default();
        [self.generation as u64, u64::from(place.is_some()), epoch, row].map(u64::to_le_bytes).concat()
    }

    fn when_durable(&mut self, then: WhenDurable) {
        self.delivery.when_done(then);
    }

    fn check(&mut self) -> Result<(), ConnectorError> {
        self.delivery.check()
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        self.delivery.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(ConnectorError::outage("send to a webhook: its thread has panicked"));
        }
        self.delivery.check()
    }
}

impl Drop for OpenWebhook {
    fn drop(&mut self) {
        // A job that has failed does not wait: what is queued comes again when it goes on.
        self.delivery.close();
    }
}

fn read_place(bytes: &[u8]) -> Option<(i64, Option<Place>)> {
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    let mut numbers = [0; 4];
    for (number, part) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_le_bytes(part.try_into().ok()?);
    }
    let [generation, known, epoch, row] = numbers;
    Some((generation as i64, (known == 1).then_some((epoch, row))))
}
