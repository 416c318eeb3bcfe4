//! Which part of an expression the planner refuses.
//!
//! DataFusion says what is wrong and not where. The tree knows where each of its parts stands, so the
//! parts are planned one by one, the innermost first, until one is refused: that one is to blame. Only
//! a wrong expression pays for it.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned, Visit, Visitor,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::parse::{function_name, place};
use super::{ExpressionProblem, compile, functions, words};

/// What is wrong with the innermost part of `tree` that cannot be planned, and where in `text` it stands.
pub fn blame(tree: &Expr, text: &str, schema: &Schema) -> Option<ExpressionProblem> {
    let mut refused =
        |part: &Expr| compile::type_of(part.clone(), schema).err().map(|why| (part.clone(), why));
    let (part, error) = innermost(tree, &mut refused)?;
    let mut problem = words::planning(&error);
    if words::is_of_arguments(&problem)
        && let Some((name, arguments)) = call(&part)
    {
        let given = arguments.iter().map(|argument| match compile::type_of((*argument).clone(), schema) {
            Ok(data_type) => words::a_type(&data_type).split_once(' ').map_or("", |(_, noun)| noun),
            Err(_) => "?",
        });
        let given = given.collect::<Vec<_>>().join(", ");
        if let Some(takes) = functions::parameters(&name) {
            problem.message = format!("`{name}` takes {takes}; it was given ({given})");
        }
    }
    if let (None, Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, right }) =
        (&problem.help, &part)
        && matches!(right.as_ref(), Expr::Value(_))
        && let Ok(DataType::Timestamp(..)) = compile::type_of(left.as_ref().clone(), schema)
        && compile::type_of(right.as_ref().clone(), schema).is_ok_and(|right| right.is_numeric())
    {
        problem.help = Some("write a length of time as `interval '5 minutes'`".into());
    }
    // A problem with an operand names it first.
    let operand = problem.message.split('`').nth(1).unwrap_or_default().to_string();
    let mut named = |inner: &Expr| {
        (inner.to_string().trim_matches(['\'', '"']) == operand && !operand.is_empty()).then(|| inner.clone())
    };
    let culprit = innermost(&part, &mut named).unwrap_or(part);
    let (at, until) = extent(&culprit, text)?;
    Some(ExpressionProblem { at: Some(at), until: Some(until), ..problem })
}

/// The first part of `tree` for which `test` has an answer; what is inside a part comes before it.
fn innermost<T>(tree: &Expr, test: &mut dyn FnMut(&Expr) -> Option<T>) -> Option<T> {
    struct Walk<'a, T>(&'a mut dyn FnMut(&Expr) -> Option<T>);
    impl<T> Visitor for Walk<'_, T> {
        type Break = T;
        fn post_visit_expr(&mut self, part: &Expr) -> ControlFlow<T> {
            (self.0)(part).map_or(ControlFlow::Continue(()), ControlFlow::Break)
        }
    }
    match tree.visit(&mut Walk(test)) {
        ControlFlow::Break(found) => Some(found),
        ControlFlow::Continue(()) => None,
    }
}

/// The name and the arguments of a call, however it is written.
fn call(part: &Expr) -> Option<(String, Vec<&Expr>)> {
    match part {
        Expr::Function(function) => {
            let FunctionArguments::List(list) = &function.args else { return None };
            let arguments = list.args.iter().filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument),
                _ => None,
            });
            Some((function_name(&function.name), arguments.collect()))
        }
        Expr::Substring { expr, substring_from, substring_for, shorthand, .. } => {
            let name = if *shorthand { "substr" } else { "substring" };
            let arguments = [Some(expr), substring_from.as_ref(), substring_for.as_ref()];
            Some((name.into(), arguments.into_iter().flatten().map(AsRef::as_ref).collect()))
        }
        Expr::Ceil { expr, .. } => Some(("ceil".into(), vec![expr])),
        Expr::Floor { expr, .. } => Some(("floor".into(), vec![expr])),
        Expr::Trim { expr, .. } => Some(("trim".into(), vec![expr])),
        _ => None,
    }
}

/// Where a part begins and ends, in lines and columns from 1: of a call its name and its parentheses too.
fn extent(part: &Expr, text: &str) -> Option<((usize, usize), (usize, usize))> {
    let span = part.span();
    if span.start.line == 0 {
        return None;
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().ok()?;
    let tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let first = tokens.iter().position(|token| token.span.start >= span.start)?;
    let opening = match part {
        Expr::Function(_) => Some(first + 1),
        Expr::Cast { kind: CastKind::Cast | CastKind::TryCast, .. } => first.checked_sub(1),
        _ if call(part).is_some() => first.checked_sub(1),
        _ => None,
    };
    let whole = opening.filter(|&open| tokens.get(open).is_some_and(|token| token.token == Token::LParen));
    let (start, end) = match whole.and_then(|open| Some((open.checked_sub(1)?, closing(&tokens, open)?))) {
        Some((name, close)) => (tokens.get(name)?.span.start, close),
        None => (span.start, span.end),
    };
    Some((place(start), place(end)))
}

/// Where the parenthesis that opens at `open` has been closed.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<Location> {
    let mut depth = 0;
    for token in tokens.get(open..)? {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(token.span.end);
        }
    }
    None
}
