//! Job files: every bad one gives exactly its report, and the schema is as committed.
//!
//! A bad job is a file in `tests/jobs/bad`; its report is the snapshot beside it. A first line
//! `#: --set KEY=VALUE` lays a flag over it. To accept new reports: `INSTA_UPDATE=always`.

use std::path::{Path, PathBuf};

use levada::job::{self, Environment, Loaded, Report, SinkConnector, SourceConnector};
use levada_types::{Existing, FieldKind, ScoreError, ScorerFactory, TokenField};

fn no_model(path: &str) -> Result<std::sync::Arc<dyn ScorerFactory>, ScoreError> {
    Err(ScoreError::Load { what: path.into(), reason: "there is no such file".into() })
}

fn load(path: &Path, overrides: &[String]) -> Result<Loaded, Report> {
    job::load(
        path,
        overrides,
        &Environment {
            data_dir: PathBuf::from("none"),
            state: None,
            existing: Existing::Refuse,
            models: &no_model,
            look: None,
        },
    )
}

fn load_text(text: &str, overrides: &[&str]) -> Result<Loaded, Report> {
    let overrides: Vec<String> = overrides.iter().map(|flag| flag.to_string()).collect();
    let environment = Environment {
        data_dir: PathBuf::from("none"),
        state: None,
        existing: Existing::Refuse,
        models: &no_model,
        look: None,
    };
    job::load_text("job.toml", text, &overrides, &environment)
}

/// A model that is there in name.
struct Forecast(Vec<TokenField>, Vec<String>);

impl ScorerFactory for Forecast {
    fn open(&self) -> Result<Box<dyn levada_types::Scorer>, ScoreError> {
        Err(ScoreError::Run("there is no model behind a plan's test".into()))
    }
    fn version(&self) -> &str {
        "test"
    }
    fn window(&self) -> usize {
        32
    }
    fn fields(&self) -> &[TokenField] {
        &self.0
    }
    fn outputs(&self) -> &[String] {
        &self.1
    }
}

fn forecast(_: &str) -> Result<std::sync::Arc<dyn ScorerFactory>, ScoreError> {
    let vocabulary = FieldKind::Vocabulary { values: vec!["UA".into()] };
    let carrier = TokenField { name: "carrier".into(), column: "carrier".into(), kind: vocabulary };
    Ok(std::sync::Arc::new(Forecast(vec![carrier], vec!["disrupted".into(), "delay".into()])))
}

/// The main job, with a model in name.
pub fn flights_job() -> Result<Loaded, Report> {
    let environment = Environment {
        data_dir: PathBuf::from("none"),
        state: None,
        existing: Existing::Refuse,
        models: &forecast,
        look: None,
    };
    job::load(Path::new("config/jobs/flights.toml"), &[], &environment)
}

#[test]
fn the_flights_job_is_right_and_makes_what_it_made() {
    let loaded = flights_job().map_err(|report| report.to_string()).unwrap();
    insta::assert_snapshot!("flights-check", levada::cli::summary(&loaded));
    insta::assert_snapshot!("flights-warnings", loaded.warnings.render_warnings(false));
    let graph = levada::graph::Graph::of(&loaded.plan);
    insta::assert_snapshot!("flights-mermaid", graph.mermaid());
    assert_eq!(graph.svg(), levada::graph::Graph::of(&loaded.plan).svg());
}

/// A job of sources and sinks only.
const PLAIN: &str = r#"
[job]
name = "plain"

[source.b.log]
topic = "b"
schema = { x = "int", at = "timestamp", y = "float?" }
event_time = { column = "at", out_of_order = "5s", idle = "1m" }

[source.a.file]
path = "a.jsonl"
schema = { k = "string", v = "float" }

[sink.out.log]
from = "b"
topic = "out"
"#;

#[test]
fn a_column_whose_value_does_not_matter_is_still_known() {
    for sql in [
        "count(*) filter (where x is not null)",
        "count(x)",
        "max(coalesce(x, cast(z as int)))",
        "count(*) filter (where x > 1 and (z is null or true))",
        "sum(case when true then x else cast(z as int) end)",
    ] {
        let text = format!(
            "{PLAIN}\n[step.w.window]\nfrom = \"b\"\ntumbling = \"1m\"\naggregate = {{ n = \"{sql}\" }}\n\
             [sink.w.log]\nfrom = \"w\"\ntopic = \"w\"\n"
        );
        let text = text.replace("y = \"float?\"", "y = \"float?\", z = \"string\"");
        let text = text.replace("[sink.out.log]\nfrom = \"b\"", "[sink.out.log]\nfrom = \"a\"");
        load_text(&text, &[]).unwrap_or_else(|report| panic!("{sql}: {report}"));
    }
}

#[test]
fn every_bad_job_gives_its_report() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir("tests/jobs/bad").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 30, "only {} bad jobs", files.len());
    insta::with_settings!({
        snapshot_path => "../jobs/bad",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let flags = text.lines().map_while(|line| line.strip_prefix("#: --set "));
            let flags: Vec<String> = flags.map(String::from).collect();
            let Err(report) = load(&file, &flags) else { panic!("{} is not bad", file.display()) };
            assert!(report.to_string().is_ascii() || !text.is_ascii(), "{report}");
            insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), report.to_string());
        }
    });
}

#[test]
fn the_committed_schema_is_the_one_of_the_code() {
    let committed = std::fs::read_to_string("config/schema/job.schema.json").unwrap_or_default();
    assert!(
        committed == job::schema_text(),
        "config/schema/job.schema.json is stale; refresh it with\n    levada schema > config/schema/job.schema.json"
    );
}

/// Every name that is left out of what identifies a job is the name of a field.
#[test]
fn what_says_how_a_connector_is_reached_are_fields_of_it() {
    let schema = job::json_schema();
    let mut fields = 0;
    for (list, reached_by) in [
        ("SourceSpec", SourceConnector::reached_by as fn(&str) -> &'static [&'static str]),
        ("SinkSpec", SinkConnector::reached_by),
    ] {
        for kind in schema["$defs"][list]["oneOf"].as_array().unwrap() {
            let (name, table) = kind["properties"].as_object().unwrap().iter().next().unwrap();
            for field in reached_by(name) {
                assert!(table["properties"].get(field).is_some(), "{name} has no {field}");
                fields += 1;
            }
        }
    }
    assert!(fields > 10, "{fields} fields");
}

#[test]
fn a_good_job_becomes_a_plan() {
    let Loaded { plan, warnings, .. } = load_text(PLAIN, &[]).map_err(|report| report.to_string()).unwrap();
    assert_eq!(plan.name, "plain");
    assert_eq!(plan.epochs.interval_ms, 10);
    let names: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in the order of the file");
    let time = plan.sources[0].event_time.as_ref().unwrap();
    assert_eq!((time.column, time.out_of_order_ms, time.idle_ms), (1, 5_000, Some(60_000)));
    let columns: Vec<String> = plan.sources[0]
        .schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.is_nullable()))
        .collect();
    assert_eq!(columns, ["_time false", "x false", "at false", "y true"]);
    assert!(plan.sources[1].event_time.is_none(), "a source without a time is a table");
    assert_eq!(plan.dead_letters.unwrap().describe(), "topic plain.dead-letters");
    assert_eq!(warnings.diagnostics().len(), 1, "nothing reads `a`");
}

/// A run goes on only as the job that it was, and what a schema file says is part of that.
#[test]
fn what_stands_in_a_schema_file_is_part_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.avsc");
    let format =
        format!("topic = \"b\"\nformat = {{ avro = {{ writer = {:?} }} }}", file.display().to_string());
    let text = PLAIN.replacen("topic = \"b\"", &format, 1);
    let identity = |schema: &str| {
        std::fs::write(&file, schema).unwrap();
        load_text(&text, &[]).map_err(|report| report.to_string()).unwrap().spec.identity()
    };
    let first = identity("{}");
    assert_ne!(first, identity("{ }"));
    assert_eq!(first, identity("{}"));
}

/// A state that was kept is known again by any later levada: the numbers stay as they are.
#[test]
fn a_job_is_known_again_by_what_is_written_of_it() {
    let text = format!(
        "{PLAIN}\n[step.w.window]\nfrom = \"b\"\ntumbling = \"1m\"\nkey = [\"x\"]\n\
         aggregate = {{ m = \"min(\\ny)\", n = \"count(*)\" }}\n\
         [step.d.detect]\nfrom = \"w\"\nkey = [\"x\"]\nvalue = \"m\"\ndetectors = {{ zscore = {{ window = 30 }} }}\n"
    );
    let identities = |text: &str, flags: &[&str]| {
        let Loaded { spec, plan, .. } = load_text(text, flags).map_err(|report| report.to_string()).unwrap();
        let steps = plan.steps.iter().map(|step| step.identity);
        [spec.identity()].into_iter().chain(steps).collect::<Vec<_>>()
    };
    let known = identities(&text, &[]);
    let hex: Vec<String> = known.iter().map(|identity| format!("{identity:016x}")).collect();
    assert_eq!(hex, ["04652e356dbc37ee", "09ac378672f860bd", "f10e49b03ff4dfa5"]);

    let with = |one: &str, other: &str| {
        assert!(text.contains(one), "{one}");
        identities(&text.replacen(one, other, 1), &[])
    };
    // Comments, notation, the order of fields, how fast it goes: all that is the same job.
    for (one, other) in [
        ("from = \"b\"", "from = 'b' # a comment"),
        ("tumbling = \"1m\"\nkey = [\"x\"]", "key = [\"x\",]\ntumbling = \"\"\"1m\"\"\""),
        (
            "aggregate = { m = \"min(\\ny)\", n = \"count(*)\" }",
            "aggregate.m = \"min(\\ny)\"\naggregate.n = \"count(*)\"",
        ),
        ("window = 30", "window = 0x1e"),
        ("name = \"plain\"", "name = \"plain\"\nepoch = \"1s\"\ndescription = \"words\""),
    ] {
        assert_eq!(with(one, other), known, "{other}");
    }
    assert_eq!(identities(&text, &["step.d.detect.detectors.zscore.window=30"]), known);
    // What changes the job, and which of its steps.
    for (one, other, same) in [
        ("tumbling = \"1m\"", "tumbling = \"60s\"", [false, true]),
        ("{ m = \"min(\\ny)\", n = \"count(*)\" }", "{ n = \"count(*)\", m = \"min(\\ny)\" }", [false, true]),
        ("window = 30", "window = 31", [true, false]),
        ("x = \"int\"", "x = \"string\"", [false, false]),
        ("y = \"float?\"", "y = \"int?\"", [false, false]),
        ("k = \"string\", v = \"float\"", "v = \"float\", k = \"string\"", [true, true]),
        ("name = \"plain\"", "name = \"plain\"\ndead_letters = false", [true, true]),
        ("topic = \"out\"", "topic = \"elsewhere\"", [true, true]),
    ] {
        let found = with(one, other);
        assert_ne!(found[0], known[0], "{other}");
        assert_eq!([found[1] == known[1], found[2] == known[2]], same, "{other}");
    }
    // Servers move and secrets change while a job goes on.
    let over = |connectors: &str| {
        let table =
            "schema = { x = \"int\", at = \"timestamp\", y = \"float?\" }\nevent_time = { column = \"at\" }";
        let text = format!("[job]\nname = \"over\"\n{}", connectors.replace("TABLE", table));
        identities(&text, &[])[0]
    };
    let kafka = "[source.b.kafka]\ntopic = \"b\"\nbrokers = \"one:9092\"\nTABLE\n\
                 format = { avro = { registry = { url = \"http://one:8081\" } } }\n\
                 [sink.s.redis]\nfrom = \"b\"\nstream = \"s\"\nurl = \"redis://one\"\n";
    let moved =
        kafka.replace("one", "two").replace("topic", "properties = { \"sasl.password\" = \"p\" }\ntopic");
    assert_eq!(over(kafka), over(&moved));
    assert_ne!(over(kafka), over(&kafka.replace("topic = \"b\"", "topic = \"c\"")));
    assert_ne!(over(kafka), over(&kafka.replace("stream = \"s\"", "stream = \"t\"")));
}

#[test]
fn a_flag_sets_a_field_as_if_it_stood_in_the_file() {
    let flags = ["job.epoch=1s", "job.in_flight=8", "job.dead_letters=false", "sink.out.log.from=a"];
    let Loaded { plan, spec, .. } = load_text(PLAIN, &flags).map_err(|report| report.to_string()).unwrap();
    assert_eq!((plan.epochs.interval_ms, plan.epochs.in_flight), (1_000, 8));
    assert!(plan.dead_letters.is_none());
    assert_eq!(spec.sink["out"].common.from, "a");
}

/// An element of a list is `link.0` or `link[0]`.
#[test]
fn a_flag_sets_an_element_in_either_notation() {
    let flights = std::fs::read_to_string("config/jobs/flights.toml").unwrap();
    let environment = Environment {
        data_dir: PathBuf::from("none"),
        state: None,
        existing: Existing::Refuse,
        models: &forecast,
        look: None,
    };
    for flag in ["step.incidents.correlate.link.0.within=30m", "step.incidents.correlate.link[0].within=30m"]
    {
        let loaded = job::load_text("job.toml", &flights, &[flag.to_string()], &environment);
        let Loaded { spec, .. } = loaded.map_err(|report| report.to_string()).unwrap();
        let levada_dataflows::Step::Correlate(incidents) = &spec.step["incidents"] else { panic!() };
        let within: Vec<&str> = incidents.link.iter().map(|link| link.within.as_str()).collect();
        assert_eq!(within, ["30m", "45m", "20m"], "{flag}");
    }
}

#[test]
fn a_problem_in_a_flag_is_shown_in_the_flag() {
    let Err(report) = load_text(PLAIN, &["job.epoch=10parsecs", "sink.out.log.form=a"]) else { panic!() };
    insta::assert_snapshot!(report.to_string());
}

#[test]
fn an_unreadable_file_is_a_report() {
    let Err(report) = load(Path::new("tests/jobs/none.toml"), &[]) else { panic!() };
    assert!(report.to_string().starts_with("error: failed to read tests/jobs/none.toml: "), "{report}");
}

#[test]
fn data_that_is_given_as_a_job_is_told_so_however_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "{\"user\":\"a\",\"n\":1}\n".repeat(100_000)).unwrap();
    let Err(report) = load(&path, &[]) else { panic!() };
    assert!(report.to_string().contains("it holds JSON, and a job file is TOML"), "{report}");
    // An error a line: each is looked at once.
    std::fs::write(&path, "user a, n 1\n".repeat(100_000)).unwrap();
    let Err(report) = load(&path, &[]) else { panic!() };
    assert!(report.to_string().contains("from here on there are 99992 more errors"), "{report}");
    let Err(report) = load(Path::new("tests/job_files"), &[]) else { panic!() };
    assert!(report.to_string().contains("Is a directory"), "{report}");
}

/// Whatever stands in a file, reading it ends in a plan or a report; a report can be rendered.
#[test]
fn damage_never_panics() {
    let flights = std::fs::read_to_string("config/jobs/flights.toml").unwrap();
    for text in [PLAIN, &flights] {
        let offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).collect();
        for (number, &offset) in offsets.iter().enumerate().step_by(11) {
            let mut damaged = text.to_string();
            match number % 4 {
                0 => damaged.truncate(offset),
                1 => damaged.replace_range(offset..offset + 1, "\"é\\"),
                2 => damaged.replace_range(offset..offset + 1, ""),
                _ => damaged.insert_str(offset, ["[[", "=", "\n", "}", "'''", "1"][number % 6]),
            }
            if let Err(report) = load_text(&damaged, &[]) {
                assert!(!report.diagnostics().is_empty());
                assert!(report.render(true).len() > 10);
            }
        }
    }
}
