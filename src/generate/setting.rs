//! What a simulation is a function of.

use clap::ValueEnum;
use levada_types::ConnectorError;

/// How hard it is to find in the events what is true: it sets all that is not set by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Difficulty {
    /// Little noise, and hardly ever two things at once.
    Easy,
    /// Half of it noise.
    Normal,
    /// Mostly noise, several things at once, and much that looks like what it is not.
    Hard,
}

/// When a simulation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After so many events; labels and what changes rarely are not counted.
    Events(u64),
    /// After so long, in milliseconds of event time.
    Time(u64),
}

/// Which of the many possible streams. The same setting gives the same bytes, on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// What is random is drawn from it.
    pub seed: u64,
    /// When it ends.
    pub length: Length,
    /// What the others are if they are not set.
    pub difficulty: Difficulty,
    /// Events a second of event time.
    pub rate: Option<f64>,
    /// How much of it is noise, from 0 to 1; each simulation says what that is.
    pub noise: Option<f64>,
    /// How many of the things that are to be found go on at once, on average.
    pub overlap: Option<f64>,
}

impl Setting {
    /// That of this seed and difficulty, and of so many events.
    pub fn events(seed: u64, difficulty: Difficulty, events: u64) -> Setting {
        Setting { seed, length: Length::Events(events), difficulty, rate: None, noise: None, overlap: None }
    }
}

/// A value within its bounds, or what is wrong with it.
pub(super) fn within(name: &str, value: f64, least: f64, most: f64) -> Result<f64, ConnectorError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(ConnectorError::configuration(format!("simulate with {name} {value}: it is from {least} to {most}")))
}
