//! What arrives: rows of alerts and of actions, as values.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use levada_types::Batch;
use xxhash_rust::xxh3::xxh3_64;

use super::labels::{Labels, hex};
use super::life::Told;
use super::plan::AlertPlan;
use super::{EARLIEST, LATEST};
use crate::operator::OperatorError;
use crate::operators::decide::json;

/// The longest value of a label.
const MAX_LABEL_BYTES: usize = 4096;
/// The longest annotations of an alert; columns that do not fit are null.
const MAX_ANNOTATION_BYTES: usize = 16 << 10;
/// The longest text of an action.
const MAX_TEXT_BYTES: usize = 4096;

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// In an instant, those that fire are taken first, so that one that resolves has the last word.
    Fires,
    Resolves,
}

/// A row that does something: its time, what it does, the batch and the place in it.
pub(super) type Arrived = (i64, Effect, usize, usize);

/// The rows of an epoch that fire or resolve, in order.
pub(super) fn alerts(plan: &AlertPlan, batches: &[Batch]) -> Result<Vec<Arrived>, OperatorError> {
    let mut all = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let fires = plan.condition.as_ref().map(|condition| condition.matches(&batch.rows)).transpose()?;
        let resolves = plan.resolved.as_ref().map(|condition| condition.matches(&batch.rows)).transpose()?;
        let is_time = |&(_, &time): &(usize, &i64)| (EARLIEST..=LATEST).contains(&time);
        for (row, &time) in batch.times().iter().enumerate().filter(is_time) {
            if resolves.as_ref().is_some_and(|resolves| resolves.value(row)) {
                all.push((time, Effect::Resolves, number, row));
            } else if fires.as_ref().is_none_or(|fires| fires.value(row)) {
                all.push((time, Effect::Fires, number, row));
            }
        }
    }
    // Stable: otherwise in the order of their content, in which they come.
    all.sort_by_key(|&(time, effect, ..)| (time, effect));
    Ok(all)
}

/// The labels of a row.
///
/// # Errors
/// The labels without the values that are too long, and what is wrong.
pub(super) fn labels(plan: &AlertPlan, rows: &RecordBatch, row: usize) -> Result<Labels, (Labels, String)> {
    let mut values = Vec::with_capacity(plan.labels.len());
    let mut problem = None;
    for &column in &plan.labels {
        let name = rows.schema_ref().field(column).name().clone();
        let value = text(rows.column(column), row);
        if value.len() > MAX_LABEL_BYTES {
            problem = Some(format!("the label `{name}` has more than {MAX_LABEL_BYTES} bytes"));
        } else {
            values.push((name, value));
        }
    }
    let labels = Labels::new(values.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    match problem {
        Some(problem) => Err((labels, problem)),
        None => Ok(labels),
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        _ => column.as_boolean().value(row).to_string(),
    }
}

/// What a row says of its alert.
pub(super) fn told(plan: &AlertPlan, rows: &RecordBatch, row: usize, at: i64) -> Told {
    let time = |column: Option<usize>| {
        let times = rows.column(column?).as_primitive::<TimestampMillisecondType>();
        times.is_valid(row).then(|| times.value(row).clamp(EARLIEST, LATEST))
    };
    let latest = at + plan.resolve_timeout_ms;
    let ends_at = time(plan.ends_at);
    Told {
        starts_at: time(plan.starts_at).map_or(at, |starts_at| starts_at.min(at)),
        ends_at: ends_at.map_or(latest, |ends_at| ends_at.min(latest)),
        timeout: ends_at.is_none_or(|ends_at| ends_at > latest),
        annotations: annotations(plan, rows, row),
    }
}

fn annotations(plan: &AlertPlan, rows: &RecordBatch, row: usize) -> String {
    let mut out = String::from("{");
    for &column in &plan.annotations {
        let field = rows.schema_ref().field(column);
        let one = json::object([(field, rows.column(column) as &dyn Array)], row);
        if out.len() > 1 {
            out.push(',');
        }
        if out.len() + one.len() <= MAX_ANNOTATION_BYTES {
            out.push_str(&one[1..one.len() - 1]);
        } else {
            json::string(&mut out, field.name());
            out.push_str(":null");
        }
    }
    out.push('}');
    out
}

/// What somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) action: String,
    pub(super) id: String,
    pub(super) matchers: String,
    pub(super) fingerprint: String,
    pub(super) group: String,
    pub(super) starts_at: Option<i64>,
    pub(super) ends_at: Option<i64>,
    pub(super) by: String,
    pub(super) comment: String,
}

impl Action {
    /// Reads one; `columns` are in the order of [`super::ACTION_COLUMNS`]. A text that is too long is cut, which
    /// [`Action::too_long`] tells.
    pub(super) fn read(columns: &[usize], rows: &RecordBatch, row: usize) -> (Action, bool) {
        let mut texts = [const { String::new() }; 9];
        let mut times = [None; 9];
        let mut too_long = false;
        for (place, &column) in columns.iter().enumerate().take(9) {
            let column = rows.column(column);
            if column.is_null(row) {
                continue;
            }
            match column.data_type() {
                DataType::Utf8 => {
                    let text = column.as_string::<i32>().value(row);
                    too_long |= text.len() > MAX_TEXT_BYTES;
                    if text.len() <= MAX_TEXT_BYTES {
                        texts[place] = text.trim().to_owned();
                    }
                }
                _ => {
                    let time = column.as_primitive::<TimestampMillisecondType>().value(row);
                    times[place] = Some(time.clamp(EARLIEST, LATEST));
                }
            }
        }
        let [action, id, matchers, fingerprint, group, _, _, by, comment] = texts;
        let (starts_at, ends_at) = (times[5], times[6]);
        (Action { action, id, matchers, fingerprint, group, starts_at, ends_at, by, comment }, too_long)
    }

    /// The identity of a silence to which none was given.
    pub(super) fn own_id(&self, at: i64) -> String {
        let mut text = String::new();
        _ = write!(text, "{at} {self:?}");
        hex(xxh3_64(text.as_bytes()))
    }

    /// For the history.
    pub(super) fn json(&self) -> String {
        let mut out = String::from("{\"action\":");
        json::string(&mut out, &self.action);
        for (name, text) in [
            ("id", &self.id),
            ("matchers", &self.matchers),
            ("fingerprint", &self.fingerprint),
            ("group", &self.group),
            ("comment", &self.comment),
        ] {
            if !text.is_empty() {
                out.push_str(&format!(",\"{name}\":"));
                json::string(&mut out, text);
            }
        }
        out.push('}');
        out
    }
}
