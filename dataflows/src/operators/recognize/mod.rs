//! `recognize`: patterns over the rows of a key.
//!
//! ```text
//!   rows of ada     failed  failed  locked  failed  ok           pattern = "F{3,} S", relaxed, within 10m
//!                     F       F               F      S  ──► a match: 4 rows, failures = COUNT(F.*) = 3
//!   rows of bob     failed  ok ───────────────────────────► none: two failures are missing
//! ```
//!
//! In: a stream in time order, by key. Out: a row a match, and if wanted one for what ran out of time.
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `_time`, `at` | timestamp | when it was told |
//! | the key columns | | as in the rows |
//! | `match_id` | string | 32 hex digits over the key, the rows and their variables: the same match, the same id |
//! | `outcome` | string | `matched` or `timed_out` |
//! | `first_at`, `last_at` | timestamp | the times of its first and its last row |
//! | `rows` | int | how many rows it has |
//! | the measures | | what they say of its rows |
//!
//! A key or a measure that is called `at`, `first_at`, `last_at` or `rows` takes the place of that column.
//!
//! # Patterns
//!
//! | | |
//! | --- | --- |
//! | `A` | a row that satisfies the definition of `A`; any row, if it has none |
//! | `A B` | one behind the other |
//! | `A \| B` | one of them, `A` if both can be |
//! | `(A B)` | a group |
//! | `A?` `A*` `A+` `A{3}` `A{2,}` `A{2,4}` `A{,4}` | so many, greedy: the more the better |
//! | `A??` `A*?` `A+?` `A{2,4}?` … | reluctant: the fewer the better |
//! | `B within 5m` | a row of `B` at most five minutes after the row before it |
//! | `A !N B` | no row of `N` between the two; with an `N` without a definition, no row at all |
//! | `A !N within 5m` | at the end: no row of `N` in the five minutes after the last row |
//!
//! # What is a match
//!
//! Let `r1, r2, …` be the rows of a key, by time and at equal times by content. A **trace** is a sequence of rows, each with
//! a variable, the rows growing. It is **partial** if the pattern, read from its beginning, can go on to these variables in
//! this order, so that:
//! - each row satisfies the definition of its variable, given the rows of the trace *before* it;
//! - each row is at most `within` after the first, and at most its step's `within` after the one before;
//! - for each `!N` between two neighbours no row strictly between these satisfies `N`, given the trace up to the first of
//!   them;
//! - **contiguity**: `strict`: between neighbours there is no row. `relaxed`: no row between two neighbours could have come
//!   behind the first of them, that is, would have made the trace up to there a longer partial one. `relaxed_any`: any rows
//!   may stand between.
//!
//! It is a **match** if it is partial and the pattern may end there; with an absence at the end, if besides no row behind it
//! and no more than so long after its last row satisfies the variable, given the trace. "At most" includes: a row at the
//! very deadline is in time. A repetition of something that can be empty (`(A? B?)+`) has at least one row each time round.
//!
//! **Preference.** At each place the pattern says what may come next, the best first: of `A | B` what `A` begins with, of a
//! greedy repetition once more before what stands behind it, of a reluctant one after; the end is one of these. Of two
//! matches that begin with the same row that is better which goes the better way where they part; if they part only in the
//! row that the same step takes (`relaxed_any`), the one with the earlier row.
//!
//! # What is told, and when
//!
//! With `after_match = "none"` all matches are told, each at the time of its last row or, by an absence, of its deadline.
//! Otherwise rows are tried in their order as the first of a match. Of the matches that begin with a row only the **best**
//! is told, and then tried next is
//!
//! | `after_match` | the row |
//! | --- | --- |
//! | `"past_last"` | behind the last of the match: matches do not overlap |
//! | `"to_next"` | behind the first of the match |
//! | `{ to_first = "B" }`, `{ to_last = "B" }` | that is the match's first or last of `B`, if that is not its first row |
//!
//! The match is told as soon as it is **decided**: as it has come about, and nothing that was waited for could become a
//! better one. What a partial trace waits for is over when its deadline passes, a forbidden row comes, or, in its contiguity,
//! a row comes behind which it cannot. So `A B+` is told when no further `B` can come; `A B+?` with its first. Except with
//! `none` and `to_next`, a match also waits until those are decided that could begin before it: they might skip it. So
//! matches are told in the order of their first rows.
//!
//! With `timed_out`, partial traces that ran out of time are told: those that are no match and for which the last thing that
//! they waited for was ended by its deadline, not by a row. With `none` all of them, at that deadline; else, of a first row
//! with which no match begins, the one that ran out last (of several the best), when that is decided.
//!
//! A deadline passes when the watermark is beyond it, as all rows of its time have come; what it decides is told with its
//! time, in the epoch in which the watermark passes it. So what is told, and with which time, depends on the rows alone, not
//! on epochs. With the end of the input all deadlines pass. Late rows go to the step's late output. Rows without a time have
//! no place in the order and are left out.
//!
//! # Conditions and measures
//!
//! SQL over the columns of the row. Beside them stands what the trace has so far, **without** the row that is judged (in
//! SQL's `MATCH_RECOGNIZE` that one counts):
//!
//! | | |
//! | --- | --- |
//! | `PREV(x)`, `PREV(x, 2)` | in the row of the trace before, or before that; null if there is none |
//! | `FIRST(A.x)`, `LAST(A.x)`, `A.x` | in the first or last row of `A`; null if there is none |
//! | `COUNT(A.*)`, `COUNT(A.x)` | how many rows of `A` there are, or have a value |
//! | `SUM(A.x)`, `AVG(A.x)`, `MIN(A.x)`, `MAX(A.x)` | over the rows of `A`; nulls are left out, null of nothing |
//! | `COUNT(*)`, `SUM(x)`, `FIRST(x)`, … | over all rows of the trace |
//!
//! What stands in such a call may be any expression over one row: `SUM(A.bytes / 1024)`. In a measure, which sees the whole
//! match, a column alone is that of its last row.
//!
//! # Rules that change
//!
//! With `rules` the patterns come on a second stream, and may change while the job runs: see [`rules`]. What is told of a match
//! then has the columns `rule` and `version`, its measures as JSON in `measures`, and beside `matched` and `timed_out` there are
//! outcomes that tell of changes, with a `reason` where one is refused.
//!
//! # Bounds and cost
//!
//! A partial trace takes some 50 bytes of a checkpoint beside its running values (see `running.rs`), however many rows it
//! has. Of a key there are at most `max_partial`, with matches that are not told yet; when a row brings more, the oldest are
//! given up, by their first rows and among those of one the worst first, and counted (`evicted`). A match whose better ones
//! were given up is told. Every row that can be waited for must have a deadline, or the spec is refused; with it passes the
//! last of a key, which is then forgotten.
//!
//! A row costs a look-up of its key, the parts of conditions that see only the row (once a batch), and a look at what the key
//! waits for. Conditions that look back are asked for all keys of a batch at once, a row of each at a time, so with few keys
//! a question costs more. In `examples/recognize_rate.rs`, on a busy machine, a row of 1,000 keys cost 0.35 microseconds of
//! CPU where nothing looks back, and 10 where some tens of partial traces a key do. At worst, when each row extends all
//! `max_partial` traces (100), it costs that many copies: 20 to 60 microseconds. It grows no more once a key is full.

mod attempt;
mod automaton;
mod changing;
mod growth;
mod known;
mod nodes;
mod operator;
mod output;
mod partial;
mod pattern;
mod plan;
mod references;
mod rules;
mod running;
mod spec;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

pub use rules::{Replaced, RulesSpec};

/// Recognizes patterns over the rows of a key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecognizeSpec {
    /// The stream that it reads.
    pub from: String,
    /// Rows of the same values in these columns are looked at together. With none, all rows are.
    #[serde(default)]
    pub key: Vec<String>,
    /// The pattern, of variables: `A B+? (C | D){2,4} !N E`, or `A !B within 5m`. Needed if there are no `rules`.
    #[serde(default)]
    pub pattern: String,
    /// Rules that come on a stream of their own, and may change while the job runs, instead of one pattern here.
    #[serde(default)]
    pub rules: Option<RulesSpec>,
    /// For each variable a condition in SQL that its rows satisfy: over the row's columns and over the rows that the match
    /// has so far, as `PREV(x)`, `LAST(A.x)`, `COUNT(A.*)`. A variable without one is satisfied by any row.
    #[serde(default)]
    pub define: IndexMap<String, String>,
    /// Which rows may stand between those of a match. By default `strict`.
    #[serde(default)]
    pub contiguity: Contiguity,
    /// The longest time from the first row of a match to its last. Needed wherever a row could be waited for for ever.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: Option<String>,
    /// Which rows may begin the next match. By default `past_last`.
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
