//! An expression that has been parsed and whose names mean nothing yet.
//!
//! For a step in whose expressions some calls mean something of their own, as `LAST(A.x)` in a pattern: it puts the
//! names of columns in their place, and has the rest compiled over a schema that has these columns too.

use arrow::datatypes::Schema;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr as Tree, Ident, Spanned};

use super::{Expression, ExpressionProblem, parse};

/// A syntax tree and the text that it is of, or of a part of.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) tree: Tree,
    text: String,
}

impl Draft {
    /// Parses `text`, in which words may be columns of `schema`.
    ///
    /// # Errors
    /// What is wrong with it, with the place where known.
    pub(crate) fn parse(text: &str, schema: &Schema) -> Result<Draft, ExpressionProblem> {
        Ok(Draft { tree: parse::parse(text, schema)?, text: text.to_string() })
    }

    /// A part of the same text.
    pub(crate) fn part(&self, tree: Tree) -> Draft {
        Draft { tree, text: self.text.clone() }
    }

    /// Resolves and types it against `schema`.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub(crate) fn compile(&self, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        Expression::of(&self.tree, &self.text, schema)
    }

    /// Like [`Self::compile`], for a condition.
    ///
    /// # Errors
    /// As [`Expression::condition`].
    pub(crate) fn condition(&self, schema: &Schema) -> Result<Expression, ExpressionProblem> {
        self.compile(schema)?.into_condition()
    }

    /// The parts that must all be true for it to be true.
    pub(crate) fn conjuncts(&self) -> Vec<Draft> {
        fn collect(tree: &Tree, all: &mut Vec<Tree>) {
            match tree {
                Tree::BinaryOp { left, op: BinaryOperator::And, right } => {
                    collect(left, all);
                    collect(right, all);
                }
                Tree::Nested(inner) if matches!(**inner, Tree::BinaryOp { op: BinaryOperator::And, .. }) => {
                    collect(inner, all);
                }
                other => all.push(other.clone()),
            }
        }
        let mut all = Vec::new();
        collect(&self.tree, &mut all);
        all.into_iter().map(|tree| self.part(tree)).collect()
    }

    /// What is true when all of `parts`, which are of one text, are; `None` of none.
    pub(crate) fn all(parts: Vec<Draft>) -> Option<Draft> {
        parts.into_iter().reduce(|left, right| {
            let both = |side: Tree| Box::new(Tree::Nested(Box::new(side)));
            let tree = Tree::BinaryOp {
                left: both(left.tree.clone()),
                op: BinaryOperator::And,
                right: both(right.tree),
            };
            left.part(tree)
        })
    }
}

/// The name of a column in the place of `part`.
pub(crate) fn column(name: &str, part: &Tree) -> Tree {
    Tree::Identifier(Ident::with_quote_and_span('"', part.span(), name))
}

/// The problem that a part is to blame for.
pub(crate) fn problem_at(message: impl Into<String>, part: &Tree) -> ExpressionProblem {
    let start = part.span().start;
    let problem = ExpressionProblem::new(message);
    if start.line == 0 { problem } else { problem.at(parse::place(start)) }
}
