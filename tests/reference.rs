//! The reference is as the code says, and its examples do what their pages show.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use levada::job;
use levada::reference::example::{EXAMPLES, Example};
use levada::reference::{files, pages};
use levada_dataflows::Step;
use serde_json::Value;
use tempfile::TempDir;

const FOLDER: &str = "docs/reference";

#[test]
fn the_committed_pages_are_those_of_the_code() {
    let files = files();
    let stale: Vec<&str> = files
        .iter()
        .filter(|(name, text)| fs::read_to_string(Path::new(FOLDER).join(name)).unwrap_or_default() != *text)
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(stale.is_empty(), "stale in {FOLDER}: {stale:?}; refresh them with\n    make reference");

    let known: BTreeSet<String> = files.into_iter().map(|(name, _)| name).collect();
    let folders = ["", "steps", "sources", "sinks"].map(|folder| Path::new(FOLDER).join(folder));
    let committed =
        folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    for path in committed.filter(|path| path.is_file()) {
        let name = path.strip_prefix(FOLDER).unwrap().to_str().unwrap();
        assert!(known.contains(name), "{} is a page of nothing that there is; delete it", path.display());
    }
}

#[test]
fn a_page_is_printed_by_its_name() {
    let levada = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_levada")).arg("reference").args(arguments).output().unwrap()
    };
    let printed = levada(&["window"]);
    assert!(printed.status.success());
    let page = pages().into_iter().find(|page| page.path == "steps/window").unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), page.text);

    let list = String::from_utf8(levada(&[]).stdout).unwrap();
    for verb in Step::VERBS {
        assert!(list.contains(&format!("steps/{verb} ")), "{verb} is not in\n{list}");
    }
    let unknown = levada(&["widow"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(said, "error: there is no page `widow`; did you mean `window`?\n");
}

#[test]
fn every_step_has_an_example() {
    for verb in Step::VERBS {
        assert!(
            Example::of(verb).is_some(),
            "the step `{verb}` has no example: write config/examples/{verb}/job.toml, a small job with file sources in \
             that folder and sinks of the kind `log`, and run\n    make reference"
        );
    }
    for example in EXAMPLES {
        assert!(Step::VERBS.contains(&example.verb), "{} is the example of no step", example.folder());
    }
}

#[test]
fn an_example_uses_its_step_and_shows_what_its_sinks_write() {
    for example in EXAMPLES {
        let folder = example.folder();
        let job: toml::Table =
            example.job().unwrap_or_else(|| panic!("{folder} has no job.toml")).parse().unwrap();
        let steps: Vec<&String> = entries(&job, "step").map(|(kind, _)| kind).collect();
        assert!(
            steps.contains(&&example.verb.to_string()),
            "{folder} has no step `{}`, but {steps:?}",
            example.verb
        );
        for (kind, source) in entries(&job, "source") {
            let path = source.get("path").and_then(toml::Value::as_str).unwrap_or_default();
            let here = path.strip_prefix(&format!("{folder}/"));
            let shown = here.is_some_and(|name| example.files.iter().any(|(file, _)| *file == name));
            assert!(kind == "file" && shown, "{folder} reads {kind} {path:?}, which its page does not show");
        }
        let topics: BTreeSet<&str> =
            entries(&job, "sink").filter_map(|(_, sink)| sink["topic"].as_str()).collect();
        let shown: BTreeSet<&str> = example.outputs().into_iter().map(|(topic, _)| topic).collect();
        assert!(!topics.is_empty(), "{folder} writes nothing");
        assert_eq!(
            topics, shown,
            "{folder}/output has a file TOPIC.jsonl for each sink; `make reference` makes them"
        );
        assert!(
            example.outputs().iter().any(|(_, records)| !records.is_empty()),
            "nothing comes out of {folder}"
        );
    }
}

/// The tables `[SECTION.NAME.KIND]` of a job file, with their kinds.
fn entries<'j>(job: &'j toml::Table, section: &str) -> impl Iterator<Item = (&'j String, &'j toml::Value)> {
    let named = job.get(section).and_then(toml::Value::as_table).into_iter().flatten();
    named.flat_map(|(_, entry)| entry.as_table().unwrap())
}

#[test]
fn an_example_gives_what_its_page_shows() {
    for example in EXAMPLES {
        for workers in ["1", "2"] {
            let data = TempDir::new().unwrap();
            let levada = |arguments: &[&str]| -> String {
                let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
                let output = command.args(arguments).arg("--data").arg(data.path()).output().unwrap();
                assert!(
                    output.status.success(),
                    "{arguments:?}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                String::from_utf8(output.stdout).unwrap()
            };
            let job = format!("{}/job.toml", example.folder());
            levada(&["run", &job, "--fail-on-dead-letters", "--workers", workers]);
            for (topic, shown) in example.outputs() {
                let found = levada(&["topics", "export", topic]);
                assert!(
                    found == shown,
                    "{job} gives with {workers} workers in {topic}\n{found}and not\n{shown}If that is right, refresh it \
                     with\n    make reference"
                );
            }
        }
    }
}

/// A page has a line for every field; here nothing is left without a word.
#[test]
fn every_field_and_choice_of_every_page_is_explained() {
    let schema = job::json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut fields = 0;
    for (name, definition) in definitions {
        // The lists of kinds are explained by what each kind is.
        let list = ["Step", "SourceSpec", "SinkSpec"].contains(&name.as_str());
        explained(definition, name, list, &mut fields);
    }
    assert!(fields > 200, "{fields} fields");
}

/// Looks at every field in a schema. What names a choice is explained by what is said of that.
fn explained(schema: &Value, place: &str, named: bool, fields: &mut usize) {
    let properties = schema["properties"].as_object().map_or(0, serde_json::Map::len);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        let about = field["description"].as_str().unwrap_or_default();
        let named = named && properties == 1 || field.get("const").is_some();
        assert!(named || !about.trim().is_empty(), "{place} has no doc comment");
        *fields += 1;
        explained(field, &place, false, fields);
    }
    for choice in ["oneOf", "anyOf"].iter().filter_map(|of| schema[of].as_array()).flatten() {
        let explains = choice["description"].as_str().is_some_and(|about| !about.trim().is_empty());
        let refers = choice["$ref"].is_string() || choice["type"] == "null";
        assert!(explains || refers, "a choice of {place} has no doc comment: {choice}");
        explained(choice, place, explains, fields);
    }
}
