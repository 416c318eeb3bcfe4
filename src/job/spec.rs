//! What a job file says: the one truth from which reading, the JSON Schema and the reference come.

use std::collections::BTreeSet;
use std::fmt;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use indexmap::IndexMap;
use levada_connectors::checkpoint::BucketConfig;
use levada_connectors::codec::metadata::{Metadata, MetadataColumns};
#[cfg(feature = "kafka")]
use levada_connectors::kafka::KafkaJournalConfig;
use levada_dataflows::Step;
use levada_dataflows::plan::EpochSettings;
use levada_types::{Batch, parse_duration_ms};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::page::PageSpec;
use super::written::Written;

pub use super::connect::{Format, SinkConnector, SourceConnector, SourceFormat};

/// A levada job: sources, the steps over them, and sinks.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct JobSpec {
    /// The job itself.
    pub job: JobSettings,
    /// What it reads: `[source.NAME.CONNECTOR]`.
    #[schemars(default)]
    pub source: IndexMap<String, SourceSpec>,
    /// What it does: `[step.NAME.VERB]`.
    #[schemars(default)]
    pub step: IndexMap<String, Step>,
    /// Where it writes: `[sink.NAME.CONNECTOR]`.
    #[schemars(default)]
    pub sink: IndexMap<String, SinkSpec>,
    /// What the gateway's page shows of it.
    pub page: Option<PageSpec>,
    /// All that in one way of writing it.
    #[schemars(skip)]
    pub written: Written,
}

impl JobSpec {
    /// A hash of all that decides what the job makes of its inputs: not its comments, its page, or how fast it
    /// goes. Kept state is known by it, so any levada must come to the same one.
    pub fn identity(&self) -> u64 {
        let dead_letters = self.job.dead_letter_topic().unwrap_or_default();
        let chunks = EpochSettings::default().backfill_chunks;
        let mut text = format!("{:?} {dead_letters:?} {} {chunks}", self.job.name, Batch::MAX_ROWS);
        if let Some(late) = &self.job.late {
            text += &format!(" {late:?}");
        }
        let Written { source, step, sink } = &self.written;
        for (section, entries) in [("source", source), ("step", step), ("sink", sink)] {
            for (name, entry) in entries {
                text += &format!("\n{section} {name:?} {entry}");
            }
        }
        for format in self.source.values().filter_map(|source| source.common.format.as_ref()) {
            for (_, path) in format.files() {
                // One that cannot be read ends the run elsewhere.
                text += &format!("\n{:016x}", xxh3_64(&std::fs::read(path).unwrap_or_default()));
            }
        }
        xxh3_64(text.as_bytes())
    }

    /// A hash of what a step's state depends on: what is written of it, and the types of the columns of its inputs
    /// that are named there.
    pub fn step_identity(&self, name: &str, inputs: &[SchemaRef]) -> u64 {
        let mut text = self.written.step.get(name).cloned().unwrap_or_default();
        let words: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let mut types = BTreeSet::new();
        for (input, schema) in inputs.iter().enumerate() {
            let named = schema.fields().iter().filter(|field| words.contains(field.name().as_str()));
            // Whether a value may be missing changes nothing of how one is kept.
            let kind = |field: &FieldRef| ColumnType { nullable: false, ..ColumnType::of(field) }.to_string();
            types.extend(named.map(|field| (input, field.name().clone(), kind(field))));
        }
        for (input, column, kind) in types {
            text += &format!("\n{input} {column:?} {kind}");
        }
        xxh3_64(text.as_bytes())
    }
}

/// `[job]`: the job as a whole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSettings {
    /// The job's name: letters, digits, `_` and `-`.
    pub name: String,
    /// What it is for, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// How long a live epoch lasts: what arrives in it is handled together.
    #[serde(default = "default_epoch")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub epoch: String,
    /// How many epochs may be on their way at once: the back pressure.
    #[serde(default = "default_in_flight")]
    #[schemars(range(min = 1, max = 1024))]
    pub in_flight: u64,
    /// How often what the job remembers is kept, if it runs with `--state`: so much is computed again at most
    /// when it goes on. How soon its output is visible does not depend on it.
    #[serde(default = "default_checkpoint")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub checkpoint: String,
    /// How many of the newest checkpoints are kept.
    #[serde(default = "default_keep_checkpoints")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep_checkpoints: usize,
    /// Where what decides the output beside the inputs is kept, if the job runs with `--state`: in that folder, or
    /// in a topic of Kafka, which is there when the machine is lost.
    #[cfg(feature = "kafka")]
    #[serde(default)]
    pub journal: Option<KafkaJournalConfig>,
    /// Where they are kept, if not in the folder that `--state` names: an object store that answers as Amazon S3 does.
    #[serde(default)]
    pub checkpoints: Option<BucketConfig>,
    /// The topic of records that cannot be used, by default `NAME.dead-letters`, or `false` to only
    /// count them.
    #[serde(default)]
    pub dead_letters: Option<DeadLetters>,
    /// A topic to which every row goes that came too late for a step, with the step, the source and partition that it was
    /// read from, how late it was, and why. Without it, late rows are counted, and are in the steps' late streams. All
    /// columns of what the steps read are decoded then.
    #[serde(default)]
    pub late: Option<String>,
    /// How far a partition of a source may be ahead of the slowest one, by event time, before it is read no further until
    /// that has caught up: so what steps hold back for the slowest has a bound. It is for what comes live; a history is
    /// read in step in any case. Each source that goes on live needs `idle` in its `event_time`.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub align: Option<String>,
}

impl JobSettings {
    /// How often a checkpoint is made, in milliseconds. Planning has checked it.
    pub fn checkpoint_ms(&self) -> u64 {
        parse_duration_ms(&self.checkpoint)
            .ok()
            .and_then(|ms| ms.try_into().ok())
            .unwrap_or(DEFAULT_CHECKPOINT_MS)
    }

    /// The topic of bad records, if they are kept.
    pub fn dead_letter_topic(&self) -> Option<String> {
        match &self.dead_letters {
            Some(DeadLetters::Kept(_)) => None,
            Some(DeadLetters::Topic(topic)) => Some(topic.clone()),
            None => Some(format!("{}.dead-letters", self.name)),
        }
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            name: String::new(),
            description: None,
            epoch: default_epoch(),
            in_flight: default_in_flight(),
            checkpoint: default_checkpoint(),
            keep_checkpoints: default_keep_checkpoints(),
            #[cfg(feature = "kafka")]
            journal: None,
            checkpoints: None,
            dead_letters: None,
            late: None,
            align: None,
        }
    }
}

fn default_epoch() -> String {
    "10ms".into()
}

fn default_in_flight() -> u64 {
    4
}

const DEFAULT_CHECKPOINT_MS: u64 = 5000;

fn default_checkpoint() -> String {
    format!("{}s", DEFAULT_CHECKPOINT_MS / 1000)
}

fn default_keep_checkpoints() -> usize {
    3
}

/// Where bad records go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum DeadLetters {
    /// To this topic.
    Topic(String),
    /// Nowhere (`false`).
    Kept(bool),
}

impl JsonSchema for DeadLetters {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeadLetters".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        object(json!({ "anyOf": [
            { "type": "string", "minLength": 1, "description": "To this topic." },
            { "type": "boolean", "const": false, "description": "Nowhere; they are only counted." },
        ] }))
    }
}

/// `[source.NAME.CONNECTOR]`: a stream that comes from outside.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// What every source has.
    pub common: SourceCommon,
    /// Where the records come from.
    pub connector: SourceConnector,
}

/// What every source has, whatever its connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceCommon {
    /// How a record is written: by default CSV in a file whose name says so (`.csv`, `.csv.gz`), otherwise
    /// JSON.
    pub format: Option<SourceFormat>,
    /// The columns and their types: `string`, `int`, `float`, `bool`, `timestamp` or `json` (any value,
    /// kept as it is written), with a `?` if a record may lack it.
    #[schemars(extend("minProperties" = 1))]
    pub schema: IndexMap<String, ColumnType>,
    /// Further columns, of what is known of a record beside its value: `{ sensor = "key", sent = "timestamp" }`.
    /// `key`, `timestamp`, `partition`, `offset` or `headers.NAME`, of topics of the embedded log and of Kafka.
    #[serde(default)]
    pub metadata: MetadataColumns,
    /// Where a record's time stands. A source without it is a table: read whole before time begins.
    #[serde(default)]
    pub event_time: Option<EventTimeSpec>,
}

impl SourceCommon {
    /// All columns, in the order in which they are decoded: those of the value, then those beside it.
    pub fn columns(&self) -> IndexMap<String, ColumnType> {
        let beside = |(name, what): (&String, &Metadata)| (name.clone(), ColumnType::of(&what.field(name)));
        let values = self.schema.iter().map(|(name, kind)| (name.clone(), kind.clone()));
        values.chain(self.metadata.iter().map(beside)).collect()
    }
}

/// `event_time = { column = "at", out_of_order = "5s" }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTimeSpec {
    /// The column that holds it: a `timestamp`.
    pub column: String,
    /// How far behind the newest record before it in its partition a record may come and still be in time.
    /// One that comes later than that is late, except to a window that ends after the newest less this.
    #[serde(default = "default_out_of_order")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub out_of_order: String,
    /// After how long a silence a live partition stops holding back the others. Never, by default.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub idle: Option<String>,
}

fn default_out_of_order() -> String {
    "0s".into()
}

/// `[sink.NAME.CONNECTOR]`: where a stream goes.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// What every sink has.
    pub common: SinkCommon,
    /// Where the rows go.
    pub connector: SinkConnector,
}

/// What every sink has, whatever its connector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkCommon {
    /// The stream that it writes.
    pub from: String,
    /// How a row is written: by default CSV in a file whose name says so (`.csv`, `.csv.gz`), otherwise JSON.
    pub format: Option<Format>,
    /// What is written of a stream that takes back what it told, and says so in its column `change`. By default
    /// `changelog`.
    #[serde(default)]
    pub changes: Changes,
}

/// What a sink writes of a changelog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// Every row: what is new (`insert`, `update`), and what was told and counts no more (`retract`, `delete`).
    #[default]
    Changelog,
    /// All but what is retracted: a row with `insert` or `update` stands in the place of all before it of its key, one
    /// with `delete` says that there is none any more.
    Upsert,
}

/// A column's type: `float`, or `float?` if it may be null.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ColumnType {
    /// The type.
    pub data_type: DataType,
    /// Whether it is text that is JSON.
    pub json: bool,
    /// Whether a record may lack it.
    pub nullable: bool,
}

impl ColumnType {
    const NAMES: [&str; 6] = ["string", "int", "float", "bool", "timestamp", "json"];

    /// The field of a schema.
    pub fn field(&self, name: &str) -> Field {
        match self.json {
            true => Batch::json_field(name, self.nullable),
            false => Field::new(name, self.data_type.clone(), self.nullable),
        }
    }

    /// The type of a field, as a job file writes it.
    pub fn of(field: &Field) -> ColumnType {
        let (data_type, nullable) = (field.data_type().clone(), field.is_nullable());
        ColumnType { data_type, json: Batch::is_json(field), nullable }
    }
}

impl TryFrom<String> for ColumnType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = text.strip_suffix('?').unwrap_or(&text);
        let data_type = match name {
            "string" | "json" => DataType::Utf8,
            "int" => DataType::Int64,
            "float" => DataType::Float64,
            "bool" => DataType::Boolean,
            "timestamp" => Batch::timestamp_type(),
            _ => return Err(format!("`{text}` is not a type; use one of {}", Self::NAMES.join(", "))),
        };
        Ok(ColumnType { data_type, json: name == "json", nullable: name.len() < text.len() })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.data_type {
            DataType::Utf8 if self.json => "json",
            DataType::Utf8 => "string",
            DataType::Int64 => "int",
            DataType::Float64 => "float",
            DataType::Boolean => "bool",
            DataType::Timestamp(..) => "timestamp",
            other => return write!(f, "{other}"),
        };
        write!(f, "{name}{}", if self.nullable { "?" } else { "" })
    }
}

impl JsonSchema for ColumnType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ColumnType".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<String> =
            Self::NAMES.iter().flat_map(|name| [(*name).to_string(), format!("{name}?")]).collect();
        let text = "A column's type; with a `?` it may be null.";
        object(json!({ "type": "string", "enum": names, "description": text }))
    }
}

/// The JSON Schema of job files.
pub fn json_schema() -> Value {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut value = schema.root_schema_for::<JobSpec>().to_value();
    if let Some(root) = value.as_object_mut() {
        root.insert("title".into(), json!("levada job"));
    }
    value
}

/// The schema of a table that is a common part and a connector's part in one.
pub(super) fn merged(common: &Schema, own: &Schema, about: &str) -> Value {
    let mut all = Map::new();
    let mut required: Vec<Value> = Vec::new();
    for part in [common, own] {
        if let Some(Value::Object(properties)) = part.get("properties") {
            all.extend(properties.clone());
        }
        if let Some(Value::Array(names)) = part.get("required") {
            required.extend(names.iter().cloned());
        }
    }
    json!({
        "type": "object",
        "description": about,
        "properties": all,
        "required": required,
        "additionalProperties": false,
    })
}

pub(super) fn object(value: Value) -> Schema {
    Schema::try_from(value).unwrap_or_default()
}
