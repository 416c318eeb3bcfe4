//! From text to a syntax tree whose names are known.
//!
//! Names are checked here rather than by the planner, because the tree still knows where each stands.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Spanned, Value, ValueWithSpan, visit_expressions,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::functions::{self, Named};
use super::{ExpressionProblem, compile, habits, operands, words};
use crate::plan::is_unknown;
use levada_types::TIME_COLUMN;

/// Words, numbers and signs that an expression may have: enough for any that a person writes, few
/// enough that the walk over its tree fits on every thread's stack.
const MAX_TOKENS: usize = 1_000;

/// Parses all of `text` as one expression over `schema`, whose columns may be called as words of SQL.
pub fn parse(text: &str, schema: &Schema) -> Result<Expr, ExpressionProblem> {
    read(text, schema).map_err(|problem| ExpressionProblem { syntax: true, ..problem })
}

fn read(text: &str, schema: &Schema) -> Result<Expr, ExpressionProblem> {
    if text.trim().is_empty() {
        return Err(ExpressionProblem::new("the expression is empty"));
    }
    let mut tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| words::syntax(&ParserError::from(error), text))?;
    let words = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).count();
    if words > MAX_TOKENS {
        return Err(ExpressionProblem::new(format!(
            "the expression has {words} words and signs; {MAX_TOKENS} are allowed"
        )));
    }
    habits::check(&tokens)?;
    if is_unknown(schema) {
        // Any word may be a column; which one is not known, so none is to blame.
        let any = columns_of(&tokens);
        operands::quote_columns(&mut tokens, &any, text);
        return parse_all(tokens, text);
    }
    let reserved = operands::quote_columns(&mut tokens, schema, text);
    parse_all(tokens, text).map_err(|problem| reserved.unwrap_or(problem))
}

/// A schema that has each of the words as a column.
fn columns_of(tokens: &[TokenWithSpan]) -> Schema {
    let words: BTreeSet<&str> = tokens
        .iter()
        .filter_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.as_str()),
            _ => None,
        })
        .collect();
    Schema::new(words.into_iter().map(|word| Field::new(word, DataType::Null, true)).collect::<Vec<_>>())
}

fn parse_all(tokens: Vec<TokenWithSpan>, text: &str) -> Result<Expr, ExpressionProblem> {
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    let tree = parser.parse_expr().map_err(|error| words::syntax(&error, text))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let message = format!("expected the end of the expression, found `{}`", next.token);
        return Err(ExpressionProblem::new(message).at(place(next.span.start)));
    }
    Ok(tree)
}

/// Checks that a scalar expression names what exists, and asks for nothing but a function of its row.
pub fn check(tree: &Expr, schema: &Schema) -> Result<(), ExpressionProblem> {
    let visit = |look: &dyn Fn(&Expr) -> Result<(), ExpressionProblem>| {
        let flow = visit_expressions(tree, |node| match look(node) {
            Ok(()) => ControlFlow::Continue(()),
            Err(problem) => ControlFlow::Break(problem),
        });
        flow.break_value().map_or(Ok(()), Err)
    };
    visit(&|node| check_node(node, schema))?;
    visit(&|node| check_round(node, schema))
}

/// The columns that it names, but for [`TIME_COLUMN`].
pub fn columns(tree: &Expr, schema: &Schema) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let _ = visit_expressions(tree, |node| {
        let name = match node {
            Expr::Identifier(name) => name.value.clone(),
            Expr::CompoundIdentifier(parts) => compound(parts),
            _ => return ControlFlow::<()>::Continue(()),
        };
        if name != TIME_COLUMN && schema.index_of(&name).is_ok() {
            names.insert(name);
        }
        ControlFlow::Continue(())
    });
    names
}

fn compound(parts: &[Ident]) -> String {
    parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".")
}

fn check_node(node: &Expr, schema: &Schema) -> Result<(), ExpressionProblem> {
    match node {
        Expr::Identifier(name) => check_column(&name.value, name, schema),
        Expr::CompoundIdentifier(parts) => match parts.first() {
            Some(first) => check_column(&compound(parts), first, schema),
            None => Ok(()),
        },
        // SQL has functions that are called without parentheses, as `user`; here they are only words.
        Expr::Function(Function { name, args: FunctionArguments::None, .. }) if !is_clock(name) => {
            let name = name.to_string();
            refuse_column(&name, node.span().start, None, schema)
        }
        Expr::Function(function) => check_function(function),
        Expr::BinaryOp { left, right, op } if is_comparison(op) => {
            check_text(left, right, schema)?;
            check_text(right, left, schema)
        }
        Expr::InList { expr, list, .. } => {
            list.iter().try_for_each(|element| check_text(expr, element, schema))
        }
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            refuse(node, "a query inside an expression is not possible; use a join step")
        }
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
            refuse(node, &format!("`{name}` has no meaning here; write the value"))
        }
        _ => Ok(()),
    }
}

fn refuse(node: &Expr, message: &str) -> Result<(), ExpressionProblem> {
    let start = node.span().start;
    let problem = ExpressionProblem::new(message);
    Err(if start.line == 0 { problem } else { problem.at(place(start)) })
}

fn check_column(name: &str, ident: &Ident, schema: &Schema) -> Result<(), ExpressionProblem> {
    if schema.index_of(name).is_ok() {
        return Ok(());
    }
    refuse_column(name, ident.span.start, ident.quote_style, schema)
}

fn refuse_column(
    name: &str,
    at: Location,
    quote: Option<char>,
    schema: &Schema,
) -> Result<(), ExpressionProblem> {
    let known = schema.fields().iter().map(|f| f.name().clone()).collect();
    let problem = ExpressionProblem::unknown("column", name, known).at(place(at));
    if quote.is_none() {
        // `departures.origin`, as a query with several tables has it.
        let last = name.rsplit_once('.').map(|(_, last)| last).filter(|last| schema.index_of(last).is_ok());
        return Err(match last {
            Some(last) => problem.help(format!("a step reads one stream, so leave its name out: `{last}`")),
            None => problem,
        });
    }
    let text = format!("text goes in single quotes: '{}'", name.replace('\'', "''"));
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let unknown = problem.unknown.clone().filter(|_| is_name);
    Err(ExpressionProblem { unknown, until: Some(behind(at, name)), ..problem }.help(text))
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// A text that lacks its quotes looks like a column that is not there: `origin = JFK`.
fn check_text(column: &Expr, other: &Expr, schema: &Schema) -> Result<(), ExpressionProblem> {
    let (Expr::Identifier(column), Expr::Identifier(name)) = (column, other) else { return Ok(()) };
    let is_text =
        schema.field_with_name(&column.value).is_ok_and(|field| field.data_type() == &DataType::Utf8);
    if !is_text || name.quote_style.is_some() {
        return Ok(());
    }
    let hint = format!("text goes in single quotes: '{}'", name.value);
    check_column(&name.value, name, schema).map_err(|problem| problem.help(hint))
}

/// Where the name ends that begins at `at` and stands in quotes.
fn behind(at: Location, name: &str) -> (usize, usize) {
    let (line, column) = place(at);
    (line, column + name.chars().count() + 2)
}

fn is_clock(name: &ObjectName) -> bool {
    matches!(functions::named(&function_name(name)), Named::Clock)
}

fn check_function(function: &Function) -> Result<(), ExpressionProblem> {
    let name = function_name(&function.name);
    let at = place(function.name.span().start);
    let refuse = |message: String| Err(ExpressionProblem::new(message).at(at));
    if function.over.is_some() {
        return refuse(format!("`{name}(…) over (…)` is not possible in an expression; use a window step"));
    }
    if matches!(function.args, FunctionArguments::Subquery(_)) {
        return refuse("a query inside an expression is not possible; use a join step".into());
    }
    match functions::named(&name) {
        Named::Scalar if function.filter.is_some() || !function.within_group.is_empty() => {
            refuse(format!("`{name}` works on one row and takes no filter or order"))
        }
        Named::Scalar => Ok(()),
        Named::Clock => refuse(format!(
            "`{name}` is not allowed: a job is a function of its inputs; use the event's time (`_time`)"
        )),
        Named::Aggregate => {
            let message = format!("`{name}` works on many rows and is not possible here; use a window step");
            let problem = ExpressionProblem::new(message).at(at);
            Err(match habits::instead(&name) {
                Some(instead) => problem.help(instead),
                None => problem,
            })
        }
        Named::Unknown => Err(match habits::instead(&name) {
            Some(instead) => ExpressionProblem::new(format!("there is no function `{name}`")).help(instead),
            None => ExpressionProblem::unknown("function", &name, functions::names())
                .help("`levada functions` lists them all"),
        }
        .at(at)),
    }
}

/// Whole numbers divide to a whole number, of which no digits behind the point are left to round to.
fn check_round(node: &Expr, schema: &Schema) -> Result<(), ExpressionProblem> {
    let Expr::Function(function) = node else { return Ok(()) };
    let FunctionArguments::List(arguments) = &function.args else { return Ok(()) };
    let given: Vec<&Expr> = arguments
        .args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value),
            _ => None,
        })
        .collect();
    let (mut value, to_digits) = match given.as_slice() {
        [value] => (*value, true),
        [value, digits] => (*value, matches!(digits, Expr::Value(_))),
        _ => return Ok(()),
    };
    while let Expr::Nested(inner) = value {
        value = inner;
    }
    let Expr::BinaryOp { left, op: BinaryOperator::Divide, right } = value else { return Ok(()) };
    let whole = |side: &Expr| matches!(compile::type_of(side.clone(), schema), Ok(DataType::Int64));
    if function_name(&function.name) != "round" || !to_digits || !whole(left) || !whole(right) {
        return Ok(());
    }
    Err(ExpressionProblem::new(
        "a whole number by a whole number is a whole number, and round leaves it as it is",
    )
    .at(place(function.name.span().start))
    .help("make one of them a float: `cast(... as float) / ...`"))
}

/// The name of a function as it is looked up: in lower case unless quoted.
pub fn function_name(name: &ObjectName) -> String {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) if ident.quote_style.is_some() => ident.value.clone(),
            Some(ident) => ident.value.to_ascii_lowercase(),
            None => part.to_string(),
        },
        _ => name.to_string(),
    }
}

/// Line and column from 1.
pub fn place(location: Location) -> (usize, usize) {
    (location.line.max(1) as usize, location.column.max(1) as usize)
}
