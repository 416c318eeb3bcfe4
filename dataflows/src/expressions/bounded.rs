//! Functions that make a text of any length out of a number: bounded, or one record could ask for more memory
//! than there is, and end the process for all.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The longest text that they make, in bytes of a repeated text or characters of a padded one. A batch of
/// such texts, of four bytes a character, still fits an Arrow array.
const LONGEST: i64 = 65_536;

/// A function whose second argument says how long its result is to be: null where it would be too long.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

/// `function`, bounded if it is one that needs it.
pub fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.name() {
        "lpad" | "rpad" | "repeat" => Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function })),
        _ => function,
    }
}

impl Bounded {
    /// How long a result would be at most.
    fn length(&self, text: Option<&str>, count: i64) -> i64 {
        match self.inner.name() {
            "repeat" => count.saturating_mul(text.map_or(0, |text| text.len() as i64)),
            _ => count,
        }
    }

    /// The second argument, null where the result would be too long.
    fn counts(&self, texts: &ArrayRef, counts: &ArrayRef) -> Result<Int64Array> {
        let texts = cast(texts, &DataType::Utf8)?;
        let counts = cast(counts, &DataType::Int64)?;
        let rows = texts.as_string::<i32>().iter().zip(counts.as_primitive::<Int64Type>());
        Ok(rows.map(|(text, count)| count.filter(|&count| self.length(text, count) <= LONGEST)).collect())
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [texts, counts, ..] = ColumnarValue::values_to_arrays(&args.args)?.as_slice() {
            let counts = self.counts(texts, counts)?;
            let one = args.args.iter().take(2).all(|value| matches!(value, ColumnarValue::Scalar(_)));
            args.args[1] = if one && counts.len() == 1 {
                ColumnarValue::Scalar(datafusion_common::ScalarValue::Int64(
                    counts.is_valid(0).then(|| counts.value(0)),
                ))
            } else {
                ColumnarValue::Array(Arc::new(counts))
            };
        }
        self.inner.inner().invoke_with_args(args)
    }
}
