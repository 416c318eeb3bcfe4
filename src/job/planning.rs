//! From specs to a [`Plan`]: names, schemas, steps in an order in which each follows what it reads.
//!
//! Free of TOML: a problem names its field by a path from the top of the job. Where the columns that a step
//! reads are not known, since what makes them is wrong, only what does not depend on them is checked.
//! Once nothing is wrong, [`super::prune`] finds the columns that are used, and the steps are planned
//! again over sources that decode no others.

#[cfg(feature = "kafka")]
mod journal;
mod names;
mod outputs;
mod sources;
mod streams;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_connectors::checkpoint::BucketConfig;
use levada_dataflows::changes::{CHANGE, RETRACT, is_changelog};
use levada_dataflows::late::ledger_schema;
use levada_dataflows::operators::correlate;
use levada_dataflows::operators::select::SelectSpec;
use levada_dataflows::plan::{
    EpochSettings, Plan, PlanContext, PlannedStep, Problem, SinkPlan, SourcePlan, StepPlan, StepSpec,
    StreamId, unknown_schema,
};
use levada_types::decode::dead_letter_schema;
use levada_types::{Batch, Journal, SinkFactory, TIME_COLUMN};

use super::connect::Connections;
use super::page::{self, PageColumn};
use super::spec::{Changes, ColumnType, JobSettings, JobSpec, SinkConnector, SinkSpec, SourceConnector};
use super::{Environment, prune};
use names::Found;
use sources::SourceView;
pub use sources::{decoded, timed};
use streams::{empty_late, is_table, order_of, schema, unread};

/// A step that could be read.
pub struct StepDraft<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its verb.
    pub verb: &'static str,
    /// What it is.
    pub spec: &'a dyn StepSpec,
}

/// A plan, or what is wrong.
pub struct Drawn {
    /// The plan, if there is no problem.
    pub plan: Option<Plan>,
    /// The journal, if it is not kept in the folder of the job's state.
    pub journal: Option<Arc<dyn Journal>>,
    /// What is wrong; paths from the top.
    pub problems: Vec<Problem>,
    /// What is surely not meant.
    pub warnings: Vec<Problem>,
}

/// Plans a job. `broken` are the sources and steps that could not be read, which was reported.
pub fn plan(
    spec: &JobSpec,
    steps: &[StepDraft<'_>],
    broken: &BTreeSet<&str>,
    environment: &Environment<'_>,
) -> Drawn {
    let mut planner = Planner {
        cx: PlanContext { models: environment.models, problems: Vec::new() },
        connections: Connections::new(&spec.job.name, environment),
        spec,
        steps,
        broken,
        look: environment.look.clone(),
        upserts: Vec::new(),
    };
    let plan = planner.run();
    #[cfg(feature = "kafka")]
    let journal = planner.journal();
    #[cfg(not(feature = "kafka"))]
    let journal = None;
    let problems = planner.cx.problems;
    let mut warnings =
        plan.as_ref().map(|plan| [unread(plan), empty_late(plan)].concat()).unwrap_or_default();
    // A clock need not be read: it is there so that time goes on.
    let clocks =
        spec.source.iter().filter(|(_, source)| matches!(source.connector, SourceConnector::Clock(_)));
    let clocks: Vec<&String> = clocks.map(|(name, _)| name).collect();
    warnings.retain(|warning| !clocks.iter().any(|clock| warning.path == ["source", clock.as_str()]));
    Drawn { plan: plan.filter(|_| problems.is_empty()), journal, problems, warnings }
}

struct Planner<'a> {
    cx: PlanContext<'a>,
    connections: Connections,
    spec: &'a JobSpec,
    steps: &'a [StepDraft<'a>],
    broken: &'a BTreeSet<&'a str>,
    look: Option<PathBuf>,
    /// The steps that leave out, before a sink, what is retracted.
    upserts: Vec<SelectSpec>,
}

impl Planner<'_> {
    fn run(&mut self) -> Option<Plan> {
        let epochs = self.settings();
        self.check_names();
        let sources: Vec<Option<SourcePlan>> =
            self.spec.source.iter().map(|(name, source)| self.source(name, source)).collect();
        let views: Vec<SourceView> = self.spec.source.values().map(SourceView::new).collect();
        let reads: Vec<Vec<Found>> = self.steps.iter().map(|step| self.reads(step)).collect();
        let order = self.order(&reads);
        // Where a step stands in the order; `None` in or behind a cycle.
        let mut places = vec![None; self.steps.len()];
        for (place, &step) in order.iter().enumerate() {
            places[step] = Some(place);
        }
        let stream = |found: Found| match found {
            Found::Source(i) => Some(StreamId::Source(i)),
            Found::Step(i) => places[i].map(StreamId::Step),
            Found::Late(i) => places[i].map(StreamId::Late),
            Found::Wrong => None,
        };
        let from: Vec<Option<Vec<StreamId>>> =
            order.iter().map(|&step| reads[step].iter().map(|&found| stream(found)).collect()).collect();
        let mut planned = self.plan_steps(&views, &order, &from);
        // Those that are in a cycle or behind one.
        let steps = self.steps;
        for step in (0..steps.len()).filter(|&index| places[index].is_none()).map(|index| &steps[index]) {
            self.plan_blindly(step, &vec![None; step.spec.inputs().len()]);
        }
        let sinks: Vec<Option<SinkPlan>> = self.sinks(&views, &mut planned, &places);
        let dead_letters = self.dead_letters();
        let late_ledger = self.spec.job.late.as_ref().map(|topic| self.connections.side_topic(topic));
        self.check_outputs();
        self.check_page(&views, &planned, &sinks);
        self.check_alignment(&sources);

        // From here on all is there, or something was reported.
        let sources: Vec<SourcePlan> = sources.into_iter().collect::<Option<_>>()?;
        let planned: Vec<StepPlan> = planned.into_iter().collect::<Option<_>>()?;
        let sinks: Vec<SinkPlan> = sinks.into_iter().collect::<Option<_>>()?;
        if !self.cx.problems.is_empty() || planned.len() < self.steps.len() {
            return None;
        }
        let name = self.spec.job.name.clone();
        let mut plan = Plan { name, epochs, sources, steps: planned, sinks, dead_letters, late_ledger };
        self.narrow(&mut plan, &order);
        Some(plan)
    }

    fn settings(&mut self) -> EpochSettings {
        let job: &JobSettings = &self.spec.job;
        if !is_name(&job.name) {
            self.cx.problem(["job", "name"], not_a_name(&job.name));
        }
        if self.cx.duration(["job", "checkpoint"], &job.checkpoint) == Some(0) {
            self.cx.problem(
                ["job", "checkpoint"],
                "checkpoints without end would leave no time for anything else",
            );
        }
        if let Some(Err((field, why))) = job.checkpoints.as_ref().map(BucketConfig::check) {
            self.cx.problem(["job", "checkpoints", field], why);
        }
        let interval_ms = self.cx.duration(["job", "epoch"], &job.epoch).unwrap_or(1);
        if interval_ms == 0 {
            self.cx.problem(["job", "epoch"], "an epoch of no length would never end");
        }
        let align_ms = job.align.as_ref().and_then(|align| self.cx.duration(["job", "align"], align));
        if align_ms == Some(0) {
            self.cx.problem(["job", "align"], "whoever is read next is ahead of the others by something");
        }
        EpochSettings {
            interval_ms: interval_ms.unsigned_abs(),
            in_flight: job.in_flight,
            align_ms,
            ..EpochSettings::default()
        }
    }

    /// What is silent must not keep the others waiting for ever.
    fn check_alignment(&mut self, sources: &[Option<SourcePlan>]) {
        if self.spec.job.align.is_none() {
            return;
        }
        let patient = |source: &&SourcePlan| {
            let never_idle =
                source.event_time.as_ref().is_some_and(|event_time| event_time.idle_ms.is_none());
            never_idle && source.reader.unbounded()
        };
        for source in sources.iter().flatten().filter(patient) {
            let message = format!(
                "`{}` would keep the others waiting for as long as a partition of it is silent: its `event_time` has no `idle`",
                source.name
            );
            self.cx.problem(["job", "align"], message);
            if let Some(problem) = self.cx.problems.last_mut() {
                problem.help = Some("say how long a partition may be silent before nobody waits for it, as in `idle = \"30s\"`".into());
            }
        }
    }

    fn check_names(&mut self) {
        let spec = self.spec;
        let steps = self.steps.iter().map(|step| ("step", step.name));
        let all = spec.source.keys().map(|name| ("source", name.as_str())).chain(steps);
        for (section, name) in all.chain(spec.sink.keys().map(|name| ("sink", name.as_str()))) {
            if !is_name(name) {
                self.cx.problem([section, name], not_a_name(name));
            }
        }
        for step in self.steps.iter().filter(|step| spec.source.contains_key(step.name)) {
            let message = format!("`{}` is already the name of a source", step.name);
            self.cx.problem(["step", step.name], message);
        }
    }

    fn misconnected(&mut self, table: &[&str; 3], (field, message): (Option<&str>, String)) {
        self.cx.problem(table.iter().copied().chain(field), message);
    }

    fn plan_steps(
        &mut self,
        sources: &[SourceView],
        order: &[usize],
        from: &[Option<Vec<StreamId>>],
    ) -> Vec<Option<StepPlan>> {
        let mut planned: Vec<Option<StepPlan>> = Vec::new();
        for (&index, from) in order.iter().zip(from) {
            let step = &self.steps[index];
            let inputs: Vec<Option<SchemaRef>> = match from {
                Some(from) => from.iter().map(|&stream| schema(sources, &planned, stream)).collect(),
                None => vec![None; step.spec.inputs().len()],
            };
            if inputs.contains(&None) {
                self.plan_blindly(step, &inputs);
            }
            let plan = from.as_ref().and_then(|from| {
                let inputs = inputs.into_iter().collect::<Option<Vec<SchemaRef>>>()?;
                if !self.late_is_there(step, from, &planned) {
                    return None;
                }
                // The second input of a join may be a table.
                let timed = if step.verb == "join" { 1 } else { from.len() };
                let of_table =
                    from.iter().take(timed).position(|&stream| is_table(sources, &planned, stream));
                if !self.takes_back_nothing(step, &inputs) {
                    return None;
                }
                let step_plan = self.plan_step(step, &inputs)?;
                if let Some(input) = of_table.filter(|_| !step_plan.stateless) {
                    self.timeless(step, input);
                    return None;
                }
                let name = step.name.to_string();
                let identity = self.spec.step_identity(step.name, &inputs);
                Some(StepPlan { name, verb: step.verb, from: from.clone(), step: step_plan, identity })
            });
            planned.push(plan);
        }
        planned
    }

    /// Plans a step; its problems' paths are made to start at the top.
    fn plan_step(&mut self, step: &StepDraft<'_>, inputs: &[SchemaRef]) -> Option<PlannedStep> {
        let before = self.cx.problems.len();
        let planned = step.spec.plan(inputs, &mut self.cx);
        let table = step_table(step);
        for problem in &mut self.cx.problems[before..] {
            problem.path.splice(0..0, table.clone());
        }
        if planned.is_none() && self.cx.problems.len() == before {
            self.cx.problem(&table, "this step cannot be planned, and does not say why (a bug of levada's)");
        }
        planned.filter(|_| self.cx.problems.len() == before)
    }

    /// Reports what is wrong with a step of whose inputs not all are known, as far as it does not depend on them.
    fn plan_blindly(&mut self, step: &StepDraft<'_>, inputs: &[Option<SchemaRef>]) {
        let inputs: Vec<SchemaRef> =
            inputs.iter().map(|input| input.clone().unwrap_or_else(unknown_schema)).collect();
        let before = self.cx.problems.len();
        // What it would be does not matter.
        let _ = step.spec.plan(&inputs, &mut self.cx);
        for mut problem in self.cx.problems.split_off(before) {
            if problem.always {
                problem.path.splice(0..0, step_table(step));
                self.cx.problems.push(problem);
            }
        }
    }

    /// Whether no input of a step takes back what it told, or the step knows what that means. Any other would count rows
    /// that count no more.
    fn takes_back_nothing(&mut self, step: &StepDraft<'_>, inputs: &[SchemaRef]) -> bool {
        if ["select", "union", "group", "top"].contains(&step.verb) {
            return true;
        }
        let mut good = true;
        for ((field, name), schema) in step.spec.inputs().iter().zip(inputs) {
            if !is_changelog(schema) {
                continue;
            }
            good = false;
            let mut path = vec!["step", step.name, step.verb];
            path.extend(field);
            let message =
                format!("`{name}` takes back rows that it told, and a {} step would count them", step.verb);
            self.cx.problem(path, message);
            if let Some(problem) = self.cx.problems.last_mut() {
                problem.help = Some(format!(
                    "a `group` or a `top` step takes them away again; or a `select` step before leaves out what is taken back \
                     (`where = \"{CHANGE} in ('insert', 'update')\"`), and with `columns` the column `{CHANGE}`"
                ));
            }
        }
        good
    }

    /// Reports that a step follows in time what has none.
    fn timeless(&mut self, step: &StepDraft<'_>, input: usize) {
        let inputs = step.spec.inputs();
        let Some((field, name)) = inputs.get(input) else { return };
        let mut path = vec!["step", step.name, step.verb];
        path.extend(field);
        let verb = step.verb;
        let message = format!(
            "`{name}` is a table, whose rows have no time for a {verb} step to go by: its source has no `event_time`"
        );
        self.cx.problem(path, message);
        let Some(source) = self.spec.source.get(*name) else { return };
        let is_time = |kind: &ColumnType| kind.data_type == Batch::timestamp_type() && !kind.nullable;
        let columns = source.common.columns();
        let times = columns.iter().find(|(_, kind)| is_time(kind));
        let table = format!("[source.{name}.{}]", source.connector.kind());
        let help = match times {
            Some((column, _)) => format!("add to `{table}`: `event_time = {{ column = \"{column}\" }}`"),
            None => format!(
                "`{table}` needs a column of type `timestamp` (without `?`), and that as its `event_time`"
            ),
        };
        if let Some(problem) = self.cx.problems.last_mut() {
            problem.help = Some(help);
        }
    }

    /// Whether the late streams that a step reads are of steps that have one.
    fn late_is_there(
        &mut self,
        step: &StepDraft<'_>,
        from: &[StreamId],
        planned: &[Option<StepPlan>],
    ) -> bool {
        let inputs = step.spec.inputs();
        let mut good = true;
        for ((field, _), stream) in inputs.iter().zip(from) {
            let mut path = vec!["step", step.name, step.verb];
            path.extend(field);
            good &= self.has_late(&path, *stream, planned);
        }
        good
    }

    fn has_late(&mut self, path: &[&str], stream: StreamId, planned: &[Option<StepPlan>]) -> bool {
        let StreamId::Late(index) = stream else { return true };
        let Some(Some(of)) = planned.get(index) else { return true };
        if of.step.stateless {
            let (name, verb) = (&of.name, of.verb);
            let message = format!("`{name}` has no late rows: a {verb} step takes each row as it comes");
            self.cx.problem(path, message);
        }
        !of.step.stateless
    }

    fn sinks(
        &mut self,
        sources: &[SourceView],
        planned: &mut Vec<Option<StepPlan>>,
        places: &[Option<usize>],
    ) -> Vec<Option<SinkPlan>> {
        let spec = self.spec;
        let mut one = |(name, sink): (&String, &SinkSpec)| {
            let kind = sink.connector.kind();
            let path = ["sink", name, kind, "from"];
            let from = match self.find(&path, &sink.common.from) {
                Found::Source(i) => Some(StreamId::Source(i)),
                Found::Step(i) => places[i].map(StreamId::Step),
                Found::Late(i) => places[i].map(StreamId::Late),
                Found::Wrong => None,
            };
            let writer = self.connections.sink(name, sink);
            let writer = writer.map_err(|wrong| self.misconnected(&["sink", name, kind], wrong)).ok();
            let mut from = from.filter(|&stream| self.has_late(&path, stream, planned))?;
            if sink.common.changes == Changes::Upsert {
                from = self.upsert((name, kind), from, sources, planned)?;
            }
            if let Some(rows) = schema(sources, planned, from) {
                self.check_sink_columns(&["sink", name, kind], sink, &rows);
            }
            Some(SinkPlan { name: name.clone(), from, order: order_of(from, planned)?, writer: writer? })
        };
        spec.sink.iter().map(&mut one).collect()
    }

    /// What is new in the changelog that a sink writes, as a stream.
    fn upsert(
        &mut self,
        (name, kind): (&str, &str),
        from: StreamId,
        sources: &[SourceView],
        planned: &mut Vec<Option<StepPlan>>,
    ) -> Option<StreamId> {
        let rows = schema(sources, planned, from)?;
        if !rows.field_with_name(CHANGE).is_ok_and(|field| *field.data_type() == DataType::Utf8) {
            let message =
                format!("what it writes takes nothing back: it has no column `{CHANGE}` of type string");
            self.cx.problem(["sink", name, kind, "changes"], message);
            return None;
        }
        // What does not say what it is stays.
        let condition = Some(format!("\"{CHANGE}\" <> '{RETRACT}' or \"{CHANGE}\" is null"));
        let select = SelectSpec { from: String::new(), condition, columns: None, add: None };
        // A step cannot have such a name.
        let name = format!("{name}/upsert");
        let step = select.plan(&[rows], &mut self.cx)?;
        planned.push(Some(StepPlan { name, verb: "select", from: vec![from], step, identity: 0 }));
        self.upserts.push(select);
        Some(StreamId::Step(planned.len() - 1))
    }

    /// A topic's key columns, and those in the text of a message, are columns of the stream.
    fn check_sink_columns(&mut self, table: &[&str; 3], sink: &SinkSpec, rows: &Schema) {
        let key = match &sink.connector {
            SinkConnector::Log(config) => &config.key,
            #[cfg(feature = "kafka")]
            SinkConnector::Kafka(config) => &config.key,
            #[cfg(feature = "redis")]
            SinkConnector::Redis(config) => &config.key,
            #[cfg(feature = "kinesis")]
            SinkConnector::Kinesis(config) => {
                if rows.index_of(config.id_field()).is_ok() {
                    let message = format!(
                        "the rows have a column `{}`, which is to be a record's identity; say another `id_field`",
                        config.id_field()
                    );
                    self.cx.problem([table[0], table[1], table[2], "id_field"], message);
                }
                &config.key
            }
            SinkConnector::File(_) => return,
            SinkConnector::Webhook(config) => {
                // What is wrong with the text itself has been said.
                for column in config.columns().unwrap_or_default() {
                    if rows.index_of(&column).is_err() {
                        let known = rows.fields().iter().skip(1).map(|field| field.name().clone());
                        self.cx.unknown([table[0], table[1], table[2], "text"], "column", &column, known);
                    }
                }
                return;
            }
        };
        for (index, column) in key.iter().enumerate() {
            if rows.index_of(column).is_err() {
                let index = index.to_string();
                let known = rows.fields().iter().map(|field| field.name().clone());
                let path = [table[0], table[1], table[2], "key", index.as_str()];
                self.cx.unknown(path, "column", column, known);
            }
        }
    }

    fn dead_letters(&self) -> Option<Arc<dyn SinkFactory>> {
        self.dead_letter_topic().map(|topic| self.connections.side_topic(&topic))
    }

    fn dead_letter_topic(&self) -> Option<String> {
        self.spec.job.dead_letter_topic()
    }

    /// What the page reads is what the job reads or writes.
    fn check_page(&mut self, sources: &[SourceView], steps: &[Option<StepPlan>], sinks: &[Option<SinkPlan>]) {
        let spec = self.spec;
        let Some(page) = &spec.page else { return };
        let columns = |schema: &Schema| -> Vec<PageColumn> {
            let fields = schema.fields().iter().filter(|field| field.name() != TIME_COLUMN);
            fields.map(|field| PageColumn::new(field)).collect()
        };
        let mut topics = page::Topics::new();
        for (source, view) in spec.source.values().zip(sources) {
            if let SourceConnector::Log(config) = &source.connector {
                topics.insert(config.topic.clone(), Some(columns(&view.schema)));
            }
        }
        for (sink, planned) in spec.sink.values().zip(sinks) {
            let SinkConnector::Log(config) = &sink.connector else { continue };
            let known = planned.as_ref().and_then(|sink| {
                let mut known = columns(schema(sources, steps, sink.from)?.as_ref());
                if let StreamId::Step(step) = sink.from
                    && steps.get(step)?.as_ref()?.verb == "correlate"
                {
                    let kind = known.iter_mut().find(|column| column.name == "kind")?;
                    kind.values = Some(&correlate::KINDS);
                }
                Some(known)
            });
            topics.insert(config.topic.clone(), known);
        }
        if let Some(topic) = self.dead_letter_topic() {
            topics.insert(topic, Some(columns(&dead_letter_schema())));
        }
        if let Some(topic) = &spec.job.late {
            topics.insert(topic.clone(), Some(columns(&ledger_schema())));
        }
        page::check(page, &topics, &mut self.cx);
    }

    /// Leaves in each source only the columns that are used, and plans the steps again over these.
    fn narrow(&mut self, plan: &mut Plan, order: &[usize]) {
        let upserts = self.upserts.iter().map(|upsert| upsert as &dyn StepSpec);
        let specs: Vec<&dyn StepSpec> =
            order.iter().map(|&index| self.steps[index].spec).chain(upserts).collect();
        let used = prune::used_columns(plan, &specs);
        for (source, used) in plan.sources.iter_mut().zip(&used) {
            prune::narrow(source, used);
        }
        for (place, &index) in order.iter().enumerate() {
            let inputs: Vec<SchemaRef> =
                plan.steps[place].from.iter().map(|&stream| Arc::clone(plan.schema(stream))).collect();
            if let Some(step) = self.plan_step(&self.steps[index], &inputs) {
                plan.steps[place].step = step;
            }
        }
        for (place, upsert) in (order.len()..).zip(&self.upserts) {
            let inputs = [Arc::clone(plan.schema(plan.steps[place].from[0]))];
            if let Some(step) = upsert.plan(&inputs, &mut self.cx) {
                plan.steps[place].step = step;
            }
        }
    }
}

fn step_table(step: &StepDraft<'_>) -> [String; 3] {
    ["step", step.name, step.verb].map(String::from)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn not_a_name(name: &str) -> String {
    format!("`{name}` is not a name: use letters, digits, `_` and `-`")
}
