//! Whether the files that a job reads are there, and hold the columns that their schemas want.
//!
//! Looked at only where the job is to run ([`super::Environment::look`]): a job can be checked where it
//! cannot run. Of a file nothing is read but the header line of CSV.

use std::fs;
use std::path::Path;

use levada_connectors::file::{FileSource, FileSourceConfig};
use levada_dataflows::plan::PlanContext;

use super::connect::format_of;
use super::spec::{SourceConnector, SourceSpec};

/// Reports what of a source's files is not as the job file says.
pub fn look(name: &str, source: &SourceSpec, cx: &mut PlanContext<'_>) {
    let SourceConnector::File(config) = &source.connector else { return };
    let table = ["source", name, source.connector.kind()];
    let mut all_there = true;
    let one = config.path.iter().map(|path| (vec!["path".to_string()], path));
    let several = config.paths.iter().enumerate();
    let several = several.map(|(index, path)| (vec!["paths".to_string(), index.to_string()], path));
    for (field, path) in one.chain(several) {
        if !path.is_file() {
            all_there = false;
            let at = table.iter().map(|part| (*part).to_string()).chain(field);
            cx.unknown(at, "file", &path.display().to_string(), beside(path));
        }
    }
    if all_there {
        header(&table, source, config, cx);
    }
}

/// The files in the folder of one that is not there, named as it is.
fn beside(path: &Path) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> =
        files.map(|entry| parent.join(entry.file_name()).display().to_string()).collect();
    names.sort();
    names
}

/// Reports the columns that the header of CSV lacks.
fn header(table: &[&str; 3], source: &SourceSpec, config: &FileSourceConfig, cx: &mut PlanContext<'_>) {
    let Ok(files) = FileSource::new(config, format_of(source, config)) else { return };
    match files.columns() {
        Ok(None) => {}
        Ok(Some(columns)) => {
            for (column, kind) in &source.common.schema {
                if kind.nullable || columns.contains(column) {
                    continue;
                }
                let path = [table[0], table[1], table[2], "schema", column.as_str()];
                cx.unknown(path, "column", column, columns.iter().cloned());
                if let Some(problem) = cx.problems.last_mut() {
                    problem.message =
                        format!("the header of {} has no column `{column}`", files.first_name());
                }
            }
        }
        Err(error) => cx.problem(table.iter().copied().chain(["path"]), error.to_string()),
    }
}
