//! The example of a step: a job that runs as it stands, what it reads, and what comes out of it.
//!
//! ```text
//!   config/examples/VERB/job.toml              reads the other files of the folder, from the root of the repository
//!                       /*.jsonl               what comes in
//!                       /output/TOPIC.jsonl    what comes out, a file for each topic of its sinks
//! ```
//!
//! The build takes the folders into the binary (`build.rs`); a test runs the jobs, and compares.

use std::fmt::Write;

/// The example of a step.
#[derive(Debug)]
pub struct Example {
    /// The step.
    pub verb: &'static str,
    /// Its files, by their names in its folder.
    pub files: &'static [(&'static str, &'static str)],
}

/// Every example.
pub const EXAMPLES: &[Example] = include!(concat!(env!("OUT_DIR"), "/examples.rs"));

/// Of a longer file a page shows the beginning and the end, so many lines of each.
const ENDS: usize = 8;

impl Example {
    /// That of a step.
    pub fn of(verb: &str) -> Option<&'static Example> {
        EXAMPLES.iter().find(|example| example.verb == verb)
    }

    /// Its folder, from the root of the repository.
    pub fn folder(&self) -> String {
        format!("config/examples/{}", self.verb)
    }

    /// The job file.
    pub fn job(&self) -> Option<&'static str> {
        self.files.iter().find(|(name, _)| *name == "job.toml").map(|(_, text)| *text)
    }

    /// What comes out: the topics in the order of the job file, each with its records.
    pub fn outputs(&self) -> Vec<(&'static str, &'static str)> {
        let topic = |name: &'static str| name.strip_prefix("output/")?.strip_suffix(".jsonl");
        let mut outputs: Vec<_> =
            self.files.iter().filter_map(|(name, text)| Some((topic(name)?, *text))).collect();
        let job = self.job().unwrap_or_default();
        outputs.sort_by_key(|(topic, _)| job.find(&format!("\"{topic}\"")));
        outputs
    }

    /// As a page shows it.
    pub(super) fn page(&self) -> String {
        let folder = self.folder();
        let mut text = format!("In [`{folder}`](../../../{folder}):\n\n");
        _ = write!(text, "```toml\n{}```\n", self.job().unwrap_or_default());
        let inputs = self.files.iter().filter(|(name, _)| !name.contains('/') && *name != "job.toml");
        for (name, records) in inputs {
            _ = write!(text, "\n`{name}`:\n\n{}", block(records));
        }
        _ = write!(text, "\nIn the root of the repository:\n\n```sh\nlevada run {folder}/job.toml\n```\n");
        for (topic, records) in self.outputs() {
            _ = write!(text, "\n`levada topics export {topic}` then prints\n\n{}", block(records));
        }
        text
    }
}

/// Records, or some of them.
fn block(records: &str) -> String {
    let lines: Vec<&str> = records.lines().collect();
    if lines.len() <= 2 * ENDS + 4 {
        return format!("```json\n{records}```\n");
    }
    let (first, last) = (&lines[..ENDS], &lines[lines.len() - ENDS..]);
    let left_out = lines.len() - 2 * ENDS;
    format!("```json\n{}\n… {left_out} more …\n{}\n```\n", first.join("\n"), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_file_both_ends_are_shown() {
        let records: String = (0..40).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let shown = block(&records);
        assert!(shown.contains("{\"n\":7}\n… 24 more …\n{\"n\":32}\n"), "{shown}");
        assert!(shown.ends_with("{\"n\":39}\n```\n"), "{shown}");
        assert_eq!(block("{}\n"), "```json\n{}\n```\n");
    }
}
