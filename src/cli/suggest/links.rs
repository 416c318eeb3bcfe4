//! What was found, for people, for programs, and as links to paste.

use std::fmt::Write as _;

use levada_dataflows::operators::correlate::lifts::{Lift, Lifts, Where};
use serde_json::{Value, json};

use super::Asked;
use crate::telemetry::progress::grouped;

/// What was read and left out, a table of the pairs, and their links.
pub fn text(asked: &Asked, lifts: &Lifts) -> String {
    let mut out = String::new();
    let where_to = match &asked.place {
        Where::Anywhere => "anywhere".to_string(),
        Where::Same(on) => format!("at the same {}", on.join(", ")),
        Where::Hops(hops) => format!("within {hops} hops"),
    };
    let _ = writeln!(
        out,
        "{}: {} events, {} pairs looked at; what follows within {}, {where_to}",
        asked.step,
        grouped(lifts.events),
        grouped(lifts.pairs),
        duration(asked.within_ms.unsigned_abs())
    );
    for (count, what) in left_out(lifts) {
        let _ = writeln!(out, "left out: {} {what}", grouped(count));
    }
    let told = told(asked, lifts);
    if told.is_empty() {
        let why = match lifts.span_ms {
            0 => "; the events do not go over twice that time",
            _ => "",
        };
        let _ = writeln!(out, "no pair follows more often than chance would have it{why}");
        return out;
    }
    let head = [
        "cause",
        "effect",
        "causes",
        "followed",
        "confidence",
        "by chance",
        "lift",
        "at least",
        "at most",
        "after:before",
        "median",
    ];
    let mut table: Vec<Vec<String>> = vec![head.map(String::from).to_vec()];
    table.extend(told.iter().map(|lift| {
        vec![
            condition(&lift.cause),
            condition(&lift.effect),
            grouped(lift.causes),
            grouped(lift.followed),
            format!("{:.2}", confidence(lift)),
            format!("{:.1}", lift.expected),
            format!("{:.2}", lift.lift),
            format!("{:.2}", lift.low),
            format!("{:.2}", lift.high),
            format!("{}:{}", lift.followed, lift.preceded),
            duration(whole(lift.median_ms)),
        ]
    }));
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    out.push('\n');
    for row in &table {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  "));
    }
    if lifts.found.len() > told.len() {
        let _ = writeln!(out, "and {} more; --limit says how many are told", lifts.found.len() - told.len());
    }
    let _ = write!(out, "\n{}", toml(asked, lifts));
    out
}

/// The same with everything that was counted.
pub fn json(asked: &Asked, lifts: &Lifts) -> String {
    let value = |(column, value): &(String, Value)| json!({ "column": column, "value": value });
    let pairs: Vec<Value> = told(asked, lifts)
        .iter()
        .map(|lift| {
            json!({
                "cause": value(&lift.cause), "effect": value(&lift.effect),
                "causes": lift.causes, "occasions": lift.occasions,
                "followed": lift.followed, "answers": lift.answers, "preceded": lift.preceded,
                "confidence": confidence(lift), "expected": lift.expected,
                "lift": lift.lift, "lift_low": lift.low, "lift_high": lift.high, "order_low": lift.order,
                "median_ms": lift.median_ms, "within_ms": lift.within_ms, "decays": lift.decays,
                "link": link(asked, lift),
            })
        })
        .collect();
    let left = &lifts.left_out;
    let whole = json!({
        "step": asked.step, "within_ms": asked.within_ms, "events": lifts.events, "span_ms": lifts.span_ms,
        "pairs": lifts.pairs, "suggested": lifts.found.len(),
        "left_out": {
            "placeless": left.placeless, "values": left.values, "places": left.places,
            "causes": left.causes, "unsettled": left.unsettled,
        },
        "suggestions": pairs,
    });
    format!("{whole:#}\n")
}

/// The links, each a table of the step.
pub fn toml(asked: &Asked, lifts: &Lifts) -> String {
    let links = told(asked, lifts).iter().map(|lift| link(asked, lift));
    links.collect::<Vec<_>>().join("\n")
}

fn told<'a>(asked: &Asked, lifts: &'a Lifts) -> &'a [Lift] {
    &lifts.found[..lifts.found.len().min(asked.limit)]
}

fn left_out(lifts: &Lifts) -> impl Iterator<Item = (u64, &'static str)> {
    let left = lifts.left_out;
    let all = [
        (left.placeless, "events without a place"),
        (left.values, "values of events, beyond the first 256 different ones"),
        (left.places, "values of events at places beyond the first million"),
        (left.causes, "causes while 65,536 others waited for their effects"),
    ];
    all.into_iter().filter(|(count, _)| *count > 0)
}

fn confidence(lift: &Lift) -> f64 {
    lift.followed as f64 / lift.causes.max(1) as f64
}

/// A link of the job file. Its weight is the share of the causes followed that chance does not explain.
fn link(asked: &Asked, lift: &Lift) -> String {
    let name = |(_, value): &(String, Value)| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let place = match &asked.place {
        Where::Anywhere => String::new(),
        Where::Same(on) => {
            format!("on = [{}]\n", on.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "))
        }
        Where::Hops(hops) => format!("hops = {hops}\n"),
    };
    let half_life = match lift.decays {
        true => format!("half_life = {}\n", quoted(&duration(whole(lift.median_ms)))),
        false => String::new(),
    };
    format!(
        "[[step.{}.correlate.link]]\nname = {}\ncause = {}\neffect = {}\n{place}within = {}\n{half_life}weight = {:.2}\n",
        asked.step,
        quoted(&format!("{} after {}", name(&lift.effect), name(&lift.cause))),
        quoted(&condition(&lift.cause)),
        quoted(&condition(&lift.effect)),
        quoted(&duration(whole(lift.within_ms).min(asked.within_ms.unsigned_abs()))),
        (1.0 - 1.0 / lift.lift).max(0.01)
    )
}

/// A value as a condition in SQL.
fn condition((column, value): &(String, Value)) -> String {
    let plain = column.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && column.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let column = if plain { column.clone() } else { format!("\"{}\"", column.replace('"', "\"\"")) };
    match value {
        Value::String(text) => format!("{column} = '{}'", text.replace('\'', "''")),
        other => format!("{column} = {other}"),
    }
}

/// A text of TOML; what JSON escapes, it escapes in the same way.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Up to the next that one would say: to hundredths of a second, from 1 s to tenths, from 10 s to seconds, from 10 min to 10 s.
fn whole(ms: u64) -> u64 {
    let step = match ms {
        ..1_000 => 10,
        1_000..10_000 => 100,
        10_000..600_000 => 1_000,
        _ => 10_000,
    };
    ms.max(1).next_multiple_of(step)
}

/// In the greatest unit that says it whole.
fn duration(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lift() -> Lift {
        Lift {
            cause: ("category".into(), json!("deploy")),
            effect: ("Kind".into(), json!("it's bad")),
            causes: 40,
            occasions: 40,
            followed: 32,
            expected: 8.0,
            preceded: 4,
            answers: 30,
            lift: 4.0,
            low: 2.5,
            high: 5.0,
            order: 2.0,
            median_ms: 29_501,
            within_ms: 170_300,
            decays: true,
        }
    }

    fn asked(place: Where) -> Asked {
        Asked { step: "near".into(), place, within_ms: 300_000, limit: 1 }
    }

    #[test]
    fn a_link_is_as_a_job_file_takes_it() {
        let at = asked(Where::Same(vec!["service".into(), "Data center".into()]));
        let said = toml(&at, &Lifts { found: vec![lift(), lift()], ..Lifts::default() });
        assert_eq!(
            said,
            r#"[[step.near.correlate.link]]
name = "it's bad after deploy"
cause = "category = 'deploy'"
effect = "\"Kind\" = 'it''s bad'"
on = ["service", "Data center"]
within = "171s"
half_life = "30s"
weight = 0.75
"#
        );
        assert!(said.parse::<toml::Table>().is_ok());
        let flags = Lift { effect: ("down".into(), json!(true)), decays: false, ..lift() };
        assert!(
            link(&asked(Where::Hops(2)), &flags)
                .contains("effect = \"down = true\"\nhops = 2\nwithin = \"171s\"\nweight")
        );
    }

    #[test]
    fn the_table_says_what_was_counted_and_left_out() {
        let mut lifts =
            Lifts { events: 12_345, pairs: 30, span_ms: 1, found: vec![lift(), lift()], ..Lifts::default() };
        lifts.left_out.values = 7;
        let said = text(&asked(Where::Anywhere), &lifts);
        let lines: Vec<&str> = said.lines().take(6).collect();
        assert_eq!(
            lines,
            [
                "near: 12,345 events, 30 pairs looked at; what follows within 5m, anywhere",
                "left out: 7 values of events, beyond the first 256 different ones",
                "",
                "cause                effect                causes  followed  confidence  by chance  lift  at least  at most  after:before  median",
                "category = 'deploy'  \"Kind\" = 'it''s bad'      40        32        0.80        8.0  4.00      2.50     5.00          32:4     30s",
                "and 1 more; --limit says how many are told",
            ]
        );
        let none = text(&asked(Where::Anywhere), &Lifts::default());
        assert!(
            none.ends_with("chance would have it; the events do not go over twice that time\n"),
            "{none}"
        );
    }
}
