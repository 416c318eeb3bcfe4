//! What expressions give, exactly, and what is said about wrong ones.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use levada_types::Batch;

use super::*;

/// 2013-01-01T10:17:30.250Z
const AT: i64 = 1_357_035_450_250;
const HOUR: i64 = 3_600_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Batch::time_field(),
        Field::new("origin", DataType::Utf8, false),
        Field::new("tail", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("k", DataType::Int64, false),
        Field::new("delay", DataType::Float64, true),
        Field::new("cancelled", DataType::Boolean, true),
        Field::new("at", Batch::timestamp_type(), false),
        Field::new("sched", Batch::timestamp_type(), true),
        Field::new("Mixed", DataType::Int64, false),
        Field::new("group", DataType::Utf8, false),
    ]))
}

/// Three rows; the last is null where it can be.
fn rows() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![AT, AT + 1, AT + 2])),
        Arc::new(StringArray::from(vec!["JFK", "LGA", "EWR"])),
        Arc::new(StringArray::from(vec![Some("N123"), Some("12"), None])),
        Arc::new(Int64Array::from(vec![Some(7), Some(0), None])),
        Arc::new(Int64Array::from(vec![2, -3, i64::MAX])),
        Arc::new(Float64Array::from(vec![Some(90.5), Some(-2.5), None])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(TimestampMillisecondArray::from(vec![AT, AT + HOUR, AT + 24 * HOUR])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(AT - 90_000), Some(AT), None])),
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec!["a", "b", "c"])),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn value(text: &str) -> ArrayRef {
    let expression = Expression::parse(text, &schema()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    let values = expression.evaluate(&rows()).unwrap();
    assert_eq!(values.data_type(), expression.data_type(), "{text}");
    assert!(expression.nullable() || values.null_count() == 0, "{text} is said not to be null");
    // Whoever shares the batch makes no difference.
    for row in 0..3 {
        assert_eq!(&expression.evaluate(&rows().slice(row, 1)).unwrap(), &values.slice(row, 1), "{text}");
    }
    assert_eq!(expression.evaluate(&rows().slice(0, 0)).unwrap().len(), 0, "{text}");
    values
}

fn ints(text: &str, expected: [Option<i64>; 3]) {
    assert_eq!(&value(text), &(Arc::new(Int64Array::from(expected.to_vec())) as ArrayRef), "{text}");
}
fn floats(text: &str, expected: [Option<f64>; 3]) {
    assert_eq!(&value(text), &(Arc::new(Float64Array::from(expected.to_vec())) as ArrayRef), "{text}");
}
fn bools(text: &str, expected: [Option<bool>; 3]) {
    assert_eq!(&value(text), &(Arc::new(BooleanArray::from(expected.to_vec())) as ArrayRef), "{text}");
}
fn strings(text: &str, expected: [Option<&str>; 3]) {
    assert_eq!(&value(text), &(Arc::new(StringArray::from(expected.to_vec())) as ArrayRef), "{text}");
}
fn times(text: &str, expected: [Option<i64>; 3]) {
    let expected: ArrayRef = Arc::new(TimestampMillisecondArray::from(expected.to_vec()));
    assert_eq!(&value(text), &expected, "{text}");
}

const T: Option<bool> = Some(true);
const F: Option<bool> = Some(false);

#[test]
fn conditions() {
    bools("delay > 60", [T, F, None]);
    bools("delay >= 60.0 and not cancelled", [F, F, None]);
    bools("cancelled or delay >= 60", [T, F, None]);
    bools("delay is null or cancelled", [T, F, T]);
    bools("origin = 'JFK'", [T, F, F]);
    bools("origin in ('JFK', 'EWR')", [T, F, T]);
    bools("origin not in ('JFK', 'EWR', 'A', 'B', 'C')", [F, T, F]);
    bools("n between 1 and 10", [T, F, None]);
    bools("origin like '%F%'", [T, F, F]);
    bools("origin ilike 'j%'", [T, F, F]);
    bools("regexp_like(tail, '^N[0-9]+$')", [T, F, None]);
    bools("tail ~ '^[0-9]'", [F, T, None]);
    bools("n is not distinct from null", [F, F, T]);
    bools("cancelled is true", [T, F, F]);
    bools("1 = 1", [T, T, T]);
    bools("at > sched", [T, T, None]);
    bools("at >= timestamp '2013-01-01T11:00:00Z'", [F, T, T]);
    bools("at >= '2013-01-01T11:00:00Z'", [F, T, T]);
    bools("at - interval '1 hour' > sched", [F, F, None]);
    bools("_time < at", [F, T, T]);
}

#[test]
fn numbers() {
    ints("n + 1", [Some(8), Some(1), None]);
    ints("-k", [Some(-2), Some(3), Some(-i64::MAX)]);
    ints("n % 4", [Some(3), Some(0), None]);
    ints("n / 2", [Some(3), Some(0), None]);
    floats("n / 2.0", [Some(3.5), Some(0.0), None]);
    floats("delay / 60.0", [Some(90.5 / 60.0), Some(-2.5 / 60.0), None]);
    floats("60.0", [Some(60.0); 3]);
    ints("abs(k)", [Some(2), Some(3), Some(i64::MAX)]);
    floats("round(delay)", [Some(91.0), Some(-3.0), None]);
    floats("round(delay / 7, 2)", [Some(12.93), Some(-0.36), None]);
    floats("floor(delay)", [Some(90.0), Some(-3.0), None]);
    floats("greatest(delay, 0)", [Some(90.5), Some(0.0), Some(0.0)]);
    ints("least(n, k)", [Some(2), Some(-3), Some(i64::MAX)]);
    floats("coalesce(delay, 0)", [Some(90.5), Some(-2.5), Some(0.0)]);
    ints("nullif(n, 0)", [Some(7), None, None]);
    ints("cast(tail as int)", [None, Some(12), None]);
    ints("tail::bigint + 1", [None, Some(13), None]);
    ints("coalesce(cast(tail as int), -1)", [Some(-1), Some(12), Some(-1)]);
    floats("cast(n as double)", [Some(7.0), Some(0.0), None]);
    floats("cast(n as decimal(10, 2))", [Some(7.0), Some(0.0), None]);
    floats("case when cancelled then 3.0 else delay / 60.0 end", [Some(3.0), Some(-2.5 / 60.0), None]);
    floats("case origin when 'JFK' then 1 when 'LGA' then 2.5 end", [Some(1.0), Some(2.5), None]);
    ints("character_length(origin)", [Some(3); 3]);
    ints("Mixed", [Some(1), Some(2), Some(3)]);
    ints("\"Mixed\" * 2", [Some(2), Some(4), Some(6)]);
}

#[test]
fn what_a_row_cannot_do_is_null() {
    ints("10 / n", [Some(1), None, None]);
    ints("coalesce(10 / n, 0)", [Some(1), Some(0), Some(0)]);
    ints("10 % n", [Some(3), None, None]);
    ints("1 / 0", [None; 3]);
    floats("1.0 / 0", [None; 3]);
    floats("delay / (n * 1.0)", [Some(90.5 / 7.0), None, None]);
    floats("delay % 0.0", [None; 3]);
    bools("delay / (n * 1.0) > 3", [Some(true), None, None]);
    ints("length(repeat(origin, n))", [Some(21), Some(0), None]);
    ints("length(lpad(origin, n + 65529, 'é'))", [Some(65536), Some(65529), None]);
    ints("length(rpad('x', 9223372036854775807))", [None; 3]);
    ints("length(repeat('xy', 32768))", [Some(65536); 3]);
    ints("length(repeat('xy', 32769))", [None; 3]);
    ints("length(repeat(origin, 9223372036854775807))", [None; 3]);
    floats("10.0 / n", [Some(10.0 / 7.0), None, None]);
    ints("k + 1", [Some(3), Some(-2), None]);
    ints("k * 2 - 1", [Some(3), Some(-7), None]);
    floats("sqrt(delay + 2)", [Some(92.5f64.sqrt()), None, None]);
    bools("n <> 0 and 10 / n = 1", [T, F, None]);
}

#[test]
fn strings_and_times() {
    strings("lower(origin)", [Some("jfk"), Some("lga"), Some("ewr")]);
    strings("origin || '-' || tail", [Some("JFK-N123"), Some("LGA-12"), None]);
    strings("concat(origin, tail)", [Some("JFKN123"), Some("LGA12"), Some("EWR")]);
    strings("substr(origin, 2)", [Some("FK"), Some("GA"), Some("WR")]);
    strings("substring(origin from 1 for 1)", [Some("J"), Some("L"), Some("E")]);
    strings("replace(origin, 'F', 'f')", [Some("JfK"), Some("LGA"), Some("EWR")]);
    strings("regexp_replace(tail, '[0-9]+', '#')", [Some("N#"), Some("#"), None]);
    strings("split_part('a-b', '-', 2)", [Some("b"); 3]);
    strings("cast(n as string)", [Some("7"), Some("0"), None]);
    strings("\"group\"", [Some("a"), Some("b"), Some("c")]);
    strings("case when n > 5 then 'big' end", [Some("big"), None, None]);

    let hour = AT / HOUR * HOUR;
    let day = AT / (24 * HOUR) * 24 * HOUR;
    times("date_trunc('hour', at)", [Some(hour), Some(hour + HOUR), Some(hour + 24 * HOUR)]);
    times("cast(at as date)", [Some(day), Some(day), Some(day + 24 * HOUR)]);
    times(
        "at + interval '1 day 30 minutes'",
        [Some(AT + 24 * HOUR + HOUR / 2), Some(AT + 25 * HOUR + HOUR / 2), Some(AT + 48 * HOUR + HOUR / 2)],
    );
    times("timestamp '2013-01-01T10:17:30.25Z'", [Some(AT); 3]);
    times("timestamp '2013-01-01 12:17:30.25+02:00'", [Some(AT); 3]);
    times("date '2013-01-01'", [Some(day); 3]);
    times("cast(k as timestamp)", [Some(2), Some(-3), Some(i64::MAX)]);
    times("to_timestamp('2013-01-01T10:17:30.250Z')", [Some(AT); 3]);
    times("coalesce(sched, at)", [Some(AT - 90_000), Some(AT), Some(AT + 24 * HOUR)]);
    times(
        "date_bin(interval '15 minutes', at)",
        [
            Some(AT / 900_000 * 900_000),
            Some((AT + HOUR) / 900_000 * 900_000),
            Some((AT + 24 * HOUR) / 900_000 * 900_000),
        ],
    );
    ints("at - sched", [Some(90_000), Some(HOUR), None]);
    floats("(at - sched) / 60000.0", [Some(1.5), Some(60.0), None]);
    ints("cast(at as bigint)", [Some(AT), Some(AT + HOUR), Some(AT + 24 * HOUR)]);
    ints("date_part('hour', at)", [Some(10), Some(11), Some(10)]);
    ints("extract(dow from at)", [Some(2), Some(2), Some(3)]);
    strings("to_char(at, '%Y-%m-%d')", [Some("2013-01-01"), Some("2013-01-01"), Some("2013-01-02")]);
}

#[test]
fn a_condition_matches_without_nulls() {
    let condition = Expression::condition("delay > 60", &schema()).unwrap();
    assert_eq!(condition.matches(&rows()).unwrap(), BooleanArray::from(vec![true, false, false]));
}

#[test]
fn it_knows_its_columns_and_nulls() {
    let parse = |text: &str| Expression::parse(text, &schema()).unwrap();
    let columns = |text: &str| parse(text).columns().iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(columns("delay > 60 and origin = 'JFK'"), "delay origin");
    assert_eq!(columns("_time > at"), "at");
    assert_eq!(columns("1"), "");
    assert_eq!(columns("n is null = (k > 3)"), "k n", "what is compared is whether it is null");
    // Also those that do not matter in the end: without them the text would not be understood.
    assert_eq!(columns("origin is not null and (delay > 1 or true)"), "delay origin");
    assert_eq!(columns("case when true then k else n end"), "k n");
    for never in
        ["origin", "k > 3", "coalesce(delay, 1.5)", "k / 2.0", "1", "case when k > 3 then 1 else 2 end"]
    {
        assert!(!parse(never).nullable(), "{never}");
    }
    for maybe in ["n", "k + 1", "10 / k", "cast(origin as int)", "case when k > 3 then 1 end", "sqrt(k)"] {
        assert!(parse(maybe).nullable(), "{maybe}");
    }
}

#[test]
fn columns_are_found_by_name() {
    let expression = Expression::parse("delay + k", &schema()).unwrap();
    let turned = rows().project(&[5, 1, 4]).unwrap();
    assert_eq!(&expression.evaluate(&turned).unwrap(), &expression.evaluate(&rows()).unwrap());
    let error = expression.evaluate(&rows().project(&[5]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "failed to evaluate: an expression: the rows have no column `k`");
}

#[test]
fn rare_failures_are_found_by_halving() {
    let schema = Schema::new(vec![Field::new("k", DataType::Int64, false)]);
    let input: Vec<i64> = (0..8192).map(|i| if i % 1000 == 7 { i64::MAX } else { i }).collect();
    let expected: Int64Array = input.iter().map(|k| k.checked_add(1)).collect();
    let column: ArrayRef = Arc::new(Int64Array::from(input));
    let rows = RecordBatch::try_new(Arc::new(schema.clone()), vec![column]).unwrap();
    let sum = Expression::parse("k + 1", &schema).unwrap();
    assert_eq!(&sum.evaluate(&rows).unwrap(), &(Arc::new(expected) as ArrayRef));
}

fn problem(text: &str) -> ExpressionProblem {
    match Expression::parse(text, &schema()) {
        Err(problem) => problem,
        Ok(expression) => panic!("{text} is fine: {expression:?}"),
    }
}

/// What is wrong, and the part of the text that is marked.
fn blames(text: &str, message: &str, part: &str) {
    let problem = problem(text);
    let marked = problem.at.zip(problem.until).map(|(from, to)| &text[from.1 - 1..to.1 - 1]);
    assert_eq!((problem.message.as_str(), marked), (message, Some(part)), "{text}");
}

fn says(text: &str, message: &str, at: Option<(usize, usize)>) {
    let problem = problem(text);
    assert_eq!((problem.message.as_str(), problem.at), (message, at), "{text}");
}

#[test]
fn wrong_names_have_a_place_and_neighbours() {
    let dely = problem("k > 3 and\n  dely > 60");
    assert_eq!(dely.message, "there is no column `dely`");
    assert_eq!(dely.at, Some((2, 3)));
    let (name, known) = dely.unknown.unwrap();
    assert_eq!(name, "dely");
    assert!(known.contains(&"delay".to_string()));

    assert_eq!(problem("mixed + 1").message, "there is no column `mixed`");
    assert_eq!(problem("t.origin = 'a'").message, "there is no column `t.origin`");

    let rond = problem("1 + rond(delay)");
    assert_eq!((rond.message.as_str(), rond.at), ("there is no function `rond`", Some((1, 5))));
    let (name, known) = rond.unknown.unwrap();
    assert_eq!(name, "rond");
    assert!(known.contains(&"round".to_string()) && !known.contains(&"now".to_string()));
}

#[test]
fn wrong_syntax_is_said_plainly() {
    says("", "the expression is empty", None);
    says("delay >", "expected an expression, found the end", Some((1, 8)));
    says("delay > 60 )", "expected the end of the expression, found `)`", Some((1, 12)));
    says("origin = 'JFK", "unterminated string literal", Some((1, 10)));
    says("(delay > 60", "expected ), found the end", Some((1, 12)));
    assert_eq!(problem(&"(".repeat(500)).message, "the expression is nested too deeply");
    let long = vec!["k"; 600].join(" + ");
    assert_eq!(problem(&long).message, "the expression has 1199 words and signs; 1000 are allowed");
    // As long as is allowed, on a test thread's stack.
    let long = vec!["delay"; 500].join(" + ");
    floats(&long, [Some(90.5 * 500.0), Some(-2.5 * 500.0), None]);
}

#[test]
fn what_is_not_a_function_of_the_row_is_refused() {
    let clock = "is not allowed: a job is a function of its inputs; use the event's time (`_time`)";
    for name in ["now()", "current_timestamp", "current_date", "random()", "uuid()", "current_time"] {
        let bare = name.trim_end_matches("()");
        assert_eq!(problem(&format!("1 = 1 and {name} is null")).message, format!("`{bare}` {clock}"));
    }
    says("sum(k) > 3", "`sum` works on many rows and is not possible here; use a window step", Some((1, 1)));
    assert!(problem("abs(k) over (partition by origin)").message.contains("window step"));
    assert!(problem("(select 1) > 0").message.starts_with("a query inside an expression"));
    assert!(problem("k in (select 1)").message.starts_with("a query inside an expression"));
    assert!(problem("k > $1").message.starts_with("`$1` has no meaning here"));
    assert!(problem("arrow_typeof(k)").message.starts_with("there is no function"));
}

#[test]
fn wrong_types_are_said_plainly() {
    blames("origin + 1", "`+` does not go between a string and an int", "origin + 1");
    blames(
        "k > 3 and cancelled > origin",
        "`>` does not go between a bool and a string",
        "cancelled > origin",
    );
    says("null", "a bare null has no type; give it one, as in `cast(null as float)`", None);
    blames("k > cast('x' as int)", "`x` is not an int", "'x'");
    blames("at > 'yesterday'", "`yesterday` is not a timestamp", "'yesterday'");
    blames("timestamp '2013-13-01'", "`2013-13-01` is not a timestamp", "'2013-13-01'");
    let not_a_column = "a column can be a string, an int, a float, a bool or a timestamp";
    says("interval '1 hour'", &format!("the value is an interval; {not_a_column}"), None);
    says("x'ab'", &format!("the value is a string of bytes; {not_a_column}"), None);
    assert_eq!(problem("[k]").message, "this form of expression is not possible here");
    blames(
        "1 + cast(k as blob)",
        "there is no type `blob`; there are string, int, float, bool, timestamp and date",
        "cast(k as blob)",
    );
    blames("k and cancelled", "`and` does not go between an int and a bool", "k and cancelled");
    blames("at + 1", "`+` does not go between a timestamp and an int", "at + 1");
    blames("at > 5", "`>` does not go between a timestamp and an int", "at > 5");
    let longer = "at - sched > interval '1 hour'";
    blames(longer, "`>` does not go between an int and an interval", longer);
    blames("not k", "unary operator 'NOT' requires a boolean expression, got int", "k");
    // What coercion would guess is refused.
    let guess = |column: &str, from: &str, to: &str| {
        let noun = to.split(' ').next_back().unwrap();
        format!(
            "`{column}` is {from} where {to} is needed; if that is meant, write `cast({column} as {noun})`"
        )
    };
    blames("k > 1 or origin > 5", &guess("origin", "a string", "an int"), "origin");
    blames("tail > at", &guess("tail", "a string", "a timestamp"), "tail");
    blames("coalesce(n, origin)", &guess("origin", "a string", "an int"), "origin");
    blames("case when k then 1 end", &guess("k", "an int", "a bool"), "k");
    // Constants that would fail on every row.
    blames("k in ('a', 'b')", "`a` is not an int", "'a'");
    let call = "regexp_like(origin, '[')";
    blames(call, "a regular expression is wrong: unclosed character class", call);
    assert!(problem("date_trunc('hours', at)").message.contains("'hours'. Supported values are: "));
    assert!(problem("date_part('hours_of', at)").message.contains("hours_of"));
    let problem = Expression::condition("delay + 1", &schema()).unwrap_err();
    assert_eq!(problem.message, "a condition must be true or false, and this is a float");
}

#[test]
fn wrong_arguments_are_told_beside_what_is_taken() {
    let cases = [
        ("substr(origin)", "`substr` takes (text, start[, length]); it was given (string)"),
        ("substr(origin, 'a')", "`substr` takes (text, start[, length]); it was given (string, string)"),
        ("round(origin)", "`round` takes (number[, decimal_places]); it was given (string)"),
        ("round(1, 2, 3)", "`round` takes (number[, decimal_places]); it was given (int, int, int)"),
        ("abs()", "`abs` takes (number); it was given ()"),
        ("floor(origin)", "`floor` takes (number); it was given (string)"),
        ("date_trunc(5, at)", "`date_trunc` takes (precision, value); it was given (int, timestamp)"),
        ("json_get(origin)", "`json_get` takes (json, path); it was given (string)"),
    ];
    for (text, message) in cases {
        blames(text, message, text);
        blames(&format!("k = 1 or {text} is null"), message, text);
    }
}

#[test]
fn other_languages_signs_are_translated() {
    says("cancelled && k > 1", "`&&` is written `and`", Some((1, 11)));
    says("!cancelled", "`!` is written `not`", Some((1, 1)));
    says("cancelled ? 1 : 2", "`a ? b : c` is written `case when a then b else c end`", Some((1, 11)));
    let joins = "`||` joins texts and does not go between a bool and a bool; conditions are joined by `or`";
    blames("k = 1 and (cancelled || cancelled)", joins, "cancelled || cancelled");
    // It binds more closely than a comparison.
    let joins = "`||` joins texts and does not go between a bool and an int; conditions are joined by `or`";
    blames("cancelled || k > 1", joins, "cancelled || k");
    bools("k == 2", [T, F, F]);
    bools("k != 2", [F, T, T]);
}

#[test]
fn text_in_double_quotes_is_seen() {
    let path = problem("origin = \"/pay\"");
    assert_eq!(path.message, "there is no column `/pay`");
    assert_eq!((path.at, path.until, path.unknown), (Some((1, 10)), Some((1, 16)), None));
    assert_eq!(path.help.as_deref(), Some("text goes in single quotes: '/pay'"));
    let name = problem("origin = \"JFK\"");
    assert_eq!(name.help.as_deref(), Some("text goes in single quotes: 'JFK'"));
    assert!(name.unknown.is_some());
    let bare = problem("origin = JFK");
    assert_eq!(bare.help.as_deref(), Some("text goes in single quotes: 'JFK'"));
    assert_eq!(problem("k = JFK").help, None, "which is no text");
}

/// Columns that are called as words of SQL.
fn words_schema() -> SchemaRef {
    let names = [
        "user",
        "order",
        "group",
        "end",
        "select",
        "from",
        "current_date",
        "interval",
        "left",
        "case",
        "null",
        "desc",
        "by",
        "values",
        "table",
        "hour",
        "like",
        "in",
        "distinct",
    ];
    let mut fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect();
    fields.push(Field::new("date", Batch::timestamp_type(), false));
    fields.push(Field::new("timestamp", Batch::timestamp_type(), false));
    Arc::new(Schema::new(fields))
}

#[test]
fn a_column_may_be_called_as_a_word_of_sql() {
    let schema = words_schema();
    let reads = |text: &str| {
        let expression = Expression::parse(text, &schema).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        expression.columns().iter().cloned().collect::<Vec<_>>().join(" ")
    };
    for (text, columns) in [
        ("user", "user"),
        ("order > 1", "order"),
        ("end - group * select", "end group select"),
        ("case when end > 1 then user else order end", "end order user"),
        ("case user when 1 then 2 end", "user"),
        ("case group when end then end else end end", "end group"),
        ("from + current_date + interval", "current_date from interval"),
        ("date > timestamp", "date timestamp"),
        ("date > date '2013-01-01' and timestamp < timestamp '2013-01-01T00:00:00Z'", "date timestamp"),
        ("date + interval '1 day' > timestamp", "date timestamp"),
        ("extract(hour from date) + hour", "date hour"),
        ("left + length(left('abc', 2))", "left"),
        ("cast(user as timestamp) > date", "date user"),
        ("user::float > 1", "user"),
        ("not user = 1 and not (order in (1, group))", "group order user"),
        ("user not in (1, 2) or user not between 1 and order", "order user"),
        ("order is not distinct from from", "from order"),
        ("desc + by + values + table", "by desc table values"),
        ("like + 1 > in", "in like"),
        ("\"case\" > 1", "case"),
        ("abs(user) is not null", "user"),
    ] {
        assert_eq!(reads(text), columns, "{text}");
    }
    let count = AggregateExpression::parse("count(distinct user) filter (where order > 1)", &schema).unwrap();
    assert_eq!(count.columns().into_iter().collect::<Vec<_>>(), ["order", "user"]);
    // The literal, and not the column; and a word that is no column is only that.
    assert_eq!(reads("null is null"), "");
    let user = problem("user > 1");
    assert_eq!((user.message.as_str(), user.at), ("there is no column `user`", Some((1, 1))));
}

#[test]
fn a_word_that_cannot_be_a_column_is_to_be_quoted() {
    let problem = |text: &str| AggregateExpression::parse(text, &words_schema()).unwrap_err();
    let distinct = problem("count(distinct)");
    assert_eq!(distinct.message, "`distinct` is a word of SQL: write the column as \"distinct\"");
    assert_eq!(distinct.at, Some((1, 7)));
    let help = "in a TOML string of single quotes: 'count(\"distinct\")'";
    assert_eq!(distinct.help.as_deref(), Some(help));
    let distinct = problem("count(distinct) filter (where 'a' = 'b')");
    let help = "in a TOML string of single quotes: '''count(\"distinct\") filter (where 'a' = 'b')'''";
    assert_eq!(distinct.help.as_deref(), Some(help));
}

#[test]
fn json_is_looked_into() {
    strings("json_get('[[\"a\", 1.50]]', '0.1')", [Some("1.50"); 3]);
    strings("json_get(origin, '')", [None; 3]);
    ints("json_length('[1, 2]') + k", [Some(4), Some(-1), None]);
    ints("json_length(tail)", [None; 3]);
}

#[test]
fn aggregates_are_taken_apart() {
    let parse = |text: &str| AggregateExpression::parse(text, &schema());
    let count = parse("count(*) filter (where delay > 60)").unwrap();
    assert_eq!((count.function.as_str(), count.distinct, count.argument.is_none()), ("count", false, true));
    assert_eq!(count.columns().into_iter().collect::<Vec<_>>(), ["delay"]);
    let filter = count.filter.unwrap();
    assert_eq!(filter.matches(&rows()).unwrap(), BooleanArray::from(vec![true, false, false]));

    let count = parse("COUNT(DISTINCT origin)").unwrap();
    assert_eq!((count.function.as_str(), count.distinct), ("count", true));
    assert_eq!(count.argument.unwrap().data_type(), &DataType::Utf8);

    let percentile = parse("approx_percentile(coalesce(delay, 0), 0.9, -2)").unwrap();
    assert_eq!(percentile.constants, [0.9, -2.0]);
    assert_eq!(percentile.argument.unwrap().data_type(), &DataType::Float64);
    assert!(percentile.filter.is_none());

    let message = |text: &str| parse(text).unwrap_err().message;
    assert_eq!(message("avg(dely)"), "there is no column `dely`");
    assert_eq!(
        message("avg(sum(k))"),
        "`sum` works on many rows and is not possible here; use a window step"
    );
    assert_eq!(message("percentile(delay, k)"), "`k` must be a number: only the first argument varies");
    assert!(message("avg(delay) + 1").starts_with("an aggregate is one call"));
    assert!(message("delay").starts_with("an aggregate is one call"));
    assert!(message("avg(delay) over ()").contains("nothing else"));
    assert_eq!(
        message("avg(delay) filter (where n)"),
        "a condition must be true or false, and this is an int"
    );
}
