//! The operators, a file each, and the one list of them.
//!
//! To add one: write a folder `operators/<verb>` with its spec and its struct, and a line below; a file `<verb>.rs` does for
//! a small one, if its line says so. The comment of the line, the module's own and those of the spec's fields are what the
//! reference says of it.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::StepSpec;

/// Where a step's module stands, from here.
macro_rules! module_file {
    ($verb:ident) => {
        concat!(stringify!($verb), "/mod.rs")
    };
    ($verb:ident $file:literal) => {
        $file
    };
}

macro_rules! steps {
    ($($(#[$doc:meta])* $verb:ident => $variant:ident($spec:ident) $(in $file:literal)?),* $(,)?) => {
        $(pub mod $verb;)*

        /// A step of a job file: `[step.NAME.VERB]`.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub enum Step {
            $($(#[$doc])* $variant($verb::$spec)),*
        }

        impl Step {
            /// Every verb.
            pub const VERBS: &'static [&'static str] = &[$(stringify!($verb)),*];

            /// The Rust text of a verb's module, which begins with what is to be said of it at length.
            pub fn module(verb: &str) -> Option<&'static str> {
                match verb {
                    $(stringify!($verb) => Some(include_str!(module_file!($verb $($file)?))),)*
                    _ => None,
                }
            }

            /// The verb: `window`.
            pub fn verb(&self) -> &'static str {
                match self { $(Step::$variant(_) => stringify!($verb)),* }
            }

            /// What the step wants, behind the one trait.
            pub fn spec(&self) -> &dyn StepSpec {
                match self { $(Step::$variant(spec) => spec),* }
            }
        }
    };
}

steps! {
    /// Keeps some rows, and makes columns of expressions.
    select => Select(SelectSpec) in "select.rs",
    /// Makes several streams one.
    union => Union(UnionSpec) in "union.rs",
    /// Of rows that repeat, the first.
    dedupe => Dedupe(DedupeSpec) in "dedupe.rs",
    /// Aggregates over spans of event time.
    window => Window(WindowSpec),
    /// Adds the columns of a reference table that may change.
    join => Join(JoinSpec),
    /// Aggregates of all rows of a key so far.
    group => Group(GroupSpec),
    /// The first rows of each key in an order.
    top => Top(TopSpec),
    /// Pairs rows of two streams that are near in time.
    pair => Pair(PairSpec),
    /// Recognizes patterns over the rows of a key.
    recognize => Recognize(RecognizeSpec),
    /// Finds unusual values.
    detect => Detect(DetectSpec),
    /// Gathers related events into incidents.
    correlate => Correlate(CorrelateSpec),
    /// Groups alerts and tells of them: new, changed, repeated, over, escalated.
    alert => Alert(AlertSpec),
    /// Scores the last events of a key with a model.
    score => Score(ScoreSpec),
    /// Decides by policy.
    decide => Decide(DecideSpec),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}
