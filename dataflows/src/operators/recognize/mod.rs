//! DOC

mod attempt;
mod automaton;
mod known;
mod operator;
mod output;
mod partial;
mod pattern;
mod references;
mod running;
mod spec;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// Recognizes patterns over the rows of a key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecognizeSpec {
    /// The stream that it reads.
    pub from: String,
    /// Rows of the same values in these columns are looked at together. With none, all rows are.
    #[serde(default)]
    pub key: Vec<String>,
    /// The pattern, of variables: `A B+? (C | D){2,4} !N E`, or `A !B within 5m`.
    pub pattern: String,
    /// For each variable a condition in SQL that its rows satisfy: over the row's columns and over the rows that the match
    /// has so far, as `PREV(x)`, `LAST(A.x)`, `COUNT(A.*)`. A variable without one is satisfied by any row.
    #[serde(default)]
    pub define: IndexMap<String, String>,
    /// Which rows may stand between those of a match.
    #[serde(default)]
    pub contiguity: Contiguity,
    /// The longest time from the first row of a match to its last. Needed wherever a row could be waited for for ever.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: Option<String>,
    /// Which rows may begin the next match.
    #[serde(default)]
    pub after_match: AfterMatch,
    /// Columns of a match, each an expression in SQL over its rows: `{ failures = "COUNT(A.*)", last = "LAST(B.x)" }`.
    #[serde(default)]
    pub measures: IndexMap<String, String>,
    /// Whether partial matches that ran out of time are told too.
    #[serde(default)]
    pub timed_out: bool,
    /// How many partial matches of a key are kept; if there are more, the oldest are given up, and counted.
    #[serde(default = "default_max_partial")]
    pub max_partial: usize,
}

fn default_max_partial() -> usize {
    100
}

/// Which rows may stand between those of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Contiguity {
    /// None: its rows are next to each other among those of the key.
    #[default]
    Strict,
    /// Those that could not be its next row.
    Relaxed,
    /// Any.
    RelaxedAny,
}

/// Which rows may begin the next match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterMatch {
    /// Those behind its last row.
    #[default]
    PastLast,
    /// Those behind its first row.
    ToNext,
    /// Its first row of a variable and those behind.
    ToFirst(String),
    /// Its last row of a variable and those behind.
    ToLast(String),
    /// Any, and of the matches that begin with a row not only the best is told, but all.
    None,
}
