//! What is wrong with a spec is told, at its field and its place.

use levada_types::ScoreError;
use serde_json::{Value, json};

use super::by_hand::spec;
use super::histories::schema;
use crate::plan::{PlanContext, Problem, StepSpec};

fn problems(pattern: &str, more: Value) -> Vec<Problem> {
    let models = |_: &str| Err(ScoreError::Run("no models".into()));
    let mut cx = PlanContext { models: &models, problems: Vec::new() };
    let plan = spec(pattern, more).plan(&[schema()], &mut cx);
    assert_eq!(plan.is_none(), !cx.problems.is_empty());
    cx.problems
}

/// The only problem: where, what, and the column in the text.
fn told(pattern: &str, more: Value) -> (String, String, Option<usize>) {
    let mut all = problems(pattern, more);
    assert_eq!(all.len(), 1, "{pattern}: {all:#?}");
    let problem = all.remove(0);
    (problem.path.join("."), problem.message, problem.within.map(|(_, column)| column))
}

#[test]
fn a_text_that_is_no_pattern_is_told_with_the_column() {
    for (pattern, message, column) in [
        ("", "the pattern is empty; write for instance `A B+ C`", 1),
        ("  ", "the pattern is empty; write for instance `A B+ C`", 1),
        ("A B{3,2}", "{3,2} is impossible: 3 is more than 2", 4),
        ("A{0}", "what comes no times can be left out", 2),
        ("A{}", "a count needs a number: `{2}`, `{2,}`, `{2,4}` or `{,4}`", 2),
        ("A{2", "expected `}`, found the end of the pattern", 4),
        ("A{99999}", "`99999` is no number up to 10000", 3),
        ("A (B", "expected `)`, found the end of the pattern", 5),
        ("A ()", "a step is missing before `)`", 4),
        ("A | ", "a step is missing before the end of the pattern", 5),
        ("A)", "`)` has no place here", 2),
        ("+A", "`+` counts nothing: it stands behind a variable or a group", 1),
        ("A{2}{3}", "there are two counts: put what the first is of in a group, as `(A{2})+`", 5),
        ("A -> B", "`-` is no sign of a pattern", 3),
        ("A 5", "`5` has no place here", 3),
        ("A !(B C) D", "`!` stands before one variable", 4),
        ("A !B+ C", "what must not come is not counted", 5),
        ("A ! C", "", 0),
        ("A !5", "expected a variable, found `5`", 4),
        ("A (B C) within 5m", "a group has no `within`: it belongs to a variable", 9),
        ("A B within C", "expected a duration as `5m`, found `C`", 12),
        ("A B within 5", "a duration needs a unit: ms, s, m, h or d, as in `10s`", 12),
        ("A B within 0s", "this must be longer than no time", 12),
        ("within", "`within` stands behind a variable, and is none", 1),
    ] {
        if message.is_empty() {
            // Blanks do not matter.
            assert_eq!(problems("A ! C B", json!({ "measures": {} })), [], "{pattern}");
            continue;
        }
        assert_eq!(told(pattern, json!({})), ("pattern".into(), message.into(), Some(column)), "{pattern}");
    }
    let problem = problems("A\n  B &", json!({})).remove(0);
    assert_eq!((problem.within, problem.always), (Some((2, 5)), true));
    let deep = format!("{}A{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(told(&deep, json!({})).1, "groups stand 32 deep at most");
    let many: Vec<String> = (0..65).map(|n| format!("V{n}")).collect();
    assert_eq!(told(&many.join(" "), json!({})).1, "a pattern has 64 variables at most");
    assert_eq!(told(&"A ".repeat(1_001), json!({})).1, "a pattern has 1000 words and signs at most");
}

#[test]
fn a_pattern_that_cannot_be_is_told() {
    let strict = json!({ "contiguity": "strict" });
    for (pattern, more, message, column) in [
        ("A* B?", json!({}), "the pattern can match no row at all; let it have one in any case", 1),
        ("(A | B?)", json!({}), "the pattern can match no row at all; let it have one in any case", 1),
        ("!B A", json!({}), "`!B` stands between two steps, and there may be none before it", 1),
        ("A? !B C", json!({}), "`!B` stands between two steps, and there may be none before it", 4),
        ("A !B", json!({}), "`!B` stands between two steps, and there may be none behind it", 3),
        ("A !B C?", json!({}), "`!B` stands between two steps, and there may be none behind it", 3),
        ("A !B C", strict.clone(), "no row comes between two steps that are strictly next to each other, so `!B` says \
          nothing", 3),
        ("!B within 5ms", json!({}), "an absence stands behind a step, and there may be none before it", 1),
        ("A !B within 5ms C", json!({}), "an absence with a deadline ends a pattern, and something may come behind it", 3),
        ("(A !B within 5ms)+", json!({}), "an absence with a deadline ends a pattern, and something may come behind it", 4),
        ("A within 5ms B", json!({}), "`within` counts from the row before, and this may be the first", 1),
        ("A B*?", json!({}), "no row ever comes to this `B`: what stands before it is a match already", 3),
        ("(A{100} B){3}", json!({}), "the pattern has more than 200 steps when its repetitions are written out: 303", 1),
        ("A B", json!({ "within": null }), "a partial match would wait for a row of `B` for ever", 3),
        ("A B*", json!({ "within": null }), "a partial match would wait for a row of `B` for ever", 3),
        ("A+", json!({ "within": null, "contiguity": "strict" }), "a partial match would wait for a row of `A` for ever", 1),
        ("A B within 5ms C", json!({ "within": null }), "a partial match would wait for a row of `C` for ever", 16),
    ] {
        assert_eq!(told(pattern, more), ("pattern".into(), message.into(), Some(column)), "{pattern}");
    }
    // With all matches told a worse one counts; a row that is not waited for needs no time.
    assert_eq!(problems("A B*?", json!({ "after_match": "none" })), []);
    assert_eq!(problems("A", json!({ "within": null })), []);
    assert_eq!(problems("A !B within 5m", json!({ "within": null })), []);
    assert_eq!(problems("A B within 5m", json!({ "within": null })), []);
    // Negations count as steps, or a few signs would ask for all memory.
    assert!(told("A (((!B){100}){100}){100} C", json!({})).1.starts_with("the pattern has more than 200 steps"));
}

#[test]
fn a_condition_that_cannot_be_is_told() {
    for (define, message) in [
        ("1 = 2", "this is true of no row"),
        ("kind = '1' and false", "this is true of no row"),
        ("x > PREV(x) and null is not null", "this is true of no row"),
        ("x", "a condition must be true or false, and this is an int"),
        ("y = 1", "there is no column `y`"),
        ("x > LAST(C.x)", "no row of `C` comes before one of `B`, so `LAST(C.x)` is always that of none"),
        ("x > LAST(B.x)", "no row of `B` comes before one of `B`, so `LAST(B.x)` is always that of none"),
        ("x > E.x", "the pattern has no variable `E`"),
        ("COUNT(E.*) > 1", "the pattern has no variable `E`"),
        ("x > PREV(A.x)", "`PREV` is of the row before, whatever variable that is"),
        ("x > PREV(x, 0)", "`PREV` looks 1 to 100 rows back"),
        ("x > PREV()", "write `PREV(x)` or, of the row before that, `PREV(x, 2)`"),
        ("x > SUM(A.kind)", "`SUM` is of numbers, and this is of type string"),
        ("x > SUM(A.x + code)", "this is of rows of different variables; write a call for each"),
        ("x > SUM(AVG(A.x))", "one call cannot stand within another"),
        ("x > MAX(1)", "there is no column in it that it could be of"),
        ("x > COUNT(distinct A.x)", "`COUNT` of distinct values is not possible in a pattern"),
        ("x > SUM(A.x) filter (where x > 1)", "`SUM` takes arguments, and nothing else"),
        ("x > SUM(A.x, 1)", "write `SUM(A.x)`, of the rows of `A`, or `SUM(x)`, of all"),
    ] {
        let more = json!({ "define": { "B": define } });
        let (path, found, _) = told("A B C", more);
        assert_eq!((path.as_str(), found.as_str()), ("define.B", message), "{define}");
    }
    let (path, message, _) = told("A B", json!({ "define": { "A": "x > PREV(x)" } }));
    assert_eq!(path, "define.A");
    assert_eq!(message, "no row comes before one of `A`, so `PREV(x)` is always that of none");
    let problem = problems("A B", json!({ "define": { "C": "x > 1" } })).remove(0);
    assert_eq!((problem.message.as_str(), problem.known), ("the pattern has no variable `C`", vec!["A".into(), "B".into()]));
    // What is looked at may come before by some way.
    let more = json!({ "define": { "B": "x >= coalesce(LAST(B.x), 0)", "C": "x > LAST(B.x)", "D": "x = A.x" } });
    assert_eq!(problems("A B* !D C", more), []);
}

#[test]
fn the_rest_is_told() {
    for (more, path, message) in [
        (json!({ "after_match": { "to_first": "X" } }), "after_match.to_first", "there is no variable `X`"),
        (json!({ "after_match": { "to_last": "C" } }), "after_match.to_last", "a match may have no row of `C`"),
        (
            json!({ "after_match": { "to_last": "A" } }),
            "after_match.to_last",
            "the next match would begin where this one did: with its row of `A`",
        ),
        (
            json!({ "after_match": { "to_first": "A" } }),
            "after_match.to_first",
            "the next match would begin where this one did: with its row of `A`",
        ),
        (json!({ "max_partial": 0 }), "max_partial", "1 to 10000 partial matches of a key can be kept"),
        (json!({ "within": "0s" }), "within", "this must be longer than no time"),
        (json!({ "key": ["kye"] }), "key.0", "there is no column `kye`"),
        (json!({ "measures": { "n": "COUNT(D.*)" } }), "measures.n", "no row of a match is of `D`, which must not come"),
        (json!({ "measures": { "n": "PREV(x)" } }), "measures.n", "`PREV` stands in a definition"),
        (json!({ "measures": { "key": "x" } }), "measures.key", "this step would emit two columns `key`"),
        (json!({ "measures": { "outcome": "x" } }), "measures.outcome", "this step would emit two columns `outcome`"),
    ] {
        let (found, text, _) = told("A !D B C?", more);
        assert_eq!((found.as_str(), text.as_str()), (path, message));
    }
    let nothing = "no row is waited for in this pattern, so there is nothing that runs out of time";
    assert_eq!(told("A", json!({ "timed_out": true })).1, nothing);
    let problem = problems("A B", json!({ "within": "5 minutes" })).remove(0);
    assert!(problem.always && problem.path == ["within"]);
}
