//! From a syntax tree to a program: typed, made total, simplified.
//!
//! In order: the planner resolves names; casts and timestamp differences are made what this language
//! says they are; types are coerced; whole-number division is made total; constants are folded; the
//! value is cast to a stream's type. See [`super`] for what is meant.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, Operator};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions as kernels;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as SqlExpr;
use levada_types::Batch;

use super::functions::World;
use super::{Expression, ExpressionProblem, Program, parse, words};

/// Compiles a tree whose names have been checked.
pub fn compile(tree: SqlExpr, schema: &Schema) -> Result<Expression, ExpressionProblem> {
    let columns = parse::columns(&tree, schema);
    let whole = DFSchema::try_from(schema.clone()).map_err(|e| words::planning(&e))?;
    let typed = plan(tree, &Arc::new(whole)).map_err(|e| words::planning(&e))?;
    let value = to_stream_type(typed.expr, &typed.schema)?;

    let read: BTreeSet<&str> = value.column_refs().into_iter().map(|column| column.name.as_str()).collect();
    let places: Vec<usize> =
        (0..schema.fields().len()).filter(|&i| read.contains(schema.field(i).name().as_str())).collect();
    let reads = schema.project(&places).map_err(|e| words::planning(&e.into()))?;
    lower(&value, reads, places, columns).map_err(|e| words::planning(&e))
}

/// The type of a part of an expression, which need not be a type that streams have.
pub fn type_of(tree: SqlExpr, schema: &Schema) -> Result<DataType, DataFusionError> {
    let typed = plan(tree, &Arc::new(DFSchema::try_from(schema.clone())?))?;
    typed.expr.get_type(&typed.schema)
}

/// An expression and the schema that it is over.
struct Typed {
    expr: Expr,
    schema: DFSchemaRef,
}

fn plan(tree: SqlExpr, schema: &DFSchemaRef) -> Result<Typed, DataFusionError> {
    let world = World::new();
    let options = ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_parse_float_as_decimal(false)
        .with_map_string_types_to_utf8view(false);
    let planner = SqlToRel::new_with_options(&world, options);
    let expr = planner.sql_to_expr(tree, schema, &mut PlannerContext::new())?;
    let expr = expr.transform_up(|node| our_casts(node, schema)).data()?;
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build());
    let expr = simplifier.coerce(expr, schema)?;
    let expr = expr.transform_up(|node| total(node, schema)).data()?;
    let expr = simplifier.simplify(expr)?;
    Ok(Typed { expr, schema: schema.clone() })
}

/// Before coercion: a cast that a row fails gives null, and timestamps differ by milliseconds.
fn our_casts(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    match node {
        Expr::Cast(cast) => {
            let soft = Expr::TryCast(TryCast::new_from_field(cast.expr, cast.field));
            Ok(Transformed::yes(constant_cast(soft)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })
            if is_time(&left, schema) && is_time(&right, schema) =>
        {
            let stamp = |side: Box<Expr>| Box::new(Expr::Cast(Cast::new(side, Batch::timestamp_type())));
            let difference =
                Expr::BinaryExpr(BinaryExpr { left: stamp(left), op: Operator::Minus, right: stamp(right) });
            Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(difference), DataType::Int64))))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_time(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Timestamp(..) | DataType::Date32))
}

/// After coercion: constants of the wrong form are found now, and what is divided by zero is null: a whole
/// number would fail, and a float be an infinity, which is above every threshold and which JSON cannot hold.
fn total(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    match node {
        Expr::Cast(_) => {
            let node = constant_cast(node)?;
            refuse_guess(&node, schema)?;
            Ok(Transformed::yes(node))
        }
        Expr::ScalarFunction(call) if matches!(call.func.name(), "date_trunc" | "date_part") => {
            try_unit(&call)?;
            Ok(Transformed::no(Expr::ScalarFunction(call)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right })
            if right.get_type(schema)?.is_numeric() =>
        {
            let zero = ScalarValue::new_zero(&right.get_type(schema)?)?;
            let never_zero = match right.as_ref() {
                Expr::Literal(value, _) => *value != zero,
                _ => false,
            };
            let right = if never_zero {
                right
            } else {
                let function = datafusion_functions::core::nullif();
                let args = vec![*right, Expr::Literal(zero, None)];
                Box::new(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Coercion would read a string as a number, and a number as true or false, wherever one stands beside
/// the other: mostly a mistake, and never what was written.
fn refuse_guess(node: &Expr, schema: &DFSchema) -> Result<(), DataFusionError> {
    let Expr::Cast(Cast { expr, field }) = node else { return Ok(()) };
    let (from, to) = (expr.get_type(schema)?, field.data_type());
    let guess = match &from {
        DataType::Utf8 => to.is_numeric() || to.is_temporal() || *to == DataType::Boolean,
        DataType::Int64 | DataType::Float64 => *to == DataType::Boolean,
        _ => false,
    };
    if !guess {
        return Ok(());
    }
    let (from, to) = (words::a_type(&from), words::a_type(to));
    let noun = to.split_once(' ').map_or(to, |(_, noun)| noun);
    Err(DataFusionError::Plan(format!(
        "`{expr}` is {from} where {to} is needed; if that is meant, write `cast({expr} as {noun})`"
    )))
}

/// Tries the unit of a function such as `date_trunc('hour', at)`, if it is a constant: a wrong one would
/// fail on every row.
fn try_unit(call: &ScalarFunction) -> Result<(), DataFusionError> {
    let Some(unit @ Expr::Literal(..)) = call.args.first() else { return Ok(()) };
    let time = ScalarValue::TimestampMillisecond(Some(0), None);
    let args = vec![unit.clone(), Expr::Literal(time, None)];
    let trial = Expr::ScalarFunction(ScalarFunction::new_udf(call.func.clone(), args));
    let context = PhysicalPlanningContext::default();
    let trial = create_physical_expr(&trial, &DFSchema::empty(), &ExecutionProps::new(), &context)?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    trial.evaluate(&row)?;
    Ok(())
}

/// Does the cast of a constant, so that a wrong one is a problem of the text and not of every row.
fn constant_cast(node: Expr) -> Result<Expr, DataFusionError> {
    let (Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })) = &node else {
        return Ok(node);
    };
    let Expr::Literal(value, _) = expr.as_ref() else { return Ok(node) };
    let target = field.data_type();
    match value.cast_to(target) {
        Ok(value) => Ok(Expr::Literal(value, None)),
        Err(_) => Err(DataFusionError::Plan(format!("`{}` is not {}", bare(value), words::a_type(target)))),
    }
}

/// A constant as it was written.
fn bare(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) => text.clone(),
        other => other.to_string(),
    }
}

/// Casts the value to one of the types that streams have.
fn to_stream_type(expr: Expr, schema: &DFSchema) -> Result<Expr, ExpressionProblem> {
    let natural = expr.get_type(schema).map_err(|e| words::planning(&e))?;
    let cast = |expr: Expr, to: DataType| Expr::TryCast(TryCast::new(Box::new(expr), to));
    let sure = |expr: Expr, to: DataType| Expr::Cast(Cast::new(Box::new(expr), to));
    Ok(match &natural {
        DataType::Utf8 | DataType::Int64 | DataType::Float64 | DataType::Boolean => expr,
        DataType::Timestamp(TimeUnit::Millisecond, None) => expr,
        DataType::LargeUtf8 | DataType::Utf8View => sure(expr, DataType::Utf8),
        DataType::UInt64 => cast(expr, DataType::Int64),
        other if other.is_integer() => sure(expr, DataType::Int64),
        other if other.is_floating() || other.is_decimal() => sure(expr, DataType::Float64),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => cast(expr, Batch::timestamp_type()),
        DataType::Duration(_) => sure(sure(expr, DataType::Duration(TimeUnit::Millisecond)), DataType::Int64),
        DataType::Null => {
            return Err(ExpressionProblem::new(
                "a bare null has no type; give it one, as in `cast(null as float)`",
            ));
        }
        other => {
            return Err(ExpressionProblem::new(format!(
                "the value is {}; a column can be a string, an int, a float, a bool or a timestamp",
                words::a_type(other)
            )));
        }
    })
}

/// Makes the program of an expression over `reads` alone.
fn lower(
    value: &Expr,
    reads: Schema,
    places: Vec<usize>,
    columns: BTreeSet<String>,
) -> Result<Expression, DataFusionError> {
    let schema = DFSchema::try_from(reads.clone())?;
    let data_type = value.get_type(&schema)?;
    let nullable = value.nullable(&schema)? || may_fail(value, &schema);
    let context = PhysicalPlanningContext::default();
    let physical = create_physical_expr(value, &schema, &ExecutionProps::new(), &context)?;
    let physical = physical.transform_up(checked).data()?;
    let column = match value {
        Expr::Column(column) => Some(column.name.clone()),
        _ => None,
    };
    let json = column.as_ref().is_some_and(|column| reads.field_with_name(column).is_ok_and(Batch::is_json));
    let program =
        Program { column, json, physical, reads: Arc::new(reads), places, columns, data_type, nullable };
    Ok(Expression { program: Arc::new(program) })
}

/// Sums that overflow fail (and so give null) rather than wrap around.
fn checked(node: Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>, DataFusionError> {
    match node.downcast_ref::<kernels::BinaryExpr>() {
        Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
            Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true))))
        }
        _ => Ok(Transformed::no(node)),
    }
}

/// Whether some row could make it fail, and so be null although nothing in it is: true in doubt.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    expr.exists(|node| {
        Ok(match node {
            Expr::Alias(_)
            | Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::TryCast(_) => false,
            Expr::Negative(of) => !is_float(of, schema),
            Expr::Cast(Cast { expr, field }) => {
                let from = expr.get_type(schema)?;
                let to = field.data_type();
                !(from.is_integer() && *to == DataType::Float64
                    || from == DataType::Int32 && *to == DataType::Int64
                    || *to == DataType::Utf8
                    || from == DataType::Float32)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if op.is_numerical_operators() {
                    !(is_float(left, schema) && is_float(right, schema))
                } else {
                    !matches!(
                        op,
                        Operator::Eq
                            | Operator::NotEq
                            | Operator::Lt
                            | Operator::LtEq
                            | Operator::Gt
                            | Operator::GtEq
                            | Operator::IsDistinctFrom
                            | Operator::IsNotDistinctFrom
                            | Operator::And
                            | Operator::Or
                    )
                }
            }
            Expr::ScalarFunction(call) => {
                const NEVER: &[&str] = &[
                    "coalesce",
                    "nullif",
                    "nvl",
                    "greatest",
                    "least",
                    "lower",
                    "upper",
                    "btrim",
                    "ltrim",
                    "rtrim",
                    "concat",
                    "character_length",
                    "floor",
                    "ceil",
                ];
                !NEVER.contains(&call.func.name())
            }
            _ => true,
        })
    })
    .unwrap_or(true)
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Float64))
}
