//! The records of one partition, as many as there are at once.
//!
//! librdkafka's queue of a partition is read here by its own functions: a record of 130 bytes costs 0.2 µs so, a
//! third of what it costs one by one through an event each.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;
use std::time::Duration;

use levada_types::ConnectorError;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr, RDKafkaTopic};

use super::client::Connection;

/// How many messages are asked for at once, at most.
const AT_ONCE: usize = 4096;

/// A partition that is being fetched.
pub(super) struct Partition {
    /// What the topic was made of, which outlives it.
    _connection: Arc<Connection>,
    topic: *mut RDKafkaTopic,
    number: i32,
    messages: Vec<*mut RDKafkaMessage>,
}

// SAFETY: librdkafka's handles may be used from any thread, and this one is used from one at a time.
unsafe impl Send for Partition {}

/// What came.
pub(super) enum Message<'a> {
    Record(Record<'a>),
    /// There is nothing further now: the next record will have this offset or a later one.
    End(u64),
    Trouble(RDKafkaErrorCode),
}

/// A record in librdkafka's memory.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    message: &'a RDKafkaMessage,
}

impl Partition {
    /// Begins to fetch at `offset`.
    pub fn start(connection: Arc<Connection>, number: u32, offset: u64) -> Result<Partition, ConnectorError> {
        let place = &connection.place;
        let failed = |code: RDKafkaErrorCode| place.failed("read", &KafkaError::MessageConsumption(code));
        let name = CString::new(place.topic.as_str()).map_err(|_| {
            ConnectorError::configuration(format!("read {}: its name has a zero", place.describe()))
        })?;
        let client = connection.consumer.client().native_ptr();
        // SAFETY: the client lives as long as `connection`; a null configuration means the client's own.
        let topic = unsafe { sys::rd_kafka_topic_new(client, name.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            // SAFETY: it tells what the call before on this thread left.
            return Err(failed(unsafe { sys::rd_kafka_last_error() }.into()));
        }
        let partition = Partition {
            topic,
            number: number as i32,
            messages: Vec::new(),
            _connection: Arc::clone(&connection),
        };
        // SAFETY: the topic was made above.
        if unsafe { sys::rd_kafka_consume_start(topic, number as i32, offset as i64) } != 0 {
            // SAFETY: as above.
            return Err(failed(unsafe { sys::rd_kafka_last_error() }.into()));
        }
        Ok(partition)
    }

    /// Gives `each` up to `count` messages, as soon as there is one, and none after `wait`.
    pub fn take(&mut self, count: usize, wait: Duration, mut each: impl FnMut(Message<'_>)) {
        // librdkafka waits until it has as many as are asked for.
        if self.some(1, wait, &mut each) == 1 && count > 1 {
            self.some(count - 1, Duration::ZERO, &mut each);
        }
    }

    fn some(&mut self, count: usize, wait: Duration, each: &mut impl FnMut(Message<'_>)) -> usize {
        let count = count.min(AT_ONCE);
        self.messages.clear();
        self.messages.reserve(count);
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is room for `count` pointers; as many are written as it says.
        let came = unsafe {
            let room = self.messages.as_mut_ptr();
            let came = sys::rd_kafka_consume_batch(self.topic, self.number, wait_ms, room, count);
            let came = usize::try_from(came).unwrap_or(0);
            self.messages.set_len(came);
            came
        };
        for message in self.messages.drain(..) {
            // SAFETY: a message is ours until it is destroyed, and nobody keeps what it is lent.
            unsafe {
                let Some(found) = message.as_ref() else { continue };
                each(match found.err {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Message::Record(Record { message: found }),
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => Message::End(found.offset as u64),
                    code => Message::Trouble(code.into()),
                });
                sys::rd_kafka_message_destroy(message);
            }
        }
        came
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // SAFETY: the topic was made by `start`, and its client lives as long as `connection`.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic, self.number);
            sys::rd_kafka_topic_destroy(self.topic);
        }
    }
}

impl<'a> Record<'a> {
    pub fn offset(&self) -> u64 {
        self.message.offset as u64
    }

    /// Empty for a tombstone.
    pub fn value(&self) -> &'a [u8] {
        // SAFETY: the message says where its payload is and how long.
        unsafe { bytes(self.message.payload, self.message.len) }.unwrap_or_default()
    }

    /// Gives `each` the names and values of the headers, in their order; a header without value has an empty one.
    pub fn headers(&self, mut each: impl FnMut(&[u8], &[u8])) {
        // SAFETY: the headers belong to the message, and are not written; what is given ends with this call.
        unsafe {
            let mut headers = std::ptr::null_mut();
            let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            if sys::rd_kafka_message_headers(self.message, &mut headers) != none {
                return;
            }
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            for index in 0.. {
                if sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) != none {
                    return;
                }
                each(CStr::from_ptr(name).to_bytes(), bytes(value, size).unwrap_or_default());
            }
        }
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the message says where its key is and how long.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// Its own time, by the producer or by the broker as the topic says; -1 if it is so old that it has none.
    pub fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is only read.
        unsafe { sys::rd_kafka_message_timestamp(self.message, &mut kind) }
    }

    /// The newest header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let name = CString::new(name).ok()?;
        // SAFETY: the headers belong to the message, and are not written.
        unsafe {
            let mut headers = std::ptr::null_mut();
            let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            if sys::rd_kafka_message_headers(self.message, &mut headers) != none {
                return None;
            }
            let (mut value, mut size) = (std::ptr::null(), 0);
            if sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size) != none {
                return None;
            }
            bytes(value, size)
        }
    }
}

/// # Safety
/// There are `len` bytes at `start`, for as long as `'a`, if it is not null.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), len) })
}
