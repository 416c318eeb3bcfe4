//! The stream itself: what happens is taken in the order of its time, and tells what happens next.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

use levada_types::ConnectorError;
use serde::Serialize;

use super::cascade::{self, Trouble};
use super::graph::{Change, Graph, Layer};
use super::words::{self, Names, Theme};
use super::{Category, Shape};
use crate::generate::arrival::Arrival;
use crate::generate::random::Random;
use crate::generate::setting::{Length, Setting};
use crate::generate::topics::Record;
use crate::generate::{BEGIN_MS, event};

const EVENTS: usize = 0;
const TOPOLOGY: usize = 1;
const LABELS: usize = 2;

const SECOND_US: f64 = 1e6;
const CHANGE_EVERY_US: f64 = 1200.0 * SECOND_US;
/// For how long a reached service speaks.
const LEAST_SPAN_US: u64 = 40_000_000;
const MOST_SPAN_US: u64 = 200_000_000;
const MOST_ROOT_LATE_US: u64 = 90_000_000;
const MEASURED_INCIDENTS: u64 = 1000;
/// Noise is of a service as often as incidents reach it, and this many of [`MEASURED_INCIDENTS`] besides.
const NOISE_AT_ANY: u64 = 10;

/// Weights of categories by layer, in the order of [`Category::ALL`].
const CATEGORIES: [[u64; 8]; 3] =
    [[4, 32, 30, 9, 4, 8, 4, 13], [5, 29, 28, 14, 8, 8, 5, 3], [5, 22, 18, 18, 22, 8, 5, 2]];
/// Weights of severities from 1 to 5.
const SEVERITY_IN_INCIDENTS: [u64; 5] = [2, 4, 5, 4, 2];
const SEVERITY_IN_NOISE: [u64; 5] = [3, 5, 5, 3, 1];
/// In how many of a hundred events the category is the theme's: at the root of an incident, and of noise.
const OF_THEME_AT_ROOT: u64 = 40;
const OF_THEME_IN_NOISE: u64 = 12;

/// The records of one simulation, in the order in which they come.
pub struct Platform {
    random: Random,
    shape: Shape,
    graph: Graph,
    /// By service: how much of the noise is of it.
    noisy: Vec<u64>,
    to_come: BinaryHeap<Due>,
    scheduled: u64,
    arrival: Arrival<Told>,
    going_on: Vec<GoingOn>,
    /// How many incidents have begun, and how many events have come.
    incidents: u64,
    came: u64,
    most_events: u64,
    until_us: u64,
    /// Means, in microseconds, from one to the next: of events of noise that are single, of bursts, of incidents.
    single_every_us: f64,
    burst_every_us: f64,
    incident_every_us: f64,
    /// How many events a reached service has, on average.
    events_each: f64,
    ready: VecDeque<Record>,
}

/// What happens at a time. Turned around in its order: the first is the greatest.
struct Due {
    at_us: u64,
    number: u64,
    what: What,
}

enum What {
    Single,
    Burst,
    Incident,
    Change,
    Speaks(Voice),
}

/// A service that tells of one thing, event by event.
struct Voice {
    service: usize,
    trouble: Rc<Trouble>,
    incident: Option<u64>,
    /// The service from which the trouble came.
    through: usize,
    said: u32,
    says: u32,
    span_us: f64,
}

/// An incident that may still be heard of.
struct GoingOn {
    trouble: Rc<Trouble>,
    services: Vec<usize>,
    until_us: u64,
}

/// An event on its way.
struct Told {
    at_us: u64,
    category: Category,
    service: usize,
    host: u64,
    severity: u8,
    text: String,
    incident: Option<u64>,
}

impl Platform {
    /// The stream of this setting.
    ///
    /// # Errors
    /// When the setting is out of bounds, or leaves less than an event for each service that an incident reaches.
    pub fn new(setting: &Setting) -> Result<Platform, ConnectorError> {
        let shape = Shape::new(setting)?;
        let mut random = Random::new(setting.seed);
        let graph = Graph::new(&mut random);
        let Measured { by_service, duration_us } = measured(&graph, &mut random);
        let reached = by_service.iter().sum::<u64>() as f64 / MEASURED_INCIDENTS as f64;
        let noisy = graph.services.iter().zip(&by_service);
        let noisy = noisy.map(|(service, reached)| service.chatter * (NOISE_AT_ANY + reached)).collect();
        let incident_every_us = duration_us / shape.overlap;
        let events_each = shape.rate / SECOND_US * (1.0 - shape.noise) * incident_every_us / reached;
        if events_each < 1.0 {
            let least = shape.rate / events_each;
            return Err(ConnectorError::configuration(format!(
                "simulate {} events a second: with this share of noise and overlap, an incident needs a rate of {least:.3} \
                 to have an event of each service that it reaches",
                shape.rate
            )));
        }
        let noise_every_us = |share: f64| SECOND_US / (shape.rate * shape.noise * share);
        let (most_events, until_us) = match setting.length {
            Length::Events(events) => (events, u64::MAX),
            Length::Time(ms) => (u64::MAX, ms.saturating_mul(1000)),
        };
        let mut platform = Platform {
            random,
            graph,
            noisy,
            to_come: BinaryHeap::new(),
            scheduled: 0,
            arrival: Arrival::new(),
            going_on: Vec::new(),
            incidents: 0,
            came: 0,
            most_events,
            until_us,
            single_every_us: noise_every_us(1.0 - shape.flapping),
            burst_every_us: noise_every_us(shape.flapping) * events_each,
            incident_every_us,
            events_each,
            ready: VecDeque::new(),
            shape,
        };
        let links: Vec<Change> = platform.graph.links().collect();
        links.into_iter().for_each(|link| platform.tell_change(0, link));
        platform.again(0, platform.single_every_us, What::Single);
        platform.again(0, platform.burst_every_us, What::Burst);
        platform.again(0, platform.incident_every_us, What::Incident);
        platform.again(0, CHANGE_EVERY_US, What::Change);
        Ok(platform)
    }

    fn schedule(&mut self, at_us: u64, what: What) {
        if at_us <= self.until_us {
            self.to_come.push(Due { at_us, number: self.scheduled, what });
            self.scheduled += 1;
        }
    }

    /// It happens after some time of waiting; if that is without end, never.
    fn again(&mut self, now_us: u64, every_us: f64, what: What) {
        if every_us.is_finite() {
            let wait_us = self.random.exponential() * every_us;
            self.schedule(now_us + wait_us as u64, what);
        }
    }

    fn happens(&mut self, Due { at_us, what, .. }: Due) {
        match what {
            What::Single => {
                let voice = self.noise(1);
                self.speak(at_us, &voice);
                self.again(at_us, self.single_every_us, What::Single);
            }
            What::Burst => {
                let says = self.random.count(self.events_each);
                let voice = self.noise(says);
                self.schedule(at_us, What::Speaks(voice));
                self.again(at_us, self.burst_every_us, What::Burst);
            }
            What::Incident => {
                self.begin_incident(at_us);
                self.again(at_us, self.incident_every_us, What::Incident);
            }
            What::Change => {
                if let Some(change) = self.graph.change(&mut self.random) {
                    self.tell_change(at_us, change);
                }
                self.again(at_us, CHANGE_EVERY_US, What::Change);
            }
            What::Speaks(mut voice) => {
                self.speak(at_us, &voice);
                voice.said += 1;
                if voice.said < voice.says {
                    let says = f64::from(voice.says);
                    let gap_us = voice.span_us / says * (0.4 + 1.2 * f64::from(voice.said) / says);
                    let wait_us = self.random.exponential() * gap_us;
                    self.schedule(at_us + wait_us as u64, What::Speaks(voice));
                }
            }
        }
    }

    fn begin_incident(&mut self, at_us: u64) {
        self.going_on.retain(|one| one.until_us > at_us);
        let near = self.random.chance(self.shape.near);
        let Some(root) =
            near.then(|| self.neighbour()).flatten().or_else(|| root(&self.graph, &mut self.random))
        else {
            return;
        };
        self.incidents += 1;
        let trouble = cascade::trouble(root, &mut self.random);
        let reached = cascade::reached(root, at_us, &self.graph, &mut self.random);
        let services = reached.iter().map(|one| one.service).collect();
        let mut until_us = at_us;
        for one in reached {
            let late = one.service == root && self.random.chance(self.shape.root_late);
            let late_us = if late { self.random.below(MOST_ROOT_LATE_US) } else { 0 };
            let span_us = span_us(&mut self.random);
            let voice = Voice {
                service: one.service,
                trouble: Rc::clone(&trouble),
                incident: Some(self.incidents),
                through: one.through,
                said: 0,
                says: self.random.count(self.events_each),
                span_us: span_us as f64,
            };
            until_us = until_us.max(one.at_us + span_us);
            self.schedule(one.at_us + late_us, What::Speaks(voice));
        }
        self.going_on.push(GoingOn { trouble, services, until_us });
    }

    /// A service within two dependencies of an incident that is going on, if one is, and others depend on it.
    fn neighbour(&mut self) -> Option<usize> {
        let going_on = self.going_on.len() as u64;
        let beside = self.going_on.get(self.random.below(going_on.max(1)) as usize)?;
        let mut service = self.random.pick(&beside.services);
        for _ in 0..=self.random.below(2) {
            let (on, by) = (self.graph.depends_on(service), self.graph.used_by(service));
            let step = self.random.below((on.len() + by.len()).max(1) as u64) as usize;
            service = *on.iter().chain(by).nth(step)?;
        }
        (!self.graph.used_by(service).is_empty()).then_some(service)
    }

    /// A service that tells of something that is no incident, so many times.
    fn noise(&mut self, says: u32) -> Voice {
        let random = &mut self.random;
        let service = random.weighted(self.noisy.iter().copied());
        // What it names as the cause: a dependency, or one of that.
        let mut through = service;
        let mut root = service;
        for hop in 0..2 {
            let on = self.graph.depends_on(root);
            if on.is_empty() || hop == 1 && random.below(2) == 0 {
                break;
            }
            root = random.pick(on);
            through = if hop == 0 { root } else { through };
        }
        let decoy = random.chance(self.shape.decoys) && !self.going_on.is_empty();
        let trouble = if decoy {
            let one = random.below(self.going_on.len() as u64) as usize;
            let Trouble { theme, code, .. } = &*self.going_on[one].trouble;
            Rc::new(Trouble { root, theme, code: code.clone() })
        } else {
            cascade::trouble(root, random)
        };
        let span_us = span_us(random) as f64;
        Voice { service, trouble, incident: None, through, said: 0, says, span_us }
    }

    fn speak(&mut self, at_us: u64, voice: &Voice) {
        let random = &mut self.random;
        let service = &self.graph.services[voice.service];
        let trouble = &voice.trouble;
        let theme: &'static Theme = trouble.theme;
        let at_root = voice.incident.is_some() && voice.service == trouble.root;
        let of_theme = match (voice.incident, at_root) {
            (None, _) => OF_THEME_IN_NOISE,
            (_, true) => OF_THEME_AT_ROOT,
            (_, false) => 0,
        };
        let category = if random.below(100) < of_theme {
            theme.category
        } else {
            Category::ALL[random.weighted(CATEGORIES[service.layer as usize])]
        };
        let weights = if voice.incident.is_some() { SEVERITY_IN_INCIDENTS } else { SEVERITY_IN_NOISE };
        let severity = 1 + random.weighted(weights) as u8;
        let host = random.pick(&service.hosts);
        let cause = if random.below(2) == 0 { trouble.root } else { voice.through };
        let names_cause = cause != voice.service && random.chance(self.shape.names_cause);
        let names_theme = random.chance(self.shape.names_theme);
        let names = Names {
            service: &service.name,
            host,
            cause: names_cause.then(|| self.graph.services[cause].name.as_str()),
            theme: names_theme.then_some((theme, trouble.code.as_str())),
        };
        let text = words::sentence(category, &names, random);
        let told =
            Told { at_us, category, service: voice.service, host, severity, text, incident: voice.incident };
        self.arrival.send(at_us, told, &mut self.random);
    }

    fn tell_change(&mut self, at_us: u64, change: Change) {
        #[derive(Serialize)]
        struct Link<'a> {
            at: i64,
            service: &'a str,
            depends_on: &'a str,
            linked: bool,
        }
        let name = |service: usize| self.graph.services[service].name.as_str();
        let service = name(change.service);
        let link = Link {
            at: instant_ms(at_us),
            service,
            depends_on: name(change.depends_on),
            linked: change.linked,
        };
        self.ready.push_back(Record { topic: TOPOLOGY, event: event(link.at, service, &link) });
    }

    fn tell(&mut self, told: &Told) {
        #[derive(Serialize)]
        struct Alert<'a> {
            id: &'a str,
            at: i64,
            category: Category,
            service: &'a str,
            host: String,
            region: &'a str,
            severity: u8,
            text: &'a str,
        }
        #[derive(Serialize)]
        struct Label<'a> {
            id: &'a str,
            incident: Option<String>,
        }
        self.came += 1;
        let id = format!("e-{:08}", self.came);
        let service = &self.graph.services[told.service];
        let at = instant_ms(told.at_us);
        let alert = Alert {
            id: &id,
            at,
            category: told.category,
            service: &service.name,
            host: format!("h-{}", told.host),
            region: service.region,
            severity: told.severity,
            text: &told.text,
        };
        let label = Label { id: &id, incident: told.incident.map(|number| format!("i-{number:04}")) };
        self.ready.push_back(Record { topic: EVENTS, event: event(at, &service.name, &alert) });
        self.ready.push_back(Record { topic: LABELS, event: event(at, &id, &label) });
    }
}

impl Iterator for Platform {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            if self.came == self.most_events {
                return None;
            }
            let next_us = self.to_come.peek().map_or(u64::MAX, |due| due.at_us);
            if let Some(told) = self.arrival.next_before(next_us) {
                self.tell(&told);
            } else {
                let due = self.to_come.pop()?;
                self.happens(due);
            }
        }
    }
}

/// What was seen of [`MEASURED_INCIDENTS`] incidents.
struct Measured {
    /// How many reached each service.
    by_service: Vec<u64>,
    /// How long one goes on, on average.
    duration_us: f64,
}

fn measured(graph: &Graph, random: &mut Random) -> Measured {
    let (mut by_service, mut duration_us) = (vec![0; graph.services.len()], 0);
    for _ in 0..MEASURED_INCIDENTS {
        let Some(root) = root(graph, random) else { continue };
        let reached = cascade::reached(root, 0, graph, random);
        reached.iter().for_each(|one| by_service[one.service] += 1);
        duration_us += reached.iter().map(|one| one.at_us + span_us(random)).max().unwrap_or_default();
    }
    Measured { by_service, duration_us: duration_us as f64 / MEASURED_INCIDENTS as f64 }
}

/// A service behind the edge on which others depend.
fn root(graph: &Graph, random: &mut Random) -> Option<usize> {
    let may_be = |service: &usize| {
        graph.services[*service].layer != Layer::Edge && !graph.used_by(*service).is_empty()
    };
    let services: Vec<usize> = (0..graph.services.len()).filter(may_be).collect();
    (!services.is_empty()).then(|| random.pick(&services))
}

fn span_us(random: &mut Random) -> u64 {
    LEAST_SPAN_US + random.below(MOST_SPAN_US - LEAST_SPAN_US)
}

fn instant_ms(at_us: u64) -> i64 {
    BEGIN_MS + (at_us / 1000) as i64
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}
