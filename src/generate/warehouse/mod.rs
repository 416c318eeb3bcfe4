//! A warehouse, made up: tasks, workers and scans; zones that get more than they can do, workers who grow slower; and
//! when that truly began and ended.
//!
//! ```text
//!  warehouse.tasks     {"task":"t-0000017","at":ms,"kind":"created","zone":"z-3","type":"pick","units":7,"worker":null}
//!                      kind: created, assigned (then with its worker), completed                         by zone
//!  warehouse.workers   {"worker":"w-021","at":ms,"kind":"log_in","zone":"z-3"}
//!                      kind: log_in, log_out, break_begin, break_end                                     by worker
//!  warehouse.scans     {"worker":"w-021","at":ms,"zone":"z-3","task":"t-0000017","unit":4}               by worker
//!  warehouse.labels    {"kind":"overload","zone":"z-3","worker":null,"from":ms,"until":ms}
//!                      {"kind":"decline","zone":"z-3","worker":"w-021","from":ms,"until":ms}, once it is over, or with
//!                      no `until` when the stream ends: no job reads it
//! ```
//!
//! # How events come to be
//!
//! It begins on a Monday at 06:00 UTC. An event is at most [`OUT_OF_ORDER_MS`] behind the greatest time before it.
//!
//! **Zones and crews** ([`site`]): a zone for each 0.3 events a second of `rate`, at least two. Each has a crew of 5 to
//! 11 for the shifts from 06:00 and 14:00, and one of about half as many from 22:00, the same people every day. Who is
//! on duty logs in up to ten minutes after the shift begins, takes three breaks (15, 30, 15 minutes, each some time within
//! two hours) when the task at hand is done, and logs out at the end of the shift. Each has a pace of their own; some are new, and always slower.
//!
//! **Tasks** come at random, so many that a crew is busy for a share of its time that depends on the hour (0.5 at night,
//! 0.72 in the afternoon), and wait in their zone's queue for the next who is free. A task takes a time by its type and
//! units, times the worker's pace, times chance (a standard deviation of half of `noise`). Each unit is a scan.
//!
//! **Overload** of a zone: for 40 to 100 minutes it gets 1.3 to 1.7 times what its crew can do; in one of three cases not
//! by more tasks alone, but because up to half of the crew leave for that time. It begins with that, and ends
//! when no more tasks wait than there are workers, which is later.
//!
//! **Decline** of a worker: tasks and scans take longer, growing over 30 to 60 minutes to 1.25 to 1.6 times, and stay so;
//! an hour to three in all, or until the end of the shift, which is an hour later at least. It begins an hour after log-in or later.
//!
//! `overlap` is how many of both there are at once, on average, half of them overloads (an overload counted as 150
//! minutes, a decline as 85 rather than 105, as none begins in the first and the last hour
//! of a shift).
//!
//! **What looks like it and is not**, the more the more `noise`: bursts (1.6 to 2.4 times as many tasks for 5 to 10
//! minutes), times in which two of five tasks are heavy ones, workers who move to another zone for the rest of their
//! shift, pauses of 4 to 10 minutes that nobody logs within a task, and new workers.
//!
//! | | easy | normal | hard |
//! | --- | --- | --- | --- |
//! | rate, events a second | 2.4 | 2.4 | 2.4 |
//! | noise | 0.15 | 0.35 | 0.6 |
//! | overlap | 0.5 | 1 | 2 |

mod site;
mod stream;
#[cfg(test)]
mod tests;

use levada_types::ConnectorError;

pub use self::stream::Warehouse;
pub use super::arrival::OUT_OF_ORDER_MS;
use super::setting::{Difficulty, Setting, within};
use super::topics::Topic;

/// The topics, in the order of [`super::topics::Record`]'s numbers.
pub const TOPICS: [Topic; 4] = [
    Topic { name: "warehouse.tasks", spread: true },
    Topic { name: "warehouse.workers", spread: true },
    Topic { name: "warehouse.scans", spread: true },
    Topic { name: "warehouse.labels", spread: false },
];

/// The table above, with what was set.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rate: f64,
    noise: f64,
    overlap: f64,
}

impl Shape {
    fn new(setting: &Setting) -> Result<Shape, ConnectorError> {
        let (noise, overlap) = match setting.difficulty {
            Difficulty::Easy => (0.15, 0.5),
            Difficulty::Normal => (0.35, 1.0),
            Difficulty::Hard => (0.6, 2.0),
        };
        Ok(Shape {
            rate: within("a rate of", setting.rate.unwrap_or(2.4), 0.3, 1000.0)?,
            noise: within("noise of", setting.noise.unwrap_or(noise), 0.0, 1.0)?,
            overlap: within("an overlap of", setting.overlap.unwrap_or(overlap), 0.01, 1000.0)?,
        })
    }
}
