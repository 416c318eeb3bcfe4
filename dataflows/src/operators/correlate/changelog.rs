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

/// The values of the column `kind`.
pub const KINDS: [&str; 4] =
    [Kind::Opened.name(), Kind::Changed.name(), Kind::Merged.name(), Kind::Closed.name()];

/// What a row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Opened,
    Changed,
    Merged,
    Closed,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Opened => "opened",
            Kind::Changed => "changed",
            Kind::Merged => "merged",
            Kind::Closed => "closed",
        }
    }
}

/// The columns of the step's stream; the step's documentation says what they mean.
pub(super) fn schema(count: &[String]) -> SchemaRef {
    let mut fields = vec![
        Batch::time_field(),
        Field::new("incident", DataType::Utf8, false),
        Field::new("revision", DataType::Int64, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("at", Batch::timestamp_type(), false),
        Field::new("first_at", Batch::timestamp_type(), false),
        Field::new("last_at", Batch::timestamp_type(), false),
        Field::new("events", DataType::Int64, false),
        Field::new("severity", DataType::Float64, false),
        Field::new("peak", DataType::Float64, false),
        Field::new("peak_at", Batch::timestamp_type(), false),
        Field::new("strength", DataType::Float64, false),
        Batch::json_field("reasons", false),
    ];
    for column in count {
        fields.push(Field::new(format!("{column}_distinct"), DataType::Int64, false));
        fields.push(Batch::json_field(&format!("{column}_top"), false));
    }
    fields.extend([
        Batch::json_field("members", false),
        Field::new("into", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    Arc::new(Schema::new(fields))
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
    rows: usize,
}

impl Changelog {
    /// Writes the row of an incident's current revision.
    pub(super) fn write(
        &mut self,
        settings: &Settings,
        at: i64,
        kind: Kind,
        incident: &Incident,
        into: Option<&str>,
        note: Option<&str>,
    ) {
        self.incident.append_value(incident.key.id());
        self.revision.append_value(incident.revision);
        self.kind.append_value(kind.name());
        self.at.append_value(at);
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
        self.strength.append_value(strength);
        self.reasons.append_value(Value::Object(reasons).to_string());

        self.counted.resize_with(settings.count.len(), Default::default);
        for ((distinct, top), tally) in self.counted.iter_mut().zip(&incident.tallies) {
            distinct.append_value(tally.distinct() as i64);
            top.append_value(tally.top());
        }
        let members = incident.members.iter().map(|(_, member)| cell::json(member)).collect();
        self.members.append_value(Value::Array(members).to_string());
        self.into.append_option(into);
        self.note.append_option(note);
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
        let rows = RecordBatch::try_new(settings.schema.clone(), columns)?;
        let total = std::mem::take(&mut self.rows);
        let pieces = (0..total).step_by(Batch::MAX_ROWS);
        Ok(pieces.map(|start| rows.slice(start, Batch::MAX_ROWS.min(total - start))).collect())
    }
}
