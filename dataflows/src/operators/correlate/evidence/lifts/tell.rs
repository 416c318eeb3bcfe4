//! From counts to lifts: what chance would do, how sure the difference is, and which to suggest.

use std::collections::BTreeMap;

use super::bounds::{least, most};
use super::counts::{Counts, Value};
use super::{Lift, Lifts, Settings};
use crate::operators::correlate::cell;

/// How often an end of an interval may err, over all pairs.
const ALPHA: f64 = 0.025;

/// What the counts tell, which are at their end.
pub(super) fn lifts(settings: &Settings, counts: &mut Counts, names: &BTreeMap<Value, (usize, &[u8])>) -> Lifts {
    let span_ms = counts.end();
    let mut told = Lifts { events: counts.events, span_ms, left_out: counts.left_out, ..Lifts::default() };
    if span_ms == 0 {
        return told;
    }
    let by_chance = counts.by_chance();
    let count = |value: &Value| counts.causes.get(value).map_or(0, |causes| causes.count);
    let pairs = counts.pairs.iter().filter(|((cause, effect), pair)| {
        pair.followed > 0 && count(cause) >= settings.min_support && count(effect) >= settings.min_support
    });
    told.pairs = pairs.clone().count() as u64;
    let alpha = ALPHA / (told.pairs as f64).max(1.0);
    let name = |value: &Value| {
        let (column, cell) = names.get(value).copied().unwrap_or_default();
        let column = settings.by.get(column).map(|(_, name)| name.clone()).unwrap_or_default();
        (column, cell::json(cell))
    };
    for ((cause, effect), pair) in pairs.filter(|(_, pair)| pair.followed >= settings.min_support) {
        let causes = counts.causes.get(cause).copied().unwrap_or_default();
        let expected = by_chance.get(&(*cause, *effect)).copied().unwrap_or_default() as f64 / span_ms as f64;
        if expected <= 0.0 {
            continue;
        }
        let (all, followed, preceded) = (causes.count as f64, pair.followed as f64, pair.preceded as f64);
        // How many of them count as independent.
        let occasions = causes.occasions.max(1);
        let share = (occasions as f64 / all).min(pair.answers as f64 / followed).min(1.0);
        let by_chance = expected / all;
        let low = least(followed * share, all * share, alpha) / by_chance;
        let high = most(followed * share, all * share, alpha) / by_chance;
        let order = least(followed * share, (followed + preceded) * share, alpha);
        let order = order / (1.0 - order).max(f64::MIN_POSITIVE);
        if low <= 1.0 || order <= 1.0 {
            continue;
        }
        let within_ms = pair.delays.percentile(95).min(settings.within_ms.unsigned_abs());
        told.found.push(Lift {
            cause: name(cause),
            effect: name(effect),
            causes: causes.count,
            occasions,
            followed: pair.followed,
            expected,
            preceded: pair.preceded,
            answers: pair.answers,
            lift: followed / expected,
            low,
            high,
            order,
            median_ms: pair.delays.percentile(50),
            within_ms,
            decays: pair.delays.up_to(within_ms / 2) * 3 > pair.delays.up_to(within_ms) * 2,
        });
    }
    let name = |lift: &Lift| (lift.cause.0.clone(), lift.cause.1.to_string(), lift.effect.0.clone(), lift.effect.1.to_string());
    told.found.sort_by(|a, b| b.sure().total_cmp(&a.sure()).then_with(|| name(a).cmp(&name(b))));
    told
}

impl Lift {
    /// The smaller of the two lower bounds.
    pub fn sure(&self) -> f64 {
        self.low.min(self.order)
    }
}
