//! The reference: a page of each thing that may stand in a job file, made from the code that reads it.
//!
//! ```text
//!   the specs' doc comments ──► JSON Schema ──► fields ──┐
//!   the module doc of a step ─────────────────► prose ───┼──► pages ──► levada reference, docs/reference
//!   config/examples/VERB ─────────────────────► example ─┘
//! ```
//!
//! Nothing is written for the reference alone but the words of its index, so a page cannot say what is not so. Pages are
//! Markdown that can be read as it is: lines are short, and fields stand in lists rather than tables.

pub mod example;
mod fields;
mod prose;

use std::collections::BTreeSet;
use std::fmt::Write;

use levada_dataflows::Step;
use serde_json::Value;

use crate::job;
use example::Example;
use fields::Fields;
use prose::wrapped;

/// A page of the reference.
#[derive(Debug)]
pub struct Page {
    /// Its place, without the ending: `steps/window`.
    pub path: String,
    /// What it is about, in a line.
    pub about: String,
    /// The page, in Markdown.
    pub text: String,
}

impl Page {
    /// What it is called: `window`.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The file that holds it, below the reference's folder.
    pub fn file(&self) -> String {
        format!("{}.md", self.path)
    }
}

/// What stands above a page that is committed.
const GENERATED: &str = "<!-- Made by `make reference` from the code: what is changed here is lost. -->\n\n";

/// The sections of a job file that name things, where their kinds are listed in the schema, and in which folder their
/// pages are.
const SECTIONS: [(&str, &str, &str); 3] =
    [("source", "SourceSpec", "sources"), ("step", "Step", "steps"), ("sink", "SinkSpec", "sinks")];

/// Every page but the index.
pub fn pages() -> Vec<Page> {
    let schema = job::json_schema();
    let fields = Fields::new(&schema);
    let mut pages = vec![settings(&fields, "job", "JobSettings")];
    for (section, list, folder) in SECTIONS {
        let kinds = schema["$defs"][list]["oneOf"].as_array().into_iter().flatten();
        let kinds = kinds.flat_map(|kind| {
            let tables = kind["properties"].as_object().into_iter().flatten();
            tables.map(|(name, table)| Kind { section, folder, name, table, about: &kind["description"] })
        });
        let kinds: Vec<Kind<'_>> = kinds.collect();
        // What is said of every source stands behind what is said of one.
        let common = kinds.iter().map(|kind| fields.names(kind.table)).reduce(|some, also| &some & &also);
        let common = common.filter(|_| section != "step").unwrap_or_default();
        pages.extend(kinds.iter().map(|kind| kind.page(&fields, &common)));
    }
    pages.push(settings(&fields, "page", "PageSpec"));
    pages
}

/// A page of a table that a job has once.
fn settings(fields: &Fields<'_>, section: &str, definition: &str) -> Page {
    let table = fields.definition(definition);
    let about = table["description"].as_str().unwrap_or_default();
    let about = about.split_once(": ").map_or(about, |(_, about)| about);
    let about = sentence(about);
    let text = format!("# `[{section}]`\n\n{about}\n\n## Fields\n\n{}", fields.list(table, |_| true));
    Page { path: section.into(), about, text }
}

/// A kind of source, step or sink.
struct Kind<'s> {
    section: &'static str,
    folder: &'static str,
    name: &'s str,
    table: &'s Value,
    about: &'s Value,
}

impl Kind<'_> {
    fn page(&self, fields: &Fields<'_>, common: &BTreeSet<&str>) -> Page {
        let Kind { section, folder, name, table, about } = *self;
        let long = fields.resolve(table)["description"].as_str().unwrap_or_default();
        let mut text = format!("# `[{section}.NAME.{name}]`\n\n{}\n", wrapped(long, ""));
        // Of sources and sinks there is none: most of them need a server.
        let example = Example::of(name).filter(|_| section == "step");
        if let Some(example) = example {
            _ = write!(text, "\n## Example\n\n{}", example.page());
        }
        _ = write!(text, "\n## Fields\n\n{}", fields.list(table, |field| !common.contains(field)));
        if !common.is_empty() {
            let list = fields.list(table, |field| common.contains(field));
            _ = write!(text, "\n## Fields of every {section}\n\n{list}");
        }
        if let Some(prose) = Step::module(name).filter(|_| section == "step").map(prose::of_module) {
            _ = write!(text, "\n## In detail\n\n{prose}");
        }
        Page { path: format!("{folder}/{name}"), about: about.as_str().unwrap_or_default().into(), text }
    }
}

/// A text as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

/// Every file of the reference by its name, as it is committed.
pub fn files() -> Vec<(String, String)> {
    let pages = pages();
    let index = ("README.md".to_string(), format!("{GENERATED}{}", index(&pages)));
    let files = pages.iter().map(|page| (page.file(), format!("{GENERATED}{}", page.text)));
    [index].into_iter().chain(files).collect()
}

const INTRODUCTION: &str = "\
# Reference

What may stand in a job file, a page each. All of it is made from the code, and so is the
[JSON Schema](../../config/schema/job.schema.json) by which an editor completes job files. In a terminal
`levada reference NAME` shows a page, `levada functions` what may stand in an expression, and
`levada check JOB` the columns of every stream of a job.

A job file is TOML. Each `[source.NAME.KIND]` and each `[step.NAME.KIND]` is a stream of rows under a name
of your own; a step or a `[sink.NAME.KIND]` says in `from` which one it reads. What no page knows is an
error in a job file, and `levada check` says what was probably meant.

- A **duration** is a string of numbers with units, `ms`, `s`, `m`, `h` and `d`: `\"90s\"`, `\"1h30m\"`.
- An **expression** is a string of SQL over a row's columns: `\"celsius > 90 and machine <> 'oven'\"`.
- A **table** is written as `[step.NAME.KIND.FIELD]` or inline, as `FIELD = { … }`; each of a list of
  tables as `[[step.NAME.KIND.FIELD]]`, or all of them as `FIELD = [{ … }, { … }]`.
- Rows have an **event time**, which a source takes from one of its columns. What comes too late for a
  step that goes by it is the stream `STEP.late`.
";

/// What there is, with links.
fn index(pages: &[Page]) -> String {
    let mut text = INTRODUCTION.to_string();
    let lists = [("The job", ""), ("Steps", "steps/"), ("Sources", "sources/"), ("Sinks", "sinks/")];
    for (title, folder) in lists {
        _ = write!(text, "\n## {title}\n\n| | |\n| --- | --- |\n");
        for page in pages.iter().filter(|page| page.path == format!("{folder}{}", page.name())) {
            _ = writeln!(
                text,
                "| [`{}`]({}) | {} |",
                page.name(),
                page.file(),
                page.about.replace('\n', " ")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_every_connector_has_a_page() {
        let pages = pages();
        let paths: Vec<&str> = pages.iter().map(|page| page.path.as_str()).collect();
        for verb in Step::VERBS {
            assert!(paths.contains(&format!("steps/{verb}").as_str()), "{verb}");
        }
        for path in ["job", "page", "sources/log", "sources/file", "sinks/file", "sinks/webhook"] {
            assert!(paths.contains(&path), "{path}");
        }
        for page in &pages {
            assert!(!page.about.is_empty() && page.text.contains("\n- **`"), "{}", page.path);
        }
    }

    #[test]
    fn a_page_has_its_parts_in_order() {
        let pages = pages();
        let page = pages.iter().find(|page| page.path == "steps/dedupe").unwrap();
        let places: Vec<Option<usize>> =
            ["# `[step.NAME.dedupe]`\n", "\n## Example\n", "\n## Fields\n", "\n## In detail\n"]
                .iter()
                .map(|part| page.text.find(part))
                .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    }
}
