//! Signs and functions of other languages that there are not here, or that are something else.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::ExpressionProblem;
use super::parse::place;

/// Refuses a sign that is surely meant otherwise, and says how SQL writes it.
pub fn check(tokens: &[TokenWithSpan]) -> Result<(), ExpressionProblem> {
    for token in tokens {
        let (message, length) = match &token.token {
            Token::Overlap => ("`&&` is written `and`", 2),
            Token::ExclamationMark => ("`!` is written `not`", 1),
            Token::Question => ("`a ? b : c` is written `case when a then b else c end`", 1),
            Token::Placeholder(sign) if sign == "?" => {
                ("`a ? b : c` is written `case when a then b else c end`", 1)
            }
            _ => continue,
        };
        return Err(refused(token, message, length));
    }
    let meaning: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    if let Some(first) = meaning.first()
        && matches!(&first.token, Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::SELECT)
    {
        let message =
            "an expression stands here, not a query: `where` and `columns` are fields of a select step";
        return Err(refused(first, message, "select".len()));
    }
    if let Some(last) = meaning.last().filter(|last| last.token == Token::SemiColon) {
        return Err(refused(last, "an expression has no `;` at its end", 1));
    }
    for (index, token) in meaning.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| meaning.get(before));
        let begins = before.is_none_or(|before| {
            !matches!(before.token, Token::Word(_) | Token::RParen | Token::RBracket | Token::Number(..))
        });
        if let (Token::Period, true, Some(Token::Word(word))) =
            (&token.token, begins, meaning.get(index + 1).map(|next| &next.token))
        {
            let message = format!("a column is written without a point: `{}`", word.value);
            return Err(refused(token, &message, 1 + word.value.chars().count()));
        }
    }
    for pair in meaning.windows(2) {
        let (message, length) = match (&pair[0].token, &pair[1].token) {
            (Token::Eq | Token::DoubleEq, Token::Word(word)) if is_null(word) => {
                ("nothing is equal to null, so this is never true; write `is null`", 4)
            }
            (Token::Neq, Token::Word(word)) if is_null(word) => {
                ("nothing is unlike null, so this is never true; write `is not null`", 4)
            }
            (Token::Lt | Token::LtEq | Token::Gt | Token::GtEq, Token::Word(word)) if is_null(word) => (
                "nothing is more or less than null, so this is never true; write `is null` or `is not null`",
                4,
            ),
            _ => continue,
        };
        return Err(refused(pair[1], message, length));
    }
    Ok(())
}

fn is_null(word: &Word) -> bool {
    word.quote_style.is_none() && word.keyword == Keyword::NULL
}

fn refused(token: &TokenWithSpan, message: &str, length: usize) -> ExpressionProblem {
    let (line, column) = place(token.span.start);
    let problem = ExpressionProblem::new(message).at((line, column));
    ExpressionProblem { until: Some((line, column + length)), ..problem }
}

/// What does the work of a function of one row that other languages have: `name` is in lower case.
pub fn instead(name: &str) -> Option<String> {
    let how = match name {
        "year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second" => {
            return Some(format!("write `extract({name} from x)`"));
        }
        "dayofweek" | "day_of_week" | "weekday" => "write `extract(dow from x)`; Sunday is 0",
        "dayofyear" | "day_of_year" => "write `extract(doy from x)`",
        "dateadd" | "date_add" | "timestampadd" => "write `x + interval '1 day'`",
        "datesub" | "date_sub" => "write `x - interval '1 day'`",
        "datediff" | "date_diff" | "timestampdiff" | "timediff" => {
            "write `a - b`, which is the milliseconds between two timestamps"
        }
        "if" | "iif" | "iff" | "ifelse" => "write `case when a then b else c end`",
        "is_null" | "isnull" => "write `x is null`",
        "is_not_null" | "isnotnull" | "notnull" => "write `x is not null`",
        "int" | "integer" | "bigint" | "to_int" | "toint" | "parse_int" => "write `cast(x as int)`",
        "float" | "double" | "to_float" | "tofloat" | "to_number" | "parse_float" => {
            "write `cast(x as float)`"
        }
        "str" | "string" | "text" | "tostring" | "to_string" => "write `cast(x as string)`",
        "bool" | "boolean" | "to_bool" | "to_boolean" => "write `cast(x as bool)`",
        "timestamp" => "write `cast(x as timestamp)`, of a text or of milliseconds since 1970",
        "lag" | "lead" | "prev" | "next" | "row_number" | "rank" | "dense_rank" | "ntile" | "delta"
        | "rate" => "an expression sees one row only; window and detect steps look at several",
        _ => return of_many(name).map(|how| format!("in a window step, {how}")),
    };
    Some(how.into())
}

/// The same of a function of many rows, where one is wanted.
pub fn of_many(name: &str) -> Option<&'static str> {
    Some(match name {
        "countif" | "count_if" => "write `count(*) filter (where x > 1)`",
        "sumif" | "sum_if" => "write `sum(x) filter (where x > 1)`",
        "avgif" | "avg_if" => "write `avg(x) filter (where x > 1)`",
        "count_distinct" | "countdistinct" | "nunique" | "approx_distinct" => "write `count(distinct x)`",
        "mean" => "write `avg(x)`",
        "percentile" | "percentile_cont" | "percentile_disc" | "quantile" | "approx_percentile_cont" => {
            "write `approx_percentile(x, 0.9)`, with a fraction rather than a percentage"
        }
        "median" | "approx_median" => "write `approx_percentile(x, 0.5)`",
        "stddev_pop" | "stddev_samp" | "std" | "stdev" => "write `stddev(x)`",
        "first_value" | "any_value" => "write `first(x)`",
        "last_value" => "write `last(x)`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use levada_types::Batch;

    use super::*;
    use crate::expressions::{AggregateExpression, Expression};

    /// What stands between the first backticks.
    fn advised(help: &str) -> &str {
        help.split('`').nth(1).unwrap_or_default()
    }

    #[test]
    fn what_is_advised_can_be_written() {
        let of = |x: DataType, a: DataType| {
            let fields = [("x", x.clone()), ("a", a), ("b", x.clone()), ("c", x)];
            Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec())
        };
        let time = Batch::timestamp_type();
        let times = of(time.clone(), time);
        for name in
            ["hour", "month", "second", "weekday", "dayofyear", "dateadd", "date_sub", "datediff", "isnull"]
        {
            let help = instead(name).unwrap();
            assert!(Expression::parse(advised(&help), &times).is_ok(), "{name}: {help}");
        }
        let texts = of(DataType::Utf8, DataType::Boolean);
        for name in ["if", "is_not_null", "int", "to_number", "string", "bool", "timestamp"] {
            let help = instead(name).unwrap();
            assert!(Expression::parse(advised(&help), &texts).is_ok(), "{name}: {help}");
        }
        let numbers = of(DataType::Float64, DataType::Float64);
        for name in [
            "countif",
            "sumif",
            "avgif",
            "nunique",
            "mean",
            "quantile",
            "median",
            "std",
            "any_value",
            "last_value",
        ] {
            let help = of_many(name).unwrap();
            assert!(AggregateExpression::parse(advised(help), &numbers).is_ok(), "{name}: {help}");
            assert_eq!(instead(name), Some(format!("in a window step, {help}")));
        }
        assert_eq!((instead("round"), of_many("hour")), (None, None));
    }
}
