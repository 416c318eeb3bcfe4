//! Planning of steps, with steps that only exist here: schemas flow, demand flows back, cycles and
//! failures stop where they should.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_dataflows::plan::{
    ColumnSet, PlanContext, PlannedInput, PlannedStep, Route, SinkOrder, StepSpec, StreamId,
};
use levada_dataflows::{InputOrder, OperatorError};
use levada_types::{Existing, ScoreError, TIME_COLUMN};

use super::planning::{Drawn, StepDraft, plan};
use super::{Environment, FromTable, JobSettings, JobSpec, SinkSpec, SourceSpec};

/// Adds a column `made` out of the column `needs`; keeps the others.
struct Fake {
    from: &'static str,
    needs: &'static str,
    made: &'static str,
    stateless: bool,
}

impl StepSpec for Fake {
    fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
        vec![(vec!["from"], self.from)]
    }

    fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
        if !cx.check_columns("needs", &[self.needs.to_string()], &inputs[0]) {
            return None;
        }
        let made = Arc::new(Field::new(self.made, DataType::Float64, true));
        let fields: Vec<_> = inputs[0].fields().iter().cloned().chain([made]).collect();
        Some(PlannedStep {
            schema: Arc::new(Schema::new(fields)),
            inputs: vec![PlannedInput { order: InputOrder::Time, route: Route::Stay }],
            operator: Arc::new(|| Err(OperatorError::State("run a step of a test".into()))),
            stateless: self.stateless,
        })
    }

    fn demand(&self, _: &[SchemaRef], output: &ColumnSet) -> Vec<ColumnSet> {
        let mut needed = output.clone();
        needed.remove(self.made);
        needed.insert(self.needs.to_string());
        vec![needed]
    }
}

fn fake(from: &'static str, needs: &'static str, made: &'static str) -> Fake {
    Fake { from, needs, made, stateless: false }
}

fn table<T: FromTable>(text: &str) -> T {
    T::from_table(toml::de::DeValue::parse(text).unwrap()).unwrap()
}

fn no_model(_: &str) -> Result<Arc<dyn levada_types::ScorerFactory>, ScoreError> {
    Err(ScoreError::Run("there is none".into()))
}

/// Plans `steps` over a source `in` (a, b, c, at), with sinks of the streams in `sinks`.
fn draw(steps: &[(&str, Fake)], broken: &[&str], sinks: &[&str]) -> Drawn {
    let source =
        r#"{ log = { topic = "t", schema = { a = "float", b = "float", at = "timestamp", c = "float" },
        event_time = { column = "at" } } }"#
            .replace('\n', " ");
    let sink = |from: &&str| -> (String, SinkSpec) {
        (
            format!("to-{}", from.replace('.', "-")),
            table(&format!("{{ log = {{ topic = \"o.{from}\", from = \"{from}\" }} }}")),
        )
    };
    let mut sources = vec![("in".to_string(), table::<SourceSpec>(&source))];
    if steps.iter().any(|(_, step)| step.from == "ref") {
        let timeless = r#"{ log = { topic = "r", schema = { a = "float" } } }"#;
        sources.push(("ref".into(), table(timeless)));
    }
    let spec = JobSpec {
        job: JobSettings { name: "j".into(), ..JobSettings::default() },
        source: sources.into_iter().collect(),
        step: Default::default(),
        sink: sinks.iter().map(sink).collect(),
        page: None,
        written: Default::default(),
    };
    let drafts: Vec<StepDraft<'_>> =
        steps.iter().map(|(name, fake)| StepDraft { name, verb: "fake", spec: fake }).collect();
    let broken: BTreeSet<&str> = broken.iter().copied().collect();
    plan(
        &spec,
        &drafts,
        &broken,
        &Environment {
            data_dir: PathBuf::new(),
            state: None,
            existing: Existing::Refuse,
            models: &no_model,
            look: None,
        },
    )
}

fn problems(drawn: &Drawn) -> Vec<String> {
    drawn.problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
}

#[test]
fn steps_are_planned_after_what_they_read_whatever_their_order_in_the_file() {
    let drawn = draw(&[("two", fake("one", "m", "n")), ("one", fake("in", "a", "m"))], &[], &["two"]);
    assert_eq!(problems(&drawn), Vec::<String>::new());
    let plan = drawn.plan.unwrap();
    assert_eq!(plan.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(plan.steps[1].from, [StreamId::Step(0)]);
    assert_eq!(plan.sinks[0].from, StreamId::Step(1));
    assert_eq!(plan.sinks[0].order, SinkOrder::Canonical);
}

#[test]
fn only_the_columns_that_somebody_uses_are_decoded() {
    /// Emits nothing but what it made.
    struct Only(Fake);
    impl StepSpec for Only {
        fn inputs(&self) -> Vec<(Vec<&'static str>, &str)> {
            self.0.inputs()
        }
        fn plan(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<PlannedStep> {
            let mut step = self.0.plan(inputs, cx)?;
            let fields = step.schema.fields();
            step.schema = Arc::new(Schema::new(vec![fields[0].clone(), fields[fields.len() - 1].clone()]));
            Some(step)
        }
        fn demand(&self, _: &[SchemaRef], _: &ColumnSet) -> Vec<ColumnSet> {
            vec![ColumnSet::from([self.0.needs.to_string()])]
        }
    }
    let only = Only(fake("in", "c", "m"));
    let source = table::<SourceSpec>(
        r#"{ log = { topic = "t", schema = { a = "float", at = "timestamp", c = "float" }, event_time = { column = "at" } } }"#,
    );
    let sink = table::<SinkSpec>(r#"{ log = { topic = "o", from = "only" } }"#);
    let spec = JobSpec {
        job: JobSettings { name: "j".into(), ..JobSettings::default() },
        source: [("in".to_string(), source)].into_iter().collect(),
        step: Default::default(),
        sink: [("out".to_string(), sink)].into_iter().collect(),
        page: None,
        written: Default::default(),
    };
    let environment = Environment {
        data_dir: PathBuf::new(),
        state: None,
        existing: Existing::Refuse,
        models: &no_model,
        look: None,
    };
    let draft = [StepDraft { name: "only", verb: "fake", spec: &only }];
    let drawn = plan(&spec, &draft, &BTreeSet::new(), &environment);
    let plan = drawn.plan.unwrap();
    let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&plan.sources[0].decoded), ["at", "c"], "the event time's and the used one");
    assert_eq!(names(&plan.sources[0].schema), [TIME_COLUMN, "at", "c"]);
    assert_eq!(plan.sources[0].event_time.as_ref().unwrap().column, 0, "its place among those");
}

#[test]
fn late_rows_demand_the_columns_of_what_the_step_reads() {
    let drawn = draw(&[("one", fake("in", "a", "m"))], &[], &["one.late"]);
    let plan = drawn.plan.unwrap();
    assert_eq!(plan.sinks[0].from, StreamId::Late(0));
    assert_eq!(plan.sources[0].decoded.fields().len(), 4);
    assert_eq!(drawn.warnings, [], "its late rows are read");
}

#[test]
fn late_rows_that_there_cannot_be_are_warned_of() {
    let passing = Fake { stateless: true, ..fake("one", "m", "n") };
    let steps = [
        ("one", fake("in", "a", "m")),
        ("between", passing),
        ("two", fake("between", "n", "o")),
        ("three", fake("two", "o", "p")),
    ];
    let drawn = draw(&steps, &[], &["one.late", "three", "two.late", "three.late"]);
    assert_eq!(problems(&drawn), Vec::<String>::new());
    let told: Vec<_> =
        drawn.warnings.iter().map(|w| (w.path.join("."), &w.message[..], w.help.as_deref())).collect();
    let past = |step: &str| format!("`{step}.late` is always empty: late rows do not come past `one`");
    let (two, three) = (past("two"), past("three"));
    let help = Some("they are in `one.late`");
    assert_eq!(
        told,
        [("sink.to-two-late".into(), &two[..], help), ("sink.to-three-late".into(), &three, help)]
    );
}

#[test]
fn a_stateless_step_keeps_the_order_of_its_source_and_has_no_late_rows() {
    let step = || Fake { stateless: true, ..fake("in", "a", "m") };
    let drawn = draw(&[("one", step())], &[], &["one", "in"]);
    assert!(drawn.plan.unwrap().sinks.iter().all(|sink| sink.order == SinkOrder::Source));
    let drawn = draw(&[("one", step())], &[], &["one.late"]);
    let expected =
        "sink.to-one-late.log.from: `one` has no late rows: a fake step takes each row as it comes";
    assert_eq!(problems(&drawn), [expected]);
}

#[test]
fn a_failure_is_reported_once_however_many_steps_follow() {
    let drawn = draw(
        &[("one", fake("in", "aa", "m")), ("two", fake("one", "m", "n")), ("other", fake("in", "d", "m"))],
        &[],
        &["two"],
    );
    assert!(drawn.plan.is_none());
    let expected =
        ["step.one.fake.needs.0: there is no column `aa`", "step.other.fake.needs.0: there is no column `d`"];
    assert_eq!(problems(&drawn), expected);
}

#[test]
fn what_reads_a_table_that_could_not_be_read_is_not_reported() {
    let drawn = draw(&[("two", fake("one", "m", "n"))], &["one"], &["one", "two", "one.late"]);
    assert!(drawn.plan.is_none());
    assert_eq!(problems(&drawn), Vec::<String>::new());
}

#[test]
fn each_cycle_is_reported_once() {
    let drawn = draw(
        &[
            ("a", fake("b", "x", "m")),
            ("b", fake("c.late", "x", "m")),
            ("c", fake("a", "x", "m")),
            ("behind", fake("a", "x", "m")),
            ("self", fake("self", "x", "m")),
        ],
        &[],
        &["behind"],
    );
    assert!(drawn.plan.is_none());
    let expected = [
        "step.a.fake.from: `a` reads `b`, which reads `c`, which reads `a`: a cycle",
        "step.self.fake.from: `self` reads itself",
    ];
    assert_eq!(problems(&drawn), expected);
}

#[test]
fn a_step_may_not_be_named_like_a_source() {
    let drawn = draw(&[("in", fake("in", "a", "m"))], &[], &[]);
    assert_eq!(problems(&drawn), ["step.in: `in` is already the name of a source"]);
}

#[test]
fn only_a_stateless_step_may_follow_a_table() {
    let stateless = Fake { stateless: true, ..fake("ref", "a", "m") };
    let drawn = draw(&[("one", stateless), ("two", fake("one", "m", "n"))], &[], &["one"]);
    let expected = "step.two.fake.from: `one` is a table, whose rows have no time for a fake step to go by: \
                    its source has no `event_time`";
    assert_eq!(problems(&drawn), [expected]);
}
