//! Signs of other languages that SQL does not have, or has for something else.

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
