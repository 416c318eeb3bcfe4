//! Who writes under a name: so that a producer which was fenced knows by whom.
//!
//! Brokers fence a producer when another begins under its name, and also when its own transaction was open for too
//! long, and say the same both times. So whoever takes a name over says so first, where the next one looks: with an
//! offset that is committed under a consumer group of that name, whose metadata is the run's own mark. A run that is
//! fenced while its mark is still the last one has not been replaced.
//!
//! The mark is written before the others are fenced, so it is there when they find out. Of two that begin at once, the
//! one whose mark was written last wins, whichever fenced the other first.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;

use super::client::{ANSWER, Connection};
use super::watch::Watch;

/// Who writes under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The run that asks.
    ThisRun,
    /// One that took it over.
    Another,
    /// Nobody can tell: marks may not be written, or were forgotten.
    Unknown,
}

/// A name that was taken.
pub(super) struct Claim {
    connection: Arc<Connection>,
    /// `None` where marks may not be written: then nobody can tell.
    member: Option<BaseConsumer<Watch>>,
    mark: String,
}

impl Claim {
    /// Says that this run writes under the name from now on.
    pub fn make(connection: &Arc<Connection>, name: &str) -> Claim {
        let connection = Arc::clone(connection);
        let mark = mark();
        let member = match make(&connection, name, &mark) {
            Ok(member) => Some(member),
            Err(why) => {
                let what = connection.place.describe();
                tracing::debug!("{what}: the consumer group {name} cannot be told who writes: {why}");
                None
            }
        };
        Claim { connection, member, mark }
    }

    /// Whose the name is now.
    pub fn holder(&self) -> Holder {
        let Some(member) = &self.member else { return Holder::Unknown };
        let place = &self.connection.place;
        let asked = self.connection.watch.patiently(place, "write", || {
            Ok(metadata(&member.committed_offsets(slot(&place.topic, None)?, ANSWER)?))
        });
        match asked {
            Ok(Some(mark)) if mark == self.mark.as_bytes() => Holder::ThisRun,
            Ok(Some(mark)) if !mark.is_empty() => Holder::Another,
            _ => Holder::Unknown,
        }
    }
}

/// The metadata of the first partition in a list. (rdkafka's own way to it panics at what is no text.)
fn metadata(list: &TopicPartitionList) -> Option<Vec<u8>> {
    // SAFETY: the list lives as long as it is borrowed, and says how many elements it has and how long their
    // metadata is.
    unsafe {
        let list = list.ptr().as_ref()?;
        let element = if list.cnt > 0 { list.elems.as_ref()? } else { return None };
        let bytes = element.metadata.cast::<u8>();
        Some(match bytes.is_null() {
            true => Vec::new(),
            false => std::slice::from_raw_parts(bytes, element.metadata_size).to_vec(),
        })
    }
}

fn make(connection: &Connection, name: &str, mark: &str) -> Result<BaseConsumer<Watch>, String> {
    let place = &connection.place;
    let mut config = place.config();
    config.set("group.id", name).set("enable.auto.commit", "false");
    let member: BaseConsumer<Watch> =
        place.client(&config, &Watch::of(place)).map_err(|error| error.to_string())?;
    let told = connection
        .watch
        .patiently(place, "write", || member.commit(&slot(&place.topic, Some(mark))?, CommitMode::Sync));
    told.map(|()| member).map_err(|error| error.to_string())
}

/// Where marks stand. The offset means nothing.
fn slot(topic: &str, mark: Option<&str>) -> Result<TopicPartitionList, KafkaError> {
    let mut slot = TopicPartitionList::new();
    slot.add_partition_offset(topic, 0, rdkafka::Offset::Offset(0))?;
    if let (Some(mark), Some(mut element)) = (mark, slot.find_partition(topic, 0)) {
        element.set_metadata(mark);
    }
    Ok(slot)
}

/// What no other run has: this process, the time, and how many there were before it here.
fn mark() -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{since}-{}", std::process::id(), MADE.fetch_add(1, Relaxed))
}
