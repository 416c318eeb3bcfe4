//! The one list of connectors: from a job file's table to the ports of [`levada_types`].
//!
//! To add a connector: a line in `sources!` or `sinks!`, and its arm in [`source`] or [`sink`].
//! Nothing here touches the outside: what a factory needs is opened when the job runs.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, DecoderFactory, SinkFactory, SourceFactory};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::spec::{SinkCommon, SinkSpec, SourceCommon, SourceSpec, merged, object};
use super::{Environment, FromTable};
pub use seam::{FileSinkConfig, FileSourceConfig, Format, LogSinkConfig, LogSourceConfig};

macro_rules! connectors {
    ($(#[$about:meta])* $list:ident, $spec:ident, $common:ident:
        $($(#[doc = $doc:literal])* $kind:ident => $variant:ident($config:ident)),* $(,)?) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub enum $list {
            $($(#[doc = $doc])* $variant($config)),*
        }

        impl $list {
            /// Its name in a job file.
            pub fn kind(&self) -> &'static str {
                match self { $($list::$variant(_) => stringify!($kind)),* }
            }

            fn of_kind(kind: &str, table: Spanned<DeValue<'_>>) -> Option<Result<Self, Error>> {
                match kind {
                    $(stringify!($kind) => Some($config::from_table(table).map($list::$variant)),)*
                    _ => None,
                }
            }
        }

        impl JsonSchema for $spec {
            fn schema_name() -> Cow<'static, str> {
                stringify!($spec).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let common = $common::json_schema(generator);
                let kinds: Vec<Value> = vec![$({
                    let about = concat!($($doc),*).trim();
                    let table = merged(&common, &$config::json_schema(generator), about);
                    kind(stringify!($kind), about, table)
                }),*];
                object(json!({ "oneOf": kinds }))
            }
        }

        impl FromTable for $spec {
            /// Takes `{ KIND = { … } }` apart: the common fields, and the connector's own.
            fn from_table(value: Spanned<DeValue<'_>>) -> Result<Self, Error> {
                let (kind, table) = only_entry(value)?;
                let (common, own) = split::<$common>(table);
                let common = $common::from_table(common)?;
                let connector = $list::of_kind(&kind, own)
                    .unwrap_or_else(|| Err(wrong(format!("there is no connector `{kind}`"))))?;
                Ok($spec { common, connector })
            }
        }
    };
}

connectors! {
    /// Where a source's records come from.
    SourceConnector, SourceSpec, SourceCommon:
    /// A topic of the embedded log.
    log => Log(LogSourceConfig),
    /// A file, read once from its beginning to its end.
    file => File(FileSourceConfig),
}

connectors! {
    /// Where a sink's rows go.
    SinkConnector, SinkSpec, SinkCommon:
    /// A topic of the embedded log.
    log => Log(LogSinkConfig),
    /// A file.
    file => File(FileSinkConfig),
}

/// The reader of a source.
pub(super) fn source(
    spec: &SourceConnector,
    environment: &Environment<'_>,
) -> Result<Arc<dyn SourceFactory>, ConnectorError> {
    match spec {
        SourceConnector::Log(config) => Ok(Arc::new(seam::Unwritten::topic(&config.topic, environment))),
        SourceConnector::File(config) => Ok(Arc::new(seam::Unwritten::file(&config.path))),
    }
}

/// The decoder of a source that declares the columns `declared`.
pub(super) fn decoder(
    format: Format,
    declared: &SchemaRef,
) -> Result<Arc<dyn DecoderFactory>, ConnectorError> {
    Ok(Arc::new(seam::UnwrittenDecoder(format, Arc::clone(declared))))
}

/// The writer of a sink.
pub(super) fn sink(
    spec: &SinkConnector,
    environment: &Environment<'_>,
) -> Result<Arc<dyn SinkFactory>, ConnectorError> {
    match spec {
        SinkConnector::Log(config) => Ok(Arc::new(seam::Unwritten::topic(&config.topic, environment))),
        SinkConnector::File(config) => Ok(Arc::new(seam::Unwritten::file(&config.path))),
    }
}

/// The writer of bad records.
pub(super) fn dead_letters(
    topic: &str,
    environment: &Environment<'_>,
) -> Result<Arc<dyn SinkFactory>, ConnectorError> {
    Ok(Arc::new(seam::Unwritten::topic(topic, environment)))
}

fn kind(name: &str, about: &str, table: Value) -> Value {
    json!({
        "type": "object",
        "description": about,
        "properties": { name: table },
        "required": [name],
        "additionalProperties": false,
    })
}

/// The one entry of a table, as `{ log = { … } }`.
fn only_entry(value: Spanned<DeValue<'_>>) -> Result<(String, Spanned<DeValue<'_>>), Error> {
    match value.into_inner() {
        DeValue::Table(table) if table.len() == 1 => table.into_iter().next(),
        _ => None,
    }
    .map(|(kind, table)| (kind.into_inner().into_owned(), table))
    .ok_or_else(|| wrong("a connector is one table, as in `[source.NAME.log]`".into()))
}

/// The fields of `Common`, and the others. (`serde(flatten)` cannot refuse unknown fields.)
fn split<Common: JsonSchema>(table: Spanned<DeValue<'_>>) -> (Spanned<DeValue<'_>>, Spanned<DeValue<'_>>) {
    let schema = schemars::schema_for!(Common);
    let common = |key: &str| schema.pointer(&format!("/properties/{key}")).is_some();
    let span = table.span();
    let DeValue::Table(fields) = table.into_inner() else {
        let nothing = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
        return (nothing(), nothing());
    };
    let (ours, theirs): (DeTable<'_>, DeTable<'_>) = {
        let (mut ours, mut theirs) = (DeTable::new(), DeTable::new());
        for (key, value) in fields {
            let part = if common(key.get_ref()) { &mut ours } else { &mut theirs };
            part.insert(key, value);
        }
        (ours, theirs)
    };
    let part = |fields| Spanned::new(span.clone(), DeValue::Table(fields));
    (part(ours), part(theirs))
}

fn wrong(message: String) -> Error {
    serde::de::Error::custom(message)
}

/// What stands here until the connectors are written: their configuration, and factories that refuse.
mod seam {
    use arrow::datatypes::SchemaRef;
    use levada_types::{
        ConnectorError, Decoder, DecoderFactory, Offset, PartitionId, RecordReader, Sink, SinkFactory,
        SourceFactory, StartAt,
    };
    use schemars::JsonSchema;
    use serde::Deserialize;

    use crate::job::Environment;

    /// How records are written down.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Format {
        /// One JSON object a record.
        #[default]
        Json,
        /// Comma-separated values, one line a record.
        Csv,
    }

    /// A topic to read.
    #[derive(Clone, Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct LogSourceConfig {
        /// The topic.
        pub topic: String,
        /// Where to begin when nothing was read yet.
        #[serde(default)]
        pub start: Start,
    }

    /// Where to begin.
    #[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Start {
        /// At the oldest record.
        #[default]
        Beginning,
        /// After the newest record.
        End,
    }

    /// A file to read.
    #[derive(Clone, Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct FileSourceConfig {
        /// The file, relative to the working directory.
        pub path: String,
    }

    /// A topic to write.
    #[derive(Clone, Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct LogSinkConfig {
        /// The topic.
        pub topic: String,
    }

    /// A file to write.
    #[derive(Clone, Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub struct FileSinkConfig {
        /// The file, relative to the working directory.
        pub path: String,
    }

    pub struct Unwritten(String);

    impl Unwritten {
        pub fn topic(name: &str, environment: &Environment<'_>) -> Self {
            let _ = &environment.data_dir;
            Unwritten(format!("topic {name}"))
        }
        pub fn file(path: &str) -> Self {
            Unwritten(format!("file {path}"))
        }
        fn refuse<T>(&self) -> Result<T, ConnectorError> {
            Err(ConnectorError::configuration(format!("open {}: connectors are not written yet", self.0)))
        }
    }

    impl SourceFactory for Unwritten {
        fn describe(&self) -> String {
            self.0.clone()
        }
        fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
            self.refuse()
        }
        fn unbounded(&self) -> bool {
            false
        }
        fn open(&self, _: PartitionId, _: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
            self.refuse()
        }
    }

    impl SinkFactory for Unwritten {
        fn describe(&self) -> String {
            self.0.clone()
        }
        fn open(&self, _: SchemaRef) -> Result<Box<dyn Sink>, ConnectorError> {
            self.refuse()
        }
    }

    pub struct UnwrittenDecoder(pub Format, pub SchemaRef);

    impl DecoderFactory for UnwrittenDecoder {
        fn decoder(&self, _: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
            let format = self.0;
            Err(ConnectorError::configuration(format!("decode {format:?}: codecs are not written yet")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connector_has_a_field_that_every_source_or_sink_has() {
        let fields = |schema: Schema| -> Vec<String> {
            let properties = schema.get("properties").and_then(Value::as_object).cloned();
            properties.unwrap_or_default().keys().cloned().collect()
        };
        let source = fields(schemars::schema_for!(SourceCommon));
        let sink = fields(schemars::schema_for!(SinkCommon));
        for own in [schemars::schema_for!(LogSourceConfig), schemars::schema_for!(FileSourceConfig)] {
            assert!(fields(own).iter().all(|field| !source.contains(field)));
        }
        for own in [schemars::schema_for!(LogSinkConfig), schemars::schema_for!(FileSinkConfig)] {
            assert!(fields(own).iter().all(|field| !sink.contains(field)));
        }
    }
}
