//! The functions of many rows, as a window step takes them.

use super::{Argument, Reference, ReferenceKind};

/// An aggregate's row of the list.
struct Row {
    name: &'static str,
    arguments: &'static str,
    /// What the first argument may be.
    takes: &'static [&'static str],
    gives: &'static str,
    about: &'static str,
    example: &'static str,
    distinct: bool,
}

const NUMBERS: &[&str] = &["int", "float"];
const ANYTHING: &[&str] = &["string", "int", "float", "bool", "timestamp"];

/// By how often they are wanted.
const ROWS: &[Row] = &[
    Row {
        name: "count",
        arguments: "(*) or ([distinct ]value)",
        takes: ANYTHING,
        gives: "int",
        about: "how many rows there are, or how many whose value is not null; with `distinct` how many \
                different values, exactly",
        example: "count(*) filter (where x > 1)",
        distinct: true,
    },
    Row {
        name: "sum",
        arguments: "(number)",
        takes: NUMBERS,
        gives: "as the argument",
        about: "the exact sum, of floats rounded once; null over nothing, and of ints that do not fit",
        example: "sum(x)",
        distinct: false,
    },
    Row {
        name: "avg",
        arguments: "(number)",
        takes: NUMBERS,
        gives: "float",
        about: "the mean",
        example: "avg(x)",
        distinct: false,
    },
    Row {
        name: "min",
        arguments: "(value)",
        takes: ANYTHING,
        gives: "as the argument",
        about: "the least value; of texts by their bytes",
        example: "min(x)",
        distinct: false,
    },
    Row {
        name: "max",
        arguments: "(value)",
        takes: ANYTHING,
        gives: "as the argument",
        about: "the greatest value; of texts by their bytes",
        example: "max(x)",
        distinct: false,
    },
    Row {
        name: "stddev",
        arguments: "(number)",
        takes: NUMBERS,
        gives: "float",
        about: "the standard deviation of the sample; null over fewer than two values",
        example: "stddev(x)",
        distinct: false,
    },
    Row {
        name: "first",
        arguments: "(value)",
        takes: ANYTHING,
        gives: "as the argument",
        about: "the earliest value by event time; the least of those at the same time",
        example: "first(x)",
        distinct: false,
    },
    Row {
        name: "last",
        arguments: "(value)",
        takes: ANYTHING,
        gives: "as the argument",
        about: "the latest value by event time; the greatest of those at the same time",
        example: "last(x)",
        distinct: false,
    },
    Row {
        name: "approx_percentile",
        arguments: "(number, fraction)",
        takes: NUMBERS,
        gives: "float",
        about: "the value at place fraction * (n - 1), rounded down, of the n values in order from 0, within 0.8 %",
        example: "approx_percentile(x, 0.9)",
        distinct: false,
    },
];

pub(super) fn all() -> Vec<Reference> {
    let entry = |row: &Row| Reference {
        name: row.name,
        aliases: Vec::new(),
        kind: ReferenceKind::Aggregate { filter: true, distinct: row.distinct },
        group: "aggregates, in a window step",
        signature: format!("{}{}", row.name, row.arguments),
        about: row.about.into(),
        example: row.example,
    };
    ROWS.iter().map(entry).collect()
}

pub(super) fn gives(name: &str) -> &'static str {
    ROWS.iter().find(|row| row.name == name).map_or("", |row| row.gives)
}

pub(super) fn arguments(name: &str) -> Vec<Argument> {
    let Some(row) = ROWS.iter().find(|row| row.name == name) else { return Vec::new() };
    let argument = |name: &str, types: &[&'static str], about: &str| Argument {
        name: name.into(),
        types: types.to_vec(),
        about: about.into(),
    };
    let value = if row.takes == NUMBERS { "number" } else { "value" };
    let mut all = vec![argument(value, row.takes, "an expression; nulls are left out")];
    if row.arguments.contains("fraction") {
        all.push(argument("fraction", &["float"], "a constant"));
    }
    all
}
