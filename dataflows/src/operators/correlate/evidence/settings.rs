//! What a job file asks of evidence, once checked.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use levada_types::TIME_COLUMN;

use super::super::spec::{Alike, CorrelateSpec, EvidenceSpec, LinkSpec, Settings, check_column};
use super::sentences::Model;
use crate::expressions::Expression;
use crate::plan::PlanContext;

/// Evidence is counted in thousandths, so that its sums do not depend on their order.
pub(super) const UNIT: f64 = 1000.0;
/// The most hops that a link may ask for.
const MAX_HOPS: u64 = 4;
/// The most candidates of each kind that an event may be compared with.
const MAX_CANDIDATES: u64 = 256;
/// The most values that an incident may be asked to have before it opens.
const MAX_MIN_AFFECTED: u64 = 1000;
/// The greatest weight, threshold or support: a million of them add up exactly.
const MAX_WEIGHT: f64 = 1e6;

/// A checked step that weighs evidence.
#[derive(Debug)]
pub(super) struct Weighing {
    /// What it has in common with every `correlate` step.
    pub(super) base: Settings,
    /// What each link asks for besides equal columns, in the order of [`Settings::links`].
    pub(super) links: Vec<Asked>,
    /// Evidence that makes an edge, and that makes an event a part of the core, in thousandths.
    pub(super) threshold: u64,
    pub(super) support: u64,
    pub(super) belongs: u64,
    /// The greatest share of texts that had a rare word.
    pub(super) rare_words: f64,
    pub(super) candidates: usize,
    pub(super) max_remembered: usize,
    pub(super) lateness_ms: i64,
    /// The most hops of any link; `None` if no link has any.
    pub(super) hops: Option<u8>,
    /// The place, in [`Settings::columns`], of where in the topology an event is, and of its text.
    pub(super) node: Option<usize>,
    pub(super) text: Option<usize>,
    /// What says how alike texts are, if their words do not.
    pub(super) sentences: Option<Model>,
    pub(super) withdraw: Option<Expression>,
    pub(super) topology: Option<TopologyColumns>,
    pub(super) assignments: bool,
    pub(super) min_affected: u64,
}

/// What a link asks for besides equal columns.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) hops: Option<u8>,
    pub(super) min_hops: u8,
    pub(super) rare: Option<Alike>,
    pub(super) mentions: Option<Alike>,
    pub(super) joins: bool,
    /// What the weight is multiplied by for each number of hops.
    pub(super) by_hops: Vec<f64>,
    pub(super) similarity: Option<f64>,
    pub(super) cause: Option<Expression>,
    pub(super) effect: Option<Expression>,
    pub(super) half_life_ms: Option<f64>,
}

/// Indices in the topology's schema.
#[derive(Debug)]
pub(super) struct TopologyColumns {
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) linked: Option<usize>,
}

impl Weighing {
    /// Whether some link asks how alike texts are by their words.
    pub(super) fn compares_words(&self) -> bool {
        self.sentences.is_none() && self.links.iter().any(|link| link.similarity.is_some())
    }

    /// How long after its time an event may still get an edge, or lose one.
    pub(super) fn settles_after(&self) -> i64 {
        self.lateness_ms.saturating_add(self.base.max_within_ms.saturating_mul(2))
    }

    /// How long after its time an event is of use to none that may still change.
    pub(super) fn forgotten_after(&self) -> i64 {
        self.settles_after().saturating_add(self.base.max_within_ms)
    }
}

impl CorrelateSpec {
    /// Checks the step; reports every problem.
    pub(super) fn weighing(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<Weighing> {
        let before = cx.problems.len();
        let input = inputs.first()?;
        let base = self.settings(input, cx);
        let topology = self.topology_columns(inputs, cx);
        let links: Vec<Asked> =
            (0..).zip(&self.link).map(|(index, link)| self.asked(index, link, input, cx)).collect();
        if let Some(text) = &self.text
            && check_column(cx, &["text"], text, input).is_some_and(|found| *found != DataType::Utf8)
        {
            cx.problem(["text"], format!("`{text}` is no text"));
        }
        let sentences = self.sentences.as_deref().and_then(|path| {
            if self.text.is_none() {
                cx.problem(["sentences"], "there is no `text` that it could read");
            }
            if self.link.iter().all(|link| link.similarity.is_none()) {
                cx.problem(["sentences"], "no link asks for `similarity`");
            }
            Model::plan(path, cx)
        });
        if let Some(affected) = &self.affected {
            check_column(cx, &["affected"], affected, input);
        }
        if let Some(least) = self.min_affected {
            if self.affected.is_none() {
                cx.problem(["min_affected"], "`affected` must say of which column they are the values");
            }
            if least > MAX_MIN_AFFECTED {
                cx.problem(["min_affected"], format!("this must be at most {MAX_MIN_AFFECTED}"));
            }
        }
        let default = EvidenceSpec::default();
        let evidence = self.evidence.as_deref().unwrap_or(&default);
        let threshold = weight(cx, &["evidence", "threshold"], evidence.threshold);
        if evidence.threshold <= 0.0 {
            cx.problem(["evidence", "threshold"], "events are linked by some evidence, so this must be greater than 0");
        }
        let support = match evidence.support {
            Some(support) => weight(cx, &["evidence", "support"], support),
            None => threshold,
        };
        let belongs = match evidence.belongs {
            Some(belongs) => weight(cx, &["evidence", "belongs"], belongs),
            None => threshold,
        };
        if let Some(share) = self.rare_words {
            if self.text.is_none() {
                cx.problem(["rare_words"], "there is no `text` that they could be words of");
            }
            if !(share > 0.0 && share < 1.0) {
                cx.problem(["rare_words"], "this must be greater than 0, and less than 1");
            }
        }
        if !(1..=MAX_CANDIDATES).contains(&evidence.candidates) {
            cx.problem(["evidence", "candidates"], format!("this must be from 1 to {MAX_CANDIDATES}"));
        }
        if evidence.max_remembered < 2 || evidence.max_remembered > u64::from(u32::MAX) / 2 {
            cx.problem(["evidence", "max_remembered"], "this must be from 2 to 2147483647");
        }
        let lateness_ms = self.allowed_lateness.as_deref().map(|text| cx.duration(["allowed_lateness"], text));
        let withdraw = self.withdraw.as_deref().and_then(|text| {
            if self.members.is_none() {
                cx.problem(["withdraw"], "a row withdraws the event of the same name, so `members` must say which column names it");
            }
            if self.allowed_lateness.is_none() {
                let message = "a row withdraws what came up to `allowed_lateness` before it, so that must be given";
                cx.problem(["withdraw"], message);
            }
            condition(cx, &["withdraw"], text, input)
        });
        if self.assignments && self.members.is_none() {
            cx.problem(["assignments"], "rows that tell of events name them, so `members` must say by which column");
        }
        if cx.problems.len() > before {
            return None;
        }
        let place = |name: &String| self.place(input, name);
        Some(Weighing {
            hops: links.iter().filter_map(|link| link.hops).max(),
            links,
            threshold: threshold.max(1),
            support,
            belongs,
            rare_words: self.rare_words.unwrap_or_default(),
            candidates: usize::try_from(evidence.candidates).unwrap_or(usize::MAX),
            max_remembered: usize::try_from(evidence.max_remembered).unwrap_or(usize::MAX),
            lateness_ms: lateness_ms.flatten().unwrap_or_default(),
            node: self.topology.as_ref().map(|topology| place(&topology.on)),
            text: self.text.as_ref().map(place),
            sentences,
            withdraw,
            topology,
            assignments: self.assignments,
            min_affected: self.min_affected.unwrap_or_default(),
            base: base?,
        })
    }

    pub(super) fn topology_columns(&self, inputs: &[SchemaRef], cx: &mut PlanContext<'_>) -> Option<TopologyColumns> {
        let spec = self.topology.as_ref()?;
        let node = check_column(cx, &["topology", "on"], &spec.on, inputs.first()?).cloned();
        let table = inputs.get(1)?;
        for (field, column) in [("a", &spec.a), ("b", &spec.b)] {
            let found = check_column(cx, &["topology", field], column, table);
            if let (Some(found), Some(node)) = (found, &node)
                && found != node
            {
                let message = format!("`{column}` has another type than `{}`, by which events are found in it", spec.on);
                cx.problem(["topology", field], message);
            }
        }
        if let Some(linked) = &spec.linked
            && check_column(cx, &["topology", "linked"], linked, table).is_some_and(|found| *found != DataType::Boolean)
        {
            cx.problem(["topology", "linked"], format!("`{linked}` is not true or false"));
        }
        let place = |name: &str| table.index_of(name).ok();
        let linked = match &spec.linked {
            Some(linked) => Some(place(linked)?),
            None => None,
        };
        Some(TopologyColumns { a: place(&spec.a)?, b: place(&spec.b)?, linked })
    }

    fn asked(&self, index: usize, link: &LinkSpec, input: &Schema, cx: &mut PlanContext<'_>) -> Asked {
        let number = index.to_string();
        let path = |field: &'static str| ["link", &number, field].map(str::to_string);
        if !(link.weight != 0.0 && link.weight.abs() <= MAX_WEIGHT) {
            cx.problem(path("weight"), format!("evidence must be other than 0, and at most {MAX_WEIGHT}"));
        }
        if link.min_hops.is_some_and(|least| link.hops.is_none_or(|most| least > most)) {
            cx.problem(path("min_hops"), "this must be at most `hops`");
        }
        let finds_all = link.weight > 0.0
            && link.hops.is_none()
            && link.on.is_empty()
            && link.similarity.is_none()
            && link.rare != Some(Alike::Same)
            && link.mentions != Some(Alike::Same);
        if link.rare.is_some() && self.rare_words.is_none() {
            cx.problem(path("rare"), "`rare_words` must say how rare that is");
        }
        if link.mentions.is_some() {
            if self.topology.is_none() || self.text.is_none() {
                cx.problem(path("mentions"), "there must be a `text` and a `topology` whose places it may name");
            }
            if link.mentions == Some(Alike::Different) && finds_all {
                let message = "every event would be compared with every other; add `hops`, `on` or `similarity`";
                cx.problem(path("mentions"), message);
            }
        }
        if link.rare == Some(Alike::Different) && finds_all {
            let message = "every event would be compared with every other; add `hops`, `on` or `similarity`";
            cx.problem(path("rare"), message);
        }
        if let Some(hops) = link.hops {
            if self.topology.is_none() {
                cx.problem(path("hops"), "there is no `topology` in which to count them");
            }
            if hops > MAX_HOPS {
                cx.problem(path("hops"), format!("this must be at most {MAX_HOPS}"));
            }
        }
        let per_hop = link.per_hop.unwrap_or(1.0);
        if !(per_hop > 0.0 && per_hop <= 1.0) {
            cx.problem(path("per_hop"), "this must be greater than 0, and at most 1");
        } else if link.per_hop.is_some() && link.hops.is_none() {
            cx.problem(path("per_hop"), "without `hops` the link does not look at the topology");
        }
        if let Some(similarity) = link.similarity {
            if self.text.is_none() {
                cx.problem(path("similarity"), "there is no `text` to compare");
            }
            if !(similarity > 0.0 && similarity <= 1.0) {
                cx.problem(path("similarity"), "this must be greater than 0, and at most 1");
            }
        }
        let half_life_ms = link.half_life.as_deref().and_then(|text| match cx.duration(path("half_life"), text)? {
            0 => {
                cx.problem(path("half_life"), "this must be longer than nothing");
                None
            }
            ms => Some(ms as f64),
        });
        let cause = link.cause.as_deref().and_then(|text| condition(cx, &path("cause"), text, input));
        let effect = link.effect.as_deref().and_then(|text| condition(cx, &path("effect"), text, input));
        let hops = link.hops.map(|hops| hops.min(MAX_HOPS) as u8);
        let by_hops = (0..=i32::from(hops.unwrap_or_default())).map(|hop| libm::pow(per_hop, f64::from(hop))).collect();
        Asked {
            hops,
            min_hops: link.min_hops.unwrap_or_default().min(MAX_HOPS) as u8,
            rare: link.rare,
            mentions: link.mentions,
            joins: link.joins,
            by_hops,
            similarity: link.similarity,
            cause,
            effect,
            half_life_ms,
        }
    }
}

/// A weight in thousandths.
fn weight(cx: &mut PlanContext<'_>, path: &[&str], weight: f64) -> u64 {
    if !(0.0..=MAX_WEIGHT).contains(&weight) {
        cx.problem(path, format!("this must be from 0 to {MAX_WEIGHT}"));
        return 0;
    }
    (weight * UNIT).round() as u64
}

/// A condition over columns that have cells; reports what is wrong with it.
fn condition<P: AsRef<str>>(cx: &mut PlanContext<'_>, path: &[P], text: &str, input: &Schema) -> Option<Expression> {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    match Expression::condition(text, input) {
        Ok(condition) => {
            for column in condition.columns().iter().filter(|name| *name != TIME_COLUMN) {
                check_column(cx, &path, column, input);
            }
            Some(condition)
        }
        Err(problem) => {
            problem.report(cx, path);
            None
        }
    }
}

/// Checks a step and gives what it will run by.
pub(super) fn checked(
    spec: &CorrelateSpec,
    inputs: &[SchemaRef],
    cx: &mut PlanContext<'_>,
) -> Option<Arc<Weighing>> {
    spec.weighing(inputs, cx).map(Arc::new)
}
