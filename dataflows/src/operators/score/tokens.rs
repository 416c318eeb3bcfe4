//! Events as token ids, by the rules of a model's manifest ([`FieldKind`]).
//!
//! 0 is padding, 1 is null or unknown, known values start at 2. All ids are known when the event
//! comes, but for the minutes that have passed since: of those the event's instant is remembered, and
//! they are counted at the time of scoring.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, TimestampMillisecondType};
use levada_types::{Batch, FieldKind, TokenField};

use crate::plan::PlanContext;
use crate::rows::type_name;

/// Makes an event's token ids.
pub(super) struct Tokenizer {
    fields: Vec<Field>,
}

struct Field {
    column: usize,
    data_type: DataType,
    rule: Rule,
}

enum Rule {
    Vocabulary(HashMap<String, i64>),
    Buckets(Vec<f64>),
    Elapsed(Vec<f64>),
    Hour { offset_ms: i64 },
}

const UNKNOWN: i64 = 1;
const FIRST: i64 = 2;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// Remembered of an event that has no instant.
const NO_INSTANT: i64 = i64::MIN;

impl Tokenizer {
    /// Checks that `schema` has what the model's fields are made from; reports all that it has not.
    pub(super) fn plan(fields: &[TokenField], schema: &Schema, cx: &mut PlanContext<'_>) -> Option<Tokenizer> {
        let before = cx.problems.len();
        let mut planned = Vec::new();
        for field in fields {
            let Ok(column) = schema.index_of(&field.column) else {
                let message = format!(
                    "the model's field `{}` is made from a column `{}`, and there is none",
                    field.name, field.column
                );
                cx.problem(["model"], message);
                if let Some(problem) = cx.problems.last_mut() {
                    problem.wrong = Some(field.column.clone());
                    problem.known = schema.fields().iter().map(|field| field.name().clone()).collect();
                }
                continue;
            };
            let data_type = schema.field(column).data_type().clone();
            if let Some(wanted) = unfit(&field.kind, &data_type) {
                let message = format!(
                    "the model's field `{}` is made from `{}`, which must be {wanted} but is of type {}",
                    field.name,
                    field.column,
                    type_name(&data_type)
                );
                cx.problem(["model"], message);
            }
            planned.push(Field { column, data_type, rule: rule(&field.kind) });
        }
        (cx.problems.len() == before).then_some(Tokenizer { fields: planned })
    }

    /// How many numbers an event is.
    pub(super) fn width(&self) -> usize {
        self.fields.len()
    }

    /// What is to be remembered of each row: [`Tokenizer::width`] numbers a row.
    pub(super) fn remember(&self, rows: &RecordBatch) -> Vec<i64> {
        let width = self.width();
        let mut all = vec![UNKNOWN; rows.num_rows() * width];
        for (place, field) in self.fields.iter().enumerate() {
            field.remember(rows, |row, number| all[row * width + place] = number);
        }
        all
    }

    /// The sequence of what is remembered of a key's events, oldest first, as scored at `at`: `window`
    /// events, padded on the left.
    pub(super) fn sequence(&self, remembered: &VecDeque<i64>, window: usize, at: i64) -> Vec<i64> {
        let mut sequence = vec![0; (window * self.width()).saturating_sub(remembered.len())];
        sequence.extend(remembered);
        let padding = sequence.len() - remembered.len();
        for (place, field) in self.fields.iter().enumerate() {
            if let Rule::Elapsed(edges) = &field.rule {
                for number in sequence[padding..].iter_mut().skip(place).step_by(self.width()) {
                    *number = match *number {
                        NO_INSTANT => UNKNOWN,
                        instant => bucket(edges, at.saturating_sub(instant) as f64 / MINUTE_MS as f64),
                    };
                }
            }
        }
        sequence
    }
}

/// What a column must be for a kind of field, if it is not.
fn unfit(kind: &FieldKind, data_type: &DataType) -> Option<&'static str> {
    let (fits, wanted) = match kind {
        FieldKind::Vocabulary { .. } => (*data_type != Batch::timestamp_type(), "a string, int, float or bool"),
        FieldKind::Buckets { .. } => {
            (matches!(data_type, DataType::Int64 | DataType::Float64), "an int or a float")
        }
        FieldKind::Elapsed { .. } | FieldKind::Hour { .. } => {
            (*data_type == Batch::timestamp_type(), "a timestamp")
        }
    };
    (!fits).then_some(wanted)
}

fn rule(kind: &FieldKind) -> Rule {
    match kind {
        FieldKind::Vocabulary { values } => {
            let mut ids = HashMap::new();
            for (value, id) in values.iter().zip(FIRST..) {
                // A value that is listed twice is its first place.
                ids.entry(value.clone()).or_insert(id);
            }
            Rule::Vocabulary(ids)
        }
        FieldKind::Buckets { edges } => Rule::Buckets(edges.clone()),
        FieldKind::Elapsed { edges } => Rule::Elapsed(edges.clone()),
        FieldKind::Hour { offset_min } => Rule::Hour { offset_ms: i64::from(*offset_min) * MINUTE_MS },
    }
}

fn bucket(edges: &[f64], value: f64) -> i64 {
    FIRST + edges.partition_point(|edge| *edge <= value) as i64
}

impl Field {
    /// Tells `set` the number of each row whose number is not [`UNKNOWN`].
    fn remember(&self, rows: &RecordBatch, mut set: impl FnMut(usize, i64)) {
        let column = rows.column(self.column);
        let present = |row: &usize| column.is_valid(*row);
        let every_row = 0..rows.num_rows();
        match &self.rule {
            Rule::Vocabulary(ids) => {
                let mut text = String::new();
                for row in every_row.filter(present) {
                    let id = match &self.data_type {
                        DataType::Utf8 => ids.get(column.as_string::<i32>().value(row)),
                        other => {
                            text.clear();
                            // Writing to a string cannot fail.
                            let _ = match other {
                                DataType::Boolean => write!(text, "{}", column.as_boolean().value(row)),
                                DataType::Float64 => {
                                    write!(text, "{}", column.as_primitive::<Float64Type>().value(row))
                                }
                                _ => write!(text, "{}", column.as_primitive::<Int64Type>().value(row)),
                            };
                            ids.get(&text)
                        }
                    };
                    set(row, id.copied().unwrap_or(UNKNOWN));
                }
            }
            Rule::Buckets(edges) => {
                for row in every_row.filter(present) {
                    let value = match self.data_type {
                        DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as f64,
                        _ => column.as_primitive::<Float64Type>().value(row),
                    };
                    if !value.is_nan() {
                        set(row, bucket(edges, value));
                    }
                }
            }
            Rule::Elapsed(_) => {
                let instants = column.as_primitive::<TimestampMillisecondType>();
                for row in every_row {
                    set(row, if instants.is_null(row) { NO_INSTANT } else { instants.value(row) });
                }
            }
            Rule::Hour { offset_ms } => {
                let instants = column.as_primitive::<TimestampMillisecondType>();
                for row in every_row.filter(present) {
                    let local = instants.value(row).saturating_add(*offset_ms);
                    set(row, FIRST + local.div_euclid(HOUR_MS).rem_euclid(24));
                }
            }
        }
    }
}
