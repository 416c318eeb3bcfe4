//! `alert`: rows become alerts, alerts become notifications: grouped, once, again, and when they are over.
//!
//! ```text
//!   rows ────► alerts by their labels ──► groups ──group_wait, group_interval──► what may be told ──► notifications
//!                 │ resolved, ends_at,                                              ▲                 and history
//!                 └ resolve_timeout          inhibited · muted · silenced ──────────┤
//!   actions ─► silences, acknowledgements ──────────────────────────────────────────┘
//! ```
//!
//! It does what Prometheus' Alertmanager does, by event time: the same rows tell the same, live and replayed. One step is one
//! route of Alertmanager's tree; several steps are several routes, each with its own `where`.
//!
//! **Alerts.** A row fires where `where` is true, and resolves where `resolved` is. An alert is known by its labels; each row
//! that fires puts off its end: to `ends_at`, or to `resolve_timeout` after the row, whichever is earlier. One that is over
//! and fires again is begun anew, its acknowledgement gone.
//!
//! **Groups.** Alerts of the same `group_by` labels are a group. It is first looked at `group_wait` after its first alert
//! came, at once if an alert began longer ago than that (`starts_at`), and then every `group_interval`. What a look finds,
//! among the alerts that are not left out:
//!
//! | finds | tells, and why |
//! | --- | --- |
//! | alerts fire, and the receiver knows of none | `new` |
//! | an alert fires that it does not know of | `changed` |
//! | alerts are over, others still fire (`send_resolved`) | `changed` |
//! | all are over, and it knows that some fired | `resolved` (noted only, without `send_resolved`) |
//! | the same as before, for `repeat_interval`, and not all acknowledged | `repeated` |
//!
//! What is over leaves the group with the look; a group without alerts is gone, and begins anew. What was over before it was
//! told of is never told of.
//!
//! **Left out** of a look, in this order of reasons: what is *inhibited* (a rule of `inhibit` has a source that fires, among
//! all alerts of the step), everything while `mute` or not `active`, what is *silenced*. It is told with the first look
//! after. Of what a receiver was told and that ends while it is left out, the receiver is not told the end, and it is told
//! of it again when it fires again.
//!
//! **Actions** are rows of the stream `actions`, at their event times:
//!
//! | `action` | does | with |
//! | --- | --- | --- |
//! | `acknowledge` | the alerts that fire are not repeated, and no longer escalate; what else is new is still told | `fingerprint`, `group` (both as told) or `matchers`: what is given has to agree; `by`, `comment` |
//! | `silence` | alerts that match are left out from `starts_at` (or now) until `ends_at`, which is no part of it | `matchers`, of which one does not match what is empty; `id`, in the place of one of that `id`; `by`, `comment` |
//! | `expire` | ends a silence | `id` |
//!
//! What cannot be done is `refused`, in the history. Matchers are written as `service="shop", severity=~"crit.*"`.
//!
//! **Escalation.** From the first notification of what nobody has acknowledged on, each level of `escalate` is told when its
//! time has come, until all that fires is acknowledged or over. Levels that were told are told when all is over.
//!
//! **Flapping.** An alert that has begun and ended `changes` times `within` a time is held firing, so that nothing is told of
//! it, until it has been as it is for `quiet`.
//!
//! **Storms.** Of new groups, those beyond `groups` `within` a time are told as one, at most once in `group_interval`, and so
//! is all that is told of them later. A storm escalates as one.
//!
//! **Order.** In an instant rows come first (those that fire, then those that resolve), then actions, then what falls due:
//! ends, silences, looks, levels, storms. So what resolves at the instant of a look is over in it, and an alert of which a
//! row comes at the instant of its end goes on.
//!
//! **Out.** `record` tells which a row is:
//!
//! | column | of a `notification` | of `history` |
//! | --- | --- | --- |
//! | `_time`, `at` | when | when |
//! | `sequence` | counts the rows of an instant, so that they stay in order | the same |
//! | `id` | 32 hex digits, of when, what, why and to whom: the same in every run | the same |
//! | `receiver` | `receiver`, or a level's `to` | `receiver` |
//! | `status` | `firing` or `resolved` | see below |
//! | `why` | as above, `escalated` or `storm` | why it ended (`row`, `ends_at`, `timeout`), a comment, a problem |
//! | `group`, `group_labels` | the group; null of a storm | that of the alert |
//! | `groups`, `level` | how many groups; which level of escalation, from 1, or 0 | 1 or 0; 0 |
//! | `firing`, `resolved`, `left_out` | how many alerts | of this alert |
//! | `fingerprint` | null | 16 hex digits: a hash of the labels |
//! | `by` | null | the silence, the inhibiting alert, the times, the person |
//! | `alerts` | the first 500, by labels: `fingerprint`, `status`, `starts_at`, `ends_at`, `flapping`, `acknowledged_by`, `labels`, `annotations` | the alert |
//! | `detail` | null | a silence, or an action that was refused |
//!
//! | `status` in the history | when |
//! | --- | --- |
//! | `pending` | an alert begins, and nobody has been told |
//! | `firing` | it was told, or is again what the receiver knows |
//! | `inhibited`, `muted`, `silenced`, `suppressed` | a look has left it out (`suppressed`: it came in a storm) |
//! | `resolved` | it is over |
//! | `acknowledged`, `flapping`, `steady` | somebody has acknowledged it; it is held firing, and no longer |
//! | `dropped` | a row was not taken: there are `max_alerts`, or a label is longer than 4,096 bytes |
//! | `silence_set`, `silence_expired`, `refused` | actions |
//!
//! **Other than Alertmanager:** a row that resolves what does not fire begins no group; an alert that ended while it was left
//! out is told when it fires again (there it is not, before `repeat_interval`); a repetition that is due exactly at a look is
//! told in it; a group that is gone does not linger; `ends_at` later than `resolve_timeout` counts as that.
//!
//! **Time** goes on with the rows of all sources: a job whose sources are all silent tells nothing (a source `clock` sees to
//! that). When the inputs end, time goes on until every alert has met its timeout and every silence has ended, with whatever is
//! repeated until then.
//!
//! **Cost.** Some look-ups in trees a row; a look costs its group's alerts, times the rules and silences. **State:** at most
//! `max_alerts` alerts, with up to 16 KiB of annotations (columns that do not fit are null), those that are over until they
//! are told, or, with `flapping`, for `within`; groups that have some; `max_silences` silences. One worker has it all, since
//! any alert may inhibit any other.

mod acting;
mod arriving;
mod calendar;
mod flush;
mod group;
mod inhibit;
mod labels;
mod life;
mod matcher;
mod operator;
mod plan;
mod silences;
mod spec;
mod state;
mod storm;
mod taking;
#[cfg(test)]
mod tests;
mod told;

pub use calendar::{TimeRangeSpec, TimesSpec};
pub use inhibit::InhibitSpec;
pub use spec::{AlertSpec, EscalateSpec, FlappingSpec, StormSpec};

/// The columns of a stream of actions, and whether each is a timestamp; the others are texts.
pub const ACTION_COLUMNS: [(&str, bool); 9] = [
    ("action", false),
    ("id", false),
    ("matchers", false),
    ("fingerprint", false),
    ("group", false),
    ("starts_at", true),
    ("ends_at", true),
    ("by", false),
    ("comment", false),
];

/// The first and the last instant of the years 0 to 9999. Rows before or after are left out.
const EARLIEST: i64 = -62_167_219_200_000;
const LATEST: i64 = 253_402_300_799_999;

/// Checks the text of matchers, for whoever writes actions.
///
/// # Errors
/// What is wrong with it.
pub fn check_matchers(text: &str) -> Result<(), String> {
    matcher::parse(text).map(drop)
}

/// Checks the text of a silence's matchers.
///
/// # Errors
/// What is wrong with it.
pub fn check_silence(text: &str) -> Result<(), String> {
    matcher::parse_silence(text).map(drop)
}
