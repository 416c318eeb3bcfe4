//! The rows that the step emits: notifications and history.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use levada_types::Batch;
use xxhash_rust::xxh3::xxh3_128;

/// The columns of the step's stream; the step's documentation says what they mean.
pub(super) fn schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let count = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        count("sequence"),
        text("record", false),
        text("id", false),
        Field::new("at", Batch::timestamp_type(), false),
        text("receiver", false),
        text("status", false),
        text("why", true),
        text("group", true),
        Batch::json_field("group_labels", true),
        count("groups"),
        count("level"),
        count("firing"),
        count("resolved"),
        count("left_out"),
        text("fingerprint", true),
        text("by", true),
        Batch::json_field("alerts", false),
        Batch::json_field("detail", true),
    ]))
}

/// A row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) at: i64,
    /// Which of its instant it is: so rows of one time stay in the order in which things happened.
    pub(super) sequence: usize,
    /// Whether it is a notification, or history.
    pub(super) notification: bool,
    pub(super) receiver: String,
    pub(super) status: &'static str,
    pub(super) why: Option<String>,
    /// The group's identity and labels.
    pub(super) group: Option<(String, String)>,
    pub(super) groups: usize,
    pub(super) level: usize,
    pub(super) firing: usize,
    pub(super) resolved: usize,
    pub(super) left_out: usize,
    pub(super) fingerprint: Option<String>,
    pub(super) by: Option<String>,
    /// Those that are listed, each an object of JSON.
    pub(super) alerts: Vec<String>,
    pub(super) detail: Option<String>,
}

impl Row {
    /// What tells a row from all others: of a notification when, why, of what and to whom it is, so that the same one has
    /// the same identity in every run.
    fn id(&self) -> String {
        let group = self.group.as_ref().map(|(_, labels)| labels.as_str());
        let mut parts = format!("{}\n{}\n{}\n{:?}\n{:?}\n{}", self.at, self.receiver, self.status, self.why, group, self.level);
        if !self.notification {
            parts += &format!("\n{:?}\n{:?}\n{:?}", self.fingerprint, self.by, self.detail);
        }
        format!("{:032x}", xxh3_128(parts.as_bytes()))
    }
}

/// A batch ends with the row that brings the alerts listed in it to so many bytes: a column of text has a limit.
const BATCH_BYTES: usize = 64 << 20;

/// Rows being written.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    /// The instant of the last row, and how many it has. All that happens in an instant happens in one epoch.
    instant: (i64, usize),
}

impl Rows {
    pub(super) fn push(&mut self, mut row: Row) {
        if self.instant.0 != row.at {
            self.instant = (row.at, 0);
        }
        row.sequence = self.instant.1;
        self.instant.1 += 1;
        self.rows.push(row);
    }

    /// The rows so far, in batches.
    pub(super) fn finish(&mut self, schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
        self.instant = (i64::MIN, 0);
        let rows = std::mem::take(&mut self.rows);
        let (mut batches, mut from, mut bytes) = (Vec::new(), 0, 0);
        for (at, row) in rows.iter().enumerate() {
            bytes += row.alerts.iter().map(String::len).sum::<usize>();
            if at + 1 == rows.len() || at + 1 - from == Batch::MAX_ROWS || bytes >= BATCH_BYTES {
                batches.push(batch(&rows[from..=at], schema)?);
                (from, bytes) = (at + 1, 0);
            }
        }
        Ok(batches)
    }
}

fn batch(rows: &[Row], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let times = || -> ArrayRef {
        let mut times = TimestampMillisecondBuilder::new();
        rows.iter().for_each(|row| times.append_value(row.at));
        Arc::new(times.finish())
    };
    let text = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        let mut texts = StringBuilder::new();
        rows.iter().for_each(|row| texts.append_option(of(row)));
        Arc::new(texts.finish())
    };
    let count = |of: &dyn Fn(&Row) -> usize| -> ArrayRef {
        let mut counts = Int64Builder::new();
        rows.iter().for_each(|row| counts.append_value(of(row) as i64));
        Arc::new(counts.finish())
    };
    let columns = vec![
        times(),
        count(&|row| row.sequence),
        text(&|row| Some(if row.notification { "notification" } else { "history" }.to_owned())),
        text(&|row| Some(row.id())),
        times(),
        text(&|row| Some(row.receiver.clone())),
        text(&|row| Some(row.status.to_owned())),
        text(&|row| row.why.clone()),
        text(&|row| row.group.as_ref().map(|(group, _)| group.clone())),
        text(&|row| row.group.as_ref().map(|(_, labels)| labels.clone())),
        count(&|row| row.groups),
        count(&|row| row.level),
        count(&|row| row.firing),
        count(&|row| row.resolved),
        count(&|row| row.left_out),
        text(&|row| row.fingerprint.clone()),
        text(&|row| row.by.clone()),
        text(&|row| Some(format!("[{}]", row.alerts.join(",")))),
        text(&|row| row.detail.clone()),
    ];
    RecordBatch::try_new(schema.clone(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_where_its_column_would_grow_too_long() {
        let mut rows = Rows::default();
        for at in 0..3 {
            rows.push(Row { at, alerts: vec!["1".repeat(BATCH_BYTES / 2)], ..Row::default() });
        }
        let batches = rows.finish(&schema()).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
        (0..Batch::MAX_ROWS as i64 + 1).for_each(|at| rows.push(Row { at, ..Row::default() }));
        let batches = rows.finish(&schema()).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [Batch::MAX_ROWS, 1]);
        assert!(rows.finish(&schema()).unwrap().is_empty());
    }
}
