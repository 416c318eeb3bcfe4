//! Signs of other languages that SQL does not have, or has for something else.

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

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
        let (line, column) = place(token.span.start);
        let problem = ExpressionProblem::new(message).at((line, column));
        return Err(ExpressionProblem { until: Some((line, column + length)), ..problem });
    }
    Ok(())
}
