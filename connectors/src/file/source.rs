//! Reading files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use levada_types::{
    ConnectorError, Decoder, DecoderFactory, Offset, PartitionId, RawRecords, Read, RecordReader,
    SourceFactory, StartAt,
};

use super::{Compression, FileSourceConfig, Lines, failed};
use crate::codec::Format;
use crate::codec::csv::{self, CsvConfig, CsvFormat};
use crate::codec::json::JsonFormat;

/// Some files as a source: bounded, each file a partition. They are opened when they are read.
#[derive(Clone, Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    compression: Option<Compression>,
    /// If the files hold CSV.
    csv: Option<CsvConfig>,
}

impl FileSource {
    /// A source of the files that `config` names, which hold `format`.
    ///
    /// # Errors
    /// When none or both of `path` and `paths` are given, or the delimiter cannot be one.
    pub fn new(config: &FileSourceConfig, format: Format) -> Result<FileSource, ConnectorError> {
        let paths = match (&config.path, config.paths.as_slice()) {
            (Some(path), []) => vec![path.clone()],
            (None, [_, ..]) => config.paths.clone(),
            (None, []) => {
                return Err(ConnectorError::configuration("read files: give `path`, or several as `paths`"));
            }
            (Some(_), _) => {
                return Err(ConnectorError::configuration("read files: give `path` or `paths`, not both"));
            }
        };
        config.csv.delimiter()?;
        let csv = (format == Format::Csv).then(|| config.csv.clone());
        Ok(FileSource { paths, compression: config.compression, csv })
    }

    /// What decodes the records. For CSV it reads the header of the first file whenever a decoder is made.
    pub fn decoder(&self) -> Arc<dyn DecoderFactory> {
        match &self.csv {
            Some(_) => Arc::new(HeaderFormat(self.clone())),
            None => JsonFormat::shared(),
        }
    }

    /// The columns that the header of the first file names, if the files hold CSV.
    ///
    /// # Errors
    /// When there is no header to read.
    pub fn columns(&self) -> Result<Option<Vec<String>>, ConnectorError> {
        let header = |csv| self.past_header(self.first(), csv).map(|(_, columns)| columns);
        self.csv.as_ref().map(header).transpose()
    }

    /// The first file, for people.
    pub fn first_name(&self) -> String {
        self.first().display().to_string()
    }

    fn lines(&self, path: &Path) -> Result<Lines, ConnectorError> {
        let compression = self.compression.unwrap_or_else(|| Compression::of(path));
        let input = File::open(path).and_then(|file| compression.reader(file));
        let delimiter = self.csv.as_ref().map(CsvConfig::delimiter).transpose()?;
        Ok(Lines::new(input.map_err(|error| failed("read", path, &error))?, delimiter))
    }

    /// A file from its first record on, and what its header says.
    fn past_header(&self, path: &Path, csv: &CsvConfig) -> Result<(Lines, Vec<String>), ConnectorError> {
        let mut lines = self.lines(path)?;
        let columns = header(&mut lines, path, csv.delimiter()?)?;
        Ok((lines, columns))
    }

    fn first(&self) -> &Path {
        self.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

/// Decodes CSV whose header stands in the first file.
#[derive(Debug)]
struct HeaderFormat(FileSource);

impl DecoderFactory for HeaderFormat {
    fn decoder(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>, ConnectorError> {
        let config = self.0.csv.clone().unwrap_or_default();
        let (_, columns) = self.0.past_header(self.0.first(), &config)?;
        CsvFormat { columns, config }.decoder(schema)
    }
}

/// Reads the header, which is the first record.
fn header(lines: &mut Lines, path: &Path, delimiter: u8) -> Result<Vec<String>, ConnectorError> {
    let first = lines.next(1).map_err(|error| failed("read", path, &error))?;
    let wrong = |reason: &str| {
        ConnectorError::configuration(format!("read the header of {}: {reason}", path.display()))
    };
    if first.is_empty() {
        return Err(wrong("the file is empty"));
    }
    csv::header(first.value(0), delimiter).map_err(|reason| wrong(&reason))
}

impl SourceFactory for FileSource {
    fn describe(&self) -> String {
        match self.paths.as_slice() {
            [path] => format!("file {}", path.display()),
            paths => format!("{} files", paths.len()),
        }
    }

    fn partitions(&self) -> Result<Vec<Option<Offset>>, ConnectorError> {
        Ok(vec![None; self.paths.len()])
    }

    fn unbounded(&self) -> bool {
        false
    }

    fn open(&self, partition: PartitionId, start: StartAt) -> Result<Box<dyn RecordReader>, ConnectorError> {
        let path = self.paths.get(partition.0 as usize).ok_or_else(|| {
            ConnectorError::configuration(format!(
                "open partition {partition}: there are {} files",
                self.paths.len()
            ))
        })?;
        let mut lines = match &self.csv {
            None => self.lines(path)?,
            Some(csv) => {
                let (lines, columns) = self.past_header(path, csv)?;
                if partition.0 > 0 {
                    let (_, first) = self.past_header(self.first(), csv)?;
                    if columns != first {
                        return Err(ConnectorError::configuration(format!(
                            "read {}: its header is {}, that of the first file {}",
                            path.display(),
                            columns.join(","),
                            first.join(",")
                        )));
                    }
                }
                lines
            }
        };
        let mut pending = RawRecords::default();
        if let StartAt::Offset(start) = start {
            // A file has no index: what comes before is read and dropped.
            loop {
                pending = lines.next(SKIP_RECORDS).map_err(|error| failed("read", path, &error))?;
                let before = pending.offsets.partition_point(|offset| *offset < start.0);
                if before < pending.len() || pending.is_empty() {
                    pending = pending.split_off(before);
                    break;
                }
            }
        }
        let plain = matches!(self.compression.unwrap_or_else(|| Compression::of(path)), Compression::None);
        let at_once = plain && path.metadata().is_ok_and(|about| about.is_file());
        Ok(Box::new(FileReader { path: path.clone(), lines, pending, at_once }))
    }
}

const SKIP_RECORDS: usize = 8192;

struct FileReader {
    path: PathBuf,
    lines: Lines,
    /// Records that were read while looking for the start.
    pending: RawRecords,
    /// Whether nothing has to be unpacked or waited for: a plain file, and no pipe.
    at_once: bool,
}

impl RecordReader for FileReader {
    fn at_once(&self) -> bool {
        self.at_once
    }

    fn read(&mut self, max_records: usize, _wait: Duration) -> Result<Read, ConnectorError> {
        if max_records == 0 {
            return Ok(Read::Nothing);
        }
        let mut records = std::mem::take(&mut self.pending);
        if records.len() > max_records {
            self.pending = records.split_off(max_records);
        } else if records.len() < max_records {
            let more = self.lines.next(max_records - records.len());
            let more = more.map_err(|error| failed("read", &self.path, &error))?;
            records = if records.is_empty() { more } else { join(&records, &more) };
        }
        Ok(if records.is_empty() { Read::End } else { Read::Records(records) })
    }
}

fn join(first: &RawRecords, second: &RawRecords) -> RawRecords {
    let mut data = first.data.to_vec();
    let shift = data.len() as u32;
    data.extend_from_slice(&second.data);
    let spans = first.spans.iter().copied().chain(second.spans.iter().map(|(a, b)| (a + shift, b + shift)));
    RawRecords {
        data: data.into(),
        spans: spans.collect(),
        offsets: first.offsets.iter().chain(&second.offsets).copied().collect(),
        headers: Vec::new(),
    }
}
