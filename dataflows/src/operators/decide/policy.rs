//! A policy: when to do what.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::json;
use crate::expressions::Expression;
use crate::operator::OperatorError;
use crate::plan::PlanContext;

/// A policy: when to do what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// Its name, which decisions carry. Renaming a policy ends its cooldowns.
    pub name: String,
    /// A condition in SQL over the row's columns and those of the state.
    pub when: String,
    /// What to do, in a word that the receiver of decisions knows.
    pub action: String,
    /// Details of the action, each an expression in SQL.
    #[serde(default)]
    pub parameters: IndexMap<String, String>,
    /// For how long after it has fired it does not fire again for the same key, in event time: `3h`.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub cooldown: Option<String>,
    /// Policies with a higher priority have their turn first.
    #[serde(default)]
    pub priority: i64,
    /// Names this form of the policy in decisions. By default 16 hex digits that change with anything
    /// else that is written here.
    #[serde(default)]
    pub version: Option<String>,
}

/// A policy that has been checked.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub version: String,
    pub action: String,
    /// The condition as it was written.
    pub reason: String,
    pub when: Expression,
    pub parameters: Vec<(String, Expression)>,
    /// 0 for none.
    pub cooldown_ms: i64,
    pub priority: i64,
}

impl PolicySpec {
    /// Checks policy number `index` against what policies see; `None` if there was a problem.
    pub fn plan(&self, index: usize, seen: &Schema, cx: &mut PlanContext<'_>) -> Option<Policy> {
        let index = index.to_string();
        let at = |field| ["policies", index.as_str(), field];
        for (field, text) in [("name", &self.name), ("action", &self.action)] {
            if text.trim().is_empty() {
                cx.problem(at(field), "it is empty");
            }
        }
        let when =
            Expression::condition(&self.when, seen).map_err(|problem| problem.report(cx, at("when"))).ok();
        let mut parameters = Vec::new();
        for (name, text) in &self.parameters {
            match Expression::parse(text, seen) {
                Ok(expression) => parameters.push((name.clone(), expression)),
                Err(problem) => {
                    // What is one word only may have been meant as a text.
                    let is_word = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                    let problem = match is_word && problem.unknown.is_some() {
                        true => problem.help(format!("text goes in single quotes: \"'{text}'\"")),
                        false => problem,
                    };
                    problem.report(cx, ["policies", &index, "parameters", name]);
                }
            }
        }
        let cooldown = self.cooldown.as_deref().and_then(|text| cx.duration(at("cooldown"), text));
        let cooldown_ms = cooldown.unwrap_or_default();
        Some(Policy {
            name: self.name.clone(),
            version: self.version.clone().unwrap_or_else(|| self.hash(cooldown_ms)),
            action: self.action.clone(),
            reason: self.when.trim().to_string(),
            when: when?,
            parameters,
            cooldown_ms,
            priority: self.priority,
        })
    }

    /// The hash of all that is written, as a JSON array.
    fn hash(&self, cooldown_ms: i64) -> String {
        let parameters: Vec<_> = self.parameters.iter().collect();
        let all = (&self.name, self.when.trim(), &self.action, parameters, cooldown_ms, self.priority);
        format!("{:016x}", xxh3_64(serde_json::json!(all).to_string().as_bytes()))
    }
}

impl Policy {
    /// The parameters for each of `rows`, as JSON objects with the keys in the file's order.
    pub fn parameters(&self, rows: &RecordBatch) -> Result<Vec<String>, OperatorError> {
        let values = self
            .parameters
            .iter()
            .map(|(_, expression)| expression.evaluate(rows))
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let named = self.parameters.iter().map(|(name, expression)| expression.field(name));
        let fields: Vec<Field> = named.collect();
        let object = |row| {
            json::object(fields.iter().zip(values.iter().map(|column| column.as_ref() as &dyn Array)), row)
        };
        Ok((0..rows.num_rows()).map(object).collect())
    }
}
