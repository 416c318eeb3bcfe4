//! The one module of the engine that reads the clock.
//!
//! Time of day enters a job only here and only in live operation: when an epoch is closed and when
//! a silent partition is declared idle. Both are inputs of the job from then on; no operator sees
//! a clock.

// The one place that may.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use timely::scheduling::activate::Activator;
use xxhash_rust::xxh3::xxh3_64;

/// The number of the live epoch that is open now: all workers of a job agree on it to within the
/// difference of their clocks.
pub(super) fn live_epoch(interval_ms: u64) -> u64 {
    unix_ms() / interval_ms.max(1)
}

/// How long until the live epoch after `epoch` begins.
pub(super) fn until_after(epoch: u64, interval_ms: u64) -> Duration {
    let next = (epoch + 1).saturating_mul(interval_ms.max(1));
    Duration::from_millis(next.saturating_sub(unix_ms()).max(1))
}

/// The time of day in milliseconds since the Unix epoch UTC.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A number that no other beginning of a job has.
pub(super) fn beginning() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    xxh3_64(format!("{now} {}", std::process::id()).as_bytes())
}

/// Measures for the metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Stopwatch(Instant::now())
    }
    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Wakes an operator later, once, however often it is asked to.
pub(super) struct Alarm {
    activator: Activator,
    due: Option<Instant>,
}

impl Alarm {
    pub(super) fn new(activator: Activator) -> Self {
        Alarm { activator, due: None }
    }

    /// Asks to be woken within `delay`.
    pub(super) fn within(&mut self, delay: Duration) {
        let now = Instant::now();
        let wanted = now + delay;
        if self.due.is_none_or(|due| due <= now || due > wanted) {
            self.due = Some(wanted);
            self.activator.activate_after(delay);
        }
    }
}
