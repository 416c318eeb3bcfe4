//! The pattern as an automaton without empty moves: what may come behind each step, the best first.
//!
//! ```text
//!   A B+? (C | D)       A ─► B ─► end          positions: the variables of the pattern, one by one,
//!                            │╲                repetitions written out
//!                            ▼ ▶ C, D, B       links of B: C, D, B (reluctant: what is behind comes first)
//! ```
//!
//! A position is an occurrence of a variable (Glushkov's construction); `A{2,4}` has four. The links of a position
//! stand in the order in which they are preferred: of a choice the earlier, of a greedy repetition one more before
//! what is behind it, of a reluctant one after. A link may be guarded by variables of which no row may come between.
//! Size: the square of the positions at most; they are bounded.

use std::collections::BTreeSet;

use super::nodes::{Node, beginnings, distinct, expand, joined, links};
use super::pattern::{Pattern, Place, Tree, problem};
use crate::expressions::ExpressionProblem;

/// Steps that a pattern may have once its repetitions are written out.
const MAX_STEPS: usize = 200;

/// Some variables, a bit each.
pub(super) type Variables = u64;

pub(super) fn bit(variable: usize) -> Variables {
    1 << variable
}

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum To {
    /// A row at a position.
    Step(usize),
    /// The end: the rows so far are a match.
    End,
    /// They are, if no row of the variable comes within so many milliseconds after the last.
    Absent { variable: usize, within_ms: i64 },
}

/// A way from a position, or into the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    pub to: To,
    /// No row of these may come between.
    pub guards: Variables,
}

/// An occurrence of a variable.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub variable: usize,
    /// How long after the row before a row may come here.
    pub within_ms: Option<i64>,
    pub at: Place,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Automaton {
    pub positions: Vec<Position>,
    /// Into the pattern.
    pub first: Vec<Link>,
    /// Behind each position. Where only the best match counts, up to the end if it is among them.
    pub follow: Vec<Vec<Link>>,
    /// What is worse than that end.
    pub worse: Vec<Vec<Link>>,
}

impl Automaton {
    /// That of a pattern; `best_only`: of the matches that begin with a row only the best counts.
    ///
    /// # Errors
    /// A pattern that can match no row, or has a part that cannot match.
    pub(super) fn of(pattern: &Pattern, best_only: bool) -> Result<Automaton, ExpressionProblem> {
        if size(&pattern.tree) > MAX_STEPS {
            let message = format!(
                "the pattern has more than {MAX_STEPS} steps when its repetitions are written out: {}",
                size(&pattern.tree)
            );
            return Err(problem(message, (1, 1)));
        }
        let mut automaton = Automaton::default();
        let tree = expand(&pattern.tree, &mut automaton.positions);
        automaton.follow = vec![Vec::new(); automaton.positions.len()];
        automaton.link(&tree, &[Link { to: To::End, guards: 0 }])?;
        automaton.begin(pattern, &tree)?;
        let nothing_behind = |link: &Link| link.guards != 0 && !matches!(link.to, To::Step(_));
        if let Some(link) = automaton.follow.iter().flatten().find(|link| nothing_behind(link)) {
            let variable = link.guards.trailing_zeros() as usize;
            let name = &pattern.variables[variable];
            let message = format!("`!{name}` stands between two steps, and there may be none behind it");
            let help = format!("that none comes for some time is written `!{name} within 5m`");
            return Err(problem(message, negation(&pattern.tree, variable)).help(help));
        }
        if best_only {
            let behind_end = |links: &mut Vec<Link>| {
                let end = links.iter().position(|link| link.to == To::End);
                links.split_off(end.map_or(links.len(), |end| end + 1))
            };
            automaton.worse = automaton.follow.iter_mut().map(behind_end).collect();
        }
        automaton.check_reached(pattern)?;
        Ok(automaton)
    }

    /// Says of each position what is behind it, `behind` the node.
    fn link(&mut self, node: &Node, behind: &[Link]) -> Result<(), ExpressionProblem> {
        match node {
            Node::Step(position) => self.follow[*position] = behind.to_vec(),
            Node::Not(_) => {}
            Node::Absent { at, .. } => {
                if *behind != [(Link { to: To::End, guards: 0 })] {
                    let message = "an absence with a deadline ends a pattern, and something may come behind it";
                    return Err(problem(message, *at).help("that no row comes between is written `A !N B`"));
                }
            }
            Node::Sequence(all) => {
                let mut behind = behind.to_vec();
                for node in all.iter().rev() {
                    self.link(node, &behind)?;
                    behind = joined(&beginnings(node), &behind);
                }
            }
            Node::Choice(all) => all.iter().try_for_each(|node| self.link(node, behind))?,
            Node::Optional { of, .. } => self.link(of, behind)?,
            Node::Loop { of, reluctant, .. } => {
                let again = links(&beginnings(of));
                let all = if *reluctant { [behind, &again].concat() } else { [&again, behind].concat() };
                self.link(of, &distinct(all))?;
            }
        }
        Ok(())
    }

    /// Takes up how the pattern begins.
    fn begin(&mut self, pattern: &Pattern, tree: &Node) -> Result<(), ExpressionProblem> {
        for beginning in beginnings(tree) {
            if beginning.guards != 0 {
                let variable = beginning.guards.trailing_zeros() as usize;
                let name = &pattern.variables[variable];
                let message = format!("`!{name}` stands between two steps, and there may be none before it");
                return Err(problem(message, negation(&pattern.tree, variable)));
            }
            match beginning.to {
                None => return Err(problem("the pattern can match no row at all; let it have one in any case", (1, 1))),
                Some(To::Absent { variable, .. }) => {
                    let message = "an absence stands behind a step, and there may be none before it";
                    return Err(problem(message, negation(&pattern.tree, variable)));
                }
                Some(to @ To::Step(position)) => {
                    let Position { within_ms, at, .. } = &self.positions[position];
                    if within_ms.is_some() {
                        let message = "`within` counts from the row before, and this may be the first";
                        return Err(problem(message, *at).help("the time of a whole match is the step's `within`"));
                    }
                    self.first.push(Link { to, guards: 0 });
                }
                Some(To::End) => {}
            }
        }
        Ok(())
    }

    /// Refuses a step that no row reaches, because what stands before it is a match already.
    fn check_reached(&self, pattern: &Pattern) -> Result<(), ExpressionProblem> {
        let reached = self.reached(|_| true);
        let places: BTreeSet<Place> = reached.iter().map(|&position| self.positions[position].at).collect();
        match self.positions.iter().find(|position| !places.contains(&position.at)) {
            None => Ok(()),
            Some(lost) => {
                let name = &pattern.variables[lost.variable];
                let message = format!("no row ever comes to this `{name}`: what stands before it is a match already");
                let help = "of the matches that begin with a row only the best is told; `after_match = \"none\"` tells all";
                Err(problem(message, lost.at).help(help))
            }
        }
    }

    /// The positions that are reached through `allowed` ones.
    fn reached(&self, allowed: impl Fn(&Position) -> bool) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut next = steps(&self.first);
        while let Some(position) = next.pop() {
            if allowed(&self.positions[position]) && reached.insert(position) {
                next.extend(steps(&self.follow[position]));
            }
        }
        reached
    }

    /// Whether every match has a row of `variable`.
    pub(super) fn always_has(&self, variable: usize) -> bool {
        let without = self.reached(|position| position.variable != variable);
        let ends = |position: &usize| self.follow[*position].iter().any(|link| !matches!(link.to, To::Step(_)));
        !without.iter().any(ends)
    }

    /// Whether a row of `variable` is only ever the first of a match, or, of its rows, the first one is.
    pub(super) fn only_begins(&self, variable: usize, first_of_them: bool) -> bool {
        let of = |position: usize| self.positions[position].variable == variable;
        if first_of_them {
            return steps(&self.first).into_iter().all(of);
        }
        !self.follow.iter().any(|links| steps(links).into_iter().any(of))
    }

    /// Of which variables there can be rows in the match when a row of each of the `count` variables is judged.
    pub(super) fn before(&self, count: usize) -> Vec<Variables> {
        // Of which there can be rows up to a position, with its own.
        let mut upto: Vec<Variables> = vec![0; self.positions.len()];
        let mut next = steps(&self.first);
        for &position in &next {
            upto[position] = bit(self.positions[position].variable);
        }
        while let Some(position) = next.pop() {
            for behind in steps(&self.follow[position]) {
                let all = upto[behind] | upto[position] | bit(self.positions[behind].variable);
                if all != upto[behind] {
                    upto[behind] = all;
                    next.push(behind);
                }
            }
        }
        let mut before = vec![0; count];
        for (links, upto) in self.follow.iter().zip(&upto) {
            for link in links {
                let judged = match link.to {
                    To::Step(position) => bit(self.positions[position].variable),
                    To::Absent { variable, .. } => bit(variable),
                    To::End => 0,
                } | link.guards;
                (0..count).filter(|&variable| judged & bit(variable) != 0).for_each(|variable| before[variable] |= upto);
            }
        }
        before
    }
}

/// How many steps a tree has, negations with them.
fn size(tree: &Tree) -> usize {
    match tree {
        Tree::Step { .. } | Tree::Not { .. } | Tree::Absent { .. } => 1,
        Tree::Sequence(all) | Tree::Choice(all) => all.iter().map(size).fold(0, usize::saturating_add),
        Tree::Repeat { of, least, most, .. } => size(of).saturating_mul(most.unwrap_or((*least).max(1)) as usize),
    }
}

/// Where a variable is first negated.
fn negation(tree: &Tree, wanted: usize) -> Place {
    fn find(tree: &Tree, wanted: usize) -> Option<Place> {
        match tree {
            Tree::Not { variable, at } | Tree::Absent { variable, at, .. } => (*variable == wanted).then_some(*at),
            Tree::Step { .. } => None,
            Tree::Sequence(all) | Tree::Choice(all) => all.iter().find_map(|tree| find(tree, wanted)),
            Tree::Repeat { of, .. } => find(of, wanted),
        }
    }
    find(tree, wanted).unwrap_or((1, 1))
}

pub(super) fn steps(links: &[Link]) -> Vec<usize> {
    let position = |link: &Link| match link.to {
        To::Step(position) => Some(position),
        _ => None,
    };
    links.iter().filter_map(position).collect()
}
