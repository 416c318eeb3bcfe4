//! `levada late inject`: late rows back into the topic that they came from, each once.
//!
//! Each record that is appended says in a header which late row it is. Before anything is appended, the topic is looked
//! through for such headers, and what is there is not appended again: so a repeat, also of a command that was killed in
//! between, appends what is missing. The topic is locked meanwhile, as by every writer.
//!
//! What becomes of the rows: in the same job they are late again, as their time is what it was, unless `--set-time` makes
//! it that of the newest record of their partition, `out_of_order` has been raised and the job begins afresh, or another
//! job reads them (`--into`). What is late again is late for a second time, and stands in the ledger as that. What the job
//! has told stays told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::Args;
use levada_connectors::codec::SourceFormat;
use levada_connectors::codec::json::{members, pick};
use levada_connectors::codec::timestamp;
use levada_connectors::log::{Log, RecordIn, Topic, TopicConfig, TopicWriter, WriterOptions};
use levada_connectors::topic::MarkFields;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{Entry, each, entries};
use crate::cli::JobArgs;
use crate::cli::failure::Failure;
use crate::job::{Loaded, SourceConnector};

/// The header that says which late row a record is.
const HEADER: &str = "levada-late";
/// How many records are appended at once.
const BATCH: usize = 1000;

/// Appends late rows to the topic that they came from, each once: a repeat appends what is missing
#[derive(Clone, Debug, Args)]
pub(super) struct Inject {
    #[command(flatten)]
    pub(super) job: JobArgs,
    /// Only what was late for this step; to be given where a record may have been late for several
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// To this topic, which is created if there is none, instead of the one that the source reads
    #[arg(long, value_name = "TOPIC")]
    into: Option<String>,
    /// Give this column the newest time that it has in the partition, so that the rows are not late again
    #[arg(long, value_name = "COLUMN")]
    set_time: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// A row to be appended.
struct Row {
    /// Which late row it is.
    id: String,
    partition: Option<u32>,
    time_ms: i64,
    value: Vec<u8>,
}

impl Inject {
    pub(super) fn execute(
        &self,
        log: &Log,
        ledger: &Topic,
        loaded: &Loaded,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        if let Some(step) = &self.step
            && !loaded.plan.steps.iter().any(|known| known.name == *step)
        {
            let known: Vec<&str> = loaded.plan.steps.iter().map(|step| step.name.as_str()).collect();
            let near = levada_types::nearest(step, &known)
                .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(Failure::Other(format!("inject: there is no step `{step}`{near}")));
        }
        let (targets, elsewhere) = self.rows(ledger, loaded)?;
        for (topic, rows) in targets {
            let (appended, before) = self.append(log, &topic, rows)?;
            let plural = if appended == 1 { "" } else { "s" };
            let again = if before == 0 { String::new() } else { format!("; {before} were there already") };
            writeln!(out, "appended {appended} late row{plural} to {topic}{again}")?;
        }
        for (input, rows) in elsewhere {
            writeln!(
                out,
                "{rows} of `{input}` were left out: it is no topic of plain JSON in the embedded log; --into TOPIC takes them"
            )?;
        }
        Ok(())
    }

    /// The late rows by the topic that they are for, and how many have none, by their stream.
    #[expect(clippy::type_complexity, reason = "two tables")]
    fn rows(
        &self,
        ledger: &Topic,
        loaded: &Loaded,
    ) -> Result<(BTreeMap<String, Vec<Row>>, BTreeMap<String, u64>), Failure> {
        let (mut targets, mut elsewhere) =
            (BTreeMap::<String, Vec<Row>>::new(), BTreeMap::<String, u64>::new());
        let mut steps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        entries(ledger, |partition, record, entry| {
            if self.step.as_ref().is_some_and(|step| *step != entry.step) {
                return Ok(());
            }
            let source = loaded.spec.source.get(&entry.input);
            // A row is JSON; records that are something else around it cannot be made of it.
            let plain =
                source.filter(|source| matches!(source.common.format, None | Some(SourceFormat::Json)));
            let own = match plain.map(|source| &source.connector) {
                Some(SourceConnector::Log(source)) => Some(source.topic.clone()),
                _ => None,
            };
            let Some(topic) = self.into.clone().or_else(|| own.clone()) else {
                *elsewhere.entry(entry.input).or_default() += 1;
                return Ok(());
            };
            steps.entry(entry.input.clone()).or_default().insert(entry.step.clone());
            let id =
                format!("{}/{partition}/{}/{:016x}", ledger.name(), record.offset, xxh3_64(record.value));
            let partition = entry.partition.filter(|_| own.as_ref() == Some(&topic));
            let row = self.row(id, partition, record.timestamp_ms, &entry)?;
            targets.entry(topic).or_default().push(row);
            Ok(())
        })?;
        if let Some((input, steps)) = steps.iter().find(|(_, steps)| steps.len() > 1) {
            let steps = steps.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::Other(format!(
                "inject: a row of `{input}` may have been late for several steps ({steps}), and would be appended for each; \
                 say for which with --step"
            )));
        }
        Ok((targets, elsewhere))
    }

    fn row(
        &self,
        id: String,
        partition: Option<u32>,
        time_ms: i64,
        entry: &Entry<'_>,
    ) -> Result<Row, Failure> {
        if let Some(column) = &self.set_time
            && !matches!(pick(entry.row, [column.as_str()]), Ok([Some(_)]))
        {
            let input = &entry.input;
            return Err(Failure::Other(format!(
                "inject: the rows of `{input}` have no column `{column}` to set"
            )));
        }
        let time_ms = MarkFields { key: None, time: Some("at".into()) }
            .of(format!("{{\"at\":{:?}}}", entry.at).as_bytes())
            .time_ms
            .unwrap_or(time_ms);
        Ok(Row { id, partition, time_ms, value: entry.row.to_vec() })
    }

    /// Appends the rows that a topic does not have; how many that were, and how many it had.
    fn append(&self, log: &Log, name: &str, mut rows: Vec<Row>) -> Result<(u64, u64), Failure> {
        let topic = log.ensure_topic(name, TopicConfig::default())?;
        // From here on nobody else writes.
        let writer = topic.writers(WriterOptions::default())?;
        let marks = MarkFields { key: None, time: self.set_time.clone() };
        let mut there = BTreeSet::new();
        let mut newest: BTreeMap<u32, i64> = BTreeMap::new();
        each(&topic, |partition, record| {
            match record.header(HEADER) {
                Some(id) => drop(there.insert(String::from_utf8_lossy(id).into_owned())),
                None if self.set_time.is_some() => {
                    if let Some(time) = marks.of(record.value).time_ms {
                        newest
                            .entry(partition)
                            .and_modify(|newest| *newest = time.max(*newest))
                            .or_insert(time);
                    }
                }
                None => {}
            }
            Ok(())
        })?;
        let all = rows.len();
        rows.retain(|row| !there.contains(&row.id));
        let before = (all - rows.len()) as u64;
        rows.truncate(self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
        if let (Some(column), false) = (&self.set_time, rows.is_empty()) {
            // Of a partition that is behind, the newest record of another one would make those to come late.
            let slowest = newest.iter().min_by_key(|(_, time)| **time).map(|(partition, _)| *partition);
            let slowest = slowest.ok_or_else(|| {
                Failure::Other(format!("inject: no record of topic {name} has a time in `{column}` to set"))
            })?;
            for row in &mut rows {
                let own = row.partition.filter(|partition| newest.contains_key(partition)).unwrap_or(slowest);
                row.partition = Some(own);
                set_time(row, column, newest[&own])?;
            }
        }
        for rows in rows.chunks(BATCH) {
            append(&writer, rows)?;
        }
        writer.sync()?;
        Ok((rows.len() as u64, before))
    }
}

/// Gives a row another time. Its other values stay as they are written.
fn set_time(row: &mut Row, column: &str, newest_ms: i64) -> Result<(), Failure> {
    let mut value = vec![b'{'];
    let each = |name: &[u8], old: &[u8]| {
        if value.len() > 1 {
            value.push(b',');
        }
        value.extend(Value::from(String::from_utf8_lossy(name)).to_string().into_bytes());
        value.push(b':');
        if name == column.as_bytes() {
            value.push(b'"');
            timestamp::write(newest_ms, &mut value);
            value.push(b'"');
        } else {
            value.extend_from_slice(old);
        }
    };
    members(&row.value, each)
        .map_err(|reason| Failure::Other(format!("read the late row {}: {reason}", row.id)))?;
    value.push(b'}');
    (row.time_ms, row.value) = (newest_ms, value);
    Ok(())
}

/// Appends rows, each to the partition that it came from, or in turn.
fn append(writer: &TopicWriter, rows: &[Row]) -> Result<(), Failure> {
    let mut partitions: BTreeMap<Option<u32>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let partition = row.partition.filter(|partition| *partition < writer.partitions());
        partitions.entry(partition).or_default().push(row);
    }
    for (partition, rows) in partitions {
        let headers: Vec<[(&str, &[u8]); 1]> = rows.iter().map(|row| [(HEADER, row.id.as_bytes())]).collect();
        let records: Vec<RecordIn<'_>> = rows
            .iter()
            .zip(&headers)
            .map(|(row, headers)| RecordIn {
                timestamp_ms: row.time_ms,
                key: None,
                headers,
                value: &row.value,
            })
            .collect();
        match partition {
            Some(partition) => drop(writer.partition(partition)?.append(&records)?),
            None => drop(writer.append(&records)?),
        }
    }
    Ok(())
}
