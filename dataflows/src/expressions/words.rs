//! What DataFusion and its parser say, in the words of a job file.

use arrow::datatypes::DataType;
use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::parser::ParserError;

use super::ExpressionProblem;

/// A type with its article, as a job file names it: `a float`.
pub fn a_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "a string",
        DataType::Boolean => "a bool",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "a float",
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "a float",
        DataType::Timestamp(..) => "a timestamp",
        DataType::Date32 | DataType::Date64 => "a date",
        DataType::Time32(_) | DataType::Time64(_) => "a time of day",
        DataType::Duration(_) | DataType::Interval(_) => "an interval",
        DataType::Null => "a null",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "a string of bytes"
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "a list",
        DataType::Struct(_) | DataType::Map(..) => "a structure",
        other if other.is_integer() => "an int",
        _ => "of a type that streams do not have",
    }
}

/// A syntax error, with its place.
pub fn syntax(error: &ParserError, text: &str) -> ExpressionProblem {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return ExpressionProblem::new("the expression is nested too deeply");
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    let (message, at) = match message.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, line_and_column(place)),
        None => (message.as_str(), None),
    };
    let message = match message.strip_prefix("Expected: ").and_then(|rest| rest.rsplit_once(", found: ")) {
        Some((wanted, "EOF")) => format!("expected {wanted}, found the end"),
        Some((wanted, found)) => format!("expected {wanted}, found `{found}`"),
        None => lower_first(message),
    };
    // Without a place of its own, the trouble is that the text ended.
    ExpressionProblem::new(message).at(at.unwrap_or_else(|| end_of(text)))
}

/// The byte of `text` at a line and column from 1.
pub fn offset(text: &str, at: (usize, usize)) -> usize {
    let line: usize = text.split_inclusive('\n').take(at.0 - 1).map(str::len).sum();
    let rest = text.get(line..).unwrap_or_default();
    line + rest.char_indices().nth(at.1 - 1).map_or(rest.len(), |(offset, _)| offset)
}

/// A text as a TOML literal in which nothing needs escaping.
pub fn toml_string(text: &str) -> String {
    if text.contains(['\'', '\n']) { format!("'''{text}'''") } else { format!("'{text}'") }
}

fn line_and_column(text: &str) -> Option<(usize, usize)> {
    let (line, column) = text.split_once(", Column: ")?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

fn end_of(text: &str) -> (usize, usize) {
    let text = text.trim_end();
    let last = text.rsplit('\n').next().unwrap_or_default();
    (text.matches('\n').count() + 1, last.chars().count() + 1)
}

/// What the planner refused, mostly a matter of types.
pub fn planning(error: &DataFusionError) -> ExpressionProblem {
    let message = match error.find_root() {
        DataFusionError::Plan(m) | DataFusionError::Execution(m) | DataFusionError::Internal(m) => m.clone(),
        DataFusionError::NotImplemented(_) => "this form of expression is not possible here".into(),
        other => other.strip_backtrace(),
    };
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    if message.contains("regex parse error") {
        let why = message.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
        let why = why.unwrap_or("it does not parse");
        return ExpressionProblem::new(format!("a regular expression is wrong: {why}"));
    }
    let first = message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let message =
        arguments(first).or_else(|| joined(first)).or_else(|| like(first)).or_else(|| operands(first));
    let problem = ExpressionProblem::new(message.unwrap_or_else(|| lower_first(&type_names(first))));
    let of_conditions = ["`=` does not go", "`!=` does not go", "`<>` does not go"];
    let is_condition = problem.message.contains("between a bool") || problem.message.ends_with("a bool");
    match is_condition && of_conditions.iter().any(|start| problem.message.starts_with(start)) {
        true => problem.help("a bool is a condition itself: write `x` or `not x`"),
        false => problem,
    }
}

/// Whether the planner refused the number or the types of a call's arguments.
pub fn is_of_arguments(problem: &ExpressionProblem) -> bool {
    problem.message.starts_with(ARGUMENTS)
}

/// How such a problem begins.
const ARGUMENTS: &str = "the arguments of `";

/// `||` between what is not text: it is mostly meant as `or`.
fn joined(message: &str) -> Option<String> {
    let rest = message.strip_prefix("Cannot infer common string type for string concat operation ")?;
    let words = type_names(rest);
    let (left, right) = words.split_once(" || ")?;
    let meant = if left == "bool" || right == "bool" { "; conditions are joined by `or`" } else { "" };
    let (left, right) = (article(left), article(right));
    Some(format!("`||` joins texts and does not go between {left} and {right}{meant}"))
}

/// `like` between what is not text.
fn like(message: &str) -> Option<String> {
    let rest = message.strip_prefix("There isn't a common type to coerce ")?;
    let (types, _) = rest.split_once(" in LIKE expression")?;
    let words = type_names(types);
    let (left, right) = words.split_once(" and ")?;
    let (left, right) = (article(left), article(right));
    Some(format!("`like` compares texts and does not go between {left} and {right}"))
}

/// `Function 'round' failed to match any signature, errors: …` and the like.
fn arguments(message: &str) -> Option<String> {
    const NO_START: &str = "Substring without for/from is not valid";
    const SIGNS: &[&str] = &[
        "failed to match any signature",
        "Failed to coerce arguments",
        "No function matches",
        "does not support zero arguments",
        " expects ",
        NO_START,
    ];
    let is_call = message.to_ascii_lowercase().starts_with("function '") && message.contains("' requires ");
    if !is_call && !SIGNS.iter().any(|sign| message.contains(sign)) {
        return None;
    }
    let name = match message.contains(NO_START) {
        true => "substr",
        false => message.split('\'').nth(1)?.split('(').next()?,
    };
    Some(format!("{ARGUMENTS}{name}` are of the wrong number or type"))
}

/// `Cannot coerce arithmetic expression Utf8 + Int64 to valid types` and the like.
fn operands(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("Cannot coerce arithmetic expression ")
        .and_then(|rest| rest.strip_suffix(" to valid types"))
        .or_else(|| message.strip_prefix("Cannot infer common argument type for comparison operation "))
        .or_else(|| {
            message.strip_prefix("Cannot infer common argument type for logical boolean operation ")
        })?;
    // A type's own words may hold blanks (`Timestamp(ms, "UTC")`), an operator stands alone.
    let words = type_names(rest);
    let parts: Vec<&str> = words.split(' ').collect();
    let (left, rest) = parts.split_first()?;
    let (right, operator) = rest.split_last()?;
    Some(format!(
        "`{}` does not go between {} and {}",
        operator.join(" ").to_lowercase(),
        article(left),
        article(right)
    ))
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// Arrow's names of types replaced by the job file's.
fn type_names(message: &str) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("Timestamp(ms, \"+00:00\")", "timestamp"),
        ("Timestamp(ms)", "timestamp"),
        ("Timestamp(ns)", "timestamp"),
        ("Timestamp(s)", "timestamp"),
        ("Timestamp(µs)", "timestamp"),
        ("Interval(MonthDayNano)", "interval"),
        ("Interval(DayTime)", "interval"),
        ("LargeUtf8", "string"),
        ("Utf8View", "string"),
        ("Utf8", "string"),
        ("UInt64", "int"),
        ("UInt32", "int"),
        ("Int64", "int"),
        ("Int32", "int"),
        ("Float64", "float"),
        ("Float32", "float"),
        ("Boolean", "bool"),
        ("Date32", "date"),
        ("Null", "null"),
    ];
    NAMES.iter().fold(message.to_string(), |text, (arrow, ours)| text.replace(arrow, ours))
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().collect::<String>() + &message[first.len_utf8()..]
        }
        _ => message.to_string(),
    }
}
