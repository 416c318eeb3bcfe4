//! Inhibition: alerts that need not be told while another fires.
//!
//! Firing alerts that a rule's source matches stand in an index by the values of the rule's `equal` labels, so whether one
//! inhibits a target is a look-up a rule, however many fire.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::labels::{Labels, hex};
use super::matcher::{Matcher, all_match};

/// While an alert that `source` matches fires, those that `target` matches are not told, if both have the same values of
/// the labels `equal`. A label that neither has is equal. What matches both sides is not inhibited by what matches both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InhibitSpec {
    /// Matchers, as `severity="critical"`: all of them match an alert that inhibits.
    pub source: Vec<String>,
    /// Matchers: all of them match an alert that is inhibited.
    pub target: Vec<String>,
    /// The labels that have to be equal.
    #[serde(default)]
    pub equal: Vec<String>,
}

/// A rule that has been checked.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) source: Vec<Matcher>,
    pub(super) target: Vec<Matcher>,
    pub(super) equal: Vec<String>,
}

impl Rule {
    /// Where alerts stand that can inhibit one another by it.
    fn place(&self, rule: usize, labels: &Labels) -> (usize, Labels) {
        (rule, labels.only(Some(&self.equal)))
    }
}

/// The alerts that fire and are a source of some rule.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By rule and equal labels: whether its target matches them too, and their fingerprints. One that only the source
    /// matches comes first.
    firing: BTreeMap<(usize, Labels), BTreeSet<(bool, u64)>>,
}

impl Sources {
    pub(super) fn insert(&mut self, rules: &[Rule], labels: &Labels) {
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| all_match(&rule.source, labels)) {
            let entry = (all_match(&rule.target, labels), labels.fingerprint());
            self.firing.entry(rule.place(index, labels)).or_default().insert(entry);
        }
    }

    pub(super) fn remove(&mut self, rules: &[Rule], labels: &Labels) {
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| all_match(&rule.source, labels)) {
            let place = rule.place(index, labels);
            let Some(firing) = self.firing.get_mut(&place) else { continue };
            firing.remove(&(all_match(&rule.target, labels), labels.fingerprint()));
            if firing.is_empty() {
                self.firing.remove(&place);
            }
        }
    }

    /// The fingerprint of an alert that inhibits one of these labels, if any does.
    pub(super) fn find(&self, rules: &[Rule], labels: &Labels) -> Option<String> {
        rules.iter().enumerate().filter(|(_, rule)| all_match(&rule.target, labels)).find_map(|(index, rule)| {
            let &(both, source) = self.firing.get(&rule.place(index, labels))?.first()?;
            let counts = !both || !all_match(&rule.source, labels);
            counts.then(|| hex(source))
        })
    }
}
