//! The job file: TOML in, a [`Plan`] out, or a [`Report`] of everything that is wrong with it at once.
//!
//! ```text
//!   text, --set ──► document ──► shape ──────────► spec ────────► planning ──► Plan
//!                   TOML, spans  against the JSON  serde structs  names, schemas,
//!                                Schema of spec                   steps in order, pruning
//!                       └────────────┴────────────────┴──────────────┴──► Report
//! ```
//!
//! Each stage reports all that it finds; a source, step or sink that is wrong in one stage is left out
//! of the next, and what reads it is not reported again. Paths inside a job file (`models/…`, files)
//! are relative to the working directory, so that one command line means one set of files.

mod connect;
mod document;
mod formats;
mod page;
mod place;
mod planning;
mod probe;
mod prune;
mod report;
mod shape;
mod spec;
mod syntax;
#[cfg(test)]
mod tests;
mod world;
mod written;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use levada_dataflows::plan::Plan;
use levada_types::{Existing, Journal, ScoreError, ScorerFactory};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use document::{Document, Texts};
pub use page::PageSpec;
use planning::StepDraft;
pub use probe::probe;
pub use report::{Diagnostic, Report};
pub use spec::{
    ColumnType, DeadLetters, EventTimeSpec, JobSettings, JobSpec, SinkConnector, SinkSpec, SourceCommon,
    SourceConnector, SourceSpec, json_schema,
};
use written::Written;

/// Opens a model's manifest; the path as the job file gives it.
pub type Models<'a> = dyn Fn(&str) -> Result<Arc<dyn ScorerFactory>, ScoreError> + 'a;

/// What a job file is planned with, besides itself.
pub struct Environment<'a> {
    /// Where the embedded topics live.
    pub data_dir: PathBuf,
    /// The folder in which a run keeps what it needs to go on, if it does.
    pub state: Option<PathBuf>,
    /// What to do when a topic that a sink writes already holds records.
    pub existing: Existing,
    /// Opens a model's manifest.
    pub models: &'a Models<'a>,
    /// The folder of the job file, where the job is to run: then the files that it reads are looked at.
    pub look: Option<PathBuf>,
}

/// A job file that is right.
pub struct Loaded {
    /// What was written.
    pub spec: JobSpec,
    /// What will run.
    pub plan: Plan,
    /// Its journal, if that is not kept in the folder of its state.
    pub journal: Option<Arc<dyn Journal>>,
    /// What is allowed but surely not meant.
    pub warnings: Report,
}

/// Reads, checks and plans the job file at `path`, with `overrides` (`KEY=VALUE`) on top.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, overrides: &[String], environment: &Environment<'_>) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim_start().starts_with('{') => Err(Report::of_data(&name)),
        Ok(text) => load_text(&name, &text, overrides, environment),
        Err(error) => Err(Report::unreadable(&name, &error)),
    }
}

/// Like [`load`], of a text already read; `name` is what reports call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text(
    name: &str,
    text: &str,
    overrides: &[String],
    environment: &Environment<'_>,
) -> Result<Loaded, Report> {
    let texts = Arc::new(Texts::new(name, text, overrides));
    let report = |found| Report::new(Arc::clone(&texts), found);
    let document = Document::parse(&texts).map_err(&report)?;
    let misshapen = shape::check(&json_schema(), &document.root);
    let broken: BTreeSet<Vec<String>> =
        misshapen.iter().map(|found| found.path.iter().take(2).cloned().collect()).collect();
    let mut found: Vec<Diagnostic> = misshapen.into_iter().map(|found| found.diagnostic).collect();

    let mut reader = SpecReader { document: &document, broken, found: Vec::new() };
    let job = reader.settings();
    let (source, step, sink) = (reader.entries("source"), reader.entries("step"), reader.entries("sink"));
    // What could not be read may be what the page reads.
    let page = reader.page().filter(|_| reader.broken.is_empty());
    found.append(&mut reader.found);

    let fallback = JobSettings { name: "job".into(), ..JobSettings::default() };
    let spec =
        JobSpec { job: job.unwrap_or(fallback), source, step, sink, page, written: Written::of(&document) };
    let steps: Vec<StepDraft<'_>> = spec
        .step
        .iter()
        .map(|(name, step)| StepDraft { name, verb: step.verb(), spec: step.spec() })
        .collect();
    let broken: BTreeSet<&str> = reader
        .broken
        .iter()
        .filter(|path| path.first().is_some_and(|section| section != "sink" && section != "page"))
        .filter_map(|path| path.get(1).map(String::as_str))
        .collect();
    let drawn = planning::plan(&spec, &steps, &broken, environment);
    found.extend(drawn.problems.iter().map(|problem| document.diagnose(problem)));
    let warnings = drawn.warnings.iter().map(|warning| document.diagnose(warning)).collect();
    match drawn.plan {
        Some(plan) if found.is_empty() => {
            Ok(Loaded { warnings: report(warnings), spec, plan, journal: drawn.journal })
        }
        _ => Err(report(found)),
    }
}

/// The JSON Schema of job files as it is committed: indented, with a final line break.
pub fn schema_text() -> String {
    format!("{:#}\n", json_schema())
}

/// Makes specs of the tables whose shape is right.
struct SpecReader<'d, 't> {
    document: &'d Document<'t>,
    broken: BTreeSet<Vec<String>>,
    found: Vec<Diagnostic>,
}

/// What a table of a job file becomes, by serde or by hand.
pub(crate) trait FromTable: Sized {
    fn from_table(value: Spanned<DeValue<'_>>) -> Result<Self, toml::de::Error>;
}

impl<T: for<'de> Deserialize<'de>> FromTable for T {
    fn from_table(value: Spanned<DeValue<'_>>) -> Result<Self, toml::de::Error> {
        T::deserialize(ValueDeserializer::from(value))
    }
}

impl SpecReader<'_, '_> {
    fn settings(&mut self) -> Option<JobSettings> {
        let broken = self.broken.iter().any(|path| path.is_empty() || path[0] == "job");
        let node = self.document.find(&["job"]).filter(|_| !broken)?;
        self.read(node.clone())
    }

    fn page(&mut self) -> Option<PageSpec> {
        let broken = self.broken.iter().any(|path| path.first().is_some_and(|section| section == "page"));
        let node = self.document.find(&["page"]).filter(|_| !broken)?;
        self.read(node.clone())
    }

    /// The entries of a section, in the order of the file.
    fn entries<T: FromTable>(&mut self, section: &str) -> IndexMap<String, T> {
        let mut entries = IndexMap::new();
        for (name, value) in self.document.children(section) {
            let path = vec![section.to_string(), name.to_string()];
            if self.broken.contains(&path) || self.broken.contains(&path[..1]) {
                self.broken.insert(path);
                continue;
            }
            match self.read(value.clone()) {
                Some(entry) => {
                    entries.insert(name.to_string(), entry);
                }
                None => {
                    self.broken.insert(path);
                }
            }
        }
        entries
    }

    fn read<T: FromTable>(&mut self, value: Spanned<DeValue<'_>>) -> Option<T> {
        let whole = value.span();
        match T::from_table(value) {
            Ok(entry) => Some(entry),
            Err(error) => {
                let span = error.span().unwrap_or(whole);
                self.found.push(Diagnostic::error(error.message().trim_end()).at(span));
                None
            }
        }
    }
}
