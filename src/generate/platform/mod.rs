//! A platform's alerts, made up: incidents that spread along the services' dependencies, amid noise; and which event is
//! of which incident.
//!
//! ```text
//!  platform.events     {"id":"e-00000001","at":ms,"category":"latency","service":"checkout-2","host":"h-12",
//!                       "region":"eu-west","severity":3,"text":"p99 of checkout-2 rose to 1800 ms, …"}   by service
//!  platform.topology   {"at":ms,"service":"checkout-2","depends_on":"ledger-1","linked":true}            by service
//!  platform.labels     {"id":"e-00000001","incident":"i-0042"}, or null: no job reads it                 by id
//! ```
//!
//! # How events come to be
//!
//! **Services** ([`graph`]): 104 to 176, in three layers, sparse; all dependencies are told at the beginning, and every
//! 20 minutes on average one comes or goes. `at` of an event is at most [`OUT_OF_ORDER_MS`] behind the greatest one
//! before it; the topology is in order. Ids grow in the order in which events come.
//!
//! **Incidents** begin at random, `overlap` / (mean duration) a second; how long one goes on (until the last service that
//! it reached may speak no more) and how many it reaches is measured beforehand on a thousand of them. One begins at a service on which others depend, of the middle
//! or of those that keep data; in a share of cases (`near`) within two dependencies of one that is going on. It has one
//! of twelve themes (a release, a full disk, packet loss, …) and a code ([`words`]). It [reaches](cascade) those that
//! depend on the service, as the graph is when it begins, with 0.8, 0.6, 0.45 and 0.3 by hop, 3 s to 3 min later each:
//! at least one more service, at most 24.
//!
//! **What a reached service says**: some events (`rate` × (1 - `noise`) shared out over the incidents, at least one; the
//! more the rarer), over 40 to 200 s, first quickly and then slowly. In a share of cases (`root_late`) the root speaks
//! only after up to 90 s, when others have spoken already. Its category is that of the theme (in 4 of 10 events of the
//! root) or drawn by layer. A text names the cause (the root, or the service from which the incident came) and the
//! theme with its code, each in a share of events (`names_cause`, `names_theme`).
//!
//! **Noise** is `noise` of all events, at any service: more at those that incidents reach often, so that the service tells
//! little; also while they are in one. A share
//! (`flapping`) comes in bursts of one service, as long and with as many events as a reached service has, with one
//! theme and code, but no other service; the others are single. Their categories, severities, causes (a dependency, or
//! one of that) and texts are drawn as those of incidents are, so no field tells one from the other; severities are
//! a little higher in incidents. A few (`decoys`) name theme and code of an incident that is going on.
//!
//! | | easy | normal | hard |
//! | --- | --- | --- | --- |
//! | rate, events a second | 0.025 | 0.25 | 1 |
//! | noise | 0.2 | 0.5 | 0.7 |
//! | overlap: incidents going on at once | 0.25 | 1.5 | 4 |
//! | near | 0 | 0.3 | 0.6 |
//! | root late | 0 | 0.15 | 0.3 |
//! | names cause, names theme | 0.8, 0.8 | 0.6, 0.5 | 0.4, 0.35 |
//! | flapping | 0 | 0.25 | 0.4 |
//! | decoys | 0 | 0.01 | 0.03 |
//!
//! So who knows times, dependencies and texts can tell much of it, and nobody all: an event of noise at a service that
//! an incident has just reached looks like one of the incident.
//!
//! Memory: the services, those that are speaking, and what is on its way; a stream may be of any length.

mod cascade;
mod graph;
mod stream;
#[cfg(test)]
mod tests;
mod words;

use levada_types::ConnectorError;
use serde::Serialize;

pub use self::stream::Platform;
pub use super::arrival::OUT_OF_ORDER_MS;
use super::setting::{Difficulty, Setting, within};
use super::topics::Topic;

/// The topics, in the order of [`super::topics::Record`]'s numbers.
pub const TOPICS: [Topic; 3] = [
    Topic { name: "platform.events", spread: true },
    Topic { name: "platform.topology", spread: false },
    Topic { name: "platform.labels", spread: false },
];

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Category {
    Deploy,
    Latency,
    Error,
    Saturation,
    Database,
    Network,
    Security,
    UserReport,
}

impl Category {
    const ALL: [Category; 8] = [
        Category::Deploy,
        Category::Latency,
        Category::Error,
        Category::Saturation,
        Category::Database,
        Category::Network,
        Category::Security,
        Category::UserReport,
    ];
}

/// The table above, with what was set.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rate: f64,
    noise: f64,
    overlap: f64,
    near: f64,
    root_late: f64,
    names_cause: f64,
    names_theme: f64,
    flapping: f64,
    decoys: f64,
}

impl Shape {
    fn new(setting: &Setting) -> Result<Shape, ConnectorError> {
        let preset = match setting.difficulty {
            Difficulty::Easy => Shape {
                rate: 0.025,
                noise: 0.2,
                overlap: 0.25,
                near: 0.0,
                root_late: 0.0,
                names_cause: 0.8,
                names_theme: 0.8,
                flapping: 0.0,
                decoys: 0.0,
            },
            Difficulty::Normal => Shape {
                rate: 0.25,
                noise: 0.5,
                overlap: 1.5,
                near: 0.3,
                root_late: 0.15,
                names_cause: 0.6,
                names_theme: 0.5,
                flapping: 0.25,
                decoys: 0.01,
            },
            Difficulty::Hard => Shape {
                rate: 1.0,
                noise: 0.7,
                overlap: 4.0,
                near: 0.6,
                root_late: 0.3,
                names_cause: 0.4,
                names_theme: 0.35,
                flapping: 0.4,
                decoys: 0.03,
            },
        };
        Ok(Shape {
            rate: within("a rate of", setting.rate.unwrap_or(preset.rate), 0.001, 10_000.0)?,
            noise: within("a share of noise of", setting.noise.unwrap_or(preset.noise), 0.0, 0.99)?,
            overlap: within("an overlap of", setting.overlap.unwrap_or(preset.overlap), 0.01, 100.0)?,
            ..preset
        })
    }
}
