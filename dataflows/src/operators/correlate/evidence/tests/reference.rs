//! Incidents from the definition alone: every event against every other, and everything anew.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Link, Scene};

/// The sets of events, by id, that are incidents of at least two; `candidates` as the step has it.
pub(super) fn incidents(scene: &Scene, links: &[Link], support: u64, belongs: u64, candidates: usize) -> BTreeSet<BTreeSet<String>> {
    let mut events: Vec<&Event> = scene.live();
    events.sort_by_key(|event| event.time);
    let n = events.len();
    let mut edges: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
    for later in 0..n {
        for earlier in 0..later {
            let (f, e) = (events[earlier], events[later]);
            if !is_candidate(scene, &events, earlier, later, links, candidates) {
                continue;
            }
            let (mut evidence, mut joins) = (0i64, 0i64);
            for link in links {
                let weight = (weight(scene, link, f, e) * 1000.0).round() as i64;
                evidence += weight;
                joins += if link.joins { weight } else { 0 };
            }
            if evidence >= 1000 {
                edges.insert((earlier, later), (evidence as u64, if joins >= 1000 { joins as u64 } else { 0 }));
            }
        }
    }
    let of = |event: usize| edges.iter().filter(move |((a, b), _)| *a == event || *b == event);
    let core: Vec<bool> = (0..n).map(|event| of(event).map(|(_, (_, joins))| joins).sum::<u64>() >= support).collect();
    let mut label: Vec<Option<usize>> = (0..n).map(|event| core[event].then_some(event)).collect();
    loop {
        let before = label.clone();
        for (&(a, b), &(_, joins)) in &edges {
            if joins > 0 && core[a] && core[b] {
                let least = label[a].min(label[b]);
                (label[a], label[b]) = (least, least);
            }
        }
        if label == before {
            break;
        }
    }
    for outer in (0..n).filter(|&event| !core[event]) {
        // By cluster: the sum, and the earliest event of its core that it has an edge to.
        let mut sums: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
        for (&(a, b), &(evidence, _)) in of(outer) {
            let other = if a == outer { b } else { a };
            if core[other] {
                let sum = sums.entry(label[other].unwrap()).or_insert((0, other));
                *sum = (sum.0 + evidence, sum.1.min(other));
            }
        }
        sums.retain(|_, (sum, _)| *sum >= belongs);
        label[outer] = sums.into_iter().min_by_key(|&(_, (sum, first))| (u64::MAX - sum, first)).map(|(label, _)| label);
    }
    let mut sets: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (event, label) in label.iter().enumerate() {
        if let Some(label) = label {
            sets.entry(*label).or_default().insert(events[event].id.clone());
        }
    }
    sets.into_values().filter(|set| set.len() >= 2).collect()
}

/// What a link says of two events; 0 if it does not hold.
fn weight(scene: &Scene, link: &Link, f: &Event, e: &Event) -> f64 {
    let apart = e.time - f.time;
    if apart > link.within || link.host && (f.host.is_none() || f.host != e.host) {
        return 0.0;
    }
    if link.cause.is_some_and(|cause| f.category != cause) || link.effect.is_some_and(|effect| e.category != effect) {
        return 0.0;
    }
    let mut weight = link.weight;
    if let Some(most) = link.hops {
        match scene.hops(&f.service, &e.service, e.time) {
            Some(hops) if hops <= most && hops >= link.min_hops => weight *= 0.5f64.powi(hops as i32),
            _ => return 0.0,
        }
    }
    match link.half_life {
        Some(half_life) => weight * libm::exp2(-(apart as f64) / half_life as f64),
        None => weight,
    }
}

/// Whether they meet in the bucket of a host, or of a place.
fn is_candidate(scene: &Scene, events: &[&Event], f: usize, e: usize, links: &[Link], most: usize) -> bool {
    let few = |posted: &dyn Fn(&Event) -> bool, looks: &dyn Fn(&Event) -> bool| {
        let between = &events[f + 1..e];
        posted(events[f])
            && looks(events[e])
            && between.iter().filter(|event| posted(event)).count() < most
    };
    let links = || links.iter().filter(|link| link.weight > 0.0);
    let longest = links().map(|link| link.within).max().unwrap();
    let near = |event: &Event, place: &str| {
        links().any(|link| {
            link.hops.is_some_and(|most| !link.host && scene.hops(place, &event.service, event.time).is_some_and(|hops| hops <= most))
                && link.effect.is_none_or(|effect| event.category == effect)
        })
    };
    let place = &events[f].service;
    let posts = |event: &Event| {
        let may = |link: &Link| link.hops.is_some() && !link.host && link.cause.is_none_or(|cause| event.category == cause);
        event.service == *place && links().any(may)
    };
    events[e].time - events[f].time <= longest
        && (few(&posts, &|event| near(event, place))
            || links().filter(|link| link.host).any(|link| {
                let here = |event: &Event| event.host.is_some() && event.host == events[f].host;
                let posted = |event: &Event| here(event) && link.cause.is_none_or(|cause| event.category == cause);
                let looks = |event: &Event| here(event) && link.effect.is_none_or(|effect| event.category == effect);
                few(&posted, &looks)
            }))
}
