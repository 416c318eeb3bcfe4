//! The list keeps what it promises.

use super::super::functions;
use super::*;

#[test]
fn every_example_has_a_value() {
    for entry in reference() {
        assert!(!entry.about.is_empty() && !entry.signature.is_empty(), "{}", entry.name);
        if !matches!(entry.kind, ReferenceKind::Aggregate { .. }) {
            assert!(entry.value().is_some(), "{}: {}", entry.name, entry.example);
            assert!(!entry.gives().is_empty(), "{}", entry.name);
        }
    }
}

#[test]
fn it_lists_every_function_and_nothing_else() {
    let mut listed: Vec<String> = reference()
        .into_iter()
        .filter(|entry| entry.kind == ReferenceKind::Function)
        .flat_map(|entry| entry.aliases.into_iter().chain([entry.name.to_string()]))
        .collect();
    listed.sort();
    assert_eq!(listed, functions::names());
}

#[test]
fn what_depends_on_more_than_the_row_is_neither_listed_nor_accepted() {
    let schema = Schema::empty();
    for name in ["now", "random", "uuid", "current_timestamp", "current_date", "current_time", "today"] {
        assert!(reference().iter().all(|entry| entry.name != name && !entry.aliases.contains(&name.into())));
        let problem = Expression::parse(&format!("{name}() is null"), &schema).unwrap_err();
        assert!(problem.message.contains("a job is a function of its inputs"), "{name}: {}", problem.message);
    }
}

#[test]
fn types_are_those_that_are_taken() {
    let entry = |name: &str| reference().into_iter().find(|entry| entry.name == name).unwrap();
    let types = |name: &str| {
        let arguments = entry(name).arguments().into_iter();
        arguments
            .map(|argument| format!("{} {}", argument.name, argument.types.join("|")))
            .collect::<Vec<_>>()
    };
    assert_eq!(types("substr"), ["text string", "start int", "length int"]);
    assert_eq!(types("abs"), ["number int|float"]);
    assert_eq!(types("date_trunc"), ["precision string", "value timestamp"]);
    assert_eq!(types("floor"), ["number int|float"]);
    assert_eq!(types("nullif"), ["a string|int|float|bool|timestamp", "b string|int|float|bool|timestamp"]);
    assert_eq!(entry("coalesce").gives(), "as the argument");
    assert_eq!(entry("substr").gives(), "string");
    assert_eq!(entry("abs").gives(), "as the argument");
    assert_eq!(entry("date_trunc").gives(), "timestamp");
    assert_eq!(entry("substr").signature, "substr(text, start[, length])");
    assert_eq!(entry("substr").value().as_deref(), Some("'lig'"));
    assert_eq!(entry("date").value().as_deref(), Some("2013-01-01T00:00:00Z"));
}
