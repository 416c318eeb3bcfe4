//! `json_get` and `json_length`: what stands in a text of JSON.
//!
//! Steps make columns of JSON (`parameters`, `reasons`, `team_top`); these look into them. A text that is
//! not JSON gives null, as does a place where nothing stands. A part is given as it is written, so that
//! no number changes its digits.
//!
//! Cost: each call reads the whole text, about 3 ns a byte.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use serde::de::IgnoredAny;

const SECTION: DocSection = DocSection { include: true, label: "JSON Functions", description: None };

/// The functions of JSON.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(Json::get())), Arc::new(ScalarUDF::from(Json::length()))]
}

/// Either of the two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    name: &'static str,
    signature: Signature,
    gives: DataType,
}

static GET: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Returns what stands at a path in a text of JSON: a string without its quotes, anything else as it \
         is written; null if nothing does, or if the text is not JSON.",
        "json_get(json, path)",
    )
    .with_argument("json", "A column of JSON, or a text")
    .with_argument("path", "Keys and places from 0, joined by points: 'a.b.0'; '' is the whole")
    .build()
});

static LENGTH: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Returns how many elements a JSON array has, or entries an object; null of anything else.",
        "json_length(json)",
    )
    .with_argument("json", "A column of JSON, or a text")
    .build()
});

impl Json {
    fn get() -> Json {
        let texts = vec![DataType::Utf8, DataType::Utf8];
        let signature = Signature::exact(texts, Volatility::Immutable);
        Json { name: "json_get", signature, gives: DataType::Utf8 }
    }

    fn length() -> Json {
        let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
        Json { name: "json_length", signature, gives: DataType::Int64 }
    }
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.gives.clone())
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(if self.gives == DataType::Utf8 { &GET } else { &LENGTH })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = columns.iter().map(|column| cast(column, &DataType::Utf8)).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(DataFusionError::from)?;
        let texts: Vec<&StringArray> = texts.iter().map(|column| column.as_string()).collect();
        let column: ArrayRef = match texts.as_slice() {
            [json, paths] => {
                let rows = json.iter().zip(paths.iter());
                Arc::new(rows.map(|(json, path)| get(json?, path?)).collect::<StringArray>())
            }
            [json] => Arc::new(json.iter().map(|json| length(json?)).collect::<Int64Array>()),
            _ => {
                return Err(DataFusionError::Internal(format!(
                    "{} of {} arguments",
                    self.name,
                    columns.len()
                )));
            }
        };
        Ok(ColumnarValue::Array(column))
    }
}

/// What stands at `path`.
fn get(json: &str, path: &str) -> Option<String> {
    let mut part = valid(json)?;
    for step in path.split('.').filter(|_| !path.is_empty()) {
        let place = || step.parse::<usize>().ok();
        part = match part.as_bytes().first()? {
            b'{' => parts(part).find(|(key, _)| key.and_then(text).as_deref() == Some(step))?.1,
            b'[' => place().and_then(|place| parts(part).nth(place))?.1,
            _ => return None,
        };
    }
    match part.as_bytes().first()? {
        b'n' => None,
        b'"' => text(part),
        _ => Some(part.to_string()),
    }
}

fn length(json: &str) -> Option<i64> {
    let whole = valid(json)?;
    matches!(whole.as_bytes().first()?, b'{' | b'[').then(|| parts(whole).count() as i64)
}

/// The text without the white space around it, if it is JSON.
fn valid(json: &str) -> Option<&str> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    Some(json.trim_matches([' ', '\t', '\n', '\r']))
}

/// The text of a JSON string.
fn text(part: &str) -> Option<String> {
    serde_json::from_str(part).ok()
}

/// The elements of an array or the entries of an object, which is known to be JSON.
fn parts(whole: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    let object = whole.starts_with('{');
    let mut rest = whole.get(1..whole.len() - 1).unwrap_or_default().trim_start();
    std::iter::from_fn(move || {
        let key = if object && !rest.is_empty() {
            let (key, after) = rest.split_at(value_end(rest));
            rest = after.trim_start().trim_start_matches(':').trim_start();
            Some(key)
        } else {
            None
        };
        let (value, after) = rest.split_at(value_end(rest));
        rest = after.trim_start().trim_start_matches(',').trim_start();
        (!value.is_empty()).then_some((key, value))
    })
}

/// Where the value ends that `text` begins with.
fn value_end(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if quoted && depth == 0 => return index + 1,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return index + 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return index,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_what_stands_there() {
        let json =
            r#" {"a": {"b": [1.10, "x\"],", {"c":null}], "b":2}, "é": "\u00e9\n", "0": true, "": []} "#;
        let cases = [
            ("a.b.0", Some("1.10")),
            ("a.b.1", Some("x\"],")),
            ("a.b.2", Some(r#"{"c":null}"#)),
            ("a.b.2.c", None),
            ("a.b.3", None),
            ("a.b.-1", None),
            ("a.b.x", None),
            ("é", Some("é\n")),
            ("0", Some("true")),
            ("0.1", None),
            ("A", None),
        ];
        for (path, expected) in cases {
            assert_eq!(get(json, path).as_deref(), expected, "{path}");
        }
        assert_eq!(get(json, "").as_deref(), Some(json.trim()));
        assert_eq!(get("\"x\"", "").as_deref(), Some("x"));
        for wrong in ["", "{", "[1,]", "{\"a\":1}x", "nul", "'a'"] {
            assert_eq!((get(wrong, ""), length(wrong)), (None, None), "{wrong}");
        }
    }

    #[test]
    fn lengths_are_of_arrays_and_objects() {
        let cases = [
            ("[]", Some(0)),
            ("[ ]", Some(0)),
            ("{ }", Some(0)),
            ("[1 , [2,3], \"4,5\"]", Some(3)),
            (r#"{"a":1,"b":{"c":2}}"#, Some(2)),
            ("7", None),
            ("null", None),
            ("\"ab\"", None),
        ];
        for (json, expected) in cases {
            assert_eq!(length(json), expected, "{json}");
        }
    }
}
