//! The one list of connectors: from a job file's table to the ports of [`levada_types`].
//!
//! To add a connector: a line in a list below, and its arm in [`Connections`]. Nothing here touches
//! the outside but the header line of a CSV file, which says what its columns are; all else is opened
//! when the job runs, so that a job can be checked where it cannot run.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use levada_connectors::checkpoint::BucketConfig;
use levada_connectors::clock::{ClockSource, ClockSourceConfig};
use levada_connectors::codec::csv::CsvConfig;
use levada_connectors::codec::metadata::with_metadata;
pub use levada_connectors::codec::{Format, SourceFormat};
use levada_connectors::file::{FileSink, FileSinkConfig, FileSource, FileSourceConfig};
#[cfg(feature = "kafka")]
use levada_connectors::kafka::{
    KafkaJournal, KafkaJournalConfig, KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, Trimming,
};
#[cfg(feature = "kinesis")]
use levada_connectors::kinesis::{KinesisSink, KinesisSinkConfig, KinesisSource, KinesisSourceConfig};
#[cfg(feature = "redis")]
use levada_connectors::redis::{RedisSink, RedisSinkConfig, RedisSource, RedisSourceConfig};
use levada_connectors::registry::RegistrySource;
#[cfg(feature = "sql")]
use levada_connectors::sql::{SqlSource, SqlSourceConfig};
use levada_connectors::topic::{LogSink, LogSinkConfig, LogSource, LogSourceConfig};
use levada_connectors::webhook::{WebhookSink, WebhookSinkConfig};
#[cfg(feature = "kafka")]
use levada_types::Journal;
use levada_types::{DecoderFactory, Existing, SinkFactory, SourceFactory};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::formats::{self, Decoding};
#[cfg(feature = "sql")]
use super::planning::decoded;
use super::spec::{SinkCommon, SinkSpec, SourceCommon, SourceSpec, merged, object};
use super::{Environment, FromTable};

macro_rules! connectors {
    ($(#[$about:meta])* $list:ident, $spec:ident, $common:ident:
        $($(#[doc = $doc:literal])* $kind:ident $(if $gate:meta)? => $variant:ident($config:ident)),* $(,)?) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub enum $list {
            $($(#[doc = $doc])* $(#[cfg($gate)])? $variant($config)),*
        }

        impl $list {
            /// Its name in a job file.
            pub fn kind(&self) -> &'static str {
                match self { $($(#[cfg($gate)])? $list::$variant(_) => stringify!($kind)),* }
            }

            /// The fields of a connector that say how it is reached, and nothing of what a job is.
            pub fn reached_by(kind: &str) -> &'static [&'static str] {
                match kind {
                    $($(#[cfg($gate)])? stringify!($kind) => $config::REACHED_BY,)*
                    _ => &[],
                }
            }

            fn of_kind(kind: &str, table: Spanned<DeValue<'_>>) -> Option<Result<Self, Error>> {
                match kind {
                    $($(#[cfg($gate)])? stringify!($kind) => Some($config::from_table(table).map($list::$variant)),)*
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
                let mut kinds: Vec<Value> = Vec::new();
                $($(#[cfg($gate)])? {
                    let about = concat!($($doc),*).trim();
                    let table = merged(&common, &$config::json_schema(generator), about);
                    kinds.push(kind(stringify!($kind), about, table));
                })*
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
    /// A clock: a record every so often, kept in a topic, so that time goes on where nothing else comes.
    clock => Clock(ClockSourceConfig),
    /// A topic of Apache Kafka.
    kafka if feature = "kafka" => Kafka(KafkaSourceConfig),
    /// A stream of Amazon Kinesis.
    kinesis if feature = "kinesis" => Kinesis(KinesisSourceConfig),
    /// Streams of a Redis server.
    redis if feature = "redis" => Redis(RedisSourceConfig),
    /// A table of PostgreSQL or SQLite.
    sql if feature = "sql" => Sql(SqlSourceConfig),
}

connectors! {
    /// Where a sink's rows go.
    SinkConnector, SinkSpec, SinkCommon:
    /// A topic of the embedded log.
    log => Log(LogSinkConfig),
    /// A file.
    file => File(FileSinkConfig),
    /// A topic of Apache Kafka.
    kafka if feature = "kafka" => Kafka(KafkaSinkConfig),
    /// An HTTP address: a request a row, or several rows.
    webhook => Webhook(WebhookSinkConfig),
    /// A stream of Amazon Kinesis.
    kinesis if feature = "kinesis" => Kinesis(KinesisSinkConfig),
    /// Streams of a Redis server.
    redis if feature = "redis" => Redis(RedisSinkConfig),
}

impl SourceConnector {
    /// The folder of a job's state in which such a source keeps what it needs to read the same again, if it does.
    pub fn keeps(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "kinesis")]
            SourceConnector::Kinesis(_) => Some("positions"),
            #[cfg(feature = "sql")]
            SourceConnector::Sql(_) => Some("receipts"),
            _ => None,
        }
    }
}

/// The ports of one plan's sources and sinks.
pub(super) struct Connections {
    job: String,
    data_dir: PathBuf,
    state: Option<PathBuf>,
    existing: Existing,
}

/// How the records of a file are written: as the job says, or as the name of the first one does.
pub(super) fn format_of(spec: &SourceSpec, config: &FileSourceConfig) -> SourceFormat {
    let first = config.path.iter().chain(&config.paths).next();
    let by_name = || first.map(|path| Format::of(path).into());
    spec.common.format.clone().or_else(by_name).unwrap_or_default()
}

/// How the lines of a file of this format are told apart.
pub(super) fn lines_of(format: &SourceFormat) -> Format {
    if *format == SourceFormat::Csv { Format::Csv } else { Format::Json }
}

/// What a source needs: who reads bytes, and who makes rows of them.
pub(super) type Reading = (Arc<dyn SourceFactory>, Arc<dyn DecoderFactory>);

/// What is wrong, and with which field.
pub(super) type Fault = (Option<&'static str>, String);

impl Connections {
    pub fn new(job: &str, environment: &Environment<'_>) -> Self {
        Connections {
            job: job.to_string(),
            data_dir: environment.data_dir.clone(),
            state: environment.state.clone(),
            existing: environment.existing,
        }
    }

    /// Reader and decoder of a source; what is wrong, and with which field.
    pub fn source(&self, name: &str, spec: &SourceSpec) -> Result<Reading, Fault> {
        let format = match &spec.connector {
            SourceConnector::File(config) => format_of(spec, config),
            _ => spec.common.format.clone().unwrap_or_default(),
        };
        let Decoding { decoder, registry } = formats::decoding(&format, &self.data_dir)?;
        let headers = decoder.wants_headers();
        let source: Arc<dyn SourceFactory> = match &spec.connector {
            SourceConnector::Log(config) => {
                formats::of_topic(&format)?;
                let source = LogSource::new(&self.data_dir, config);
                let source = source.map_err(|error| (Some("start"), error.to_string()))?;
                Arc::new(source.with_headers(headers).telling(&spec.common.metadata))
            }
            SourceConnector::File(config) => {
                no_metadata(spec)?;
                if spec.common.format.is_none() {
                    no_other_format(config.path.iter().chain(&config.paths))?;
                }
                formats::of_file(&format)?;
                no_idle_csv(lines_of(&format), &config.csv)?;
                let file = FileSource::new(config, lines_of(&format));
                let file = file.map_err(|error| (None, error.to_string()))?;
                if format == SourceFormat::Csv {
                    let decoder = file.decoder();
                    return Ok((Arc::new(file), decoder));
                }
                Arc::new(file)
            }
            SourceConnector::Clock(config) => {
                no_metadata(spec)?;
                if format != SourceFormat::Json {
                    return Err((Some("format"), "the ticks of a clock are JSON".into()));
                }
                let time = spec.common.event_time.as_ref();
                let Some(time) = time else { return Err((None, "a clock needs an `event_time`".into())) };
                let clock = ClockSource::new(&self.data_dir, &self.job, name, config, &time.column);
                Arc::new(clock.map_err(|(field, problem)| (Some(field), problem))?)
            }
            #[cfg(feature = "kafka")]
            SourceConnector::Kafka(config) => {
                formats::of_topic(&format)?;
                let field = if config.properties.reserved().is_some() { "properties" } else { "start" };
                let source = KafkaSource::new(config).map_err(|error| (Some(field), error.to_string()))?;
                Arc::new(source.with_headers(headers).telling(&spec.common.metadata))
            }
            #[cfg(feature = "kinesis")]
            SourceConnector::Kinesis(config) => {
                no_metadata(spec)?;
                formats::of_topic(&format)?;
                Arc::new(KinesisSource::new(name, config, self.state.as_deref())?)
            }
            #[cfg(feature = "redis")]
            SourceConnector::Redis(config) => {
                no_metadata(spec)?;
                formats::of_topic(&format)?;
                Arc::new(RedisSource::new(config, self.existing == Existing::Resume)?)
            }
            #[cfg(feature = "sql")]
            SourceConnector::Sql(config) => {
                no_metadata(spec)?;
                formats::of_table(&format)?;
                let columns = decoded(&spec.common.schema);
                Arc::new(SqlSource::new(name, config, columns, self.state.as_deref())?)
            }
        };
        let metadata = Arc::new(spec.common.metadata.clone());
        let decoder = with_metadata(decoder, &metadata);
        Ok(match registry {
            Some(registry) => (Arc::new(RegistrySource::new(source, registry, metadata)), decoder),
            None => (source, decoder),
        })
    }

    /// Writer of a sink; what is wrong, and with which field.
    pub fn sink(
        &self,
        name: &str,
        spec: &SinkSpec,
    ) -> Result<Arc<dyn SinkFactory>, (Option<&'static str>, String)> {
        match &spec.connector {
            SinkConnector::Log(config) => {
                if config.topic.is_empty() {
                    return Err((None, "the sink has no `topic`".into()));
                }
                json_only(spec.common.format.unwrap_or_default())?;
                Ok(self.topic(config.clone()))
            }
            SinkConnector::File(config) => {
                if spec.common.format.is_none() {
                    no_other_format([&config.path])?;
                }
                let format = spec.common.format.unwrap_or_else(|| Format::of(&config.path));
                no_idle_csv(format, &config.csv)?;
                let file = FileSink::new(config.clone(), format);
                Ok(Arc::new(if self.existing == Existing::Resume { file.resumable() } else { file }))
            }
            #[cfg(feature = "kafka")]
            SinkConnector::Kafka(config) => {
                json_only(spec.common.format.unwrap_or_default())?;
                let sink = KafkaSink::new(config, &self.job, name, self.existing);
                Ok(Arc::new(sink.map_err(|error| (Some("properties"), error.to_string()))?))
            }
            SinkConnector::Webhook(config) => {
                if spec.common.format.is_some_and(|format| format != Format::Json) {
                    return Err((Some("format"), "a webhook sends JSON".into()));
                }
                config.check().map_err(|(field, message)| (Some(field), message))?;
                let (job, config) = (&self.job, config.clone());
                Ok(Arc::new(WebhookSink::new(&self.data_dir, job, name, config, self.existing)))
            }
            #[cfg(feature = "kinesis")]
            SinkConnector::Kinesis(config) => {
                json_only(spec.common.format.unwrap_or_default())?;
                let (data_dir, config) = (&self.data_dir, config.clone());
                Ok(Arc::new(KinesisSink::new(data_dir, &self.job, name, config, self.existing)?))
            }
            #[cfg(feature = "redis")]
            SinkConnector::Redis(config) => {
                json_only(spec.common.format.unwrap_or_default())?;
                Ok(Arc::new(RedisSink::new(config.clone(), self.existing)?))
            }
        }
    }

    /// The journal, in a topic of Kafka. Where checkpoints are on a disk that may be lost, it must hold everything: a
    /// run that finds none of them begins with its first record.
    #[cfg(feature = "kafka")]
    pub fn journal(
        &self,
        config: &KafkaJournalConfig,
        checkpoints: Option<&BucketConfig>,
    ) -> Result<Arc<dyn Journal>, Fault> {
        let trimming = checkpoints.map_or(Trimming::Never, |_| Trimming::BehindCheckpoints);
        let journal = KafkaJournal::new(config, &self.job, trimming);
        Ok(Arc::new(journal.map_err(|error| (Some("properties"), error.to_string()))?))
    }

    /// Writer of what is set aside: bad records, late rows.
    pub fn side_topic(&self, topic: &str) -> Arc<dyn SinkFactory> {
        self.topic(LogSinkConfig { topic: topic.into(), ..LogSinkConfig::default() })
    }

    fn topic(&self, config: LogSinkConfig) -> Arc<dyn SinkFactory> {
        Arc::new(LogSink::new(&self.data_dir, config, self.existing))
    }
}

/// Refuses a file whose name promises what is neither JSON lines nor CSV.
fn no_other_format<'p>(
    paths: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<(), (Option<&'static str>, String)> {
    const OTHERS: &[&str] = &[
        "parquet", "avro", "arrow", "feather", "orc", "proto", "xml", "yaml", "yml", "xls", "xlsx", "sqlite",
        "db",
    ];
    for path in paths {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if OTHERS.contains(&ending.to_ascii_lowercase().as_str()) {
            let message = format!(
                "files are JSON lines or CSV, and `.{ending}` is neither; say `format` if the name is misleading"
            );
            return Err((Some("path"), message));
        }
    }
    Ok(())
}

/// Refuses to say how CSV is written where there is none.
fn no_idle_csv(format: Format, csv: &CsvConfig) -> Result<(), (Option<&'static str>, String)> {
    if format == Format::Json && *csv != CsvConfig::default() {
        let message =
            "the file holds JSON lines, by its name or its `format`; say `format = \"csv\"` if it is CSV";
        return Err((Some("csv"), message.into()));
    }
    Ok(())
}

/// Refuses to tell of a record what its source does not know.
fn no_metadata(spec: &SourceSpec) -> Result<(), Fault> {
    match spec.common.metadata.is_empty() {
        true => Ok(()),
        false => {
            let kind = spec.connector.kind();
            Err((
                Some("metadata"),
                format!(
                    "a {kind} source tells nothing of a record but its value; topics of the log and of Kafka do"
                ),
            ))
        }
    }
}

/// A sink's records in a topic have no header line, which CSV needs.
fn json_only(format: Format) -> Result<(), (Option<&'static str>, String)> {
    match format {
        Format::Json => Ok(()),
        Format::Csv => {
            Err((Some("format"), "a topic holds JSON; CSV needs a file with a header line".into()))
        }
    }
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
        for own in [
            schemars::schema_for!(LogSourceConfig),
            schemars::schema_for!(FileSourceConfig),
            #[cfg(feature = "kafka")]
            schemars::schema_for!(KafkaSourceConfig),
            #[cfg(feature = "kinesis")]
            schemars::schema_for!(KinesisSourceConfig),
            #[cfg(feature = "redis")]
            schemars::schema_for!(RedisSourceConfig),
            #[cfg(feature = "sql")]
            schemars::schema_for!(SqlSourceConfig),
        ] {
            assert!(fields(own).iter().all(|field| !source.contains(field)));
        }
        for own in [
            schemars::schema_for!(LogSinkConfig),
            schemars::schema_for!(FileSinkConfig),
            #[cfg(feature = "kafka")]
            schemars::schema_for!(KafkaSinkConfig),
            schemars::schema_for!(WebhookSinkConfig),
            #[cfg(feature = "kinesis")]
            schemars::schema_for!(KinesisSinkConfig),
            #[cfg(feature = "redis")]
            schemars::schema_for!(RedisSinkConfig),
        ] {
            assert!(fields(own).iter().all(|field| !sink.contains(field)));
        }
    }
}
