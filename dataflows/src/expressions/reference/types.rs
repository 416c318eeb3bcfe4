//! Which types a function takes and gives, found by trying: each argument of its example in turn, or all
//! of them, are replaced by a column of each type.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
};
use levada_types::Batch;

use super::super::parse::parse;
use super::super::{Expression, compile};
use super::{Argument, Reference, nothing, noun};

/// A column of each type; no function takes one because of its name.
fn columns() -> Schema {
    let types = [
        ("string", DataType::Utf8),
        ("int", DataType::Int64),
        ("float", DataType::Float64),
        ("bool", DataType::Boolean),
        ("timestamp", Batch::timestamp_type()),
    ];
    Schema::new(types.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec())
}

/// The arguments of a function's example with the types that each may have; those that it does not have
/// without types.
pub(super) fn of_arguments(entry: &Reference, about: Vec<(String, String)>) -> Vec<Argument> {
    let tried = tried(entry);
    let types = |index: usize| {
        let found = tried.get(index).into_iter().flatten();
        found.map(|(argument, _)| *argument).collect::<Vec<_>>()
    };
    let named = about.into_iter().enumerate();
    named.map(|(index, (name, about))| Argument { name, types: types(index), about }).collect()
}

/// The type of a function's value: that of its example, unless it follows the first argument's.
pub(super) fn of_value(entry: &Reference) -> &'static str {
    let tried = tried(entry);
    let follows = tried.first().is_some_and(|first| {
        let mut values = first.iter().map(|(_, value)| value);
        let one = values.next();
        values.any(|value| Some(value) != one)
    });
    if follows { "as the argument" } else { of_example(entry) }
}

pub(super) fn of_example(entry: &Reference) -> &'static str {
    match Expression::parse(entry.example, &nothing()) {
        Ok(expression) => noun(expression.data_type()),
        Err(_) => "",
    }
}

/// For each argument of the example: each type that it may have, and the type of the value then.
fn tried(entry: &Reference) -> Vec<Vec<(&'static str, DataType)>> {
    // Some calls have a grammar of their own; under a name in quotes they have not.
    let call = format!("\"{}\"{}", entry.name, entry.example.trim_start_matches(entry.name));
    let schema = columns();
    let Ok(Expr::Function(function)) = parse(&call, &schema) else { return Vec::new() };
    let count = match &function.args {
        FunctionArguments::List(list) => list.args.len(),
        _ => 0,
    };
    let value = |tree: Option<Expr>| compile::compile(tree?, &schema).ok().map(|e| e.data_type().clone());
    let one = |index: usize| {
        let found = schema.fields().iter().filter_map(|field| {
            // Some take any type, but the same everywhere.
            let all = (0..count).try_fold(function.clone(), |call, i| replaced(call, i, field.name()));
            let given = value(replaced(function.clone(), index, field.name()).map(Expr::Function))
                .or_else(|| value(all.map(Expr::Function)))?;
            Some((noun(field.data_type()), given))
        });
        found.collect()
    };
    (0..count).map(one).collect()
}

/// The call with a column instead of an argument.
fn replaced(mut function: Function, index: usize, column: &str) -> Option<Function> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let column = Expr::Identifier(Ident::new(column));
    *list.args.get_mut(index)? = FunctionArg::Unnamed(FunctionArgExpr::Expr(column));
    Some(function)
}
