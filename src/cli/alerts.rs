//! `levada alerts`: what fires, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use levada_connectors::log::{Log, LogError, RecordIn, TopicConfig, WriterOptions};
use levada_types::Existing;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Global, JobArgs, print};
use crate::alerts::{Action, ActionTopic, Board, Desk, Kind, end_ms, time_ms};

/// Shows the alerts of a job, acknowledges and silences them
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  levada alerts list job.toml                                          What fires, and which silences hold
  levada alerts ack job.toml 'service=\"shop\"' --by ann                 No repetition, no escalation
  levada alerts silence job.toml 'severity=~\"warn.*\"' --for 2h         Not told for two hours
  levada alerts expire job.toml 8f3c1d2e9a7b6c50                       From now on again

A job reads them from the topic of the step's `actions`, whether or not it runs now. While a gateway takes events for that
topic, it is the one to ask: POST /v1/alerts/acknowledge, POST /v1/silences.")]
pub struct Alerts {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Shows the alerts that fire and the silences that hold
    List {
        #[command(flatten)]
        desk: DeskArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Acknowledges alerts that fire
    Ack {
        #[command(flatten)]
        desk: DeskArgs,
        /// Which: label="value", label!="value", label=~"expression", label!~"expression"
        matchers: Vec<String>,
        /// The alert of this fingerprint
        #[arg(long)]
        fingerprint: Option<String>,
        /// The alerts of this group
        #[arg(long)]
        group: Option<String>,
        #[command(flatten)]
        who: WhoArgs,
    },
    /// Silences alerts for a while
    Silence {
        #[command(flatten)]
        desk: DeskArgs,
        /// Which: label="value", label!="value", label=~"expression", label!~"expression"
        #[arg(required = true)]
        matchers: Vec<String>,
        /// For how long, as 2h
        #[arg(
            long = "for",
            value_name = "DURATION",
            required_unless_present = "until",
            conflicts_with = "until"
        )]
        duration: Option<String>,
        /// Until when, as 2026-03-02T09:00:00Z
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// From when on; now, if nothing is said
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Its name; it takes the place of one of that name. Otherwise it gets one, which is printed
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        who: WhoArgs,
    },
    /// Ends a silence
    Expire {
        #[command(flatten)]
        desk: DeskArgs,
        /// Its name
        id: String,
        #[command(flatten)]
        who: WhoArgs,
    },
}

#[derive(Clone, Debug, Args)]
struct DeskArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Which of the job's alert steps, if they have different topics
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
}

#[derive(Clone, Debug, Args)]
struct WhoArgs {
    /// Who does it; who is logged in, if nothing is said
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
}

impl Alerts {
    /// Runs the command on the topics in `--data`.
    pub fn run(self, global: &Global) -> ExitCode {
        let (Command::List { desk, .. }
        | Command::Ack { desk, .. }
        | Command::Silence { desk, .. }
        | Command::Expire { desk, .. }) = &self.command;
        let desks = match desk.job.load(global, Existing::Refuse, None, false) {
            Ok(loaded) => Desk::all(&loaded.spec),
            Err(code) => return code,
        };
        let desks = desk.chosen(desks);
        match desks.and_then(|desks| self.execute(global, &desks)) {
            Ok(text) => print(&text),
            Err(failure) => {
                eprintln!("error: {failure}");
                ExitCode::FAILURE
            }
        }
    }

    fn execute(self, global: &Global, desks: &[Desk]) -> Result<String, Failure> {
        let log = Log::open(&global.data_dir)?;
        match self.command {
            Command::List { json, .. } => list(&log, desks, json),
            Command::Ack { matchers, fingerprint, group, who, .. } => {
                let action = Action {
                    matchers: matchers.join(", "),
                    fingerprint: fingerprint.unwrap_or_default(),
                    group: group.unwrap_or_default(),
                    ..who.action(Kind::Acknowledge)
                };
                act(&log, desks, action).map(|_| String::new())
            }
            Command::Silence { matchers, duration, until, from, id, who, .. } => {
                let wrong =
                    |field: &str, problem: String| Failure::Other(format!("silence: {field}: {problem}"));
                let starts_ms =
                    from.as_deref().map(time_ms).transpose().map_err(|problem| wrong("--from", problem))?;
                let ends_ms = match (until, duration) {
                    (Some(until), _) => Some(time_ms(&until).map_err(|problem| wrong("--until", problem))?),
                    (None, Some(duration)) => {
                        let starts_ms = starts_ms.unwrap_or_else(Action::now_ms);
                        Some(end_ms(starts_ms, &duration).map_err(|problem| wrong("--for", problem))?)
                    }
                    (None, None) => None,
                };
                let (matchers, id) = (matchers.join(", "), id.unwrap_or_default());
                let action = Action { matchers, id, starts_ms, ends_ms, ..who.action(Kind::Silence) };
                act(&log, desks, action).map(|action| format!("{}\n", action.id))
            }
            Command::Expire { id, who, .. } => {
                act(&log, desks, Action { id, ..who.action(Kind::Expire) }).map(|_| String::new())
            }
        }
    }
}

impl WhoArgs {
    fn action(self, kind: Kind) -> Action {
        let by = self.by.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
        Action { by, comment: self.comment, ..Action::new(kind) }
    }
}

impl DeskArgs {
    /// The steps that are meant.
    fn chosen(&self, desks: Vec<Desk>) -> Result<Vec<Desk>, Failure> {
        let file = self.job.job.display();
        if desks.is_empty() {
            return Err(Failure::Other(format!("find alerts: {file} has no step `alert`")));
        }
        let names = desks.iter().map(|desk| desk.step.clone()).collect::<Vec<_>>().join(", ");
        let chosen: Vec<Desk> = desks
            .into_iter()
            .filter(|desk| self.step.as_ref().is_none_or(|step| *step == desk.step))
            .collect();
        match (&self.step, chosen.is_empty()) {
            (Some(step), true) => Err(Failure::Other(format!(
                "find alerts: {file} has no alert step `{step}`; there are: {names}"
            ))),
            _ => Ok(chosen),
        }
    }
}

/// The one topic that the actions of some steps are written to.
fn topic(desks: &[Desk]) -> Result<&ActionTopic, Failure> {
    let mut topics: Vec<&ActionTopic> = desks.iter().filter_map(|desk| desk.actions.as_ref()).collect();
    topics.dedup();
    match topics[..] {
        [topic] => Ok(topic),
        [] => {
            let steps = desks.iter().map(|desk| desk.step.as_str()).collect::<Vec<_>>().join(", ");
            Err(Failure::Other(format!(
                "act on alerts: {steps} takes no actions from a topic; name a source of one as its `actions`"
            )))
        }
        _ => Err(Failure::Other(
            "act on alerts: the job's alert steps have several topics of actions; say --step".into(),
        )),
    }
}

/// Writes an action down, durably.
fn act(log: &Log, desks: &[Desk], mut action: Action) -> Result<Action, Failure> {
    let ActionTopic { topic, time } = topic(desks)?;
    let now_ms = Action::now_ms();
    action
        .check(now_ms)
        .map_err(|(field, problem)| Failure::Other(format!("act on alerts: {field}: {problem}")))?;
    let value = action.record(time, now_ms).to_string();
    let opened = log.ensure_topic(topic, TopicConfig::default())?;
    let writers = opened.writers(WriterOptions::default()).map_err(|error| match error {
        LogError::WriterHeld { .. } => Failure::Other(format!(
            "write to {topic}: {error}; if that is a gateway, ask it: POST /v1/alerts/acknowledge, POST /v1/silences"
        )),
        error => error.into(),
    })?;
    writers.append(&[RecordIn { timestamp_ms: now_ms, value: value.as_bytes(), ..RecordIn::default() }])?;
    writers.sync()?;
    Ok(action)
}

fn list(log: &Log, desks: &[Desk], as_json: bool) -> Result<String, Failure> {
    if desks.iter().all(|desk| desk.history.is_empty()) {
        let steps = desks.iter().map(|desk| desk.step.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::Other(format!("list alerts: no sink writes the rows of {steps} to a topic")));
    }
    let mut alerts: Vec<Value> = Vec::new();
    let mut silences: Vec<Value> = Vec::new();
    for desk in desks {
        let mut board = Board::default();
        board.read_on(log, &desk.history, u64::MAX)?;
        alerts.extend(board.alerts().into_iter().map(|mut alert| {
            alert["step"] = json!(desk.step);
            alert
        }));
        for silence in board.silences(Action::now_ms()) {
            if !silences.contains(&silence) {
                silences.push(silence);
            }
        }
    }
    if as_json {
        return Ok(format!("{:#}\n", json!({ "alerts": alerts, "silences": silences })));
    }
    let mut text = String::new();
    let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for alert in &alerts {
        let labels = alert["labels"].as_object().map(|labels| {
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        });
        let by = alert["by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
        let acknowledged = alert["acknowledged_by"].as_str().map(|by| format!(", acknowledged by {by}"));
        _ = writeln!(
            text,
            "{}  {}{by} since {}{}  {}  group {}",
            shown(&alert["fingerprint"]),
            shown(&alert["state"]),
            shown(&alert["since"]),
            acknowledged.unwrap_or_default(),
            labels.unwrap_or_default(),
            shown(&alert["group"]),
        );
    }
    for silence in &silences {
        let [id, state, matchers, ends_at, by, comment] =
            ["id", "state", "matchers", "ends_at", "by", "comment"].map(|name| shown(&silence[name]));
        let by = if by.is_empty() { by } else { format!(" by {by}") };
        let comment = if comment.is_empty() { comment } else { format!(": {comment}") };
        _ = writeln!(text, "silence {id}  {state} until {ends_at}  {matchers}{by}{comment}");
    }
    if text.is_empty() {
        text = "no alert fires, and no silence holds\n".into();
    }
    Ok(text)
}
