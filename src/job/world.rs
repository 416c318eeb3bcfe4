//! Whether the files that a job reads are there, and hold the columns that their schemas want.
//!
//! Looked at only where the job is to run ([`super::Environment::look`]): a job can be checked where it
//! cannot run. Of a file nothing is read but the header line of CSV.

use std::fs;
use std::path::Path;

use levada_connectors::file::{FileSource, FileSourceConfig};
use levada_dataflows::plan::PlanContext;
use levada_types::nearest;

use super::connect::{format_of, lines_of};
use super::spec::{SourceConnector, SourceSpec};

/// Reports what of a source's files is not as the job file says.
pub fn look(name: &str, source: &SourceSpec, job_folder: &Path, cx: &mut PlanContext<'_>) {
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
            let message = match path.is_dir() {
                true => format!("`{}` is a folder, not a file", path.display()),
                false => format!("there is no file `{}`", path.display()),
            };
            cx.problem(at, message);
            if let Some(problem) = cx.problems.last_mut() {
                problem.help = missing(path, job_folder);
            }
        }
    }
    if all_there {
        header(&table, source, config, cx);
    }
}

/// What to say of a file that a job reads and that is not there.
fn missing(path: &Path, job_folder: &Path) -> Option<String> {
    if path.is_dir() {
        return Some("`paths` lists the files of a folder one by one".into());
    }
    if path.as_os_str().to_string_lossy().contains(['*', '?']) {
        return Some("`paths` lists several files one by one; there are no patterns".into());
    }
    let here = std::env::current_dir().ok().filter(|_| path.is_relative());
    if here.is_some() && job_folder.join(path).is_file() {
        let folder = job_folder.display();
        return Some(format!(
            "there is one beside the job file, but paths are seen from where levada runs: run it in `{folder}`"
        ));
    }
    let seen_from = here.map(|here| format!("the path is seen from `{}`", here.display()));
    let help: Vec<String> = meant(path, |_| true).into_iter().chain(seen_from).collect();
    (!help.is_empty()).then(|| help.join("; "))
}

/// What to say of a file that is not there: the one beside it that is called nearly so, or those that there are.
pub fn meant(path: &Path, wanted: impl Fn(&Path) -> bool) -> Option<String> {
    const SHOWN: usize = 8;
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Some(format!("failed to look into `{}`: {error}", folder.display())),
    };
    let files = entries.flatten().filter(|entry| entry.path().is_file() && wanted(&entry.path()));
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(near) = nearest(path.file_name()?.to_str()?, &known) {
        return Some(format!("did you mean `{}`?", parent.join(near).display()));
    }
    let shown: Vec<String> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if known.len() > SHOWN { ", ..." } else { "" };
    (!shown.is_empty()).then(|| format!("in `{}` there is {}{more}", folder.display(), shown.join(", ")))
}

/// Reports the columns that the header of CSV lacks.
fn header(table: &[&str; 3], source: &SourceSpec, config: &FileSourceConfig, cx: &mut PlanContext<'_>) {
    let Ok(files) = FileSource::new(config, lines_of(&format_of(source, config))) else { return };
    match files.columns() {
        Ok(None) => {}
        Ok(Some(columns)) => {
            if let Some(delimiter) = other_delimiter(&columns, source, config.csv.delimiter) {
                let first = files.first_name();
                cx.problem(table, format!("the header of {first} is one column, `{}`", columns[0]));
                if let Some(problem) = cx.problems.last_mut() {
                    let field = format!("csv = {{ delimiter = {delimiter:?} }}");
                    problem.help = Some(format!("if its fields are separated otherwise, say so: `{field}`"));
                }
                return;
            }
            let none = !source.common.schema.keys().any(|column| columns.contains(column));
            if none && source.common.schema.values().any(|kind| !kind.nullable) {
                let (first, line) = (files.first_name(), columns.join(&config.csv.delimiter.to_string()));
                let what =
                    format!("the first line of {first} names none of the columns: {}", shortened(&line));
                cx.problem(table.iter().copied().chain(["schema"]), what);
                if let Some(problem) = cx.problems.last_mut() {
                    problem.help =
                        Some("the first line of CSV is its header, with the names of the columns".into());
                }
                return;
            }
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

/// What seems to stand between the fields of a header that has turned out to be one column.
fn other_delimiter(columns: &[String], source: &SourceSpec, used: char) -> Option<String> {
    let [all] = columns else { return None };
    let is_meant = source.common.schema.contains_key(all.as_str());
    let signs = [';', '\t', '|', ','].into_iter().filter(|&sign| sign != used && !is_meant);
    signs.into_iter().find(|&sign| all.contains(sign)).map(String::from)
}

/// As much of a text as one looks at.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}
