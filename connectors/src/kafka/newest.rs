//! What is committed in a partition, read to its end; and what stands last.

use std::sync::Arc;

use levada_types::{Blame, ConnectorError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{ANSWER, Connection};
use super::partition::{Message, Partition, Record};
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
    newest(connection, partition, 0, |record| match marker(|name| record.header(name)) {
        Some(_) => Published::ByJob,
        None => Published::Otherwise,
    })
}

/// What `read` makes of the newest committed record at or after `from`. Steps back over control records and what was
/// aborted.
pub(super) fn newest<T>(
    connection: &Arc<Connection>,
    partition: u32,
    from: u64,
    read: impl Fn(&Record<'_>) -> T,
) -> Result<Option<T>, ConnectorError> {
    const ACTION: &str = "look at the end of";
    let (first, next) = connection.bounds(ACTION, partition)?;
    let first = first.max(from);
    let mut back = LOOK_BACK;
    loop {
        if next <= first {
            return Ok(None);
        }
        let start = next.saturating_sub(back).max(first);
        let mut found = None;
        committed(connection, ACTION, partition, (start, next), |record| {
            found = Some(read(record));
            Ok(())
        })?;
        if found.is_some() || start == first {
            return Ok(found);
        }
        back = back.saturating_mul(8);
    }
}

/// Gives `each` the committed records of a partition from offset `start` on, up to where it ends, which is `end` at
/// least. A broker that has just come to lead the partition may take an earlier place for its end at first.
pub(super) fn committed(
    connection: &Arc<Connection>,
    action: &str,
    partition: u32,
    (start, end): (u64, u64),
    mut each: impl FnMut(&Record<'_>) -> Result<(), ConnectorError>,
) -> Result<(), ConnectorError> {
    if start >= end {
        return Ok(());
    }
    let mut queue = Partition::start(Arc::clone(connection), partition, start)?;
    let (mut taken, mut ended, mut trouble) = (Ok(()), false, None);
    while !ended {
        connection.watch.check()?;
        queue.take(usize::MAX, ANSWER, |message| match message {
            Message::Record(record) if taken.is_ok() => taken = each(&record),
            Message::Record(_) => {}
            Message::End(at) => ended = at >= end,
            Message::Trouble(code) => trouble = Some(code),
        });
        std::mem::replace(&mut taken, Ok(()))?;
        if let Some(code) = trouble.take() {
            let error = connection.place.failed(action, &KafkaError::MessageConsumption(code));
            let is_gone =
                matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange);
            match error.blame {
                Blame::Outage if !is_gone => tracing::warn!("{error}; it is tried again"),
                _ => return Err(error),
            }
        }
    }
    Ok(())
}
