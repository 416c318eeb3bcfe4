//! Aggregate calls, taken apart: `avg(delay_min) filter (where not cancelled)`.

use std::collections::BTreeSet;

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned,
    UnaryOperator, Value,
};

use super::parse::{function_name, parse, place};
use super::{Expression, ExpressionProblem};

/// `avg(delay_min) filter (where not cancelled)`, taken apart and checked.
#[derive(Clone, Debug)]
pub struct AggregateExpression {
    /// The function's name in lower case: `count`, `avg`.
    pub function: String,
    /// `count(distinct x)`.
    pub distinct: bool,
    /// The arguments; none for `count(*)`. Constant arguments after the first, as the fraction of a
    /// percentile, are in `constants` instead.
    pub argument: Option<Expression>,
    /// Constant numeric arguments after the first.
    pub constants: Vec<f64>,
    /// Rows that do not satisfy it are left out.
    pub filter: Option<Expression>,
}

impl AggregateExpression {
    /// Parses and checks an aggregate call against `schema`. Which functions exist is for the caller
    /// to say.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub fn parse(text: &str, schema: &Schema) -> Result<AggregateExpression, ExpressionProblem> {
        let Expr::Function(call) = parse(text, schema)? else {
            return Err(ExpressionProblem::new(
                "an aggregate is one call, as `avg(x)` or `count(*) filter (where x > 1)`; \
                 compute with its result in a select step",
            ));
        };
        let function = function_name(&call.name);
        let list = match &call.args {
            FunctionArguments::List(list) if list.clauses.is_empty() && is_plain(&call) => list,
            _ => {
                let at = place(call.name.span().start);
                return Err(ExpressionProblem::new(format!(
                    "`{function}` takes arguments and a filter, and nothing else"
                ))
                .at(at));
            }
        };
        let mut arguments = list.args.iter();
        let argument = match arguments.next() {
            None | Some(FunctionArg::Unnamed(FunctionArgExpr::Wildcard)) => None,
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) => {
                Some(Expression::of(argument, text, schema)?)
            }
            Some(other) => return Err(ExpressionProblem::new(format!("`{other}` is not an argument"))),
        };
        let constants = arguments.map(constant).collect::<Result<Vec<f64>, _>>()?;
        let filter = match &call.filter {
            None => None,
            Some(filter) => Some(Expression::of(filter, text, schema)?.into_condition()?),
        };
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        Ok(AggregateExpression { function, distinct, argument, constants, filter })
    }

    /// The columns that it reads.
    pub fn columns(&self) -> BTreeSet<String> {
        [&self.argument, &self.filter]
            .into_iter()
            .flatten()
            .flat_map(|e| e.columns().iter().cloned())
            .collect()
    }
}

fn is_plain(call: &Function) -> bool {
    call.over.is_none()
        && call.within_group.is_empty()
        && call.null_treatment.is_none()
        && matches!(call.parameters, FunctionArguments::None)
}

fn constant(argument: &FunctionArg) -> Result<f64, ExpressionProblem> {
    let number = match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(tree)) => number(tree),
        _ => None,
    };
    number.ok_or_else(|| {
        let start = argument.span().start;
        let problem =
            ExpressionProblem::new(format!("`{argument}` must be a number: only the first argument varies"));
        if start.line == 0 { problem } else { problem.at(place(start)) }
    })
}

fn number(tree: &Expr) -> Option<f64> {
    match tree {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|n| -n),
        Expr::Nested(inner) => number(inner),
        _ => None,
    }
}
