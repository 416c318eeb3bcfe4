//! Rules that change while the job runs: what a job file says of them, and what a rule is.
//!
//! ```text
//!   rules    09:00 probing {"pattern":"F{3,} S", …}        10:30 probing {"pattern":"F{5,} S", …}      12:00 probing null
//!            ├─────────── version 1 ─────────────┤├───────────── version 2 ─────────────────────┤
//!   rows of 10:30 and later are for version 2      └─ what version 1 has begun: abandoned, or goes on to its end
//! ```
//!
//! A change takes effect in event time: before the rows of its time, and behind those before it. So what is told depends on
//! the two streams alone. A rule that is set again as it was changes nothing; a change that comes late is not made.
//!
//! | `replaced` | what a rule has begun when it is replaced or removed |
//! | --- | --- |
//! | `abandon` | is given up, and counted (`evicted`) |
//! | `finish` | goes on to its match or its deadline under the old version; of more than [`MOST_ENDING`] old versions the oldest are abandoned |
//!
//! What other rules have begun is never touched. Out come, beside the rows of matches, rows of changes, whose `outcome` is
//! `rule_set`, `rule_removed` or `rule_refused` with the `reason`: of a rule that cannot be, the version before it stays.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::{Batch, ScoreError, TIME_COLUMN};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::RecognizeSpec;
use super::plan::RecognizePlan;
use super::spec::{AT, FIRST_AT, LAST_AT, MATCH_ID, OUTCOME, ROWS};
use crate::plan::PlanContext;

/// So many old versions go on to their end.
pub(super) const MOST_ENDING: usize = 100;
/// The greatest `max_rules`.
const MOST_RULES: usize = 1000;
/// The longest name of a rule, in bytes.
const MAX_NAME: usize = 256;
/// The longest definition, in bytes.
const MAX_DEFINITION: usize = 1 << 16;

/// The columns that tell of a rule.
const RULE: &str = "rule";
const VERSION: &str = "version";
const MEASURES: &str = "measures";
const REASON: &str = "reason";
/// Those of a match, behind the time and the key.
const OF_MATCH: [&str; 6] = [MATCH_ID, OUTCOME, AT, FIRST_AT, LAST_AT, ROWS];

/// Rules that come on a stream of their own, and may change while the job runs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSpec {
    /// The stream of changes. Nothing is recognized before its watermark, so its source should say `idle`.
    pub from: String,
    /// The column that names the rule. By default `rule`.
    #[serde(default = "default_name")]
    pub name: String,
    /// The column with the rule as JSON, an object with `pattern` and, as this step has them, `define`, `contiguity`, `within`,
    /// `after_match`, `measures`, `timed_out`, `max_partial`. A null removes the rule. By default `definition`.
    #[serde(default = "default_definition")]
    pub definition: String,
    /// What becomes of what a rule has begun when it is replaced or removed. By default `abandon`.
    #[serde(default)]
    pub replaced: Replaced,
    /// How many rules there may be at once. By default 100.
    #[serde(default = "default_max_rules")]
    pub max_rules: usize,
}

fn default_name() -> String {
    RULE.into()
}

fn default_definition() -> String {
    "definition".into()
}

fn default_max_rules() -> usize {
    100
}

/// What becomes of what a rule has begun when it is replaced or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replaced {
    /// It is given up, and counted.
    #[default]
    Abandon,
    /// It goes on to its match or its deadline, and nothing new begins.
    Finish,
}

/// A step with rules, checked.
#[derive(Debug)]
pub(super) struct RulesPlan {
    /// Of what it tells.
    pub schema: SchemaRef,
    /// Of the rows.
    pub input: SchemaRef,
    /// Names, and places in `input`.
    pub key: Vec<String>,
    pub key_columns: Vec<usize>,
    /// Places in the stream of changes.
    pub name: usize,
    pub definition: usize,
    pub replaced: Replaced,
    pub max_rules: usize,
}

impl RecognizeSpec {
    /// A step with rules; reports every problem.
    pub(super) fn checked_rules(
        &self,
        rules: &RulesSpec,
        input: &SchemaRef,
        changes: &Schema,
        cx: &mut PlanContext<'_>,
    ) -> Option<RulesPlan> {
        let before = cx.problems.len();
        for (field, is_there) in [
            ("pattern", !self.pattern.is_empty()),
            ("define", !self.define.is_empty()),
            ("contiguity", self.contiguity != Default::default()),
            ("within", self.within.is_some()),
            ("after_match", self.after_match != Default::default()),
            ("measures", !self.measures.is_empty()),
            ("timed_out", self.timed_out),
            ("max_partial", self.max_partial != super::default_max_partial()),
        ] {
            if is_there {
                cx.problem([field], "with `rules`, each rule says this for itself");
            }
        }
        cx.check_columns("key", &self.key, input);
        for (index, name) in self.key.iter().enumerate().filter(|(_, name)| is_taken(name)) {
            let message = format!("this step would emit two columns `{name}`; rename it in a select step before");
            cx.problem(["key", &index.to_string()], message);
        }
        let mut text = |field: &str, name: &str| {
            let place = changes.index_of(name).ok();
            match place.map(|place| changes.field(place).data_type()) {
                None => cx.unknown(["rules", field], "column", name, changes.fields().iter().map(|field| field.name().clone())),
                Some(DataType::Utf8) => {}
                Some(_) => cx.problem(["rules", field], format!("`{name}` is no text")),
            }
            place
        };
        let (name, definition) = (text("name", &rules.name), text("definition", &rules.definition));
        if !(1..=MOST_RULES).contains(&rules.max_rules) {
            cx.problem(["rules", "max_rules"], format!("there can be 1 to {MOST_RULES} rules"));
        }
        if cx.problems.len() > before {
            return None;
        }
        let key_columns: Vec<usize> = self.key.iter().filter_map(|name| input.index_of(name).ok()).collect();
        Some(RulesPlan {
            schema: schema(&key_columns, input),
            input: input.clone(),
            key: self.key.clone(),
            key_columns,
            name: name?,
            definition: definition?,
            replaced: rules.replaced,
            max_rules: rules.max_rules,
        })
    }
}

/// Whether a column of the output has that name in any case.
fn is_taken(name: &str) -> bool {
    OF_MATCH.into_iter().chain([TIME_COLUMN, RULE, VERSION, MEASURES, REASON]).any(|taken| taken == name)
}

/// The columns of what is told: those of a row that tells of a change are null where they are of a match.
fn schema(key: &[usize], input: &Schema) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str, null: bool| Field::new(name, Batch::timestamp_type(), null);
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let mut fields = vec![Batch::time_field()];
    fields.extend(key.iter().map(|&column| input.field(column).clone().with_nullable(true)));
    fields.extend([text(RULE), int(VERSION), text(MATCH_ID), text(OUTCOME).with_nullable(false)]);
    fields.extend([time(AT, false), time(FIRST_AT, true), time(LAST_AT, true), int(ROWS)]);
    fields.extend([Batch::json_field(MEASURES, true), text(REASON)]);
    Arc::new(Schema::new(fields))
}

impl RulesPlan {
    /// Checks a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(&self, name: &str, definition: &str) -> Result<RecognizePlan, String> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(format!("a rule has a name of 1 to {MAX_NAME} bytes"));
        }
        if definition.len() > MAX_DEFINITION {
            return Err(format!("a definition has at most {MAX_DEFINITION} bytes, and this one {}", definition.len()));
        }
        let mut fields: Map<String, Value> =
            serde_json::from_str(definition).map_err(|error| format!("it is no object in JSON: {error}"))?;
        if let Some(field) = ["from", "key", "rules"].into_iter().find(|field| fields.contains_key(*field)) {
            return Err(format!("`{field}` is a field of the step, not of a rule"));
        }
        fields.insert("from".into(), Value::from(""));
        fields.insert("key".into(), self.key.clone().into());
        let spec: RecognizeSpec = serde_json::from_value(fields.into()).map_err(|error| error.to_string())?;
        let taken = |name: &&String| is_taken(name) || self.key.contains(name);
        if let Some(name) = spec.measures.keys().find(taken) {
            return Err(format!("measures.{name}: a match has a column of that name"));
        }
        let no_models = |_: &str| Err(ScoreError::Run("rules have no models".into()));
        let mut cx = PlanContext { models: &no_models, problems: Vec::new() };
        let plan = spec.checked(&self.input, &mut cx);
        plan.filter(|_| cx.problems.is_empty()).ok_or_else(|| {
            let told = cx.problems.iter().map(|problem| format!("{}: {}", problem.path.join("."), problem.message));
            told.collect::<Vec<_>>().join("; ")
        })
    }
}
