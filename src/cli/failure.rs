//! Why a command that works on topics stopped.

use std::io;

use levada_connectors::log::LogError;
use levada_types::ConnectorError;
use thiserror::Error;

/// A command failed. The message finishes the sentence "failed to …".
#[derive(Debug, Error)]
pub enum Failure {
    /// A source or a sink.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The embedded log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Standard output.
    #[error("failed to write to standard output: {0}")]
    Output(#[from] io::Error),
    /// Anything else.
    #[error("failed to {0}")]
    Other(String),
}

impl Failure {
    /// What a command says that wrote to standard output: a reader that has gone away (`… | head`) is no
    /// failure.
    pub fn unless_reader_left(result: Result<(), Failure>) -> Result<(), Failure> {
        match result {
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}
