//! A table as a source: unbounded, with a history that ends with the last row that was settled when the job began.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, SchemaRef};
use levada_types::{
    Batch, ConnectorError, Offset, PartitionId, RecordReader, SourceFactory, SourceLag, StartAt,
};
use xxhash_rust::xxh3::xxh3_64;

use super::link::Link;
use super::reader::TableReader;
use super::receipts::Receipts;
use super::settle::Settling;
use super::table::Place;
use super::{SqlSourceConfig, StartFrom};

/// How soon a table is looked at again when a job begins; then each time twice as late, up to `poll`.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// After how long a job that begins says what it waits for.
const LONG: Duration = Duration::from_secs(3);

/// A table as a source. Nothing is asked before it is read.
pub struct SqlSource {
    place: Arc<Place>,
    start: StartFrom,
    poll: Duration,
    /// Where it is written down what was read; without it a run cannot go on.
    receipts: Option<Receipts>,
    lag: Arc<SourceLag>,
    /// How far the table was settled when the job began.
    begun: Mutex<Option<Settling>>,
}

impl SqlSource {
    /// The source `name` of a job, whose records are the `columns` of the table that `config` names; `state` is the folder
    /// in which the job keeps what it needs to go on, if it does.
    ///
    /// # Errors
    /// When the configuration is wrong: with which field, and why.
    pub fn new(
        name: &str,
        config: &SqlSourceConfig,
        columns: SchemaRef,
        state: Option<&Path>,
    ) -> Result<SqlSource, (Option<&'static str>, String)> {
        let place = Place::new(config, columns)?;
        let read = (place.quoted(), &config.column, place.condition(), named(&place));
        Ok(SqlSource {
            start: config.start,
            poll: config.poll()?,
            receipts: state.map(|state| Receipts::new(state, name, xxh3_64(format!("{read:?}").as_bytes()))),
            place: Arc::new(place),
            lag: Arc::default(),
            begun: Mutex::default(),
        })
    }

    /// How far the table is settled when the job begins: the rows that are there when this is asked first.
    fn begun(&self) -> Result<Settling, ConnectorError> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = &*begun {
            return Ok(begun.clone());
        }
        Ok(begun.insert(self.settle()?).clone())
    }

    fn settle(&self) -> Result<Settling, ConnectorError> {
        let (mut link, mut settling, mut wait) = (Link::new(&self.place), Settling::default(), FIRST_WAIT);
        let mut connection = 0;
        loop {
            let seen = link.ask_patiently(|table| table.seen())?;
            if link.connections() != connection {
                settling.reconnected();
                connection = link.connections();
            }
            let empty = seen.last.is_none();
            settling.look(seen, Instant::now());
            if empty || settling.settled().is_some() {
                settling.reconnected();
                return Ok(settling);
            }
            if let Some(held) = settling.held_for(LONG, Instant::now()) {
                let writers: Vec<&str> = held.writers.values().map(String::as_str).collect();
                tracing::warn!(
                    "{}: waiting for open transactions that write to it ({}): they may bring rows with smaller numbers than \
                     {}, and the job begins with all that is there",
                    self.place.describe(),
                    writers.join(", "),
                    held.last
                );
            }
            std::thread::park_timeout(wait);
            wait = (wait * 2).min(self.poll);
        }
    }

    /// The row behind the last one that was settled when the job began.
    fn end(&self) -> Result<u64, ConnectorError> {
        Ok(self.begun()?.settled().map_or(0, |last| last + 1))
    }
}

/// The columns of a record, with what each is to hold, in the words of a job file: receipts of earlier releases have them.
fn named(place: &Place) -> Vec<String> {
    let word = |field: &Field| match field.data_type() {
        DataType::Int64 => "int",
        DataType::Float64 => "float",
        DataType::Boolean => "bool",
        DataType::Timestamp(..) => "timestamp",
        _ if Batch::is_json(field) => "json",
        _ => "string",
    };
    place.columns.fields().iter().map(|field| format!("{} {}", field.name(), word(field))).collect()
}

impl SourceFactory for SqlSource {
    fn describe(&self) -> String {
        self.place.describe()
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        Ok(vec![Some(Offset(self.end()?))])
    }

    /// Numbers have gaps, and to count the rows would be to read them.
    fn records(&self, _ends: &[Option<Offset>]) -> u64 {
        0
    }

    fn lag(&self) -> Arc<SourceLag> {
        Arc::clone(&self.lag)
    }

    fn unbounded(&self) -> bool {
        true
    }

    fn start(&self, _partition: PartitionId) -> Result<Option<Offset>, ConnectorError> {
        if let Some(receipts) = &self.receipts {
            receipts.begin()?;
        }
        Ok(Some(Offset(match self.start {
            StartFrom::Beginning => 0,
            StartFrom::End => self.end()?,
        })))
    }

    fn open(&self, _partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let next = match (start, self.start) {
            (StartAt::Offset(Offset(next)), _) => next,
            (StartAt::Configured, StartFrom::Beginning) => 0,
            (StartAt::Configured, StartFrom::End) => self.end()?,
        };
        let receipts = self.receipts.as_ref().map(|receipts| receipts.open(next)).transpose()?;
        let (link, lag) = (Link::new(&self.place), Arc::clone(&self.lag));
        Ok(Box::new(TableReader::new(link, self.begun()?, next, receipts, self.poll, lag)))
    }
}
