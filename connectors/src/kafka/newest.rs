//! What stands at the end of a topic: how far it has been published.

use std::sync::Arc;

use levada_types::{Blame, ConnectorError};
use rdkafka::error::KafkaError;

use super::client::{ANSWER, Connection};
use super::partition::{Message, Partition};
use crate::published::marker;

/// How far before the end the last record is looked for first; there are control records between.
const LOOK_BACK: u64 = 16;

/// The newest record of a partition.
pub(super) enum Published {
    /// A job's.
    ByJob,
    /// Somebody else's.
    Otherwise,
}

/// The newest committed record of a partition, if there is one.
pub(super) fn last_published(
    connection: &Arc<Connection>,
    partition: u32,
) -> Result<Option<Published>, ConnectorError> {
    let newest = newest(connection, partition, 0)?;
    Ok(newest.map(|marker| if marker.is_some() { Published::ByJob } else { Published::Otherwise }))
}

/// The marker of the newest committed record at or after `from`. Steps back over control records and what was
/// aborted.
pub(super) fn newest(
    connection: &Arc<Connection>,
    partition: u32,
    from: u64,
) -> Result<Option<Option<(u64, u64)>>, ConnectorError> {
    let (first, next) = connection.bounds("look at the end of", partition)?;
    let first = first.max(from);
    let mut back = LOOK_BACK;
    loop {
        if next <= first {
            return Ok(None);
        }
        let start = next.saturating_sub(back).max(first);
        let mut queue = Partition::start(Arc::clone(connection), partition, start)?;
        let (mut found, mut ended, mut trouble) = (None, false, None);
        while !ended {
            connection.watch.check()?;
            queue.take(usize::MAX, ANSWER, |message| match message {
                Message::Record(record) => found = Some(marker(|name| record.header(name))),
                Message::End => ended = true,
                Message::Trouble(code) => trouble = Some(code),
            });
            if let Some(code) = trouble.take() {
                let error =
                    connection.place.failed("look at the end of", &KafkaError::MessageConsumption(code));
                match error.blame {
                    Blame::Outage => tracing::warn!("{error}; it is tried again"),
                    _ => return Err(error),
                }
            }
        }
        if found.is_some() || start == first {
            return Ok(found);
        }
        back = back.saturating_mul(8);
    }
}
