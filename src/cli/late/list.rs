//! `levada late list`: the late rows, counted.

use std::collections::BTreeMap;
use std::io::Write;

use levada_connectors::log::Topic;
use serde_json::json;

use super::entries;
use crate::cli::failure::Failure;
use crate::telemetry::progress::grouped;

/// What late rows have in common: step, input, source and partition, reason.
type Kind = (String, String, Option<String>, Option<u32>, String);

/// How many there are of a kind, of when they are, and how late the latest was.
struct Counted {
    rows: u64,
    from: String,
    to: String,
    behind_ms: i64,
}

pub(super) fn list(ledger: &Topic, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let mut kinds: BTreeMap<Kind, Counted> = BTreeMap::new();
    entries(ledger, |_, _, entry| {
        let kind = (entry.step, entry.input, entry.source, entry.partition, entry.reason);
        let (from, to) = (entry.at.clone(), entry.at);
        let counted = kinds.entry(kind).or_insert(Counted { rows: 0, from, to: to.clone(), behind_ms: 0 });
        counted.rows += 1;
        counted.behind_ms = counted.behind_ms.max(entry.behind_ms);
        // Times in one form compare as their texts do, but for the milliseconds that a whole second leaves out.
        if in_order(&to) < in_order(&counted.from) {
            counted.from.clone_from(&to);
        }
        if in_order(&to) > in_order(&counted.to) {
            counted.to = to;
        }
        Ok(())
    })?;
    if as_json {
        for ((step, input, source, partition, reason), Counted { rows, from, to, behind_ms }) in &kinds {
            let line = json!({ "step": step, "input": input, "source": source, "partition": partition, "reason": reason,
                "rows": rows, "from": from, "to": to, "most_behind_ms": behind_ms });
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    if kinds.is_empty() {
        return Ok(writeln!(out, "There are no late rows in {}.", ledger.name())?);
    }
    let mut lines =
        vec![["STEP", "INPUT", "READ FROM", "ROWS", "FROM", "TO", "MOST BEHIND", "WHY"].map(str::to_owned)];
    for ((step, input, source, partition, reason), counted) in kinds {
        let read = match (source, partition) {
            (Some(source), Some(partition)) => format!("{source} {partition}"),
            _ => "made by a step".into(),
        };
        let behind = format!("{} ms", grouped(counted.behind_ms.unsigned_abs()));
        lines.push([step, input, read, grouped(counted.rows), counted.from, counted.to, behind, reason]);
    }
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let [a, b, c, d, e, f, g] = [0, 1, 2, 3, 4, 5, 6].map(width);
    for [step, input, read, rows, from, to, behind, why] in &lines {
        writeln!(
            out,
            "{step:a$}  {input:b$}  {read:c$}  {rows:>d$}  {from:e$}  {to:f$}  {behind:>g$}  {why}"
        )?;
    }
    Ok(())
}

/// A time as it compares: `…:07Z` is before `…:07.250Z`.
fn in_order(time: &str) -> &str {
    time.trim_end_matches('Z')
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn a_whole_second_is_before_its_parts() {
        let growing = ["2024-01-01T00:00:07Z", "2024-01-01T00:00:07.250Z", "2024-01-01T00:00:08Z"];
        assert!(growing.is_sorted_by_key(|time| in_order(time)));
    }
}
