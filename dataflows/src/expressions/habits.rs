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
    for pair in meaning.windows(2) {
        let (message, length) = match (&pair[0].token, &pair[1].token) {
            (Token::Eq | Token::DoubleEq, Token::Word(word)) if is_null(word) => {
                ("nothing is equal to null, so this is never true; write `is null`", 4)
            }
            (Token::Neq, Token::Word(word)) if is_null(word) => {
                ("nothing is unlike null, so this is never true; write `is not null`", 4)
            }
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

/// What does the work of a function that other languages have: `name` is in lower case.
pub fn instead(name: &str) -> Option<String> {
    let how = match name {
        "year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second" => {
            return Some(format!("write `extract({name} from x)`"));
        }
        "dayofweek" | "day_of_week" | "weekday" => "write `extract(dow from x)`; Sunday is 0",
        "dayofyear" | "day_of_year" => "write `extract(doy from x)`",
        "dateadd" | "date_add" | "timestampadd" | "date_sub" => "write `x + interval '1 day'`",
        "datediff" | "date_diff" | "timestampdiff" | "timediff" => {
            "write `a - b`, which is the milliseconds between two timestamps"
        }
        "if" | "iif" | "iff" | "ifelse" => "write `case when a then b else c end`",
        "is_null" | "isnull" => "write `x is null`",
        "is_not_null" | "isnotnull" | "notnull" => "write `x is not null`",
        "int" | "integer" | "bigint" | "to_int" | "toint" | "to_number" | "parse_int" => {
            "write `cast(x as int)`"
        }
        "float" | "double" | "to_float" | "tofloat" | "parse_float" => "write `cast(x as float)`",
        "str" | "string" | "text" | "tostring" | "to_string" => "write `cast(x as string)`",
        "bool" | "boolean" | "to_bool" | "to_boolean" => "write `cast(x as bool)`",
        "timestamp" => {
            "write `timestamp '2013-01-01T12:00:00Z'`, or `cast(x as timestamp)` of a text or milliseconds"
        }
        "lag" | "lead" | "prev" | "next" | "row_number" | "rank" | "dense_rank" | "ntile" | "delta"
        | "rate" => {
            "an expression sees one row only; a window step's `first`, `last` and `count`, or a detect step, look at several"
        }
        "countif" | "count_if" | "sumif" | "sum_if" | "avgif" | "avg_if" => {
            "in a window step, write for instance `count(*) filter (where ...)`"
        }
        "count_distinct" | "countdistinct" | "nunique" => "in a window step, write `count(distinct x)`",
        "percentile" | "percentile_cont" | "percentile_disc" | "quantile" | "median" | "approx_median" => {
            "in a window step, write `approx_percentile(x, 0.5)`"
        }
        _ => return None,
    };
    Some(how.into())
}
