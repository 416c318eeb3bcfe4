//! One incident: what goes wrong at a service, and whom it reaches.
//!
//! ```text
//!   ledger-db-2 ──3 s…3 min──► ledger-1 ──► checkout-3          to those that depend on it,
//!        └──────────────────► refunds-2 ──► (does not reach)     with a probability that falls with each hop
//! ```

use std::collections::BTreeSet;
use std::rc::Rc;

use super::graph::Graph;
use super::words::{THEMES, Theme};
use crate::generate::random::Random;

/// What went wrong, by which texts of one incident can be known to belong together.
pub(super) struct Trouble {
    /// The service at which it began.
    pub root: usize,
    pub theme: &'static Theme,
    pub code: String,
}

/// A service that an incident reached.
pub(super) struct Reached {
    pub service: usize,
    /// The one from which it came; the root's is the root.
    pub through: usize,
    pub at_us: u64,
}

/// By hop from the root: how probably a service that depends on one that is reached is reached too. It goes no further.
const REACHES: [f64; 4] = [0.8, 0.6, 0.45, 0.3];
const LEAST_DELAY_US: u64 = 3_000_000;
const MEAN_DELAY_US: f64 = 35_000_000.0;
const MOST_DELAY_US: u64 = 180_000_000;
/// The most services of one incident.
pub(super) const MOST_SERVICES: usize = 24;

/// What goes wrong at this service.
pub(super) fn trouble(root: usize, random: &mut Random) -> Rc<Trouble> {
    let theme = &THEMES[random.below(THEMES.len() as u64) as usize];
    Rc::new(Trouble { root, theme, code: theme.new_code(random) })
}

/// Whom it reaches, the root first. At least one other, as the root must have one that depends on it.
pub(super) fn reached(root: usize, from_us: u64, graph: &Graph, random: &mut Random) -> Vec<Reached> {
    let mut reached = vec![Reached { service: root, through: root, at_us: from_us }];
    let mut known = BTreeSet::from([root]);
    let mut hop = 0..1;
    for probability in REACHES {
        for source in hop.clone() {
            let (through, at_us) = (reached[source].service, reached[source].at_us);
            for user in graph.used_by(through) {
                let goes = reached.len() < MOST_SERVICES && random.chance(probability);
                if goes && known.insert(*user) {
                    reached.push(Reached { service: *user, through, at_us: at_us + delay(random) });
                }
            }
        }
        if reached.len() == 1 {
            let first = random.pick(graph.used_by(root));
            reached.push(Reached { service: first, through: root, at_us: from_us + delay(random) });
            known.insert(first);
        }
        hop = hop.end..reached.len();
    }
    reached
}

fn delay(random: &mut Random) -> u64 {
    MOST_DELAY_US.min(LEAST_DELAY_US + (random.exponential() * MEAN_DELAY_US) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_to_those_that_depend_on_it_and_never_nowhere() {
        let mut random = Random::new(9);
        let graph = Graph::new(&mut random);
        let roots = (0..graph.services.len()).filter(|root| !graph.used_by(*root).is_empty());
        let mut sizes = Vec::new();
        for root in roots.cycle().take(5_000) {
            let reached = reached(root, 1_000, &graph, &mut random);
            assert_eq!((reached[0].service, reached[0].at_us), (root, 1_000));
            assert!((2..=MOST_SERVICES).contains(&reached.len()));
            let services: BTreeSet<usize> = reached.iter().map(|one| one.service).collect();
            assert_eq!(services.len(), reached.len(), "each once");
            for one in &reached[1..] {
                let source = reached.iter().find(|source| source.service == one.through).unwrap();
                assert!(graph.used_by(one.through).contains(&one.service));
                let delay_us = one.at_us - source.at_us;
                assert!((LEAST_DELAY_US..=MOST_DELAY_US).contains(&delay_us));
            }
            sizes.push(reached.len());
        }
        let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
        assert!((3.0..8.0).contains(&mean), "{mean}");
    }
}
