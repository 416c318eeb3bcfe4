//! What is known of a record beside its value, as columns.
//!
//! A source that is asked for it writes it before each value; the decoder that goes with the source takes it off
//! again, gives the value to the format's own decoder, and adds the columns. A source that is not asked copies and
//! costs nothing more.
//!
//! ```text
//!  for each column, in the job's order:   key, header   length u32 (none: 2³²−1), bytes
//!                                         timestamp     i64, milliseconds
//!                                         partition     u32
//!                                         offset        nothing: records have it anyway
//!  then the value. Numbers are little-endian.
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use levada_types::{Batch, ConnectorError, DeadLetter, Decoded, Decoder, DecoderFactory, Offset, RawRecords};
use schemars::{JsonSchema, Schema as JsonSchemaValue, SchemaGenerator};
use serde::Deserialize;

/// Where there is no key, or no such header.
const NONE: u32 = u32::MAX;
/// What the name of a header stands behind.
const HEADERS: &str = "headers.";

/// Something that is known of a record beside its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Metadata {
    /// `"key"`, a text; null where it has none.
    Key,
    /// `"timestamp"`: the record's own, which its producer or its broker gave it.
    Timestamp,
    /// `"partition"`: its number in the topic, from 0.
    Partition,
    /// `"offset"`: its place in its partition.
    Offset,
    /// `"headers.NAME"`: the newest header of that name, a text; null where it has none.
    Header(String),
}

impl Metadata {
    /// As a job file writes them.
    pub const FORMS: &'static str = "`key`, `timestamp`, `partition`, `offset` or `headers.NAME`";

    /// The column of that name.
    pub fn field(&self, name: &str) -> Field {
        match self {
            Metadata::Key | Metadata::Header(_) => Field::new(name, DataType::Utf8, true),
            Metadata::Timestamp => Field::new(name, Batch::timestamp_type(), false),
            Metadata::Partition | Metadata::Offset => Field::new(name, DataType::Int64, false),
        }
    }
}

impl TryFrom<String> for Metadata {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.strip_prefix(HEADERS)) {
            ("key", _) => Ok(Metadata::Key),
            ("timestamp", _) => Ok(Metadata::Timestamp),
            ("partition", _) => Ok(Metadata::Partition),
            ("offset", _) => Ok(Metadata::Offset),
            (_, Some(name)) if !name.is_empty() => Ok(Metadata::Header(name.into())),
            _ => Err(format!("of a record there is no `{text}` but its {}", Metadata::FORMS)),
        }
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metadata::Key => f.write_str("key"),
            Metadata::Timestamp => f.write_str("timestamp"),
            Metadata::Partition => f.write_str("partition"),
            Metadata::Offset => f.write_str("offset"),
            Metadata::Header(name) => write!(f, "{HEADERS}{name}"),
        }
    }
}

impl JsonSchema for Metadata {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metadata".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> JsonSchemaValue {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(key|timestamp|partition|offset|headers\\..+)$",
            "description": "What is known of a record beside its value: `key`, `timestamp`, `partition`, `offset` or \
                            `headers.NAME`.",
        })
    }
}

/// The columns that a source adds to its records, by name.
pub type MetadataColumns = IndexMap<String, Metadata>;

/// What a source knows of one record.
pub(crate) trait Known {
    /// The key, if it has one.
    fn key(&self) -> Option<&[u8]>;
    /// Milliseconds since the Unix epoch, UTC.
    fn timestamp_ms(&self) -> i64;
    /// The newest header of that name.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// Writes what the job wants to know of a record before its value.
pub(crate) fn write(columns: &MetadataColumns, record: &impl Known, partition: u32, out: &mut Vec<u8>) {
    let text = |bytes: Option<&[u8]>, out: &mut Vec<u8>| {
        let length = bytes.map_or(NONE, |bytes| bytes.len() as u32);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    };
    for what in columns.values() {
        match what {
            Metadata::Key => text(record.key(), out),
            Metadata::Header(name) => text(record.header(name), out),
            Metadata::Timestamp => out.extend_from_slice(&record.timestamp_ms().to_le_bytes()),
            Metadata::Partition => out.extend_from_slice(&partition.to_le_bytes()),
            Metadata::Offset => {}
        }
    }
}

/// The value of record `i`, behind what the source has written before it.
pub(crate) fn value<'r>(columns: &MetadataColumns, records: &'r RawRecords, i: usize) -> &'r [u8] {
    let Some(&(mut start, end)) = records.spans.get(i) else { return &[] };
    for what in columns.values() {
        take(&records.data, &mut start, what);
    }
    records.data.get(start as usize..end as usize).unwrap_or_default()
}

/// Decoders for the records of a source that writes such columns before each value.
pub fn with_metadata(
    values: Arc<dyn DecoderFactory>,
    columns: &Arc<MetadataColumns>,
) -> Arc<dyn DecoderFactory> {
    match columns.is_empty() {
        true => values,
        false => Arc::new(WithMetadata { values, columns: Arc::clone(columns) }),
    }
}

struct WithMetadata {
    values: Arc<dyn DecoderFactory>,
    columns: Arc<MetadataColumns>,
}

impl DecoderFactory for WithMetadata {
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        let values = self.values.decoder(self.without(&schema))?;
        let wanted = self.columns.keys().map(|name| schema.index_of(name).is_ok()).collect();
        Ok(Box::new(MetadataDecoder { schema, values, columns: Arc::clone(&self.columns), wanted }))
    }

    fn wants_headers(&self) -> bool {
        self.values.wants_headers()
    }

    fn of_values(&self, schema: &SchemaRef) -> Option<(Arc<dyn DecoderFactory>, SchemaRef)> {
        Some((Arc::clone(&self.values), self.without(schema)))
    }
}

impl WithMetadata {
    /// The columns that stand in the values.
    fn without(&self, schema: &SchemaRef) -> SchemaRef {
        let all = schema.fields().iter();
        let own = all.filter(|field| !self.columns.contains_key(field.name())).map(Arc::clone);
        Arc::new(Schema::new(own.collect::<Vec<_>>()))
    }
}

struct MetadataDecoder {
    schema: SchemaRef,
    values: Box<dyn Decoder>,
    columns: Arc<MetadataColumns>,
    /// Of each column whether some step uses it.
    wanted: Vec<bool>,
}

impl Decoder for MetadataDecoder {
    fn decode(&mut self, records: &RawRecords) -> Decoded {
        let mut values = RawRecords {
            data: records.data.clone(),
            spans: Vec::with_capacity(records.len()),
            offsets: records.offsets.clone(),
            headers: records.headers.clone(),
        };
        let mut built: Vec<Column> = self.columns.values().map(Column::of).collect();
        let mut bad = Bad::default();
        for (index, &(start, end)) in records.spans.iter().enumerate() {
            let mut at = start;
            for ((what, column), wanted) in self.columns.values().zip(&mut built).zip(&self.wanted) {
                let found = take(&records.data, &mut at, what);
                if let (Err(why), true) = (column.push(&found, records.offsets.get(index)), *wanted) {
                    bad.note(index, format!("its {what} {why}"));
                }
            }
            values.spans.push((at.min(end), end));
        }
        let decoded = self.values.decode(&values);
        self.joined(decoded, built, bad, &values)
    }
}

impl MetadataDecoder {
    /// The rows of the values with their columns, less those whose metadata is bad.
    fn joined(&self, decoded: Decoded, built: Vec<Column>, bad: Bad, values: &RawRecords) -> Decoded {
        let Decoded { rows, indices, mut dead } = decoded;
        let of_rows = indices.clone().unwrap_or_else(|| (0..rows.num_rows() as u32).collect());
        let mut named: IndexMap<&str, ArrayRef> = IndexMap::new();
        for (name, column) in self.columns.keys().zip(built) {
            named.insert(name, column.of_rows(&of_rows, indices.is_some()));
        }
        let fields = self.schema.fields();
        let schema = rows.schema();
        let column = |field: &Arc<Field>| match schema.index_of(field.name()) {
            Ok(index) if !self.columns.contains_key(field.name()) => Arc::clone(rows.column(index)),
            _ => Arc::clone(&named[field.name().as_str()]),
        };
        let columns: Vec<ArrayRef> = fields.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let whole = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        let Ok(whole) = whole else { unreachable!("the columns are those of the schema") };
        if bad.records.is_empty() {
            return Decoded { rows: whole, indices, dead };
        }
        let kept: Vec<u32> = of_rows.iter().copied().filter(|index| !bad.has(*index)).collect();
        let mask: BooleanArray = of_rows.iter().map(|index| Some(!bad.has(*index))).collect();
        for (index, reason) in bad.records {
            let offset = Offset(values.offsets.get(index as usize).copied().unwrap_or_default());
            // One whose value is bad too is told of once.
            if of_rows.binary_search(&index).is_ok() {
                dead.push(DeadLetter { offset, reason, bytes: values.value(index as usize).to_vec() });
            }
        }
        dead.sort_by_key(|letter| letter.offset.0);
        let Ok(rows) = filter_record_batch(&whole, &mask) else {
            unreachable!("the mask is as long as the batch")
        };
        Decoded { rows, indices: Some(kept), dead }
    }
}

/// Records whose metadata is bad, by index.
#[derive(Default)]
struct Bad {
    records: Vec<(u32, String)>,
}

impl Bad {
    /// The first reason counts.
    fn note(&mut self, index: usize, reason: String) {
        if self.records.last().is_none_or(|(last, _)| *last != index as u32) {
            self.records.push((index as u32, reason));
        }
    }

    fn has(&self, index: u32) -> bool {
        self.records.binary_search_by_key(&index, |(bad, _)| *bad).is_ok()
    }
}

/// What stands there of one record.
enum Found<'a> {
    Bytes(Option<&'a [u8]>),
    Number(i64),
    /// What the records' offsets tell.
    Offset,
}

/// Takes the next thing off. (What a source has written is whole; of what is not, nothing is made up.)
fn take<'a>(data: &'a [u8], at: &mut u32, what: &Metadata) -> Found<'a> {
    let mut next = |length: u32| {
        let begin = *at as usize;
        *at = at.saturating_add(length);
        data.get(begin..*at as usize).unwrap_or_default()
    };
    match what {
        Metadata::Key | Metadata::Header(_) => {
            let length = next(4).try_into().map_or(NONE, u32::from_le_bytes);
            Found::Bytes((length != NONE).then(|| next(length)))
        }
        Metadata::Timestamp => Found::Number(next(8).try_into().map_or(0, i64::from_le_bytes)),
        Metadata::Partition => {
            Found::Number(next(4).try_into().map_or(0, |p| i64::from(u32::from_le_bytes(p))))
        }
        Metadata::Offset => Found::Offset,
    }
}

/// A column of all records of a chunk.
enum Column {
    Text(StringBuilder),
    Time(Vec<i64>),
    Number(Vec<i64>),
}

impl Column {
    fn of(what: &Metadata) -> Column {
        match what {
            Metadata::Key | Metadata::Header(_) => Column::Text(StringBuilder::new()),
            Metadata::Timestamp => Column::Time(Vec::new()),
            Metadata::Partition | Metadata::Offset => Column::Number(Vec::new()),
        }
    }

    /// Adds what was found of a record; what is wrong with it, if it is no text.
    fn push(&mut self, found: &Found<'_>, offset: Option<&u64>) -> Result<(), &'static str> {
        match (self, found) {
            (Column::Text(texts), Found::Bytes(bytes)) => match bytes.map(std::str::from_utf8) {
                None => texts.append_null(),
                Some(Ok(text)) => texts.append_value(text),
                Some(Err(_)) => {
                    texts.append_null();
                    return Err("is no text (UTF-8)");
                }
            },
            (Column::Time(numbers) | Column::Number(numbers), found) => numbers.push(match found {
                Found::Number(number) => *number,
                Found::Offset | Found::Bytes(_) => offset.copied().unwrap_or_default() as i64,
            }),
            (Column::Text(texts), _) => texts.append_null(),
        }
        Ok(())
    }

    /// The values of the records that became rows.
    fn of_rows(self, rows: &[u32], some: bool) -> ArrayRef {
        let all: ArrayRef = match self {
            Column::Text(mut texts) => Arc::new(texts.finish()),
            Column::Time(times) => Arc::new(TimestampMillisecondArray::from(times)),
            Column::Number(numbers) => Arc::new(Int64Array::from(numbers)),
        };
        if !some {
            return all;
        }
        let indices = arrow::array::UInt32Array::from(rows.to_vec());
        arrow::compute::take(&*all, &indices, None).unwrap_or(all)
    }
}
