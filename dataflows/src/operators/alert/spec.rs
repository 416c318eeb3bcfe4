//! What a job file says of an `alert` step.

use schemars::JsonSchema;
use serde::Deserialize;

use super::calendar::TimesSpec;
use super::inhibit::InhibitSpec;

/// Groups alerts, tells of them once, again, and when they are over, and leaves out what is silenced, inhibited or muted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertSpec {
    /// The stream that it reads.
    pub from: String,
    /// Which rows fire: a condition in SQL. Without it, all that do not resolve.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// Which rows resolve the alert of their labels, whether or not `where` is true of them: a condition in SQL.
    #[serde(default)]
    pub resolved: Option<String>,
    /// The columns that an alert is known by: of type string, int or bool. A null and an empty text are no label.
    pub labels: Vec<String>,
    /// Columns of the newest row that are told with an alert.
    #[serde(default)]
    pub annotations: Vec<String>,
    /// A timestamp column: since when a row's alert has been firing. Without it, or where it is null, since the row.
    #[serde(default)]
    pub starts_at: Option<String>,
    /// A timestamp column: when a row's alert ends if no other row comes; where that is over, the row resolves it.
    #[serde(default)]
    pub ends_at: Option<String>,
    /// An alert of which no row has come for this long is over, whatever `ends_at` says. Not more than 100,000 times
    /// `group_interval`.
    #[serde(default = "default_resolve_timeout")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub resolve_timeout: String,
    /// Matchers, as `team="shop"`, of the alerts that are told of. The others only inhibit.
    #[serde(default)]
    pub matchers: Vec<String>,
    /// The labels by which alerts are gathered into one notification; `["..."]` are all. Without any, all alerts are.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// How long a new group waits for other alerts before it is first told of.
    #[serde(default = "default_group_wait")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub group_wait: String,
    /// How often it is looked whether a group that was told of has changed.
    #[serde(default = "default_group_interval")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub group_interval: String,
    /// After how long a group that has not changed is told of again: rounded up to a multiple of `group_interval`.
    #[serde(default = "default_repeat_interval")]
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub repeat_interval: String,
    /// Which alerts need not be told while others fire.
    #[serde(default)]
    pub inhibit: Vec<InhibitSpec>,
    /// Times of the calendar at which nothing is told.
    #[serde(default)]
    pub mute: Vec<TimesSpec>,
    /// Times of the calendar at which alone something is told.
    #[serde(default)]
    pub active: Vec<TimesSpec>,
    /// A stream of silences and acknowledgements, with the columns `action`, `id`, `matchers`, `fingerprint`, `group`,
    /// `starts_at`, `ends_at`, `by`, `comment`.
    #[serde(default)]
    pub actions: Option<String>,
    /// Who is told as well while nobody acknowledges, and when; each later than the one before.
    #[serde(default)]
    pub escalate: Vec<EscalateSpec>,
    /// When an alert that fires and resolves again and again is held firing.
    #[serde(default)]
    pub flapping: Option<FlappingSpec>,
    /// When many new groups become one notification.
    #[serde(default)]
    pub storm: Option<StormSpec>,
    /// Who is told: the column `receiver`.
    #[serde(default = "default_receiver")]
    pub receiver: String,
    /// Whether it is told that alerts are over.
    #[serde(default = "default_send_resolved")]
    pub send_resolved: bool,
    /// How many alerts are known at a time. Further ones are dropped, and the history says so.
    #[serde(default = "default_max_alerts")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_alerts: usize,
    /// How many silences are known at a time. Further ones are refused, and the history says so.
    #[serde(default = "default_max_silences")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_silences: usize,
}

/// A level of escalation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EscalateSpec {
    /// How long after the first notification of what nobody has acknowledged.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub after: String,
    /// Who is told then.
    pub to: String,
}

/// When an alert is flapping: it has begun or ended `changes` times `within` that long. It is held firing until nothing
/// has changed for `quiet`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlappingSpec {
    /// How many times it begins or ends.
    #[schemars(range(min = 2, max = 100))]
    pub changes: usize,
    /// Within how long.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: String,
    /// How long nothing changes until it counts as it is.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub quiet: String,
}

/// When new groups are a storm: more than `groups` of them are first told of `within` that long. The further ones are one
/// notification, which comes at most once in `group_interval`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StormSpec {
    /// How many new groups are told one by one.
    #[schemars(range(min = 1, max = 100_000))]
    pub groups: usize,
    /// Within how long.
    #[schemars(extend("pattern" = levada_types::DURATION_PATTERN))]
    pub within: String,
}

fn default_resolve_timeout() -> String {
    "5m".into()
}

fn default_group_wait() -> String {
    "30s".into()
}

fn default_group_interval() -> String {
    "5m".into()
}

fn default_repeat_interval() -> String {
    "4h".into()
}

fn default_receiver() -> String {
    "default".into()
}

fn default_send_resolved() -> bool {
    true
}

fn default_max_alerts() -> usize {
    100_000
}

fn default_max_silences() -> usize {
    1_000
}
