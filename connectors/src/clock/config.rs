//! What a job file says of a clock.

use schemars::JsonSchema;
use serde::Deserialize;

/// `[source.NAME.clock]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockSourceConfig {
    /// How often it ticks.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub every: String,
    /// The topic of the embedded log that its ticks are kept in; `JOB.NAME` by default.
    #[serde(default)]
    pub topic: Option<String>,
    /// Ticks are deleted so long after they were written. A job that begins with its first record needs them all; one that
    /// goes on needs those since its oldest checkpoint.
    #[serde(default)]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub retain: Option<String>,
}

impl ClockSourceConfig {
    /// The fields that say how it is reached and how patiently: a job is the same whatever they say.
    pub const REACHED_BY: &[&str] = &["retain"];

    /// The topic, of the clock `name` of a job.
    pub fn topic(&self, job: &str, name: &str) -> String {
        self.topic.clone().unwrap_or_else(|| format!("{job}.{name}"))
    }
}
