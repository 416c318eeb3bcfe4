//! Which words of an expression are columns.
//!
//! SQL gives a meaning of its own to many words that are good names for a column: `user`, `date`,
//! `timestamp`, `order`, `end`. Here a word that stands where an operand is expected and names a column
//! is that column, and is quoted before the parser sees it. It is not if it is called (`left(x, 2)`), if
//! a literal follows (`date '2013-01-01'`), or if SQL has an operand that begins with it (`case`, `not`,
//! `null`): that one wins, and whoever means the column has to quote it.
//!
//! ```text
//!   count(distinct user)      end - begin > 0 and not order      case when end > 1 then 2 end
//!                  ^^^^       ^^^   ^^^^^             ^^^^^                ^^^
//! ```

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::parse::place;
use super::{ExpressionProblem, words};

/// Words after which, where an operand is expected, one still is.
const BEFORE_OPERANDS: &[&str] =
    &["not", "case", "when", "then", "else", "distinct", "all", "where", "both", "leading", "trailing"];

/// Operands that are one word.
const CONSTANTS: &[&str] = &["null", "true", "false"];

/// Words that stand behind an operand and want another.
const INFIX: &[&str] = &[
    "and", "or", "xor", "is", "in", "like", "ilike", "similar", "to", "between", "escape", "from", "for",
    "placing", "using", "when", "then", "else", "div", "rlike", "regexp",
];

/// Quotes the words of `tokens` that are columns of `schema`. Gives what to say, should the text then not
/// parse, of a word that names a column and that SQL understands otherwise.
pub fn quote_columns(tokens: &mut [TokenWithSpan], schema: &Schema, text: &str) -> Option<ExpressionProblem> {
    let places: Vec<usize> =
        (0..tokens.len()).filter(|&i| !matches!(tokens[i].token, Token::Whitespace(_))).collect();
    let mut reserved = None;
    // Whether an operand is expected, rather than what joins two.
    let mut operand = true;
    for (nth, &index) in places.iter().enumerate() {
        let near = |by: isize| {
            let place = places.get(nth.checked_add_signed(by)?)?;
            tokens.get(*place).map(|token| &token.token)
        };
        let Token::Word(word) = &tokens[index].token else {
            operand = !matches!(
                &tokens[index].token,
                Token::Number(..)
                    | Token::SingleQuotedString(_)
                    | Token::EscapedStringLiteral(_)
                    | Token::HexStringLiteral(_)
                    | Token::Placeholder(_)
                    | Token::RParen
                    | Token::RBracket
            );
            continue;
        };
        let name = word.value.to_ascii_lowercase();
        let is = |list: &[&str]| word.quote_style.is_none() && list.contains(&name.as_str());
        if !operand || is_part(near(-1), near(-2)) {
            operand = is(INFIX);
            continue;
        }
        let names_a_column = word.quote_style.is_none() && schema.index_of(&word.value).is_ok();
        let is_column = names_a_column && !is_something_else(near(1), near(2));
        operand = is(BEFORE_OPERANDS) || (is(INFIX) && !is_column);
        if is_column && (operand || is(CONSTANTS)) {
            reserved.get_or_insert_with(|| reserved_word(word, &tokens[index], text));
        } else if is_column
            && word.keyword != Keyword::NoKeyword
            && let Token::Word(word) = &mut tokens[index].token
        {
            word.quote_style = Some('"');
            word.keyword = Keyword::NoKeyword;
        }
    }
    reserved
}

/// Whether a word belongs to the tokens before it: `x::date`, `t.x`, `cast(x as date)`, `extract(hour from x)`,
/// `is distinct from`.
fn is_part(before: Option<&Token>, two_before: Option<&Token>) -> bool {
    matches!(before, Some(Token::DoubleColon | Token::Period))
        || said(before, &["as"])
        || (matches!(before, Some(Token::LParen)) && said(two_before, &["extract"]))
        || (said(before, &["distinct"]) && said(two_before, &["is", "not"]))
}

/// Whether the tokens after a word make it a call, the type of a literal or the first part of a name.
fn is_something_else(after: Option<&Token>, two_after: Option<&Token>) -> bool {
    matches!(after, Some(Token::LParen | Token::Period))
        || is_literal(after)
        || (said(after, &["with", "without"]) && said(two_after, &["time"]))
}

fn is_literal(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::SingleQuotedString(_) | Token::Number(..)))
}

fn said(token: Option<&Token>, words: &[&str]) -> bool {
    matches!(token, Some(Token::Word(word)) if word.quote_style.is_none()
        && words.contains(&word.value.to_ascii_lowercase().as_str()))
}

fn reserved_word(word: &Word, token: &TokenWithSpan, text: &str) -> ExpressionProblem {
    let name = &word.value;
    let message = format!("`{name}` is a word of SQL: write the column as \"{name}\"");
    let at = place(token.span.start);
    let start = words::offset(text, at);
    let quoted =
        format!("{}\"{name}\"{}", &text[..start], text.get(start + name.len()..).unwrap_or_default());
    ExpressionProblem::new(message)
        .at(at)
        .help(format!("in a TOML string of single quotes: {}", words::toml_string(&quoted)))
}
