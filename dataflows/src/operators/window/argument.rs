//! What the aggregates of a window read: each argument and filter evaluated once a batch.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};

use crate::expressions::Expression;
use crate::operator::OperatorError;

/// An argument with its filter, and the forms in which some aggregate wants it.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    /// The text that it was made from: aggregates with the same text share it.
    pub(super) text: String,
    /// The value; none for `count(*)`.
    pub(super) value: Option<Expression>,
    /// The condition.
    pub(super) filter: Option<Expression>,
    /// Whether some aggregate compares the values.
    pub(super) ordinals: bool,
    /// Whether some aggregate calculates with the values as floats.
    pub(super) floats: bool,
    /// Whether some aggregate reads it at all.
    pub(super) read: bool,
}

/// An argument's values for one batch.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// The rows that count: those that pass the filter and whose value is not null. None: all.
    pub(super) mask: Option<BooleanBuffer>,
    /// Numbers that compare as the values do; see [`ordinal`]. Integers, times as they are.
    pub(super) ordinals: ScalarBuffer<i64>,
    /// The values as floats.
    pub(super) floats: ScalarBuffer<f64>,
    /// The values as text.
    pub(super) text: Option<StringArray>,
}

impl Argument {
    /// Evaluates itself.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<Values, OperatorError> {
        let mut values = Values::default();
        if !self.read {
            return Ok(values);
        }
        if let Some(filter) = &self.filter {
            values.mask = Some(filter.matches(rows)?.values().clone());
        }
        let Some(value) = &self.value else { return Ok(values) };
        let array = value.evaluate(rows)?;
        if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
            values.mask = Some(match values.mask {
                Some(mask) => &mask & nulls.inner(),
                None => nulls.inner().clone(),
            });
        }
        match array.data_type() {
            DataType::Int64 => {
                values.ordinals = array.as_primitive::<Int64Type>().values().clone();
                if self.floats {
                    values.floats = values.ordinals.iter().map(|&x| x as f64).collect();
                }
            }
            DataType::Float64 => {
                values.floats = array.as_primitive::<Float64Type>().values().clone();
                if self.ordinals {
                    values.ordinals = values.floats.iter().map(|&x| ordinal(x)).collect();
                }
            }
            DataType::Boolean => {
                values.ordinals = array.as_boolean().values().iter().map(i64::from).collect();
            }
            DataType::Timestamp(..) => {
                values.ordinals = array.as_primitive::<TimestampMillisecondType>().values().clone();
            }
            _ => values.text = Some(array.as_string::<i32>().clone()),
        }
        Ok(values)
    }
}

/// A number that compares as the float does in DuckDB: NaN is greater than everything and equal to
/// itself, and -0 is 0.
#[inline(always)]
pub(crate) fn ordinal(x: f64) -> i64 {
    // Adding 0 makes 0 of -0.
    let bits = if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() } as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The float of an ordinal.
pub(crate) fn value_of(ordinal: i64) -> f64 {
    f64::from_bits((ordinal ^ (((ordinal >> 63) as u64) >> 1) as i64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_compare_as_the_floats() {
        let growing = [f64::NEG_INFINITY, -1e300, -1.0, -5e-324, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN];
        for pair in growing.windows(2) {
            assert!(ordinal(pair[0]) < ordinal(pair[1]), "{pair:?}");
            assert_eq!(value_of(ordinal(pair[0])).to_bits(), pair[0].to_bits());
        }
        assert_eq!(ordinal(-0.0), ordinal(0.0));
        assert_eq!(ordinal(-f64::NAN), ordinal(f64::NAN));
    }
}
