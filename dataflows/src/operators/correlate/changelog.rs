//! The rows that tell of incidents.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use levada_types::Batch;
use serde_json::{Map, Value};

use super::cell;
use super::incident::Incident;
use super::spec::Settings;

/// The values of the column `kind`; the last three only where evidence is weighed.
pub const KINDS: [&str; 7] = [
    Kind::Opened.name(),
    Kind::Changed.name(),
    Kind::Merged.name(),
    Kind::Closed.name(),
    Kind::Split.name(),
    Kind::Assigned.name(),
    Kind::Unassigned.name(),
];

/// What a row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Opened,
    Changed,
    Merged,
    Closed,
    Split,
    Assigned,
    Unassigned,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Opened => "opened",
            Kind::Changed => "changed",
            Kind::Merged => "merged",
            Kind::Closed => "closed",
            Kind::Split => "split",
            Kind::Assigned => "assigned",
            Kind::Unassigned => "unassigned",
        }
    }
}

/// The columns of the step's stream; the step's documentation says what they mean. `more` if evidence is weighed: whether
/// assignments are told too.
pub(super) fn schema(count: &[String], more: Option<bool>) -> SchemaRef {
    // A row that tells of an event has nothing to say of its incident.
    let empty = more == Some(true);
    let mut fields = vec![
        Batch::time_field(),
        Field::new("incident", DataType::Utf8, empty),
        Field::new("revision", DataType::Int64, empty),
        Field::new("kind", DataType::Utf8, false),
        Field::new("at", Batch::timestamp_type(), false),
        Field::new("first_at", Batch::timestamp_type(), empty),
        Field::new("last_at", Batch::timestamp_type(), empty),
        Field::new("events", DataType::Int64, empty),
        Field::new("severity", DataType::Float64, empty),
        Field::new("peak", DataType::Float64, empty),
        Field::new("peak_at", Batch::timestamp_type(), empty),
        Field::new("strength", DataType::Float64, empty),
        Batch::json_field("reasons", empty),
    ];
    for column in count {
        fields.push(Field::new(format!("{column}_distinct"), DataType::Int64, empty));
        fields.push(Batch::json_field(&format!("{column}_top"), empty));
    }
    fields.extend([
        Batch::json_field("members", empty),
        Field::new("into", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    if more.is_some() {
        fields.extend([
            Field::new("because", DataType::Utf8, true),
            Field::new("origin", DataType::Utf8, true),
            Batch::json_field("parts", true),
            Batch::json_field("root", true),
            Batch::json_field("root_on", true),
            Field::new("root_at", Batch::timestamp_type(), true),
            Field::new("affected_distinct", DataType::Int64, empty),
            Batch::json_field("affected", empty),
            Field::new("score", DataType::Float64, empty),
        ]);
    }
    if empty {
        fields.push(Batch::json_field("event", true));
    }
    Arc::new(Schema::new(fields))
}

/// A row that tells of an incident.
pub(super) struct Entry<'a> {
    pub(super) at: i64,
    pub(super) kind: Kind,
    pub(super) incident: &'a Incident,
    pub(super) into: Option<&'a str>,
    pub(super) note: Option<&'a str>,
    /// What there is to tell besides where evidence is weighed.
    pub(super) more: Option<&'a More>,
}

/// What there is to tell of an incident where evidence is weighed.
#[derive(Debug, Default)]
pub(super) struct More {
    pub(super) strength: f64,
    pub(super) because: Option<&'static str>,
    pub(super) origin: Option<String>,
    /// Names of the incidents that were split from it.
    pub(super) parts: Vec<String>,
    /// The probable root event: its name, where it is, and its time.
    pub(super) root: Option<Value>,
    pub(super) root_on: Option<Value>,
    pub(super) root_at: Option<i64>,
    pub(super) affected_distinct: i64,
    pub(super) affected: Vec<Value>,
    pub(super) score: f64,
}

/// Rows being written.
#[derive(Debug, Default)]
pub(super) struct Changelog {
    incident: StringBuilder,
    revision: Int64Builder,
    kind: StringBuilder,
    at: TimestampMillisecondBuilder,
    first_at: TimestampMillisecondBuilder,
    last_at: TimestampMillisecondBuilder,
    events: Int64Builder,
    severity: Float64Builder,
    peak: Float64Builder,
    peak_at: TimestampMillisecondBuilder,
    strength: Float64Builder,
    reasons: StringBuilder,
    counted: Vec<(Int64Builder, StringBuilder)>,
    members: StringBuilder,
    into: StringBuilder,
    note: StringBuilder,
    more: MoreColumns,
    rows: usize,
}

#[derive(Debug, Default)]
struct MoreColumns {
    because: StringBuilder,
    origin: StringBuilder,
    parts: StringBuilder,
    root: StringBuilder,
    root_on: StringBuilder,
    root_at: TimestampMillisecondBuilder,
    affected_distinct: Int64Builder,
    affected: StringBuilder,
    score: Float64Builder,
    event: StringBuilder,
}

impl Changelog {
    /// Writes the row of an incident's current revision.
    pub(super) fn write(&mut self, settings: &Settings, row: &Entry<'_>) {
        let incident = row.incident;
        self.incident.append_value(incident.key.id());
        self.revision.append_value(incident.revision);
        self.kind.append_value(row.kind.name());
        self.at.append_value(row.at);
        self.first_at.append_value(incident.first_at);
        self.last_at.append_value(incident.last_at);
        self.events.append_value(incident.events as i64);
        self.severity.append_value(incident.severity);
        self.peak.append_value(incident.peak);
        self.peak_at.append_value(incident.peak_at);

        let mut strength = 0.0;
        let mut reasons = Map::new();
        for (link, &edges) in settings.links.iter().zip(&incident.edges).filter(|(_, edges)| **edges > 0) {
            strength += link.weight * edges as f64;
            reasons.insert(link.name.clone(), Value::from(edges));
        }
        self.strength.append_value(row.more.map_or(strength, |more| more.strength));
        self.reasons.append_value(Value::Object(reasons).to_string());

        self.counted.resize_with(settings.count.len(), Default::default);
        for ((distinct, top), tally) in self.counted.iter_mut().zip(&incident.tallies) {
            distinct.append_value(tally.distinct() as i64);
            top.append_value(tally.top());
        }
        let members = incident.members.iter().map(|(_, member)| cell::json(member)).collect();
        self.members.append_value(Value::Array(members).to_string());
        self.into.append_option(row.into);
        self.note.append_option(row.note);
        if let Some(more) = row.more {
            let columns = &mut self.more;
            columns.because.append_option(more.because);
            columns.origin.append_option(more.origin.as_deref());
            columns.parts.append_option((!more.parts.is_empty()).then(|| Value::from(more.parts.clone()).to_string()));
            columns.root.append_option(more.root.as_ref().map(Value::to_string));
            columns.root_on.append_option(more.root_on.as_ref().map(Value::to_string));
            columns.root_at.append_option(more.root_at);
            columns.affected_distinct.append_value(more.affected_distinct);
            columns.affected.append_value(Value::Array(more.affected.clone()).to_string());
            columns.score.append_value(more.score);
            columns.event.append_null();
        }
        self.rows += 1;
    }

    /// Writes which incident an event is in now, or that it is in none.
    pub(super) fn assign(&mut self, settings: &Settings, at: i64, event: &Value, incident: Option<&str>, because: Option<&str>) {
        self.incident.append_option(incident);
        self.revision.append_null();
        self.kind.append_value(if incident.is_some() { Kind::Assigned } else { Kind::Unassigned }.name());
        self.at.append_value(at);
        for times in [&mut self.first_at, &mut self.last_at, &mut self.peak_at, &mut self.more.root_at] {
            times.append_null();
        }
        for numbers in [&mut self.events, &mut self.more.affected_distinct] {
            numbers.append_null();
        }
        for numbers in [&mut self.severity, &mut self.peak, &mut self.strength, &mut self.more.score] {
            numbers.append_null();
        }
        self.counted.resize_with(settings.count.len(), Default::default);
        for (distinct, top) in &mut self.counted {
            distinct.append_null();
            top.append_null();
        }
        let more = &mut self.more;
        let texts = [&mut self.reasons, &mut self.members, &mut self.into, &mut self.note];
        let others = [&mut more.origin, &mut more.parts, &mut more.root, &mut more.root_on, &mut more.affected];
        for texts in texts.into_iter().chain(others) {
            texts.append_null();
        }
        more.because.append_option(because);
        more.event.append_value(event.to_string());
        self.rows += 1;
    }

    /// The rows so far.
    pub(super) fn finish(&mut self, settings: &Settings) -> Result<Vec<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            return Ok(Vec::new());
        }
        let at = Arc::new(self.at.finish());
        let mut columns: Vec<ArrayRef> = vec![
            at.clone(),
            Arc::new(self.incident.finish()),
            Arc::new(self.revision.finish()),
            Arc::new(self.kind.finish()),
            at,
            Arc::new(self.first_at.finish()),
            Arc::new(self.last_at.finish()),
            Arc::new(self.events.finish()),
            Arc::new(self.severity.finish()),
            Arc::new(self.peak.finish()),
            Arc::new(self.peak_at.finish()),
            Arc::new(self.strength.finish()),
            Arc::new(self.reasons.finish()),
        ];
        for (distinct, top) in &mut self.counted {
            columns.push(Arc::new(distinct.finish()));
            columns.push(Arc::new(top.finish()));
        }
        columns.push(Arc::new(self.members.finish()));
        columns.push(Arc::new(self.into.finish()));
        columns.push(Arc::new(self.note.finish()));
        let more = &mut self.more;
        let rest: [ArrayRef; 10] = [
            Arc::new(more.because.finish()),
            Arc::new(more.origin.finish()),
            Arc::new(more.parts.finish()),
            Arc::new(more.root.finish()),
            Arc::new(more.root_on.finish()),
            Arc::new(more.root_at.finish()),
            Arc::new(more.affected_distinct.finish()),
            Arc::new(more.affected.finish()),
            Arc::new(more.score.finish()),
            Arc::new(more.event.finish()),
        ];
        // As many of them as the schema has.
        columns.extend(rest);
        columns.truncate(settings.schema.fields().len());
        let rows = RecordBatch::try_new(settings.schema.clone(), columns)?;
        let total = std::mem::take(&mut self.rows);
        let pieces = (0..total).step_by(Batch::MAX_ROWS);
        Ok(pieces.map(|start| rows.slice(start, Batch::MAX_ROWS.min(total - start))).collect())
    }
}
