//! Failures of the world outside, in terms of what to do about them.

use thiserror::Error;

/// Whose fault an outside failure is, and so whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The configuration is wrong; trying again cannot help.
    Configuration,
    /// The outside system is not reachable or not ready; try again with backoff.
    Outage,
    /// What is stored there is damaged; stop, and say where.
    Damage,
}

/// A source or a sink failed. The message finishes the sentence "failed to …".
#[derive(Clone, Debug, Error)]
#[error("failed to {message}")]
pub struct ConnectorError {
    /// Whose fault it is.
    pub blame: Blame,
    /// What was tried and what went wrong, naming the file, topic or field.
    pub message: String,
}

impl ConnectorError {
    /// A wrong configuration.
    pub fn configuration(message: impl Into<String>) -> Self {
        ConnectorError { blame: Blame::Configuration, message: message.into() }
    }
    /// An unreachable system.
    pub fn outage(message: impl Into<String>) -> Self {
        ConnectorError { blame: Blame::Outage, message: message.into() }
    }
    /// Damaged data.
    pub fn damage(message: impl Into<String>) -> Self {
        ConnectorError { blame: Blame::Damage, message: message.into() }
    }
}
