//! What conditions and measures say of the rows of a match: `LAST(A.latency)` becomes a column.
//!
//! ```text
//!   latency > 2 * PREV(latency) and status = 'open'
//!   └───────────── partial ───┘     └─── row ─────┘        `PREV(latency)` is a running value (see [`super::running`])
//! ```
//!
//! Of a condition, the parts that it is an `and` of are told apart: those that see only the row are judged once for all
//! rows of a batch, the others for a row and a partial match, whose running values are columns beside the row's.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr as Tree, Function as Call, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, Value, VisitMut, VisitorMut,
};
use indexmap::IndexMap;

use super::running::{Function, RunningPlan};
use crate::expressions::{Draft, Expression, ExpressionProblem, column, function_name, problem_at};
use crate::rows::type_name;

/// How many rows back `PREV` may look.
const MAX_BACK: usize = 100;

/// Calls that stand for running values.
const CALLS: [&str; 8] = ["prev", "count", "first", "last", "sum", "avg", "min", "max"];

/// The running values of a step, and what they are of.
pub(super) struct References<'a> {
    rows: &'a Schema,
    variables: &'a [String],
    /// What the values are of: expressions over a row, by their text.
    pub arguments: IndexMap<String, Expression>,
    /// The values, by the name of their column.
    pub running: IndexMap<String, RunningPlan>,
}

/// An expression in which the names of running values stand, and what of the match it looks at.
pub(super) struct Resolved {
    pub draft: Draft,
    /// The variables whose rows it looks at, each with the name of a value.
    pub variables: Vec<(usize, String)>,
    /// A value of all rows of the match that it looks at.
    pub all_rows: Option<String>,
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// In a definition: a column is that of the row that is judged.
    Definition,
    /// In a measure: a column is that of the last row of the match.
    Measure,
}

impl<'a> References<'a> {
    pub(super) fn new(rows: &'a Schema, variables: &'a [String]) -> References<'a> {
        References { rows, variables, arguments: IndexMap::new(), running: IndexMap::new() }
    }

    /// The columns of a row.
    pub(super) fn rows(&self) -> &'a Schema {
        self.rows
    }

    /// Parses an expression and puts columns in the place of what it says of the match.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn resolve(&mut self, text: &str, stands: Stands) -> Result<Resolved, ExpressionProblem> {
        let draft = Draft::parse(text, self.rows)?;
        let mut walk = Walk { references: self, draft: &draft, stands, variables: Vec::new(), all_rows: None };
        let mut tree = draft.tree.clone();
        if let ControlFlow::Break(problem) = tree.visit(&mut walk) {
            return Err(problem);
        }
        let (variables, all_rows) = (walk.variables, walk.all_rows);
        Ok(Resolved { draft: draft.part(tree), variables, all_rows })
    }

    /// The columns of a row and those of the running values.
    pub(super) fn schema(&self, stands: Stands) -> Schema {
        let running = self.running.values().map(|plan| plan.field.clone());
        let rows = self.rows.fields().iter().map(|field| field.as_ref().clone());
        match stands {
            Stands::Definition => Schema::new(rows.chain(running).collect::<Vec<_>>()),
            Stands::Measure => Schema::new(running.collect::<Vec<_>>()),
        }
    }

    /// Whether an expression has a running value in it.
    pub(super) fn looks_back(&self, draft: &Draft) -> bool {
        struct Find<'f>(&'f IndexMap<String, RunningPlan>);
        impl VisitorMut for Find<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, part: &mut Tree) -> ControlFlow<()> {
                match part {
                    Tree::Identifier(name) if self.0.contains_key(&name.value) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        draft.tree.clone().visit(&mut Find(&self.running)).is_break()
    }

    fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|known| known == name)
    }
}

/// The way through an expression.
struct Walk<'w, 'a> {
    references: &'w mut References<'a>,
    draft: &'w Draft,
    stands: Stands,
    variables: Vec<(usize, String)>,
    all_rows: Option<String>,
}

impl VisitorMut for Walk<'_, '_> {
    type Break = ExpressionProblem;

    fn pre_visit_expr(&mut self, part: &mut Tree) -> ControlFlow<ExpressionProblem> {
        match self.value(part) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(name)) => {
                *part = column(&name, part);
                ControlFlow::Continue(())
            }
            Err(problem) => ControlFlow::Break(problem),
        }
    }
}

impl Walk<'_, '_> {
    /// The name of the running value that a part stands for, if it does.
    fn value(&mut self, part: &Tree) -> Result<Option<String>, ExpressionProblem> {
        match part {
            Tree::CompoundIdentifier(names) if self.qualifier(names)?.is_some() || self.is_of_last(&joined(names)) => {
                self.running(Function::Last, part, part).map(Some)
            }
            Tree::Identifier(name) if self.is_of_last(&name.value) => {
                self.running(Function::Last, part, part).map(Some)
            }
            Tree::Function(call) => match function_name(&call.name).as_str() {
                "prev" => self.previous(call, part).map(Some),
                "count" => self.count(call, part).map(Some),
                "first" => self.call(Function::First, call, part).map(Some),
                "last" => self.call(Function::Last, call, part).map(Some),
                "sum" => self.call(Function::Sum, call, part).map(Some),
                "avg" => self.call(Function::Average, call, part).map(Some),
                "min" => self.call(Function::Least, call, part).map(Some),
                "max" => self.call(Function::Greatest, call, part).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Whether a name stands for the last row's column of the name.
    fn is_of_last(&self, name: &str) -> bool {
        self.stands == Stands::Measure && self.references.rows.index_of(name).is_ok()
    }

    /// The variable of `A.x`; none where `A.x` is a column.
    fn qualifier(&self, names: &[Ident]) -> Result<Option<usize>, ExpressionProblem> {
        let [first, rest @ ..] = names else { return Ok(None) };
        if self.references.rows.index_of(&joined(names)).is_ok() {
            return Ok(None);
        }
        let variable = self.references.variable(&first.value);
        if variable.is_none() && self.references.rows.index_of(&joined(rest)).is_ok() {
            let part = Tree::CompoundIdentifier(names.to_vec());
            let known = self.references.variables.to_vec();
            let unknown = Some((first.value.clone(), known));
            let message = format!("the pattern has no variable `{}`", first.value);
            return Err(ExpressionProblem { unknown, ..problem_at(message, &part) });
        }
        Ok(variable)
    }

    /// A call of one argument.
    fn call(&mut self, function: Function, call: &Call, part: &Tree) -> Result<String, ExpressionProblem> {
        match arguments(call, part)? {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => self.running(function, argument, part),
            _ => {
                let name = function_name(&call.name).to_uppercase();
                Err(problem_at(format!("write `{name}(A.x)`, of the rows of `A`, or `{name}(x)`, of all"), part))
            }
        }
    }

    fn count(&mut self, call: &Call, part: &Tree) -> Result<String, ExpressionProblem> {
        match arguments(call, part)? {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => self.running(Function::Count, argument, part),
            [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] => {
                self.all_rows.get_or_insert_with(|| "COUNT(*)".into());
                Ok(self.add("COUNT(*)".into(), Function::Count, None, None, int("COUNT(*)")))
            }
            [FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name))] => {
                let variable = self.named(name, part)?;
                let told = format!("COUNT({}.*)", self.references.variables[variable]);
                self.variables.push((variable, told.clone()));
                Ok(self.add(told.clone(), Function::Count, Some(variable), None, int(&told)))
            }
            _ => Err(problem_at("write `COUNT(A.*)`, `COUNT(A.x)`, `COUNT(*)` or `COUNT(x)`", part)),
        }
    }

    /// `PREV(x)` and `PREV(x, n)`.
    fn previous(&mut self, call: &Call, part: &Tree) -> Result<String, ExpressionProblem> {
        if self.stands == Stands::Measure {
            let help = "a measure tells of a whole match: `LAST(x)` is of its last row, `LAST(A.x)` of the last of `A`";
            return Err(problem_at("`PREV` stands in a definition", part).help(help));
        }
        let (argument, back) = match arguments(call, part)? {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => (argument, 1),
            [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Tree::Value(back))),
            ] => {
                let back = match &back.value {
                    Value::Number(digits, _) => digits.to_string().parse().unwrap_or(0),
                    _ => 0,
                };
                if back == 0 || back > MAX_BACK {
                    return Err(problem_at(format!("`PREV` looks 1 to {MAX_BACK} rows back"), part));
                }
                (argument, back)
            }
            _ => return Err(problem_at("write `PREV(x)` or, of the row before that, `PREV(x, 2)`", part)),
        };
        let name = self.running(Function::Previous(back), argument, part)?;
        if self.references.running.get(&name).is_some_and(|plan| plan.variable.is_some()) {
            let help = "of the last row of `A`, write `LAST(A.x)`";
            return Err(problem_at("`PREV` is of the row before, whatever variable that is", part).help(help));
        }
        Ok(name)
    }

    fn named(&self, name: &ObjectName, part: &Tree) -> Result<usize, ExpressionProblem> {
        let name = name.to_string();
        self.references.variable(&name).ok_or_else(|| {
            let unknown = Some((name.clone(), self.references.variables.to_vec()));
            ExpressionProblem { unknown, ..problem_at(format!("the pattern has no variable `{name}`"), part) }
        })
    }

    /// The name of a running value of an expression, whose columns are all of one variable, or all of any.
    fn running(&mut self, function: Function, argument: &Tree, part: &Tree) -> Result<String, ExpressionProblem> {
        let mut strip = Strip { walk: self, found: Vec::new() };
        let mut tree = argument.clone();
        if let ControlFlow::Break(problem) = tree.visit(&mut strip) {
            return Err(problem);
        }
        let mut found = strip.found;
        found.sort_unstable();
        found.dedup();
        let variable = match found.as_slice() {
            [] => return Err(problem_at("there is no column in it that it could be of", part)),
            [variable] => *variable,
            _ => {
                let message = "this is of rows of different variables; write a call for each";
                return Err(problem_at(message, part));
            }
        };
        let text = tree.to_string();
        let (place, expression) = match self.references.arguments.get_full(&text) {
            Some((place, _, expression)) => (place, expression.clone()),
            None => {
                let expression = self.draft.part(tree).compile(self.references.rows)?;
                (self.references.arguments.insert_full(text.clone(), expression.clone()).0, expression)
            }
        };
        let of = variable.map_or(String::new(), |variable| format!("{}.", self.references.variables[variable]));
        let (verb, behind) = match function {
            Function::First => ("FIRST", String::new()),
            Function::Last => ("LAST", String::new()),
            Function::Previous(1) => ("PREV", String::new()),
            Function::Previous(back) => ("PREV", format!(", {back}")),
            Function::Count => ("COUNT", String::new()),
            Function::Sum => ("SUM", String::new()),
            Function::Average => ("AVG", String::new()),
            Function::Least => ("MIN", String::new()),
            Function::Greatest => ("MAX", String::new()),
        };
        let name = format!("{verb}({of}{text}{behind})");
        let is_number = matches!(expression.data_type(), DataType::Int64 | DataType::Float64);
        if matches!(function, Function::Sum | Function::Average) && !is_number {
            let kind = type_name(expression.data_type());
            return Err(problem_at(format!("`{verb}` is of numbers, and this is of type {kind}"), part));
        }
        let field = match function {
            Function::Count => int(&name),
            Function::Average => Field::new(&name, DataType::Float64, true),
            Function::Sum => Field::new(&name, expression.data_type().clone(), true),
            _ => expression.field(&name).with_nullable(true),
        };
        match variable {
            Some(variable) => self.variables.push((variable, name.clone())),
            None => _ = self.all_rows.get_or_insert_with(|| name.clone()),
        }
        Ok(self.add(name, function, variable, Some(place), field))
    }

    fn add(
        &mut self,
        name: String,
        function: Function,
        variable: Option<usize>,
        argument: Option<usize>,
        field: Field,
    ) -> String {
        let plan = RunningPlan { function, variable, argument, field };
        self.references.running.entry(name.clone()).or_insert(plan);
        name
    }
}

/// Takes the variables off the columns of an argument.
struct Strip<'s, 'w, 'a> {
    walk: &'s Walk<'w, 'a>,
    found: Vec<Option<usize>>,
}

impl VisitorMut for Strip<'_, '_, '_> {
    type Break = ExpressionProblem;

    fn pre_visit_expr(&mut self, part: &mut Tree) -> ControlFlow<ExpressionProblem> {
        match part {
            Tree::CompoundIdentifier(names) => match self.walk.qualifier(names) {
                Err(problem) => return ControlFlow::Break(problem),
                Ok(None) => self.found.push(None),
                Ok(Some(variable)) => {
                    self.found.push(Some(variable));
                    *part = match &names[1..] {
                        [name] => Tree::Identifier(name.clone()),
                        rest => Tree::CompoundIdentifier(rest.to_vec()),
                    };
                }
            },
            Tree::Identifier(_) => self.found.push(None),
            Tree::Function(call)
                if CALLS.contains(&function_name(&call.name).as_str()) =>
            {
                return ControlFlow::Break(problem_at("one call cannot stand within another", part));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A name of several parts, as a column has it.
fn joined(names: &[Ident]) -> String {
    names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(".")
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

/// The arguments of a call that has nothing else.
fn arguments<'c>(call: &'c Call, part: &Tree) -> Result<&'c [FunctionArg], ExpressionProblem> {
    let name = function_name(&call.name).to_uppercase();
    match &call.args {
        FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) => {
            Err(problem_at(format!("`{name}` of distinct values is not possible in a pattern"), part))
        }
        FunctionArguments::List(list)
            if list.clauses.is_empty()
                && call.over.is_none()
                && call.filter.is_none()
                && call.within_group.is_empty()
                && call.null_treatment.is_none() =>
        {
            Ok(&list.args)
        }
        _ => Err(problem_at(format!("`{name}` takes arguments, and nothing else"), part)),
    }
}

/// The rows' columns that an expression reads beside running values; the time is always there.
pub(super) fn read_of<'e>(expression: &'e Expression, rows: &'e Schema) -> impl Iterator<Item = usize> {
    let named = expression.columns().iter().filter_map(|name| rows.index_of(name).ok());
    std::iter::once(0).chain(named)
}
