//! Writing a file: all of it or nothing.
//!
//! Rows go to `NAME.partial` beside the target, which is synced and renamed when the sink closes. A job that
//! stops before leaves the target as it was; the next run overwrites what it left.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use levada_types::{ConnectorError, Epoch, Sink, SinkFactory};

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
}

impl FileSink {
    /// Writes the file that `config` names, as `format`.
    pub fn new(config: FileSinkConfig, format: Format) -> FileSink {
        FileSink { config, format }
    }
}

impl SinkFactory for FileSink {
    fn describe(&self) -> String {
        format!("file {}", self.config.path.display())
    }

    fn open(&self, schema: SchemaRef) -> Result<Box<dyn Sink>, ConnectorError> {
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
        let create = || -> io::Result<Output> {
            fs::create_dir_all(folder(&target))?;
            let mut output = Output::new(compression, File::create(&partial)?)?;
            if let Some(mut header) = encoder.header() {
                header.push(b'\n');
                output.write(&header)?;
            }
            Ok(output)
        };
        let output = Some(create().map_err(|error| failed("write", &partial, &error))?);
        Ok(Box::new(OpenFile { encoder, target, partial, output, bytes: Vec::new(), ends: Vec::new() }))
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
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ConnectorError> {
        let Some(output) = self.output.take() else { return Ok(()) };
        let finish = || {
            output.finish()?.sync_all()?;
            fs::rename(&self.partial, &self.target)?;
            File::open(folder(&self.target))?.sync_all()
        };
        finish().map_err(|error| failed("write", &self.target, &error))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.output.take().is_some() {
            // The job failed: nothing half done stays. That it may stay after all harms nobody.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
