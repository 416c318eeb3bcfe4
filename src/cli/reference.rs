//! `levada reference`: what may stand in a job file, a page each.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use levada_types::nearest;

use crate::reference::{Page, files, pages};

/// Explains what may stand in a job file: a step, a source, a sink
///
/// A page has an example that can be run, every field, and how it behaves. It is Markdown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada reference                        What there is
  levada reference window                 The step `window`
  levada reference sinks/kafka            `[sink.NAME.kafka]`; `kafka` shows the source too
  levada reference --out docs/reference   Writes every page")]
pub struct Reference {
    /// What to explain
    #[arg(conflicts_with = "out")]
    name: Option<String>,
    /// Writes all pages into this folder instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Reference {
    /// Prints or writes it.
    pub fn run(self) -> ExitCode {
        if let Some(folder) = &self.out {
            return super::outcome(write(folder));
        }
        let pages = pages();
        let Some(name) = &self.name else { return super::print(&list(&pages)) };
        let chosen: Vec<&str> =
            pages.iter().filter(|page| is_called(page, name)).map(|page| page.text.as_str()).collect();
        if chosen.is_empty() {
            return super::outcome(Err(unknown(name, &pages)));
        }
        super::print(&chosen.join("\n"))
    }
}

fn is_called(page: &Page, name: &str) -> bool {
    page.path == name || page.name() == name
}

fn unknown(name: &str, pages: &[Page]) -> String {
    let known: Vec<&str> = pages.iter().map(Page::name).collect();
    let meant = match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`levada reference` lists them all".into(),
    };
    format!("there is no page `{name}`; {meant}")
}

/// A line each.
fn list(pages: &[Page]) -> String {
    let width = pages.iter().map(|page| page.path.len()).max().unwrap_or_default();
    let mut out = String::new();
    for page in pages {
        // Writing to a string cannot fail.
        _ = writeln!(out, "{:width$}  {}", page.path, page.about.replace('\n', " "));
    }
    out + "\n`levada reference NAME` explains one, `levada functions` what may stand in an expression.\n"
}

/// Writes every page.
fn write(folder: &Path) -> Result<(), String> {
    for (name, text) in files() {
        let path = folder.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_its_name_or_its_place() {
        let pages = pages();
        let found = |name: &str| -> Vec<&str> {
            pages.iter().filter(|page| is_called(page, name)).map(|page| page.path.as_str()).collect()
        };
        assert_eq!(found("window"), ["steps/window"]);
        assert_eq!(found("file"), ["sources/file", "sinks/file"]);
        assert_eq!(found("sinks/file"), ["sinks/file"]);
        assert_eq!(unknown("windw", &pages), "there is no page `windw`; did you mean `window`?");
        assert_eq!(
            unknown("frobnicate", &pages),
            "there is no page `frobnicate`; `levada reference` lists them all"
        );
    }
}
