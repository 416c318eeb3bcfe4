//! A topic read by librdkafka's own functions, with no job behind: the least that reading it can cost.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::time::Duration;

use levada_connectors::kafka::fetch_settings;
use levada_types::RawRecords;
use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr, RDKafkaTopic};

use crate::bench::BenchError;

/// How many messages are asked for at once.
const AT_ONCE: usize = 4096;
/// How long the brokers may take to say what partitions there are.
const ANSWER: Duration = Duration::from_secs(30);
/// How long is waited for messages, in milliseconds; then it is tried again.
const WAIT_MS: i32 = 1000;

/// All partitions of a topic in one queue, from the beginning.
pub(super) struct RawTopic {
    /// What the topic and the queue were made of, which outlives them.
    _client: BaseConsumer,
    topic: *mut RDKafkaTopic,
    queue: *mut sys::rd_kafka_queue_t,
    partitions: i32,
    messages: Vec<*mut RDKafkaMessage>,
}

impl RawTopic {
    /// Begins to fetch, committed records alone, and as far ahead as a source does: by librdkafka's defaults it would
    /// stand still for a second whenever its queue is full.
    ///
    /// # Errors
    /// When the brokers do not answer, or there is no such topic.
    pub fn open(brokers: &str, name: &str) -> Result<RawTopic, BenchError> {
        let failed = |error: &dyn std::fmt::Display| BenchError::Other(format!("read {name}: {error}"));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("isolation.level", "read_committed");
        config.set("enable.partition.eof", "true");
        for (name, value) in fetch_settings() {
            config.set(name, value);
        }
        let client: BaseConsumer = config.create().map_err(|error| failed(&error))?;
        let metadata = client.fetch_metadata(Some(name), ANSWER).map_err(|error| failed(&error))?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
        let text = CString::new(name).map_err(|error| failed(&error))?;
        let native = client.client().native_ptr();
        // SAFETY: the client lives as long as what is made of it; a null configuration means the client's own.
        let (topic, queue) = unsafe {
            let topic = sys::rd_kafka_topic_new(native, text.as_ptr(), std::ptr::null_mut());
            (topic, sys::rd_kafka_queue_new(native))
        };
        let raw =
            RawTopic { _client: client, topic, queue, partitions, messages: Vec::with_capacity(AT_ONCE) };
        for partition in 0..partitions {
            let beginning = i64::from(sys::RD_KAFKA_OFFSET_BEGINNING);
            // SAFETY: topic and queue were made above.
            if unsafe { sys::rd_kafka_consume_start_queue(raw.topic, partition, beginning, raw.queue) } != 0 {
                return Err(failed(&"its partitions cannot be consumed"));
            }
        }
        Ok(raw)
    }

    /// Reads to the end of every partition; how many records there were. With `each`, they are copied together as a
    /// decoder takes them.
    ///
    /// # Errors
    /// When a partition cannot be read.
    pub fn read(&mut self, mut each: Option<&mut dyn FnMut(&RawRecords)>) -> Result<u64, BenchError> {
        let (mut records, mut ended) = (0, 0);
        while ended < self.partitions {
            let mut batch = RawRecords::default();
            let mut data = Vec::new();
            self.take(|message| {
                match message.err {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                        ended += 1;
                        return Ok(());
                    }
                    code => return Err(BenchError::Other(format!("read: {code:?}"))),
                }
                records += 1;
                if each.is_some() && !message.payload.is_null() {
                    let start = data.len() as u32;
                    // SAFETY: the message says where its payload is and how long.
                    data.extend_from_slice(unsafe {
                        std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len)
                    });
                    batch.spans.push((start, data.len() as u32));
                    batch.offsets.push(message.offset as u64);
                }
                Ok(())
            })?;
            if let Some(each) = &mut each
                && !batch.is_empty()
            {
                batch.data = data.into();
                each(&batch);
            }
        }
        Ok(records)
    }

    fn take(
        &mut self,
        mut each: impl FnMut(&RDKafkaMessage) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        self.messages.clear();
        // SAFETY: there is room for that many pointers; as many are written as it says. A message is ours until
        // it is destroyed.
        unsafe {
            let room = self.messages.as_mut_ptr();
            let came = sys::rd_kafka_consume_batch_queue(self.queue, WAIT_MS, room, AT_ONCE);
            self.messages.set_len(usize::try_from(came).unwrap_or(0));
            let mut outcome = Ok(());
            for message in self.messages.drain(..) {
                if let (Some(message), Ok(())) = (message.as_ref(), &outcome) {
                    outcome = each(message);
                }
                sys::rd_kafka_message_destroy(message);
            }
            outcome
        }
    }
}

impl Drop for RawTopic {
    fn drop(&mut self) {
        // SAFETY: both were made by `open`, and their client is dropped after this.
        unsafe {
            for partition in 0..self.partitions {
                sys::rd_kafka_consume_stop(self.topic, partition);
            }
            sys::rd_kafka_topic_destroy(self.topic);
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}
