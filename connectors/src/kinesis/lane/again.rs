//! Reading again what was written down, and going on behind it.

use std::collections::BTreeMap;
use std::time::Instant;

use levada_types::ConnectorError;

use super::super::cursor::Cursor;
use super::super::lanes::KeyRange;
use super::super::merge::merge;
use super::super::positions::{Entry, Part, Place};
use super::{LaneReader, Step};

impl LaneReader {
    /// Reads again what an entry tells of.
    pub(super) fn read_again(&mut self, entry: &Entry) -> Result<Step, ConnectorError> {
        let mut counts = Vec::new();
        for part in &entry.parts {
            match self.gather(part)? {
                Ok(count) => counts.push((part.shard.clone(), count)),
                Err(step) => return Ok(step),
            }
        }
        let mut taken = Vec::new();
        for (shard, count) in counts {
            if let Some(cursor) = self.cursors.get_mut(&shard) {
                taken.push((cursor.range, cursor.take(count)));
            }
        }
        let (mut offset, skip) = (entry.from, self.skip);
        let waiting = &mut self.waiting;
        merge(entry.lane.keys, taken, |data| {
            if offset >= entry.from + skip {
                waiting.push(offset, data);
            }
            offset += 1;
        });
        if offset != entry.end {
            return Err(ConnectorError::damage(format!(
                "{} again: {} records are there of {} that an earlier run took",
                self.settings.what,
                offset - entry.from,
                entry.end - entry.from
            )));
        }
        self.skip = 0;
        self.at_end |= entry.ends_history;
        self.again.pop_front();
        Ok(Step::More)
    }

    /// Has a cursor hold a part at its front: how many records that is, or what was done instead.
    fn gather(&mut self, part: &Part) -> Result<Result<usize, Step>, ConnectorError> {
        let range = self.shards.iter().find(|shard| shard.id == part.shard).map(|shard| shard.range);
        let range = range.ok_or_else(|| {
            let (what, shard) = (&self.settings.what, &part.shard);
            ConnectorError::damage(format!(
                "{what} again: shard {shard} is not there any more, and with it records that an earlier run took; a job \
                 goes on from its inputs, so have the stream keep them longer, and begin afresh (--fresh)"
            ))
        })?;
        let reading = self.settings.reading(self.lane.keys, range);
        let cursor = self.cursors.entry(part.shard.clone());
        let cursor = cursor.or_insert_with(|| Cursor::again(&part.shard, range, &part.first));
        while cursor.buffer.front().is_some_and(|front| front.sequence < part.first) {
            cursor.buffer.pop_front();
        }
        let missing = cursor.buffer.front().is_some_and(|front| front.sequence != part.first);
        if let Some(last) = cursor.buffer.iter().position(|record| record.sequence >= part.last) {
            if missing || cursor.buffer[last].sequence != part.last {
                return Err(cursor.gone(&reading, "records that an earlier run took are not there any more"));
            }
            return Ok(Ok(last + 1));
        }
        if missing || cursor.ended || cursor.at_tip {
            return Err(cursor.gone(&reading, "records that an earlier run took are not there any more"));
        }
        if cursor.due() > Instant::now() {
            return Ok(Err(Step::Wait(cursor.due())));
        }
        cursor.fetch(&reading)?;
        Ok(Err(Step::More))
    }

    /// All that was written down has been read again: every shard goes on where it was then.
    pub(super) fn go_on(&mut self, at: BTreeMap<String, Place>) {
        let mut read = std::mem::take(&mut self.cursors);
        for (id, place) in at {
            let range = self.shards.iter().find(|shard| shard.id == id).map(|shard| shard.range);
            if place.done {
                let has_child = self.shards.iter().any(|shard| shard.parents.contains(&id));
                if range.is_some() && !has_child {
                    self.childless.insert(id.clone());
                }
                self.done.insert(id, place);
                continue;
            }
            let again = read.remove(&id).filter(|cursor| cursor.place().after == place.after);
            let cursor = match again {
                Some(mut cursor) => {
                    cursor.go_on(&place);
                    cursor
                }
                // Of one that is not listed any more nothing is left: the service says so.
                None => Cursor::behind(&id, range.unwrap_or(KeyRange::ALL), place),
            };
            self.cursors.insert(id, cursor);
        }
        self.begin_children();
    }
}
