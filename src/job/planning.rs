//! From specs to a [`Plan`]: names, schemas, steps in an order in which each follows what it reads.
//!
//! Free of TOML: a problem names its field by a path from the top of the job. A step is planned only
//! if all that it reads is known to be right; otherwise whatever is wrong there was already reported.
//! Once nothing is wrong, [`super::prune`] finds the columns that are used, and the steps are planned
//! again over sources that decode no others.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use indexmap::IndexMap;
use levada_dataflows::plan::{
    EpochSettings, EventTimePlan, Plan, PlanContext, PlannedStep, Problem, SinkOrder, SinkPlan, SourcePlan,
    StepPlan, StepSpec, StreamId,
};
use levada_types::decode::dead_letter_schema;
use levada_types::{Batch, SinkFactory, TIME_COLUMN, parse_duration_ms};

use super::connect::Connections;
use super::spec::{
    ColumnType, EventTimeSpec, JobSettings, JobSpec, SinkConnector, SinkSpec, SourceConnector, SourceSpec,
};
use super::{Environment, page, prune, world};

/// What ends the name of the stream of a step's late rows.
const LATE: &str = ".late";

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
        connections: Connections::new(environment),
        spec,
        steps,
        broken,
        look: environment.look,
    };
    let plan = planner.run();
    let problems = planner.cx.problems;
    let warnings = plan.as_ref().map(unread).unwrap_or_default();
    Drawn { plan: plan.filter(|_| problems.is_empty()), problems, warnings }
}

struct Planner<'a> {
    cx: PlanContext<'a>,
    connections: Connections,
    spec: &'a JobSpec,
    steps: &'a [StepDraft<'a>],
    broken: &'a BTreeSet<&'a str>,
    look: bool,
}

/// What a `from` turned out to be.
#[derive(Clone, Copy)]
enum Found {
    Source(usize),
    Step(usize),
    Late(usize),
    /// Wrong, or of something that is wrong; reported.
    Wrong,
}

impl Planner<'_> {
    fn run(&mut self) -> Option<Plan> {
        let epochs = self.settings();
        self.check_names();
        let sources: Vec<Option<SourcePlan>> =
            self.spec.source.iter().map(|(name, source)| self.source(name, source)).collect();
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
        let planned = self.plan_steps(&sources, &order, &from);
        let sinks: Vec<Option<SinkPlan>> = self.sinks(&sources, &planned, &places);
        let dead_letters = self.dead_letters();
        self.check_page(&sources, &planned, &sinks);

        // From here on all is there, or something was reported.
        let sources: Vec<SourcePlan> = sources.into_iter().collect::<Option<_>>()?;
        let planned: Vec<StepPlan> = planned.into_iter().collect::<Option<_>>()?;
        let sinks: Vec<SinkPlan> = sinks.into_iter().collect::<Option<_>>()?;
        if !self.cx.problems.is_empty() || planned.len() < self.steps.len() {
            return None;
        }
        let mut plan =
            Plan { name: self.spec.job.name.clone(), epochs, sources, steps: planned, sinks, dead_letters };
        self.narrow(&mut plan, &order);
        Some(plan)
    }

    fn settings(&mut self) -> EpochSettings {
        let job: &JobSettings = &self.spec.job;
        if !is_name(&job.name) {
            self.cx.problem(["job", "name"], not_a_name(&job.name));
        }
        let interval_ms = self.duration(&["job", "epoch"], &job.epoch).unwrap_or(1);
        if interval_ms == 0 {
            self.cx.problem(["job", "epoch"], "an epoch of no length would never end");
        }
        EpochSettings {
            interval_ms: interval_ms.unsigned_abs(),
            in_flight: job.in_flight,
            ..EpochSettings::default()
        }
    }

    fn duration(&mut self, path: &[&str], text: &str) -> Option<i64> {
        parse_duration_ms(text).map_err(|why| self.cx.problem(path, why)).ok()
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

    fn source(&mut self, name: &str, source: &SourceSpec) -> Option<SourcePlan> {
        let before = self.cx.problems.len();
        let kind = source.connector.kind();
        let common = &source.common;
        if common.schema.contains_key(TIME_COLUMN) {
            let message = format!("`{TIME_COLUMN}` is the name of the row's own time; choose another");
            self.cx.problem(["source", name, kind, "schema", TIME_COLUMN], message);
        }
        let fields: Vec<_> = common.schema.iter().map(|(column, kind)| kind.field(column)).collect();
        let decoded: SchemaRef = Arc::new(Schema::new(fields));
        let event_time = match &common.event_time {
            Some(spec) => self.event_time(&["source", name, kind, "event_time"], spec, &common.schema),
            None => None,
        };
        let reading = self.connections.source(source);
        let reading = reading.map_err(|wrong| self.misconnected(&["source", name, kind], wrong)).ok();
        if self.look {
            world::look(name, source, &mut self.cx);
        }
        if self.cx.problems.len() > before {
            return None;
        }
        let (reader, decoder) = reading?;
        let schema = timed(&decoded);
        Some(SourcePlan { name: name.into(), schema, event_time, reader, decoder, decoded })
    }

    fn misconnected(&mut self, table: &[&str; 3], (field, message): (Option<&str>, String)) {
        self.cx.problem(table.iter().copied().chain(field), message);
    }

    fn event_time(
        &mut self,
        path: &[&str; 4],
        spec: &EventTimeSpec,
        schema: &IndexMap<String, ColumnType>,
    ) -> Option<EventTimePlan> {
        let at = |field: &'static str| [path[0], path[1], path[2], path[3], field];
        let column = schema.get_full(&spec.column);
        match column {
            None => self.cx.unknown(at("column"), "column", &spec.column, schema.keys().cloned()),
            Some((_, _, kind)) if kind.data_type != Batch::timestamp_type() => {
                let message = format!("the event time `{}` is {kind}; it must be a timestamp", spec.column);
                self.cx.problem(at("column"), message);
            }
            Some((_, _, kind)) if kind.nullable => {
                let message = format!(
                    "the event time `{}` may be null; a row must have a time: declare it `timestamp`",
                    spec.column
                );
                self.cx.problem(at("column"), message);
            }
            Some(_) => {}
        }
        let out_of_order_ms = self.duration(&at("out_of_order"), &spec.out_of_order);
        let idle_ms = match &spec.idle {
            Some(text) => Some(self.duration(&at("idle"), text)?.unsigned_abs()),
            None => None,
        };
        Some(EventTimePlan { column: column?.0, out_of_order_ms: out_of_order_ms?, idle_ms })
    }

    /// The stream of a `from`.
    fn find(&mut self, path: &[&str], name: &str) -> Found {
        let base = name.strip_suffix(LATE);
        let step = |name: &str| self.steps.iter().position(|step| step.name == name);
        if self.broken.contains(name) || base.is_some_and(|base| self.broken.contains(base)) {
            return Found::Wrong;
        }
        if let Some(index) = self.spec.source.get_index_of(name) {
            return Found::Source(index);
        }
        if let Some(index) = step(name) {
            return Found::Step(index);
        }
        if let Some(index) = base.and_then(step) {
            return Found::Late(index);
        }
        if let Some(base) = base.filter(|base| self.spec.source.contains_key(*base)) {
            let message = format!("the source `{base}` has no late rows; only steps set rows aside as late");
            self.cx.problem(path, message);
            return Found::Wrong;
        }
        let sources = self.spec.source.keys().cloned();
        let known: Vec<String> = sources.chain(self.steps.iter().map(|step| step.name.to_string())).collect();
        self.cx.unknown(path, "stream", name, known);
        Found::Wrong
    }

    fn reads(&mut self, step: &StepDraft<'_>) -> Vec<Found> {
        let inputs = step.spec.inputs();
        let one = |(field, name): (Vec<&'static str>, &str)| {
            let mut path = vec!["step", step.name, step.verb];
            path.extend(field);
            self.find(&path, name)
        };
        inputs.into_iter().map(one).collect()
    }

    /// The steps in an order in which each follows what it reads, otherwise as in the file. Reports
    /// cycles; what is in or behind one is left out.
    fn order(&mut self, reads: &[Vec<Found>]) -> Vec<usize> {
        let upstream = |step: usize| {
            reads[step].iter().filter_map(|found| match found {
                Found::Step(i) | Found::Late(i) => Some(*i),
                _ => None,
            })
        };
        let mut order: Vec<usize> = Vec::new();
        let mut done = vec![false; reads.len()];
        while let Some(next) = (0..reads.len()).find(|&i| !done[i] && upstream(i).all(|from| done[from])) {
            done[next] = true;
            order.push(next);
        }
        let mut seen = done.clone();
        for start in 0..reads.len() {
            let mut trail: Vec<usize> = Vec::new();
            let mut at = start;
            while !seen[at] {
                seen[at] = true;
                trail.push(at);
                match upstream(at).find(|&from| !done[from]) {
                    Some(from) => at = from,
                    None => break,
                }
            }
            if let Some(begin) = trail.iter().position(|&step| step == at).filter(|_| !done[at]) {
                self.report_cycle(&trail[begin..]);
            }
        }
        order
    }

    fn report_cycle(&mut self, cycle: &[usize]) {
        let names: Vec<String> = cycle.iter().map(|&i| format!("`{}`", self.steps[i].name)).collect();
        let [first, others @ ..] = names.as_slice() else { return };
        let message = match others {
            [] => format!("{first} reads itself"),
            _ => format!("{first} reads {}, which reads {first}: a cycle", others.join(", which reads ")),
        };
        let step = &self.steps[cycle[0]];
        let next = self.steps[cycle[1 % cycle.len()]].name;
        let inputs = step.spec.inputs();
        let field = inputs.into_iter().find(|(_, name)| name.strip_suffix(LATE).unwrap_or(name) == next);
        let mut path = vec!["step", step.name, step.verb];
        path.extend(field.map(|(field, _)| field).unwrap_or_default());
        self.cx.problem(path, message);
    }

    fn plan_steps(
        &mut self,
        sources: &[Option<SourcePlan>],
        order: &[usize],
        from: &[Option<Vec<StreamId>>],
    ) -> Vec<Option<StepPlan>> {
        let mut planned: Vec<Option<StepPlan>> = Vec::new();
        for (&index, from) in order.iter().zip(from) {
            let step = &self.steps[index];
            let plan = from.as_ref().and_then(|from| {
                let inputs: Option<Vec<SchemaRef>> =
                    from.iter().map(|&stream| schema(sources, &planned, stream)).collect();
                let inputs = inputs?;
                if !self.late_is_there(step, from, &planned) {
                    return None;
                }
                let of_table = from.first().is_some_and(|&stream| is_table(sources, &planned, stream));
                let step_plan = self.plan_step(step, &inputs)?;
                if of_table && !step_plan.stateless {
                    self.timeless(step);
                    return None;
                }
                let name = step.name.to_string();
                Some(StepPlan { name, verb: step.verb, from: from.clone(), step: step_plan })
            });
            planned.push(plan);
        }
        planned
    }

    /// Plans a step; its problems' paths are made to start at the top.
    fn plan_step(&mut self, step: &StepDraft<'_>, inputs: &[SchemaRef]) -> Option<PlannedStep> {
        let before = self.cx.problems.len();
        let planned = step.spec.plan(inputs, &mut self.cx);
        let table = ["step", step.name, step.verb].map(String::from);
        for problem in &mut self.cx.problems[before..] {
            problem.path.splice(0..0, table.clone());
        }
        if planned.is_none() && self.cx.problems.len() == before {
            self.cx.problem(&table, "this step cannot be planned, and does not say why (a bug of levada's)");
        }
        planned.filter(|_| self.cx.problems.len() == before)
    }

    /// Reports that a step follows in time what has none.
    fn timeless(&mut self, step: &StepDraft<'_>) {
        let inputs = step.spec.inputs();
        let Some((field, name)) = inputs.first() else { return };
        let mut path = vec!["step", step.name, step.verb];
        path.extend(field);
        let verb = step.verb;
        let message = format!(
            "`{name}` is a table, whose rows have no time for a {verb} step to go by: its source has no `event_time`"
        );
        self.cx.problem(path, message);
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
        sources: &[Option<SourcePlan>],
        planned: &[Option<StepPlan>],
        places: &[Option<usize>],
    ) -> Vec<Option<SinkPlan>> {
        let spec = self.spec;
        let one = |(name, sink): (&String, &SinkSpec)| {
            let kind = sink.connector.kind();
            let path = ["sink", name, kind, "from"];
            let from = match self.find(&path, &sink.common.from) {
                Found::Source(i) => Some(StreamId::Source(i)),
                Found::Step(i) => places[i].map(StreamId::Step),
                Found::Late(i) => places[i].map(StreamId::Late),
                Found::Wrong => None,
            };
            let writer = self.connections.sink(sink);
            let writer = writer.map_err(|wrong| self.misconnected(&["sink", name, kind], wrong)).ok();
            let from = from.filter(|&stream| self.has_late(&path, stream, planned))?;
            if let Some(rows) = schema(sources, planned, from) {
                self.check_sink_key(&["sink", name, kind], sink, &rows);
            }
            Some(SinkPlan { name: name.clone(), from, order: order_of(from, planned)?, writer: writer? })
        };
        spec.sink.iter().map(one).collect()
    }

    /// A topic's key columns are columns of the stream.
    fn check_sink_key(&mut self, table: &[&str; 3], sink: &SinkSpec, rows: &Schema) {
        let SinkConnector::Log(config) = &sink.connector else { return };
        for (index, column) in config.key.iter().enumerate() {
            if rows.index_of(column).is_err() {
                let index = index.to_string();
                let known = rows.fields().iter().map(|field| field.name().clone());
                let path = [table[0], table[1], table[2], "key", index.as_str()];
                self.cx.unknown(path, "column", column, known);
            }
        }
    }

    fn dead_letters(&self) -> Option<Arc<dyn SinkFactory>> {
        self.dead_letter_topic().map(|topic| self.connections.dead_letters(&topic))
    }

    fn dead_letter_topic(&self) -> Option<String> {
        self.spec.job.dead_letter_topic()
    }

    /// What the page reads is what the job reads or writes.
    fn check_page(
        &mut self,
        sources: &[Option<SourcePlan>],
        steps: &[Option<StepPlan>],
        sinks: &[Option<SinkPlan>],
    ) {
        let spec = self.spec;
        let Some(page) = &spec.page else { return };
        let names = |schema: &Schema| -> Vec<String> {
            let fields = schema.fields().iter().map(|field| field.name().clone());
            fields.filter(|name| name != TIME_COLUMN).collect()
        };
        let mut topics = page::Topics::new();
        for source in spec.source.values() {
            if let SourceConnector::Log(config) = &source.connector {
                topics.insert(config.topic.clone(), Some(source.common.schema.keys().cloned().collect()));
            }
        }
        for (sink, planned) in spec.sink.values().zip(sinks) {
            if let SinkConnector::Log(config) = &sink.connector {
                let rows = planned.as_ref().and_then(|sink| schema(sources, steps, sink.from));
                topics.insert(config.topic.clone(), rows.as_deref().map(names));
            }
        }
        if let Some(topic) = self.dead_letter_topic() {
            topics.insert(topic, Some(names(&dead_letter_schema())));
        }
        page::check(page, &topics, &mut self.cx);
    }

    /// Leaves in each source only the columns that are used, and plans the steps again over these.
    fn narrow(&mut self, plan: &mut Plan, order: &[usize]) {
        let specs: Vec<&dyn StepSpec> = order.iter().map(|&index| self.steps[index].spec).collect();
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
    }
}

/// The schema of a stream, if its maker is right.
fn schema(sources: &[Option<SourcePlan>], steps: &[Option<StepPlan>], stream: StreamId) -> Option<SchemaRef> {
    match stream {
        StreamId::Source(i) => sources.get(i)?.as_ref().map(|source| Arc::clone(&source.schema)),
        StreamId::Step(i) => steps.get(i)?.as_ref().map(|step| Arc::clone(&step.step.schema)),
        StreamId::Late(i) => schema(sources, steps, *steps.get(i)?.as_ref()?.from.first()?),
    }
}

/// Whether a stream's rows have no time: a source without event time, and what stateless steps make
/// of it.
fn is_table(sources: &[Option<SourcePlan>], steps: &[Option<StepPlan>], stream: StreamId) -> bool {
    match stream {
        StreamId::Source(i) => matches!(sources.get(i), Some(Some(source)) if source.event_time.is_none()),
        StreamId::Step(i) => match steps.get(i) {
            Some(Some(step)) if step.step.stateless => {
                step.from.iter().any(|&from| is_table(sources, steps, from))
            }
            _ => false,
        },
        StreamId::Late(_) => false,
    }
}

/// Rows keep their source's order as long as only stateless steps handle them.
fn order_of(stream: StreamId, steps: &[Option<StepPlan>]) -> Option<SinkOrder> {
    match stream {
        StreamId::Source(_) => Some(SinkOrder::Source),
        StreamId::Late(_) => Some(SinkOrder::Canonical),
        StreamId::Step(i) => {
            let step = steps.get(i)?.as_ref()?;
            if !step.step.stateless {
                return Some(SinkOrder::Canonical);
            }
            let orders: Option<Vec<SinkOrder>> =
                step.from.iter().map(|&from| order_of(from, steps)).collect();
            let canonical = orders?.contains(&SinkOrder::Canonical);
            Some(if canonical { SinkOrder::Canonical } else { SinkOrder::Source })
        }
    }
}

/// Streams that nobody reads.
fn unread(plan: &Plan) -> Vec<Problem> {
    let read: BTreeSet<StreamId> = plan
        .steps
        .iter()
        .flat_map(|step| &step.from)
        .chain(plan.sinks.iter().map(|sink| &sink.from))
        .copied()
        .collect();
    let sources =
        plan.sources.iter().enumerate().map(|(i, s)| ([StreamId::Source(i)].to_vec(), "source", &s.name));
    let steps = plan
        .steps
        .iter()
        .enumerate()
        .map(|(i, s)| ([StreamId::Step(i), StreamId::Late(i)].to_vec(), "step", &s.name));
    sources
        .chain(steps)
        .filter(|(streams, ..)| !streams.iter().any(|stream| read.contains(stream)))
        .map(|(_, section, name)| Problem {
            path: vec![section.to_string(), name.clone()],
            message: format!("nothing reads the {section} `{name}`"),
            within: None,
            known: Vec::new(),
            wrong: None,
        })
        .collect()
}

/// A schema with the time column before it.
pub fn timed(decoded: &Schema) -> SchemaRef {
    let time = std::iter::once(Arc::new(Batch::time_field()));
    Arc::new(Schema::new(time.chain(decoded.fields().iter().cloned()).collect::<Vec<_>>()))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn not_a_name(name: &str) -> String {
    format!("`{name}` is not a name: use letters, digits, `_` and `-`")
}
