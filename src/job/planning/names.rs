//! What a `from` names: a source, a step, the late rows of a step; and in which order steps can be made.

use super::{Planner, StepDraft};

/// What ends the name of the stream of a step's late rows.
const LATE: &str = ".late";

/// How many streams are listed at most to somebody who has misspelt one.
const MAX_SHOWN: usize = 24;

/// What a `from` turned out to be.
#[derive(Clone, Copy)]
pub(super) enum Found {
    Source(usize),
    Step(usize),
    Late(usize),
    /// Wrong, or of something that is wrong; reported.
    Wrong,
}

impl Planner<'_> {
    /// The stream of a `from`.
    pub(super) fn find(&mut self, path: &[&str], name: &str) -> Found {
        let base = name.strip_suffix(LATE);
        let step = |name: &str| self.steps.iter().position(|step| step.name == name);
        if self.broken.contains(name) || base.is_some_and(|base| self.broken.contains(base)) {
            return Found::Wrong;
        }
        if let Some(index) = self.spec.source.get_index_of(name) {
            return Found::Source(index);
        }
        if let Some(index) = step(name) {
            return Found::Step(index);
        }
        if let Some(index) = base.and_then(step) {
            return Found::Late(index);
        }
        if let Some(base) = base.filter(|base| self.spec.source.contains_key(*base)) {
            let message = format!("the source `{base}` has no late rows; only steps set rows aside as late");
            self.cx.problem(path, message);
            return Found::Wrong;
        }
        self.no_stream(path, name);
        Found::Wrong
    }

    /// Reports that no stream is called `name`, and which streams there are.
    fn no_stream(&mut self, path: &[&str], name: &str) {
        let steps = self.steps.iter();
        let known: Vec<String> = if name.ends_with(LATE) {
            steps.map(|step| format!("{}{LATE}", step.name)).collect()
        } else {
            self.spec.source.keys().cloned().chain(steps.map(|step| step.name.to_string())).collect()
        };
        let all = self.spec.source.keys().map(String::as_str).chain(self.steps.iter().map(|step| step.name));
        let all: Vec<String> = all.map(|name| format!("`{name}`")).collect();
        self.cx.unknown(path, "stream", name, known);
        if let Some(problem) = self.cx.problems.last_mut().filter(|_| all.len() > 1) {
            let late = match name.ends_with(LATE) {
                true => ", and the late rows of steps that keep time, as `STEP.late`",
                false => "",
            };
            let shown = all.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let more = if all.len() > MAX_SHOWN { ", ..." } else { "" };
            problem.help = Some(format!("there are {shown}{more}{late}"));
        }
    }

    pub(super) fn reads(&mut self, step: &StepDraft<'_>) -> Vec<Found> {
        let inputs = step.spec.inputs();
        let one = |(field, name): (Vec<&'static str>, &str)| {
            let mut path = vec!["step", step.name, step.verb];
            path.extend(field);
            self.find(&path, name)
        };
        inputs.into_iter().map(one).collect()
    }

    /// The steps in an order in which each follows what it reads, otherwise as in the file. Reports
    /// cycles; what is in or behind one is left out.
    pub(super) fn order(&mut self, reads: &[Vec<Found>]) -> Vec<usize> {
        let upstream = |step: usize| {
            reads[step].iter().filter_map(|found| match found {
                Found::Step(i) | Found::Late(i) => Some(*i),
                _ => None,
            })
        };
        let mut order: Vec<usize> = Vec::new();
        let mut done = vec![false; reads.len()];
        while let Some(next) = (0..reads.len()).find(|&i| !done[i] && upstream(i).all(|from| done[from])) {
            done[next] = true;
            order.push(next);
        }
        let mut seen = done.clone();
        for start in 0..reads.len() {
            let mut trail: Vec<usize> = Vec::new();
            let mut at = start;
            while !seen[at] {
                seen[at] = true;
                trail.push(at);
                match upstream(at).find(|&from| !done[from]) {
                    Some(from) => at = from,
                    None => break,
                }
            }
            if let Some(begin) = trail.iter().position(|&step| step == at).filter(|_| !done[at]) {
                self.report_cycle(&trail[begin..]);
            }
        }
        order
    }

    fn report_cycle(&mut self, cycle: &[usize]) {
        let names: Vec<String> = cycle.iter().map(|&i| format!("`{}`", self.steps[i].name)).collect();
        let [first, others @ ..] = names.as_slice() else { return };
        let message = match others {
            [] => format!("{first} reads itself"),
            _ => format!("{first} reads {}, which reads {first}: a cycle", others.join(", which reads ")),
        };
        let step = &self.steps[cycle[0]];
        let next = self.steps[cycle[1 % cycle.len()]].name;
        let inputs = step.spec.inputs();
        let field = inputs.into_iter().find(|(_, name)| name.strip_suffix(LATE).unwrap_or(name) == next);
        let mut path = vec!["step", step.name, step.verb];
        path.extend(field.map(|(field, _)| field).unwrap_or_default());
        self.cx.problem(path, message);
    }
}
