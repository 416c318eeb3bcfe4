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
use super::delivery::{Delivery, Request, Target};
use crate::delivered::{Kept, Place, Remembered, write_place};
use crate::https::{agent, shown};

/// A webhook as a sink. Nothing is opened before it is written.
#[derive(Clone, Debug)]
pub struct WebhookSink {
    job: String,
    name: String,
    config: WebhookSinkConfig,
    kept: Kept,
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
        let kept = Kept::new(data_dir, job, name, existing);
        WebhookSink { job: job.into(), name: name.into(), config, kept }
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
        self.kept.outputs()
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let bodies = Bodies::new(&self.config, &schema, &self.job, &self.name)?;
        let target = self.target(bodies.media_type())?;
        let Remembered { delivered, undelivered, generation, done } =
            self.kept.open(&format!("webhook {}", self.name), place)?;
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

    fn place(&self) -> Vec<u8> {
        write_place(self.generation, self.delivery.place())
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
