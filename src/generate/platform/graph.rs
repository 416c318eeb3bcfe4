//! The services of the platform, and which depends on which; that changes now and then.
//!
//! ```text
//!  edge     checkout-1   cart-2   …       each depends on 2 to 4 of the middle
//!              │    ╲      │
//!  middle   pricing-1  ledger-3   …       each on 1 or 2 that keep data, some on another of the middle
//!              │          │
//!  data     ledger-db-2  prices-cache-1   some on another one that keeps data
//! ```
//!
//! Eight domains (payments, catalog, …), and most dependencies stay within one. A service depends on none that
//! stands before it in the list, so there is no cycle.

use crate::generate::random::Random;

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Edge,
    Middle,
    Data,
}

pub(super) struct Service {
    /// `checkout-7`
    pub name: String,
    pub layer: Layer,
    domain: usize,
    pub region: &'static str,
    /// The numbers of the hosts on which it runs, all in its region.
    pub hosts: Vec<u64>,
    /// How much it has to say without cause, beside others that incidents reach as often.
    pub chatter: u64,
}

pub(super) struct Graph {
    pub services: Vec<Service>,
    /// By service: those on which it depends, in the order in which that began.
    depends_on: Vec<Vec<usize>>,
    /// The same the other way around.
    used_by: Vec<Vec<usize>>,
    links: usize,
    links_at_first: usize,
}

/// A dependency that is there from now on, or no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub service: usize,
    pub depends_on: usize,
    pub linked: bool,
}

const REGIONS: [&str; 3] = ["eu-west", "eu-north", "us-east"];
const HOSTS_PER_REGION: u64 = 24;
const HOSTS_PER_SERVICE: usize = 3;
/// A service that is drawn may have nothing to change.
const CHANGE_TRIES: usize = 50;

/// By domain: what its services of each layer are called.
const DOMAINS: [[&[&str]; 3]; 8] = [
    [&["checkout", "billing"], &["ledger", "refunds", "fraud"], &["ledger-db", "payments-queue"]],
    [&["catalog", "item-page"], &["pricing", "stock", "variants"], &["catalog-db", "prices-cache"]],
    [&["login", "profile"], &["accounts", "sessions", "consent"], &["accounts-db", "sessions-cache"]],
    [&["cart", "order-page"], &["orders", "returns", "vouchers"], &["orders-db", "orders-queue"]],
    [&["tracking", "delivery-page"], &["shipping", "routing", "labels"], &["shipping-db", "geo-index"]],
    [&["search", "suggest"], &["ranking", "indexer", "spelling"], &["search-index", "clicks-store"]],
    [&["images", "video"], &["thumbnails", "transcoding", "uploads"], &["media-store", "media-queue"]],
    [&["reports", "dashboards"], &["metrics", "exports", "segments"], &["events-store", "reports-db"]],
];

impl Graph {
    /// Some 100 to 170 services.
    pub(super) fn new(random: &mut Random) -> Graph {
        let mut services = Vec::new();
        for (layer, at) in [Layer::Edge, Layer::Middle, Layer::Data].into_iter().zip(0..) {
            for (domain, names) in DOMAINS.iter().enumerate() {
                let count = [4, 6, 3][at] + random.below(4);
                for number in 0..count {
                    let names = names[at];
                    let base = names[number as usize % names.len()];
                    let region = random.below(REGIONS.len() as u64);
                    let mut hosts = Vec::with_capacity(HOSTS_PER_SERVICE);
                    while hosts.len() < HOSTS_PER_SERVICE {
                        let host = 1 + region * HOSTS_PER_REGION + random.below(HOSTS_PER_REGION);
                        if !hosts.contains(&host) {
                            hosts.push(host);
                        }
                    }
                    services.push(Service {
                        name: format!("{base}-{}", 1 + number as usize / names.len()),
                        layer,
                        domain,
                        region: REGIONS[region as usize],
                        hosts,
                        chatter: 1 + random.below(3),
                    });
                }
            }
        }
        let none = vec![Vec::new(); services.len()];
        let mut graph =
            Graph { services, depends_on: none.clone(), used_by: none, links: 0, links_at_first: 0 };
        for service in 0..graph.services.len() {
            let wanted = match graph.services[service].layer {
                Layer::Edge => 2 + random.below(3),
                Layer::Middle => 1 + random.below(2) + u64::from(random.below(3) == 0),
                Layer::Data => u64::from(random.below(6) == 0),
            };
            for _ in 0..wanted {
                graph.add(service, random);
            }
        }
        graph.links_at_first = graph.links;
        graph
    }

    /// Those that depend on it.
    pub(super) fn used_by(&self, service: usize) -> &[usize] {
        &self.used_by[service]
    }

    /// Those on which it depends.
    pub(super) fn depends_on(&self, service: usize) -> &[usize] {
        &self.depends_on[service]
    }

    /// Every dependency that there is.
    pub(super) fn links(&self) -> impl Iterator<Item = Change> + '_ {
        let of = |(service, on): (usize, &'_ Vec<usize>)| {
            let link = move |&depends_on: &usize| Change { service, depends_on, linked: true };
            on.iter().map(link).collect::<Vec<Change>>()
        };
        self.depends_on.iter().enumerate().flat_map(of)
    }

    /// A dependency comes or goes: as many of one as of the other, in the long run. None goes that is the only one
    /// of its service.
    pub(super) fn change(&mut self, random: &mut Random) -> Option<Change> {
        (0..CHANGE_TRIES).find_map(|_| self.try_change(random))
    }

    fn try_change(&mut self, random: &mut Random) -> Option<Change> {
        let service = random.below(self.services.len() as u64) as usize;
        let more =
            self.links < self.links_at_first || self.links == self.links_at_first && random.below(2) == 0;
        if more {
            return self.add(service, random);
        }
        let on = &mut self.depends_on[service];
        if on.len() < 2 {
            return None;
        }
        let depends_on = on.remove(random.below(on.len() as u64) as usize);
        self.used_by[depends_on].retain(|user| *user != service);
        self.links -= 1;
        Some(Change { service, depends_on, linked: false })
    }

    /// One more dependency of a service, if it finds one.
    fn add(&mut self, service: usize, random: &mut Random) -> Option<Change> {
        let of = &self.services[service];
        let layer = match (of.layer, random.below(5)) {
            (Layer::Edge, _) | (Layer::Middle, 0) => Layer::Middle,
            _ => Layer::Data,
        };
        let elsewhere = random.below(6) == 0;
        let fit = |candidate: &usize| {
            let other = &self.services[*candidate];
            other.layer == layer
                && (other.domain == of.domain) != elsewhere
                && !self.depends_on[service].contains(candidate)
        };
        let candidates: Vec<usize> = (service + 1..self.services.len()).filter(fit).collect();
        if candidates.is_empty() {
            return None;
        }
        let depends_on = random.pick(&candidates);
        self.depends_on[service].push(depends_on);
        self.used_by[depends_on].push(service);
        self.links += 1;
        Some(Change { service, depends_on, linked: true })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_is_sparse_layered_and_stays_so_while_it_changes() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut graph = Graph::new(&mut random);
            let count = graph.services.len();
            assert!((104..=128 + 8 * 3 * 3).contains(&count), "{count}");
            let names: BTreeSet<&str> = graph.services.iter().map(|service| service.name.as_str()).collect();
            assert_eq!(names.len(), count);
            let mut links: BTreeSet<(usize, usize)> =
                graph.links().map(|link| (link.service, link.depends_on)).collect();
            let mut changes = [0, 0];
            for _ in 0..500 {
                let Some(Change { service, depends_on, linked }) = graph.change(&mut random) else {
                    continue;
                };
                changes[usize::from(linked)] += 1;
                assert!(if linked {
                    links.insert((service, depends_on))
                } else {
                    links.remove(&(service, depends_on))
                });
            }
            assert!(changes[0] > 50 && changes[1] > 50, "{changes:?}");
            assert!(
                links.iter().all(|(service, on)| service < on
                    && graph.services[*service].layer <= graph.services[*on].layer)
            );
            assert!(links.len() < count * 3, "{} of {count}", links.len());
            let known: BTreeSet<(usize, usize)> =
                graph.links().map(|link| (link.service, link.depends_on)).collect();
            assert_eq!(known, links);
            for (service, on) in links {
                assert!(graph.used_by(on).contains(&service) && graph.depends_on(service).contains(&on));
            }
        }
    }
}
