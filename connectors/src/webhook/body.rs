//! Rows to the bodies of requests, a function of the rows alone.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use chrono::{DateTime, SecondsFormat};
use levada_types::ConnectorError;
use serde_json::{Map, Value, json};

use super::{MessageForm, WebhookSinkConfig};
use crate::codec::Encoder;
use crate::codec::json::JsonEncoder;

/// The first moment of the year 0, and of the year 10000: RFC 3339 has four digits.
const WRITTEN_MS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// A part of a text: what stands there, or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Column(String),
}

/// Makes bodies.
pub struct Bodies {
    message: MessageForm,
    batch: Option<usize>,
    values: JsonEncoder,
    text: Vec<Part>,
    /// What CloudEvents come from: `/levada/JOB/SINK`.
    source: String,
    kind: String,
}

impl Bodies {
    /// For rows of `schema`.
    pub fn new(
        config: &WebhookSinkConfig,
        schema: &SchemaRef,
        job: &str,
        sink: &str,
    ) -> Result<Bodies, ConnectorError> {
        let text = template(config.text.as_deref().unwrap_or_default()).map_err(|reason| {
            ConnectorError::configuration(format!("use the `text` of webhook {sink}: {reason}"))
        })?;
        for part in &text {
            if let Part::Column(name) = part
                && schema.index_of(name).is_err()
            {
                let known: Vec<&str> =
                    schema.fields().iter().skip(1).map(|field| field.name().as_str()).collect();
                return Err(ConnectorError::configuration(format!(
                    "use the `text` of webhook {sink}: the rows have no column `{name}`, only {}",
                    known.join(", ")
                )));
            }
        }
        Ok(Bodies {
            message: config.message,
            batch: config.batch.map(|batch| batch as usize),
            values: JsonEncoder::new(schema)?,
            text,
            source: format!("/levada/{job}/{sink}"),
            kind: format!("levada.{sink}"),
        })
    }

    /// What the bodies' media type is.
    pub fn media_type(&self) -> &'static str {
        match (self.message, self.batch) {
            (MessageForm::Cloudevents, None) => "application/cloudevents+json",
            (MessageForm::Cloudevents, Some(_)) => "application/cloudevents-batch+json",
            _ => "application/json",
        }
    }

    /// The bodies of an epoch's rows, each with the places of its first and last row. `key` gives a row's identity.
    pub fn of(
        &mut self,
        rows: &[RecordBatch],
        key: impl Fn(u64) -> String,
    ) -> Result<Vec<(u64, u64, Vec<u8>)>, ConnectorError> {
        let mut events = Vec::new();
        for batch in rows {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            self.values.encode(batch, b"", &mut bytes, &mut ends);
            let times = batch.column(0).as_primitive::<TimestampMillisecondType>().values();
            let starts = std::iter::once(&0).chain(&ends);
            for ((start, end), time) in starts.zip(&ends).zip(times) {
                let row = bytes.get(*start..*end).unwrap_or_default();
                let place = events.len() as u64;
                events.push(self.event(row, *time, || key(place))?);
            }
        }
        let mut place = 0;
        let bodies = events.chunks(self.batch.unwrap_or(1)).map(|chunk| {
            let (first, last) = (place, place + chunk.len() as u64 - 1);
            place += chunk.len() as u64;
            let body = match self.batch {
                None => chunk.concat(),
                Some(_) => [b"[".as_slice(), &chunk.join(&b','), b"]"].concat(),
            };
            (first, last, body)
        });
        Ok(bodies.collect())
    }

    fn event(&self, row: &[u8], time: i64, key: impl Fn() -> String) -> Result<Vec<u8>, ConnectorError> {
        let value = match self.message {
            MessageForm::Json => return Ok(row.to_vec()),
            MessageForm::Cloudevents => {
                let mut head = json!({
                    "specversion": "1.0", "id": key(), "source": self.source, "type": self.kind,
                    "datacontenttype": "application/json",
                });
                let written = Some(time).filter(|ms| WRITTEN_MS.contains(ms));
                if let Some(time) = written.and_then(DateTime::from_timestamp_millis) {
                    head["time"] = json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
                }
                // The row as it is written everywhere else, not as it would be written again.
                let mut event = head.to_string().into_bytes();
                event.pop();
                event.extend_from_slice(b",\"data\":");
                event.extend_from_slice(row);
                event.push(b'}');
                return Ok(event);
            }
            MessageForm::Slack => json!({ "text": self.text(row)? }),
            MessageForm::Teams => json!({
                "type": "message",
                "attachments": [{
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "content": {
                        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                        "type": "AdaptiveCard", "version": "1.4",
                        "body": [{ "type": "TextBlock", "text": self.text(row)?, "wrap": true }],
                    },
                }],
            }),
        };
        Ok(value.to_string().into_bytes())
    }

    fn text(&self, row: &[u8]) -> Result<String, ConnectorError> {
        let row: Map<String, Value> = serde_json::from_slice(row)
            .map_err(|error| ConnectorError::damage(format!("read back a row of a webhook: {error}")))?;
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Column(name) => match row.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => "-".to_owned(),
                Some(other) => other.to_string(),
            },
        };
        Ok(self.text.iter().map(part).collect())
    }
}

/// A text's parts.
pub fn template(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            plain.push_str(from.get(..1).unwrap_or_default());
            rest = after;
        } else if let Some((name, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) {
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Column(name.trim().to_owned()));
            rest = after;
        } else {
            return Err(format!("a brace stands alone before {from:?}; one that is meant is written twice"));
        }
    }
    plain.push_str(rest);
    parts.push(Part::Text(plain));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use levada_types::Batch;

    use super::*;

    fn bodies(config: WebhookSinkConfig) -> Result<Vec<(u64, u64, String)>, String> {
        let machine = Field::new("machine", DataType::Utf8, true);
        let mean = Field::new("mean", DataType::Float64, false);
        let schema = Arc::new(Schema::new(vec![Batch::time_field(), machine, mean]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(vec![0, 1_500, i64::MAX])),
            Arc::new(StringArray::from(vec![Some("a\"b"), None, Some("c")])),
            Arc::new(Float64Array::from(vec![1.0, 2.5, 3.0])),
        ];
        let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut bodies = Bodies::new(&config, &schema, "job", "sink").map_err(|error| error.to_string())?;
        let made = bodies.of(&[rows.slice(0, 2), rows.slice(2, 1)], |place| format!("k{place}")).unwrap();
        Ok(made.into_iter().map(|(a, b, body)| (a, b, String::from_utf8(body).unwrap())).collect())
    }

    #[test]
    fn rows_go_alone_or_in_batches() {
        let config = WebhookSinkConfig { batch: Some(2), ..WebhookSinkConfig::default() };
        let expected = [
            (0, 1, r#"[{"machine":"a\"b","mean":1.0},{"machine":null,"mean":2.5}]"#.to_owned()),
            (2, 2, r#"[{"machine":"c","mean":3.0}]"#.to_owned()),
        ];
        assert_eq!(bodies(config).unwrap(), expected);
        let alone = bodies(WebhookSinkConfig::default()).unwrap();
        assert_eq!(alone[1], (1, 1, r#"{"machine":null,"mean":2.5}"#.to_owned()));
    }

    #[test]
    fn messages_have_their_shapes() {
        let config = WebhookSinkConfig { message: MessageForm::Cloudevents, ..WebhookSinkConfig::default() };
        let event = r#"{"specversion":"1.0","id":"k1","source":"/levada/job/sink","type":"levada.sink","datacontenttype":"application/json","time":"1970-01-01T00:00:01.500Z","data":{"machine":null,"mean":2.5}}"#;
        assert_eq!(bodies(config).unwrap()[1].2, event);
        let text = |message, text: &str| WebhookSinkConfig {
            message,
            text: Some(text.to_owned()),
            ..WebhookSinkConfig::default()
        };
        let slack = bodies(text(MessageForm::Slack, "{{{machine}}} at { mean }°")).unwrap();
        assert_eq!(slack[0].2, r#"{"text":"{a\"b} at 1.0°"}"#);
        assert_eq!(slack[1].2, r#"{"text":"{-} at 2.5°"}"#);
        let teams = bodies(text(MessageForm::Teams, "{mean}")).unwrap();
        assert!(teams[0].2.contains(r#"{"type":"TextBlock","text":"1.0","wrap":true}"#), "{}", teams[0].2);
        let wrong = bodies(text(MessageForm::Slack, "{machin}")).unwrap_err();
        assert!(wrong.contains("no column `machin`, only machine, mean"), "{wrong}");
        let wrong = bodies(text(MessageForm::Slack, "a } b")).unwrap_err();
        assert!(wrong.contains("a brace stands alone"), "{wrong}");
    }
}
