//! What is told, from the meaning alone: every way through the pattern is gone, row by row, choice by choice.
//!
//! It knows no automaton: what may come next is found on the pattern's tree, whose repetitions count down as they are
//! used. Everything that a way waited for is noted with the moment at which that ended, and what is told follows from
//! the list of all of them.

use std::collections::BTreeMap;

use crate::operators::recognize::Contiguity;

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Row(usize, Option<i64>),
    Not(usize),
    Absent(usize, i64),
    Sequence(Vec<Part>),
    Choice(Vec<Part>),
    Repeat { of: Box<Part>, least: u32, most: Option<u32>, reluctant: bool },
    /// A repetition behind a round of it that has no row yet.
    Fresh(Box<Part>),
}

/// A row of one key.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub time: i64,
    pub kind: u8,
    pub x: Option<i64>,
}

/// A condition.
#[derive(Clone, Debug)]
pub enum Condition {
    Any,
    Kinds(Vec<u8>),
    Both(Vec<Condition>),
    /// `x > PREV(x, n)`
    AbovePrevious(usize),
    /// `x >= FIRST(V.x)`
    FromFirst(usize),
    /// `x <> V.x`
    NotLast(usize),
    /// `COUNT(V.*) < n`
    Fewer(usize, i64),
    /// `coalesce(SUM(V.x), 0) < n`
    Less(usize, i64),
    /// `x > AVG(V.x)`
    AboveAverage(usize),
    /// `x < MAX(V.x)`
    BelowGreatest(usize),
}

/// Which rows are skipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skip {
    None,
    ToNext,
    PastLast,
    ToFirst(usize),
    ToLast(usize),
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub pattern: Part,
    pub conditions: Vec<Condition>,
    pub contiguity: Contiguity,
    pub skip: Skip,
    pub within: i64,
    pub timed_out: bool,
}

/// Rows by number, each with its variable.
pub type Trace = Vec<(usize, usize)>;

/// Something told: when, whether it is a match, and its rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    pub at: i64,
    pub matched: bool,
    pub trace: Trace,
}

/// A row comes before what is due at its time.
type Moment = (i64, u8, usize);
/// The choices of a way: which of what could come, and the row.
type Choices = Vec<(usize, usize)>;

#[derive(Clone, Debug, PartialEq)]
enum Next {
    Row { variable: usize, within: i64, guards: Vec<usize>, rest: Vec<Part> },
    End,
    Absent { variable: usize, within: i64 },
}

struct Way {
    choices: Choices,
    next: Vec<Next>,
}

/// A match.
struct Found {
    choices: Choices,
    moment: Moment,
    trace: Trace,
    /// How it ended: the time and the variable of an absence.
    end: Option<(i64, usize)>,
}

/// Something that was waited for, and how that ended.
struct Waited {
    choices: Choices,
    over: Moment,
    by_time: bool,
    trace: Trace,
}

#[derive(Default)]
struct Explored {
    found: Vec<Found>,
    waited: Vec<Waited>,
}

impl Condition {
    fn holds(&self, row: &Row, trace: &Trace, rows: &[Row]) -> bool {
        let of = |variable: usize| trace.iter().filter(move |(_, v)| *v == variable).map(|(row, _)| rows[*row].x);
        let values = |variable: usize| of(variable).flatten().collect::<Vec<i64>>();
        let both = |left: Option<i64>, right: Option<i64>, test: fn(i64, i64) -> bool| match (left, right) {
            (Some(left), Some(right)) => test(left, right),
            _ => false,
        };
        match self {
            Condition::Any => true,
            Condition::Kinds(kinds) => kinds.contains(&row.kind),
            Condition::Both(all) => all.iter().all(|one| one.holds(row, trace, rows)),
            Condition::AbovePrevious(back) => {
                let before = trace.len().checked_sub(*back).and_then(|place| rows[trace[place].0].x);
                both(row.x, before, |x, before| x > before)
            }
            Condition::FromFirst(variable) => both(row.x, of(*variable).next().flatten(), |x, first| x >= first),
            Condition::NotLast(variable) => both(row.x, of(*variable).next_back().flatten(), |x, last| x != last),
            Condition::Fewer(variable, n) => (of(*variable).count() as i64) < *n,
            Condition::Less(variable, n) => values(*variable).iter().sum::<i64>() < *n,
            Condition::AboveAverage(variable) => {
                let values = values(*variable);
                let average = values.iter().sum::<i64>() as f64 / values.len() as f64;
                !values.is_empty() && row.x.is_some_and(|x| x as f64 > average)
            }
            Condition::BelowGreatest(variable) => {
                both(row.x, values(*variable).into_iter().max(), |x, greatest| x < greatest)
            }
        }
    }

    /// The condition in SQL.
    pub fn sql(&self, names: &[&str]) -> String {
        match self {
            Condition::Any => "true".into(),
            Condition::Kinds(kinds) => {
                let kinds: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
                format!("kind in ({})", kinds.join(", "))
            }
            Condition::Both(all) => {
                let all: Vec<String> = all.iter().map(|one| one.sql(names)).collect();
                all.join(" and ")
            }
            Condition::AbovePrevious(1) => "x > PREV(x)".into(),
            Condition::AbovePrevious(back) => format!("x > PREV(x, {back})"),
            Condition::FromFirst(v) => format!("x >= FIRST({}.x)", names[*v]),
            Condition::NotLast(v) => format!("x <> {}.x", names[*v]),
            Condition::Fewer(v, n) => format!("COUNT({}.*) < {n}", names[*v]),
            Condition::Less(v, n) => format!("coalesce(SUM({}.x), 0) < {n}", names[*v]),
            Condition::AboveAverage(v) => format!("x > AVG({}.x)", names[*v]),
            Condition::BelowGreatest(v) => format!("x < MAX({}.x)", names[*v]),
        }
    }
}

impl Part {
    fn is_nullable(&self) -> bool {
        match self {
            Part::Row(..) => false,
            Part::Not(_) | Part::Absent(..) | Part::Fresh(_) => true,
            Part::Sequence(all) => all.iter().all(Part::is_nullable),
            Part::Choice(all) => all.iter().any(Part::is_nullable),
            Part::Repeat { of, least, .. } => *least == 0 || of.is_nullable(),
        }
    }
}

/// What may come next where `rest` is left of the pattern (its end is what comes first), the best first.
fn next(mut rest: Vec<Part>, guards: &[usize]) -> Vec<Next> {
    let Some(part) = rest.pop() else { return vec![Next::End] };
    let with = |mut rest: Vec<Part>, parts: Vec<Part>| {
        rest.extend(parts.into_iter().rev());
        rest
    };
    let mut all = match part {
        Part::Row(variable, within) => {
            let unfresh = |part: Part| match part {
                Part::Fresh(part) => *part,
                part => part,
            };
            let rest = rest.into_iter().map(unfresh).collect();
            vec![Next::Row { variable, within: within.unwrap_or(i64::MAX), guards: guards.to_vec(), rest }]
        }
        Part::Not(variable) => next(rest, &[guards, &[variable]].concat()),
        Part::Absent(variable, within) => vec![Next::Absent { variable, within }],
        Part::Sequence(parts) => next(with(rest, parts), guards),
        Part::Choice(parts) => {
            parts.into_iter().flat_map(|part| next(with(rest.clone(), vec![part]), guards)).collect()
        }
        Part::Fresh(_) => Vec::new(),
        Part::Repeat { of, least, most, reluctant } => {
            let least = if of.is_nullable() { 0 } else { least };
            let fewer = |least: u32| {
                let most = most.map(|most| most - 1);
                Box::new(Part::Repeat { of: of.clone(), least, most, reluctant })
            };
            if least > 0 {
                next(with(rest, vec![(*of).clone(), *fewer(least - 1)]), guards)
            } else {
                let more = match most {
                    Some(0) => Vec::new(),
                    _ => next(with(rest.clone(), vec![(*of).clone(), Part::Fresh(fewer(0))]), guards),
                };
                let over = next(rest, guards);
                if reluctant { [over, more].concat() } else { [more, over].concat() }
            }
        }
    };
    let mut distinct: Vec<Next> = Vec::new();
    for one in all.drain(..) {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}

struct Explorer<'e> {
    settings: &'e Settings,
    rows: &'e [Row],
}

impl Explorer<'_> {
    fn holds(&self, variable: usize, row: usize, trace: &Trace) -> bool {
        self.settings.conditions[variable].holds(&self.rows[row], trace, self.rows)
    }

    fn deadline(&self, within: i64, trace: &Trace) -> i64 {
        let (first, last) = (self.rows[trace[0].0].time, self.rows[trace[trace.len() - 1].0].time);
        last.saturating_add(within).min(first + self.settings.within)
    }

    /// Goes on from a partial match, to which some ways lead.
    fn explore(&self, trace: &Trace, ways: &[Way], out: &mut Explored) {
        let last = trace[trace.len() - 1].0;
        let behind = last + 1..self.rows.len();
        let time = |row: usize| self.rows[row].time;
        // Which ways take a row, and as what.
        let takes = |row: usize| {
            let mut taken = Vec::new();
            for way in ways {
                for (place, next) in way.next.iter().enumerate() {
                    let Next::Row { variable, within, guards, rest } = next else { continue };
                    let is_guarded =
                        |row: usize| guards.iter().any(|guard| self.holds(*guard, row, trace));
                    if time(row) <= self.deadline(*within, trace)
                        && self.holds(*variable, row, trace)
                        && !(last + 1..row).any(is_guarded)
                    {
                        let choices = [way.choices.as_slice(), &[(place, row)]].concat();
                        taken.push((*variable, Way { choices, next: super::reference::next(rest.clone(), &[]) }));
                    }
                }
            }
            taken
        };
        let follows: Vec<usize> = match self.settings.contiguity {
            Contiguity::Strict => behind.clone().take(1).collect(),
            Contiguity::Relaxed => behind.clone().find(|row| !takes(*row).is_empty()).into_iter().collect(),
            Contiguity::RelaxedAny => behind.clone().collect(),
        };
        for way in ways {
            for (place, next) in way.next.iter().enumerate() {
                let choices = [way.choices.as_slice(), &[(place, usize::MAX)]].concat();
                let trace = trace.clone();
                match next {
                    Next::End => out.found.push(Found { choices, moment: (time(last), 0, last), trace, end: None }),
                    Next::Absent { variable, within } => {
                        let until = time(last) + within;
                        let comes = |row: &usize| time(*row) <= until && self.holds(*variable, *row, &trace);
                        match behind.clone().find(comes) {
                            Some(row) => {
                                out.waited.push(Waited { choices, over: (time(row), 0, row), by_time: false, trace });
                            }
                            None => {
                                let end = Some((until, *variable));
                                out.found.push(Found { choices, moment: (until, 1, 0), trace, end });
                            }
                        }
                    }
                    Next::Row { within, guards, .. } => {
                        let late = (self.deadline(*within, &trace), 1, 0);
                        let forbids = |row: &usize| guards.iter().any(|guard| self.holds(*guard, *row, &trace));
                        let forbidden = behind.clone().find(forbids);
                        let passed = match self.settings.contiguity {
                            Contiguity::RelaxedAny => None,
                            _ => follows.first().copied(),
                        };
                        let by_row = forbidden.into_iter().chain(passed).map(|row| (time(row), 0, row)).min();
                        let over = by_row.map_or(late, |row| row.min(late));
                        out.waited.push(Waited { choices, over, by_time: over == late, trace });
                    }
                }
            }
        }
        for row in follows {
            let mut longer: BTreeMap<usize, Vec<Way>> = BTreeMap::new();
            for (variable, way) in takes(row) {
                longer.entry(variable).or_default().push(way);
            }
            for (variable, ways) in longer {
                self.explore(&[trace.as_slice(), &[(row, variable)]].concat(), &ways, out);
            }
        }
    }

    fn begin(&self, row: usize) -> Option<Explored> {
        let mut ways: BTreeMap<usize, Vec<Way>> = BTreeMap::new();
        let first = next(vec![self.settings.pattern.clone()], &[]);
        for (place, next) in first.into_iter().enumerate() {
            let Next::Row { variable, rest, .. } = next else { continue };
            if self.holds(variable, row, &Trace::new()) {
                let choices = vec![(place, row)];
                let next = super::reference::next(rest, &[]);
                ways.entry(variable).or_default().push(Way { choices, next });
            }
        }
        let mut out = Explored::default();
        for (variable, ways) in &ways {
            self.explore(&vec![(row, *variable)], ways, &mut out);
        }
        (!ways.is_empty()).then_some(out)
    }
}

impl Explored {
    /// The partial matches that ran out of time, each with when, and with the best of what ended last.
    fn late(&self) -> Vec<(Moment, Choices, Trace)> {
        let mut traces: Vec<&Trace> = self.waited.iter().map(|waited| &waited.trace).collect();
        traces.sort();
        traces.dedup();
        let mut late = Vec::new();
        for trace in traces {
            let waited = || self.waited.iter().filter(|waited| waited.trace == *trace);
            let last = waited().map(|waited| waited.over).max().unwrap();
            let of_last = || waited().filter(|waited| waited.over == last);
            if of_last().any(|waited| waited.by_time) && !self.found.iter().any(|found| found.trace == *trace) {
                let best = of_last().map(|waited| waited.choices.clone()).min().unwrap();
                late.push((last, best, trace.clone()));
            }
        }
        late
    }
}

/// All that is told of the rows of a key, which are in order.
pub fn expected(settings: &Settings, rows: &[Row]) -> Vec<Expected> {
    let explorer = Explorer { settings, rows };
    let mut told = Vec::new();
    let (mut allowed, mut known_by) = (0, i64::MIN);
    for start in 0..rows.len() {
        if start < allowed {
            continue;
        }
        let Some(explored) = explorer.begin(start) else { continue };
        let late = if settings.timed_out { explored.late() } else { Vec::new() };
        if settings.skip == Skip::None {
            let mut ends: Vec<(&Trace, Option<(i64, usize)>)> = Vec::new();
            for found in &explored.found {
                if !ends.contains(&(&found.trace, found.end)) {
                    ends.push((&found.trace, found.end));
                    told.push(Expected { at: found.moment.0, matched: true, trace: found.trace.clone() });
                }
            }
            told.extend(late.into_iter().map(|(over, _, trace)| Expected { at: over.0, matched: false, trace }));
            continue;
        }
        let best = explored.found.iter().min_by(|one, other| one.choices.cmp(&other.choices));
        let better = |waited: &&Waited| best.is_none_or(|best| waited.choices < best.choices);
        let over = explored.waited.iter().filter(better).map(|waited| waited.over).max();
        let decided = over.into_iter().chain(best.map(|best| best.moment)).max().unwrap();
        known_by = if settings.skip == Skip::ToNext { decided.0 } else { known_by.max(decided.0) };
        if let Some(best) = best {
            let of = |variable: usize| best.trace.iter().filter(move |(_, v)| *v == variable).map(|(row, _)| *row);
            allowed = match settings.skip {
                Skip::ToFirst(variable) => of(variable).next().unwrap(),
                Skip::ToLast(variable) => of(variable).next_back().unwrap(),
                Skip::PastLast => best.trace[best.trace.len() - 1].0 + 1,
                Skip::ToNext | Skip::None => 0,
            };
            told.push(Expected { at: known_by, matched: true, trace: best.trace.clone() });
        } else {
            let last = late.iter().map(|(over, ..)| *over).max();
            let best = late.into_iter().filter(|(over, ..)| Some(*over) == last).min_by(|a, b| a.1.cmp(&b.1));
            told.extend(best.map(|(_, _, trace)| Expected { at: known_by, matched: false, trace }));
        }
    }
    told
}
