//! `levada functions`: what may stand in an expression.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use levada_dataflows::expressions::reference::{Reference, ReferenceKind, reference};
use levada_dataflows::operators::detect::Detectors;
use levada_types::{TIME_COLUMN, nearest};
use serde_json::{Value, json};

/// Lists every function, aggregate and operator that expressions may use, or explains one
///
/// Expressions are SQL: in `where`, `columns` and `add` of a select step, in the aggregates of a window
/// step, in the conditions and parameters of policies.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  levada functions
  levada functions substr
  levada functions --format json")]
pub struct Functions {
    /// The one to explain, or an operator's sign
    name: Option<String>,
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Functions {
    /// Prints it.
    pub fn run(self) -> ExitCode {
        let all = reference();
        let chosen: Vec<&Reference> = match &self.name {
            None => all.iter().collect(),
            Some(name) => all.iter().filter(|entry| is_called(entry, name)).collect(),
        };
        if let (Some(name), []) = (&self.name, chosen.as_slice()) {
            eprintln!("error: {}", unknown(name, &all));
            return ExitCode::FAILURE;
        }
        super::print(&match (self.format, self.name) {
            (Form::Json, _) => format!("{:#}\n", Value::Array(chosen.into_iter().map(as_json).collect())),
            (Form::Text, Some(_)) => chosen.into_iter().map(one).collect::<Vec<_>>().join("\n"),
            (Form::Text, None) => list(&all),
        })
    }
}

fn unknown(name: &str, all: &[Reference]) -> String {
    let lower = name.to_lowercase();
    if Detectors::NAMES.contains(&lower.as_str()) {
        return format!("`{name}` is a detector, no function: `[step.NAME.detect.detectors.{lower}]`");
    }
    if lower == TIME_COLUMN {
        return format!(
            "`{TIME_COLUMN}` is a column, no function: every stream has it, the event time of its rows"
        );
    }
    let aliases = all.iter().flat_map(|entry| &entry.aliases).map(String::as_str);
    let known: Vec<&str> = all.iter().map(|entry| entry.name).chain(aliases).collect();
    let meant = match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`levada functions` lists them all".into(),
    };
    format!("there is no function `{name}`; {meant}")
}

fn is_called(entry: &Reference, name: &str) -> bool {
    let name = name.to_lowercase();
    entry.name == name || entry.aliases.contains(&name)
}

/// A line each, group by group.
fn list(all: &[Reference]) -> String {
    const WIDTH: usize = 44;
    let mut out = String::new();
    for group in all.chunk_by(|one, other| one.group == other.group) {
        let Some(first) = group.first() else { continue };
        let blank = if out.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        _ = writeln!(out, "{blank}{}", first.group);
        for entry in group {
            _ = writeln!(out, "  {:WIDTH$} {}", entry.signature, entry.about);
        }
    }
    out + "\n`levada functions NAME` explains one, with an example.\n"
}

/// All that there is to say of one.
fn one(entry: &Reference) -> String {
    let mut out = format!("{}\n  {}\n", entry.signature, entry.about);
    for argument in entry.arguments() {
        let types = if argument.types.is_empty() { "…".into() } else { argument.types.join(" or ") };
        _ = writeln!(out, "\n  {}: {types}\n      {}", argument.name, argument.about);
    }
    // What an operator gives depends on its operands, and is said above.
    if !matches!(entry.kind, ReferenceKind::Operator) {
        _ = writeln!(out, "\n  gives: {}", entry.gives());
    }
    if !entry.aliases.is_empty() && !matches!(entry.kind, ReferenceKind::Operator) {
        _ = writeln!(out, "  also called: {}", entry.aliases.join(", "));
    }
    if let ReferenceKind::Aggregate { filter, distinct } = entry.kind {
        let takes = [("`filter (where …)`", filter), ("`distinct`", distinct)];
        for (what, may) in takes {
            _ = writeln!(out, "  {what}: {}", if may { "yes" } else { "no" });
        }
    }
    match entry.value() {
        Some(value) => _ = writeln!(out, "\n  {}\n      {value}", entry.example),
        None => _ = writeln!(out, "\n  {}", entry.example),
    }
    out
}

fn as_json(entry: &Reference) -> Value {
    let arguments = entry
        .arguments()
        .into_iter()
        .map(|argument| json!({ "name": argument.name, "types": argument.types, "about": argument.about }));
    let mut value = json!({
        "name": entry.name,
        "aliases": entry.aliases,
        "group": entry.group,
        "signature": entry.signature,
        "about": entry.about,
        "arguments": arguments.collect::<Vec<_>>(),
        "gives": entry.gives(),
        "example": entry.example,
        "value": entry.value(),
    });
    let kind = match entry.kind {
        ReferenceKind::Function => "function",
        ReferenceKind::Operator => "operator",
        ReferenceKind::Aggregate { filter, distinct } => {
            value["filter"] = filter.into();
            value["distinct"] = distinct.into();
            "aggregate"
        }
    };
    value["kind"] = kind.into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_line_and_a_page() {
        let all = reference();
        let text = list(&all);
        for entry in &all {
            assert!(
                text.lines().any(|line| line.trim_start().starts_with(&entry.signature)),
                "{}",
                entry.name
            );
            let page = one(entry);
            let says_type = page.contains("gives: ");
            assert_eq!(says_type, !matches!(entry.kind, ReferenceKind::Operator), "{page}");
            assert!(page.contains(entry.example), "{page}");
            assert!(is_called(entry, &entry.name.to_uppercase()));
        }
        assert!(text.contains("approx_percentile(number, fraction)"));
    }

    #[test]
    fn one_that_there_is_not_is_guessed() {
        let all = reference();
        let told = |name: &str| unknown(name, &all);
        assert_eq!(
            told("approx_percentil"),
            "there is no function `approx_percentil`; did you mean `approx_percentile`?"
        );
        assert_eq!(
            told("_time"),
            "`_time` is a column, no function: every stream has it, the event time of its rows"
        );
        for sign in ["<<", ">>", "|", "^", "!=", "<=", ">=", ">", "~*", "!~", "::", "==", "is not null"] {
            assert!(all.iter().any(|entry| is_called(entry, sign)), "{sign}");
        }
        assert_eq!(told("cusum"), "`cusum` is a detector, no function: `[step.NAME.detect.detectors.cusum]`");
        assert_eq!(
            told("frobnicate"),
            "there is no function `frobnicate`; `levada functions` lists them all"
        );
    }

    #[test]
    fn one_is_explained() {
        let all = reference();
        let page = |name: &str| one(all.iter().find(|entry| entry.name == name).unwrap());
        insta::assert_snapshot!("functions-substr", page("substr"));
        insta::assert_snapshot!("functions-count", page("count"));
        let value = as_json(all.iter().find(|entry| entry.name == "count").unwrap());
        assert_eq!((&value["kind"], &value["distinct"]), (&json!("aggregate"), &json!(true)));
    }
}
