//! The one list of formats: from what a job file says of a source's records to what decodes them.
//!
//! To add a format: a variant of [`SourceFormat`], and its arms here.

use std::path::Path;
use std::sync::Arc;

use levada_connectors::codec::avro::{AvroConfig, AvroFormat};
use levada_connectors::codec::cloudevents::CloudEventsFormat;
use levada_connectors::codec::json::JsonFormat;
use levada_connectors::codec::protobuf::ProtobufConfig;
use levada_connectors::codec::{Misfit, SourceFormat};
use levada_connectors::registry::Registry;
use levada_dataflows::plan::PlanContext;
use levada_types::{ConnectorError, DecoderFactory};

use super::connect::{Fault, format_of};
use super::planning::decoded;
use super::spec::{SourceConnector, SourceSpec};
use super::world::meant;

/// What decodes records, and the registry that has their schemas.
pub(super) struct Decoding {
    pub decoder: Arc<dyn DecoderFactory>,
    pub registry: Option<Arc<Registry>>,
}

/// What decodes records of a format. CSV is decoded by its file, which has the header.
pub(super) fn decoding(format: &SourceFormat, data_dir: &Path) -> Result<Decoding, Fault> {
    let wrong = |message: String| (Some("format"), message);
    format.check().map_err(wrong)?;
    let mut registry = None;
    let decoder: Arc<dyn DecoderFactory> = match format {
        SourceFormat::Json | SourceFormat::Csv => JsonFormat::shared(),
        SourceFormat::Cloudevents => Arc::new(CloudEventsFormat),
        SourceFormat::Avro(config) => {
            registry = registry_of(config, data_dir).map_err(|error| wrong(error.to_string()))?;
            Arc::new(AvroFormat::new(config, registry.clone()))
        }
        SourceFormat::Protobuf(config) => protobuf(config)?,
    };
    Ok(Decoding { decoder, registry })
}

fn registry_of(config: &AvroConfig, data_dir: &Path) -> Result<Option<Arc<Registry>>, ConnectorError> {
    let registry = config.registry.as_ref().map(|config| Registry::new(config, data_dir));
    Ok(registry.transpose()?.map(Arc::new))
}

#[cfg(feature = "protobuf")]
fn protobuf(config: &ProtobufConfig) -> Result<Arc<dyn DecoderFactory>, Fault> {
    Ok(Arc::new(levada_connectors::codec::protobuf::ProtobufFormat::new(config)))
}

#[cfg(not(feature = "protobuf"))]
fn protobuf(_: &ProtobufConfig) -> Result<Arc<dyn DecoderFactory>, Fault> {
    let message = "this levada was built without Protobuf: build it with the feature `protobuf`";
    Err((Some("format"), message.into()))
}

/// A topic's records have no header line, which CSV needs.
pub(super) fn of_topic(format: &SourceFormat) -> Result<(), Fault> {
    match format {
        SourceFormat::Csv => {
            let message = "a topic holds no CSV, which needs a file with a header line";
            Err((Some("format"), message.into()))
        }
        _ => Ok(()),
    }
}

/// The rows of a table have columns, and become records here.
#[cfg(feature = "sql")]
pub(super) fn of_table(format: &SourceFormat) -> Result<(), Fault> {
    match format {
        SourceFormat::Json => Ok(()),
        _ => Err((Some("format"), "the rows of a table have no format; leave it out".into())),
    }
}

/// The records of a file are its lines, which may not hold just any byte.
pub(super) fn of_file(format: &SourceFormat) -> Result<(), Fault> {
    match format {
        SourceFormat::Json | SourceFormat::Csv | SourceFormat::Cloudevents => Ok(()),
        SourceFormat::Avro(_) | SourceFormat::Protobuf(_) => {
            let message =
                "the records of a file are its lines: JSON, CSV or CloudEvents; others come from topics";
            Err((Some("format"), message.into()))
        }
    }
}

/// Looks at the files that say what a source's records mean: whether they are there, and have what the columns want.
pub(super) fn look(name: &str, source: &SourceSpec, cx: &mut PlanContext<'_>) {
    let format = match &source.connector {
        SourceConnector::File(config) => format_of(source, config),
        _ => source.common.format.clone().unwrap_or_default(),
    };
    if format.check().is_err() {
        return;
    }
    let kind = source.connector.kind();
    let table = ["source", name, kind].map(str::to_owned);
    let mut all_there = true;
    for (field, path) in format.files() {
        if !path.is_file() {
            all_there = false;
            let at = table.iter().cloned().chain(["format".to_owned()]).chain(field);
            cx.problem(at, format!("there is no file `{}`", path.display()));
            if let Some(problem) = cx.problems.last_mut() {
                problem.help = meant(&path, |_| true);
            }
        }
    }
    if !all_there {
        return;
    }
    match misfits(&format, source) {
        Ok(misfits) => {
            for Misfit { column, message, known } in misfits {
                let path = ["source", name, kind, "schema", &column];
                match known {
                    None => cx.problem(path, message),
                    Some(known) => {
                        cx.unknown(path, "field", &column, known);
                        if let Some(problem) = cx.problems.last_mut() {
                            problem.message = message;
                        }
                    }
                }
            }
        }
        Err(error) => cx.problem(["source", name, kind, "format"], error.to_string()),
    }
}

fn misfits(format: &SourceFormat, source: &SourceSpec) -> Result<Vec<Misfit>, ConnectorError> {
    match format {
        SourceFormat::Json | SourceFormat::Csv | SourceFormat::Cloudevents => Ok(Vec::new()),
        SourceFormat::Avro(config) if config.registry.is_some() && config.reader.is_none() => Ok(Vec::new()),
        SourceFormat::Avro(config) => AvroFormat::new(config, None).misfits(decoded(&source.common.schema)),
        #[cfg(feature = "protobuf")]
        SourceFormat::Protobuf(config) => {
            use levada_connectors::codec::protobuf::ProtobufFormat;
            ProtobufFormat::new(config).misfits(decoded(&source.common.schema))
        }
        #[cfg(not(feature = "protobuf"))]
        SourceFormat::Protobuf(_) => Ok(Vec::new()),
    }
}
