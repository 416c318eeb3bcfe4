//! Events as token ids.
//!
//! Every event becomes a row of small numbers, one a field of the model. In every kind of field 0 is
//! padding and 1 is null or unknown; known values start at 2:
//!
//! ```text
//! vocabulary   place of the value in the list, plus 2
//! buckets      how many edges are <= the value, plus 2 (NaN is unknown)
//! elapsed      the same, of the minutes from the column's instant to the time of scoring
//! hour         hour of day of the column's instant after adding `offset_min` to UTC, plus 2
//! ```
//!
//! All but `elapsed` depend on the event alone, so they are made once, when it arrives; `elapsed` is
//! 0 until [`Tokenizer::sequence`] knows the time of scoring. The rule is the training script's
//! (`models/train/tokens.py`); `flights/golden.json` holds both to the same ids.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMillisecondType};
use levada_types::{FieldKind, TokenField};
use thiserror::Error;

/// The id of a place without an event.
pub const PADDING: i64 = 0;
/// The id of a null or unknown value.
pub const UNKNOWN: i64 = 1;
/// The id of the first known value.
pub const FIRST: i64 = 2;

const MINUTE_MS: f64 = 60_000.0;

/// A column of a batch cannot be told to the model.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    /// The batch has no such column.
    #[error("failed to make the field `{field}`: there is no column `{column}`; there are {known}")]
    Column {
        /// The model's field.
        field: String,
        /// The column that it is made from.
        column: String,
        /// The batch's columns.
        known: String,
    },
    /// The column's type does not serve.
    #[error("failed to make the field `{field}`: the column `{column}` is {found}, it must be {wanted}")]
    Type {
        /// The model's field.
        field: String,
        /// The column that it is made from.
        column: String,
        /// Its type.
        found: String,
        /// What the kind of field needs.
        wanted: &'static str,
    },
}

/// One value of an event, as the kinds of fields see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing known.
    Null,
    /// For a vocabulary.
    Text(&'a str),
    /// For buckets.
    Number(f64),
    /// For an hour and for elapsed minutes: milliseconds since the Unix epoch, UTC.
    Instant(i64),
}

/// One event, ready to stand in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One id a field; 0 where the field is `elapsed`.
    pub ids: Vec<i64>,
    /// One instant an `elapsed` field, in field order: milliseconds since the Unix epoch, UTC.
    pub instants: Vec<Option<i64>>,
}

/// Makes token ids by a model's fields.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    column: String,
    rule: Rule,
}

/// A [`FieldKind`], ready to be applied.
#[derive(Clone, Debug)]
enum Rule {
    Vocabulary(HashMap<String, i64>),
    Buckets(Vec<f64>),
    Elapsed(Vec<f64>),
    Hour { offset_ms: i64 },
}

impl Tokenizer {
    /// Prepares the fields of a (checked) manifest.
    #[must_use]
    pub fn new(fields: &[TokenField]) -> Self {
        let fields = fields
            .iter()
            .map(|field| Field {
                name: field.name.clone(),
                column: field.column.clone(),
                rule: Rule::new(&field.kind),
            })
            .collect();
        Self { fields }
    }

    /// How many ids an event has.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.fields.len()
    }

    /// How many different ids each field can have; every id is below that.
    #[must_use]
    pub fn sizes(&self) -> Vec<i64> {
        self.fields.iter().map(|field| field.rule.size()).collect()
    }

    /// One event from its values, one a field, in field order. A value of another type than its
    /// field's kind needs counts as unknown.
    #[must_use]
    pub fn event(&self, values: &[Value<'_>]) -> Event {
        let mut event = Event { ids: Vec::with_capacity(self.fields.len()), instants: Vec::new() };
        let missing = std::iter::repeat(&Value::Null);
        for (field, value) in self.fields.iter().zip(values.iter().chain(missing)) {
            if let Rule::Elapsed(_) = field.rule {
                event.ids.push(PADDING);
                event.instants.push(if let Value::Instant(ms) = value { Some(*ms) } else { None });
            } else {
                event.ids.push(field.rule.id(*value));
            }
        }
        event
    }

    /// One event a row, from the columns that the fields name.
    ///
    /// # Errors
    /// When a column is missing or its type does not serve.
    pub fn events(&self, batch: &RecordBatch) -> Result<Vec<Event>, TokenError> {
        let columns =
            self.fields.iter().map(|field| field.column_of(batch)).collect::<Result<Vec<_>, _>>()?;
        let row = |row| self.event(&columns.iter().map(|column| column.value(row)).collect::<Vec<_>>());
        Ok((0..batch.num_rows()).map(row).collect())
    }

    /// The sequence scored at `at_ms`: the last `window` of `events` (oldest first), the newest last,
    /// padded on the left, `elapsed` filled in. `window * width` ids, row-major.
    #[must_use]
    pub fn sequence(&self, events: &[Event], at_ms: i64, window: usize) -> Vec<i64> {
        let known = &events[events.len().saturating_sub(window)..];
        let mut ids = vec![PADDING; (window - known.len()) * self.width()];
        ids.reserve_exact(known.len() * self.width());
        for event in known {
            let mut instants = event.instants.iter();
            for (field, id) in self.fields.iter().zip(&event.ids) {
                ids.push(match &field.rule {
                    Rule::Elapsed(edges) => match instants.next() {
                        Some(Some(instant)) => bucket(edges, minutes_between(*instant, at_ms)),
                        _ => UNKNOWN,
                    },
                    _ => *id,
                });
            }
        }
        ids
    }
}

impl Rule {
    fn new(kind: &FieldKind) -> Self {
        match kind {
            FieldKind::Vocabulary { values } => {
                Self::Vocabulary(values.iter().cloned().zip(FIRST..).collect())
            }
            FieldKind::Buckets { edges } => Self::Buckets(edges.clone()),
            FieldKind::Elapsed { edges } => Self::Elapsed(edges.clone()),
            FieldKind::Hour { offset_min } => Self::Hour { offset_ms: i64::from(*offset_min) * 60_000 },
        }
    }

    fn size(&self) -> i64 {
        let known = match self {
            Self::Vocabulary(ids) => ids.len(),
            Self::Buckets(edges) | Self::Elapsed(edges) => edges.len() + 1,
            Self::Hour { .. } => 24,
        };
        FIRST + i64::try_from(known).unwrap_or(i64::MAX - FIRST)
    }

    fn id(&self, value: Value<'_>) -> i64 {
        match (self, value) {
            (Self::Vocabulary(ids), Value::Text(text)) => ids.get(text).copied().unwrap_or(UNKNOWN),
            (Self::Buckets(edges), Value::Number(number)) => bucket(edges, number),
            (Self::Hour { offset_ms }, Value::Instant(ms)) => {
                FIRST + ms.saturating_add(*offset_ms).div_euclid(3_600_000).rem_euclid(24)
            }
            _ => UNKNOWN,
        }
    }
}

fn bucket(edges: &[f64], value: f64) -> i64 {
    if value.is_nan() {
        return UNKNOWN;
    }
    let below = edges.partition_point(|edge| *edge <= value);
    FIRST + i64::try_from(below).unwrap_or(0)
}

// Milliseconds of any date are exact in an f64.
#[expect(clippy::cast_precision_loss)]
fn minutes_between(earlier_ms: i64, later_ms: i64) -> f64 {
    later_ms.saturating_sub(earlier_ms) as f64 / MINUTE_MS
}

/// A column in the one type that its field's kind reads.
enum Column {
    Text(ArrayRef),
    Number(ArrayRef),
    Instant(ArrayRef),
}

impl Column {
    fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Text(array) | Self::Number(array) | Self::Instant(array) if array.is_null(row) => {
                Value::Null
            }
            Self::Text(array) => Value::Text(array.as_string::<i32>().value(row)),
            Self::Number(array) => Value::Number(array.as_primitive::<Float64Type>().value(row)),
            Self::Instant(array) => {
                Value::Instant(array.as_primitive::<TimestampMillisecondType>().value(row))
            }
        }
    }
}

impl Field {
    fn column_of(&self, batch: &RecordBatch) -> Result<Column, TokenError> {
        let Some(array) = batch.column_by_name(&self.column) else {
            let known = batch
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(TokenError::Column { field: self.name.clone(), column: self.column.clone(), known });
        };
        let refused = |wanted| TokenError::Type {
            field: self.name.clone(),
            column: self.column.clone(),
            found: array.data_type().to_string(),
            wanted,
        };
        let read = |serves: bool, to: &DataType, wanted| {
            let found = if serves { cast(array, to).ok() } else { None };
            found.ok_or_else(|| refused(wanted))
        };
        let from = array.data_type();
        let nothing = *from == DataType::Null;
        Ok(match self.rule {
            Rule::Vocabulary(_) => {
                let text = matches!(
                    from,
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..)
                );
                let plain = from.is_integer() || *from == DataType::Boolean;
                Column::Text(read(
                    text || plain || nothing,
                    &DataType::Utf8,
                    "a string, an integer or a boolean",
                )?)
            }
            Rule::Buckets(_) => {
                let number = from.is_numeric() || *from == DataType::Boolean;
                Column::Number(read(number || nothing, &DataType::Float64, "a number")?)
            }
            Rule::Elapsed(_) | Rule::Hour { .. } => {
                let instant = matches!(from, DataType::Timestamp(..)) || nothing;
                Column::Instant(read(
                    instant,
                    &DataType::Timestamp(TimeUnit::Millisecond, None),
                    "a timestamp",
                )?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Float64Array, Int64Array, StringArray, TimestampMillisecondArray, TimestampSecondArray,
    };
    use arrow::datatypes::{Field as ArrowField, Schema};

    use super::*;

    fn field(name: &str, column: &str, kind: FieldKind) -> TokenField {
        TokenField { name: name.to_owned(), column: column.to_owned(), kind }
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::new(&[
            field("delay", "delay_min", FieldKind::Buckets { edges: vec![0.0, 15.0] }),
            field(
                "carrier",
                "carrier",
                FieldKind::Vocabulary { values: vec!["AA".to_owned(), "UA".to_owned()] },
            ),
            field("hour", "at", FieldKind::Hour { offset_min: -300 }),
            field("elapsed", "at", FieldKind::Elapsed { edges: vec![5.0, 60.0] }),
        ])
    }

    /// 2013-01-01T10:17:00Z, a quarter past five in New York.
    const AT: i64 = 1_357_035_420_000;

    #[test]
    fn values_become_ids() {
        let tokenizer = tokenizer();
        let ids = |delay, carrier, at| tokenizer.event(&[delay, carrier, at, at]).ids;
        assert_eq!(ids(Value::Number(-0.5), Value::Text("AA"), Value::Instant(AT)), [2, 2, 7, 0]);
        assert_eq!(ids(Value::Number(0.0), Value::Text("UA"), Value::Instant(-1)), [3, 3, 20, 0]);
        assert_eq!(ids(Value::Number(15.0), Value::Text("??"), Value::Null), [4, 1, 1, 0]);
        assert_eq!(ids(Value::Null, Value::Null, Value::Instant(0)), [1, 1, 21, 0]);
        assert_eq!(ids(Value::Number(f64::NAN), Value::Number(1.0), Value::Text("")), [1, 1, 1, 0]);
        assert_eq!(tokenizer.event(&[]).ids, [1, 1, 1, 0]);
        assert_eq!(tokenizer.sizes(), [5, 4, 26, 5]);
    }

    #[test]
    fn a_sequence_is_padded_on_the_left_cut_to_the_window_and_told_the_time() {
        let tokenizer = tokenizer();
        let event = |ms| tokenizer.event(&[Value::Null, Value::Null, Value::Null, Value::Instant(ms)]);
        let events = [event(AT), event(AT + 60_000), event(AT + 60 * 60_000)];
        let at = AT + 61 * 60_000;
        assert_eq!(tokenizer.sequence(&events[..1], at, 2), [0, 0, 0, 0, 1, 1, 1, 4]);
        assert_eq!(tokenizer.sequence(&events, at, 2), [1, 1, 1, 4, 1, 1, 1, 2]);
        assert_eq!(tokenizer.sequence(&[], at, 1), [0; 4]);
        let unknown = tokenizer.event(&[]);
        assert_eq!(tokenizer.sequence(&[unknown], at, 1), [1; 4]);
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<_> =
            columns.iter().map(|(name, a)| ArrowField::new(*name, a.data_type().clone(), true)).collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("a batch")
    }

    #[test]
    fn rows_become_events_whatever_the_width_of_the_columns() {
        let tokenizer = tokenizer();
        let carrier: ArrayRef = Arc::new(StringArray::from(vec![Some("UA"), None]));
        let wide = batch(vec![
            ("delay_min", Arc::new(Float64Array::from(vec![Some(2.0), None]))),
            ("carrier", Arc::clone(&carrier)),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(AT), None]).with_timezone("UTC"))),
        ]);
        let narrow = batch(vec![
            ("carrier", cast(&carrier, &DataType::Utf8View).expect("strings")),
            ("delay_min", Arc::new(Int64Array::from(vec![Some(2), None]))),
            ("at", Arc::new(TimestampSecondArray::from(vec![Some(AT / 1000), None]))),
        ]);
        let expected = [
            Event { ids: vec![3, 3, 7, 0], instants: vec![Some(AT)] },
            Event { ids: vec![1, 1, 1, 0], instants: vec![None] },
        ];
        assert_eq!(tokenizer.events(&wide).expect("events"), expected);
        assert_eq!(tokenizer.events(&narrow).expect("events"), expected);
    }

    #[test]
    fn a_batch_that_does_not_serve_is_refused() {
        let tokenizer = tokenizer();
        let delay: ArrayRef = Arc::new(StringArray::from(vec!["2"]));
        let missing = tokenizer.events(&batch(vec![("delay", Arc::clone(&delay))])).expect_err("no column");
        assert_eq!(
            missing.to_string(),
            "failed to make the field `delay`: there is no column `delay_min`; there are delay"
        );
        let text = tokenizer.events(&batch(vec![("delay_min", delay)])).expect_err("a string");
        assert_eq!(
            text.to_string(),
            "failed to make the field `delay`: the column `delay_min` is Utf8, it must be a number"
        );
    }
}
