//! Writing a file: all of it or nothing.
//!
//! Rows go to `NAME.partial` beside the target, which is synced and renamed when the sink closes. A job that
//! stops before leaves the target as it was; the next run overwrites what it left.
//!
//! Where a later run is to go on from a checkpoint, `NAME.partial` is not compressed before the sink closes, so
//! that it can be cut back to the length that the checkpoint tells; it stays when the job stops.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{
    CommandLine, ConnectorError, Deed, Epoch, Held, Output as Written, Sink, SinkFactory, WhenDurable,
};

use super::compression::Output;
use super::{Compression, FileSinkConfig, failed};
use crate::codec::csv::CsvEncoder;
use crate::codec::json::JsonEncoder;
use crate::codec::{Encoder, Format};

/// A file as a sink.
#[derive(Clone, Debug)]
pub struct FileSink {
    config: FileSinkConfig,
    format: Format,
    resumable: bool,
}

impl FileSink {
    /// Writes the file that `config` names, as `format`.
    pub fn new(config: FileSinkConfig, format: Format) -> FileSink {
        FileSink { config, format, resumable: false }
    }

    /// The same, so written that a later run can go on from a checkpoint.
    #[must_use]
    pub fn resumable(self) -> FileSink {
        FileSink { resumable: true, ..self }
    }

    /// The rows that a checkpoint knows of, to be written on: what is left of `partial`, or, where the job had
    /// ended, of the target. Whatever was written after the checkpoint comes again.
    fn reopen(
        &self,
        compression: Compression,
        partial: &Path,
        place: &[u8],
    ) -> Result<Output, ConnectorError> {
        let target = &self.config.path;
        let go_on =
            |why: String| ConnectorError::configuration(format!("go on in {}: {why}", target.display()));
        let length = place.try_into().map(u64::from_le_bytes);
        let length = length.map_err(|_| go_on("the checkpoint does not tell where".into()))?;
        let open = || -> io::Result<Result<Output, u64>> {
            if !partial.exists() && target.exists() {
                let rows = compression.reader(File::open(target)?)?;
                io::copy(&mut rows.take(length), &mut File::create(partial)?)?;
            }
            let mut file = OpenOptions::new().write(true).open(partial)?;
            let there = file.metadata()?.len();
            if there < length {
                return Ok(Err(there));
            }
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(Ok(Output::new(Compression::None, file)?))
        };
        open().map_err(|error| failed("go on in", partial, &error))?.map_err(|there| {
            go_on(format!("{} has {there} bytes, and the checkpoint knows of {length}", partial.display()))
        })
    }
}

impl SinkFactory for FileSink {
    fn describe(&self) -> String {
        format!("file {}", self.config.path.display())
    }

    fn outputs(&self) -> Vec<&dyn Written> {
        vec![self]
    }

    fn open(&self, schema: SchemaRef, place: Option<&[u8]>) -> Result<Box<dyn Sink>, ConnectorError> {
        let encoder: Box<dyn Encoder> = match self.format {
            Format::Json => Box::new(JsonEncoder::new(&schema)?),
            Format::Csv => Box::new(CsvEncoder::new(&schema, &self.config.csv)?),
        };
        let target = self.config.path.clone();
        let Some(name) = target.file_name() else {
            return Err(ConnectorError::configuration(format!("write {}: it is no file", target.display())));
        };
        let mut partial_name = OsString::from(name);
        partial_name.push(".partial");
        let partial = target.with_file_name(partial_name);
        let compression = self.config.compression.unwrap_or_else(|| Compression::of(&target));
        if compression == Compression::Zip {
            return Err(ConnectorError::configuration(format!(
                "write {}: zip can only be read; use .gz or .zst",
                target.display()
            )));
        }
        if fs::metadata(&target).is_ok_and(|there| !there.is_file()) {
            // A finished file takes the name of what is there, be it a device or a pipe.
            let path = target.display();
            return Err(ConnectorError::configuration(format!(
                "write {path}: there is something that is no file"
            )));
        }
        let while_open = if self.resumable { Compression::None } else { compression };
        let mut length = 0;
        let mut create = || -> io::Result<Output> {
            fs::create_dir_all(folder(&target))?;
            let mut output = Output::new(while_open, File::create(&partial)?)?;
            if let Some(mut header) = encoder.header() {
                header.push(b'\n');
                output.write(&header)?;
                length = header.len() as u64;
            }
            Ok(output)
        };
        let output = match place {
            Some(place) => {
                let output = self.reopen(compression, &partial, place)?;
                length = place.try_into().map_or(0, u64::from_le_bytes);
                output
            }
            None => create().map_err(|error| failed("write", &partial, &error))?,
        };
        Ok(Box::new(OpenFile {
            encoder,
            target,
            partial,
            output: Some(output),
            length,
            compress: (self.resumable && compression != Compression::None).then_some(compression),
            stays: self.resumable,
            bytes: Vec::new(),
            ends: Vec::new(),
        }))
    }
}

impl Written for FileSink {
    fn name(&self) -> String {
        self.describe()
    }

    /// A file is written whole.
    fn appends(&self) -> bool {
        false
    }

    /// What the file stands in is made if it is not there.
    fn prepare(&self) -> Result<(), ConnectorError> {
        let file = &self.config.path;
        if file.exists() && !file.is_file() {
            let file = file.display();
            return Err(ConnectorError::configuration(format!("write {file}: what is there is no file")));
        }
        fs::create_dir_all(folder(file)).map_err(|error| failed("create the folder of", file, &error))
    }

    /// A file of nothing, as `mktemp` makes one, is nobody's output. Whose another is cannot be told, but the job
    /// names it.
    fn held(&self) -> Result<Option<Held>, ConnectorError> {
        let holds = fs::metadata(&self.config.path).is_ok_and(|there| there.is_file() && there.len() > 0);
        Ok(holds.then_some(Held { records: None, by_job: true }))
    }

    fn delete(&self) -> Result<bool, ConnectorError> {
        match fs::remove_file(&self.config.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("delete", &self.config.path, &error)),
        }
    }

    fn by_hand(&self, deed: Deed) -> Option<CommandLine> {
        let (command, options) = match deed {
            Deed::Look => return None,
            Deed::Delete => ("rm", ""),
            Deed::Clear => ("mv", "ELSEWHERE    a file is written whole, never appended to"),
        };
        let target = self.config.path.display().to_string();
        Some(CommandLine { command: command.into(), target, options: options.into() })
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

struct OpenFile {
    encoder: Box<dyn Encoder>,
    target: PathBuf,
    partial: PathBuf,
    /// None once closed.
    output: Option<Output>,
    /// Of the rows so far, bytes before compression.
    length: u64,
    /// How to compress the rows in the end, if they are not compressed while they are written.
    compress: Option<Compression>,
    /// Whether what is written stays when the job stops.
    stays: bool,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Sink for OpenFile {
    fn publish(&mut self, _epoch: Epoch, rows: &[RecordBatch]) -> Result<(), ConnectorError> {
        for batch in rows {
            self.bytes.clear();
            self.ends.clear();
            self.encoder.encode(batch, b"\n", &mut self.bytes, &mut self.ends);
            let output = self.output.as_mut().ok_or_else(|| {
                ConnectorError::outage(format!("write {}: it is closed already", self.target.display()))
            })?;
            output.write(&self.bytes).map_err(|error| failed("write", &self.partial, &error))?;
            self.length += self.bytes.len() as u64;
        }
        Ok(())
    }

    fn place(&self) -> Vec<u8> {
        self.length.to_le_bytes().to_vec()
    }

    fn when_durable(&mut self, then: WhenDurable) {
        let Some(output) = &mut self.output else { return then(Ok(())) };
        let partial = self.partial.clone();
        let told = move |done: io::Result<()>| then(done.map_err(|error| failed("write", &partial, &error)));
        match output.flushed() {
            // It may take the disk long, and whoever asks has other work.
            Ok(file) => drop(std::thread::spawn(move || told(file.sync_data()))),
            Err(error) => told(Err(error)),
        }
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        let Some(output) = self.output.take() else { return Ok(()) };
        let finish = || {
            let rows = output.finish()?;
            match self.compress {
                None => {
                    rows.sync_all()?;
                    fs::rename(&self.partial, &self.target)?;
                }
                Some(compression) => {
                    let mut name = self.partial.clone().into_os_string();
                    name.push(".compressed");
                    let mut output = Output::new(compression, File::create(&name)?)?;
                    output.copy(&mut File::open(&self.partial)?)?;
                    output.finish()?.sync_all()?;
                    fs::rename(&name, &self.target)?;
                    fs::remove_file(&self.partial)?;
                }
            }
            File::open(folder(&self.target))?.sync_all()
        };
        finish().map_err(|error| failed("write", &self.target, &error))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.output.take().is_some() && !self.stays {
            // The job failed: nothing half done stays. That it may stay after all harms nobody.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
