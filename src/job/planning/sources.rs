//! Sources: their columns and their event time.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use indexmap::IndexMap;
use levada_dataflows::plan::{EventTimePlan, SourcePlan};
use levada_types::{Batch, TIME_COLUMN};

use super::Planner;
use crate::job::spec::{ColumnType, EventTimeSpec, SourceSpec};
use crate::job::{formats, world};

/// What steps see of a source, even if something else about it is wrong.
pub(super) struct SourceView {
    pub(super) schema: SchemaRef,
    pub(super) timed: bool,
}

impl SourceView {
    pub(super) fn new(source: &SourceSpec) -> SourceView {
        let all = source.common.columns();
        let columns = all.iter().filter(|(name, _)| *name != TIME_COLUMN);
        let fields: Vec<_> = columns.map(|(column, kind)| kind.field(column)).collect();
        SourceView { schema: timed(&Schema::new(fields)), timed: source.common.event_time.is_some() }
    }
}

impl Planner<'_> {
    pub(super) fn source(&mut self, name: &str, source: &SourceSpec) -> Option<SourcePlan> {
        let before = self.cx.problems.len();
        let kind = source.connector.kind();
        let common = &source.common;
        for (part, there) in [
            ("schema", common.schema.contains_key(TIME_COLUMN)),
            ("metadata", common.metadata.contains_key(TIME_COLUMN)),
        ] {
            if there {
                let message = format!("`{TIME_COLUMN}` is the name of the row's own time; choose another");
                self.cx.problem(["source", name, kind, part, TIME_COLUMN], message);
            }
        }
        for column in common.metadata.keys().filter(|column| common.schema.contains_key(*column)) {
            let message =
                format!("there is a column `{column}` in the `schema` already; choose another name");
            self.cx.problem(["source", name, kind, "metadata", column], message);
        }
        let columns = common.columns();
        let decoded = decoded(&columns);
        let event_time = match &common.event_time {
            Some(spec) => self.event_time(&["source", name, kind, "event_time"], spec, &columns),
            None => None,
        };
        let reading = self.connections.source(name, source);
        let reading = reading.map_err(|wrong| self.misconnected(&["source", name, kind], wrong)).ok();
        if let Some(job_folder) = &self.look {
            world::look(name, source, job_folder, &mut self.cx);
            formats::look(name, source, &mut self.cx);
        }
        if self.cx.problems.len() > before {
            return None;
        }
        let (reader, decoder) = reading?;
        let schema = timed(&decoded);
        Some(SourcePlan { name: name.into(), schema, event_time, reader, decoder, decoded })
    }

    fn event_time(
        &mut self,
        path: &[&str; 4],
        spec: &EventTimeSpec,
        schema: &IndexMap<String, ColumnType>,
    ) -> Option<EventTimePlan> {
        let at = |field: &'static str| [path[0], path[1], path[2], path[3], field];
        let column = schema.get_full(&spec.column);
        match column {
            None => self.cx.unknown(at("column"), "column", &spec.column, schema.keys().cloned()),
            Some((_, _, kind)) if kind.data_type != Batch::timestamp_type() => {
                let message = format!("the event time `{}` is {kind}; it must be a timestamp", spec.column);
                self.cx.problem(at("column"), message);
            }
            Some((_, _, kind)) if kind.nullable => {
                let message = format!(
                    "the event time `{}` may be null; a row must have a time: declare it `timestamp`",
                    spec.column
                );
                self.cx.problem(at("column"), message);
            }
            Some(_) => {}
        }
        let out_of_order_ms = self.cx.duration(at("out_of_order"), &spec.out_of_order);
        let idle_ms = match &spec.idle {
            Some(text) => Some(self.cx.duration(at("idle"), text)?.unsigned_abs()),
            None => None,
        };
        Some(EventTimePlan { column: column?.0, out_of_order_ms: out_of_order_ms?, idle_ms })
    }
}

/// What a decoder is to give: all columns of a source, as they are declared.
pub fn decoded(columns: &IndexMap<String, ColumnType>) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|(column, kind)| kind.field(column)).collect();
    Arc::new(Schema::new(fields))
}

/// A schema with the time column before it.
pub fn timed(decoded: &Schema) -> SchemaRef {
    let time = std::iter::once(Arc::new(Batch::time_field()));
    Arc::new(Schema::new(time.chain(decoded.fields().iter().cloned()).collect::<Vec<_>>()))
}
